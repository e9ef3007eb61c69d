"""Selects the profile that serves a request. The rules are those of OpenClaw.

An explicit order is exclusive, and its sequence is kept. Without one, oauth comes before token, and token before api_key.
Within a kind the least recently used profile comes first. Profiles from the environment and `.env` form a last tier, in the
order of the sources. Profiles in cooldown come after all others, the soonest end first. A profile that cannot serve is not
tried, except for one request that tests a rejected credential again. A login that needs a refresh keeps its position, and its
request waits for the refresh. If its refreshes fail, it comes after the profiles in cooldown.

Some credentials are accepted from one client program only. For other programs they come last, unless an explicit order names
them. After the vendor has refused such a credential, it comes last in an explicit order as well.
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
"""The reason for a profile that an explicit order does not contain."""
_KIND: Final = {Mode.OAUTH: 0, Mode.WIF: 0, Mode.TOKEN: 1, Mode.API_KEY: 2}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile with its assessment and its usage."""

    held: HeldProfile
    standing: Assessment
    usage: Usage

    @property
    def id(self) -> str:
        return self.held.profile.id

    def for_model(self, model: str, *, now: float) -> "Candidate":
        """The candidate for a request with this model; the same object if nothing differs."""
        standing = self.standing.for_model(model, now=now) if model else self.standing
        if standing is self.standing:
            return self
        cooling = max(self.usage.cooldown_until, standing.cooling_until)
        return Candidate(self.held, standing, replace(self.usage, cooldown_until=cooling))


class Plan:
    """The ranked candidates of one agent and provider. The next one is found in O(1).

    Groups are tried in order, and a group in rotation, which means "least recently used first". `cooling` come after the
    groups. `unusable` and `excluded` (id → reason) are never tried. The plan is valid until `valid_until`, or until one of
    its candidates changes. Models in `models` need a plan of their own. `unsuited` candidates are not for the client program
    of the request: they are at the end of `cooling`.
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
        """The candidate with that id if it can serve, otherwise None."""
        group = self._places.get(profile_id)
        return None if group is None else group[profile_id]

    def first(self) -> Candidate | None:
        """The next candidate, or None."""
        if self._groups:
            return next(iter(self._groups[0].values()))
        return self.cooling[0] if self.cooling else None

    def used(self, profile_id: str) -> None:
        """Makes a candidate the most recently used one of its group."""
        group = self._places.get(profile_id)
        if group is not None:
            group.move_to_end(profile_id)

    def take(self) -> Candidate | None:
        """The next candidate, marked as used, or None."""
        candidate = self.first()
        if candidate is not None:
            self.used(candidate.id)
        return candidate

    def ordered(self) -> list[Candidate]:
        """All candidates that can serve, in the order of attempts."""
        return [c for group in self._groups for c in group.values()] + list(self.cooling)


def plan(candidates: Iterable[Candidate], *, order: Sequence[str] | None, now: float, unsuited: Collection[str] = ()) -> Plan:
    """Ranks the candidates. `order` is the explicit order or None; ids in it without a candidate are excluded.

    `unsuited` are the ids that are not for the client program of the request: they come last.
    """
    if order is None:
        # Candidates whose cooldowns end together are sorted by id: they do not rotate, so a use does not change the ranking.
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
    """Splits the candidates into three lists that keep the given order.

    First those that serve or need a refresh. Then those in cooldown (soonest end first), those whose refreshes fail, and the
    unsuited ones. Last those that cannot serve.
    """
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
    """The order that applies: the stored order of the agent, otherwise the configured one, otherwise None."""
    return stored or configured.get(provider)
