"""Secrets of a real API server: how fast a rotation arrives, what the source costs a broker, what brokers cost the server."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import equabot_client
from benchmarks._broker import KEY, Broker, broker
from benchmarks._row import Row
from tests.kubernetes.cluster import Cluster
from tests.tiers import cluster_programs

ROUNDS = 100
SECRETS = 1_000
WATCHERS = 200
LABELS = {"equabot.dev/credential": "true"}


def rows() -> list[Row]:
    """On a server of its own."""
    assets = cluster_programs()
    if assets is None:
        print("  skipped: there is no kube-apiserver; deploy/ci/kubernetes builds one", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory(prefix="equabot-bench-") as directory, Cluster(assets, Path(directory, "k")) as cluster:
        # The crowd comes first: what it costs is told by a heap that nothing else has widened.
        crowd = _many_brokers(cluster, directory)
        return [*_rotation(cluster, directory), *_many_secrets(cluster, directory), *crowd]


def _rotation(cluster: Cluster, directory: str) -> list[Row]:
    namespace = cluster.namespace("rotation")
    cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABELS)
    with _watching(cluster, namespace, directory) as ours, equabot_client.connect(f"unix:{ours.socket}") as connection:
        credential = connection.credential("anthropic")
        credential.headers()
        times = sorted(_rotate(cluster, namespace, credential, index) for index in range(ROUNDS))
        credential.close()
        resident = ours.resident()
    return [
        Row("rotation, Secret to client, p50", times[ROUNDS // 2] * 1000, "ms"),
        Row("rotation, Secret to client, p99", times[int(ROUNDS * 0.99)] * 1000, "ms", 100),
        Row("resident with the Kubernetes source", resident / 2**20, "MiB", 80),
    ]


def _rotate(cluster: Cluster, namespace: str, credential: "equabot_client.Credential", index: int) -> float:
    secret = f"{KEY}{index:04}"
    began = time.perf_counter()
    cluster.patch("Secret", "llm", {"stringData": {"ANTHROPIC_API_KEY": secret}}, namespace=namespace)
    while credential.headers()["x-api-key"] != secret:
        if time.perf_counter() - began > 5:
            raise RuntimeError("the rotation never arrived")
        time.sleep(0.0002)
    return time.perf_counter() - began


def _many_secrets(cluster: Cluster, directory: str) -> list[Row]:
    namespace = cluster.namespace("many")
    for index in range(SECRETS):
        cluster.secret(namespace, f"llm-{index}", {"ANTHROPIC_API_KEY": f"{KEY}{index:04}"}, labels=LABELS)
    with _watching(cluster, namespace, directory) as ours, equabot_client.connect(f"unix:{ours.socket}") as connection:
        known = len(connection.list_profiles("anthropic"))
        if known != SECRETS:
            raise RuntimeError(f"{known} profiles of {SECRETS}")
        return [
            Row(f"start to SERVING, {SECRETS} Secrets", ours.start_seconds, "s"),
            Row(f"resident, {SECRETS} Secrets", ours.resident() / 2**20, "MiB"),
        ]


def _many_brokers(cluster: Cluster, directory: str) -> list[Row]:
    """Sources in one process, each with connections of its own: to the server they are as many brokers."""
    namespace = cluster.namespace("crowd")
    cluster.secret(namespace, "llm", {"ANTHROPIC_API_KEY": KEY}, labels=LABELS)
    server = next(child for child in psutil.Process().children(recursive=True) if child.name() == "kube-apiserver")
    before = server.memory_info().rss
    kubeconfig = cluster.kubeconfig(Path(directory, "crowd.kubeconfig"), namespace=namespace)
    words = [sys.executable, "-m", "benchmarks._crowd", str(kubeconfig), str(WATCHERS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        crowd.stdout.readline()
        after, used = server.memory_info().rss, sum(server.cpu_times()[:2])
        time.sleep(20)
        idle = (sum(server.cpu_times()[:2]) - used) / 20
        times = []
        for index in range(20):
            began = time.perf_counter()
            cluster.patch("Secret", "llm", {"stringData": {"ANTHROPIC_API_KEY": f"{KEY}{index:04}"}}, namespace=namespace)
            crowd.stdout.readline()
            times.append(time.perf_counter() - began)
        crowd.kill()
    return [
        Row(f"API server's memory a broker, {WATCHERS} of them", (after - before) / WATCHERS / 2**10, "KiB"),
        Row(f"API server's processor, {WATCHERS} idle brokers", idle * 100, "% of a core"),
        Row(f"rotation, Secret to the last of {WATCHERS} brokers, p50", sorted(times)[10] * 1000, "ms"),
    ]


@contextmanager
def _watching(cluster: Cluster, namespace: str, directory: str) -> Iterator[Broker]:
    kubeconfig = cluster.kubeconfig(Path(directory, f"{namespace}.kubeconfig"), namespace=namespace)
    with broker("", {"sources": [{"kubernetes": {"kubeconfig": str(kubeconfig)}}]}) as ours:
        yield ours
