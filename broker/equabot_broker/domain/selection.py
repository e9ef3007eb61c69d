"""Which profile serves a request. The rules are those of the seed's system.

An explicit order is exclusive and kept. Without one: oauth, then token, then api_key; inside a kind the least recently used
first; profiles from the environment and `.env` form a last tier, in the order of the sources. Those in cooldown come last,
by soonest end. What cannot serve is never tried, but for one request that is to find out whether a refused credential is good
again. A login that a refresh brings back has its place all the same, and whoever
takes it waits for that; one whose refreshes fail comes after those in cooldown.

A credential that the vendor takes from one client program alone comes after everything else for all other programs, unless an
explicit order names it. It comes last in an explicit order as well, once the vendor has refused it to such a program.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import NEVER, Assessment, Revival
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.provider import Mode

UNORDERED: Final = "not in the order, which is exclusive"
"""Why a profile is not tried that an explicit order leaves out."""
_KIND: Final = {Mode.OAUTH: 0, Mode.WIF: 0, Mode.TOKEN: 1, Mode.API_KEY: 2}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile that might serve, with what it is worth and what is remembered of it."""

    held: HeldProfile
    standing: Assessment
    usage: Usage

    @property
    def id(self) -> str:
        return self.held.profile.id

    def for_model(self, model: str, *, now: float) -> "Candidate":
        """The candidate as a request for this model sees it; the same object where that makes no difference."""
        standing = self.standing.for_model(model, now=now) if model else self.standing
        if standing is self.standing:
            return self
        cooling = max(self.usage.cooldown_until, standing.cooling_until)
        return Candidate(self.held, standing, replace(self.usage, cooldown_until=cooling))


class Plan:
    """The candidates of one agent and provider, ready to be taken from in O(1).

    Groups are tried in order and taken from in rotation, which is what "least recently used first" comes to while nothing
    else changes; `cooling` come after them; `unusable` and `excluded` (id → why) never. The plan holds until `valid_until` or
    until anything about its candidates changes, whichever is first. For a model in `models` it is another plan. Those in
    `unsuited` are among the last of `cooling`: they are not for the program that asks.
    """

    __slots__ = ("_groups", "_places", "cooling", "excluded", "models", "unsuited", "unusable", "valid_until")

    def __init__(
        self,
        groups: Iterable[Iterable[Candidate]],
        *,
        cooling: Sequence[Candidate],
        unusable: Sequence[Candidate],
        excluded: Mapping[str, str],
        unsuited: Collection[str] = (),
    ) -> None:
        self._groups = [OrderedDict((c.id, c) for c in group) for group in groups]
        self.cooling = tuple(cooling)
        self.unusable = tuple(unusable)
        self.excluded = excluded
        self.unsuited = frozenset(unsuited)
        last = OrderedDict((c.id, c) for c in cooling)
        self._places = {profile: group for group in (*self._groups, last) for profile in group}
        everyone = (*self.ordered(), *self.unusable)
        self.models = frozenset(model for c in everyone for model in c.standing.models)
        self.valid_until = min((c.standing.valid_until for c in everyone), default=NEVER)

    def find(self, profile_id: str) -> Candidate | None:
        """The candidate of that id, if it can serve."""
        group = self._places.get(profile_id)
        return None if group is None else group[profile_id]

    def first(self) -> Candidate | None:
        """The candidate whose turn it is."""
        if self._groups:
            return next(iter(self._groups[0].values()))
        return self.cooling[0] if self.cooling else None

    def used(self, profile_id: str) -> None:
        """Notes that a candidate was used: it becomes the most recently used of its group."""
        group = self._places.get(profile_id)
        if group is not None:
            group.move_to_end(profile_id)

    def take(self) -> Candidate | None:
        """The candidate whose turn it is, noted as used."""
        candidate = self.first()
        if candidate is not None:
            self.used(candidate.id)
        return candidate

    def ordered(self) -> list[Candidate]:
        """All that can serve, in the order in which they would be tried."""
        return [c for group in self._groups for c in group.values()] + list(self.cooling)


def plan(candidates: Iterable[Candidate], *, order: Sequence[str] | None, now: float, unsuited: Collection[str] = ()) -> Plan:
    """Ranks the candidates. `order` is the explicit one, or None; ids in it that no candidate has are excluded as missing.
    `unsuited` are the ids that are not for the program that asks: they come last."""
    if order is None:
        # Of those that cool down equally long no turns are taken, so that using one does not change the ranking.
        ready, cooling, unusable = _split(sorted(candidates, key=lambda c: c.id), now=now, unsuited=unsuited)
        ready.sort(key=lambda c: c.usage.last_used)
        groups: dict[tuple[int, int, int], list[Candidate]] = {}
        for candidate in ready:
            groups.setdefault(_group(candidate), []).append(candidate)
        ranked = [groups[key] for key in sorted(groups)]
        return Plan(ranked, cooling=cooling, unusable=unusable, excluded={}, unsuited=unsuited)
    known = {c.id: c for c in candidates}
    wanted = dict.fromkeys(order)
    ready, cooling, unusable = _split([known[i] for i in wanted if i in known], now=now, unsuited=unsuited)
    excluded = {i: "no source holds it" for i in wanted if i not in known}
    excluded |= {i: UNORDERED for i in sorted(known) if i not in wanted}
    return Plan([[c] for c in ready], cooling=cooling, unusable=unusable, excluded=excluded, unsuited=unsuited)


def _split(
    ranked: Sequence[Candidate], *, now: float, unsuited: Collection[str]
) -> tuple[list[Candidate], list[Candidate], list[Candidate]]:
    """Those that serve, or will; those in cooldown by soonest end, whose refreshes fail, and the unsuited ones; those that
    cannot serve. Else in the order given."""
    coming = [c for c in ranked if _comes(c.standing)]
    waiting = [c for c in coming if c.standing.cooling_until > now]
    waiting.sort(key=lambda c: (not c.standing.usable, c.standing.cooling_until))
    failing = [c for c in ranked if c.standing.revival is Revival.FAILING]
    ready = [c for c in coming if c.standing.cooling_until <= now]
    late = waiting + failing
    last = [c for c in ready + late if c.id in unsuited]
    late = [c for c in late if c.id not in unsuited] + last
    ready = [c for c in ready if c.id not in unsuited]
    return ready, late, [c for c in ranked if not _comes(c.standing) and c.standing.revival is Revival.NONE]


def _comes(standing: Assessment) -> bool:
    return standing.usable or standing.trial or standing.revival is Revival.COMING


def _group(candidate: Candidate) -> tuple[int, int, int]:
    held = candidate.held
    kind = _KIND[held.profile.mode]
    return (1, held.rank, kind) if held.tail else (0, kind, 0)


def explicit_order(
    provider: str, *, stored: Sequence[str] | None, configured: Mapping[str, Sequence[str]]
) -> Sequence[str] | None:
    """The order that applies: the agent's stored one, else the configured one, else None."""
    return stored or configured.get(provider)
