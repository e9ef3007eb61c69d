"""Refusals: each with a reason the outside relies on, and nothing secret."""

import re

import pytest

from equabot_broker.domain import errors
from equabot_broker.domain.errors import BrokerError


def _all() -> list[type[BrokerError]]:
    return sorted(BrokerError.__subclasses__(), key=lambda error: error.__name__)


def test_the_reasons_are_those_of_the_contract() -> None:
    """Clients branch on them: none may go, change or come unnoticed."""
    assert {error.reason for error in _all()} == {
        "PROVIDER_UNKNOWN", "PROFILE_NOT_FOUND", "NO_USABLE_PROFILE", "POLICY_DENIED", "DELIVERY_NOT_ALLOWED",
        "AGENT_SUSPENDED", "LEASE_NOT_FOUND", "LEASE_EXPIRED", "LEASE_LIMIT", "RATE_LIMITED", "SOURCE_NOT_SYNCED",
        "REFRESH_FAILED", "REAUTH_REQUIRED", "AUDIT_UNAVAILABLE", "STATE_UNAVAILABLE", "INVALID_ARGUMENT", "SHUTTING_DOWN",
    }  # fmt: skip
    assert len({error.reason for error in _all()}) == len(_all())


@pytest.mark.parametrize("error", _all())
def test_an_error_is_named_after_its_reason(error: type[BrokerError]) -> None:
    """Who reads one finds the other."""
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).upper() == error.reason


@pytest.mark.parametrize("error", _all())
def test_the_tree_in_the_docstring_is_the_tree(error: type[BrokerError]) -> None:
    """Name, reason and whether trying again makes sense, as drawn."""
    row = next(line for line in (errors.__doc__ or "").splitlines() if f"── {error.__name__} " in line)
    _, name, reason, retryable, *_ = row.split()
    assert (name, reason, retryable) == (error.__name__, error.reason, "yes" if error.retryable else "no")


def test_an_error_keeps_what_it_was_given() -> None:
    """Message, metadata and when to come again; the metadata is a copy."""
    told = {"anthropic:env": "expired 2h ago"}
    error = errors.NoUsableProfile("none", metadata=told, retry_after=2.5)
    told.clear()
    assert (str(error), error.message) == ("none", "none")
    assert error.metadata == {"anthropic:env": "expired 2h ago"}
    assert error.retry_after == 2.5
    assert errors.LeaseNotFound("gone").metadata == {}
    assert errors.LeaseNotFound("gone").retry_after is None
