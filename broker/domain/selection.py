"""Which profile serves a request. The rules are those of the seed's system.

An explicit order is exclusive and kept. Without one: oauth, then token, then api_key; inside a kind the least recently used
first; profiles from the environment and `.env` form a last tier, in the order of the sources. Those in cooldown come last,
by soonest end. What cannot serve is refused with its reason.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker.domain.cooldowns import Usage
from broker.domain.credentials import NEVER, Standing
from broker.domain.material import Held
from broker.domain.provider import Mode

_KIND: Final = {Mode.OAUTH: 0, Mode.WIF: 0, Mode.TOKEN: 1, Mode.API_KEY: 2}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile that might serve, with what it is worth and what is remembered of it."""

    held: Held
    standing: Standing
    usage: Usage

    @property
    def id(self) -> str:
        return self.held.profile.id


class Plan:
    """The candidates of one agent and provider, ready to be taken from in O(1).

    Groups are tried in order and taken from in rotation, which is what "least recently used first" comes to while nothing
    else changes; `cooling` come after them; `refused` never. The plan holds until `valid_until` or until anything about its
    candidates changes, whichever is first.
    """

    __slots__ = ("_groups", "_places", "cooling", "refused", "valid_until")

    def __init__(
        self, groups: Iterable[Iterable[Candidate]], cooling: Sequence[Candidate], refused: Sequence[tuple[str, str]]
    ) -> None:
        self._groups = [OrderedDict((c.id, c) for c in group) for group in groups]
        self.cooling = tuple(cooling)
        self.refused = tuple(refused)
        last = OrderedDict((c.id, c) for c in cooling)
        self._places = {profile: group for group in (*self._groups, last) for profile in group}
        self.valid_until = min((group[i].standing.valid_until for i, group in self._places.items()), default=NEVER)

    def find(self, profile_id: str) -> Candidate | None:
        """The candidate of that id, if it can serve."""
        group = self._places.get(profile_id)
        return None if group is None else group[profile_id]

    def take(self) -> Candidate | None:
        """The next candidate, which thereby becomes the most recently used of its group."""
        for group in self._groups:
            candidate = next(iter(group.values()))
            group.move_to_end(candidate.id)
            return candidate
        return self.cooling[0] if self.cooling else None

    def used(self, profile_id: str) -> None:
        """Notes that a candidate was used without being taken."""
        group = self._places.get(profile_id)
        if group is not None:
            group.move_to_end(profile_id)

    def ordered(self) -> list[Candidate]:
        """All that can serve, in the order in which they would be tried."""
        return [c for group in self._groups for c in group.values()] + list(self.cooling)

    def reasons(self) -> dict[str, str]:
        """Why each of the others cannot serve, by id."""
        return dict(self.refused)


def plan(candidates: Sequence[Candidate], *, order: Sequence[str] | None, now: float) -> Plan:
    """Ranks the candidates. `order` is the explicit one, or None; ids in it that no candidate has are refused as missing."""
    if order is not None:
        known = {c.id: c for c in candidates}
        listed = [known[i] for i in dict.fromkeys(order) if i in known]
        refused = [(i, "no source holds it") for i in order if i not in known]
        refused += [(c.id, "not in the order, which is exclusive") for c in candidates if c.id not in set(order)]
        ready, cooling, unusable = _split(listed, now=now)
        return Plan([[c] for c in ready], cooling, refused + unusable)
    ready, cooling, refused = _split(candidates, now=now)
    groups: dict[tuple[int, int, int], list[Candidate]] = {}
    for candidate in ready:
        groups.setdefault(_group(candidate), []).append(candidate)
    return Plan(
        [sorted(groups[key], key=lambda c: (c.usage.last_used, c.id)) for key in sorted(groups)], cooling, refused
    )


def _split(candidates: Sequence[Candidate], *, now: float) -> tuple[list[Candidate], list[Candidate], list[tuple[str, str]]]:
    ready = [c for c in candidates if c.standing.usable and c.standing.cooling_until <= now]
    cooling = [c for c in candidates if c.standing.usable and c.standing.cooling_until > now]
    refused = [(c.id, c.standing.reason or c.standing.state.value) for c in candidates if not c.standing.usable]
    return ready, sorted(cooling, key=lambda c: c.standing.cooling_until), refused


def _group(candidate: Candidate) -> tuple[int, int, int]:
    held = candidate.held
    kind = _KIND[held.profile.mode]
    return (1, held.rank, kind) if held.tail else (0, kind, 0)


def explicit_order(
    provider: str, *, stored: Sequence[str] | None, configured: Mapping[str, Sequence[str]]
) -> Sequence[str] | None:
    """The order that applies: the agent's stored one, else the configured one, else None."""
    return stored if stored else configured.get(provider)
