"""A Kubernetes cluster of one node: API server, controllers, scheduler, DNS, kube-proxy, kubelet and containerd.

All of it lives in network, mount and process namespaces of its own, whose first process ends with this one: then the kernel
ends every process and mount. Only two things are outside: cgroups below a root of the node's own, and files in its directory.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Final, Self

import yaml

from tests.kubernetes.api import Json
from tests.kubernetes.cluster import Cluster
from tests.tiers import program

PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "coredns")
PAUSE: Final = "equabot-pause:test"
_CGROUPS: Final = Path("/sys/fs/cgroup")
_PLUGINS: Final = Path("/usr/lib/cni")
_PODS: Final = "10.244.0.0/24"
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_DEADLINE: Final = 180.0


def lacking(assets: Path | None) -> str:
    """Why no node can run on this machine; empty: one can."""
    if os.geteuid() != 0:
        return "a node needs root"
    missing = [name for name in PROGRAMS if assets is None or not shutil.which(name, path=assets)]
    if missing:
        return f"no {', '.join(missing)}; deploy/ci/kubernetes builds them"
    tools = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "iptables", "ip", "nsenter", "unshare", "mount")
    if absent := [name for name in tools if not shutil.which(name, path=_PATH)]:
        return f"no {', '.join(absent)}; deploy/ci/kubelet installs them"
    if absent := [name for name in ("ptp", "host-local", "loopback") if not (_PLUGINS / name).exists()]:
        return f"no {', '.join(absent)} in {_PLUGINS}; deploy/ci/kubelet installs them"
    if program("kubectl") is None or program("helm") is None:
        return "no kubectl or helm; deploy/ci/kubernetes builds them"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "mount", "-t", "proc", "proc", "/proc"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        return f"no namespaces can be made here: {tried.stderr.strip()}"
    return "" if _controllers() else f"no memory controller in {_CGROUPS}, or it cannot be written"


class Node(Cluster):
    """The cluster, with its files in an empty `directory` of a short name. `host` is the address at which its pods reach this
    machine. Started and ended as a context."""

    def __init__(self, assets: Path, directory: Path) -> None:
        network = f"198.18.{random.randrange(256)}.{4 * random.randrange(64)}"
        prefix, last = network.rsplit(".", 1)
        self.host, address = (f"{prefix}.{int(last) + number}" for number in (1, 2))
        super().__init__(assets, directory, address=address)
        self._cgroup = f"equabot-{random.randrange(1 << 32):08x}"
        self._running: list[subprocess.Popen[bytes]] = []
        self._first: subprocess.Popen[bytes] | None = None
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._namespaces()
            super().__enter__()
            self._node()
        except BaseException as error:
            error.add_note(self.log)
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        self._ending.close()

    def load(self, *images: str) -> None:
        """Gives the node images of the Docker Engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            self._inside(*_ctr(self._directory), "images", "import", "-", stdin=saved.stdout)
            assert saved.wait() == 0

    def run(self, program_name: str, *arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl or helm, as the administrator, from this machine."""
        command, environ = self._command(program_name, arguments)
        return subprocess.run(command, input=given, env=environ, capture_output=True, text=True, timeout=300, check=False)

    def spawn(self, program_name: str, *arguments: str | Path) -> "subprocess.Popen[str]":
        """The same for a command that lasts."""
        command, environ = self._command(program_name, arguments)
        return subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _command(self, program_name: str, arguments: Sequence[str | Path]) -> tuple[list[str], dict[str, str]]:
        found = program(program_name)
        assert found is not None
        environ = os.environ | {"KUBECONFIG": str(self._directory / "admin.conf"), "HOME": str(self._directory)}
        return [str(found), *map(str, arguments)], environ

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        """What kubectl prints. It has to succeed."""
        done = self.run("kubectl", *arguments, given=given)
        assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def processes(self, container: str) -> list[int]:
        """The processes of a container, by its id, as this machine numbers them."""
        for found in (_controllers()[0] / self._cgroup).rglob(f"*{container}*"):
            return [int(line) for line in (found / "cgroup.procs").read_text().split()]
        return []

    def resident(self, container: str) -> int:
        """Bytes of memory that the processes of a container hold now."""
        statuses = [Path(f"/proc/{process}/status").read_text() for process in self.processes(container)]
        lines = [line.split() for text in statuses for line in text.splitlines() if line.startswith("VmRSS:")]
        return sum(int(kilobytes) << 10 for _, kilobytes, _ in lines)

    def memory_limit(self, container: str) -> int:
        """Bytes of memory that a container may have, by its id, as the kernel sees to it."""
        places = [place for root in _controllers()[:1] for place in (root / self._cgroup).rglob(f"*{container}*")]
        [limit] = [
            place / name for place in places for name in ("memory.max", "memory.limit_in_bytes") if (place / name).exists()
        ]
        return int(limit.read_text())

    # --- its parts ---

    def _namespaces(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        code = Path(__file__).with_name("first_process.py")
        with (self._directory / "first.log").open("ab") as log:
            self._first = subprocess.Popen(
                ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--", sys.executable, str(code)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._ending.callback(self._remove_cgroups)
        self._ending.callback(self._end_all)
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == b"ready\n", self.log
        [inner] = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()
        self._inner = inner
        for controller in _controllers():
            (controller / self._cgroup).mkdir()
        near = f"eq{self._address.replace('.', '')[5:]}"
        _do("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", inner)
        _do("ip", "address", "add", f"{self.host}/30", "dev", near)
        _do("ip", "link", "set", near, "up")
        self._inside("ip", "link", "set", "lo", "up")
        self._inside("ip", "address", "add", f"{self._address}/30", "dev", "eth0")
        self._inside("ip", "link", "set", "eth0", "up")
        self._inside("ip", "route", "add", "default", "via", self.host)

    def _node(self) -> None:
        place = self._directory
        self.kubeconfig(place / "admin.conf")
        for name, content in _files(place, self._address, self._cgroup).items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(content)
        self._spawn("/usr/bin/containerd", f"--config={place}/containerd.toml")
        self._until((place / "containerd.sock").exists, "containerd")
        self.load(PAUSE)
        config, alone = f"--kubeconfig={place}/admin.conf", "--leader-elect=false"
        signing = f"--service-account-private-key-file={place}/accounts.key"
        self._spawn("kube-controller-manager", config, alone, signing, f"--root-ca-file={place}/ca.pem")
        self._spawn("kube-scheduler", config, alone)
        self._spawn("kube-proxy", f"--config={place}/proxy.yaml", "--hostname-override=node")
        self._spawn("coredns", f"-conf={place}/Corefile")
        self._spawn(
            "kubelet", config, f"--config={place}/kubelet.yaml", f"--root-dir={place}/kubelet",
            f"--cert-dir={place}/certificates", "--hostname-override=node", f"--node-ip={self._address}", "--v=2",
        )  # fmt: skip
        self._until(self._is_ready, "a ready node")

    def _is_ready(self) -> bool:
        for process in self._running:
            assert process.poll() is None, f"a program ended with {process.returncode}"
        nodes = self.objects("Node")
        conditions = [each for node in nodes for each in node["status"].get("conditions", [])]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _spawn(self, name: str, *arguments: str) -> None:
        path = name if name.startswith("/") else str(self._assets / name)
        with (self._directory / f"{Path(name).name}.log").open("ab") as log:
            command = [*self._enter(), "--pid", "--", path, *arguments]
            self._running.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={"PATH": _PATH, "HOME": "/var/lib"},
                    start_new_session=True,
                )
            )

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", self._inner, "--net", "--mount"]

    def _inside(self, *command: str, stdin: IO[bytes] | int | None = subprocess.DEVNULL) -> None:
        entered = [*self._enter(), "--pid", "--", *command]
        done = subprocess.run(entered, stdin=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def _launch(self, program_name: str, flags: Sequence[str]) -> subprocess.Popen[bytes]:
        # In the network alone: signals reach it, and it ends with this process.
        with (self._directory / f"{program_name}.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._enter(), "--", self._assets / program_name, *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _server_flags(self) -> Sequence[str]:
        kept = [flag for flag in super()._server_flags() if not flag.startswith("--endpoint-reconciler-type")]
        pair = self._authority.client("kube-apiserver", "system:masters")
        for name, content in (("kubelet.pem", pair.certificate), ("kubelet.key", pair.key)):
            (self._directory / name).write_bytes(content)
        files = self._directory
        reached = "--kubelet-preferred-address-types=InternalIP"
        return (
            *kept,
            reached,
            f"--kubelet-client-certificate={files}/kubelet.pem",
            f"--kubelet-client-key={files}/kubelet.key",
        )

    # --- its end ---

    def _end_all(self) -> None:
        self.kill()
        if self._first is None:
            return
        for pipe in (self._first.stdin, self._first.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._first.wait(60)
        except subprocess.TimeoutExpired:
            self._first.kill()  # and the kernel its child
            self._first.wait()
        for process in self._running:
            process.wait(60)

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + 60
        for controller in _controllers():
            root = controller / self._cgroup
            while root.exists() and time.monotonic() < deadline:
                for found in sorted((each for each in root.rglob("*") if each.is_dir()), reverse=True):
                    with suppress(OSError):
                        found.rmdir()
                with suppress(OSError):
                    root.rmdir()
                time.sleep(0.05)


def wait_until(happened: Callable[[], bool], told: Callable[[], str]) -> None:
    """Returns once it has happened."""
    deadline = time.monotonic() + _DEADLINE
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"it does not happen:\n{told()}")
        time.sleep(0.1)


def _ctr(place: Path) -> list[str]:
    return ["ctr", f"--address={place}/containerd.sock", "--namespace=k8s.io"]


def _controllers() -> list[Path]:
    """The hierarchies in which a cgroup can be made: one of version 2, or those of version 1 that a kubelet uses."""
    unified = _CGROUPS / "cgroup.controllers"
    if unified.exists():
        return [_CGROUPS] if "memory" in unified.read_text().split() and os.access(_CGROUPS, os.W_OK) else []
    names = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "devices", "freezer", "systemd")
    found = [_CGROUPS / name for name in names if os.access(_CGROUPS / name, os.W_OK)]
    return found if _CGROUPS / "memory" in found else []


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _files(place: Path, address: str, cgroup: str) -> dict[str, str]:
    network: Json = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local", "dataDir": f"{place}/addresses", "ranges": [[{"subnet": _PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }  # fmt: skip
    kubelet: Json = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{place}/ca.pem"}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{place}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "clusterDNS": [address],
        "clusterDomain": "cluster.local",
        "enforceNodeAllocatable": [],
        "evictionHard": {
            "memory.available": "1Mi",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "podLogsDir": f"{place}/pods",
        "resolvConf": f"{place}/resolv.conf",
        "syncFrequency": "2s",
        "volumePluginDir": f"{place}/plugins",
    }
    proxy: Json = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{place}/admin.conf"},
        "clusterCIDR": _PODS,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "mode": "iptables",
        "iptables": {"localhostNodePorts": False},
        "oomScoreAdj": 0,
    }
    containerd = f"""
version = 2
root = "{place}/images"
state = "/run/containerd"
[grpc]
address = "{place}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/{PAUSE}"
# Where processes may not lower their score, runc would end.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{_PLUGINS}"
conf_dir = "{place}/network"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
    names = f"""
cluster.local:53 {{
    errors
    kubernetes {{
        kubeconfig {place}/admin.conf
    }}
}}
"""
    return {
        "network/10-pods.conflist": json.dumps(network),
        "kubelet.yaml": yaml.safe_dump(kubelet),
        "proxy.yaml": yaml.safe_dump(proxy),
        "containerd.toml": containerd,
        "Corefile": names,
        "resolv.conf": "",
    }
