"""A token endpoint whose refresh tokens are single-use and rotate, over real HTTP: in process, or as a process of its own.

    python -m tests.fakes.token_endpoint LEDGER [PORT] [--life SECONDS] [--faults '{"http_503": 0.1, …}'] [--seed N]

Everything it does goes into its ledger, a file of JSON lines, before it is answered. A restart on the same ledger goes on from
there, and a test reads in it what happened: which tokens were presented, which of them redeemed, whose answers were sent.

A refresh token that is presented after it was redeemed ends its whole login, as strict vendors do.
"""

import argparse
import json
import os
import random
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs

REFUSING: Final = frozenset({"invalid_grant", "refresh_token_reused", "token_revoked", "invalid_request"})
"""Faults that end the login. With `invalid_request` the description alone says so, as Qwen's endpoint does."""
LOSING: Final = frozenset({"reset_after", "truncated", "garbled", "slow"})
"""Faults after which a redeemed token's successor may never arrive."""
PASSING: Final = frozenset({"http_500", "http_502", "http_503", "http_429", "html", "empty", "reset_before", "redirect"})
"""Faults that redeem nothing."""
ODD: Final = frozenset(
    {"same_refresh", "no_refresh", "expires_in_0", "expires_in_text", "expires_in_missing", "other_account", "drip"}
)
"""Faults that redeem, and answer strangely."""
FAULTS: Final = REFUSING | LOSING | PASSING | ODD
_HTML: Final = b"<!doctype html><title>Checking your browser</title>"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger. `event`: `login` (a person logged in), `presented`, `answered` (the whole answer was written),
    `ended` (the login is over). `verdict` of what is presented: `redeemed`, `reused`, `unknown`, `over`, or a fault that came
    before. `number` ties an answer to what was presented; `asked` is how the client calls the request, where it says so
    (header `x-asked`)."""

    event: str
    at: float
    number: int = 0
    login: str = ""
    account: str = ""
    token: str = ""
    access: str = ""
    successor: str = ""
    verdict: str = ""
    fault: str = ""
    asked: str = ""


@dataclass(slots=True)
class _Login:
    account: str
    refresh: str
    access: set[str] = field(default_factory=set)
    over: bool = False


class TokenEndpoint:
    """Listens while it is entered. Faults come by name: the next ones from `faults`, else by chance from `odds`."""

    def __init__(
        self,
        ledger: Path,
        *,
        port: int = 0,
        life: float = 600.0,
        odds: Mapping[str, float] | None = None,
        seed: int = 0,
        slowness: float = 0.5,
        host: str = "127.0.0.1",
    ) -> None:
        self.life = life
        self.slowness = slowness
        self.retry_after = "1"
        self.faults: list[str] = []
        self.odds = dict(odds or {})
        self.received: list[tuple[Mapping[str, str], Mapping[str, str]]] = []
        """Header fields (names in lower case) and body of every request."""
        self.peers: set[tuple[str, int]] = set()
        """Every connection's other end."""
        self._chance = random.Random(seed)
        self._mutex = threading.Lock()
        self._logins: dict[str, _Login] = {}
        self._of_token: dict[str, str] = {}
        self._spent: set[str] = set()
        self._number = 0
        for entry in read_ledger(ledger):
            self._apply(entry)
        self._file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._ledger = ledger
        self._server = _Server((host, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.port: int = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/token"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        os.close(self._file)

    # -- what a person does --------------------------------------------------------------------------------------------

    def login(self, account: str, *, life: float | None = None) -> dict[str, Any]:
        """Logs in: tokens as an entry of a store holds them, without type and provider."""
        with self._mutex:
            login = secrets.token_hex(4)
            access, refresh = _token("at"), _token("rt")
            self._record(Entry("login", time.time(), login=login, account=account, token=refresh, access=access))
        now = time.time()
        ends = now + (self.life if life is None else life)
        return {
            "access": access,
            "refresh": refresh,
            "expires": int(ends * 1000),
            "issuedAt": int(now * 1000),
            "accountId": account,
        }

    def revoke(self, refresh: str) -> None:
        """Ends the login that the token belongs to, as its owner or the vendor may."""
        with self._mutex:
            self._record(Entry("ended", time.time(), login=self._of_token[refresh], verdict="revoked"))

    def accepts(self, access: str) -> bool:
        """Whether the access token was given by a login that is not over."""
        with self._mutex:
            return any(access in login.access and not login.over for login in self._logins.values())

    def ledger(self) -> list[Entry]:
        """Everything so far."""
        return read_ledger(self._ledger)

    # -- what a client does --------------------------------------------------------------------------------------------

    def present(self, token: str, *, asked: str = "") -> tuple[int, str, dict[str, Any], int]:
        """Redeems, or not: the number in the ledger, the fault, the answer, its status."""
        with self._mutex:
            fault = self.faults.pop(0) if self.faults else self._by_chance()
            self._number += 1
            number, login_id = self._number, self._of_token.get(token, "")
            login = self._logins.get(login_id)
            account = login.account if login else ""
            entry = Entry("presented", time.time(), number, login_id, account, token, fault=fault, asked=asked)
            if fault in PASSING:
                self._record(_with(entry, verdict="fault"))
                return number, fault, {}, 0
            if login is None or login.over:
                self._record(_with(entry, verdict="over" if login else "unknown"))
                return number, "", _refusal(fault if fault == "invalid_request" else "invalid_grant", token), 400
            if token in self._spent:
                self._record(_with(entry, verdict="reused"))
                self._record(Entry("ended", time.time(), login=login_id, verdict="reused"))
                return number, "", {"error": {"code": "refresh_token_reused", "message": token}}, 401
            if fault in REFUSING:
                self._record(_with(entry, verdict="fault"))
                self._record(Entry("ended", time.time(), login=login_id, verdict=fault))
                return number, "", _refusal(fault, token), 400
            keeps = fault in {"same_refresh", "no_refresh"}
            access, successor = _token("at"), token if keeps else _token("rt")
            self._record(_with(entry, verdict="redeemed", access=access, successor=successor))
            return number, fault, self._answer(access, successor, login.account, fault), 200

    def answered(self, number: int) -> None:
        """The whole answer was written."""
        with self._mutex:
            self._record(Entry("answered", time.time(), number))

    def _answer(self, access: str, refresh: str, account: str, fault: str) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "access_token": access,
            "token_type": "Bearer",
            "refresh_token": refresh,
            "expires_in": self.life,
            "account": {"uuid": account},
        }
        match fault:
            case "no_refresh" | "expires_in_missing":
                del answer["refresh_token" if fault == "no_refresh" else "expires_in"]
            case "expires_in_0":
                answer["expires_in"] = 0
            case "expires_in_text":
                answer["expires_in"] = str(int(self.life) or 1)
            case "other_account":
                answer["account"] = {"uuid": "somebody-else"}
        return answer

    def _by_chance(self) -> str:
        drawn = self._chance.random()
        for fault, odds in self.odds.items():
            drawn -= odds
            if drawn < 0:
                return fault
        return ""

    def _record(self, entry: Entry) -> None:
        os.write(self._file, (json.dumps({k: v for k, v in asdict(entry).items() if v}) + "\n").encode())
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        self._number = max(self._number, entry.number)
        match entry:
            case Entry(event="login"):
                self._logins[entry.login] = _Login(entry.account, entry.token, {entry.access})
                self._of_token[entry.token] = entry.login
            case Entry(event="presented", verdict="redeemed"):
                login = self._logins[entry.login]
                login.refresh = entry.successor
                login.access.add(entry.access)
                self._of_token[entry.successor] = entry.login
                if entry.successor != entry.token:
                    self._spent.add(entry.token)
            case Entry(event="ended"):
                self._logins[entry.login].over = True


def read_ledger(path: Path) -> list[Entry]:
    """The ledger in the file."""
    return [Entry(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _with(entry: Entry, **changed: Any) -> Entry:
    return Entry(**{**asdict(entry), **changed})


def _refusal(error: str, token: str) -> dict[str, Any]:
    said = "Refresh token expired or invalid." if error == "invalid_request" else f"not found, or no longer good: {token}"
    return {"error": error, "error_description": said}


def _token(kind: str) -> str:
    return f"acme-{kind}-{secrets.token_hex(16)}"


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], endpoint: TokenEndpoint) -> None:
        super().__init__(address, _Handler)
        self.endpoint = endpoint

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed, or a connection that we reset: both are meant."""


class _Handler(BaseHTTPRequestHandler):
    """Willing to take several requests on one connection."""

    protocol_version = "HTTP/1.1"

    @property
    def endpoint(self) -> TokenEndpoint:
        assert isinstance(self.server, _Server)
        return self.server.endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/control":
            self._control(json.loads(body))
            return
        self.endpoint.peers.add(self.client_address)
        fields = _fields(self.headers.get("content-type", ""), body)
        self.endpoint.received.append(({k.lower(): v for k, v in self.headers.items()}, fields))
        if len(self.endpoint.received) > 1000:
            del self.endpoint.received[:500]
        number, fault, answer, status = self.endpoint.present(
            fields.get("refresh_token", ""), asked=self.headers.get("x-asked", "")
        )
        if fault:
            self._fault(fault, number, answer)
        else:
            self._send(status, json.dumps(answer).encode(), number=number)

    def _fault(self, fault: str, number: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        match fault:
            case "http_500" | "http_502" | "http_503" | "http_429":
                wait = self.endpoint.retry_after if fault in {"http_429", "http_503"} else ""
                self._send(int(fault[5:]), _HTML if fault == "http_502" else b"{}", retry_after=wait, number=number)
            case "redirect":
                self._send(302, b"", location=f"{self.endpoint.url}?elsewhere", number=number)
            case "html":
                self._send(200, _HTML, kind="text/html", number=number)
            case "empty":
                self._send(200, b"", number=number)
            case "reset_before" | "reset_after":
                self._reset()
            case "truncated":
                self._send(200, body, cut=len(body) // 2)
                self.close_connection = True
            case "garbled":
                self._send(200, b"[" + body[::-1])
            case "slow":
                time.sleep(self.endpoint.slowness)
                self._send(200, body, number=0 if self._gone() else number)
            case "drip":
                self._send(200, body, number=number, drip=True)
            case _:
                self._send(200, body, number=number)

    def _send(
        self, status: int, body: bytes, *, kind: str = "application/json", retry_after: str = "", location: str = "",
        cut: int | None = None, drip: bool = False, number: int = 0,
    ) -> None:  # fmt: skip
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("set-cookie", "tracked=yes; Path=/")
        if retry_after:
            self.send_header("retry-after", retry_after)
        if location:
            self.send_header("location", location)
        self.end_headers()
        for start in range(0, len(body[:cut]), step := 7 if drip else 1 << 20):
            self.wfile.write(body[:cut][start : start + step])
            self.wfile.flush()
            if drip:
                time.sleep(0.001)
        if number:
            self.endpoint.answered(number)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _gone(self) -> bool:
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(None)

    def _control(self, asked: dict[str, Any]) -> None:
        answer: dict[str, Any] = {}
        if "login" in asked:
            answer = self.endpoint.login(asked["login"])
        self.endpoint.faults += asked.get("faults", [])
        self.endpoint.odds = asked.get("odds", self.endpoint.odds)
        self._send(200, json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """The ledger says it all."""


def _fields(kind: str, body: bytes) -> dict[str, str]:
    if "json" in kind:
        found = json.loads(body)
        return {str(name): str(value) for name, value in found.items()}
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def main(arguments: Iterable[str]) -> None:
    """Serves until it is killed. Prints its URL once it listens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", type=Path)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--life", type=float, default=600.0)
    parser.add_argument("--faults", type=json.loads, default={})
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slowness", type=float, default=0.5)
    args = parser.parse_args(list(arguments))
    with TokenEndpoint(
        args.ledger, port=args.port, life=args.life, odds=args.faults, seed=args.seed, slowness=args.slowness
    ) as endpoint:
        print(endpoint.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
