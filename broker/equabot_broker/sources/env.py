"""The environment of the broker's process. Missing variables are taken from the configuration's `env` section, and then from a
login shell if that is enabled. The source is read when a caller asks: a change of the environment causes no event.
"""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.discovery.hygiene import SIZE_MAX
from equabot_broker.domain.backoff import delays
from equabot_broker.domain.material import SourceEvent, SourceFault, Unit, UnitsListed
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.ports import Clock
from equabot_broker.schema.key_readers import VARIABLE
from equabot_broker.schema.reading import ConfigKey
from equabot_broker.sources._environment import process_environment
from equabot_broker.sources.declaration import SourceKind

KIND: Final = "env"
_SHELL: Final = "/bin/sh"
_FILE: Final = "_FILE"
_LARGEST: Final = 4 << 20
_AGAIN: Final = {"base": 5.0, "cap": 300.0}
"""Seconds until a login shell that failed is run again."""
_PROCESS: Final = "environment variable {}"
_SECTION: Final = "env section of the configuration, {}"
_LOGIN_SHELL: Final = "login shell's variable {}"


@dataclass(frozen=True, slots=True)
class EnvOptions:
    """`given` is used for variables that the process does not have. `shell_within` is how long (seconds) a login shell may
    take to report more. None: no login shell is run."""

    given: Mapping[str, SecretValue] = field(default_factory=lambda: MappingProxyType({}))
    shell_within: float | None = None


class Env:
    """The source `env`. It has one unit, named "". The process takes precedence over the configuration's section, and the
    section over the login shell."""

    name = KIND

    def __init__(
        self,
        options: EnvOptions | None = None,
        *,
        rules: DiscoveryRules,
        environ: Callable[[], Mapping[str, str]] = process_environment,
        clock: Clock,
    ) -> None:
        self._options = options or EnvOptions()
        self._clock = clock
        self._rules = rules
        self._environ = environ
        self._asked = asyncio.Event()

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """The environment once, and again if a caller asks or a login shell failed."""
        waits = delays(**_AGAIN, rng=random.random)
        while True:
            self._asked.clear()
            of_shell: Mapping[str, str] = {}
            fault = ""
            if self._options.shell_within is not None:
                of_shell, fault = await asyncio.to_thread(_login_shell, self._environ(), self._options.shell_within)
            yield UnitsListed((await asyncio.to_thread(self._unit, of_shell, fault),))
            waits = waits if fault else delays(**_AGAIN, rng=random.random)
            await self._wait(next(waits) if fault else None)

    async def _wait(self, seconds: float | None) -> None:
        """Waits until a caller asks or the time has passed."""
        async with asyncio.TaskGroup() as tasks:
            nap = tasks.create_task(self._ask_after(seconds)) if seconds is not None else None
            await self._asked.wait()
            if nap is not None:
                nap.cancel()

    async def _ask_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._asked.set()

    def reread(self) -> None:
        """Reads it again."""
        self._asked.set()

    def _unit(self, of_shell: Mapping[str, str], fault: str) -> Unit:
        """The unit with all variables. `fault` is why the login shell reported nothing."""
        values: dict[str, str | bytes] = dict(self._environ())
        origins: dict[str, str] = {}
        for name, given in self._options.given.items():
            if not values.get(name):
                values[name], origins[name] = given.reveal(), _SECTION.format(name)
        for name, value in of_shell.items():
            if value and not values.get(name) and self._rules.wants(name, kind=KIND):
                values[name], origins[name] = value, _LOGIN_SHELL.format(name)
        faults = list(self._follow_files(values, origins))
        unit = self._rules.discover(
            values,
            kind=KIND,
            source=self.name,
            unit="",
            name=KIND,
            origin=lambda key: origins.get(key) or _PROCESS.format(key),
        )
        faults += [SourceFault("login shell", fault)] if fault else []
        return replace(unit, faults=(*unit.faults, *faults))

    def _follow_files(self, values: dict[str, str | bytes], origins: dict[str, str]) -> Iterator[SourceFault]:
        """Adds the content of the file in each variable `<NAME>_FILE` (Docker secrets) to `values`, if NAME is not set.

        The files are read together with the environment. Yields a fault for each file that cannot be read.
        """
        for variable in [name for name in values if name.endswith(_FILE)]:
            name, path = variable.removesuffix(_FILE), values[variable]
            if values.get(name) or not path or not self._rules.wants(name, kind=KIND):
                continue
            where = origins.get(variable) or _PROCESS.format(variable)
            if not isinstance(path, str) or not path.startswith("/"):
                yield SourceFault(where, f"{where} is not an absolute path: set it to the file that holds {name}")
                continue
            try:
                values[name], origins[name] = read_whole(path, limit=SIZE_MAX), f"{where}, file {path}"
            except FileNotFoundError:
                yield SourceFault(where, f"{where} names {path}, which does not exist: mount it, or correct the path")
            except Unreadable as unreadable:
                yield SourceFault(where, f"{where}: {unreadable}")


def _login_shell(environ: Mapping[str, str], within: float) -> tuple[Mapping[str, str], str]:
    """The variables of the user's login shell, or why they cannot be read."""
    shell = environ.get("SHELL") or _SHELL
    if not Path(shell).is_absolute() or not os.access(shell, os.X_OK):
        shell = _SHELL
    remedy = "correct its profile, or set env.shellEnv.enabled: false"
    try:
        process = subprocess.Popen(
            (shell, "-l", "-c", "env -0"),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return {}, f"the login shell {shell} cannot be run ({error.strerror}): {remedy}"
    try:
        printed, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        return {}, f"the login shell {shell} reported nothing within {within:g} s: {remedy}"
    finally:
        # Ends the programs that the shell's profile has started.
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass
    if process.returncode:
        return {}, f"the login shell {shell} ended with {process.returncode}: {remedy}"
    pairs = (entry.partition(b"=") for entry in printed[:_LARGEST].split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}, ""


ENV: Final = SourceKind(
    name=KIND,
    means="The broker's own environment. `<NAME>_FILE` names a file with the value.",
    location=ConfigKey(VARIABLE, "The variable of the broker's environment.", default="none", example="MY_BATCH_KEY"),
    build=lambda _, context: Env(EnvOptions(context.variables, context.shell_within), rules=context.rules, clock=context.clock),
    made_of=lambda context: (dict(context.variables), context.shell_within),
    last=True,
)
