"""The environment of the broker's own process, and what stands in for what it lacks: the configuration's `env` section, and
behind that a login shell, where one is to be asked. It is read when asked: a change of it causes no event.
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
"""Seconds until a login shell that said nothing is asked again."""
_PROCESS: Final = "environment variable {}"
_SECTION: Final = "env section of the configuration, {}"
_LOGIN_SHELL: Final = "login shell's variable {}"


@dataclass(frozen=True, slots=True)
class EnvOptions:
    """`given` stands in for variables that the process lacks. `shell_within` is how long (seconds) a login shell may take to
    report more; None: it is not asked."""

    given: Mapping[str, SecretValue] = field(default_factory=lambda: MappingProxyType({}))
    shell_within: float | None = None


class Env:
    """The source `env`. One unit, named "". What is set is never overridden: the process goes before the configuration's
    section, and that before the login shell."""

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
        """What the environment holds, once, and again whenever asked, or where a login shell said nothing."""
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
        """Until a caller asks, or that time has passed."""
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
        """The unit of everything. `fault` is why the login shell reported nothing."""
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
        """Puts what the files hold that variables `<NAME>_FILE` name (Docker's secrets) into `values`, where NAME itself is not
        set. They are read when the environment is; a fault for each that cannot be."""
        for variable in [name for name in values if name.endswith(_FILE)]:
            name, path = variable.removesuffix(_FILE), values[variable]
            if values.get(name) or not path or not self._rules.wants(name, kind=KIND):
                continue
            where = origins.get(variable) or _PROCESS.format(variable)
            if not isinstance(path, str) or not path.startswith("/"):
                yield SourceFault(where, f"{where} is no absolute path: name the file that holds {name}")
                continue
            try:
                values[name], origins[name] = read_whole(path, limit=SIZE_MAX), f"{where}, file {path}"
            except FileNotFoundError:
                yield SourceFault(where, f"{where} names {path}, which is not there: mount it, or correct the path")
            except Unreadable as unreadable:
                yield SourceFault(where, f"{where}: {unreadable}")


def _login_shell(environ: Mapping[str, str], within: float) -> tuple[Mapping[str, str], str]:
    """The variables that the user's login shell has, or why they cannot be told."""
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
        told, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        return {}, f"the login shell {shell} reported nothing within {within:g} s: {remedy}"
    finally:
        # What its profile has left behind, or is still waiting for.
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass
    if process.returncode:
        return {}, f"the login shell {shell} ended with {process.returncode}: {remedy}"
    pairs = (entry.partition(b"=") for entry in told[:_LARGEST].split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}, ""


ENV: Final = SourceKind(
    name=KIND,
    means="The broker's own environment. `<NAME>_FILE` names a file with the value.",
    location=ConfigKey(VARIABLE, "The variable of the broker's environment.", default="none", example="MY_BATCH_KEY"),
    build=lambda _, context: Env(EnvOptions(context.variables, context.shell_within), rules=context.rules, clock=context.clock),
    made_of=lambda context: (dict(context.variables), context.shell_within),
    last=True,
)
