"""The environment of the broker's own process. It is read when asked, for nobody can tell when it changes."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from broker.domain.discovery import Rules
from broker.domain.material import Event, Listed


@dataclass(frozen=True, slots=True)
class EnvOptions:
    """There is nothing to choose."""


def process_environment() -> Mapping[str, str]:
    """The environment of this process, as it is now."""
    return os.environ


class Env:
    """The source `env`. One unit, named ""."""

    name = "env"

    def __init__(self, *, rules: Rules, environ: Callable[[], Mapping[str, str]] = process_environment) -> None:
        self._rules = rules
        self._environ = environ
        self._asked = asyncio.Event()

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the environment holds, once, and again whenever asked."""
        while True:
            self._asked.clear()
            unit = self._rules.discover(
                self._environ(), kind="env", source=self.name, unit="", name="env", origin="environment variable {}".format
            )
            yield Listed((unit,))
            await self._asked.wait()

    def reread(self) -> None:
        """Reads it again."""
        self._asked.set()
