"""Real clients, unmodified, with nothing but a lease token: the vendors' packages, curl. Other clients: tests/recipes."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import psutil
import pytest

from tests.fakes.upstream import Answer, Upstream, refused
from tests.fakes.vendor_answers import completion_events, message_events
from tests.gateway.running import DOTENV, HELLO, OPENAI_KEY, Gateway, agent_environ
from tests.gateway.websocket import WebSocket
from tests.journeys.running import KEY

AGENT = Path(__file__).with_name("agent.py")
PIECE = 8


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """As `equabot exec` would have it set up."""
    lease = gateway.lease()
    with anthropic.Anthropic(api_key=lease.secret.reveal(), base_url=lease.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(gateway: Gateway) -> Iterator[openai.OpenAI]:
    lease = gateway.lease("openai")
    with openai.OpenAI(api_key=lease.secret.reveal(), base_url=lease.base_url, max_retries=0) as client:
        yield client


def pieces(secret: str) -> set[bytes]:
    """Of which one is in whatever holds two of them in a row, or more."""
    body = secret.rpartition("-")[2].encode()
    return {body[at : at + PIECE] for at in range(0, len(body) - PIECE + 1, PIECE)}


def memory(process: int) -> Iterator[bytes]:
    """All of it that can be read."""
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as mem:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("r") and not line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                mem.seek(begin)
                try:
                    yield mem.read(end - begin)
                except OSError:  # a device's, or a page beyond a file's end
                    continue


def test_nothing_of_the_agent_holds_the_key(make_gateway: Any, vendor: Upstream) -> None:
    """Both packages, plain, streamed, awaited, under `equabot exec`: they get what they ask for, and the vendor gets the keys.
    No byte of them is in the agent's memory, its parent's, their environments, or anything that broker and Envoy write."""
    keys = ["sk-ant-api03-" + os.urandom(40).hex(), "sk-proj-" + os.urandom(32).hex()]
    gateway = make_gateway(dotenv=f"ANTHROPIC_API_KEY={keys[0]}\nOPENAI_API_KEY={keys[1]}\n").start()
    vendor.accepted = set(keys)
    wanted = ("exec", "anthropic", "openai", "--delivery", "brokered", "--", sys.executable, str(AGENT))
    with subprocess.Popen(
        [sys.executable, "-m", "equabot_broker", *wanted], env=gateway.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        listed = {"models": ["claude", "gpt"]}
        assert json.loads(running.stdout.readline()) == [
            {"plain": "hello", "streamed": ["hel", "lo"], "counted": 1} | listed,
            {"plain": "hello", "streamed": ["hel", "lo"], "response": "hello", "events": "response.completed"} | listed,
            {"plain": ["hello", "hello"], "streamed": ["hel", "lo"]},
        ]
        assert {request.secret() for request in vendor.received} == set(keys)
        gateway.wait_answered(len(vendor.received))
        searched = {piece for key in keys for piece in pieces(key)}
        [agent] = psutil.Process(running.pid).children()
        token = agent.environ()["ANTHROPIC_API_KEY"].encode()
        assert any(token in part for part in memory(agent.pid))  # what is searched is what there is
        for process in (agent.pid, *((running.pid,) if not os.geteuid() else ())):  # `exec` shows its memory to root alone
            assert {piece for part in memory(process) for piece in searched if piece in part} == set()
            assert not [piece for piece in searched if piece in Path(f"/proc/{process}/environ").read_bytes()]
        assert {name for name, text in gateway.written().items() for piece in searched if piece in text} == set()
        assert gateway.audit_file.name in gateway.written()
        running.stdin.close()
        assert running.wait(60) == 0
    assert gateway.ask(token.decode()).status == 401  # dead with the process


def test_curl(gateway: Gateway, vendor: Upstream) -> None:
    """With the environment that a lease brings."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl")
    script = (
        'curl -sS "$ANTHROPIC_BASE_URL/v1/messages" -H "x-api-key: $ANTHROPIC_API_KEY" -H "content-type: application/json"'
        f" -d '{json.dumps(HELLO)}'"
    )
    lease = gateway.lease()
    environ = agent_environ(gateway, **lease.env)
    done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["content"] == [{"type": "text", "text": "hello"}], done.stderr
    assert [request.keys() for request in vendor.received] == [{"x-api-key": KEY}]


def test_the_vendors_base_path_said_twice_counts_once(gateway: Gateway, vendor: Upstream) -> None:
    """Whoever writes the address with `/v1` at its end is served too, and may ask for no more than others."""
    lease = gateway.lease("openai")
    with openai.OpenAI(api_key=lease.secret.reveal(), base_url=f"{lease.base_url}/v1", max_retries=0) as client:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hi"}])
        assert vendor.received[-1].path == "/v1/chat/completions"
        with pytest.raises(openai.PermissionDeniedError, match="is not allowed on this path of openai"):
            client.get("/organization/api_keys", cast_to=object)


def test_the_packages_own_retries_meet_the_next_profile(make_gateway: Any, vendor: Upstream) -> None:
    """An agent that retries what the vendor tells it to retry is served, with no code of its own."""
    gateway = make_gateway(dotenv=DOTENV + "OPENAI_API_KEY_SECOND=sk-proj-" + "second00" * 8).start()
    vendor.verdicts[OPENAI_KEY] = refused(429, retry_after="0.2")
    lease = gateway.lease("openai")
    with openai.OpenAI(api_key=lease.secret.reveal(), base_url=lease.base_url, max_retries=2) as client:
        said = client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hi"}])
    assert said.choices[0].message.content == "hello"
    assert vendor.received[-1].secret() != OPENAI_KEY


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (500, anthropic.InternalServerError),
    ],
)
def test_what_the_vendor_says_arrives_as_it_is(
    claude: anthropic.Anthropic, vendor: Upstream, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    """Status, body, headers: the package raises what it would raise without a gateway."""
    vendor.answers.append(refused(status, request_id="req_1"))
    with pytest.raises(kind) as raised:
        claude.messages.create(**HELLO)
    assert raised.value.body == refused(status).body
    assert raised.value.response.headers["request-id"] == "req_1"
    assert "x-equabot-reason" not in raised.value.response.headers


def test_a_refusal_of_the_gateway_is_an_error_that_the_packages_know(gateway: Gateway) -> None:
    """In the shape of the vendor, with a reason in a header."""
    token = "eqb_" + "A" * 43
    with (
        anthropic.Anthropic(api_key=token, base_url=f"{gateway.url}/anthropic", max_retries=0) as claude,
        pytest.raises(anthropic.AuthenticationError, match="lease token") as claudes,
    ):
        claude.messages.create(**HELLO)
    assert claudes.value.response.headers["x-equabot-reason"] == "LEASE_NOT_FOUND"
    with (
        openai.OpenAI(api_key=token, base_url=f"{gateway.url}/openai", max_retries=0) as gpt,
        pytest.raises(openai.AuthenticationError, match="lease token") as gpts,
    ):
        gpt.models.list()
    assert gpts.value.response.headers["x-equabot-reason"] == "LEASE_NOT_FOUND"


def test_a_stream_that_breaks_off_breaks_off(claude: anthropic.Anthropic, vendor: Upstream) -> None:
    """What had come has come; the package is not made to believe in an end."""
    heard = threading.Event()
    begun = list(message_events())[:4]
    vendor.answers.append(Answer(headers={"content-type": "text/event-stream"}, chunks=[*begun, heard], reset=True))
    texts: list[str] = []

    def listen() -> None:
        with claude.messages.stream(**HELLO) as stream:
            for text in stream.text_stream:
                texts.append(text)
                heard.set()

    with pytest.raises(httpx2.RemoteProtocolError):
        listen()
    assert texts == ["hel"]


def test_an_event_arrives_before_the_next_is_sent(gpt: openai.OpenAI, vendor: Upstream) -> None:
    """Nothing is held back; and a generation may pause."""
    second = threading.Event()
    one, other, end = completion_events()
    vendor.answers.append(Answer(headers={"content-type": "text/event-stream"}, chunks=[one, second, other, end]))
    chunks = iter(gpt.chat.completions.create(model="gpt", messages=HELLO["messages"], stream=True))
    assert next(chunks).choices[0].delta.content == "hel"
    second.set()
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["lo"]


def test_a_websocket_passes_with_the_key_in_place_of_the_token(gateway: Gateway, vendor: Upstream) -> None:
    """In both directions, for as long as it is open."""
    bearer = gateway.lease("openai").secret.reveal()
    with WebSocket(gateway.port, "/openai/realtime?model=gpt", authorization=f"Bearer {bearer}") as socket:
        assert [socket.echo(text) for text in (b"hello", b"again")] == [b"hello", b"again"]
    assert (vendor.received[0].path, vendor.received[0].secret()) == ("/v1/realtime?model=gpt", OPENAI_KEY)
    with pytest.raises(ConnectionError, match="401"):
        WebSocket(gateway.port, "/openai/realtime", authorization="Bearer eqb_nothing")


def test_the_vendor_sees_the_request_and_nothing_of_the_gateway(gateway: Gateway, vendor: Upstream) -> None:
    """Path, query, headers and body as the agent sent them, but for the credential and the host; the answer likewise."""
    bearer = gateway.lease("openai").secret.reveal()
    mine = {"authorization": f"Bearer {bearer}", "user_agent": "mine", "x_stainless_lang": "python", "accept": "*/*"}
    told = gateway.ask("", "/openai/vector_stores/a%20b?after=x%2fy&limit=2", body={"text": "x" * 5_000_000}, **mine)
    assert told.status == 200
    [received] = vendor.received
    assert received.path == "/v1/vector_stores/a%20b?after=x%2fy&limit=2"
    assert json.loads(received.body) == {"text": "x" * 5_000_000}
    assert received.headers == {
        "host": f"127.0.0.1:{vendor.port}",
        "authorization": f"Bearer {OPENAI_KEY}",
        "user-agent": "mine",
        "x-stainless-lang": "python",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(received.body)),
    }
    assert told.headers.keys() == {"server", "date", "content-type", "content-length"}
    assert told.headers["server"].startswith("BaseHTTP")


def test_a_command_does_not_show_its_token_to_a_proxy(gateway: Gateway) -> None:
    """That of a company, say, through which everything else goes."""
    asking = (
        "import os, urllib.request; print(os.environ['no_proxy'] == os.environ['NO_PROXY'], os.environ['NO_PROXY']);"
        "request = urllib.request.Request(os.environ['ANTHROPIC_BASE_URL'] + '/v1/models',"
        " headers={'x-api-key': os.environ['ANTHROPIC_API_KEY']}); print(urllib.request.urlopen(request, timeout=60).status)"
    )
    nowhere = "http://127.0.0.1:1"
    wanted = ("exec", "anthropic", "--delivery", "brokered", "--", sys.executable, "-c", asking)
    done = gateway.run(*wanted, HTTP_PROXY=nowhere, http_proxy=nowhere, NO_PROXY="intra.example")
    assert done.stdout.split() == ["True", "intra.example,127.0.0.1", "200"], done.stderr
