"""Agents in other pods: a real broker on TCP, real tokens of a real cluster, certificates, and the client library elsewhere."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from equabot_client import Security, aio, connect, errors
from tests.fakes.issuer import ISSUER, Issuer
from tests.journeys.canaries import PIECE
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import EQUABOT, KEY, OTHER_KEY, RunningBroker
from tests.kubernetes.api import Api
from tests.kubernetes.certificates import Authority, Pair
from tests.ports import free_port

REVIEWS = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
AUTHORITY = Authority("broker")
CONFIG = """\
listen:
  agents:
    certificate: tls.crt
    key: tls.key
    service_accounts: {{address: "127.0.0.1:{tokens}", validate: {way}, kubeconfig: kubeconfig}}
    client_certificates: {{address: "127.0.0.1:{certificates}", ca: tls.ca}}
agents:
  main: {{}}
  reviewer:
    providers: [anthropic]
    service_accounts: [{namespace}/reviewer]
    certificates: ["spiffe://cluster.local/ns/{namespace}/sa/reviewer"]
sources: [dotenv]
"""


@dataclass
class Pod:
    """Another pod's half: where the broker is, what is mounted there, and every token that was ever in it."""

    cluster: Api
    namespace: str
    broker: RunningBroker
    address: str
    mutual: str
    directory: Path
    tokens: list[str]

    def security(self, account: str = "reviewer", *, audience: str = "equabot") -> Security:
        """With a fresh token of the account."""
        self.project(account, audience=audience)
        return {"ca_file": self.path("ca.crt"), "token_file": self.path("token")}

    def project(self, account: str = "reviewer", *, audience: str = "equabot") -> None:
        """As the kubelet does, a while before the token of before has ended."""
        self.tokens.append(self.cluster.token(self.namespace, account, audiences=[audience] if audience else []))
        self.write("token", self.tokens[-1].encode())

    def certified(self, pair: Pair) -> Security:
        """With a certificate."""
        self.write("client.crt", pair.certificate)
        self.write("client.key", pair.key)
        return {
            "ca_file": self.path("ca.crt"),
            "client_certificate": self.path("client.crt"),
            "client_key": self.path("client.key"),
        }

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def write(self, name: str, text: bytes) -> None:
        new = self.directory / f"{name}.new"
        new.write_bytes(text)
        new.replace(self.directory / name)


def pod_of(cluster: Api, namespace: str, directory: Path, *, way: str) -> Pod:
    account = cluster.service_account(namespace, "broker", cluster_rules=[REVIEWS])
    for name in ("reviewer", "stranger"):
        cluster.service_account(namespace, name)
    tokens, certificates = free_port(), free_port()
    config = CONFIG.format(tokens=tokens, certificates=certificates, way=way, namespace=namespace)
    broker = RunningBroker(credentials={}, dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=config)
    pair = AUTHORITY.server("localhost", "127.0.0.1")
    for name, text in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("tls.ca", AUTHORITY.pem)):
        (broker.home / name).write_bytes(text)
    cluster.kubeconfig(broker.home / "kubeconfig", user=account.user, namespace=namespace)
    broker.environ |= {"PYTHONASYNCIODEBUG": "1", "GRPC_VERBOSITY": "debug", "GRPC_TRACE": "api,http,channel,call"}
    (directory / "ca.crt").write_bytes(AUTHORITY.pem)
    return Pod(
        cluster, namespace, broker, f"localhost:{tokens}", f"localhost:{certificates}", directory, tokens=[account.token]
    )


@pytest.fixture(scope="module", params=["token_review", "published_keys"])
def pod(request: pytest.FixtureRequest, cluster: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """One broker for all tests of a way of checking; the last one looks at what it has written."""
    made = pod_of(cluster, cluster.namespace(), tmp_path_factory.mktemp("pod"), way=request.param)
    made.broker.start("-vv")
    yield made
    made.broker.close()


def test_an_agent_with_a_token_has_a_credential_that_stays_current(pod: Pod) -> None:
    """As on a socket: a rotation is there at once. Nothing has to be opened again when the token is renewed."""
    with connect(pod.address, timeout=10, **pod.security()) as broker:
        credential = broker.credential("anthropic")
        lease = credential.lease()
        assert lease.secret.reveal() == KEY
        pod.project()
        pod.broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        rotated = credential.wait_for_change(since=lease, timeout=60)
        assert rotated.secret.reveal() == OTHER_KEY
        assert [profile.id for profile in broker.list_profiles()] == ["anthropic:dotenv"]
        pod.broker.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
        assert credential.wait_for_change(since=rotated, timeout=60).secret.reveal() == KEY


def test_an_agent_on_an_event_loop_with_a_certificate(pod: Pod) -> None:
    """The URI in it says which one it is."""
    uri = f"spiffe://cluster.local/ns/{pod.namespace}/sa/reviewer"

    async def lease() -> str:
        async with aio.connect(pod.mutual, timeout=10, **pod.certified(AUTHORITY.caller("x", uri))) as broker:
            return (await broker.credential("anthropic").lease()).secret.reveal()

    assert asyncio.run(lease()) == KEY


def test_the_policy_is_that_of_the_agent_who_calls(pod: Pod) -> None:
    """`agent=` says nothing here: the token does."""
    denied = pytest.raises(errors.PolicyDenied, match="agent 'reviewer' may not use provider 'openai'")
    with connect(pod.address, agent="main", timeout=10, **pod.security()) as broker, denied:
        broker.acquire("openai")


@pytest.mark.parametrize(
    ("account", "audience", "words"),
    [
        ("stranger", "equabot", "does not map to an agent: add it to agents"),
        ("reviewer", "another", "not for audience 'equabot'"),
        ("reviewer", "", "not for audience 'equabot'"),
    ],
)
def test_other_tokens_are_refused_with_words(pod: Pod, account: str, audience: str, words: str) -> None:
    """Of an account that is no agent's, for somebody else, for the API server itself."""
    with connect(pod.address, timeout=10, **pod.security(account, audience=audience)) as broker:
        with pytest.raises(errors.PolicyDenied, match=words) as raised:
            broker.acquire("anthropic")
        shows_no_token(pod, f"{raised.value!r} {raised.value} {dict(raised.value.metadata)}")


def test_each_address_takes_what_it_is_for(pod: Pod) -> None:
    """A certificate where tokens are shown, and a token where certificates are: neither is let in."""
    stranger = pod.certified(AUTHORITY.caller("stranger"))
    for address, security, error in (
        (pod.address, pod.certified(AUTHORITY.caller("reviewer")), errors.PolicyDenied),
        (pod.mutual, pod.security(), errors.BrokerUnavailable),
        (pod.mutual, stranger, errors.PolicyDenied),
    ):
        with connect(address, timeout=10, **security) as broker, pytest.raises(error):
            broker.acquire("anthropic")


def test_the_command_line_works_from_another_pod(pod: Pod) -> None:
    """With nothing but its environment; what is missing is told, and how to mend it."""
    given = {"EQUABOT_BROKER_ADDRESS": pod.address, **variables(pod.security())}
    printed = elsewhere(pod, given, "key", "anthropic")
    assert (printed.returncode, printed.stdout.strip()) == (0, KEY)
    denied = elsewhere(pod, given, "key", "openai")
    assert (denied.returncode, denied.stdout) == (1, "")
    assert "POLICY_DENIED" in denied.stderr
    nobody = elsewhere(pod, {"EQUABOT_BROKER_ADDRESS": pod.address.replace("localhost", "broker.example")}, "key", "anthropic")
    assert nobody.returncode == 64
    assert "Give token_file (EQUABOT_BROKER_TOKEN_FILE)" in nobody.stderr
    missing = elsewhere(pod, given | {"EQUABOT_BROKER_TOKEN_FILE": "/nowhere/token"}, "key", "anthropic")
    assert missing.returncode == 1
    assert "/nowhere/token cannot be read" in missing.stderr
    for said in (denied, nobody, missing):
        shows_no_token(pod, said.stderr)


def variables(security: Security) -> dict[str, str]:
    return {f"EQUABOT_BROKER_{name.upper()}": str(path) for name, path in security.items()}


def elsewhere(pod: Pod, environ: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    bare = {"PATH": pod.broker.environ["PATH"], "HOME": str(pod.directory), "LANG": "C.UTF-8"}
    return subprocess.run(
        [*EQUABOT, *words], env=bare | environ, capture_output=True, text=True, timeout=30, check=False, cwd=pod.directory
    )


def test_renewed_files_of_the_broker_are_taken_up(pod: Pod) -> None:
    """Another authority's certificate: who trusts the old one is no longer answered, who trusts the new one is."""
    other = Authority("the next one")
    before = (pod.broker.home / "tls.crt").read_bytes(), (pod.broker.home / "tls.key").read_bytes()
    security = pod.security()
    try:
        for name, text in zip(("tls.crt", "tls.key"), other.server("localhost"), strict=True):
            (pod.broker.home / name).write_bytes(text)
        with (
            connect(pod.address, timeout=5, **security) as broker,
            pytest.raises(errors.BrokerUnavailable, match="not trusted"),
        ):
            broker.acquire("anthropic")
        pod.write("ca.crt", other.pem)
        with connect(pod.address, timeout=5, **security) as broker:
            assert broker.acquire("anthropic").secret.reveal() == KEY
    finally:
        pod.write("ca.crt", AUTHORITY.pem)
        for name, text in zip(("tls.crt", "tls.key"), before, strict=True):
            (pod.broker.home / name).write_bytes(text)


def test_nothing_that_was_written_shows_a_token(pod: Pod) -> None:
    """With a log as talkative as can be, gRPC's own included; neither files nor metrics. Nor the broker's TLS key."""
    written = {path: path.read_bytes() for path in pod.broker.home.rglob("*") if path.is_file() and path.name != "kubeconfig"}
    assert len(pod.tokens) > 5
    assert b'"level":"debug"' in written[pod.broker.log_file]
    assert b"caller refused" in written[pod.broker.log_file]
    metrics = pod.broker.scrape()
    assert 'equabot_callers_refused_total{reason="PERMISSION_DENIED"}' in metrics
    shows_no_token(pod, *written.values(), metrics)
    keys = "".join(path.read_text() for path in (pod.broker.home / "tls.key", pod.directory / "client.key"))
    for line in keys.splitlines():
        if not line.startswith("-----"):
            assert line[:16] not in pod.broker.log()


def shows_no_token(pod: Pod, *shown: str | bytes) -> None:
    """No piece of what makes a token worth something: its signature."""
    text = "\n".join(each if isinstance(each, str) else each.decode("latin-1") for each in shown)
    seen = {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}
    for token in pod.tokens:
        signature = token.rpartition(".")[2]
        assert not seen & {signature[at : at + PIECE] for at in range(len(signature) - PIECE + 1)}


@pytest.fixture
def make_pod(cluster: Api, namespace: str, tmp_path: Path) -> Iterator[Callable[[], Pod]]:
    """Pods whose broker a test starts itself."""
    made: list[Pod] = []

    def make() -> Pod:
        made.append(pod_of(cluster, namespace, tmp_path, way="token_review"))
        return made[-1]

    yield make
    for each in made:
        each.broker.close()


def test_what_keeps_it_from_listening_is_said_at_once(make_pod: Callable[[], Pod]) -> None:
    """Every file at once, then the API server's configuration; no byte of a key."""
    pod = make_pod()
    pair = AUTHORITY.server("localhost")
    (pod.broker.home / "tls.key").write_bytes(AUTHORITY.server("localhost").key)
    (pod.broker.home / "tls.ca").unlink()
    said = pod.broker.run("serve")
    assert said.returncode == 1
    assert "tls.ca does not exist: mount it" in said.stderr
    (pod.broker.home / "tls.ca").write_bytes(AUTHORITY.pem)
    said = pod.broker.run("serve")
    assert f"{pod.broker.home}/tls.key is not the key of {pod.broker.home}/tls.crt" in said.stderr
    (pod.broker.home / "tls.crt").write_bytes(pair.certificate)
    (pod.broker.home / "tls.key").write_bytes(pair.key)
    (pod.broker.home / "kubeconfig").write_text("canary: [")
    said = pod.broker.run("serve")
    assert said.returncode == 1
    assert "listen.agents.service_accounts: " in said.stderr
    assert "canary" not in said.stderr


def test_it_serves_who_was_known_while_the_api_server_is_away(make_pod: Callable[[], Pod]) -> None:
    """A broker starts without it, too: the sockets' agents are served, the others told to come again."""
    pod = make_pod()
    kubeconfig = (pod.broker.home / "kubeconfig").read_text()
    (pod.broker.home / "kubeconfig").write_text(kubeconfig.replace(pod.cluster.url, "https://127.0.0.1:1"))
    pod.broker.start()
    with pod.broker.connect() as here:
        assert here.acquire("anthropic").secret.reveal() == KEY
    with connect(pod.address, timeout=10, **pod.security()) as broker:
        with pytest.raises(errors.SourceNotSynced, match="service-account tokens cannot be checked now") as raised:
            broker.acquire("anthropic")
        assert raised.value.retryable
    told = pod.broker.run("doctor")
    assert told.returncode == 1
    assert "error\tidentity\tservice-account tokens cannot be checked now: " in told.stdout
    shows_no_token(pod, told.stdout + told.stderr)


WITHOUT_A_CLUSTER = """\
listen:
  agents:
    certificate: tls.crt
    key: tls.key
    service_accounts: {{address: "127.0.0.1:{port}", validate: published_keys, keys: jwks.json, issuer: "{issuer}"}}
agents: {{reviewer: {{providers: [anthropic], service_accounts: [agents/reviewer]}}}}
sources: [dotenv]
"""


def test_a_credential_outlives_the_tokens_that_it_was_opened_with(make_broker: MakeBroker, tmp_path: Path) -> None:
    """Every stream ends with its token, and the next one shows that of then; whoever uses the credential notices nothing.

    Against keys in a file: no API server is needed.
    """
    issuer, port = Issuer("ES256"), free_port()
    config = WITHOUT_A_CLUSTER.format(port=port, issuer=ISSUER)
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=config)
    pair = AUTHORITY.server("localhost")
    (broker.home / "tls.crt").write_bytes(pair.certificate)
    (broker.home / "tls.key").write_bytes(pair.key)
    (broker.home / "jwks.json").write_text(json.dumps({"keys": [issuer.jwk()]}))
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)

    def project() -> None:
        (tmp_path / "token.new").write_text(issuer.token(expires_at=time.time() + 1.5))
        (tmp_path / "token.new").replace(tmp_path / "token")

    broker.start()
    project()  # not earlier: a start may take longer than a token lasts
    security = Security(ca_file=str(tmp_path / "ca.crt"), token_file=str(tmp_path / "token"))
    with connect(f"localhost:{port}", timeout=10, **security) as connected:
        credential = connected.credential("anthropic")
        before = credential.lease()

        def used_while_tokens_end() -> bool:
            project()
            assert credential.headers()["x-api-key"] == KEY
            return broker.log().count("the token has expired") >= 2

        broker.wait_for(used_while_tokens_end)
        broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        assert credential.wait_for_change(since=before, timeout=60).secret.reveal() == OTHER_KEY
