"""What happens in the broker, as typed events. They carry names, counts and durations; never a secret.

The engine emits, the sinks (the audit log, metrics, the log) listen. A sink is called in line with the work it hears of, so it
returns at once and does not raise. The one that may is the audit log, where nothing may be granted that cannot be recorded: it
refuses what is `granting`, which is therefore emitted before it takes effect.

`lease` is a lease's id, which only the audit log hears of, and writes as a keyed digest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from equabot_broker.domain.errors import BrokerError
from equabot_broker.telemetry.incidents import incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    A `granting` one gives a credential to an agent. It is emitted first and done then: who emits it lets pass what is raised
    (`AuditUnavailable`), having changed nothing. A `summed` one gives nothing, and an agent or a stranger can cause any number
    of them: the log and the audit log hold the first ones, and sums of the others (`folding`). Metrics count each.
    """

    granting: ClassVar[bool] = False
    summed: ClassVar[bool] = False


Sink = Callable[[Event], None]


class Events:
    """Where events are emitted. `sinks` may grow and shrink at any time."""

    __slots__ = ("sinks",)

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = list(sinks)

    def emit(self, event: Event) -> None:
        """Tells every sink, in order. What a sink raises is an incident of that sink, but for a refusal to record."""
        tell(self.sinks, event)


def tell(sinks: Iterable[Sink], event: Event) -> None:
    """Tells every sink, in order."""
    for sink in sinks:
        try:
            sink(event)
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - a port: the others have to hear of it
            incident("sink", getattr(sink, "__qualname__", "unknown"), error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The broker serves. `seconds` since its process began to start it."""

    version: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining(Event):
    """The broker has begun to stop: why (`SIGTERM`, say)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGranted(Event):
    """`seconds` is how long the lease lives unless it is renewed."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    delivery: str
    seconds: float
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed(Event):
    """A lease lives longer."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseMoved(Event):
    """A lease goes over to another profile, from `before`."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    before: str
    profile: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterialDelivered(Event):
    """New material of a lease's profile goes to the stream that holds the lease."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPushed(Event):
    """A credential goes to an Envoy that asked for the resource by name (secret discovery)."""

    granting: ClassVar[bool] = True

    resource: str
    provider: str
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRevoked(Event):
    """A lease ended: `reason` as on the wire."""

    agent: str
    provider: str
    profile: str
    reason: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseDenied(Event):
    """A request was refused: `reason` as in `BrokerError.reason`; `provider` is empty where none was named that is known. Of a
    request that makes no sense nothing more is told: anything may stand in it."""

    summed: ClassVar[bool] = True

    agent: str
    provider: str
    reason: str
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalDenied(Event):
    """A lease was not renewed: `reason` as in `BrokerError.reason`; `lease` as it was asked for, whosoever's it is."""

    summed: ClassVar[bool] = True

    agent: str
    lease: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRefused(Event):
    """A call over the network was not let in: `reason` is the code on the wire (UNAUTHENTICATED, PERMISSION_DENIED or
    UNAVAILABLE), `words` its message."""

    summed: ClassVar[bool] = True

    reason: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed(Event):
    """Further events of one kind (`of`, as in the audit log), caller (`agent`; empty: unknown) and reason: how many there were
    in so many seconds, and when the first and the last one was. `provider` and `profile` are empty where they differed."""

    of: str
    agent: str
    reason: str
    provider: str
    profile: str
    count: int
    seconds: float
    first: str
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireAnswered(Event):
    """A request for a lease was answered, granted or not, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReported(Event):
    """An agent (or the gateway) said how a provider answered: `outcome` as in `Outcome`."""

    summed: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    outcome: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionSet(Event):
    """An operator suspended an agent, or repeated it: `reason` in the operator's words; `leases` ended by it."""

    agent: str
    reason: str
    leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionLifted(Event):
    """An operator resumed a suspended agent."""

    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialProbed(Event):
    """The broker itself is about to try a credential on its provider, because of an outcome (`about`) that one agent alone has
    met, or to see whether a refused one is good again. `agent` is whose it is; empty: every agent's."""

    granting: ClassVar[bool] = True

    provider: str
    profile: str
    about: str
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Administered(Event):
    """An operator did something: `action` as in the admin service (`RevokeLeases`, `SetOrder`…), to what the other fields name
    as far as they were given; `count` is how many leases or profiles it concerned."""

    action: str
    agent: str = ""
    provider: str = ""
    profile: str = ""
    lease: str = ""
    profiles: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReloaded(Event):
    """The configuration was read again and is in effect. `by`: `admin`, `SIGHUP`; `digest` tells one configuration from
    another; `changes` name what differs, without values; `leases` ended by it."""

    by: str
    digest: str
    changes: tuple[str, ...]
    leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadFailed(Event):
    """The configuration was read again and refused whole: it has so many `faults`, or needs a restart, or cannot be applied
    (`reason`)."""

    by: str
    reason: str
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAuthorized(Event):
    """A request is let through the gateway: its credential goes to Envoy after this. `request` is a name for it, which its end
    (`GatewayUsed`) has too. `route` is the path without its query, and without what makes it one of its kind."""

    granting: ClassVar[bool] = True

    agent: str
    session: str
    provider: str
    profile: str
    lease: str
    request: str
    method: str
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayUsed(Event):
    """A request that was let through the gateway has ended: `status` as in HTTP (0: no answer came), `sent` and `received` the
    bytes of its body and of the answer's, `seconds` from its first byte to the answer's last. `request`, `method` and `route`
    as in `GatewayAuthorized`."""

    agent: str
    session: str
    provider: str
    profile: str
    lease: str
    request: str
    method: str
    route: str
    status: int
    sent: int
    received: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRefused(Event):
    """The gateway let a request not pass: `reason` in a word. `agent` and `lease` are empty where its token told nothing."""

    summed: ClassVar[bool] = True

    agent: str
    provider: str
    lease: str
    method: str
    route: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLogSkipped(Event):
    """What the gateway told of an answer made no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilesChanged(Event):
    """Profiles came, went or have new material. `seconds` from when the source said so until every stream was told."""

    profiles: tuple[str, ...]
    source: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStateChanged(Event):
    """States as in `State`; `before` is empty for a profile that is new."""

    profile: str
    provider: str
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSucceeded(Event):
    """A login has new tokens, after so many seconds: its endpoint gave them, or (`adopted`) another process had stored them.
    `agent` is whose it is; empty: everybody's."""

    profile: str
    provider: str
    adopted: bool
    seconds: float
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshAttemptFailed(Event):
    """A login has no new tokens, and will be tried again after so many seconds. `outcome` as in `Blame`."""

    profile: str
    provider: str
    outcome: str
    reason: str
    retry_in: float
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginInvalidated(Event):
    """A login can be refreshed no more: why, and the command with which a person logs in again."""

    profile: str
    provider: str
    reason: str
    command: str
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSynced(Event):
    """A source was read in full: how many profiles it holds."""

    source: str
    profiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStale(Event):
    """A source cannot be read; its last good values are served for as long as the stale budget lasts."""

    source: str
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDoubted(Event):
    """A source was read, and some of what it holds cannot be used: the first of these faults, without any value."""

    source: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecovered(Event):
    """A source that was stale is read again."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFaulted(Event):
    """State cannot be stored; it is kept in memory meanwhile."""

    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered(Event):
    """State is stored again, what had piled up included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Event):
    """The wall clock moved by so many seconds against the steady one; forward is positive."""

    seconds: float
