"""Finds credentials that are not for the client program of a request: the vendor accepts them from one program only.

An example is a Claude login. Such a credential comes last for other programs, unless an explicit order names it. Then the
vendor decides: it refuses with 400, like a malformed request. A 400 counts here until the credential has had a success with
such a program. It moves the credential to the end for one agent, for an hour at most, and never removes it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from equabot_broker.domain.cooldowns import HOUR
from equabot_broker.domain.credentials import NEVER
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.provider import Catalog, Mode
from equabot_broker.domain.selection import Candidate
from equabot_broker.ports import Clock

_KEPT: Final = 4096
"""The number of pairs of agent and credential for which an answer is remembered."""

_Key = tuple[str, str, str]


class Suitability:
    """The answers of vendors to other programs than the one that a credential is for."""

    def __init__(self, *, clock: Clock, catalog: Catalog) -> None:
        self._clock = clock
        self._catalog = catalog
        self._answers: OrderedDict[_Key, tuple[int, float]] = OrderedDict()

    def apply(self, catalog: Catalog) -> None:
        """Another configuration is in effect."""
        self._catalog = catalog

    def unsuited(
        self, agent: str, candidates: Iterable[Candidate], *, client: str, ordered: bool
    ) -> tuple[frozenset[str], float]:
        """The ids of candidates that are not for the client program, and the end of this result (seconds since the epoch).

        `ordered`: an explicit order names the candidates.
        """
        ids: set[str] = set()
        until = NEVER
        for candidate in candidates:
            if not self.is_for_another(candidate.held, client):
                continue
            if not ordered:
                ids.add(candidate.id)
            elif (end := self._refused_until(agent, candidate.held)) > self._clock.now():
                ids.add(candidate.id)
                until = min(until, end)
        return frozenset(ids), until

    def is_for_another(self, held: HeldProfile, client: str) -> bool:
        """Whether the vendor accepts the credential only from another program."""
        profile = held.profile
        provider = self._catalog.providers.get(profile.provider)
        if (
            provider is None or profile.mode is Mode.WIF
        ):  # the token of a workload looks like that of a login, but is for any program
            return False
        return provider.only_client(profile.secret) not in ("", client)

    def refused(self, agent: str, held: HeldProfile, *, client: str) -> bool:
        """The vendor answered 400 to the client program. Returns whether the result of `unsuited` changes."""
        key = _key(agent, held)
        if not self.is_for_another(held, client) or self._answers.get(key, (0, 0.0)) == (held.version, NEVER):
            return False
        before = self._refused_until(agent, held)
        self._remember(key, held, self._clock.now() + HOUR)
        return before <= self._clock.now()

    def served(self, agent: str, held: HeldProfile, *, client: str) -> bool:
        """The vendor accepted the credential from the client program. Returns whether the result of `unsuited` changes."""
        if not self.is_for_another(held, client):
            return False
        before = self._refused_until(agent, held)
        self._remember(_key(agent, held), held, NEVER)
        return before > self._clock.now()

    def forget(self, profile_id: str) -> None:
        """Removes the answers about the profile."""
        for key in [key for key in self._answers if key[2] == profile_id]:
            del self._answers[key]

    def _refused_until(self, agent: str, held: HeldProfile) -> float:
        version, until = self._answers.get(_key(agent, held), (0, 0.0))
        return until if version == held.version and until != NEVER else 0.0

    def _remember(self, key: _Key, held: HeldProfile, until: float) -> None:
        self._answers[key] = (held.version, until)
        self._answers.move_to_end(key)
        if len(self._answers) > _KEPT:
            self._answers.popitem(last=False)


def _key(agent: str, held: HeldProfile) -> _Key:
    return agent, held.profile.agent, held.profile.id
