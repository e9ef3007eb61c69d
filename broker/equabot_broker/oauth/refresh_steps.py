"""Which step of a refresh is next, for a login whose store is locked and was read again."""

from enum import Enum

from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import refresh_at


class Pending(Enum):
    """What is known of the last time the refresh token was sent."""

    NOTHING = "it was not sent, or answered"
    SENT = "it was sent by a process that died"
    UNANSWERED = "it was sent, and no answer came"


class Step(Enum):
    """What to do with a login, once its store is locked and read anew."""

    GONE = "there is nothing to refresh any more"
    ADOPT = "somebody else has refreshed it"
    REFUSED = "it was refused for good before"
    INTERRUPT = "a refresh was broken off: it may have spent the token, which is never sent again"
    HOLD = "the last refresh got no answer, and the access token is still good"
    REDEEM = "redeem its refresh token"


def decide(profile: Profile | None, pending: Pending, *, seen: SecretValue | None, forced: bool, now: float) -> Step:
    """The next step. `seen` is the access token that is to be replaced: because its time has come, or (`forced`) because the
    provider refuses it.

    A token whose redemption was left unanswered is sent again only when there is nothing left to lose: if it is spent, the
    endpoint may take its whole family back, the living access token included.
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
