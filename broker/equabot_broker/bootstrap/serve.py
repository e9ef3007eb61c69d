"""A broker, from its start to its end."""

import asyncio
import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from equabot_broker.bootstrap.background_tasks import background_tasks, keep_running
from equabot_broker.bootstrap.engine import ConfiguredEngine
from equabot_broker.bootstrap.gateway import GatewayFiles
from equabot_broker.bootstrap.reloader import Reloader
from equabot_broker.bootstrap.servers import Servers
from equabot_broker.bootstrap.stores import forget_copies, migrate_stores, prepare_seal
from equabot_broker.config.model import Config
from equabot_broker.diagnosis.findings import none_at_all
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.engine.wiring import Engine
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.envoy.process import EnvoyProcess
from equabot_broker.identity.agent_socket import claim
from equabot_broker.ports import Clock, StateStore, StoreFault
from equabot_broker.storage.state import SqliteStateStore
from equabot_broker.telemetry.audit_log import AuditLog, audit_output
from equabot_broker.telemetry.broker_events import Draining, Started
from equabot_broker.telemetry.event_log import log_event
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.folding import RefusalFolding
from equabot_broker.telemetry.log import loop_exception_handler
from equabot_broker.telemetry.metrics import CredentialGauge, Metrics, Snapshot, SourceGauge
from equabot_broker.telemetry.redaction import Redactor

_log = logging.getLogger("equabot.stores")
_CHECKPOINT_EVERY: Final = 5.0


async def serve(
    config: Config,
    *,
    redactor: Redactor | None = None,
    reread: Callable[[], Config] | None = None,
    on_hangup: Callable[[Callable[[bool], None]], None] = lambda _: None,
) -> None:
    """Runs a broker until SIGTERM or SIGINT, then drains it. The redactor removes the secrets of the engine from the log.
    `reread` reads the configuration again for a reload, by default as it is here. `on_hangup` is given what is to be called for
    each SIGHUP, with whether the terminal is gone that the broker began at: then it stops, else it reloads. Raises CannotStart.

    What fails while it runs stays with the part that failed (ADR 25). Anything else that comes out of it is a defect of its
    start or of its end.
    """
    asyncio.get_running_loop().set_exception_handler(loop_exception_handler)
    clock = SystemClock()
    began = clock.steady()
    stopping = _stop_signals()
    metrics = Metrics(version=_version())
    await asyncio.to_thread(prepare_seal, config)
    for migration in await asyncio.to_thread(migrate_stores, config):
        _log.log(logging.WARNING if migration.fault else logging.INFO, "%s", migration)
    with suppress(StoreFault):  # what is wrong with the store, its source reports
        await asyncio.to_thread(forget_copies, config)
    listen = config.listen
    with claim(
        config.run_dir, config.policies.agents, admin=listen.admin, control=listen.control, agent_paths=listen.agents
    ) as claimed:
        ran_before = os.path.exists(config.state_path)  # noqa: PTH110, ASYNC240  (which never raises)
        store = SqliteStateStore(config.state_path, clock=clock)
        try:
            redactor = redactor or Redactor()
            audit = _audit(config, clock, key=store.digest_key, clean=redactor.text, served=ran_before)
            folding = RefusalFolding(audit.record, log_event, now=clock.now, steady=clock.steady)
            events = Events(folding.record, metrics.record)
            configured = ConfiguredEngine(config, clock=clock, store=store, events=events, blocked=lambda: audit.refuses)
            engine = configured.engine
            redactor.watch(engine.registry.secrets)
            async with AsyncExitStack() as stack:
                stack.callback(audit.close)
                stack.callback(folding.close)
                stack.push_async_callback(configured.logins.close)
                servers, files = Servers(config, engine, claimed, events=events, clock=clock, stack=stack), GatewayFiles()
                reloader = Reloader(
                    config,
                    reread=reread or (lambda: config),
                    engine=configured,
                    servers=servers,
                    gateway=files,
                    events=events,
                    clock=clock,
                    key=store.digest_key,
                )
                await servers.start(store=store, audit=audit, configuration=reloader)
                address = config.listen.metrics
                snapshot = partial(_snapshot, engine, store, audit, clock, reloader)
                served = metrics.serve(address.host, address.port, snapshot=snapshot, health=engine.readiness)
                stack.callback(served.close)
                gateway = await _gateway(config, files, clock, stack)
                tasks: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
                    "ingest": engine.ingest.run,
                    "expiry": engine.expiry.run,
                    "refresh": engine.refresh_scheduler.run,
                    "confirmation": engine.confirmation.run,
                    "usage_sync": engine.usage_sync.run,
                    "login_mirror": engine.login_mirror.run,
                    **({"gateway": gateway[0].run} if gateway else {}),
                    "folding": partial(folding.run, clock.sleep),
                    "checkpoints": partial(_checkpoints, store, audit, clock),
                    "reloading": reloader.run,
                }
                lasting = (keep_running(name, run, clock=clock) for name, run in tasks.items())
                await stack.enter_async_context(background_tasks(*lasting, _warn_if_empty(engine)))
                on_hangup(partial(_hung_up, asyncio.get_running_loop(), reloader, stopping))
                events.emit(Started(version=metrics.version, seconds=clock.steady() - began))
                reason = await stopping
                events.emit(Draining(reason=reason))
                engine.readiness.drain()
                engine.lease_admin.drain()
                await engine.refresh_scheduler.drain()
        finally:
            store.close()


def _audit(config: Config, clock: Clock, *, key: bytes, clean: Callable[[str], str], served: bool) -> AuditLog:
    """The audit log, begun."""
    options = config.audit
    audit = AuditLog(
        audit_output(options.path, patient=options.fail_closed),
        anchor=config.anchor_path,
        key=key,
        clean=clean,
        version=_version(),
        fail_closed=options.fail_closed,
        served=served,
        now=clock.now,
        steady=clock.steady,
    )
    audit.begin()
    return audit


async def _gateway(config: Config, files: GatewayFiles, clock: SystemClock, stack: AsyncExitStack) -> tuple[EnvoyProcess, ...]:
    """Writes the gateway's configuration, and starts it where it is the broker's to run. Raises CannotStart."""
    if config.gateway.mode is GatewayMode.OFF:
        return ()
    gateway = files.write(config)
    if config.gateway.mode is GatewayMode.SIDECAR:
        return ()
    file = gateway.control.parent / "envoy.yaml"
    process = EnvoyProcess(config.gateway.envoy, file, host=gateway.host, port=gateway.port, clock=clock, chance=random.random)
    stack.push_async_callback(process.stop)
    await process.start()
    return (process,)


def _hung_up(
    loop: asyncio.AbstractEventLoop,
    reloader: Reloader,
    stopping: "asyncio.Future[str]",
    gone: bool,  # noqa: FBT001 - the handler has no other argument
) -> None:
    """On SIGHUP, between any two steps of this thread."""

    def handle() -> None:
        if not gone:
            reloader.ask("SIGHUP")
        elif not stopping.done():
            stopping.set_result("SIGHUP: its terminal is gone")

    with suppress(RuntimeError):  # the loop has closed: the broker has stopped
        loop.call_soon_threadsafe(handle)


async def _checkpoints(store: SqliteStateStore, audit: AuditLog, clock: SystemClock) -> None:
    while True:
        await clock.sleep(_CHECKPOINT_EVERY)
        await store.checkpoint()
        audit.write_waiting()
        await asyncio.to_thread(audit.sync)


async def _warn_if_empty(engine: Engine) -> None:
    """Logs that no source holds a credential: the broker may be ready all the same."""
    await engine.ingest.wait_attempted()
    if not any(True for _ in engine.registry.all()):
        none = none_at_all(engine.resolver.explanations.how_to_add(""))
        _log.warning("%s: %s, so every request for a lease is refused: %s", none.subject, none.message, none.remedy)


def _stop_signals() -> "asyncio.Future[str]":
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[str] = loop.create_future()

    def stop(name: str) -> None:
        if not stopping.done():
            stopping.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    return stopping


def _snapshot(engine: Engine, store: StateStore, audit: AuditLog, clock: SystemClock, reloader: Reloader) -> Snapshot:
    now = clock.now()
    leases: Counter[tuple[str, str]] = Counter()
    streams: Counter[str] = Counter()
    for lease in engine.lease_admin.active():
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
            for (agent, _), candidate in engine.registry.all()
        ],
        sources=[
            SourceGauge(
                source=state.name,
                sync_age=None if state.synced_at is None else max(now - state.synced_at, 0.0),
                stale=bool(state.fault or state.stale_units),
            )
            for state in engine.ingest.states
        ],
        leases=leases,
        streams=streams,
        suspended=engine.suspension_control.states(),
        store_fault=bool(store.fault),
        audit_fault=bool(audit.fault),
        anchor_faults=audit.anchor_faults,
        audit_lost=audit.lost,
        audit_sequence=audit.head.sequence,
        config_reload_ok=reloader.ok,
        config_reloaded_at=reloader.reloaded_at,
    )


def _version() -> str:
    try:
        return version("equabot-broker")
    except PackageNotFoundError:
        return "unknown"
