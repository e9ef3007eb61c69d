"""What the ledger of the token endpoint, the people's notes and the list of deaths come to: the laws of the proof."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from equabot_broker.domain.relogin import INTERRUPTED, SUPERSEDED
from equabot_broker.formats.refresh_marks import digest
from tests.fakes.token_endpoint import LOSING, REFUSING, Entry
from tests.proof.person import Ended
from tests.proof.worker import DOUBTFUL


@dataclass(frozen=True, slots=True)
class Death:
    """A process that died: at which point ("" for a random instant), and with whose refresh token (its digest) in hand."""

    point: str
    in_hand: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known. `stored` are the refresh tokens in the stores at the end; `doubtful` the fault points between
    intent and outcome; `cut_off` the digests of those that somebody had in hand who could not reach the store any more, and
    may be taken for dead; `gave_up` the requests for whose answer a living process waited as long as it may, in vain."""

    ledger: list[Entry]
    ended: list[Ended]
    deaths: list[Death]
    stored: list[str]
    doubtful: frozenset[str] = frozenset(DOUBTFUL)
    cut_off: frozenset[str] = frozenset()
    gave_up: frozenset[str] = frozenset()


def violations(found: Evidence) -> list[str]:
    """Every breach of a law."""
    return [*_presented_again(found), *_ended_without_cause(found), *_deaths_unseen(found), *_not_living(found)]


def unheard(found: Evidence) -> set[int]:
    """The requests, by their numbers, whose answers never reached the one who asked.

    That the endpoint has written an answer does not mean that it was read: on a busy machine it comes after the asker's time.
    """
    answered = {entry.number for entry in found.ledger if entry.event == "answered"}
    presented = (entry for entry in found.ledger if entry.event == "presented")
    return {
        entry.number
        for entry in presented
        if entry.fault in LOSING or entry.number not in answered or entry.asked in found.gave_up
    }


def lost(found: Evidence) -> set[str]:
    """The tokens that were redeemed for an answer which never reached the one who asked."""
    numbers = unheard(found)
    return {entry.token for entry in found.ledger if entry.verdict == "redeemed" and entry.number in numbers}


def _of(token: str) -> str:
    return digest({"refresh": token})


def _presented_again(found: Evidence) -> Iterator[str]:
    """No refresh token is presented after it was redeemed; but one whose answer was lost on its way to a living process may be,
    until an answer arrives that says what the endpoint thinks of it. And none is, after whoever sent it died."""
    numbers = unheard(found)
    broken_off = {ended.digest: ended.at for ended in found.ended if ended.code == INTERRUPTED}
    shown: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in found.ledger:
        if entry.event == "presented":
            shown[entry.token].append(entry)
    for token, entries in shown.items():
        spent = next((n for n, entry in enumerate(entries) if entry.verdict == "redeemed" and entry.successor != token), None)
        if spent is not None:
            yield from _replays(token, entries[spent + 1 :], allowed=entries[spent].number in numbers, unheard=numbers)
        at = broken_off.get(_of(token))
        if at is not None and any(entry.at > at + 0.001 for entry in entries):
            yield f"{token[:16]}… was presented after its refresh was broken off"


def _replays(token: str, again: Iterable[Entry], *, allowed: bool, unheard: set[int]) -> Iterator[str]:
    refused = False
    for entry in again:
        if not allowed:
            yield f"{token[:16]}… was presented after it was redeemed, by request {entry.number}"
        elif refused:
            yield f"{token[:16]}… was presented after the endpoint had refused it, by request {entry.number}"
        refused = refused or (entry.verdict in ("reused", "over") and entry.number not in unheard)


def _ended_without_cause(found: Evidence) -> Iterator[str]:
    """No login ends that the endpoint did not end; but one does where a process died, or was cut off, between intent and
    store, and one whose answer was lost after it was redeemed."""
    in_hands = {death.in_hand for death in found.deaths} | found.cut_off
    tokens = {_of(entry.token): entry.token for entry in found.ledger if entry.token}
    estranged = {entry.token for entry in found.ledger if entry.fault == "other_account"}
    revoked = set(_ended_by_the_endpoint(found))
    spent = {entry.token for entry in found.ledger if entry.verdict == "redeemed" and entry.successor != entry.token}
    given_up = {ended.digest for ended in found.ended if ended.code != SUPERSEDED}
    for ended in found.ended:
        token = tokens.get(ended.digest, "")
        justified = {
            INTERRUPTED: ended.digest in in_hands,
            "different_account": token in estranged,
            SUPERSEDED: token in spent or ended.digest in given_up,
        }
        if not justified.get(ended.code, token in revoked):
            yield f"{ended.agent} {ended.profile} ended ({ended.code}, {ended.digest}), and nobody ended it"


def _ended_by_the_endpoint(found: Evidence) -> Iterator[str]:
    """The refresh tokens of the logins that the endpoint ended: by a fault, or because a token was shown again whose answer had
    been lost."""
    doubtful = lost(found)
    of_token: dict[str, str] = {}
    over: set[str] = set()
    for entry in found.ledger:
        match entry:
            case Entry(event="login"):
                of_token[entry.token] = entry.login
            case Entry(event="presented", verdict="redeemed"):
                of_token[entry.successor] = entry.login
            case Entry(event="presented", fault=fault) if fault in REFUSING:
                over.add(entry.login)
            case Entry(event="presented", verdict="reused") if entry.token in doubtful:
                over.add(entry.login)
    return (token for token, login in of_token.items() if login in over)


def _deaths_unseen(found: Evidence) -> Iterator[str]:
    """Whoever dies between intent and store is noticed; whoever dies elsewhere costs no login. Of one who dies while a request
    is on its way nobody knows on which side."""
    broken_off = {ended.digest for ended in found.ended if ended.code == INTERRUPTED}
    doubtful = {death.in_hand for death in found.deaths if death.point in found.doubtful}
    unknown = {death.in_hand for death in found.deaths if _is_anywhere(death)} | found.cut_off
    for death in found.deaths:
        if death.point in found.doubtful and death.in_hand not in broken_off:
            yield f"a death at {death.point!r} with {death.in_hand} in hand was not noticed"
        if death.point not in found.doubtful and not _is_anywhere(death) and death.in_hand in broken_off - doubtful - unknown:
            yield f"a death at {death.point!r} with {death.in_hand} in hand cost a login"


def _is_anywhere(death: Death) -> bool:
    return not death.point or death.point.endswith("on its way")


def _not_living(found: Evidence) -> Iterator[str]:
    """At the end, when everything has come to rest, every login in the stores is one that the endpoint would go on with."""
    over: set[str] = set()
    of_token: dict[str, str] = {}
    spent: set[str] = set()
    for entry in found.ledger:
        if entry.event == "ended":
            over.add(entry.login)
        elif entry.event == "login":
            of_token[entry.token] = entry.login
        elif entry.verdict == "redeemed":
            of_token[entry.successor] = entry.login
            if entry.successor != entry.token:
                spent.add(entry.token)
    for token in found.stored:
        if token in spent or of_token.get(token, "") in over | {""}:
            yield f"the store ends with a dead refresh token, {token[:16]}…"


def summary(found: Evidence, counts: Mapping[str, int]) -> dict[str, object]:
    """Numbers for a reader."""
    points: defaultdict[str, int] = defaultdict(int)
    for death in found.deaths:
        points[death.point or "at random"] += 1
    codes: defaultdict[str, int] = defaultdict(int)
    for ended in found.ended:
        codes[ended.code] += 1
    faults: defaultdict[str, int] = defaultdict(int)
    for entry in found.ledger:
        if entry.event == "presented":
            faults[entry.fault or entry.verdict] += 1
    return {
        "rounds": sum(counts.values()),
        "ended as": dict(counts),
        "presented": sum(faults.values()),
        "redeemed": sum(entry.verdict == "redeemed" for entry in found.ledger),
        "answers": dict(sorted(faults.items())),
        "deaths": dict(sorted(points.items())),
        "logins that ended": dict(sorted(codes.items())),
    }
