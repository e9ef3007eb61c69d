"""Callers over TCP show themselves to the broker, and what they show goes no further: neither back to them, nor elsewhere."""

import json
import time
from collections.abc import Iterator

import grpc
import pytest

from equabot.broker.v1 import broker_pb2
from equabot_client import Security, connect, errors
from tests.fakes.issuer import ISSUER, Issuer, base64url
from tests.journeys.canaries import KEY, Canaries
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import RunningBroker
from tests.journeys.showing import BROKER, TALKATIVE, ask, shown_by
from tests.kubernetes.certificates import Authority
from tests.ports import free_port

CONFIG = """\
listen:
  agents:
    certificate: tls.crt
    key: tls.key
    service_accounts: {{address: "127.0.0.1:{port}", validate: published_keys, keys: jwks.json, issuer: "{issuer}"}}
agents: {{reviewer: {{providers: [anthropic], service_accounts: [agents/reviewer]}}}}
sources: [dotenv]
"""
GIVEN = ("tls.crt", "tls.key", "jwks.json", "ca.crt", "token")
AUTHORITY = Authority("broker")


class World:
    """A broker that lets in one service account, by keys in a file; tokens of all kinds."""

    def __init__(self, broker: RunningBroker, port: int, canaries: Canaries) -> None:
        self.broker = broker
        self.address = f"localhost:{port}"
        self.canaries = canaries
        self._issuer, self._other = Issuer("ES256"), Issuer("ES256")
        pair = AUTHORITY.server("localhost", "127.0.0.1")
        for name, text in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", AUTHORITY.pem)):
            (broker.home / name).write_bytes(text)
        (broker.home / "jwks.json").write_text(json.dumps({"keys": [self._issuer.jwk()]}))
        for number, line in enumerate(pair.key.decode().splitlines()[1:-1]):
            canaries.add(f"line {number} of the TLS key", line)

    def tokens(self) -> Iterator[tuple[str, str]]:
        """What is wrong with each; for nothing, nothing is."""
        soon = time.time() + 3600
        yield "", self._added(self._issuer.token(expires_at=soon))
        yield "expired", self._added(self._issuer.token(expires_at=soon - 7200))
        yield "audience", self._added(self._issuer.token(expires_at=soon, audiences=["https://another.example"]))
        yield "account", self._added(self._issuer.token("agents/stranger", expires_at=soon))
        yield "issuer", self._added(self._issuer.token(expires_at=soon, iss=self.canaries.new("an issuer")))
        yield "signature", self._added(self._other.token(expires_at=soon))
        yield "key", self._added(self._issuer.token(expires_at=soon, head={"kid": self.canaries.new("a key's id")}))
        yield "algorithm", self._added(self._issuer.token(expires_at=soon, head={"alg": self.canaries.new("an algorithm")}))
        yield "claims", self._added(self._issuer.token(expires_at=soon, sub=[self.canaries.new("a subject")]))
        yield "names", self._added(self._issuer.token(f"agents/{self.canaries.new('a name')}", expires_at=soon))
        yield "end", self._added(self._issuer.token(expires_at=soon, exp=self.canaries.new("an end")))
        yield "form", self.canaries.new("no token", length=200)
        yield "parts", f"{base64url(self.canaries.new('a part').encode())}.{self.canaries.new('another part')}.x"

    def _added(self, token: str) -> str:
        for number, part in enumerate(token.split(".")):
            self.canaries.add(f"part {number} of a token", part)
        return token

    def call(self, *headers: tuple[str, str], stream: bool = False) -> tuple[str, str]:
        """The reason, and all that is said to whoever sends these."""
        credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
        method, answer = ("StreamLease", broker_pb2.LeaseEvent) if stream else ("AcquireLease", broker_pb2.Lease)
        request = broker_pb2.AcquireLeaseRequest(provider="anthropic")
        with grpc.secure_channel(self.address, credentials) as channel:
            return ask(channel, f"{BROKER}/{method}", request, answer, *headers)


@pytest.fixture
def world(make_broker: MakeBroker) -> World:
    port, canaries = free_port(), Canaries()
    key = canaries.new("the key", like=KEY)
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={key}\n", config=CONFIG.format(port=port, issuer=ISSUER))
    broker.environ |= TALKATIVE
    made = World(broker, port, canaries)
    broker.start("-vv")
    return made


def test_no_token_of_a_caller_is_shown(world: World) -> None:
    """Good ones, and those with which anything is wrong, by the header's form too; to the caller, who has sent it, neither."""
    shown: dict[str, str | bytes] = {}
    for wrong, token in world.tokens():
        for stream in (False, True):
            reason, said = world.call(("authorization", f"Bearer {token}"), stream=stream)
            assert reason == ("POLICY_DENIED" if wrong else ""), wrong
            shown[f"{wrong} {stream}"] = said
    good = next(token for _, token in world.tokens())
    for name, headers in {
        "another kind": [("authorization", f"Basic {good}")],
        "no kind": [("authorization", good)],
        "twice": [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")],
        "elsewhere": [("x-token", good)],
        "with more": [("authorization", f"Bearer {good} {good}")],
    }.items():
        reason, shown[name] = world.call(*headers)
        assert reason == "POLICY_DENIED", name
    shown |= _by_the_library(world, good)
    shown |= shown_by(world.broker, *GIVEN)
    assert "caller refused" in str(shown["log"])
    assert world.canaries.leaks(shown) == {}


def _by_the_library(world: World, token: str) -> dict[str, str | bytes]:
    """What the client library makes of a refusal, and of a token that cannot be sent."""
    shown: dict[str, str | bytes] = {}
    home = world.broker.home
    for name, text in (("denied", f"{token}x"), ("unfit", f"{token}\n{token}"), ("binary", f"{token}\x00\u00e9")):
        (home / "token").write_text(text)
        security = Security(ca_file=str(home / "ca.crt"), token_file=str(home / "token"))
        with connect(world.address, timeout=10, **security) as broker, pytest.raises(errors.EquabotError) as raised:
            broker.acquire("anthropic")
        shown[name] = f"{raised.value!r} {raised.value} {dict(raised.value.metadata)} {broker!r} {security['ca_file']}"
    return shown
