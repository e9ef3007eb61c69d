"""`equabot key` as a helper of other programs."""

import pytest

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("acme",), 1, "PROVIDER_UNKNOWN"),
        (("openai",), 1, "NO_USABLE_PROFILE"),
        (("anthropic", "--delivery", "brokered"), 1, "DELIVERY_NOT_ALLOWED"),
        (("anthropic", "--delivery", "neither"), 1, "DELIVERY_NOT_ALLOWED"),
    ],
)
def test_a_refusal_is_one_line_and_final(
    shared_broker: RunningBroker, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    """C10: nothing on standard output, that a program would take for a key."""
    done = shared_broker.run("key", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"equabot: {reason}: ")
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stderr


def test_without_a_broker_it_says_so_at_once(make_broker: MakeBroker) -> None:
    """C10: with a code of its own."""
    done = make_broker().run("key", "anthropic", "--delivery", "brokered")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
