"""The gateway as an agent meets it: a real broker, a real Envoy, real SDKs, and a vendor on loopback."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self
from urllib.parse import urlsplit

import anthropic
import httpx
import openai
import pytest

from equabot_client import Lease
from tests.fakes.upstream import Answer, Upstream
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import RunningBroker
from tests.ports import free_port
from tests.tiers import program, require

FIRST = "sk-ant-api03-" + "gateway1" * 11 + "AA"
SECOND = "sk-ant-api03-" + "gateway2" * 11 + "AA"
OPENAI = "sk-proj-" + "gateway3" * 11
LOGIN = "sk-ant-oat01-" + "gateway4" * 11 + "AA"
CONFIG = """
listen: {{gateway: "127.0.0.1:{port}"}}
gateway: {{mode: child, envoy: {envoy}}}
agents: {{main: {{deliveries: [brokered], max_ttl: 1h}}}}
providers: {{anthropic: {{base_url: "{upstream}"}}, openai: {{base_url: "{upstream}/v1"}}}}
auth: {{order: {{anthropic: [{order}]}}}}
audit: {{path: audit.jsonl}}
"""
MESSAGE = {"model": "claude", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as vendor:
        vendor.accepted = {FIRST, SECOND, OPENAI, LOGIN}
        yield vendor


@pytest.fixture
def gateway(make_broker: MakeBroker, upstream: Upstream) -> RunningBroker:
    """A broker that runs Envoy, serving. The agent is given tokens and nothing else."""
    require("envoy")
    broker = make_broker(
        dotenv=f"ANTHROPIC_API_KEY={FIRST}\nANTHROPIC_API_KEY_2={SECOND}\nOPENAI_API_KEY={OPENAI}\n",
        config=CONFIG.format(
            port=free_port(), envoy=program("envoy"), upstream=upstream.url, order="anthropic:dotenv, anthropic:dotenv-2"
        ),
    )
    return broker.start()


class Sidecar:
    """An Envoy of its own, on the configuration that the broker wrote; it does not end with the broker."""

    def __init__(self, broker: RunningBroker) -> None:
        self._log = (broker.home / "envoy.log").open("wb")
        command = [str(program("envoy")), "-c", str(broker.run_dir / "gateway" / "envoy.yaml"), "--use-dynamic-base-id"]
        self._process = subprocess.Popen([*command, "--log-level", "warning"], stdout=self._log, stderr=self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


@pytest.fixture
def sidecar(make_broker: MakeBroker, upstream: Upstream) -> Iterator[RunningBroker]:
    """A broker, and an Envoy beside it that is not its own."""
    require("envoy")
    config = CONFIG.replace("mode: child, envoy: {envoy}", "mode: sidecar").format(
        port=(port := free_port()), upstream=upstream.url, order="anthropic:dotenv"
    )
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={FIRST}\n", config=config).start()
    with Sidecar(broker):
        broker.wait_for(lambda: listening(port))
        yield broker


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def lent(broker: RunningBroker, provider: str = "anthropic") -> Lease:
    """A token, and where to show it."""
    with broker.connect() as connected:
        return connected.acquire(provider)


def post(lease: Lease, headers: Mapping[str, str] | None = None, *, timeout: float = 20.0) -> httpx.Response:
    sent = {**lease.headers, **(headers or {})}
    return httpx.post(f"{lease.base_url}/v1/messages", json=MESSAGE, headers=sent, timeout=timeout)


def keys(upstream: Upstream) -> list[str]:
    """What each request to the vendor was made with."""
    return [next(iter(received.keys().values())).removeprefix("Bearer ") for received in upstream.received]


# -- SDKs --------------------------------------------------------------------------------------------------------------


def test_the_anthropic_sdk_works_with_nothing_but_its_environment(gateway: RunningBroker, upstream: Upstream) -> None:
    """Plain and streamed; the vendor gets the key, and of the token nothing."""
    lease = lent(gateway)
    token = lease.secret.reveal()
    with anthropic.Anthropic(api_key=lease.env["ANTHROPIC_API_KEY"], base_url=lease.env["ANTHROPIC_BASE_URL"]) as client:
        ask = {"model": "claude", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
        assert client.messages.create(**ask).content[0].text == "hello"  # type: ignore[call-overload]
        with client.messages.stream(**ask) as stream:  # type: ignore[arg-type]
            assert "".join(stream.text_stream) == "hello"
    assert keys(upstream) == [FIRST, FIRST]
    assert token not in str([(received.headers, received.body) for received in upstream.received])
    assert [received.path for received in upstream.received] == ["/v1/messages", "/v1/messages"]


async def test_the_openai_sdk_works_too(gateway: RunningBroker, upstream: Upstream) -> None:
    """Also one that awaits."""
    lease = lent(gateway, "openai")
    ask = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}]}
    async with openai.AsyncOpenAI(api_key=lease.env["OPENAI_API_KEY"], base_url=lease.env["OPENAI_BASE_URL"]) as client:
        answer = await client.chat.completions.create(**ask)  # type: ignore[call-overload]
        assert answer.choices[0].message.content == "hello"
        chunks = await client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == "hello"
    assert keys(upstream) == [OPENAI, OPENAI]
    assert upstream.received[0].path == "/v1/chat/completions"


def test_an_sdk_tells_a_refusal_as_it_tells_its_vendors(gateway: RunningBroker) -> None:
    """By the same errors."""
    lease = lent(gateway)
    with gateway.connect() as connected:
        connected.revoke(lease)
    with anthropic.Anthropic(api_key=lease.secret.reveal(), base_url=lease.base_url) as client:
        with pytest.raises(anthropic.AuthenticationError, match="lease token") as refused:
            client.messages.create(model="claude", max_tokens=8, messages=[{"role": "user", "content": "hello"}])
        assert refused.value.response.headers["x-equabot-reason"] == "LEASE_NOT_FOUND"
    with (
        openai.OpenAI(api_key=OPENAI, base_url=lease.base_url.replace("anthropic", "openai")) as other,
        pytest.raises(openai.AuthenticationError, match="not the provider's key"),
    ):
        other.models.list()


# -- what comes of it --------------------------------------------------------------------------------------------------


def test_revoking_stops_the_next_request(gateway: RunningBroker, upstream: Upstream) -> None:
    """On a connection that is open already."""
    lease = lent(gateway)
    with httpx.Client(headers=dict(lease.headers)) as client, gateway.connect() as connected:
        for _ in range(3):
            assert client.post(f"{lease.base_url}/v1/messages", json=MESSAGE).status_code == 200
        connected.revoke(lease)
        assert client.post(f"{lease.base_url}/v1/messages", json=MESSAGE).status_code == 401
    assert len(upstream.received) == 3


@pytest.mark.parametrize("status", [401, 429, 529])
def test_the_next_request_goes_with_the_next_profile(gateway: RunningBroker, upstream: Upstream, status: int) -> None:
    """The agent does nothing for it. It gets the answer as it is, but for a wait that the next profile spares it (C20)."""
    lease = lent(gateway)
    upstream.answers.append(Answer(status, {"retry-after": "7", "request-id": "req_1"}, {"type": "error"}))
    with httpx.Client(headers=dict(lease.headers)) as client:
        first = client.post(f"{lease.base_url}/v1/messages", json=MESSAGE)
        wait = "7" if status == 401 else "1"
        assert (first.status_code, first.headers["retry-after"], first.headers["request-id"]) == (status, wait, "req_1")
        assert first.json() == {"type": "error"}
        gateway.wait_for(lambda: f'outcome="{"auth" if status == 401 else "rate_limit"}"' in gateway.scrape())
        assert client.post(f"{lease.base_url}/v1/messages", json=MESSAGE).status_code == 200
    assert keys(upstream) == [FIRST, SECOND]


def test_an_sdk_that_tries_again_gets_its_answer(gateway: RunningBroker, upstream: Upstream) -> None:
    """Its own second try is the next request."""
    lease = lent(gateway)
    upstream.answers.append(Answer(429, {"retry-after": "1"}, {"type": "error"}))
    with anthropic.Anthropic(api_key=lease.secret.reveal(), base_url=lease.base_url) as client:
        client.messages.create(model="claude", max_tokens=8, messages=[{"role": "user", "content": "hello"}])
    assert keys(upstream) == [FIRST, SECOND]


def test_a_login_brings_its_own_words_beside_the_sdks(make_broker: MakeBroker, upstream: Upstream) -> None:
    """In one header, with those that the SDK sent."""
    require("envoy")
    broker = make_broker(
        dotenv=f"ANTHROPIC_AUTH_TOKEN={LOGIN}\n",
        config=CONFIG.format(port=free_port(), envoy=program("envoy"), upstream=upstream.url, order="anthropic:dotenv"),
    ).start()
    lease = lent(broker)
    assert lease.env.keys() == {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"}
    assert post(lease, {"anthropic-beta": "files-api-2025-04-14"}).status_code == 200
    headers = upstream.received[0].headers
    assert headers["anthropic-beta"] == "files-api-2025-04-14,oauth-2025-04-20"
    assert headers["authorization"] == f"Bearer {LOGIN}"
    assert "x-api-key" not in headers
    twice = [*lease.headers.items(), ("anthropic-beta", "one"), ("anthropic-beta", "two")]
    httpx.post(f"{lease.base_url}/v1/messages", json=MESSAGE, headers=twice)
    assert upstream.received[1].headers["anthropic-beta"] == "one,two,oauth-2025-04-20"


# -- bad input ---------------------------------------------------------------------------------------------------------


def raw(lease: Lease, request: str) -> bytes:
    """The answer to bytes that no client library would send."""
    address = urlsplit(lease.base_url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
    return found


@pytest.mark.parametrize(
    "line",
    [
        "POST /anthropic/../openai/v1/chat/completions HTTP/1.1",
        "POST /anthropic/v1/%2e%2e/admin HTTP/1.1",
        "POST /anthropic/v1%2f%2fmessages HTTP/1.1",
        "POST /anthropic//v1/messages HTTP/1.1",
        "POST /anthropic/v1\\messages HTTP/1.1",
        "POST http://evil.example/anthropic/v1/messages HTTP/1.1",
        "CONNECT api.anthropic.com:443 HTTP/1.1",
        "TRACE /anthropic/v1/messages HTTP/1.1",
        "OPTIONS /anthropic/v1/messages HTTP/1.1",
        "GET /anthropic/v1/organizations/members HTTP/1.1",
        "POST /anthropic HTTP/1.1",
        "POST /nobody/v1/messages HTTP/1.1",
        "POST /anthropic/v1/messages HTTP/1.1\nOrigin: https://evil.example",
        "POST /anthropic/v1/messages HTTP/1.1\nX-Forwarded-For: 1.2.3.4",
        "POST /anthropic/v1/messages HTTP/1.1\nVia: 1.1 proxy",
        "POST /anthropic/v1/messages HTTP/1.1\nAuthorization: Bearer sk-ant-api03-other",
        "POST /anthropic/v1/messages HTTP/1.1\nX-Api-Key: sk-ant-api03-other",
        "POST /anthropic/v1/messages?key=sk-ant-api03-other HTTP/1.1",
    ],
)
def test_what_is_no_plain_request_of_an_agent_does_not_reach_the_vendor(
    gateway_of_many: tuple[RunningBroker, Lease], upstream_of_many: Upstream, line: str
) -> None:
    """Though its token is good."""
    _, lease = gateway_of_many
    host = urlsplit(lease.base_url).netloc
    answer = raw(
        lease, f"{line}\nHost: {host}\nX-Api-Key: {lease.secret.reveal()}\nConnection: close\nContent-Length: 2\n\n{{}}"
    )
    assert answer.split(b" ")[1] in (b"400", b"401", b"403", b"404", b"405"), answer
    assert upstream_of_many.received == []
    assert post(lease).status_code == 200
    upstream_of_many.received.clear()


def test_another_host_is_told_nothing(gateway_of_many: tuple[RunningBroker, Lease], upstream_of_many: Upstream) -> None:
    """A page that makes its own name lead here."""
    assert post(gateway_of_many[1], {"host": "evil.example"}).status_code == 403
    assert upstream_of_many.received == []


@pytest.fixture(scope="module")
def upstream_of_many() -> Iterator[Upstream]:
    with Upstream() as vendor:
        vendor.accepted = {FIRST}
        yield vendor


@pytest.fixture(scope="module")
def gateway_of_many(upstream_of_many: Upstream) -> Iterator[tuple[RunningBroker, Lease]]:
    """One for the tests that change nothing."""
    require("envoy")
    config = CONFIG.format(port=free_port(), envoy=program("envoy"), upstream=upstream_of_many.url, order="anthropic:dotenv")
    broker = RunningBroker(credentials={}, dotenv=f"ANTHROPIC_API_KEY={FIRST}\n", config=config).start()
    yield broker, lent(broker)
    broker.close()


# -- the broker away ---------------------------------------------------------------------------------------------------


def test_without_a_broker_nothing_passes(sidecar: RunningBroker, upstream: Upstream) -> None:
    """And with the next one the token goes on: it is in the state, as a digest."""
    lease = lent(sidecar)
    assert post(lease).status_code == 200
    sidecar.kill()
    assert post(lease, timeout=60).status_code == 503
    assert len(upstream.received) == 1
    sidecar.start()
    assert post(lease).status_code == 200


def test_who_asks_while_the_broker_restarts_waits(sidecar: RunningBroker, upstream: Upstream) -> None:
    """Envoy asks again until there is one: no request is lost."""
    lease = lent(sidecar)
    with ThreadPoolExecutor(8) as pool:
        sidecar.kill()
        waiting = [pool.submit(post, lease, timeout=60) for _ in range(8)]
        sidecar.start()
        assert {one.result().status_code for one in waiting} == {200}
    assert len(upstream.received) == 8


# -- nothing leaks -----------------------------------------------------------------------------------------------------


def test_neither_token_nor_key_is_in_any_file(gateway: RunningBroker, upstream: Upstream) -> None:
    """State, audit, logs, Envoy's configuration: only the `.env` that the key came from. What was done is in the audit log."""
    lease = lent(gateway)
    assert post(lease).status_code == 200
    assert post(lease, {"x-api-key": SECOND}).status_code == 401
    gateway.wait_for(lambda: '"status":200' in (gateway.home / "audit.jsonl").read_text())
    gateway.stop()
    for file in gateway.home.rglob("*"):
        if file.is_file() and file.name != ".env":
            held = file.read_bytes()
            for secret in (lease.secret.reveal(), FIRST, SECOND):
                assert secret.encode() not in held, file
                assert secret[8:24].encode() not in held, file


# -- exec --------------------------------------------------------------------------------------------------------------

_ASKING = """
import json, os, sys, time, urllib.error, urllib.request
url, key = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", os.environ["ANTHROPIC_API_KEY"]
print(key, flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    request = urllib.request.Request(url, b"{}", {"x-api-key": key, "content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(answer.status, flush=True)
    except urllib.error.HTTPError as refused:
        print(refused.code, refused.read(), flush=True)
    time.sleep(0.02)
"""


@pytest.mark.parametrize("life", ["1500ms", "1h"])
def test_a_commands_token_lives_as_long_as_the_command(make_broker: MakeBroker, upstream: Upstream, life: str) -> None:
    """However short leases are, and, where they are longer than that takes, over a restart of the broker; and not a moment
    longer."""
    require("envoy")
    config = CONFIG.replace("mode: child, envoy: {envoy}", "mode: sidecar").replace("max_ttl: 1h", f"max_ttl: {life}")
    config += f"leases: {{{{max_ttl: {life}}}}}\n"
    config = config.format(port=(port := free_port()), upstream=upstream.url, order="anthropic:dotenv")
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={FIRST}\n", config=config).start()
    with Sidecar(broker):
        broker.wait_for(lambda: listening(port))
        command = ("exec", "anthropic", "--delivery", "brokered", "--", sys.executable, "-c", _ASKING, "6")
        with broker.spawn(*command) as running:
            assert running.stdout is not None
            token = running.stdout.readline().strip()
            broker.wait_for(lambda: len(upstream.received) > 20)
            if life == "1h":
                broker.stop()
                broker.start()
            said = running.stdout.read().splitlines()
        assert set(said) == {"200"}, [line for line in said if line != "200"][:3]
        assert len(upstream.received) == len(said)
        refused = httpx.post(f"http://127.0.0.1:{port}/anthropic/v1/messages", json=MESSAGE, headers={"x-api-key": token})
        assert (refused.status_code, refused.headers["x-equabot-reason"]) == (401, "LEASE_NOT_FOUND")
    assert set(keys(upstream)) == {FIRST}


def test_a_command_whose_sdk_would_go_past_the_gateway_is_not_run(gateway: RunningBroker) -> None:
    """C7: its SDK reads the gateway's address from no variable; the refusal says what to type, and that works."""
    gateway.write_dotenv("GROQ_API_KEY=gsk_Ab3De5Gh7Jk9Mn1Pq3St5Vw7YzAb3De5Gh7Jk9\n")
    gateway.wait_output("models", "status", "--plain", until=lambda text: "groq" in text)
    done = gateway.run("exec", "groq", "--delivery", "brokered", "--", "true")
    assert (done.returncode, "providers.groq.base_url_env" in done.stderr) == (1, True), done.stderr
    assert "`--as openai`" in done.stderr
    done = gateway.run("exec", "groq", "--as", "openai", "--", "env", OPENAI_API_KEY="left over")
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert shown["OPENAI_API_KEY"].startswith("eqb_")
    assert shown["OPENAI_BASE_URL"].endswith("/groq")
    assert "GROQ_API_KEY" not in shown


def test_two_leases_that_want_the_same_variable_are_refused(gateway: RunningBroker) -> None:
    """C7: the last would silently win."""
    gateway.write_dotenv(f"GROQ_API_KEY=gsk_Ab3De5Gh7Jk9Mn1Pq3St5Vw7YzAb3De5Gh7Jk9\nANTHROPIC_API_KEY={FIRST}\n")
    gateway.wait_output("models", "status", "--plain", until=lambda text: "groq" in text)
    done = gateway.run("exec", "groq", "anthropic", "--as", "openai", "--", "true")
    assert done.returncode == 1
    assert "groq:dotenv and anthropic:dotenv both set OPENAI_API_KEY" in done.stderr
    both = gateway.run("exec", "groq", "anthropic", "--as", "groq=openai", "--", "env")
    assert {"OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN"} <= {line.partition("=")[0] for line in both.stdout.splitlines()}
    assert gateway.run("exec", "groq", "--as", "anthropic=openai", "--", "true").returncode == 1
    assert gateway.run("exec", "groq", "--as", "gemini", "--", "true").returncode == 64


def test_claude_code_is_given_no_variable_that_it_asks_about(gateway: RunningBroker) -> None:
    """C3: it asks about a new ANTHROPIC_API_KEY at each start; every other program gets both variables (C22)."""
    tool = gateway.home / "claude"
    tool.write_text("#!/bin/sh\nexec env\n")
    tool.chmod(0o755)
    for command, key in (([str(tool)], False), (["env", "A=b", str(tool)], False), (["env"], True)):
        done = gateway.run("exec", "anthropic", "--delivery", "brokered", "--", *command)
        shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert shown["ANTHROPIC_AUTH_TOKEN"].startswith("eqb_")
        assert ("ANTHROPIC_API_KEY" in shown) is key


LEFT = {
    "ANTHROPIC_OAUTH_TOKEN": "left-1", "CLAUDE_CODE_OAUTH_TOKEN": "left-2", "ANTHROPIC_API_KEYS": "left-3,left-4",
    "ANTHROPIC_AUTH_TOKEN": "left-5", "ANTHROPIC_API_KEY": "left-6", "ANTHROPIC_API_KEY_WORK": "left-7",
    "GOOGLE_API_KEY": "left-8", "HUGGINGFACE_HUB_TOKEN": "left-9", "OPENAI_API_KEY": "left-10", "GITHUB_TOKEN": "left-11",
    "ANTHROPIC_IDENTITY_TOKEN_FILE": "left-12", "OPENAI_BASE_URL": "left-13", "MY_OWN": f"Bearer {FIRST}",
}  # fmt: skip


@pytest.mark.parametrize("asked", [(), ("--delivery", "brokered")])
def test_a_command_with_a_token_has_no_other_credential(gateway: RunningBroker, asked: tuple[str, ...]) -> None:
    """S7: no variable of any known provider but those of its leases, also where nobody said which delivery; nor any key."""
    done = gateway.run("exec", "anthropic", *asked, "--", "env", KEPT="yes", **LEFT)
    assert done.returncode == 0, done.stderr
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert shown["ANTHROPIC_API_KEY"].startswith("eqb_")
    assert "/anthropic" in shown["ANTHROPIC_BASE_URL"]
    ours = {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "EQUABOT_DELIVERY", "NO_PROXY", "no_proxy"}
    assert set(shown) - ours - {"PATH", "HOME", "LANG"} == {"KEPT"}
    assert "left-" not in done.stdout
    assert FIRST not in done.stdout
    assert done.stderr == "equabot: removed from the command's environment, because they look like credentials: MY_OWN\n"


def test_a_command_with_a_token_does_not_get_the_key_from_equabot(gateway: RunningBroker) -> None:
    """S7: with the default policy, under which the agent may have the key. What it asks for by itself is a token again."""
    config = gateway.home / "equabot.yaml"
    config.write_text(config.read_text().replace("deliveries: [brokered]", "deliveries: [raw, brokered]"))
    gateway.stop()
    gateway.start()
    words = [sys.executable, "-m", "equabot_broker", "key", "anthropic", "--run-dir", str(gateway.run_dir)]
    done = gateway.run("exec", "anthropic", "--", *words)
    assert (done.returncode, done.stdout[:4]) == (0, "eqb_"), done.stderr
    assert gateway.run("key", "anthropic").stdout == f"{FIRST}\n"
    assert gateway.run("key", "anthropic", "--delivery", "brokered").stdout.startswith("eqb_")
    assert "EQUABOT_DELIVERY" not in gateway.run("exec", "anthropic", "--delivery", "raw", "--", "env").stdout


@pytest.mark.parametrize("deliveries", ["[raw]", "[raw, brokered]"])
def test_a_refused_token_does_not_become_a_key(make_broker: MakeBroker, upstream: Upstream, deliveries: str) -> None:
    """S7: where a gateway runs, the key is handed to a command only when somebody says so."""
    require("envoy")
    config = CONFIG.replace("[brokered]", deliveries).format(
        port=free_port(), envoy=program("envoy"), upstream=upstream.url, order="anthropic:dotenv"
    )
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={FIRST}\n", config=config).start()
    done = broker.run("exec", "anthropic", "--", "printenv", "ANTHROPIC_API_KEY")
    if deliveries == "[raw]":
        assert (done.returncode, done.stdout) == (1, "")
        assert "DELIVERY_NOT_ALLOWED" in done.stderr
        assert "--delivery raw" in done.stderr
    else:
        assert done.stdout.startswith("eqb_")
    assert broker.run("exec", "anthropic", "--delivery", "raw", "--", "printenv", "ANTHROPIC_API_KEY").stdout == f"{FIRST}\n"
