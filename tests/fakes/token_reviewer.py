"""The corner of a Kubernetes API that knows of tokens, by script, over HTTP: reviews, and the keys that are published."""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{token: token-of-the-broker}}}}]
"""


def accepted(username: str, *audiences: str) -> dict[str, Any]:
    """The status of a token that is good."""
    return {"authenticated": True, "user": {"username": username}, "audiences": list(audiences)}


class TokenReviewer:
    """`statuses` by token are what it answers to reviews, `documents` by path what is published. `refusal` is answered instead:
    an HTTP status and a reason; while `going` is not set nothing is. `at_once` is the most reviews that waited together."""

    def __init__(self) -> None:
        self.statuses: dict[str, Mapping[str, Any]] = {}
        self.documents: dict[str, object] = {}
        self.refusal: tuple[int, str] | None = None
        self.asked: list[tuple[str, Any]] = []
        self.at_once = 0
        self._waiting = 0
        self._counting = threading.Lock()
        self.going = threading.Event()
        self.going.set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: Any) -> None:
                with fake._counting:
                    fake.asked.append((self.path, body))
                    fake._waiting += 1
                    fake.at_once = max(fake.at_once, fake._waiting)
                fake.going.wait(60)
                with fake._counting:
                    fake._waiting -= 1
                status, answer = fake._answer(self.path, body)
                text = json.dumps(answer).encode()
                with suppress(OSError):  # whoever asked has gone
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.going.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, path: Path) -> Path:
        """Written there."""
        path.write_text(_KUBECONFIG.format(url=f"http://127.0.0.1:{self._server.server_port}"))
        return path

    def _answer(self, path: str, body: Any) -> tuple[int, object]:
        if self.refusal is not None:
            code, reason = self.refusal
            return code, {
                "kind": "Status",
                "status": "Failure",
                "reason": reason,
                "message": "canary of a message",
                "code": code,
            }
        if path == _REVIEWS:
            return 201, {**body, "status": self.statuses.get(body["spec"]["token"], {"error": "canary of an error"})}
        if path in self.documents:
            return 200, self.documents[path]
        return 404, {"kind": "Status", "reason": "NotFound", "code": 404}
