"""What is under way through a real Envoy when its agent is suspended."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from equabot_client import admin
from tests.fakes import vendor_answers as says
from tests.fakes.upstream import Answer, Upstream, refused
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import DOTENV, HELLO, MESSAGES, OPENAI_KEY, TWO_KEYS, Gateway
from tests.gateway.websocket import WebSocket
from tests.journeys.running import KEY, OTHER_KEY

AGENTS = {"agents": {"main": {"providers": ["*"]}, "coder": {"providers": ["*"]}}}
EVENTS = {"content-type": "text/event-stream"}
FIRST, LAST = says.event("message_start", {"n": 1}), says.event("message_stop", {"n": 2})


def act(gateway: Gateway, agent: str = "main", *, suspended: bool) -> None:
    with admin.connect(str(gateway.socket("admin"))) as operator:
        if suspended:
            operator.suspend_agent(agent, reason="odd requests")
        else:
            operator.resume_agent(agent)


class Stream:
    """An answer that is being read."""

    def __init__(self, gateway: Gateway, token: str, path: str = MESSAGES, *, method: str = "POST") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        headers = {"content-type": "application/json", "x-api-key": token}
        body = json.dumps(HELLO | {"stream": True}) if method == "POST" else None
        self._connection.request(method, path, body=body, headers=headers)
        self.answer = self._connection.getresponse()

    def read(self, size: int = len(FIRST)) -> bytes:
        return self.answer.read(size)

    def rest(self) -> bytes | None:
        """What still comes; None: it is broken off."""
        try:
            return self.answer.read()
        except (http.client.IncompleteRead, ConnectionError):
            return None
        finally:
            self._connection.close()


@contextmanager
def streaming(vendor: Upstream, count: int = 1) -> Iterator[None]:
    """The vendor's next answers begin, and end with the block."""
    go_on = threading.Event()
    vendor.answers.extend(Answer(headers=EVENTS, chunks=[FIRST, go_on, LAST]) for _ in range(count))
    try:
        yield
    finally:
        go_on.set()


@pytest.fixture(params=["child", "sidecar"])
def both(request: pytest.FixtureRequest, make_gateway: MakeGateway) -> Iterator[Gateway]:
    """A broker with an Envoy of its own, and one with an Envoy next to it."""
    gateway = make_gateway(mode=request.param, **AGENTS).start()
    if request.param == "child":
        yield gateway
        return
    with gateway.envoy():
        yield gateway


def test_a_stream_under_way_is_cut_and_anothers_goes_on(both: Gateway, vendor: Upstream) -> None:
    """S11: of the suspended agent not one byte more; the other agent reads its answer to the end."""
    tokens = [both.lease(agent=agent).secret.reveal() for agent in ("main", "coder")]
    with streaming(vendor, 2):
        main, coder = (Stream(both, token) for token in tokens)
        assert [stream.read() for stream in (main, coder)] == [FIRST, FIRST]
        act(both, suspended=True)
        assert main.rest() is None
    assert coder.rest() == LAST


def test_a_stream_that_is_scrubbed_is_cut(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S11: both tasks of the external processor at once."""
    gateway = make_gateway(gateway={"scrub": True}, **AGENTS).start()
    token = gateway.lease().secret.reveal()
    with streaming(vendor):
        main = Stream(gateway, token)
        assert main.read() == FIRST
        act(gateway, suspended=True)
        assert main.rest() is None


def test_a_websocket_under_way_is_cut_and_anothers_goes_on(both: Gateway) -> None:
    """S11: in both directions, although nothing is said in it."""
    tokens = [both.lease("openai", agent=agent).secret.reveal() for agent in ("main", "coder")]
    sockets = [WebSocket(both.port, "/openai/v1/realtime?model=gpt", authorization=f"Bearer {token}") for token in tokens]
    with sockets[0] as main, sockets[1] as coder:
        assert (main.echo(b"hello"), coder.echo(b"hello")) == (b"hello", b"hello")
        act(both, suspended=True)
        assert main.closed()
        assert coder.echo(b"still here") == b"still here"


def test_the_next_request_is_refused_until_the_agent_is_resumed(both: Gateway) -> None:
    """S11: in the vendor's form, with the reason; across a restart; its old token stays worth nothing, a new one works."""
    token = both.lease().secret.reveal()
    assert both.ask(token).status == 200
    act(both, suspended=True)
    told = both.ask(token)
    assert (told.status, told.reason, told.json()["error"]["type"]) == (403, "AGENT_SUSPENDED", "permission_error")
    both.kill()
    both.start()
    both.wait_for(lambda: both.ask(token).reason == "AGENT_SUSPENDED")
    act(both, suspended=False)
    assert both.ask(token).reason == "LEASE_NOT_FOUND"
    assert both.ask(both.lease().secret.reveal()).status == 200


def test_an_answer_that_begins_after_the_suspension_is_withheld(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S11: the request was let pass before; its stream never begins."""
    gateway = make_gateway(**AGENTS).start()
    token = gateway.lease().secret.reveal()
    begin = threading.Event()
    vendor.answers.append(Answer(headers=EVENTS, chunks=[begin, FIRST, LAST]))
    told: list[tuple[int, str | None]] = []

    def ask() -> None:
        stream = Stream(gateway, token)
        told.append((stream.answer.status, stream.answer.headers["x-equabot-reason"]))
        stream.rest()

    asking = threading.Thread(target=ask)
    asking.start()
    gateway.wait_for(lambda: bool(vendor.received))
    act(gateway, suspended=True)
    begin.set()
    asking.join(60)
    assert told == [(403, "AGENT_SUSPENDED")]


def test_an_upload_under_way_is_cut(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S11: a body of unknown length that is still being sent, to which nothing was answered yet."""
    gateway = make_gateway(**AGENTS).start()
    token = gateway.lease().secret.reveal()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.putrequest("POST", MESSAGES)
    for name, value in (("x-api-key", token), ("content-type", "application/json"), ("transfer-encoding", "chunked")):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"1\r\n{\r\n")
    gateway.wait_for(lambda: bool(gateway.events("authorized")))
    act(gateway, suspended=True)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["x-equabot-reason"]) == (403, "AGENT_SUSPENDED")
    connection.close()
    assert vendor.received == []


def test_a_broker_that_is_killed_cuts_nothing(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """A stream that is under way goes on to its end without the broker, and one that begins after its restart can be cut."""
    gateway = make_gateway(mode="sidecar", **AGENTS).start()
    with gateway.envoy():
        token = gateway.lease().secret.reveal()
        with streaming(vendor):
            before = Stream(gateway, token)
            assert before.read() == FIRST
            gateway.kill()
            gateway.start()
        assert before.rest() == LAST
        with streaming(vendor):
            after = Stream(gateway, token)
            assert after.read() == FIRST
            act(gateway, suspended=True)
            assert after.rest() is None


def test_a_cut_says_nothing_of_the_credential(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S11: what the broker broke off is no failure of the provider: the profile serves other agents as before."""
    gateway = make_gateway(**AGENTS).start()
    token, other = (gateway.lease(agent=agent).secret.reveal() for agent in ("main", "coder"))
    with streaming(vendor):
        main = Stream(gateway, token)
        main.read()
        act(gateway, suspended=True)
        assert main.rest() is None
    gateway.wait_answered(1)
    assert gateway.events("outcome") == []
    assert gateway.ask(other).status == 200


# -- the end of a lease ------------------------------------------------------------------------------------------------


def test_what_is_under_way_ends_with_its_lease_alone(both: Gateway, vendor: Upstream) -> None:
    """C8: a stream, a WebSocket and a long download of a revoked lease are cut; those of the same agent's other lease go on."""
    revoked, kept = both.lease("openai"), both.lease("openai")
    path = "/openai/v1/realtime?model=gpt"
    sockets = [WebSocket(both.port, path, authorization=f"Bearer {lease.secret.reveal()}") for lease in (revoked, kept)]
    with sockets[0] as gone, sockets[1] as stays, streaming(vendor, 3):
        streams = [Stream(both, lease.secret.reveal(), "/openai/v1/responses") for lease in (revoked, kept)]
        download = Stream(both, revoked.secret.reveal(), "/openai/v1/files/file_1/content", method="GET")
        assert [one.read() for one in (*streams, download)] == [FIRST] * 3
        with both.connect() as broker:
            broker.revoke(revoked.id)
        assert gone.closed()
        assert [streams[0].rest(), download.rest()] == [None, None]
        assert stays.echo(b"still here") == b"still here"
    assert streams[1].rest() == LAST
    assert both.ask("", "/openai/v1/responses", authorization=f"Bearer {kept.secret.reveal()}").status == 200


def test_what_is_under_way_on_a_deleted_profile_is_cut(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """C8: its key is out of use at once; the token goes on with the next one."""
    gateway = make_gateway(dotenv=TWO_KEYS, **AGENTS).start()
    token = gateway.lease().secret.reveal()
    with streaming(vendor):
        stream = Stream(gateway, token)
        assert stream.read() == FIRST
        assert vendor.received[-1].secret() in (KEY, OTHER_KEY)
        left = OTHER_KEY if vendor.received[-1].secret() == KEY else KEY
        gateway.dotenv.write_text(f"ANTHROPIC_API_KEY_SECOND={left}\n" if left == OTHER_KEY else f"ANTHROPIC_API_KEY={left}\n")
        assert stream.rest() is None
    assert gateway.ask(token).status == 200
    assert vendor.received[-1].secret() == left


def test_a_refused_websocket_counts(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """C8: a 429 of the handshake; the next one is made with the next key. The client disconnects at the status line."""
    second = "sk-proj-" + "second00" * 12
    gateway = make_gateway(dotenv=f"{DOTENV}OPENAI_API_KEY_SECOND={second}\n").start()
    bearer = f"Bearer {gateway.lease('openai').secret.reveal()}"
    vendor.verdicts[OPENAI_KEY] = refused(429, retry_after="30")
    with pytest.raises(ConnectionError, match="429"):
        WebSocket(gateway.port, "/openai/v1/responses", authorization=bearer)
    gateway.wait_answered(1)
    with WebSocket(gateway.port, "/openai/v1/responses", authorization=bearer):
        assert vendor.received[-1].secret() == second
