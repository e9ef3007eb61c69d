"""A refreshable login as an entry of a store: which step is next, and what each step leaves in the entry.

Beside the seed system's fields an entry has three of our own. `issuedAt` (ms) is when its access token was given.
`pendingRefresh {digest, at, by}` is written before a refresh token is sent, and taken away with the answer: who finds it,
holding the store's lock, knows that its writer died in between, so that the token may be spent. With `unanswered` in it the
writer lived, and got no answer. `reauthRequired {code, at, digest}` says that the token is refused for good. Both count only
for the refresh token that has the digest: whoever logs in anew, with whatever program, is rid of them.

A lock that ends by time can be lost by one who lives (a process that stood still, a network in two halves). So every attempt
has a name, `by`: whoever was taken for dead, and comes back, undoes nothing but its own; and only a new refresh token, which
ends every doubt about the old one, is written whatever is there.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from equabot_broker.domain.auth_document import PENDING, REAUTH, Json, fingerprint
from equabot_broker.domain.oauth import Tokens, refresh_at
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.secret_value import SecretValue

INTERRUPTED: Final = "interrupted"
"""The code of a login whose refresh nobody lived to finish."""
SUPERSEDED: Final = "superseded"
"""The code of a login whose refresh token was exchanged or given up before, and has been put back."""
ISSUED: Final = "issuedAt"

_OTHERS: Final = {"claude-cli": "claude setup-token", "codex-cli": "codex login", "qwen-cli": "qwen"}
"""Names of logins that are made by other tools, and the command with which those log in."""

Entry = Mapping[str, Any]


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


def login_command(profile_id: str, agent: str = "") -> str:
    """The command with which a person logs in again."""
    provider, _, name = profile_id.partition(":")
    of_agent = f" --agent {agent}" if agent else ""
    return _OTHERS.get(name) or f"equabot models auth login --provider {provider}{of_agent}"


def how_to_log_in(profile: Profile) -> str:
    """What a person does to bring a new login to where the profile's is kept."""
    command = login_command(profile.id, profile.agent)
    if profile.source.partition(" ")[0] != "kubernetes":
        return f"run `{command}`"
    if profile.origin.endswith(".credentials.json"):
        command = "claude"
    return f"run `{command}` on a machine of yours, and put the login that it stores into {profile.origin}"


# -- what an entry says ------------------------------------------------------------------------------------------------


def pending(entry: Entry) -> Pending:
    """What the entry says of its refresh token's last use."""
    mark = entry.get(PENDING)
    if not isinstance(mark, dict) or not digest(entry) or mark.get("digest") != digest(entry):
        return Pending.NOTHING
    return Pending.UNANSWERED if mark.get("unanswered") is True else Pending.SENT


def issued_at(entry: Entry) -> float | None:
    """When the access token was given, in seconds since the epoch."""
    value = entry.get(ISSUED)
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**15
    return value / 1000 if known else None  # type: ignore[operator]


def digest(entry: Entry) -> str:
    """What tells the entry's refresh token from others, and nothing else of it; empty where it has none."""
    refresh = entry.get("refresh")
    written = refresh.strip() if isinstance(refresh, str) else ""
    return fingerprint(SecretValue(written)) if written else ""


# -- what each step leaves ---------------------------------------------------------------------------------------------


def with_intent(entry: Entry, *, by: str, now: float) -> Json:
    """Before the refresh token is sent, by an attempt of that name."""
    return _unmarked(entry) | {PENDING: {"digest": digest(entry), "at": _ms(now), "by": by}}


def with_doubt(entry: Entry, *, by: str, now: float) -> Json:
    """It was sent, and no answer came. As it is where another attempt has been made meanwhile."""
    mark = {"digest": digest(entry), "at": _ms(now), "by": by, "unanswered": True}
    return _unmarked(entry) | {PENDING: mark} if _is_of(entry, by) else dict(entry)


def without_intent(entry: Entry, *, by: str) -> Json:
    """It was not spent. As it is where another attempt has been made meanwhile."""
    return _unmarked(entry) if _is_of(entry, by) else dict(entry)


def with_refusal(entry: Entry, code: str, *, now: float) -> Json:
    """It was refused for good."""
    return _unmarked(entry) | {REAUTH: {"code": code, "at": _ms(now), "digest": digest(entry)}}


def with_interruption(entry: Entry, *, found: Entry, now: float) -> Json:
    """Nobody lived to finish the attempt whose intent was `found` in the entry. As it is where that stands there no more."""
    mark = found.get(PENDING)
    if pending(entry) is not Pending.SENT or entry.get(PENDING) != mark or not isinstance(mark, dict):
        return dict(entry)
    by = {"by": mark["by"]} if "by" in mark else {}
    refused = with_refusal(entry, INTERRUPTED, now=now)
    return refused | {REAUTH: refused[REAUTH] | by}


def with_tokens(entry: Entry, tokens: Tokens, *, by: str) -> Json:
    """It was redeemed by an attempt of that name. What the entry knew of the account stays.

    Where the refresh token stays the same, the entry is as it is if another attempt has been made meanwhile: that one may have
    spent the token, and its mark is all that keeps others from sending it again.
    """
    fields: Json = {"access": tokens.access.reveal(), "expires": _ms(tokens.expires_at), ISSUED: _ms(tokens.issued_at)}
    if tokens.refresh is not None:
        fields["refresh"] = tokens.refresh.reveal()
    for name, value in (("accountId", tokens.account), ("email", tokens.email)):
        if value and not entry.get(name):
            fields[name] = value
    written = _unmarked(entry) | fields
    return written if digest(written) != digest(entry) or _is_of(entry, by) else dict(entry)


def _is_of(entry: Entry, by: str) -> bool:
    """Whether what is noted of the refresh token, if anything is, comes from the attempt of that name."""
    marks = [mark for mark in (entry.get(PENDING), entry.get(REAUTH)) if isinstance(mark, dict)]
    return all(mark.get("by") == by for mark in marks if mark.get("digest") == digest(entry))


def _unmarked(entry: Entry) -> Json:
    return {name: value for name, value in entry.items() if name not in (PENDING, REAUTH)}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
