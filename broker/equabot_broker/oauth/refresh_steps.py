"""Decides the next step of a refresh, for a login whose store is locked and was read again (ADR 7)."""

from enum import Enum

from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import refresh_at


class Pending(Enum):
    """The result of the last time that the refresh token was sent."""

    NOTHING = "it was not sent, or it was answered"
    SENT = "a process that no longer runs has sent it"
    UNANSWERED = "it was sent and not answered"


class Step(Enum):
    """The action on a login after its store was locked and read again."""

    GONE = "there is nothing to refresh"
    ADOPT = "another process has refreshed it"
    REFUSED = "it was refused for good before"
    INTERRUPT = "a refresh was interrupted: it may have used up the refresh token, which is never sent again"
    HOLD = "the last refresh got no answer, and the access token is still valid"
    REDEEM = "redeem its refresh token"


def decide(profile: Profile | None, pending: Pending, *, seen: SecretValue | None, forced: bool, now: float) -> Step:
    """The next step. `seen` is the access token to replace, because it is due or (`forced`) because the provider refuses it.

    A refresh token whose redemption got no answer is sent again only if nothing can be lost: if it was used up, the endpoint
    may revoke all tokens of the login, with the valid access token.
    """
    if profile is None or profile.refresh is None:
        return Step.GONE
    if profile.secret is not None and profile.secret != seen and not _due(profile, now):
        return Step.ADOPT
    if profile.reauth:
        return Step.REFUSED
    if pending is Pending.SENT:
        return Step.INTERRUPT
    if pending is Pending.UNANSWERED and not forced and profile.expires_at is not None and now < profile.expires_at:
        return Step.HOLD
    return Step.REDEEM


def _due(profile: Profile, now: float) -> bool:
    if profile.expires_at is None:
        return False
    return now >= refresh_at(issued_at=profile.issued_at, expires_at=profile.expires_at, chance=0.0)
