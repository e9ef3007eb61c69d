"""The environment as a source."""

from pathlib import Path

import pytest

from broker.domain.discovery import Rules
from broker.domain.material import Unit
from broker.domain.secret_value import SecretValue
from broker.engine.clock import SystemClock
from broker.sources.env import Env, EnvOptions, process_environment
from tests.fakes.following import RULES, UNSHAPED, following


async def test_it_is_listed_once_and_again_when_asked() -> None:
    """An environment does not tell when it changes; a reload reads it again."""
    environ = {"OPENAI_API_KEY": "one", "PATH": "/bin"}
    source = Env(rules=RULES, environ=lambda: environ, clock=SystemClock())
    async with following(source) as events:
        assert await events.next() == {"": {"openai:env": "one"}}
        environ["OPENAI_API_KEY"] = "two"
        source.reread()
        assert await events.next() == {"": {"openai:env": "two"}}


async def test_a_profile_says_which_variable_it_came_from() -> None:
    """A person can look there."""
    async with following(Env(rules=RULES, environ=lambda: {"OPENAI_API_KEY": "changeme"}, clock=SystemClock())) as events:
        event = await events.event()
        profile = event.units[0].profiles[0]  # type: ignore[union-attr]
        assert (profile.source, profile.unit, profile.origin) == ("env", "", "environment variable OPENAI_API_KEY")
        assert profile.fault == "environment variable OPENAI_API_KEY is a placeholder: put the real value there"


async def test_bytes_that_are_no_text_make_an_invalid_profile() -> None:
    """The operating system puts no encoding on the environment."""
    async with following(
        Env(rules=Rules(UNSHAPED), environ=lambda: {"OPENAI_API_KEY": "k\udcff"}, clock=SystemClock())
    ) as events:
        assert await events.next() == {"": {"openai:env": "!"}}


async def listed(options: EnvOptions, **environ: str) -> Unit:
    async with following(Env(options, rules=RULES, environ=lambda: environ, clock=SystemClock())) as events:
        event = await events.event()
        return event.units[0]  # type: ignore[union-attr]


def told(unit: Unit) -> dict[str, tuple[str, str]]:
    """Secrets and origins by profile."""
    return {p.id: (p.secret.reveal() if p.secret else "!", p.origin) for p in unit.profiles}


def shell(tmp_path: Path, script: str) -> str:
    """A stand-in for the user's login shell."""
    path = tmp_path / "shell"
    path.write_text(f'#!/bin/sh\n[ "$1 $2" = "-l -c" ] || exit 9\n{script}\n')
    path.chmod(0o755)
    return str(path)


async def test_the_process_goes_before_the_section_and_that_before_the_login_shell(tmp_path: Path) -> None:
    """Nothing that is set is overridden; an empty variable is none."""
    given = {"OPENAI_API_KEY": SecretValue("given"), "GROQ_API_KEY": SecretValue("given")}
    program = shell(tmp_path, 'OPENAI_API_KEY=x GROQ_API_KEY=x XAI_API_KEY="of\nshell" env -0')
    unit = await listed(EnvOptions(given, 10.0), OPENAI_API_KEY="process", GROQ_API_KEY="", SHELL=program, PATH="/bin:/usr/bin")
    assert told(unit) == {
        "openai:env": ("process", "environment variable OPENAI_API_KEY"),
        "groq:env": ("given", "env section of the configuration, GROQ_API_KEY"),
        "xai:env": ("!", "login shell's variable XAI_API_KEY"),
    }
    assert unit.faults == ()


async def test_a_login_shell_is_asked_only_where_that_is_wanted(tmp_path: Path) -> None:
    """It runs whatever the user's profile says. Of what it tells only credentials are taken."""
    program = shell(tmp_path, f"touch {tmp_path}/ran; OPENAI_API_KEY=mine LANG=xx env -0")
    assert told(await listed(EnvOptions(), SHELL=program)) == {}
    assert not (tmp_path / "ran").exists()
    unit = await listed(EnvOptions(shell_within=10.0), SHELL=program, PATH="/bin:/usr/bin")
    assert told(unit) == {"openai:env": ("mine", "login shell's variable OPENAI_API_KEY")}


@pytest.mark.parametrize(
    ("script", "within", "why"),
    [
        ("sleep 60 & sleep 60", 0.2, "told nothing within 0.2 s: mend its profile, or set env.shellEnv.enabled: false"),
        ("exit 3", 10.0, "ended with 3"),
    ],
)
async def test_a_login_shell_that_fails_is_a_fault_beside_the_rest(
    tmp_path: Path, script: str, within: float, why: str
) -> None:
    """What it has started goes with it."""
    program = shell(tmp_path, script)
    unit = await listed(EnvOptions(shell_within=within), OPENAI_API_KEY="mine", SHELL=program, PATH="/bin:/usr/bin")
    assert told(unit) == {"openai:env": ("mine", "environment variable OPENAI_API_KEY")}
    assert [why in fault.message for fault in unit.faults] == [True]


async def test_a_shell_that_is_none_is_the_systems() -> None:
    """Whatever SHELL says."""
    unit = await listed(EnvOptions(shell_within=10.0), SHELL="no/such", OPENAI_API_KEY="mine", PATH="/bin:/usr/bin")
    assert unit.faults == ()


def test_by_default_it_is_that_of_the_process() -> None:
    """The only other door to it is the configuration's."""
    assert "PATH" in process_environment()
