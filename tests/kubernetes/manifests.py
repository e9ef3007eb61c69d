"""What the tests of chart and manifests share: kustomizations rendered, and the kinds of the Prometheus operator made known."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml

from tests.kubernetes.api import Api, Refused
from tests.tiers import absent, program

Json = dict[str, Any]

KUSTOMIZATIONS: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_SELECTOR: Final = {"type": "object", "properties": {"matchLabels": _TEXTS}}
_ENDPOINTS: Final = {
    "type": "array",
    "items": {"type": "object", "required": ["port"], "properties": {"port": _TEXT, "interval": _TEXT}},
}
_RULE: Final = {
    "type": "object",
    "required": ["alert", "expr"],
    "properties": {"alert": _TEXT, "expr": _TEXT, "for": _TEXT, "labels": _TEXTS, "annotations": _TEXTS},
}
_OPERATORS: Final[dict[str, Json]] = {
    "PodMonitor": {"selector": _SELECTOR, "podMetricsEndpoints": _ENDPOINTS},
    "ServiceMonitor": {"selector": _SELECTOR, "endpoints": _ENDPOINTS},
    "PrometheusRule": {
        "groups": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": _TEXT, "rules": {"type": "array", "items": _RULE}}},
        }
    },
}
"""The fields of the Prometheus operator's kinds that the chart uses, and no others. Its own definitions are not here:
what these accept is well formed, and that it means something to the operator is not proved."""


def kustomized(name: str) -> list[Json]:
    """The objects of `deploy/kubernetes/<name>`, as kubectl makes them."""
    kubectl = program("kubectl")
    if kubectl is None:
        absent("kubernetes", "no kubectl command; deploy/ci/kubernetes builds one")
    command = [str(kubectl), "kustomize", str(KUSTOMIZATIONS / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def teach(cluster: Api) -> None:
    """Makes the operator's kinds known, and returns once they are."""
    for kind, properties in _OPERATORS.items():
        plural = f"{kind.lower()}s"
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
        cluster.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.monitoring.coreos.com"},
                "spec": {
                    "group": "monitoring.coreos.com",
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural},
                    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
                },
            }
        )
    deadline = time.monotonic() + 60
    for kind in _OPERATORS:
        while not _known(cluster, kind):
            assert time.monotonic() < deadline, f"{kind} does not become known"
            time.sleep(0.05)


def _known(cluster: Api, kind: str) -> bool:
    with suppress(Refused):
        cluster.objects(kind, namespace="default", version="monitoring.coreos.com/v1")
        return True
    return False
