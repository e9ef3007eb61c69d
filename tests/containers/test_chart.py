"""The chart's pod, with a real API server: its containers run as the chart says, and its readiness is its Secret's."""

import base64
import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError

import pytest

from tests.containers.kubelet import RunningPod, pod
from tests.fakes.upstream import Upstream
from tests.helm import chart
from tests.journeys.running import free_port
from tests.kubernetes.api import Account, Api
from tests.tiers import require

pytestmark = pytest.mark.timeout(600)  # the first test waits for the images to be built

BROKER: Final = "equabot-broker"
ID: Final = 65532
SECRET: Final = "equabot-credentials"


def made_up_key(word: str) -> str:
    """Looks like a key of Anthropic, opens nothing, and occurs nowhere else."""
    return f"sk-ant-api03-{word}{base64.urlsafe_b64encode(os.urandom(60)).decode()}AA"


@dataclass(frozen=True)
class Installed:
    """The release, its pod, its provider, and the cluster that it asks."""

    pod: RunningPod
    cluster: Api
    namespace: str
    provider: Upstream
    page_url: str
    config: dict[str, Any]

    def secret(self, key: str, *, ends: timedelta | None = None) -> None:
        """Writes the Secret; `ends` is when its key does, counted from now."""
        notes = {} if ends is None else {"equabot.dev/expires-at": (datetime.now(UTC) + ends).isoformat(timespec="seconds")}
        self.cluster.secret(self.namespace, SECRET, {"ANTHROPIC_API_KEY": key}, annotations=notes)

    @property
    def ready(self) -> bool:
        """The broker's readiness probe."""
        return self.pod.passes(BROKER, "readiness")

    def page(self) -> dict[str, Any]:
        """What the agent shows; nothing while there is no page."""
        with suppress(URLError, ConnectionError):
            try:
                answer = urllib.request.urlopen(self.page_url, timeout=5)
            except HTTPError as error:
                answer = error  # 503: it holds no lease, and says so
            with answer:
                shown: dict[str, Any] = json.loads(answer.read())
            return shown
        return {}

    def used(self, key: str) -> bool:
        """Whether the latest request to the provider came with that key."""
        return bool(self.provider.received) and self.provider.received[-1].secret() == key


@pytest.fixture
def installed(cluster: Api, namespace: str, docker_image: str, agent_image: str, tmp_path: Path) -> Iterator[Installed]:
    require("helm")
    ports = {name: free_port() for name in ("health", "metrics", "page")}
    with Upstream() as provider:
        values = {
            "nativeSidecar": True,
            "broker": {"image": split(docker_image)},
            "application": {
                "image": split(agent_image),
                "env": {"AGENT_LISTEN": f"127.0.0.1:{ports['page']}", "AGENT_PERIOD": 0.05},
            },
            "config": {
                "listen": {name: f"0.0.0.0:{ports[name]}" for name in ("health", "metrics")},
                "providers": {"anthropic": {"base_url": provider.url}},
            },
        }
        objects = chart.render(values, namespace=namespace, at=tmp_path)
        for each in objects:
            if each["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
                cluster.apply(each)
        spec = chart.pod(objects)
        name = spec["serviceAccountName"]
        api = tmp_path / "api"
        environ = cluster.mount(api, Account(namespace, name, cluster.token(namespace, name)))
        config = tmp_path / "config"
        config.mkdir()
        (config / "equabot.yaml").write_text(chart.config(objects))
        for path in (*api.iterdir(), *config.iterdir()):
            os.chown(path, 0, ID)  # as the kubelet does with `fsGroup` and `defaultMode: 0440`
            path.chmod(0o440)
        tmp_path.chmod(0o755)
        with pod(spec, files={"equabot-config": config, "equabot-api": api}, environ=environ) as running:
            url = f"http://127.0.0.1:{ports['page']}/"
            yield Installed(running, cluster, namespace, provider, url, values)


def split(image: str) -> dict[str, str]:
    """An image as the values name it."""
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}


def test_the_pods_readiness_is_its_secrets(installed: Installed) -> None:
    """Alive and not ready without the Secret; ready within a second of its creation; the agent's next request carries a rotated
    key; not ready once it has expired, and ready within a second of the next; not ready once it is gone."""
    first, second, third = (made_up_key(word) for word in ("first", "second", "third"))
    running = installed.pod
    running.wait_until(lambda: "NO_USABLE_PROFILE" in installed.page().get("error", ""))
    assert running.passes(BROKER, "liveness")
    assert not installed.ready

    installed.secret(first)
    assert running.wait_until(lambda: installed.ready) < 1
    running.wait_until(lambda: installed.used(first))
    assert installed.page()["profile"] == f"anthropic:{SECRET}"
    assert installed.page()["delivery"] == "raw"

    installed.secret(second)
    assert running.wait_until(lambda: installed.used(second)) < 1
    assert installed.ready

    installed.secret(second, ends=timedelta(seconds=-1))
    running.wait_until(lambda: not installed.ready)
    assert running.passes(BROKER, "liveness")
    installed.secret(third, ends=timedelta(days=30))
    assert running.wait_until(lambda: installed.ready) < 1
    running.wait_until(lambda: installed.used(third))

    installed.cluster.delete("Secret", SECRET, namespace=installed.namespace)
    running.wait_until(lambda: not installed.ready and not installed.page()["working"])

    for key in (first, second, third):
        assert key not in running.told()
    assert running.stop() == {BROKER: 0, "agent": 0}


def test_the_agent_has_its_socket_and_nothing_else(installed: Installed) -> None:
    """In its container there is one socket, no token of the pod's account, no Secret, no configuration; and nothing of that can
    be written. The operator has all of it where the broker is."""
    key = made_up_key("only")
    installed.secret(key)
    installed.pod.wait_until(lambda: installed.used(key))
    found = installed.pod.run("agent", "find", "/", "-path", "/proc", "-prune", "-o", "-type", "s", "-print").output
    assert [line for line in found.splitlines() if line.startswith("/")] == ["/run/equabot/main/broker.sock"]
    for path in ("/var/run/secrets", "/run/secrets", "/etc/equabot", "/run/equabot/admin", "/var/lib/equabot"):
        assert installed.pod.run("agent", "ls", path).code != 0, path
    assert installed.pod.run("agent", "touch", "/run/equabot/main/x").code != 0
    assert key not in installed.pod.run("agent", "env").output
    status = installed.pod.run(BROKER, "equabot", "models", "status", "--json")
    assert (status.code, f"anthropic:{SECRET}" in status.output, key in status.output) == (0, True, False)
    assert installed.pod.run(BROKER, "equabot", "health", "provider/anthropic").code == 0
