import pytest

from equabot_broker.domain import errors as of_broker
from equabot_client import errors
from equabot_client.errors import by_reason


@pytest.mark.parametrize("kind", of_broker.BrokerError.__subclasses__(), ids=lambda kind: kind.reason)
def test_every_reason_of_the_broker_has_an_error_that_judges_alike(kind: type[of_broker.BrokerError]) -> None:
    """Same reason, same name, same verdict on trying again."""
    error = by_reason(kind.reason, "why", retry_after=1.5)
    assert (type(error).__name__, error.retryable) == (kind.__name__, kind.retryable)
    assert (error.reason, str(error), error.retry_after) == (kind.reason, "why", 1.5)


def test_a_reason_of_a_newer_broker_is_still_a_reason() -> None:
    """Callers can tell it by `reason` without a class for it."""
    error = by_reason("MOON_PHASE", "why").again()
    assert (type(error), error.reason, error.retryable) == (errors.EquabotError, "MOON_PHASE", False)


def test_only_where_no_profile_serves_the_metadata_are_candidates() -> None:
    """They map each candidate's id to why it was not used."""
    why = {"anthropic:env": "in cooldown"}
    assert by_reason("NO_USABLE_PROFILE", "none", metadata=why).candidates == why
    assert by_reason("RATE_LIMITED", "slow down", metadata=why).candidates == {}


def test_an_error_raised_again_brings_no_history() -> None:
    """One stored error is raised in many threads: each gets a traceback of its own."""
    try:
        raise by_reason("NO_USABLE_PROFILE", "none", metadata={"a": "b"}, retry_after=2)
    except errors.NoUsableProfile as first:
        again = first.again()
    assert again.__traceback__ is None
    assert (again.message, again.metadata, again.retry_after) == ("none", {"a": "b"}, 2)
