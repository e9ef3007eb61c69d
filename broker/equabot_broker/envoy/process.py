"""Runs Envoy as a child of the broker: writes its configuration, starts it, watches it, restarts it, and ends it with the
broker."""

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
"""The start program of Envoy. The kernel ends Envoy with the broker, however the broker ends (PR_SET_PDEATHSIG, prctl(2)).
Envoy may have as many open connections as the broker."""

_STARTS_WITHIN: Final = 15.0
_LOOKED_AT_EVERY: Final = 0.02
_ENDS_WITHIN: Final = 3.0
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 10.0
_STEADY_AFTER: Final = 60.0
"""Seconds of life after which an Envoy that exits counts as started."""
_LEVELS: Final = {"warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
_LINE: Final = re.compile(r"<(\w+)> (.*)")


def fitting(options: GatewayOptions) -> GatewayOptions:
    """The options, with at most the connections that a child of this process can have, less the files that Envoy needs
    otherwise."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files == resource.RLIM_INFINITY:
        return options
    return replace(options, max_connections=max(min(options.max_connections, files // 2), 1))


class EnvoyProcess:
    """The gateway's data plane, which listens on `host` and `port`. `chance` returns numbers in [0, 1)."""

    def __init__(self, program: str, config: Path, *, host: str, port: int, clock: Clock, chance: Callable[[], float]) -> None:
        self._program = program
        self._config = config
        self._host = host
        self._port = port
        self._clock = clock
        self._chance = chance
        self._child: asyncio.subprocess.Process | None = None
        self._last_line = ""

    async def start(self) -> None:
        """Starts Envoy, and returns when it listens. Raises CannotStart if the program is missing, the port is in use, or
        Envoy exits or does not listen."""
        program = which(self._program)
        if program is None:
            raise CannotStart(
                f"program {self._program!r} does not exist, so the gateway cannot run: install Envoy, or set"
                " gateway.envoy to its path"
            )
        await self._wait_for_port()
        self._program = program
        child = await self._spawn()
        end = self._clock.steady() + _STARTS_WITHIN
        while not await self._listens():
            if child.returncode is not None:
                await self._relay(child)
                raise CannotStart(f"the gateway exited at its start with code {child.returncode}: {self._last_line}")
            if self._clock.steady() > end:
                await self.stop()
                raise CannotStart(f"the gateway does not listen on {self._host}:{self._port} after {_STARTS_WITHIN:.0f} s")
            await self._clock.sleep(_LOOKED_AT_EVERY)

    async def run(self) -> None:
        """Restarts Envoy whenever it exits. Never returns."""
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
            _log.error("the gateway has ended (%s) and is restarted in %.1f s", code, wait)
            await self._clock.sleep(wait)

    async def stop(self) -> None:
        """Ends Envoy, and the requests in it. Does nothing if Envoy does not run."""
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
            # Hot restart is off: it would hand the listener to any process in the network namespace, because its sockets have
            # no owner.
            "--concurrency", "1", "--disable-hot-restart",
            # Debug logs have headers, and so keys: only the broker sets the level.
            "--log-level", "warning", "--log-format", "<%l> %v", "--log-format-escaped",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={},  # the child, which faces the agents, does not get the broker's own variables
        )  # fmt: skip
        return self._child

    async def _wait_for_port(self) -> None:
        """Checks that the port is free: otherwise another program that answers there would be taken for Envoy. The Envoy of a
        broker that was just killed gets time to exit."""
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
                return error.strerror or "the port is in use"
        return ""

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def _relay(self, child: asyncio.subprocess.Process) -> None:
        """Copies the child's output to the log until it ends."""
        if child.stderr is None:
            return
        while line := await _line(child.stderr):
            found = _LINE.match(line)
            self._last_line = found[2] if found else line
            _log.log(_LEVELS.get(found[1], logging.INFO) if found else logging.INFO, "envoy: %s", self._last_line)


async def _line(stream: asyncio.StreamReader) -> str:
    """The next line without its end. A line that is too long is skipped. Empty at the end of the stream."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        return line.decode(errors="replace").strip() or (" " if line else "")
