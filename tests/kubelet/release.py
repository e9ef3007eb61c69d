"""A release of the chart on the node, in a namespace of its own that enforces the standard `restricted`."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.fakes.upstream import Upstream
from tests.helm.chart import CHART
from tests.kubelet.node import Node, wait_until
from tests.kubernetes.api import Json

BROKER: Final = "equabot-broker"
GATEWAY: Final = "equabot-gateway"
SECRET: Final = "equabot-credentials"
NAME: Final = "demo"
DEPLOYMENT: Final = "demo-equabot-broker"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    output: str  # both streams


@dataclass(frozen=True)
class Release:
    """The chart's Deployment, the provider that its agents call, and the node."""

    node: Node
    namespace: str
    provider: Upstream
    directory: Path
    needed: Mapping[str, Any]

    def helm(self, *arguments: str | Path) -> Ran:
        """A command of helm in the namespace."""
        done = self.node.run("helm", "--namespace", self.namespace, *arguments)
        return Ran(done.returncode, done.stdout + done.stderr)

    def install(self, *flags: str, **values: Any) -> None:
        """Installs the release, or upgrades it, with these values in addition to those of the test's images."""
        options = []
        for number, each in enumerate((self.needed, values)):
            file = self.directory / f"values-{number}.yaml"
            file.write_text(yaml.safe_dump(dict(each)))
            options += ["--values", str(file)]
        done = self.helm("upgrade", "--install", NAME, CHART, *options, *flags)
        assert done.code == 0, done.output

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        """What kubectl prints in the namespace."""
        return self.node.kubectl("--namespace", self.namespace, *arguments, given=given)

    def secret(self, key: str, **annotations: str) -> None:
        """Writes the Secret as docs/operate.md says, and annotations as a second step, as it says too."""
        (self.directory / "key").write_text(key)
        data = f"--from-file=ANTHROPIC_API_KEY={self.directory / 'key'}"
        made = self.kubectl("create", "secret", "generic", SECRET, data, "--dry-run=client", "--output=yaml")
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", given=made)
        for name, value in annotations.items():
            noted = f"equabot.dev/{name.replace('_', '-')}={value}"
            self.kubectl("annotate", "--overwrite", "secret", SECRET, noted)

    def pods(self) -> list[Json]:
        """The Deployment's pods that do not end."""
        every = self.node.objects("Pod", namespace=self.namespace)
        ours = [pod for pod in every if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "agent"]
        return [pod for pod in ours if "deletionTimestamp" not in pod["metadata"]]

    def pod(self) -> Json:
        """The one pod."""
        [pod] = self.pods()
        return pod

    def ready(self, count: int = 1) -> bool:
        """Whether so many pods are ready, and no others exist."""
        return [condition(pod, "Ready") for pod in self.pods()] == [True] * count

    def run(self, container: str, *command: str, pod: str = "") -> Ran:
        """A command in a container of the one pod, or of the pod of that name."""
        name = pod or str(self.pod()["metadata"]["name"])
        done = self.node.run("kubectl", "--namespace", self.namespace, "exec", name, "--container", container, "--", *command)
        return Ran(done.returncode, done.stdout + done.stderr)

    def container(self, name: str) -> str:
        """The id of a container of the one pod."""
        return str(status(self.pod(), name)["containerID"]).rpartition("/")[2]

    def logs(self, container: str, *flags: str) -> str:
        """What a container of the one pod wrote."""
        return self.kubectl("logs", str(self.pod()["metadata"]["name"]), "--container", container, *flags)

    def events(self, container: str) -> list[str]:
        """What the kubelet has noted of a container of the one pod: the reasons, in the order in which each came last."""
        name = str(self.pod()["metadata"]["name"])
        events = self.node.objects("Event", namespace=self.namespace)
        of_it = [
            each
            for each in events
            if each["involvedObject"]["name"] == name and f"{{{container}}}" in each["involvedObject"].get("fieldPath", "")
        ]
        return [each["reason"] for each in sorted(of_it, key=lambda each: each["lastTimestamp"])]

    def leases(self) -> list[str]:
        """The names of the Leases in the namespace."""
        version = "coordination.k8s.io/v1"
        return [each["metadata"]["name"] for each in self.node.objects("Lease", namespace=self.namespace, version=version)]

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Returns once it has happened."""
        wait_until(happened, self.told)

    def used(self, key: str) -> bool:
        """Whether the latest request to the provider came with that key."""
        return bool(self.provider.received) and self.provider.received[-1].secret() == key

    def told(self) -> str:
        """What an operator would look at."""
        said = [self._shown("get", "all,events")]
        for pod in self.pods():
            said.append(json.dumps(pod["status"])[:3000])
            name = str(pod["metadata"]["name"])
            said += (self._shown("logs", name, "--container", each)[-2000:] for each in (BROKER, GATEWAY, "agent"))
        return "\n".join(said)

    def _shown(self, *arguments: str) -> str:
        return self.node.run("kubectl", "--namespace", self.namespace, *arguments).stdout

    def remove(self) -> None:
        """Deletes the namespace, and waits until its pods are gone."""
        self.node.run("kubectl", "delete", "namespace", self.namespace, "--wait=false")
        for pod in self.node.objects("Pod", namespace=self.namespace):
            name = pod["metadata"]["name"]
            self.node.run("kubectl", "--namespace", self.namespace, "delete", "pod", name, "--grace-period=0", "--force")
        deadline = time.monotonic() + 60
        while self.node.objects("Pod", namespace=self.namespace) and time.monotonic() < deadline:
            time.sleep(0.1)


def condition(pod: Json, kind: str) -> bool:
    """Whether a condition of the pod is true."""
    return any(each["type"] == kind and each["status"] == "True" for each in pod["status"].get("conditions", []))


def status(pod: Json, container: str) -> Json:
    """The status of a container; empty before there is one."""
    every = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
    return next((each for each in every if each["name"] == container), {})
