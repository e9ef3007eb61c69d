"""A kubelet, as far as a pod of ours needs one, on a Docker Engine: the spec that the chart renders, run as containers.

What the spec says of users, groups, rights, mounts, order and probes is done. The pod is in the host's network, where the API
server and the provider are: ports are the test's to choose, and addresses are no boundary.
"""

import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

import docker
from testcontainers.core.container import DockerContainer

from equabot_client import EquabotError, health
from tests.containers.pod import Ran, logs

Json = dict[str, Any]

_DEADLINE: Final = 60.0


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod, from the moment in which all of its containers have been started."""

    spec: Json
    containers: dict[str, DockerContainer]

    def run(self, name: str, *command: str) -> Ran:
        """A command in a container, as `kubectl exec` would run it."""
        code, output = self.containers[name].get_wrapped_container().exec_run(list(command))
        return Ran(code, output.decode())

    def passes(self, name: str, kind: str) -> bool:
        """What a probe of a container says now: `startup`, `liveness` or `readiness`."""
        (container,) = [each for each in _in_order(self.spec) if each["name"] == name]
        return _passes(container[f"{kind}Probe"])

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Returns once it has happened."""
        deadline = time.monotonic() + _DEADLINE
        while not happened():
            assert time.monotonic() < deadline, f"it does not happen:\n{self.told()}"
            time.sleep(0.01)

    def restart(self, name: str) -> None:
        """A container is killed, and started anew as a kubelet would. Returns once its startup probe passes."""
        wrapped = self.containers[name].get_wrapped_container()
        wrapped.kill()
        wrapped.wait()
        wrapped.start()
        self.wait_until(lambda: self.passes(name, "startup"))

    def memory(self, name: str) -> Iterator[bytes]:
        """All that can be read of what the processes of a container hold in memory, as root on the node could."""
        for process in self.containers[name].get_wrapped_container().top()["Processes"]:
            yield from _memory(int(process[1]))

    def told(self) -> str:
        """Everything that the containers wrote."""
        return "\n".join(f"--- {name}\n{logs(container)}" for name, container in self.containers.items())

    def stop(self) -> dict[str, int]:
        """Ends the containers as a kubelet would: the last first, with SIGTERM. Their exit codes."""
        codes = {}
        for name, container in reversed(self.containers.items()):
            wrapped = container.get_wrapped_container()
            wrapped.stop(timeout=int(self.spec["terminationGracePeriodSeconds"]))
            codes[name] = int(wrapped.wait()["StatusCode"])
        return codes


@contextmanager
def pod(spec: Json, *, files: Mapping[str, Path], environ: Mapping[str, str]) -> Iterator[RunningPod]:
    """Runs one until the context ends. `files` are the directories behind the volumes that are not `emptyDir`, by name;
    `environ` is what every container gets beside its own."""
    group = int(spec["securityContext"]["fsGroup"])
    with ExitStack() as ending:
        sources = {name: str(path) for name, path in files.items()}
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                sources[volume["name"]] = ending.enter_context(_empty(volume["emptyDir"], group))
        ending.enter_context(_keeping([name for volume, name in sources.items() if volume not in files], spec))
        running: dict[str, DockerContainer] = {}
        for each in _in_order(spec):
            container = _container(each, sources, group).with_envs(**environ)
            running[each["name"]] = ending.enter_context(container)
            if "startupProbe" in each:
                RunningPod(spec, running).wait_until(lambda probe=each["startupProbe"]: _passes(probe))  # type: ignore[misc]
        yield RunningPod(spec, running)


def _in_order(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", []), *spec["containers"]]


@contextmanager
def _empty(options: Json, group: int) -> Iterator[str]:
    size = options["sizeLimit"].lower().removesuffix("i")
    asked = {"type": "tmpfs", "device": "tmpfs", "o": f"uid=0,gid={group},mode=2777,size={size}"}
    volume = docker.from_env().volumes.create(driver="local", driver_opts=asked)
    try:
        yield volume.name
    finally:
        volume.remove(force=True)


def _keeping(volumes: list[str], spec: Json) -> DockerContainer:
    """What a pod has beside its containers: here it keeps what is in memory when one of them starts anew."""
    pause = DockerContainer(_in_order(spec)[0]["image"]).with_kwargs(entrypoint=["sleep", "infinity"], network_mode="none")
    for name in volumes:
        pause.with_volume_mapping(name, f"/kept/{name}")
    return pause


def _container(spec: Json, sources: Mapping[str, str], group: int) -> DockerContainer:
    security = spec["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    container = DockerContainer(spec["image"]).with_kwargs(
        user=f"{security['runAsUser']}:{security['runAsGroup']}",
        group_add=[group],
        read_only=security["readOnlyRootFilesystem"],
        cap_drop=["ALL"],
        security_opt=[] if security["allowPrivilegeEscalation"] else ["no-new-privileges"],
        network_mode="host",
        mem_limit=spec["resources"]["limits"]["memory"].lower().removesuffix("i"),
        **({"entrypoint": spec["command"]} if "command" in spec else {}),
    )
    if "args" in spec:
        container.with_command(spec["args"])
    for mount in spec["volumeMounts"]:
        mode = "ro" if mount.get("readOnly") else "rw"
        container.with_volume_mapping(sources[mount["name"]], mount["mountPath"], mode)
    return container.with_envs(**{each["name"]: each["value"] for each in spec.get("env", [])})


def _passes(probe: Json) -> bool:
    if "grpc" in probe:
        with suppress(EquabotError):
            asked = probe["grpc"]
            return health.check(asked["service"], address=f"127.0.0.1:{asked['port']}", timeout=probe["timeoutSeconds"]) is True
        return False
    asked = probe["httpGet"]
    with suppress(URLError, ConnectionError), urllib.request.urlopen(f"http://127.0.0.1:{asked['port']}{asked['path']}"):
        return True
    return False


def _memory(process: int) -> Iterator[bytes]:
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as mem:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("r") and "[v" not in line:
                mem.seek(begin)
                with suppress(OSError):  # a page beyond a file's end
                    yield mem.read(end - begin)
