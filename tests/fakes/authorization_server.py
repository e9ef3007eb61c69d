"""A vendor that people log in to, on loopback: codes and devices, PKCE checked, every code good once."""

import base64
import hashlib
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

ACCESS = "acc-" + "e55t0k" * 8
REFRESH = "ref-" + "r3fr3" * 8


class AuthorizationServer:
    """`/authorize` sends the browser back at once, `/token` redeems, `/device` begins a device login.

    `extra` goes into the answer with the tokens, `denied` makes everybody refuse, `pending` is how often a device is not yet
    confirmed. `requests` are the token requests as they came.
    """

    def __init__(self, *, client_id: str = "equabot-test") -> None:
        self.client_id = client_id
        self.extra: dict[str, Any] = {}
        self.refresh = True
        self.denied = ""
        self.failing = 0
        self.pending = 0
        self.requests: list[dict[str, str]] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def authorize(self, query: str) -> str:
        """Where a browser that asks with this query is sent: what a person does who logs in and agrees."""
        asked = {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}
        assert asked["client_id"] == self.client_id
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert len(asked["state"]) >= 32
        if self.denied:
            return f"{asked['redirect_uri']}?{urlencode({'error': self.denied, 'state': asked['state']})}"
        code = "code-" + secrets.token_urlsafe(24)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """The answer to a token request."""
        self.requests.append(asked)
        if self.failing:
            self.failing -= 1
            return 503, {}
        if asked.get("grant_type") == "urn:ietf:params:oauth:grant-type:device_code":
            known = self._codes.get(asked.get("device_code", ""))
            if known and self.denied:
                return 400, {"error": self.denied}
            if known and self.pending:
                self.pending -= 1
                return 400, {"error": "authorization_pending"}
        else:
            known = self._codes.get(asked.get("code", ""))
        proof = base64.urlsafe_b64encode(hashlib.sha256(asked.get("code_verifier", "").encode()).digest()).decode().rstrip("=")
        if not known or known["code_challenge"] != proof or asked.get("client_id") != self.client_id:
            return 400, {"error": "invalid_grant", "error_description": f"no good: {asked}"}
        if asked.get("redirect_uri") != known.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        self._codes.clear()
        refresh = {"refresh_token": REFRESH} if self.refresh else {}
        return 200, {"token_type": "Bearer", "access_token": ACCESS, "expires_in": 28800} | refresh | self.extra

    def device(self, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """The answer to the beginning of a device login."""
        device = "dev-" + secrets.token_urlsafe(24)
        self._codes[device] = asked
        url = f"{self.url}/activate?user_code=ABCD-1234"
        return 200, {"device_code": device, "user_code": "ABCD-1234", "verification_uri_complete": url, "interval": 0.01}


def _handler(server: AuthorizationServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", server.authorize(urlsplit(self.path).query))
            self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            if "json" in self.headers["content-type"]:
                asked = json.loads(body)
            else:
                asked = {name: values[0] for name, values in parse_qs(body).items()}
            status, answer = (server.device if self.path == "/device" else server.token)(asked)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
            """Tests look at `requests` instead."""

    return Handler
