"""Envoy as the broker's child: configured, started, watched, started again, and never left behind."""

import asyncio
import logging
import os
import re
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.errors import CannotStart
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.ports import Clock

_log = logging.getLogger("equabot.gateway")

_GUARDED: Final = (
    "import ctypes, os, resource, signal, sys; parent = int(sys.argv[1]); ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)); "
    "os.getppid() == parent or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)
"""Becomes Envoy, which from then on does not outlive the broker, however that ends (PR_SET_PDEATHSIG, prctl(2)), and may have
as many connections open as the broker could."""

_STARTS_WITHIN: Final = 15.0
_LOOKED_AT_EVERY: Final = 0.02
_ENDS_WITHIN: Final = 3.0
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 10.0
_STEADY_AFTER: Final = 60.0
"""Seconds after which an Envoy that dies is not one that cannot start."""
_LEVELS: Final = {"warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
_LINE: Final = re.compile(r"<(\w+)> (.*)")


def fitting(options: GatewayOptions) -> GatewayOptions:
    """The options with no more connections than a child of this process can have, and as many files for the rest."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files == resource.RLIM_INFINITY:
        return options
    return replace(options, max_connections=max(min(options.max_connections, files // 2), 1))


class EnvoyProcess:
    """The gateway's data plane, listening on `host` and `port`. `chance` gives numbers in [0, 1)."""

    def __init__(self, program: str, config: Path, *, host: str, port: int, clock: Clock, chance: Callable[[], float]) -> None:
        self._program = program
        self._config = config
        self._host = host
        self._port = port
        self._clock = clock
        self._chance = chance
        self._child: asyncio.subprocess.Process | None = None
        self._said = ""

    async def start(self) -> None:
        """Returns once it listens. Raises CannotStart: no such program, the port is taken, it ends, it does not listen."""
        program = which(self._program)
        if program is None:
            raise CannotStart(
                f"there is no program {self._program!r} to run as the gateway: install Envoy, or set gateway.envoy to its path"
            )
        await self._wait_for_port()
        self._program = program
        child = await self._spawn()
        end = self._clock.steady() + _STARTS_WITHIN
        while not await self._listens():
            if child.returncode is not None:
                await self._relay(child)
                raise CannotStart(f"the gateway ends as soon as it is started ({child.returncode}): {self._said}")
            if self._clock.steady() > end:
                await self.stop()
                raise CannotStart(f"the gateway does not listen on {self._host}:{self._port} after {_STARTS_WITHIN:.0f} s")
            await self._clock.sleep(_LOOKED_AT_EVERY)

    async def run(self) -> None:
        """Keeps it running once it is started, forever."""
        waits = delays(base=_FIRST_WAIT, cap=_LONGEST_WAIT, rng=self._chance)
        while True:
            began = self._clock.steady()
            child = self._child or await self._spawn()
            await self._relay(child)
            code = await child.wait()
            self._child = None
            if self._clock.steady() - began > _STEADY_AFTER:
                waits = delays(base=_FIRST_WAIT, cap=_LONGEST_WAIT, rng=self._chance)
            wait = next(waits)
            _log.error("the gateway has ended (%s) and is started again in %.1f s", code, wait)
            await self._clock.sleep(wait)

    async def stop(self) -> None:
        """Ends it, with what it is about. Does nothing where none runs."""
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(_ENDS_WITHIN):
                await child.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _GUARDED, str(os.getpid()), self._program, "-c", str(self._config),
            # Who handed its listener over to a successor would do so for anybody in its network: those sockets have no owner.
            "--concurrency", "1", "--disable-hot-restart",
            # A line of debug holds headers, and with them keys: the level is ours to set.
            "--log-level", "warning", "--log-format", "<%l> %v", "--log-format-escaped",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={},  # what the broker knows of its own is not for the one that faces the agents
        )  # fmt: skip
        return self._child

    async def _wait_for_port(self) -> None:
        """An Envoy that cannot listen ends, and whoever answers there would be taken for it. That of a broker which was killed
        just now is given the time to end."""
        end = self._clock.steady() + _ENDS_WITHIN
        while fault := self._taken():
            if self._clock.steady() > end:
                raise CannotStart(
                    f"the gateway cannot listen on {self._host}:{self._port}: {fault}; set another listen.gateway"
                )
            await self._clock.sleep(_LOOKED_AT_EVERY)

    def _taken(self) -> str:
        with socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((self._host, self._port))
            except OSError as error:
                return error.strerror or "it is taken"
        return ""

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def _relay(self, child: asyncio.subprocess.Process) -> None:
        """Hands its words on to the log, until it has no more."""
        if child.stderr is None:
            return
        while line := await _line(child.stderr):
            found = _LINE.match(line)
            self._said = found[2] if found else line
            _log.log(_LEVELS.get(found[1], logging.INFO) if found else logging.INFO, "envoy: %s", self._said)


async def _line(stream: asyncio.StreamReader) -> str:
    """The next line, without its end; one that is too long to be read whole is skipped. Empty at the end of the stream."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        return line.decode(errors="replace").strip() or (" " if line else "")
