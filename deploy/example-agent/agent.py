"""A small agent, to see a broker work: it calls a provider's API now and then, with a credential that it never finds anywhere
but in its lease, and shows on a page how that went. Nothing on the page or in its log is secret.

The same program works with the provider's key (a `raw` lease) and behind the gateway (`brokered`): where requests go, and what
they carry, is the lease's to say.
"""

# ruff: noqa: E402
import signal
import sys

# The first process of a container ignores a SIGTERM that it does not handle, so this comes before imports that take time.
for _number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_number, lambda *_: sys.exit(0))

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Final

import httpx

import equabot_client
from equabot_client.httpx import EquabotAuth

PROVIDER: Final = os.environ.get("AGENT_PROVIDER", "anthropic")
PATH: Final = os.environ.get("AGENT_PATH", "/v1/models")
HEADERS: Final = {"anthropic-version": "2023-06-01"} if PROVIDER == "anthropic" else {}
PERIOD: Final = float(os.environ.get("AGENT_PERIOD", "60"))
LISTEN: Final = os.environ.get("AGENT_LISTEN", "0.0.0.0:8080")


@dataclass
class Status:
    """What the page shows."""

    lock: Lock = field(default_factory=Lock)
    shown: dict[str, Any] = field(default_factory=lambda: {"provider": PROVIDER, "working": False, "calls": 0})

    def show(self, **news: Any) -> None:
        """Puts the news on the page, and into the log."""
        with self.lock:
            self.shown |= {**news, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            print(json.dumps(self.shown), flush=True)

    def read(self) -> dict[str, Any]:
        """The page."""
        with self.lock:
            return dict(self.shown)


def main() -> int:
    """Works until it is told to end."""
    ending = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    status = Status()
    page = serve(status)
    with equabot_client.connect() as broker:
        # A stream behind it keeps it current: a rotated key is in hand before the next request.
        credential = broker.credential(PROVIDER, on_rotate=lambda lease: status.show(**told(lease)))
        with httpx.Client(timeout=30) as http:
            while not ending.is_set():
                work(credential, http, status)
                ending.wait(PERIOD if status.read()["working"] else min(PERIOD, 1.0))
    page.shutdown()
    return 0


def work(credential: equabot_client.Credential, http: httpx.Client, status: Status) -> None:
    """One call of the provider's API."""
    try:
        lease = credential.lease()
        if lease.delivery == "raw":
            # Tells the broker what the provider refuses, and tries again with what it gets instead.
            carried: dict[str, Any] = {"headers": HEADERS, "auth": EquabotAuth(credential)}
        else:
            carried = {"headers": {**HEADERS, **lease.headers}}  # the gateway sees the answers itself
        answer = http.get(f"{lease.base_url.rstrip('/')}{PATH}", **carried)
        status.show(
            **told(credential.lease()), working=True, calls=status.read()["calls"] + 1, status=answer.status_code, error=""
        )
    except equabot_client.EquabotError as error:
        status.show(working=False, error=f"{error.reason}: {error}")
    except httpx.HTTPError as error:
        # There is a credential; it is the way to the provider that is not.
        status.show(**told(lease), working=True, status=0, error=f"{type(error).__name__} at {lease.base_url}")


def told(lease: equabot_client.Lease) -> dict[str, Any]:
    """What may be known of a lease."""
    return {
        "profile": lease.profile,
        "version": lease.version,
        "delivery": lease.delivery,
        "base_url": lease.base_url,
        "expires_at": lease.expires_at.isoformat(),
    }


def serve(status: Status) -> ThreadingHTTPServer:
    """The page, at any path: 200 with a lease in hand, else 503."""

    class Page(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            shown = status.read()
            body = json.dumps(shown, indent=2).encode()
            self.send_response(200 if shown["working"] else 503)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A probe is not worth a line."""

    host, _, port = LISTEN.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Page)
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="page", daemon=True).start()
    return server


if __name__ == "__main__":
    sys.exit(main())
