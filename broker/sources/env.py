"""The environment of the broker's own process, and what stands in for what it lacks: the configuration's `env` section, and
behind that a login shell, where one is to be asked. It is read when asked, for nobody can tell when it changes.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from broker.domain.discovery import Rules
from broker.domain.material import Event, Fault, Listed, Unit
from broker.domain.secret_value import SecretValue

_SHELL: Final = "/bin/sh"
_LARGEST: Final = 4 << 20
_PROCESS: Final = "environment variable {}"
_SECTION: Final = "env section of the configuration, {}"
_LOGIN_SHELL: Final = "login shell's variable {}"


@dataclass(frozen=True, slots=True)
class EnvOptions:
    """`given` stands in for variables that the process lacks. `shell_within` is how long (seconds) a login shell may take to
    tell of more; None: it is not asked."""

    given: Mapping[str, SecretValue] = field(default_factory=lambda: MappingProxyType({}))
    shell_within: float | None = None


def process_environment() -> Mapping[str, str]:
    """The environment of this process, as it is now."""
    return os.environ


class Env:
    """The source `env`. One unit, named "". What is set is never overridden: the process goes before the configuration's
    section, and that before the login shell."""

    name = "env"

    def __init__(
        self,
        options: EnvOptions | None = None,
        *,
        rules: Rules,
        environ: Callable[[], Mapping[str, str]] = process_environment,
    ) -> None:
        self._options = options or EnvOptions()
        self._rules = rules
        self._environ = environ
        self._asked = asyncio.Event()

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the environment holds, once, and again whenever asked."""
        while True:
            self._asked.clear()
            values, faults = await self._values()
            unit = self._rules.discover(
                values, kind="env", source=self.name, unit="", name="env", origin="environment variable {}".format
            )
            yield Listed((replace(unit, faults=(*unit.faults, *faults)),))
            await self._asked.wait()

    async def _values(self) -> tuple[Mapping[str, str], list[Fault]]:
        environ = self._environ()
        values = {name: value.reveal() for name, value in self._options.given.items()} | dict(environ)
        if self._options.shell_timeout is None:
            return values, []
        try:
            said = await _login_shell(environ, timeout=self._options.shell_timeout)
        except (OSError, TimeoutError, ValueError) as error:
            why = "did not answer in time" if isinstance(error, TimeoutError) else "could not be asked for its environment"
            return values, [Fault("env.shellEnv", f"the login shell {why}: mend its profile, or switch env.shellEnv off")]
        return said | values, []

    def reread(self) -> None:
        """Reads it again."""
        self._asked.set()

    def _unit(self, of_shell: Mapping[str, str], fault: str) -> Unit:
        """The unit of everything. `fault` is why the login shell told nothing."""
        values, origins = dict(self._environ()), {}
        for name, given in self._options.given.items():
            if not values.get(name):
                values[name], origins[name] = given.reveal(), _SECTION.format(name)
        for name, value in of_shell.items():
            if value and not values.get(name) and self._rules.wants(name, kind="env"):
                values[name], origins[name] = value, _LOGIN_SHELL.format(name)
        unit = self._rules.discover(
            values,
            kind="env",
            source=self.name,
            unit="",
            name="env",
            origin=lambda key: origins.get(key) or _PROCESS.format(key),
        )
        return replace(unit, faults=(*unit.faults, Fault("login shell", fault))) if fault else unit


def _login_shell(environ: Mapping[str, str], within: float) -> tuple[Mapping[str, str], str]:
    """The variables that the user's login shell has, or why they cannot be told."""
    shell = environ.get("SHELL") or _SHELL
    if not Path(shell).is_absolute() or not os.access(shell, os.X_OK):
        shell = _SHELL
    remedy = "mend its profile, or set env.shellEnv.enabled: false"
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
        return {}, f"the login shell {shell} told nothing within {within:g} s: {remedy}"
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


async def _login_shell(environ: Mapping[str, str], *, timeout: float) -> dict[str, str]:  # noqa: ASYNC109 - an option's value
    """The environment of a login shell. Raises OSError, TimeoutError, and ValueError when it fails."""
    shell = environ.get("SHELL") or "/bin/sh"
    process = await asyncio.create_subprocess_exec(
        shell, "-l", "-c", "env -0",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=_SHELL_SAYS_AT_MOST, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode:
        raise ValueError
    pairs = (os.fsdecode(pair).partition("=") for pair in said.split(b"\0") if b"=" in pair)
    return {name: value for name, _, value in pairs}
