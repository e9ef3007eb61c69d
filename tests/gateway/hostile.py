"""A hostile agent: it may have brokered leases alone, and tries to gain more. Run as a process of its own, with nothing but
the address of its socket and the gateway's port.

Prints what became of each attempt, as JSON: for each name a list of `[status, reason]`. Everything that it was ever given
goes to the file that it names. With `again TOKEN` it only tries what that token and a new lease are worth later.
"""

import http.client
import json
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from equabot_client import Broker, EquabotError, connect

ANOTHER: Final = "sk-another-credential-that-the-agent-found-somewhere"
"""A second credential. The vendor refuses requests that carry it, wherever they do."""
MINTS: Final = {
    "perplexity": ["POST /generate_auth_token", "POST /revoke_auth_token"],
    "github-copilot": ["POST /mcp/", "POST /mcp", "GET /copilot_internal/v2/token"],
    "openai": [
        "POST /realtime/client_secrets",
        "POST /realtime/translations/client_secrets",
        "POST /realtime/sessions",
        "POST /realtime/transcription_sessions",
        "POST /chatkit/sessions",
        "GET /organization/admin_api_keys",
        "POST /projects/p/api_keys",
        "POST /v1/realtime/client_secrets",
        "POST /v1/v1/realtime/client_secrets",
    ],
    "microsoft-foundry": [
        "POST /openai/v1/realtime/client_secrets",
        "POST /openai/realtimeapi/sessions",
        "GET /openai/v1/organization/admin_api_keys",
    ],
    "xai": ["POST /realtime/client_secrets", "GET /api-key", "GET /v1/api-key"],
    "mistral": ["POST /client/sessions", "GET /workspaces", "POST /v1/client/sessions"],
    "elevenlabs": [
        "GET /v1/convai/conversation/token",
        "GET /v1/convai/conversation/get-signed-url",
        "GET /v1/convai/conversation/get_signed_url",
        "GET /v1/convai/secrets",
        "POST /v1/single-use-token/realtime_scribe",
        "GET /v1/user",
    ],
    "openrouter": ["GET /key", "GET /keys", "POST /keys", "POST /auth/keys/code", "GET /credits"],
    "venice": ["GET /api_keys", "POST /api_keys", "GET /api_keys/rate_limits", "POST /api_keys/generate_web3_key"],
    "google": [
        "POST /v1beta/tunedModels/x/permissions",
        "POST /v1alpha/auth_tokens",
        "POST /v1beta/batch",
        "POST /v1beta/models/gemini:setIamPolicy",
    ],
    "litellm": [
        "POST /model/new",
        "POST /invitation/new",
        "GET /v2/key/info",
        "POST /jwt/key/mapping/new",
        "GET /get/config/callbacks",
        "GET /settings",
        "POST /key/generate",
        "GET /v1/key/info",
    ],
    "anthropic": ["GET /v1/organizations/api_keys", "POST /v1/oauth/token", "POST /v1/messages/../organizations/api_keys"],
    "deepgram": ["POST /v1/auth/grant", "GET /v1/projects", "POST /v1/projects/p/keys"],
}
"""Requests by which the vendors hand out, show or change credentials, members, billing or settings; paths behind `base_url`."""
SECOND_HEADERS: Final = (
    "x-litellm-api-key", "Ocp-Apim-Subscription-Key", "x-auth-token", "x-api-token", "cookie", "api-key", "x-goog-api-key",
    "xi-api-key", "proxy-authorization", "x-subscription-token", "authentication", "x-amz-security-token", "x-access-token",
    "private-token", "x-functions-key", "x-vendor-made-this-up",
)  # fmt: skip
SECOND_PARAMETERS: Final = (
    "token", "authorization", "x-api-key", "xi-api-key", "single_use_token", "key", "api_key", "access_token", "auth", "sig",
    "X-Amz-Security-Token", "jwt", "password", "x-vendor-made-this-up",
)  # fmt: skip
SECOND_PROTOCOLS: Final = ("rt_", "xai-client-secret.", "openai-insecure-api-key.", "bearer.", "token, ")
HELLO: Final[Any] = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


class Hostile:
    """Its attempts, and all that it was given."""

    def __init__(self, broker: Broker, port: int) -> None:
        self.broker = broker
        self.port = port
        self.loot = bytearray()
        self.became: dict[str, list[tuple[int, str]]] = {}

    def asked(self, name: str, request: str, *, body: Any = HELLO, **headers: str) -> None:
        """One request through the gateway."""
        method, path = request.split(" ", 1)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = None if method == "GET" else json.dumps(body)
            connection.request(method, path, content, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            told = {key.lower(): value for key, value in answer.getheaders()}
            self.loot += repr(told).encode() + answer.read()
            self.became.setdefault(name, []).append((answer.status, told.get("x-equabot-reason", "")))
        finally:
            connection.close()

    def leased(self, name: str, provider: str, **wanted: Any) -> str:
        """A lease's token; empty where it is refused."""
        try:
            lease = self.broker.acquire(provider, **wanted)
        except EquabotError as error:
            self.loot += repr(error).encode()
            self.became.setdefault(name, []).append((0, error.reason))
            return ""
        secret = lease.secret.reveal()
        self.loot += repr((secret, dict(lease.headers), dict(lease.env), lease.base_url, lease.profile)).encode()
        self.became.setdefault(name, []).append((200, ""))
        return secret

    def attack(self) -> None:
        """Everything, one after the other; each is bounded."""
        for provider, requests in MINTS.items():
            token = self.leased("leases", provider)
            for request in requests:
                method, path = request.split(" ", 1)
                self.asked("mints", f"{method} /{provider}{path}", authorization=f"Bearer {token}")
                self.asked("mints", f"{method} /{provider}{path}/", authorization=f"Bearer {token}")
        self.leased("raw", "anthropic", delivery="raw")
        token = self.leased("leases", "anthropic")
        messages = "POST /anthropic/v1/messages"
        for header in SECOND_HEADERS:
            self.asked("headers", messages, authorization=f"Bearer {token}", **{header: ANOTHER})
        for parameter in SECOND_PARAMETERS:
            self.asked("parameters", f"{messages}?{parameter}={ANOTHER}", authorization=f"Bearer {token}")
        realtime = self.leased("leases", "openai")
        for protocol in SECOND_PROTOCOLS:
            upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
            upgrade |= {
                "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
                "sec-websocket-protocol": f"realtime, {protocol}{ANOTHER}",
            }
            self.asked("protocols", "GET /openai/realtime", authorization=f"Bearer {realtime}", **upgrade)
        for verdict in ("401", "402", "401", "402", "401"):
            self.asked("verdicts", messages, body=HELLO | {"model": f"verdict-{verdict}"}, authorization=f"Bearer {token}")
        self.flood(token)
        print(json.dumps({"became": self.became, "token": token}), flush=True)

    def flood(self, token: str) -> None:
        """Connections that say nothing, requests without a token, leases that are refused, lists."""
        with ExitStack() as held:
            for _ in range(300):
                with suppress(OSError):
                    held.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=5))
            for _ in range(300):
                self.asked("strangers", "POST /anthropic/v1/messages")
                self.leased("denied", "groq")
        for _ in range(20):
            for provider in ("anthropic", "openai"):
                self.loot += repr(self.broker.list_profiles(provider)).encode()
        self.asked("still", "GET /anthropic/v1/models", authorization=f"Bearer {token}")


def main() -> None:
    """`hostile.py PORT LOOT [again TOKEN]`."""
    port, loot, *later = sys.argv[1:]
    with connect(timeout=60) as broker:
        agent = Hostile(broker, int(port))
        try:
            if later:
                agent.asked("gateway", "POST /anthropic/v1/messages", authorization=f"Bearer {later[1]}")
                agent.leased("acquire", "anthropic")
                print(json.dumps({"became": agent.became}), flush=True)
            else:
                agent.attack()
        finally:
            Path(loot).write_bytes(agent.loot)


if __name__ == "__main__":
    main()
