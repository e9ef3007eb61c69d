"""What the engine asks of the world. Small protocols, owned by who needs them; the rooms above the engine fulfil them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from equabot_broker.domain.cooldowns import Outcome, Usage
from equabot_broker.domain.ends import FirstSeen
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import SourceEvent
from equabot_broker.domain.probing import ProbeResult
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.suspension import Suspension
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.oauth.refreshing import RefreshFailure, TokenAnswer, TokenRequest


class Clock(Protocol):
    """The only place that knows the time."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch. It may jump."""

    def steady(self) -> float:
        """Seconds since some fixed instant. It never jumps, counts through suspension, and goes on across a restart of the
        process (not of the machine)."""

    async def sleep(self, seconds: float) -> None:
        """Returns after so many steady seconds."""


class Source(Protocol):
    """A place where people keep credentials."""

    @property
    def name(self) -> str:
        """Unique among the sources, and readable: `env`, `dotenv /home/me/.equabot/.env`, `mounted /run/secrets/equabot`."""

    def events(self) -> AsyncIterator[SourceEvent]:
        """What the source holds, forever: first `Listed` or `Unavailable`, then every change as it happens.

        It retries by itself and ends only by cancellation. Nothing is read before the first `anext`.
        """

    def reread(self) -> None:
        """Asks for a fresh `Listed` (or `Unavailable`) soon, whether or not something seems to have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """How a profile's version outlives a restart: the number, and a keyed digest of the material it stands for. `places` have
    held the profile, the first one first: source and unit. `seen` is its declared end, if it has one, and for which value."""

    version: int
    digest: bytes
    places: tuple[tuple[str, str], ...] = ()
    seen: FirstSeen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """What a restart of the broker must not lose. No secret in it.

    Leases are in steady seconds of the running machine: a store that was written before a reboot converts them by the wall
    clock when it loads. Keys: `pins` by (agent, session, provider) → (profile, strict); `orders` by (agent, provider);
    `usage` and `versions` by (agent, profile id), agent "" for profiles of every agent; `suspensions` by agent, configured or
    not.
    """

    leases: Sequence[Lease] = ()
    pins: Mapping[tuple[str, str, str], tuple[str, bool]] = field(default_factory=lambda: MappingProxyType({}))
    orders: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    usage: Mapping[tuple[str, str], Usage] = field(default_factory=lambda: MappingProxyType({}))
    versions: Mapping[tuple[str, str], StoredVersion] = field(default_factory=lambda: MappingProxyType({}))
    suspensions: Mapping[str, Suspension] = field(default_factory=lambda: MappingProxyType({}))


class StateStore(Protocol):
    """Where that state lives. Puts are buffered and reach the operating system with `flush`, which is one transaction.

    A store that cannot write (disk full) does not raise: it keeps what it has in memory, says so in `fault`, and the caller
    tries again. None as a value deletes.
    """

    @property
    def fault(self) -> str:
        """Why it cannot write, and what to do. Empty: it can."""

    @property
    def digest_key(self) -> bytes:
        """Random bytes that stay with the store, for `SecretValue.digest`."""

    def load(self) -> StoredState:
        """What was stored. A corrupt store is moved aside, said in the log, and begun anew."""

    def put_lease(self, lease_id: str, lease: Lease | None) -> None: ...

    def put_pin(self, key: tuple[str, str, str], pin: tuple[str, bool] | None) -> None: ...

    def put_order(self, key: tuple[str, str], order: tuple[str, ...] | None) -> None: ...

    def put_usage(self, key: tuple[str, str], usage: Usage | None) -> None: ...

    def put_version(self, key: tuple[str, str], version: StoredVersion | None) -> None: ...

    def put_suspension(self, agent: str, suspension: Suspension | None) -> None: ...

    def flush(self) -> None:
        """Writes what was put. Fast: no fsync."""

    async def sync(self) -> str:
        """Writes what was put, and returns once it would survive the machine's death (fsync). Does not hold up the event loop.
        Returns why it would not, and what to do; empty: it would."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What came of reading the configuration again. With `faults` (what is wrong with it, a line each) or a `refusal` (why a
    sound one cannot be applied) nothing has changed; else `changes` are in effect, a line each, and `ended` leases are over."""

    faults: tuple[str, ...] = ()
    refusal: str = ""
    changes: tuple[str, ...] = ()
    ended: int = 0


class Configuration(Protocol):
    """The configuration of the running broker."""

    async def reload(self, by: str) -> Reloaded:
        """Reads it again, and applies it or nothing of it. `by`: who asks. One at a time: who asks meanwhile waits."""

    async def doubts(self) -> tuple[str, ...]:
        """Why what is in effect is not what the file says now, each with where. Empty: it is."""


class AuditSink(Protocol):
    """Where everything is recorded that somebody may have to account for; it hears of it as events."""

    @property
    def fault(self) -> str:
        """Why nothing can be recorded, and what to do. Empty: it can be."""

    @property
    def doubt(self) -> str:
        """Why the log may not be what a broker wrote, as was found at a start. Empty: nothing, or an operator accepted it."""

    @property
    def anchor_write_fault(self) -> str:
        """Why the log's end cannot be remembered elsewhere. Empty: it can."""

    @property
    def refuses(self) -> bool:
        """Whether nothing may be granted now: it cannot be recorded, or the log is in doubt, and it must be."""

    def accept(self) -> str:
        """An operator accepts the doubt, which is recorded. Returns what was accepted; empty for nothing. Raises
        AuditUnavailable."""


class StoreFault(Exception):
    """Why an agent's profile store cannot be read or written: which file, what is wrong, what to do. Nothing of what is in it,
    and nothing of it has changed."""


class LockedStore(Protocol):
    """An agent's store while nobody else may write it."""

    @property
    def document(self) -> AuthDocument:
        """The store as it was read last, under the lock."""

    async def replace(self, document: AuthDocument) -> None:
        """Writes it, safely to the disk. Raises StoreFault, also when one who ignores locks has written since it was read."""

    async def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        """Reads it again, changes it, writes it, and returns it. For what must not get lost, whoever wrote meanwhile."""


class ProfileStore(Protocol):
    """The agents' profile stores. An agent without a store has an empty one; "" is `main`, whose store everybody reads."""

    def locked(self, agent: str) -> AbstractAsyncContextManager[LockedStore]:
        """The store, locked against every other writer while the context lasts, however long. Raises StoreFault."""

    async def read(self, agent: str) -> AuthDocument:
        """The store as it is now. Raises StoreFault."""

    async def edit(self, agent: str, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        """Reads the store, changes it, writes it, under the lock, and returns it. `change` runs in another thread and touches
        nothing but its argument, which it leaves as it is. Raises StoreFault."""


class LoginStore(Protocol):
    """Where logins are kept that the broker refreshes: the agents' stores, and whatever else can be locked and written."""

    def locked(self, login: Profile) -> AbstractAsyncContextManager[LockedStore]:
        """The store that the login's source and unit stand for, locked against every other writer while the context lasts.
        Raises StoreFault."""


class TokenEndpoint(Protocol):
    """OAuth token endpoints."""

    async def ask(self, request: TokenRequest) -> TokenAnswer | RefreshFailure:
        """The answer, or why there is none. One request and no second one, within a deadline; never raises, and nothing of what
        was sent or answered stands in a failure."""


class Probes(Protocol):
    """Credentials, tried on their providers."""

    def possible(self, profile: Profile, about: Outcome) -> bool:
        """Whether it is known how to find out about the outcome (AUTH or BILLING) with one small request."""

    async def probe(self, profile: Profile, about: Outcome) -> ProbeResult:
        """What the provider answers to that request. One request, within a deadline; never raises for anything that the network
        or the provider does, and nothing of what was sent or answered is in what is found."""


class Identities(Protocol):
    """Workloads' identities, which vendors exchange for tokens."""

    async def exchange(self, profile_id: str) -> RefreshFailure | None:
        """Exchanges the identity behind a profile. None: its source holds the new token; else why not. At most one request,
        within a deadline; never raises for anything that a file, the network or the vendor does, and may be cancelled."""
