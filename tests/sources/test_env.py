"""The environment as a source."""

from broker.domain.discovery import Rules
from broker.providers import BUILT_IN
from broker.sources.env import Env, process_environment
from tests.fakes.following import RULES, following


async def test_it_is_listed_once_and_again_when_asked() -> None:
    """An environment does not tell when it changes; a reload reads it again."""
    environ = {"OPENAI_API_KEY": "one", "PATH": "/bin"}
    source = Env(rules=RULES, environ=lambda: environ)
    async with following(source) as events:
        assert await events.next() == {"": {"openai:env": "one"}}
        environ["OPENAI_API_KEY"] = "two"
        source.reread()
        assert await events.next() == {"": {"openai:env": "two"}}


async def test_a_profile_says_which_variable_it_came_from() -> None:
    """A person can look there."""
    async with following(Env(rules=RULES, environ=lambda: {"OPENAI_API_KEY": "changeme"})) as events:
        event = await events.event()
        profile = event.units[0].profiles[0]  # type: ignore[union-attr]
        assert (profile.source, profile.unit, profile.origin) == ("env", "", "environment variable OPENAI_API_KEY")
        assert profile.fault == "environment variable OPENAI_API_KEY is a placeholder: put the real value there"


async def test_bytes_that_are_no_text_make_an_invalid_profile() -> None:
    """The operating system puts no encoding on the environment."""
    async with following(Env(rules=Rules(BUILT_IN), environ=lambda: {"OPENAI_API_KEY": "k\udcff"})) as events:
        assert await events.next() == {"": {"openai:env": "!"}}


def test_by_default_it_is_that_of_the_process() -> None:
    """The only other door to it is the configuration's."""
    assert "PATH" in process_environment()
