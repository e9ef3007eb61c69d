"""Waits for the end of a login: the browser opens a loopback address, or the user pastes the address or the code.

The first of both counts. The terminal does not show the input, because a code is a secret until it is redeemed.
"""

import os
import select
import socket
import sys
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final, cast
from urllib.parse import urlsplit

from equabot_broker.cli.prompting import interactive, unseen
from equabot_broker.oauth.authorization import LOOPBACK, Attempt, AuthorizationRefusal, Code, Denied, read_query, read_returned
from equabot_cli.exits import Failure
from equabot_cli.surroundings import now

PATIENCE: Final = 900.0
"""Seconds to wait for the user."""

_LOOK_EVERY: Final = 0.1
_LINE_MAX: Final = 16384
_REQUEST_WITHIN: Final = 10
_PAGE: Final = """<!doctype html><meta charset="utf-8"><title>equabot</title>
<body style="font: 1.1rem system-ui; margin: 4rem auto; max-width: 32rem"><p>{}</p></body>
"""


class Callback(ThreadingHTTPServer):
    """Listens at the address to which the provider redirects the browser. `url` is that address with the port."""

    def __init__(self, redirect_url: str) -> None:
        parts = urlsplit(redirect_url)
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, parts.port or 0), _Request)
        self.path = parts.path or "/"
        self.url = parts._replace(netloc=f"{_bracketed(parts.hostname or '')}:{self.server_port}").geturl()
        self.attempt: Attempt | None = None
        self.found: Code | None = None
        self.refused = ""

    def server_bind(self) -> None:
        """Binds without the reverse name lookup of HTTPServer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Request(BaseHTTPRequestHandler):
    """One request of the browser. An unrelated request gets an error page. A request that reports a failed login ends the
    wait."""

    timeout = _REQUEST_WITHIN

    def do_GET(self) -> None:
        callback = cast(Callback, self.server)
        asked = urlsplit(self.path)
        if asked.path != callback.path or callback.attempt is None:
            self._answer(404, "This page does not exist.")
            return
        # The page is sent first, because the process ends soon after the code is found.
        try:
            found = read_query(asked.query, callback.attempt)
        except AuthorizationRefusal as refusal:
            self._answer(400, "This address does not complete the login. The terminal shows why.")
            if isinstance(refusal, Denied):
                callback.refused = str(refusal)
        else:
            self._answer(200, "Logged in. You can close this page.")
            callback.found = found

    def _answer(self, status: int, text: str) -> None:
        page = _PAGE.format(text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
        """Logs nothing, because the address has the code."""


def listen(redirect_url: str) -> Callback | None:
    """Listens at a loopback address. None if the address is not one, or is in use: then the user pastes the code."""
    if urlsplit(redirect_url).hostname not in LOOPBACK:
        return None
    with suppress(OSError):
        return Callback(redirect_url)
    return None


def await_code(attempt: Attempt, callback: Callback | None) -> Code:
    """Waits for the code from the browser or the terminal. Raises Failure if the provider refuses, if the user gives up, or
    after `PATIENCE`."""
    with ExitStack() as stack:
        waiting = []
        if callback is not None:
            callback.attempt = attempt
            waiting.append(callback.fileno())
        if interactive():
            keyboard = sys.stdin.fileno()
            stack.enter_context(unseen(keyboard))
            waiting.append(keyboard)
            print("Paste the code or the address here (not shown): ", end="", file=sys.stderr, flush=True)
        until = now() + PATIENCE
        typed = b""
        while now() < until:
            ready, _, _ = select.select(waiting, [], [], _LOOK_EVERY)
            for source in ready:
                if callback is not None and source == callback.fileno():
                    callback.handle_request()  # in a thread, because a browser also opens connections without a request
                else:
                    typed = _read(source, typed)
            if callback is not None and callback.found:
                return callback.found
            if callback is not None and callback.refused:
                raise Failure(callback.refused)
            if typed.endswith((b"\n", b"\r")):
                try:
                    return read_returned(typed.decode("utf-8", "replace"), attempt)
                except AuthorizationRefusal as refusal:
                    print(f"\n{refusal}\nPaste it (not shown): ", end="", file=sys.stderr, flush=True)
                    typed = b""
    raise Failure("the login was not completed in time, and nothing was stored: start again")


def _read(keyboard: int, typed: bytes) -> bytes:
    """Reads typed bytes. An address can be longer than a line of the terminal."""
    data = os.read(keyboard, 4096)
    if not data or data == b"\x04" or len(typed) > _LINE_MAX:
        raise Failure("cancelled: nothing was stored")
    line, end, _ = (typed + data).replace(b"\r", b"\n").partition(b"\n")
    while (at := line.find(b"\x7f")) >= 0:
        line = line[: max(at - 1, 0)] + line[at + 1 :]
    return line + end


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
