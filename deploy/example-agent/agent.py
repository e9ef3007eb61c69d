"""A small example agent. It calls a provider's API at intervals and shows the result on a web page.

The credential comes only from a lease. Neither the page nor the log contains a secret. The same program works with the
provider's key (a `raw` lease) and with the gateway (a `brokered` lease), because the lease has the address and the headers.
"""

# ruff: noqa: E402
import signal
import sys

# The first process of a container ignores SIGTERM unless it has a handler. This comes before the slow imports.
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
    """The content of the page."""

    lock: Lock = field(default_factory=Lock)
    shown: dict[str, Any] = field(default_factory=lambda: {"provider": PROVIDER, "working": False, "calls": 0})

    def show(self, **changes: Any) -> None:
        """Updates the page, and logs its content."""
        with self.lock:
            self.shown |= {**changes, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            print(json.dumps(self.shown), flush=True)

    def read(self) -> dict[str, Any]:
        """Returns a copy of the content."""
        with self.lock:
            return dict(self.shown)


def main() -> int:
    """Calls the API until SIGTERM or SIGINT, and returns the exit code."""
    ending = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    status = Status()
    page = serve(status)
    with equabot_client.connect() as broker:
        # A stream keeps the credential current: the agent has a rotated key before its next request.
        credential = broker.credential(PROVIDER, on_rotate=lambda lease: status.show(**described(lease)))
        with httpx.Client(timeout=30) as http:
            while not ending.is_set():
                work(credential, http, status)
                ending.wait(PERIOD if status.read()["working"] else min(PERIOD, 1.0))
    page.shutdown()
    return 0


def work(credential: equabot_client.Credential, http: httpx.Client, status: Status) -> None:
    """Calls the provider's API once."""
    try:
        lease = credential.lease()
        if lease.delivery == "raw":
            # Reports a refusal to the broker, and repeats the request with the new credential.
            carried: dict[str, Any] = {"headers": HEADERS, "auth": EquabotAuth(credential)}
        else:
            carried = {"headers": {**HEADERS, **lease.headers}}  # the gateway observes the answers itself
        answer = http.get(f"{lease.base_url.rstrip('/')}{PATH}", **carried)
        status.show(
            **described(credential.lease()), working=True, calls=status.read()["calls"] + 1, status=answer.status_code, error=""
        )
    except equabot_client.EquabotError as error:
        status.show(working=False, error=f"{error.reason}: {error}")
    except httpx.HTTPError as error:
        # The agent has a credential, but cannot reach the provider.
        status.show(**described(lease), working=True, status=0, error=f"{type(error).__name__} at {lease.base_url}")


def described(lease: equabot_client.Lease) -> dict[str, Any]:
    """Returns the parts of a lease that are not secret."""
    return {
        "profile": lease.profile,
        "version": lease.version,
        "delivery": lease.delivery,
        "base_url": lease.base_url,
        "expires_at": lease.expires_at.isoformat(),
    }


def serve(status: Status) -> ThreadingHTTPServer:
    """Serves the page at any path, with 200 while the agent has a lease, else 503."""

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
            """Logs nothing, because most requests are probes."""

    host, _, port = LISTEN.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Page)
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="page", daemon=True).start()
    return server


if __name__ == "__main__":
    sys.exit(main())
