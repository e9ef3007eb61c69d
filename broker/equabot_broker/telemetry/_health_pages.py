"""The pages `/healthz`, `/readyz` and `/status.json`, for callers without gRPC. They have names and states only."""

import asyncio
import json
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, Protocol

from equabot_broker.domain.instants import rfc3339
from equabot_broker.parsing.untrusted_json import Json
from equabot_broker.telemetry._broker_loop import read_on
from equabot_broker.telemetry._readings import Snapshot
from equabot_broker.telemetry._scrape_request import Page, Scrape

_TEXT: Final = ("Content-Type: text/plain; charset=utf-8", "Cache-Control: no-store")
_JSON: Final = ("Content-Type: application/json", "Cache-Control: no-store")
_UNAVAILABLE: Final = "503 Service Unavailable"
_READINESS: Final = "readiness"


class HealthReader(Protocol):
    """The state that the health service reports (`engine.health`)."""

    def status(self, service: str) -> bool | None:
        """Whether the service serves; None for an unknown name."""

    def unmet(self) -> Collection[str]:
        """The required providers for which every agent would be refused a lease."""


class HealthPages:
    """Answers from the state on the broker's event loop. The answer is 503 if that loop is blocked."""

    def __init__(
        self, health: HealthReader, *, version: str, snapshot: Callable[[], Snapshot], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._health = health
        self._version = version
        self._snapshot = snapshot
        self._loop = loop

    async def healthz(self, _: Scrape) -> Page:
        """200 while the event loop runs."""
        return await self._from(lambda: _text("200 OK", "ok"))

    async def readyz(self, scrape: Scrape) -> Page:
        """200 while the service serves: `readiness`, or the service that the query names. 404 for an unknown name."""
        return await self._from(partial(self._readiness, scrape.service or _READINESS))

    async def status(self, _: Scrape) -> Page:
        """The state of each provider that has a profile, of each profile, and of each source, as JSON."""
        return await self._from(self._status)

    async def _from(self, read: Callable[[], Page]) -> Page:
        try:
            return await read_on(self._loop, read)
        except TimeoutError:
            return _text(_UNAVAILABLE, "the event loop of the broker does not answer")

    def _readiness(self, service: str) -> Page:
        serves = self._health.status(service)
        if serves is None:
            return _text("404 Not Found", "unknown service: use readiness, liveness, provider/PROVIDER or profile/PROFILE")
        if serves:
            return _text("200 OK", "ready")
        unmet = sorted(self._health.unmet()) if service == _READINESS else []
        return _text(_UNAVAILABLE, "\n".join(["not ready", *(f"no lease of provider {name} can be granted" for name in unmet)]))

    def _status(self) -> Page:
        read, unmet = self._snapshot(), sorted(self._health.unmet())
        providers = sorted({one.provider for one in read.credentials}.union(unmet))
        report: Json = {
            "version": self._version,
            "ready": bool(self._health.status(_READINESS)),
            "unmet": unmet,
            "providers": [{"provider": name, "serving": bool(self._health.status(f"provider/{name}"))} for name in providers],
            "profiles": [
                {
                    "profile": one.profile,
                    "provider": one.provider,
                    "agent": one.agent,
                    "state": one.state,
                    "expiresAt": None if one.expires_at is None else rfc3339(one.expires_at),
                }
                for one in read.credentials
            ],
            "sources": [{"source": one.source, "stale": one.stale} for one in read.sources],
        }
        return Page("200 OK", _JSON, json.dumps(report).encode())


def _text(status: str, words: str) -> Page:
    return Page(status, _TEXT, f"{words}\n".encode())
