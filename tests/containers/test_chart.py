"""The chart's pod, with a real API server: its containers run as the chart says, and its readiness is its Secret's."""

import base64
import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError

import pytest

from tests.containers.kubelet import RunningPod, pod
from tests.fakes.upstream import Upstream
from tests.helm import chart
from tests.kubernetes.api import Account, Api
from tests.ports import free_port
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

    objects: list[dict[str, Any]]
    pod: RunningPod
    cluster: Api
    namespace: str
    provider: Upstream
    page_url: str

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
def install(
    cluster: Api, namespace: str, docker_image: str, agent_image: str, tmp_path: Path
) -> Iterator[Callable[..., Installed]]:
    """Installs the chart with some values beside those that the test's images and ports need, and runs its pod."""
    require("helm")
    ports = {name: free_port() for name in ("health", "metrics", "gateway", "page")}
    with ExitStack() as ending:
        provider = ending.enter_context(Upstream())
        needed = {
            "nativeSidecar": True,
            "broker": {"image": split(docker_image)},
            "application": {
                "image": split(agent_image),
                "env": {"AGENT_LISTEN": f"127.0.0.1:{ports['page']}", "AGENT_PERIOD": 0.05},
            },
            "config": {
                "listen": {
                    "health": f"0.0.0.0:{ports['health']}",
                    "metrics": f"0.0.0.0:{ports['metrics']}",
                    "gateway": f"127.0.0.1:{ports['gateway']}",
                },
                "providers": {"anthropic": {"base_url": provider.url}},
            },
        }

        def run(**values: Any) -> Installed:
            objects = chart.render(needed, values, namespace=namespace, at=tmp_path)
            for each in objects:
                if each["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
                    cluster.apply(each)
            spec = chart.pod(objects)
            token = cluster.token(namespace, spec["serviceAccountName"])
            files = {"equabot-api": tmp_path / "api", "equabot-config": tmp_path / "config"}
            environ = cluster.mount(files["equabot-api"], Account(namespace, spec["serviceAccountName"], token))
            files["equabot-config"].mkdir()
            (files["equabot-config"] / "equabot.yaml").write_text(chart.config(objects))
            for directory in files.values():
                for path in directory.iterdir():
                    os.chown(path, 0, ID)  # as the kubelet does with `fsGroup`
                    path.chmod(0o440)
            running = ending.enter_context(pod(spec, files=files, environ=environ))
            return Installed(objects, running, cluster, namespace, provider, f"http://127.0.0.1:{ports['page']}/")

        yield run


def split(image: str) -> dict[str, str]:
    """An image as the values name it."""
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}


def test_the_pods_readiness_is_its_secrets(install: Callable[..., Installed]) -> None:
    """Alive and not ready without the Secret; ready with it; the agent's next request carries a rotated key; not ready once it
    has expired, and ready with the next; not ready once it is gone."""
    first, second, third = (made_up_key(word) for word in ("first", "second", "third"))
    installed = install()
    running = installed.pod
    running.wait_until(lambda: "NO_USABLE_PROFILE" in installed.page().get("error", ""))
    assert running.passes(BROKER, "liveness")
    assert not installed.ready

    installed.secret(first)
    running.wait_until(lambda: installed.ready)
    running.wait_until(lambda: installed.used(first))
    assert installed.page()["profile"] == f"anthropic:{SECRET}"
    assert installed.page()["delivery"] == "raw"

    installed.secret(second)
    running.wait_until(lambda: installed.used(second))
    assert installed.ready

    installed.secret(second, ends=timedelta(seconds=-1))
    running.wait_until(lambda: not installed.ready)
    assert running.passes(BROKER, "liveness")
    installed.secret(third, ends=timedelta(days=30))
    running.wait_until(lambda: installed.ready)
    running.wait_until(lambda: installed.used(third))

    installed.cluster.delete("Secret", SECRET, namespace=installed.namespace)
    running.wait_until(lambda: not installed.ready and not installed.page()["working"])

    for key in (first, second, third):
        assert key not in running.told()
    assert running.stop() == {BROKER: 0, "agent": 0}


def test_the_agent_has_its_socket_and_nothing_else(install: Callable[..., Installed]) -> None:
    """In its container there is one socket, no token of the pod's account, no Secret, no configuration; and nothing of that can
    be written. The operator has all of it where the broker is."""
    installed, key = install(), made_up_key("only")
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


def test_behind_the_gateway_the_key_is_the_brokers_and_envoys(install: Callable[..., Installed], envoy_image: str) -> None:
    """The agent works with a lease token, through Envoy; the provider gets the key. The agent's memory holds no piece of it,
    nor does any log. A rotated key is in the next request, and the agent notices nothing."""
    first, second = made_up_key("first"), made_up_key("second")
    installed = install(gateway={"enabled": True, "image": split(envoy_image)})
    running = installed.pod
    installed.secret(first)
    running.wait_until(lambda: installed.used(first) and installed.page().get("status") == 200)
    page = installed.page()
    assert (page["delivery"], page["base_url"].partition("//")[0]) == ("brokered", "http:")
    assert page["base_url"].endswith("/anthropic")
    assert installed.provider.received[-1].path == "/v1/models"

    installed.secret(second)
    running.wait_until(lambda: installed.used(second))
    assert installed.page()["version"] == page["version"]

    held = b"".join(running.memory("agent"))
    assert b"eqb_" in held, "the lease token is to be found, or nothing would be"
    for key in (first, second):
        body = key.removeprefix("sk-ant-api03-").encode()
        assert not [at for at in range(0, len(body) - 8, 8) if body[at : at + 8] in held]
        assert key not in running.told()
    found = running.run("equabot-gateway", "find", "/", "-path", "/proc", "-prune", "-o", "-type", "s", "-print").output
    assert [line for line in found.splitlines() if line.startswith("/")] == ["/run/equabot/gateway/control.sock"]
    assert running.run("equabot-gateway", "ls", "/var/run/secrets").code != 0
    assert running.stop() == {BROKER: 0, "equabot-gateway": 0, "agent": 0}


@pytest.mark.parametrize("gateway", [False, True], ids=["raw", "gateway"])
def test_a_broker_that_is_started_anew_is_found_again(
    install: Callable[..., Installed], envoy_image: str, *, gateway: bool
) -> None:
    """As after a failed liveness probe: its sockets come again where they were, and agent and gateway just go on."""
    installed = install(gateway={"enabled": gateway, "image": split(envoy_image)})
    first, second = made_up_key("first"), made_up_key("second")
    installed.secret(first)
    installed.pod.wait_until(lambda: installed.used(first))
    installed.pod.restart(BROKER)
    installed.secret(second)
    installed.pod.wait_until(lambda: installed.used(second) and installed.page()["status"] == 200 and installed.ready)


def test_without_native_sidecars_the_agent_waits(install: Callable[..., Installed]) -> None:
    """It works as soon as the broker has something to give."""
    installed, key = install(nativeSidecar=False), made_up_key("plain")
    assert list(installed.pod.containers) == [BROKER, "agent"]
    installed.secret(key)
    installed.pod.wait_until(lambda: installed.used(key) and installed.ready)


def test_what_helm_test_runs(install: Callable[..., Installed], docker_image: str) -> None:
    """Its containers' own commands, with the addresses of this pod in place of the Services': they fail while there is no
    credential, and pass when there is one."""
    installed = install()
    (test,) = [each for each in installed.objects if each["kind"] == "Pod"]
    health = next(port for port in chart.containers(installed.pod.spec)[BROKER]["ports"] if port["name"] == "equabot-health")
    host = f"test-equabot-broker-health.{installed.namespace}.svc:8686"
    page = f"http://test-equabot-broker.{installed.namespace}.svc/"

    def passing() -> list[str]:
        passed = []
        for container in test["spec"]["containers"]:
            words = [*container.get("command", ["equabot"]), *container["args"]]
            here = [
                word.replace(host, f"127.0.0.1:{health['containerPort']}").replace(page, installed.page_url) for word in words
            ]
            assert here != words
            if installed.pod.run(BROKER, *here).code == 0:
                passed.append(container["name"])
        return passed

    installed.pod.wait_until(lambda: bool(installed.page()))
    assert passing() == ["liveness"]
    installed.secret(made_up_key("tested"))
    installed.pod.wait_until(lambda: installed.page().get("working") is True)
    assert passing() == ["liveness", "readiness", "lease"]
