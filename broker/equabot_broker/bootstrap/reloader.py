"""The configuration, read again while the broker runs: applied in one turn of the loop, or refused whole."""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from equabot_broker.bootstrap.engine import ConfiguredEngine
from equabot_broker.bootstrap.gateway import GatewayFiles
from equabot_broker.bootstrap.servers import Servers
from equabot_broker.bootstrap.stores import prepare_seal
from equabot_broker.config.changes import changes, needs_restart
from equabot_broker.config.load import revision_of
from equabot_broker.config.model import Config
from equabot_broker.domain.errors import CannotStart
from equabot_broker.ports import Clock, Reloaded
from equabot_broker.schema.faults import ConfigurationFaults
from equabot_broker.telemetry.broker_events import ConfigurationReloaded, ReloadFailed
from equabot_broker.telemetry.events import Events

_log = logging.getLogger("equabot.configuration")

_DIGITS: Final = 16
_SHOWN: Final = 20


class Reloader:
    """Fulfils `ports.Configuration`. `reread` reads the configuration as the start did, and raises ConfigurationFaults;
    `key` is what digests are made with."""

    def __init__(
        self,
        config: Config,
        *,
        reread: Callable[[], Config],
        engine: ConfiguredEngine,
        servers: Servers,
        gateway: GatewayFiles,
        events: Events,
        clock: Clock,
        key: bytes,
    ) -> None:
        self.config = config
        self._reread = reread
        self._engine = engine
        self._servers = servers
        self._gateway = gateway
        self._events = events
        self._clock = clock
        self._key = key
        self._asked: list[str] = []
        self._next: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
        self._wake = asyncio.Event()
        self._refused = ""
        self.reloaded_at = clock.now()

    @property
    def ok(self) -> bool:
        """Whether the last reading was applied."""
        return not self._refused

    def ask(self, by: str) -> "asyncio.Future[Reloaded]":
        """Asks for a reload soon. Callers that ask before it begins share it."""
        if by not in self._asked:
            self._asked.append(by)
        self._wake.set()
        return self._next

    async def reload(self, by: str) -> Reloaded:
        """Asks, and waits for the result. A reload that is under way goes on where its caller stops waiting."""
        return await asyncio.shield(self.ask(by))

    async def run(self) -> None:
        """Reloads when it is asked to, one at a time, forever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            by, answer = ", ".join(self._asked), self._next
            self._asked, self._next = [], asyncio.get_running_loop().create_future()
            answer.set_result(await self._reload(by))

    async def doubts(self) -> tuple[str, ...]:
        """Whether the file is newer, and whether it was refused."""
        file = self.config.file
        found = [f"the last reload was refused: {self._refused}"] if self._refused else []
        if file is not None and await asyncio.to_thread(revision_of, file) != self.config.revision:
            found.append(f"the running configuration is older than {file}")
        return tuple(found)

    async def _reload(self, by: str) -> Reloaded:
        try:
            wanted = await asyncio.to_thread(self._reread)
        except ConfigurationFaults as refused:
            return self._refuse(by, Reloaded(faults=tuple(map(str, refused.faults))))
        except Exception as error:  # noqa: BLE001 - nothing has changed yet, and the broker serves
            return self._refuse(by, Reloaded(refusal=_incident(error)))
        if self.config.file is not None and wanted.file is None:
            return self._refuse(by, Reloaded(faults=(f"{self.config.file}: is gone; put it back, or restart without it",)))
        if fixed := needs_restart(self.config, wanted):
            return self._refuse(by, Reloaded(refusal=f"needs a restart: {', '.join(fixed)}"))
        return await self._apply(by, wanted)

    async def _apply(self, by: str, wanted: Config) -> Reloaded:
        """Does first all that can fail, and undoes it where a part fails."""
        async with AsyncExitStack() as undoing:
            try:
                await asyncio.to_thread(prepare_seal, wanted)
                prepared = await self._engine.prepare(wanted)
                undoing.callback(self._engine.discard, prepared)
                added = await self._servers.prepare(wanted)
                undoing.push_async_callback(self._servers.discard, added)
                await asyncio.to_thread(self._gateway.write_routes, wanted)
            except CannotStart as fault:
                return self._refuse(by, Reloaded(refusal=str(fault)))
            except Exception as error:  # noqa: BLE001 - nothing has changed yet, and the broker serves
                return self._refuse(by, Reloaded(refusal=_incident(error)))
            undoing.pop_all()
        changed = tuple(changes(self.config, wanted))
        ended = self._engine.apply(prepared)
        gone = self._servers.apply(wanted, added)
        self.config, self._refused, self.reloaded_at = wanted, "", self._clock.now()
        self._events.emit(ConfigurationReloaded(by=by, digest=self._digest(wanted), changes=changed, leases=ended))
        await self._servers.discard(gone)
        return Reloaded(changes=changed, ended=ended)

    def _refuse(self, by: str, refused: Reloaded) -> Reloaded:
        for fault in refused.faults[:_SHOWN]:
            _log.error("the configuration is refused: %s", fault)
        first = refused.faults[0] if refused.faults else ""
        more = f" (and {len(refused.faults) - 1} more)" if len(refused.faults) > 1 else ""
        self._refused = refused.refusal or first + more
        self._events.emit(ReloadFailed(by=by, reason=refused.refusal or "faults", faults=len(refused.faults)))
        return refused

    def _digest(self, config: Config) -> str:
        """The beginning of the file's SHA-256; where secrets may be in it, of one with a key."""
        if not config.env:
            return config.revision[:_DIGITS]
        return "keyed:" + hmac.new(self._key, config.revision.encode(), "sha256").hexdigest()[:_DIGITS]


def _incident(error: Exception) -> str:
    incident = secrets.token_hex(4)
    _log.error("incident %s: %s while the configuration is read again", incident, type(error).__qualname__)
    return f"internal error, incident {incident} in the broker's log"
