"""The page on Kubernetes: what it has a reader type is typed, into a real helm and a real kubectl, before a real API server.

There is no kubelet. In the place of the pod a broker runs here, with the configuration and the rights that the release has in
the cluster; `kubectl exec` into it and `kubectl rollout status` are answered by a stand-in, everything else by kubectl itself.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.journeys.running import RunningBroker
from tests.kubernetes.api import Account, Api
from tests.tiers import absent, program, require

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operate.md").read_text().partition("\n## Kubernetes\n")[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
NAMESPACE = "agents"
RELEASE = "demo-equabot-broker"
KEYS = {name: f"sk-ant-api03-{word * 20}AA" for name, word in {"key.txt": "first", "new-key.txt": "other"}.items()}

KINDS = {
    "Deployment": "apps/v1", "Service": "v1", "ConfigMap": "v1", "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1", "NetworkPolicy": "networking.k8s.io/v1", "PodDisruptionBudget": "policy/v1",
    "ServiceAccount": "v1",
}  # fmt: skip
"""What the chart and the kustomizations make."""

STAND_IN = """#!/bin/sh
case " $* " in
    *" exec "*) while [ "$1" != -- ]; do shift; done; shift; shift; exec {equabot} "$@" ;;
    *" rollout status "*) for _ in $(seq 300); do {equabot} health --address {health} && exit 0; sleep 0.05; done; exit 1 ;;
esac
exec {kubectl} "$@"
"""


class Reader:
    """Somebody with a cluster, who does what the page says."""

    def __init__(self, cluster: Api, directory: Path, *, namespace: str = NAMESPACE) -> None:
        helm, kubectl = program("helm"), program("kubectl")
        if helm is None or kubectl is None:
            absent("helm", "no helm or no kubectl; deploy/ci/kubernetes builds them")
        self.cluster = cluster
        self.directory = directory
        self.namespace = namespace
        self.broker: RunningBroker | None = None
        self._kubectl = kubectl
        tools = directory / "bin"
        tools.mkdir()
        (tools / "helm").symlink_to(helm)
        kubeconfig = cluster.kubeconfig(directory / "kubeconfig")
        self.environ = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig),
            "HOME": str(directory),
        }
        for name, key in KEYS.items():
            (directory / name).write_text(key)
        for name in ("helm", "deploy"):
            (directory / name).symlink_to(ROOT / name)

    def stand_in(self, broker: RunningBroker) -> None:
        """From now on this is what runs in the pod."""
        if self.broker is not None:
            self.broker.close()
        self.broker = broker
        self.environ = broker.environ | self.environ
        equabot = (
            f"env {shlex.join(f'{name}={value}' for name, value in broker.environ.items())} {sys.executable} -m equabot_broker"
        )
        script = STAND_IN.format(equabot=equabot, health=broker.health, kubectl=self._kubectl)
        tool = self.directory / "bin" / "kubectl"
        tool.write_text(script)
        tool.chmod(0o755)

    def does(self, block: str) -> str:
        """One block, which has to succeed; and then, as the cluster would, a pod of what is there. What it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=self.directory,
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout

    def pod(self) -> RunningBroker:
        """A broker with the release's configuration, as its service account."""
        stored = self.cluster.get("ConfigMap", RELEASE, namespace=self.namespace)["data"]["equabot.yaml"]
        config = yaml.safe_load(stored)
        # What belongs to the pod is different here.
        for name in ("run_dir", "listen", "gateway"):
            config.pop(name, None)
        config["agents"] = {"main": {}}
        account = Account(self.namespace, RELEASE, self.cluster.token(self.namespace, RELEASE))
        kubeconfig = self.cluster.kubeconfig(self.directory / "pod.kubeconfig", user=account.user, namespace=self.namespace)
        for source in config["sources"]:
            source["kubernetes"]["kubeconfig"] = str(kubeconfig)
        broker = RunningBroker(credentials={}, dotenv="", config=yaml.safe_dump(config))
        self.stand_in(broker)
        return broker.start(service="liveness")


@pytest.fixture
def reader(cluster: Api, tmp_path: Path) -> Iterator[Reader]:
    require("helm")
    somebody = Reader(cluster, tmp_path)
    yield somebody
    if somebody.broker is not None:
        somebody.broker.close()


def test_the_page(reader: Reader) -> None:
    """Every block in its order: installed, not ready; ready with the Secret; rotated; bounded rights; selected; upgraded."""
    install, create, rotate, rights, select, gateway, plain, remove = BLOCKS
    reader.stand_in(RunningBroker(credentials={}, dotenv="", config=""))
    reader.does(install)

    broker = reader.pod()
    said = reader.does(create)
    assert "not yet" in said
    assert "anthropic:equabot-credentials" in said
    assert broker.run("key", "anthropic").stdout.strip() == KEYS["key.txt"]

    said = reader.does(rotate)
    broker.wait_for(lambda: broker.run("key", "anthropic").stdout.strip() == KEYS["new-key.txt"])
    broker.wait_output("models", "status", "--json", until=lambda text: "2030-06-01" in text or "1906502400000" in text)
    kept = reader.cluster.get("Secret", "equabot-credentials", namespace=NAMESPACE)["metadata"]["annotations"]
    assert list(kept) == ["equabot.dev/expires-at"]

    assert reader.does(rights).split("\n")[:2] == ["yes", "no"]

    reader.does(select.partition("\nkubectl")[0])
    broker = reader.pod()
    reader.does("kubectl" + select.partition("\nkubectl")[2])
    assert broker.run("key", "anthropic").stdout.strip() == KEYS["new-key.txt"]

    reader.does(gateway)
    stored = reader.cluster.get("ConfigMap", RELEASE, namespace=NAMESPACE)["data"]["equabot.yaml"]
    assert yaml.safe_load(stored)["gateway"] == {"mode": "sidecar", "memory": "256Mi"}
    reader.does(plain)
    reader.does("kubectl apply -k deploy/kubernetes/gateway")
    reader.does(remove)  # no controller runs here that would delete with the namespace what is left in it
    left = {
        kind: [each["metadata"]["name"] for each in reader.cluster.objects(kind, namespace=NAMESPACE, version=version)]
        for kind, version in KINDS.items()
    }
    assert left == {kind: [] for kind in KINDS}, "K8: what the page says to remove is all that there is"
    kept = {each["metadata"]["name"] for each in reader.cluster.objects("Secret", namespace=NAMESPACE)}
    assert kept == {"equabot-credentials"}
    assert all(key not in broker.log() for key in KEYS.values())


def test_the_page_names_what_there_is() -> None:
    """Values, commands and links."""
    values = yaml.safe_load((ROOT / "helm/equabot-broker/values.yaml").read_text())
    for path in re.findall(r"`((?:rbac|serviceAccount|networkPolicy|broker|gateway)\.[\w.]+)(?:=\w+|: \[…\])?`", PAGE):
        found = values
        for name in path.split("."):
            found = found[name]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert len(BLOCKS) == 8
