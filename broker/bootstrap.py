"""The composition root: configuration → a running broker. Everything is built here, and everything is taken down here."""

import asyncio
import logging
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from secrets import token_hex
from socket import gethostname
from typing import Any, Final
from urllib.parse import urlsplit

from broker.config.gateway import gateway_of
from broker.config.model import Config, Remote, TokenListener
from broker.config.values import Address
from broker.domain.errors import CannotStart
from broker.domain.findings import Finding, findings
from broker.domain.material import Material, Shadowed, SourceState
from broker.domain.policies import MAIN, Delivery
from broker.domain.profiles import Profile
from broker.domain.statuses import ProfileStatus
from broker.domain.tool_logins import CLAUDE, TOOLS
from broker.engine.choosing import Choosing
from broker.engine.clock import SystemClock
from broker.engine.expiring import Expiring
from broker.engine.ingesting import Ingesting
from broker.engine.leasing import Leasing
from broker.engine.mirroring import Mirroring
from broker.engine.ordering import Ordering
from broker.engine.readiness import Readiness
from broker.engine.redeeming import Redeeming
from broker.engine.refreshing import Refreshing
from broker.engine.remembering import Remembering
from broker.engine.reporting import Reporting
from broker.engine.spending import Spending
from broker.engine.standing import Standings
from broker.envoy.bootstrap_config import as_yaml, bootstrap_config, gateway_url
from broker.envoy.options import GatewayMode
from broker.envoy.process import EnvoyProcess
from broker.identity.agent_socket import Claim, claim
from broker.identity.client_certificate import ClientCertificates
from broker.identity.published_keys import KeysOfApi, KeysOfFile, KeysUnread, PublishedKeys
from broker.identity.server_certificate import ServerCertificate
from broker.identity.service_account import Check, ServiceAccounts
from broker.identity.token_review import TokenReviews
from broker.kube.api import KubeApi, KubeFault
from broker.ports import Clock, Source, StateStore
from broker.providers.catalog import PROVIDERS
from broker.rpc.admin import AdminServicer
from broker.rpc.calls import Service
from broker.rpc.convert import LeaseMessages
from broker.rpc.remote import Door
from broker.rpc.server import admin_server, agent_server, control_server, health_server, remote_server
from broker.rpc.servicer import BrokerServicer
from broker.sources.env import EnvOptions
from broker.sources.registry import TAIL, Context, build, kubernetes_options
from broker.sources.workload import Workloads
from broker.storage.agent_stores import AgentStores
from broker.storage.glimpse import Glimpse
from broker.storage.login_places import LoginPlaces
from broker.storage.login_sync import sync_login
from broker.storage.migrations import Migration, migrate
from broker.storage.replacing import replace_file
from broker.storage.sealing import Seal
from broker.storage.secret_store import SecretStores
from broker.storage.state import SqliteStateStore
from broker.telemetry.audit_log import AuditLog, audit_output
from broker.telemetry.event_log import log_event
from broker.telemetry.events import AcquireAnswered, Draining, Events, Started
from broker.telemetry.log import loop_exception_handler
from broker.telemetry.metrics import CredentialGauge, Metrics, Snapshot, SourceGauge
from broker.telemetry.redaction import Redactor
from broker.upstream.token_endpoint import HttpTokenEndpoint

_log = logging.getLogger("equabot.stores")

_GRACE: Final = 2.0
"""Seconds that calls under way have to end once the broker stops."""
_CHECKPOINT_EVERY: Final = 5.0
_SETTLE_WITHIN: Final = 10.0
_EXCHANGE_WITHIN: Final = 10.0
"""Seconds for the exchange of a workload's identity: not long, for it may be tried again at any time."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a broker would have to offer, read once without one running. `statuses` by agent; `findings` as an operator would be
    told them."""

    statuses: Mapping[str, list[ProfileStatus]]
    sources: tuple[SourceState, ...]
    shadowed: tuple[Shadowed, ...]
    material: Material
    findings: Sequence[Finding]

    def profile(self, agent: str, profile_id: str) -> Profile | None:
        """The profile as the agent would be given it: its own before everybody's."""
        held = self.material.held.get((agent, profile_id)) or self.material.held.get(("", profile_id))
        return None if held is None else held.profile


class Engine:
    """The moving parts, wired. Building them reads the state store and nothing else."""

    def __init__(self, config: Config, *, clock: SystemClock, store: StateStore, events: Events) -> None:
        stored = store.load()
        self.standings = Standings(
            clock=clock, store=store, events=events, warn_within=config.expiry.warn_within, usage=stored.usage
        )
        self.choosing = Choosing(
            clock=clock,
            store=store,
            catalog=config.catalog,
            policies=config.policies,
            standings=self.standings,
            configured_order=config.order,
            orders=stored.orders,
            pins=stored.pins,
        )
        identities = Workloads(
            config.workloads, catalog=config.catalog, clock=clock, endpoint=HttpTokenEndpoint(within=_EXCHANGE_WITHIN)
        )
        sources, tail = _sources(config, clock)
        if config.workloads:
            sources = (identities, *sources)
        self.ingesting = Ingesting(
            sources,
            tail=tail,
            clock=clock,
            store=store,
            events=events,
            standings=self.standings,
            stale_budget=config.expiry.stale_budget,
            versions=stored.versions,
        )
        stores = agent_stores(config, clock)
        followed = stores if any(spec.kind == "profile_store" for spec in config.sources) else None
        self.ordering = Ordering(choosing=self.choosing, ingesting=self.ingesting, standings=self.standings, stores=followed)
        self.mirroring = Mirroring(clock=clock, standings=self.standings, mirrors=_mirrors(config, clock))
        self.remembering = Remembering(clock=clock, standings=self.standings, stores=stores, catalog=config.catalog)
        self.logins = login_places(config, stores, clock)
        redeeming = Redeeming(clock=clock, stores=self.logins, endpoint=HttpTokenEndpoint(), rules=config.rules)
        self.refreshing = Refreshing(
            clock=clock,
            events=events,
            standings=self.standings,
            redeeming=redeeming,
            reread=self.ingesting.look_again,
            chance=random.random,
            identities=identities,
        )
        self.reporting = Reporting(
            clock=clock, standings=self.standings, refreshing=self.refreshing, cooldowns=config.cooldowns
        )
        self.leasing = Leasing(
            clock=clock,
            store=store,
            events=events,
            policies=config.policies,
            choosing=self.choosing,
            standings=self.standings,
            reporting=self.reporting,
            options=config.leases,
            deliveries=_deliveries(config),
            leases=stored.leases,
        )
        self.spending = Spending(
            clock=clock,
            events=events,
            catalog=config.catalog,
            policies=config.policies,
            standings=self.standings,
            leasing=self.leasing,
            refreshing=self.refreshing,
            reporting=self.reporting,
        )
        self.expiring = Expiring(clock=clock, store=store, events=events, leasing=self.leasing, standings=self.standings)
        self.readiness = Readiness(
            catalog=config.catalog, standings=self.standings, ingesting=self.ingesting, required=config.required
        )


def _deliveries(config: Config) -> frozenset[Delivery]:
    """A token is worth something only where there is a gateway that knows it."""
    return frozenset({Delivery.RAW} if config.gateway.mode is GatewayMode.OFF else Delivery)


def agent_stores(config: Config, clock: Clock | None = None) -> AgentStores:
    """The agents' profile stores, sealed where the configuration says so. Nothing is read yet."""
    seal = None if config.seal_key_file is None else Seal(config.seal_key_file)
    return AgentStores(config.home, clock=clock or SystemClock(), seal=seal)


def login_places(config: Config, stores: AgentStores, clock: Clock) -> LoginPlaces:
    """Where logins are refreshed: in the agents' stores, and in the Secrets of each source of that kind. To be closed."""
    chosen = [kubernetes_options(spec.options) for spec in config.sources if spec.kind == "kubernetes"]
    holder = f"{gethostname()}_{token_hex(8)}"
    secrets = {
        options.shown: SecretStores(
            KubeApi(kubeconfig=options.kubeconfig), namespace=options.namespace, clock=clock, holder=holder
        )
        for options in chosen
    }
    return LoginPlaces(stores, secrets)


def sync_claude_login(config: Config) -> bool:
    """Copies the login of Claude's program into the store of `main`, where it is newer, and returns whether it was: what the
    seed's system does whenever it looks at its stores. Not where its file is no source. Raises StoreFault."""
    store, clock = agent_stores(config).of(MAIN), SystemClock()
    files = (spec.options["path"] for spec in config.sources if spec.kind == "claude_cli")
    return any(sync_login(CLAUDE, file, store, rules=config.rules, clock=clock) for file in files)


def _mirrors(config: Config, clock: Clock) -> dict[str, Callable[[], bool]]:
    """How the logins of tools that the broker is to refresh are kept equal in the tool's file and the store of `main`."""
    store = agent_stores(config, clock).of(MAIN)
    return {
        TOOLS[spec.kind].profile_id: partial(
            sync_login, TOOLS[spec.kind], spec.options["path"], store, rules=config.rules, clock=clock
        )
        for spec in config.sources
        if spec.kind in TOOLS and TOOLS[spec.kind].profile_id not in config.rules.foreign_logins
    }


async def refresh_login(config: Config, agent: str, profile: Profile) -> tuple[bool, str]:
    """Refreshes a login of an agent ("" everybody's) as a running broker would. Returns whether it failed, and what became of
    it. Raises StoreFault."""
    clock = SystemClock()
    stores = login_places(config, agent_stores(config, clock), clock)
    redeeming = Redeeming(clock=clock, stores=stores, endpoint=HttpTokenEndpoint(), rules=config.rules)
    try:
        outcome = await redeeming.redeem(replace(profile, agent=agent))
    finally:
        await stores.close()
    return outcome.failure is not None, outcome.failure.reason if outcome.failure else outcome.kind.value


def migrate_stores(config: Config) -> list[Migration]:
    """Moves the credentials of older files into the profile stores, each once, and tells what became of each. Blocking."""
    return migrate(agent_stores(config), config.home, catalog=config.catalog)


def _sources(config: Config, clock: SystemClock) -> tuple[Sequence[Source], frozenset[str]]:
    stores = agent_stores(config, clock)
    agents = dict.fromkeys((MAIN, *config.policies.agents))
    context = Context(
        home=config.home,
        rules=config.rules,
        clock=clock,
        stores={agent: stores.of(agent) for agent in agents},
        env=EnvOptions(config.env, config.shell_env.timeout if config.shell_env.enabled else None),
    )
    built = [(spec.kind, build(spec.kind, spec.options, context)) for spec in config.sources]
    return [source for _, source in built], frozenset(source.name for kind, source in built if kind in TAIL)


async def survey(config: Config) -> Survey:
    """Reads every source once, in this process: needs no broker and disturbs none. What is wrong stands in `sources`."""
    clock = SystemClock()
    engine = Engine(config, clock=clock, store=Glimpse(config.state_path, clock=clock), events=Events())
    async with _beside(engine.ingesting.run()):
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_WITHIN + (config.shell_env.timeout if config.shell_env.enabled else 0.0)):
                await engine.ingesting.wait_settled()
    return Survey(
        {agent: engine.choosing.statuses(agent) for agent in config.policies.agents},
        tuple(engine.ingesting.states),
        engine.ingesting.shadowed,
        engine.standings.material,
        findings(
            sources=engine.ingesting.states,
            candidates=(engine.standings.judge(key) for key, _ in engine.standings.all()),
            shadowed=engine.ingesting.shadowed,
            unmet=engine.readiness.unmet(),
            store_fault="",
        ),
    )


async def serve(config: Config, *, redactor: Redactor | None = None) -> None:
    """Runs a broker until SIGTERM or SIGINT, then drains it. The redactor is told what must not be logged. Raises CannotStart.

    Anything else that comes out of it is a defect, which has taken the whole broker down: half of one is worse than none.
    """
    asyncio.get_running_loop().set_exception_handler(loop_exception_handler)
    clock = SystemClock()
    began = clock.steady()
    stopping = _stop_signals()
    metrics = Metrics(version=_version())
    events = Events(metrics.record, log_event)
    for migration in await asyncio.to_thread(migrate_stores, config):
        _log.log(logging.WARNING if migration.fault else logging.INFO, "%s", migration)
    listen = config.listen
    with claim(
        config.run_dir, config.policies.agents, admin=listen.admin, control=listen.control, agent_paths=listen.agents
    ) as claimed:
        store = SqliteStateStore(config.state_path, clock=clock)
        try:
            redactor = redactor or Redactor()
            audit = _audit(config, clock, key=store.digest_key, clean=redactor.text)
            events.sinks.insert(0, audit.record)
            engine = Engine(config, clock=clock, store=store, events=events)
            redactor.watch(engine.standings.secrets)
            engine.spending.recorded = audit.check
            engine.readiness.blocked, audit.changed = lambda: audit.refuses, engine.readiness.look_again
            async with AsyncExitStack() as stack:
                stack.callback(audit.close)
                stack.push_async_callback(engine.logins.close)
                await _listen(config, engine, claimed, store=store, events=events, audit=audit, clock=clock, stack=stack)
                address = config.listen.metrics
                served = metrics.serve(address.host, address.port, snapshot=lambda: _snapshot(engine, store, audit, clock))
                stack.callback(served.close)
                gateway = await _gateway(config, clock, stack)
                moving = (engine.ingesting, engine.expiring, engine.refreshing, engine.remembering, engine.mirroring)
                await stack.enter_async_context(
                    _beside(
                        *(part.run() for part in moving), *(envoy.run() for envoy in gateway), _checkpoints(store, audit, clock)
                    )
                )
                events.emit(Started(version=metrics.version, seconds=clock.steady() - began))
                reason = await stopping
                events.emit(Draining(reason=reason))
                engine.readiness.drain()
                engine.leasing.drain()
                await engine.refreshing.drain()
        finally:
            store.close()


def _audit(config: Config, clock: Clock, *, key: bytes, clean: Callable[[str], str]) -> AuditLog:
    """The audit log, begun. Its anchor lies beside the state, which leases outlive a restart in."""
    options = config.audit
    audit = AuditLog(
        audit_output(options.path, patient=options.fail_closed),
        anchor=config.state_path.with_name("audit.head"),
        key=key,
        clean=clean,
        version=_version(),
        fail_closed=options.fail_closed,
        now=clock.now,
        steady=clock.steady,
    )
    audit.begin()
    return audit


async def _listen(
    config: Config,
    engine: Engine,
    claimed: Claim,
    *,
    store: StateStore,
    events: Events,
    audit: AuditLog,
    clock: SystemClock,
    stack: AsyncExitStack,
) -> None:
    """Starts the servers. When the stack unwinds they stop: agents and operator first, health last."""
    vendor_urls = {provider.id: provider.base_url for provider in PROVIDERS.values()}
    messages = LeaseMessages(vendor_urls, gateway_url=_gateway_url(config))
    engine.standings.listeners.append(messages.forget)
    health = health_server(config.listen.health.host, config.listen.health.port, engine.readiness)
    servers = [health]
    servicers: dict[str, BrokerServicer] = {}
    for socket in claimed.agents:
        servicers[socket.agent] = servicer = BrokerServicer(
            socket.agent,
            leasing=engine.leasing,
            choosing=engine.choosing,
            ingesting=engine.ingesting,
            refreshing=engine.refreshing,
            messages=messages,
            observe=lambda seconds: events.emit(AcquireAnswered(seconds=seconds)),
        )
        servers.append(agent_server(socket.path, servicer, engine.readiness))
    listeners = [] if config.remote is None else await _listeners(config.remote, clock, stack)
    telling = [part for _, *parts in listeners for part in parts]
    operator = AdminServicer(
        leasing=engine.leasing,
        choosing=engine.choosing,
        ordering=engine.ordering,
        standings=engine.standings,
        ingesting=engine.ingesting,
        readiness=engine.readiness,
        policies=config.policies,
        store=store,
        events=events,
        audit=audit,
        identity_fault=lambda: "; ".join(dict.fromkeys(part.fault for part in telling if part.fault)),
        started_at=clock.now(),
    )
    servers.append(admin_server(claimed.admin, operator, engine.readiness))
    for address, identities, certificate in listeners:
        door = Door(identities, clock=clock, events=events)
        servers.append(remote_server(address, servicers, engine.readiness, door=door, certificate=certificate))
    if config.gateway.mode is not GatewayMode.OFF:
        servers.append(control_server(claimed.control, _control_services(config, engine, events=events, clock=clock)))
    claimed.settle()
    for server in servers:
        await server.start()
    stack.push_async_callback(health.stop, None)

    async def stop_others() -> None:
        async with asyncio.TaskGroup() as group:
            for server in servers[1:]:
                group.create_task(server.stop(_GRACE))

    stack.push_async_callback(stop_others)


def _gateway_url(config: Config) -> str:
    """The address that agents are told; empty where no gateway runs."""
    listen = config.listen.gateway
    off = config.gateway.mode is GatewayMode.OFF
    return "" if off else gateway_url(config.gateway, host=listen.host, port=listen.port)


def _control_services(config: Config, engine: Engine, *, events: Events, clock: Clock) -> list[Service]:
    """What Envoy asks. Its messages are loaded here, by a broker that has a gateway."""
    from broker.envoy.access_log import AccessLogServicer  # noqa: PLC0415
    from broker.envoy.authorize import AuthorizationServicer  # noqa: PLC0415
    from broker.envoy.scrubbing import ScrubbingServicer  # noqa: PLC0415
    from broker.envoy.secret_discovery import SecretServicer  # noqa: PLC0415

    names = [name] if (name := urlsplit(config.gateway.url).hostname) else []
    return [
        AuthorizationServicer(
            spending=engine.spending, ingesting=engine.ingesting, catalog=config.catalog, events=events, names=names
        ).service(),
        AccessLogServicer(spending=engine.spending, events=events, clock=clock).service(),
        SecretServicer(choosing=engine.choosing, standings=engine.standings, ingesting=engine.ingesting).service(),
        *([ScrubbingServicer(config.catalog.providers.values()).service()] if config.gateway.scrub else []),
    ]


async def _listeners(
    remote: Remote, clock: SystemClock, stack: AsyncExitStack
) -> list[tuple[Address, ClientCertificates | ServiceAccounts, ServerCertificate]]:
    """Where agents of other machines are listened to, who tells them from each other there, and the files to serve with. Raises
    CannotStart."""
    found: list[tuple[Address, ClientCertificates | ServiceAccounts, ServerCertificate]] = []
    if (certificates := remote.client_certificates) is not None:
        files = ServerCertificate(remote.certificate, remote.key, client_ca=certificates.ca, clock=clock)
        found.append((certificates.address, ClientCertificates(remote.callers, clock=clock), files))
    if (tokens := remote.service_accounts) is not None:
        files = ServerCertificate(remote.certificate, remote.key, clock=clock)
        check = await _token_check(tokens, clock, stack)
        accounts = ServiceAccounts(check, remote.callers, clock=clock, audience=tokens.audience)
        found.append((tokens.address, accounts, files))
    return found


async def _token_check(tokens: TokenListener, clock: SystemClock, stack: AsyncExitStack) -> Check:
    try:
        if tokens.keys is not None:
            file = KeysOfFile(tokens.keys, issuer=tokens.issuer)
            await file.read()
            return PublishedKeys(file, clock=clock)
        api = KubeApi(kubeconfig=tokens.kubeconfig)
        await api.open()
    except (KeysUnread, KubeFault) as fault:
        raise CannotStart(f"listen.agents.service_accounts: {fault}") from None
    stack.push_async_callback(api.close)
    if tokens.published:
        return PublishedKeys(KeysOfApi(api, issuer=tokens.issuer), clock=clock)
    return TokenReviews(api, audience=tokens.audience)


async def _gateway(config: Config, clock: SystemClock, stack: AsyncExitStack) -> tuple[EnvoyProcess, ...]:
    """Writes the gateway's configuration, and starts it where it is the broker's to run. Raises CannotStart."""
    if config.gateway.mode is GatewayMode.OFF:
        return ()
    gateway = gateway_of(config)
    file = gateway.control.parent / "envoy.yaml"
    try:
        replace_file(file, as_yaml(bootstrap_config(gateway)).encode(), mode=0o644)
    except OSError as error:
        raise CannotStart(f"cannot write the gateway's configuration to {file}: {error.strerror}") from None
    if config.gateway.mode is GatewayMode.SIDECAR:
        return ()
    process = EnvoyProcess(config.gateway.envoy, file, host=gateway.host, port=gateway.port, clock=clock, chance=random.random)
    stack.push_async_callback(process.stop)
    await process.start()
    return (process,)


@asynccontextmanager
async def _beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs them while the block runs. One that fails takes the block down with it; when the block ends, so do they."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()


async def _checkpoints(store: SqliteStateStore, audit: AuditLog, clock: SystemClock) -> None:
    while True:
        await clock.sleep(_CHECKPOINT_EVERY)
        await store.checkpoint()
        audit.write_waiting()
        await asyncio.to_thread(audit.sync)


def _stop_signals() -> "asyncio.Future[str]":
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[str] = loop.create_future()

    def stop(name: str) -> None:
        if not stopping.done():
            stopping.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    return stopping


def _snapshot(engine: Engine, store: StateStore, audit: AuditLog, clock: SystemClock) -> Snapshot:
    now = clock.now()
    leases: Counter[tuple[str, str]] = Counter()
    streams: Counter[str] = Counter()
    for lease in engine.leasing.living():
        leases[lease.agent, lease.provider] += 1
        streams[lease.agent] += lease.streaming
    return Snapshot(
        credentials=[
            CredentialGauge(
                profile=candidate.id,
                provider=candidate.held.profile.provider,
                state=candidate.standing.state.value,
                expires_at=candidate.held.profile.expires_at,
                agent=agent,
            )
            for (agent, _), candidate in engine.standings.all()
        ],
        sources=[
            SourceGauge(
                source=state.name,
                sync_age=None if state.synced_at is None else max(now - state.synced_at, 0.0),
                stale=bool(state.fault or state.stale_units),
            )
            for state in engine.ingesting.states
        ],
        leases=leases,
        streams=streams,
        store_fault=bool(store.fault),
        audit_fault=bool(audit.fault),
        audit_lost=audit.lost,
        audit_sequence=audit.head.sequence,
    )


def _version() -> str:
    try:
        return version("equabot-broker")
    except PackageNotFoundError:
        return "unknown"
