"""Secrets of a real API server, followed by a real broker: what an agent holds, and what an operator is told."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.kube.watching import SILENCE
from equabot_broker.sources.kubernetes import KubernetesOptions, KubernetesSecrets
from equabot_client import Broker, EquabotError, EventKind
from tests.fakes.following import RULES, following
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.kubernetes.api import Account, Api
from tests.kubernetes.cluster import Cluster

LABEL = {"equabot.dev/credential": "true"}
READS = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]
MakeBroker = Callable[..., RunningBroker]


@pytest.fixture
def broker_on(tmp_path: Path) -> Iterator[MakeBroker]:
    """Makes a broker that reads an API's Secrets as an account that may do no more than that, and is not started yet."""
    made: list[RunningBroker] = []

    def make(api: Api, namespace: str, options: str = "", *, rules: Any = READS, extra: str = "") -> RunningBroker:
        account = api.service_account(namespace, "broker", rules=rules)
        kubeconfig = api.kubeconfig(tmp_path / f"kubeconfig-{len(made)}", user=account.user, namespace=namespace)
        config = f"sources: [{{kubernetes: {{kubeconfig: {kubeconfig}{options}}}}}]\n{extra}"
        made.append(RunningBroker(credentials={}, dotenv="", config=config))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def secret_of(broker: Broker, provider: str = "anthropic") -> str:
    lease = broker.acquire(provider)
    broker.revoke(lease.id)
    return lease.secret.reveal()


def awaited(events: Iterator[Any], kind: EventKind) -> Any:
    """The next event, which is of that kind."""
    event = next(events)
    assert event.kind is kind, event
    return event


def findings(broker: RunningBroker) -> str:
    done = broker.run("doctor")
    return done.stdout + done.stderr


def test_an_open_stream_follows_its_secret(cluster: Api, namespace: str, broker_on: MakeBroker) -> None:
    """Created, rotated, unlabelled, labelled, deleted: its holder has the next one or hears that there is none. A lease without
    a stream is revoked with its Secret."""
    running = broker_on(cluster, namespace).start()
    assert "/aiohttp/" in running.maps()
    with running.connect() as broker:
        assert not broker.list_profiles()
        cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABEL)
        running.wait_healthy("provider/anthropic")
        events = broker.stream("anthropic")
        granted = awaited(events, EventKind.GRANTED)
        assert (granted.lease.profile, granted.lease.secret.reveal()) == ("anthropic:llm", KEY)
        cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": OTHER_KEY, "unknown": b"\xff"}, labels=LABEL)
        assert awaited(events, EventKind.ROTATED).lease.secret.reveal() == OTHER_KEY
        cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": OTHER_KEY})
        assert awaited(events, EventKind.REVOKED).reason == "no_usable_profile"
        running.wait_healthy("provider/anthropic", serving=False)
        cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABEL)
        running.wait_healthy("provider/anthropic")
        lease = broker.acquire("anthropic")
        cluster.secret(namespace, "spare", {"ANTHROPIC_API_KEY": OTHER_KEY}, labels=LABEL)
        running.wait_healthy("profile/anthropic:spare")
        events = broker.stream("anthropic")
        first = awaited(events, EventKind.GRANTED).lease
        cluster.delete("Secret", first.profile.partition(":")[2], namespace=namespace)
        moved = awaited(events, EventKind.ROTATED).lease
        assert moved.profile != first.profile
        cluster.delete("Secret", moved.profile.partition(":")[2], namespace=namespace)
        assert awaited(events, EventKind.REVOKED).reason == "no_usable_profile"
        running.wait_for(lambda: running.run("lease", "list").stdout.count(lease.id) == 0)
        with pytest.raises(EquabotError):
            broker.renew(lease.id)


def test_readiness_follows_the_credential(cluster: Api, namespace: str, broker_on: MakeBroker) -> None:
    """Expired: not ready, as the kubelet asks; rotated: ready again."""

    def put(key: str, end: str) -> None:
        cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": key}, labels=LABEL, annotations={"equabot.dev/expires-at": end})

    put(KEY, "2099-01-01T00:00:00Z")
    running = broker_on(cluster, namespace, extra="required: [anthropic]\n").start()
    put(KEY, "2020-01-01T00:00:00Z")
    running.wait_healthy(serving=False)
    put(OTHER_KEY, "2099-01-01T00:00:00Z")
    running.wait_healthy()


def test_names_need_no_more_than_their_own_rule(cluster: Api, namespace: str, broker_on: MakeBroker) -> None:
    """`resourceNames` alone; a configured profile's Secret is followed by name as well. What has no rule is told with the one
    that is missing, and is served once it is given."""
    rules = [{**READS[0], "resourceNames": ["llm", "odd"]}]
    cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY})
    cluster.secret(namespace, "odd", {"my.key": "sk-proj-" + "a1" * 30})
    cluster.secret(namespace, "closed", {"GROQ_API_KEY": "gsk_" + "a1" * 30})
    profiles = "profiles: {'openai:prod': {from: {kubernetes: {secret: odd, key: my.key}}}}\n"
    running = broker_on(cluster, namespace, ", names: [llm, closed]", rules=rules, extra=profiles).start()
    with running.connect() as broker:
        assert {profile.id for profile in broker.list_profiles()} == {"anthropic:llm", "openai:prod"}
        told = (
            f"may not list secrets closed in namespace {namespace}: grant its account the verb list on secrets, resourceNames"
        )
        assert told in running.log()
        assert told in findings(running)
        cluster.service_account(namespace, "broker", rules=[{**READS[0], "resourceNames": ["llm", "odd", "closed"]}])
        running.wait_healthy("profile/groq:closed")


USELESS: dict[str, tuple[dict[str, str | bytes], dict[str, str]]] = {
    "is binary": ({"ANTHROPIC_API_KEY": b"\xff\x00"}, {}),
    "is longer than 64 KiB": ({"ANTHROPIC_API_KEY": "x" * 900_000}, {}),
    "annotation equabot.dev/expires-at is 'tomorrow'": ({"ANTHROPIC_API_KEY": KEY}, {"equabot.dev/expires-at": "tomorrow"}),
    "is named for anthropic, but is declared to be groq's": ({"ANTHROPIC_API_KEY": KEY}, {"equabot.dev/provider": "groq"}),
    "names 'nobody', which is not a known provider": ({"k": KEY}, {"equabot.dev/provider": "nobody"}),
    "auth-profiles.json is not usable": ({"auth-profiles.json": "{"}, {}),
    "holds no credential": ({"username": "me", "password": "x"}, {}),
}


def test_unusable_secret_is_reported_and_affects_no_other(cluster: Api, namespace: str, broker_on: MakeBroker) -> None:
    """Without a byte of it. One that was good until then is served on; of two that claim one profile, the first by name is."""
    for number, (data, annotations) in enumerate(USELESS.values()):
        cluster.secret(namespace, f"bad-{number}", data, labels=LABEL, annotations=annotations)
    cluster.secret(namespace, "good", {"OPENAI_API_KEY": "sk-proj-" + "a1" * 30}, labels=LABEL)
    for name, key in (("a", KEY), ("b", OTHER_KEY)):
        annotated = {"equabot.dev/profile": "prod"}
        cluster.secret(namespace, name, {"ANTHROPIC_API_KEY": key}, labels=LABEL, annotations=annotated)
    running = broker_on(cluster, namespace).start()
    broken = {"equabot.dev/mode": "mistaken"}
    cluster.secret(namespace, "good", {"OPENAI_API_KEY": "sk-proj-" + "a1" * 30}, labels=LABEL, annotations=broken)
    running.wait_for(lambda: "annotation equabot.dev/mode is 'mistaken'" in running.log())
    told = findings(running)
    assert [words for words in USELESS if words not in told] == []
    assert f"Secret {namespace}/a ANTHROPIC_API_KEY hides another value in Secret {namespace}/b" in told
    with running.connect() as broker:
        assert (secret_of(broker, "openai"), secret_of(broker, "anthropic:prod")) == ("sk-proj-" + "a1" * 30, KEY)
    assert not any(key in running.log() + told for key in (KEY, OTHER_KEY))


def test_hundreds_of_secrets(cluster: Api, namespace: str, broker_on: MakeBroker) -> None:
    """More than a page of them, megabytes in all; one that changes is followed as if it were alone."""
    for number in range(300):
        cluster.secret(namespace, f"s{number}", {"ANTHROPIC_API_KEY": f"{KEY}{number}", "blob": "x" * 20_000}, labels=LABEL)
    running = broker_on(cluster, namespace).start()
    with running.connect() as broker:
        assert len(broker.list_profiles()) == 300
        events = broker.stream("anthropic:s7")
        assert awaited(events, EventKind.GRANTED).lease.secret.reveal() == f"{KEY}7"
        cluster.secret(namespace, "s7", {"ANTHROPIC_API_KEY": OTHER_KEY}, labels=LABEL)
        assert awaited(events, EventKind.ROTATED).lease.secret.reveal() == OTHER_KEY


# -- what may happen to the API -------------------------------------------------------------------------------------------


@pytest.fixture
def own(start_cluster: Callable[[], Cluster]) -> Cluster:
    return start_cluster()


def stale(running: RunningBroker) -> bool:
    return any(line.startswith("equabot_source_stale{") and line.endswith(" 1.0") for line in running.scrape().splitlines())


def followed(running: RunningBroker, own: Cluster, namespace: str, key: str) -> None:
    """A rotation arrives, and nothing is stale."""
    own.secret(namespace, "llm", {"ANTHROPIC_API_KEY": key}, labels=LABEL)
    with running.connect() as broker:
        running.wait_for(lambda: secret_of(broker) == key)
    running.wait_for(lambda: not stale(running))


def test_an_api_server_that_goes_and_comes_back(own: Cluster, broker_on: MakeBroker) -> None:
    """Killed: the last good value serves, said in the log, the metrics and by `doctor`; back with an empty history, it is
    followed again. Stopped when the broker starts: not ready, and ready once it is there. Commands that read it by themselves
    end, whether or not it answers."""
    namespace = own.namespace()
    own.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABEL)
    running = broker_on(own, namespace, extra="required: [anthropic]\n").start()
    own.kill()
    running.wait_for(lambda: stale(running))
    with running.connect() as broker:
        assert secret_of(broker) == KEY
    assert "cannot be reached to watch secrets" in running.log() or "cannot be reached to list secrets" in running.log()
    assert "check that the API server runs" in findings(running)
    running.stop()
    alone = running.run("models", "status")
    assert "cannot be reached to list secrets" in alone.stdout + alone.stderr + findings(running)
    running.start(service="liveness")
    running.wait_healthy(serving=False)
    own.start()
    running.wait_healthy()
    followed(running, own, namespace, OTHER_KEY)
    own.restart()
    followed(running, own, namespace, KEY)


async def test_paused_api_server_is_detected(own: Cluster, tmp_path: Path) -> None:
    """Its connections stay and are even accepted, and nothing comes: said after a silence and the time to connect, which is a
    minute and a half as the broker sets it; over once it goes on."""
    namespace = own.namespace()
    own.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABEL)
    chosen = KubernetesOptions(kubeconfig=own.kubeconfig(tmp_path / "kubeconfig", namespace=namespace))
    source = KubernetesSecrets(chosen, rules=RULES, clock=SystemClock(), silence=3)
    assert SILENCE + 10 <= 90
    async with following(source) as events:
        assert await events.next() == {"llm": {"anthropic:llm": KEY}}
        own.pause()
        assert "cannot be reached to" in str(await events.next())
        source.reread()
        assert "cannot be reached to" in str(await events.next())
        own.resume()
        assert await events.next() == {"llm": {"anthropic:llm": KEY}}
        own.secret(namespace, "llm", {"ANTHROPIC_API_KEY": OTHER_KEY}, labels=LABEL)
        assert await events.next() == ("llm", {"anthropic:llm": OTHER_KEY})


def test_rights_that_are_taken_away(own: Cluster, broker_on: MakeBroker, tmp_path: Path) -> None:
    """An open watch goes on until it ends: the API server asks for rights when a request begins. With the next one it is said
    which verb is missing, and the last good value serves; given back, it is followed again. So with an account that is
    deleted, whose tokens are revoked with it."""
    namespace = own.namespace()
    own.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABEL)
    running = broker_on(own, namespace).start()
    own.service_account(namespace, "broker", rules=[])
    own.secret(namespace, "llm", {"ANTHROPIC_API_KEY": OTHER_KEY}, labels=LABEL)
    with running.connect() as broker:
        running.wait_for(lambda: secret_of(broker) == OTHER_KEY)
        own.restart()  # ends every watch
        said = f"may not list secrets in namespace {namespace}: grant its account the verb list on secrets with a Role"
        running.wait_for(lambda: said in running.log())
        assert secret_of(broker) == OTHER_KEY
        own.service_account(namespace, "broker", rules=READS)
        followed(running, own, namespace, KEY)
        own.delete("ServiceAccount", "broker", namespace=namespace)
        own.restart()
        running.wait_for(lambda: "does not accept the credentials of this process" in running.log())
        assert secret_of(broker) == KEY
    renewed: Account = own.service_account(namespace, "broker", rules=READS)
    own.kubeconfig(tmp_path / "kubeconfig-0", user=renewed.user, namespace=namespace)
    followed(running, own, namespace, OTHER_KEY)
    assert not any(secret in running.log() for secret in (KEY, OTHER_KEY, renewed.token))
