"""What may be told of a profile: everything but its secret."""

from equabot_broker.diagnosis.statuses import ProfileStatus, describe
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import assess
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.domain.selection import Candidate

NOW = 1_800_000_000.0
FRESH = Usage()
CANARY = "sk-canary-0123456789-abcdefgh"


def candidate(secret: str | None = CANARY, usage: Usage = FRESH, *, expires_at: float | None = None) -> Candidate:
    held = HeldProfile(
        Profile(
            id="anthropic:work", provider="anthropic", mode=Mode.TOKEN, source="mounted /run", unit="u", origin="/run/KEY",
            secret=None if secret is None else SecretValue(secret), fault="" if secret else "empty", expires_at=expires_at,
        ), 0, 7,
    )  # fmt: skip
    return Candidate(held, assess(held, usage, now=NOW, warn_within=86400.0), usage)


def told(found: Candidate) -> ProfileStatus:
    return describe(found, reason="why", is_next=True, usable=True, pinned=False, base_url="https://x", now=NOW)


def test_a_status_is_the_whole_of_it() -> None:
    """Names, states and instants; of the secret at most four characters on each side."""
    usage = Usage(last_used=NOW - 5, cooldown_until=NOW + 60, disabled_until=NOW + 90, disabled_reason="billing")
    status = told(candidate(usage=usage, expires_at=NOW + 100))
    assert status == ProfileStatus(
        id="anthropic:work", provider="anthropic", mode="token", source="mounted /run", state="expiring", reason="why",
        next=True, usable=True, pinned=False, label="sk-c…efgh", expires_at=NOW + 100, cooldown_until=NOW + 60,
        disabled_until=NOW + 90, disabled_reason="billing", last_used_at=NOW - 5, base_url="https://x", version=7,
        retry_at=NOW + 90,
    )  # fmt: skip
    assert CANARY[4:-4] not in repr(status)


def test_what_has_ended_is_not_told() -> None:
    """A cooldown that lapsed is no cooldown, and the reason of a disable ends with it."""
    usage = Usage(cooldown_until=NOW, disabled_until=NOW, disabled_reason="billing")
    status = told(candidate(usage=usage))
    assert (status.cooldown_until, status.disabled_until, status.disabled_reason) == (0.0, 0.0, "")


def test_a_profile_without_a_secret_has_no_label() -> None:
    """Nor does one that never expires have an end."""
    status = told(candidate(secret=None))
    assert (status.label, status.state, status.expires_at) == ("", "invalid", 0.0)


def test_a_profile_that_no_source_holds_is_missing() -> None:
    """What stands in an order but nowhere else."""
    status = ProfileStatus(id="anthropic:gone", provider="anthropic")
    assert (status.state, status.usable, status.next, status.version) == ("missing", False, False, 0)
