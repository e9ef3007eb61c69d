"""What a test program in another language can do to the world of its test: by HTTP, on loopback."""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

Action = Callable[..., object]


class Control:
    """`POST /name` with a JSON object calls the action of that name with it; what the action returns is the answer."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._server: Final = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"actions": actions}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    actions: Mapping[str, Action]
    """One class for each control."""

    def do_POST(self) -> None:
        """Calls the action."""
        arguments: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        try:
            status, answer = 200, self.actions[self.path.strip("/")](**arguments)
        except Exception as error:  # noqa: BLE001 - the program under test reports it
            status, answer = 500, repr(error)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
        """The test's own output is enough."""
