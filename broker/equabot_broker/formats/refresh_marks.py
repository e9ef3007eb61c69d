"""What each step of a refresh writes into the entry of a login (ADR 7).

An entry has OpenClaw's fields and three of ours. `issuedAt` (ms) is when its access token was issued. `pendingRefresh
{digest, at, by}` is written before a refresh token is sent, and removed with the answer. A process that holds the store's lock
and finds it knows that its writer died in between, so that the token may be spent. With `unanswered` in it the writer lived,
and got no answer. `reauthRequired {code, at, digest}` says that the token is refused for good. Both marks count only for the
refresh token that has the digest: a new login, by any program, ends them.

A lock that ends by time can be lost by a living process (one that was stopped, or cut off from the network). So every attempt
has a name, `by`. An attempt that was taken for dead and comes back removes only its own marks. Only a new refresh token is
written in every case, because it ends every doubt about the old one.
"""

from collections.abc import Mapping
from typing import Any, Final

from equabot_broker.domain.relogin import INTERRUPTED
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import PENDING, REAUTH, fingerprint
from equabot_broker.oauth.refresh_steps import Pending
from equabot_broker.oauth.refreshing import Tokens
from equabot_broker.parsing.untrusted_json import Json

ISSUED: Final = "issuedAt"
Entry = Mapping[str, Any]


def pending(entry: Entry) -> Pending:
    """The entry's mark about the last use of its refresh token."""
    mark = entry.get(PENDING)
    if not isinstance(mark, dict) or not digest(entry) or mark.get("digest") != digest(entry):
        return Pending.NOTHING
    return Pending.UNANSWERED if mark.get("unanswered") is True else Pending.SENT


def issued_at(entry: Entry) -> float | None:
    """The time at which the access token was issued, in seconds since the epoch."""
    value = entry.get(ISSUED)
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**15
    return value / 1000 if known else None  # type: ignore[operator]


def digest(entry: Entry) -> str:
    """The digest of the entry's refresh token; empty if it has none."""
    refresh = entry.get("refresh")
    written = refresh.strip() if isinstance(refresh, str) else ""
    return fingerprint(SecretValue(written)) if written else ""


def with_intent(entry: Entry, *, by: str, now: float) -> Json:
    """Marks the entry before this attempt sends the refresh token."""
    return _unmarked(entry) | {PENDING: {"digest": digest(entry), "at": _ms(now), "by": by}}


def with_doubt(entry: Entry, *, by: str, now: float) -> Json:
    """Marks that no answer came. Unchanged if another attempt has been made since."""
    mark = {"digest": digest(entry), "at": _ms(now), "by": by, "unanswered": True}
    return _unmarked(entry) | {PENDING: mark} if _is_of(entry, by) else dict(entry)


def without_intent(entry: Entry, *, by: str) -> Json:
    """Removes the mark: the token was not used up. Unchanged if another attempt has been made since."""
    return _unmarked(entry) if _is_of(entry, by) else dict(entry)


def with_refusal(entry: Entry, code: str, *, now: float) -> Json:
    """Marks that the token was refused for good."""
    return _unmarked(entry) | {REAUTH: {"code": code, "at": _ms(now), "digest": digest(entry)}}


def with_interruption(entry: Entry, *, found: Entry, now: float) -> Json:
    """Marks that the attempt of the intent `found` was interrupted. Unchanged if that intent is no longer in the entry."""
    mark = found.get(PENDING)
    if pending(entry) is not Pending.SENT or entry.get(PENDING) != mark or not isinstance(mark, dict):
        return dict(entry)
    by = {"by": mark["by"]} if "by" in mark else {}
    refused = with_refusal(entry, INTERRUPTED, now=now)
    return refused | {REAUTH: refused[REAUTH] | by}


def with_tokens(entry: Entry, tokens: Tokens, *, by: str) -> Json:
    """Writes the new tokens of this attempt. The entry's account stays.

    If the refresh token is the same, the entry is unchanged if another attempt has been made since: that one may have used up
    the token, and only its mark prevents another use.
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
    """Whether the mark on the refresh token, if there is one, is from this attempt."""
    marks = [mark for mark in (entry.get(PENDING), entry.get(REAUTH)) if isinstance(mark, dict)]
    return all(mark.get("by") == by for mark in marks if mark.get("digest") == digest(entry))


def _unmarked(entry: Entry) -> Json:
    return {name: value for name, value in entry.items() if name not in (PENDING, REAUTH)}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
