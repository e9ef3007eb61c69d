"""The chart, rendered by a real helm."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.tiers import program

Json = dict[str, Any]

CHART: Final = Path(__file__).parents[2] / "helm" / "equabot-broker"
FIXTURES: Final = Path(__file__).parent / "fixtures"
EVERY: Final = sorted(FIXTURES.glob("*.yaml"))
NAMESPACE: Final = "agents"


class Rejected(Exception):
    """What helm said in place of rendering."""


def helm(*arguments: str | Path) -> str:
    """What it prints. Raises Rejected."""
    found = program("helm")
    assert found is not None, "the fixture `needs_helm` comes first"
    command = [str(found), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Rejected(done.stderr)
    return done.stdout


def render(
    *values: Path | Mapping[str, Any],
    chart: Path = CHART,
    kubernetes: str = "",
    namespace: str = NAMESPACE,
    at: Path | None = None,
) -> list[Json]:
    """The objects of a release `test`, from values files and values; the latter are written to the directory `at`."""
    files = [each if isinstance(each, Path) else _written(each, at, number) for number, each in enumerate(values)]
    options = [text for file in files for text in ("--values", str(file))]
    if kubernetes:
        options += ["--kube-version", kubernetes]
    template = helm if at else _remembered
    text = template("template", "test", chart, "--namespace", namespace, *options)
    return [thing for thing in yaml.safe_load_all(text) if thing]


@cache
def _remembered(*arguments: str | Path) -> str:
    return helm(*arguments)


def _written(values: Mapping[str, Any], at: Path | None, number: int) -> Path:
    assert at is not None
    file = at / f"values-{number}.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    return file


def of_kind(objects: Iterable[Json], kind: str) -> list[Json]:
    """Those of a kind."""
    return [thing for thing in objects if thing["kind"] == kind]


def pod(objects: Iterable[Json]) -> Json:
    """The spec of the one workload's pods."""
    workloads = [thing for thing in objects if thing["kind"] in ("Deployment", "StatefulSet")]
    assert len(workloads) == 1
    spec: Json = workloads[0]["spec"]["template"]["spec"]
    return spec


def containers(spec: Json) -> dict[str, Json]:
    """Every container of a pod, by name."""
    return {each["name"]: each for each in [*spec.get("initContainers", []), *spec["containers"]]}


def mounted(container: Json) -> dict[str, str]:
    """Where a container mounts which volume."""
    return {each["mountPath"]: each["name"] for each in container.get("volumeMounts", [])}


def config(objects: Iterable[Json]) -> str:
    """The broker's configuration, as it lies in its container."""
    texts: list[str] = [
        each["data"]["equabot.yaml"] for each in of_kind(objects, "ConfigMap") if "equabot.yaml" in each["data"]
    ]
    assert len(texts) == 1
    return texts[0]


def secret_rules(objects: Sequence[Json], namespace: str) -> list[Json]:
    """What the Role in a namespace says of Secrets."""
    roles = [role for role in of_kind(objects, "Role") if role["metadata"]["namespace"] == namespace]
    return [rule for role in roles for rule in role["rules"] if rule["resources"] == ["secrets"]]


def consumer(directory: Path) -> Path:
    """A chart of somebody's own that has ours as its dependency, laid out in the directory as `helm dependency build` would."""
    chart = directory / "consumer"
    shutil.copytree(FIXTURES / "consumer", chart)
    shutil.copytree(CHART, chart / "charts" / CHART.name)
    return chart
