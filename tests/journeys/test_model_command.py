"""`/model` in a conversation with a real broker: what is pinned there is what requests get."""

from datetime import timedelta

import pytest

import equabot_client.aio
from equabot_client import Broker, Outcome, errors
from equabot_client.model_command import AsyncModelSwitch, ModelSwitch
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

SONNET, GPT = "anthropic/claude-sonnet-4-5", "openai/gpt-5"
ALIASES = {"sonnet": SONNET, "gpt": GPT}


@pytest.fixture
def two_keys(make_broker: MakeBroker) -> RunningBroker:
    """A broker with `anthropic:dotenv` and `anthropic:dotenv-b`."""
    return make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\nANTHROPIC_API_KEY_B={OTHER_KEY}\n").start()


def _served(broker: Broker, *, session: str) -> str:
    with broker.lease("anthropic", session=session) as lease:
        return lease.profile


def test_a_pin_decides_who_serves_the_session_also_after_a_restart(two_keys: RunningBroker) -> None:
    """Whatever served it before, and no other session; until the model is chosen without a profile."""
    with two_keys.connect() as broker:
        models = ModelSwitch(broker, session="s", default="sonnet", aliases=ALIASES)
        _served(broker, session="s")
        for pinned in ("anthropic:dotenv-b", "anthropic:dotenv", "anthropic:dotenv-b"):
            reply = models.handle(f"/model sonnet@{pinned}")
            assert reply.text == f"Model: {SONNET} (sonnet)\nProfile: {pinned} (pinned)"
            assert (reply.model, reply.changed) == (SONNET, True)
            assert {_served(broker, session="s") for _ in range(3)} == {pinned}
        assert {_served(broker, session=f"other-{number}") for number in range(4)} == {"anthropic:dotenv", "anthropic:dotenv-b"}

        assert two_keys.stop() == 0
        two_keys.start()
        assert {_served(broker, session="s") for _ in range(3)} == {"anthropic:dotenv-b"}
        two_keys.kill()
        two_keys.start()
        again = ModelSwitch(broker, session="s", default=models.model, aliases=ALIASES)
        assert "1. anthropic/claude-sonnet-4-5 (sonnet): anthropic:dotenv-b (pinned) <- current" in again.handle("/model").text
        assert {_served(broker, session="s") for _ in range(3)} == {"anthropic:dotenv-b"}

        assert again.handle("/model sonnet").changed is True
        assert "pinned" not in again.handle("/model status").text


async def test_the_cooldown_of_a_pinned_profile_is_said_and_a_sibling_serves(two_keys: RunningBroker) -> None:
    """In the reply, the list and the status; on an event loop."""
    async with equabot_client.aio.connect(str(two_keys.socket())) as broker:
        models = AsyncModelSwitch(broker, session="s", default="sonnet", aliases=ALIASES)
        async with broker.lease("anthropic:dotenv-b") as lease:
            await broker.report(lease, Outcome.RATE_LIMIT, retry_after=timedelta(minutes=5))
        reply = await models.handle("/model sonnet@DOTENV-B")
        assert reply.text.startswith(
            f"Model: {SONNET} (sonnet)\nProfile: anthropic:dotenv; pinned: anthropic:dotenv-b (in cooldown for 4m"
        )
        assert "anthropic:dotenv; pinned: anthropic:dotenv-b (in cooldown for" in (await models.handle("/model")).text
        shown = (await models.handle("/model status")).text
        assert "\n\nanthropic at https://api.anthropic.com: anthropic/claude-sonnet-4-5 (sonnet)\n" in shown
        assert (
            "\n1. anthropic:dotenv (api_key): ok, next\n2. anthropic:dotenv-b (api_key): ok, pinned, in cooldown for 4m"
            in shown
        )
        assert shown.endswith("\n\nopenai: openai/gpt-5 (gpt)\n   no profiles")
        assert not any(key in shown or key[-4:] in shown for key in (KEY, OTHER_KEY))
        async with broker.lease("anthropic", session="s") as lease:
            assert lease.profile == "anthropic:dotenv"


def test_what_cannot_be_pinned_is_told_by_the_broker(two_keys: RunningBroker) -> None:
    """A profile that is not there, one of another provider, a provider that is unknown; the pin stays as it was."""
    with two_keys.connect() as broker:
        models = ModelSwitch(broker, session="s", default="sonnet", aliases=ALIASES)
        models.handle("/model sonnet@dotenv-b")
        for command, kind, why in (
            (
                "sonnet@nobody",
                errors.ProfileNotFound,
                "profile 'anthropic:nobody' does not exist; profiles of this provider: anthropic:dotenv, ",
            ),
            ("gpt@anthropic:dotenv", errors.InvalidArgument, "'anthropic:dotenv' is for another provider than 'openai'"),
            ("moon/gpt-0", errors.ProviderUnknown, "provider 'moon' is unknown"),
        ):
            with pytest.raises(kind, match=why):
                models.handle(f"/model {command}")
        assert models.model == SONNET
        assert _served(broker, session="s") == "anthropic:dotenv-b"
        assert models.handle("/model claude/claude-opus-4-5@claude:dotenv-b").text.endswith("anthropic:dotenv-b (pinned)")
