"""Vendors that exchange workloads' identities, over real HTTP: what each documents is checked, the identity's signature too.

`/anthropic` takes what RFC 7523 calls an assertion, `/openai` and `/openrouter` the subject token of RFC 8693.
"""

import base64
import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

SUBJECT: Final = "system:serviceaccount:agents:coder"
AUDIENCE: Final = "https://vendor.example"
ISSUER: Final = "https://cluster.example"
Keys = Mapping[str, rsa.RSAPublicKey]


class Refused(Exception):
    """Status and OAuth error code."""


@dataclass(frozen=True)
class Vendor:
    """What a vendor wants: the field of the token, others with their only right values, and how it is sent."""

    token: str
    fields: Mapping[str, str]
    form: bool = False
    beta: str = ""
    prefix: str = "vendor-"


_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
VENDORS: Final[Mapping[str, Vendor]] = {
    "anthropic": Vendor(
        "assertion",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "federation_rule_id": "fdrl_1",
            "organization_id": "org-1",
            "service_account_id": "svac_1",
        },
        beta="oidc-federation-2026-04-01",
        prefix="sk-ant-oat01-",
    ),
    "openai": Vendor(
        "subject_token",
        {
            "grant_type": _EXCHANGE,
            "subject_token_type": _JWT,
            "identity_provider_id": "idp_1",
            "service_account_id": "user_1",
        },
    ),
    "openrouter": Vendor(
        "subject_token",
        {"grant_type": _EXCHANGE, "subject_token_type": _JWT, "federation_policy_id": "policy-1"},
        form=True,
    ),
}


class Issuer:
    """Signs identity tokens, as a cluster does for service accounts (RS256)."""

    def __init__(self, key_id: str = "k1") -> None:
        self._key = _key(key_id)
        self.key_id = key_id

    @property
    def keys(self) -> Keys:
        """Its published keys."""
        return {self.key_id: self._key.public_key()}

    def token(self, *, subject: str = SUBJECT, audience: str = AUDIENCE, life: float = 3600.0) -> str:
        """An identity token that lives so many seconds; below zero, that ended so long ago."""
        now = time.time()
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": [audience],
            "iat": int(now),
            "exp": int(now + life),
            "jti": secrets.token_hex(8),
        }
        signed = f"{_encoded({'alg': 'RS256', 'kid': self.key_id})}.{_encoded(claims)}"
        return f"{signed}.{_base64(self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


@cache
def _key(_: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def published(jwks: Mapping[str, Any]) -> Keys:
    """The RSA keys of a JWKS document."""
    numbers = {key["kid"]: (_number(key["n"]), _number(key["e"])) for key in jwks["keys"] if key["kty"] == "RSA"}
    return {kid: rsa.RSAPublicNumbers(e, n).public_key() for kid, (n, e) in numbers.items()}


def _number(encoded: str) -> int:
    return int.from_bytes(_decoded(encoded))


def _encoded(part: Mapping[str, Any]) -> str:
    return _base64(json.dumps(part).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(encoded: str) -> bytes:
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


@dataclass
class Asked:
    """One request: header names in lower case."""

    vendor: str
    headers: Mapping[str, str]
    fields: Mapping[str, str]
    identity: str


@dataclass
class IdentityExchange:
    """Listens while it is entered. `faults` are had by the next requests, and `always` by all others: `http_<status>`, `slow`,
    `reset`, `garbled`, `echo` (refused, with the request in the answer), `no_expiry`."""

    keys: Keys
    subject: str = SUBJECT
    audience: str = AUDIENCE
    life: float = 600.0
    always: str = ""
    slowness: float = 0.3
    faults: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    new: Callable[[str], str] = lambda prefix: prefix + secrets.token_hex(24)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, name: str, headers: Mapping[str, str], body: bytes, *, fault: str = "") -> dict[str, Any]:
        """The tokens. Raises Refused."""
        if fault.startswith("http_"):
            raise Refused(int(fault[5:]), "temporarily_unavailable")
        if fault == "echo":
            raise Refused(400, "invalid_grant", body.decode())
        vendor = VENDORS[name]
        kind = headers.get("content-type", "").partition(";")[0]
        if kind != ("application/x-www-form-urlencoded" if vendor.form else "application/json"):
            raise Refused(415, "invalid_request")
        sent = {k: v[0] for k, v in parse_qs(body.decode()).items()} if vendor.form else json.loads(body)
        identity = str(sent.pop(vendor.token, ""))
        self.asked.append(Asked(name, headers, sent, identity))
        if vendor.beta not in headers.get("anthropic-beta", ""):
            raise Refused(404, "invalid_request")
        if missing := vendor.fields.keys() - sent.keys():
            raise Refused(400, f"invalid_request_{len(missing)}")
        if sent["grant_type"] != vendor.fields["grant_type"]:
            raise Refused(400, "unsupported_grant_type")
        if any(sent[wanted] != right for wanted, right in vendor.fields.items()):
            raise Refused(400, "invalid_grant")
        self._check(identity)
        token = self.new(vendor.prefix)
        self.given.append(token)
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.life, "scope": "inference"}

    def _check(self, identity: str) -> None:
        try:
            header, claims, signature = identity.split(".")
            key = self.keys[json.loads(_decoded(header))["kid"]]
            key.verify(_decoded(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), SHA256())
            told = json.loads(_decoded(claims))
        except (ValueError, KeyError, InvalidSignature):
            raise Refused(400, "invalid_grant") from None
        if told["exp"] <= time.time() or told["sub"] != self.subject or self.audience not in told["aud"]:
            raise Refused(400, "invalid_grant")


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, vendors: IdentityExchange) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.vendors = vendors

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed, or a connection that we reset: both are meant."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        vendors = self.server.vendors
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = vendors.faults.pop(0) if vendors.faults else vendors.always
        try:
            answer = vendors.answer(self.path.strip("/").partition("/")[0], headers, body, fault=fault)
        except Refused as refused:
            status, code, *echoed = refused.args
            self._send(status, json.dumps({"error": code, "error_description": str(echoed)}).encode())
            return
        if fault == "slow":
            time.sleep(vendors.slowness)
        if fault == "no_expiry":
            del answer["expires_in"]
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self._send(200, b"[" * (fault == "garbled") + json.dumps(answer).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """`asked` says it all."""
