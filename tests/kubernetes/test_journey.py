"""What a platform engineer is promised: a pod is ready as long as its credentials are, whatever the API server does meanwhile.

How streams follow Secrets, what becomes of odd ones, and of a server that is killed, stands in `test_secrets_source`.
"""

import asyncio
import base64
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from equabot_client import EventKind
from tests.fakes.api_server import Stream, api_server, page, refusal, secret
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.kubernetes.api import Api
from tests.kubernetes.cluster import Cluster
from tests.tiers import absent, program

LABEL: Final = {"equabot.dev/credential": "true"}
RULES: Final = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]
LATER: Final = "2099-01-01T00:00:00Z"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., RunningBroker]]:
    """A broker on the kubeconfig, not started yet, in which Anthropic is required."""
    made: list[RunningBroker] = []

    def make(kubeconfig: Path, extra: str = "") -> RunningBroker:
        config = f"sources: [{{kubernetes: {{kubeconfig: {kubeconfig}}}}}]\nrequired: [anthropic]\n{extra}"
        made.append(RunningBroker(credentials={}, dotenv="", config=config))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@contextmanager
def probed(broker: RunningBroker, service: str) -> Iterator[Callable[[], int]]:
    """What a probe over TCP would be answered: each change of it, one after the other, none left out."""
    with grpc.insecure_channel(broker.health) as channel:
        answers = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)
        yield lambda: next(answers).status
        answers.cancel()


def put(api: Api, namespace: str, name: str, key: str, *, ends: str = LATER) -> None:
    api.secret(namespace, name, {"ANTHROPIC_API_KEY": key}, labels=LABEL, annotations={"equabot.dev/expires-at": ends})


def test_a_pod_is_ready_as_long_as_its_credentials_are(
    cluster: Api, namespace: str, make_broker: Callable[..., RunningBroker], tmp_path: Path
) -> None:
    """One of two expires: nobody notices, the stream moves on. The other one's end comes: not ready from that instant, and the
    stream hears why. A rotation: ready, and the next stream has the new key."""
    account = cluster.service_account(namespace, "broker", rules=RULES)
    broker = make_broker(cluster.kubeconfig(tmp_path / "kubeconfig", user=account.user, namespace=namespace))
    put(cluster, namespace, "a", KEY)
    put(cluster, namespace, "b", OTHER_KEY)
    broker.start()
    with broker.connect() as client, probed(broker, "readiness") as ready, probed(broker, "provider/anthropic") as provider:
        assert (ready(), provider()) == (SERVING, SERVING)
        events = client.stream("anthropic")
        first = next(events).lease
        assert first is not None
        put(cluster, namespace, first.profile.partition(":")[2], first.secret.reveal(), ends="2020-01-01T00:00:00Z")
        moved = next(events)
        assert moved.kind is EventKind.ROTATED
        assert moved.lease is not None
        assert {first.profile, moved.lease.profile} == {"anthropic:a", "anthropic:b"}
        end = datetime.now(UTC) + timedelta(seconds=2)
        name = moved.lease.profile.partition(":")[2]
        put(cluster, namespace, name, moved.lease.secret.reveal(), ends=end.isoformat())
        assert (ready(), provider()) == (NOT_SERVING, NOT_SERVING)  # and nothing before: the end itself was heard
        assert datetime.now(UTC) >= end
        kinds = [event.kind for event in events]
        assert kinds[-1] is EventKind.REVOKED
        assert broker.run("health", "provider/anthropic").returncode == 1
        assert "expired" in broker.run("doctor").stdout
        put(cluster, namespace, name, KEY[:-4] + "NEXT")
        assert (ready(), provider()) == (SERVING, SERVING)
        assert client.acquire("anthropic").secret.reveal() == KEY[:-4] + "NEXT"
        cluster.delete("Secret", name, namespace=namespace)
        assert (ready(), provider()) == (NOT_SERVING, NOT_SERVING)


def test_the_documented_rotation_revives_an_expired_key(
    cluster: Api, namespace: str, make_broker: Callable[..., RunningBroker], tmp_path: Path
) -> None:
    """K1: kubectl replaces an expired key as docs/operate.md says. The new one is served at once, also by a broker that starts
    later; status and doctor say that the end is not applied, until it is written anew."""
    kubectl = program("kubectl")
    if kubectl is None:
        absent("kubernetes", "no kubectl; deploy/ci/kubernetes builds it")
    admin = cluster.kubeconfig(tmp_path / "admin", namespace=namespace)

    def run(*arguments: str, given: str = "") -> str:
        command = [str(kubectl), f"--kubeconfig={admin}", *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout

    def rotate(key: str) -> None:
        (tmp_path / "key").write_text(key)
        secret = ("create", "secret", "generic", "llm", f"--from-file=ANTHROPIC_API_KEY={tmp_path / 'key'}")
        made = run(*secret, "--dry-run=client", "--output=yaml")
        run("apply", "--server-side", "--force-conflicts", "--filename=-", given=made)

    def annotate(instant: str) -> None:
        run("annotate", "--overwrite", "secret", "llm", f"equabot.dev/expires-at={instant}")

    rotate(KEY)
    run("label", "secret", "llm", "equabot.dev/credential=true")
    annotate("2020-01-01T00:00:00Z")
    account = cluster.service_account(namespace, "broker", rules=RULES)
    seeing = make_broker(cluster.kubeconfig(tmp_path / "kubeconfig", user=account.user, namespace=namespace))
    seeing.start(service="liveness")
    seeing.wait_for(lambda: "expired" in seeing.run("doctor").stdout)  # once it has read the Secret
    seeing.wait_healthy("readiness", serving=False)
    # The record of who wrote what counts in seconds.
    written = cluster.get("Secret", "llm", namespace=namespace)["metadata"]["managedFields"]
    last = max(datetime.fromisoformat(each["time"]) for each in written)
    seeing.wait_for(lambda: datetime.now(UTC) >= last + timedelta(seconds=1))
    rotate(OTHER_KEY)
    later = make_broker(cluster.kubeconfig(tmp_path / "later", user=account.user, namespace=namespace))
    later.start()
    for broker in (seeing, later):
        broker.wait_healthy()
        assert broker.run("key", "anthropic").stdout.strip() == OTHER_KEY
        for command in (("doctor",), ("models", "status")):
            said = " ".join(broker.run(*command).stdout.split())
            assert "was set for an earlier value and is not applied" in said
    annotate(LATER)
    for broker in (seeing, later):
        broker.wait_for(lambda broker=broker: "earlier value" not in broker.run("doctor").stdout)  # type: ignore[misc]


def test_a_server_that_is_silent_when_the_pod_starts(
    start_cluster: Callable[[], Cluster], make_broker: Callable[..., RunningBroker], tmp_path: Path
) -> None:
    """It takes connections and answers none: alive, not ready, and told why; ready once it goes on, without a restart."""
    own = start_cluster()
    namespace = own.namespace()
    put(own, namespace, "llm", KEY)
    broker = make_broker(own.kubeconfig(tmp_path / "kubeconfig", namespace=namespace))
    own.pause()
    broker.start(service="liveness")
    broker.wait_for(lambda: "cannot be reached to list secrets" in broker.log() or "did not list secrets" in broker.log())
    broker.wait_healthy("readiness", serving=False)
    own.resume()
    broker.wait_healthy()
    assert broker.run("key", "anthropic").stdout.strip() == KEY


TROUBLES: Final = {
    429: ("TooManyRequests", "is too busy to list secrets"),
    500: ("InternalError", "failed to list secrets in namespace apps (500 InternalError)"),
}


@pytest.mark.parametrize("status", TROUBLES)
async def test_the_last_good_value_is_served_as_long_as_may_be(
    make_broker: Callable[..., RunningBroker], tmp_path: Path, status: int
) -> None:
    """A server that has too much to do, or fails: said where an operator looks, with what it was asked; beyond
    `expiry.stale_budget` nobody vouches for the value any more; with the first good answer all is well, without a restart."""
    reason, words = TROUBLES[status]
    async with api_server(tmp_path) as server:
        server.otherwise = {"list": page(_llm()), "watch": (stream := Stream())}
        broker = make_broker(server.kubeconfig, "expiry: {stale_budget: 4s}\n")
        await asyncio.to_thread(broker.start)
        server.otherwise = {verb: refusal(status, reason, headers={"Retry-After": "1"}) for verb in ("list", "watch")}
        stream.end()
        await asyncio.to_thread(_served_then_missing, broker, words)
        server.otherwise = {"list": page(_llm()), "watch": Stream()}
        await asyncio.to_thread(broker.wait_healthy)
        assert 'equabot_source_stale{source="kubernetes' in broker.scrape()
        assert (await asyncio.to_thread(broker.run, "key", "anthropic")).stdout.strip() == KEY


def _llm() -> dict[str, object]:
    return secret("llm", data={"ANTHROPIC_API_KEY": base64.b64encode(KEY.encode()).decode()})


def _served_then_missing(broker: RunningBroker, words: str) -> None:
    with broker.connect() as client, probed(broker, "readiness") as ready:
        assert ready() == SERVING
        broker.wait_for(lambda: words in broker.log())
        assert client.acquire("anthropic").secret.reveal() == KEY
        assert ready() == NOT_SERVING
        [profile] = client.list_profiles()
        assert (profile.state, profile.usable) == ("missing", False)
        assert "stale budget" in profile.reason
    told = broker.run("doctor").stdout
    assert words in told
    assert "has been unreadable for longer than the stale budget" in told
    assert words in broker.run("models", "status").stdout
