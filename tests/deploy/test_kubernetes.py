"""The kustomizations are the chart's defaults, written out: what differs is names and labels."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import config, containers, of_kind, pod, render
from tests.kubernetes.manifests import kustomized
from tests.tiers import require

Json = dict[str, Any]


@pytest.fixture(params=["base", "gateway"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Json], list[Json]]:
    """The objects of a kustomization, and those of the chart with the same choices."""
    require("helm")
    values = {"fullnameOverride": "equabot-agent", "gateway": {"enabled": request.param == "gateway"}}
    return kustomized(request.param), render(values, at=tmp_path)


def by_name(things: list[Json]) -> dict[str, Json]:
    return {each["name"]: each for each in things}


def test_the_pods_are_alike(both: tuple[list[Json], list[Json]]) -> None:
    """Every container with its probes, mounts, rights; every volume, but for the configuration's name, which has a checksum."""
    specs = [pod(objects) for objects in both]
    for spec in specs:
        for container in containers(spec).values():
            container["volumeMounts"].sort(key=lambda mount: str(mount["mountPath"]))
        for volume in spec["volumes"]:
            volume.get("configMap", {}).pop("name", None)
    mine, charts = specs
    for kind in ("initContainers", "containers"):
        assert mine[kind] == charts[kind]
    assert by_name(mine["volumes"]) == by_name(charts["volumes"])
    rest = [{key: value for key, value in spec.items() if "ontainers" not in key and key != "volumes"} for spec in specs]
    assert rest[0] == rest[1]


def test_the_rights_and_the_ways_are_alike(both: tuple[list[Json], list[Json]]) -> None:
    """The same Role, the same ports, the same network policy."""
    roles, services, policies = (
        [{each["metadata"]["name"]: each for each in of_kind(objects, kind)} for objects in both]
        for kind in ("Role", "Service", "NetworkPolicy")
    )
    assert [role["rules"] for role in roles[0].values()] == [role["rules"] for role in roles[1].values()]
    assert {name: each["spec"]["ports"] for name, each in services[0].items()} == {
        name: each["spec"]["ports"] for name, each in services[1].items()
    }
    for part in ("ingress", "egress"):
        assert policies[0]["equabot-agent"]["spec"][part] == policies[1]["equabot-agent"]["spec"][part]


def test_the_configurations_are_alike(both: tuple[list[Json], list[Json]]) -> None:
    """In what they mean."""
    mine, charts = (yaml.safe_load(config(objects)) for objects in both)
    assert mine == charts


def test_selectors_find_the_pods(both: tuple[list[Json], list[Json]]) -> None:
    """Whatever looks for pods, here too."""
    objects, _ = both
    (workload,) = of_kind(objects, "Deployment")
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    looking = [each["spec"]["selector"] for each in of_kind(objects, "Service")]
    looking += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(objects, "NetworkPolicy")]
    assert len(looking) == 3
    assert all(selector and selector.items() <= labels for selector in looking)
