"""The chart as somebody else's dependency: the templates that README.md promises, used by a chart of their own."""

import re
from pathlib import Path

import pytest

from tests.helm import chart as charts
from tests.helm.chart import (
    CHART,
    FIXTURES,
    NAMESPACE,
    Rejected,
    config,
    containers,
    mounted,
    of_kind,
    pod,
    render,
    secret_rules,
)


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    return charts.consumer(tmp_path)


def test_a_chart_of_somebodys_own(consumer: Path) -> None:
    """Two agents and the broker in one pod, each agent with its own socket; nothing of the example application."""
    objects = render(chart=consumer)
    assert sorted(each["kind"] for each in objects) == ["ConfigMap", "Role", "RoleBinding", "ServiceAccount", "StatefulSet"]
    spec = pod(objects)
    assert [each["name"] for each in spec["initContainers"]] == ["equabot-broker"]
    found = containers(spec)
    assert mounted(found["writer"]) == {"/run/equabot/writer": "equabot-agent-writer"}
    assert mounted(found["reviewer"]) == {"/run/equabot/reviewer": "equabot-agent-reviewer"}
    sockets = {path for path in mounted(found["equabot-broker"]) if path.startswith("/run/equabot-agents/")}
    assert sockets == {"/run/equabot-agents/writer", "/run/equabot-agents/reviewer"}
    assert "main:" not in config(objects)
    (rule,) = secret_rules(objects, NAMESPACE)
    assert rule["resourceNames"] == ["reviewer-keys", "writer-keys"]
    (account,) = of_kind(objects, "ServiceAccount")
    assert spec["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize(("kubernetes", "native"), [("1.28.0", False), ("1.29.0", True)])
def test_it_follows_the_cluster_too(consumer: Path, kubernetes: str, *, native: bool) -> None:
    """The same lines in a chart serve clusters with and without native sidecars."""
    spec = pod(render(chart=consumer, kubernetes=kubernetes))
    assert ("initContainers" in spec) is native
    assert sorted(containers(spec)) == ["equabot-broker", "reviewer", "writer"]


def test_values_are_checked_there_too(consumer: Path, tmp_path: Path) -> None:
    """The schema and the contradictions hold under the dependency's name."""
    with pytest.raises(Rejected, match="'brokr' not allowed"):
        render({"equabot-broker": {"brokr": {}}}, chart=consumer, at=tmp_path)
    template = consumer / "templates" / "agents.yaml"
    template.write_text(template.read_text().replace('list "writer" "reviewer"', 'list "writer" "editor"'))
    with pytest.raises(Rejected, match="editor is not an agent"):
        render(chart=consumer)


def test_the_readme_shows_this_chart() -> None:
    """Its example is what is tested here, and the templates that it lists are there."""
    readme = (CHART / "README.md").read_text()
    example = (FIXTURES / "consumer" / "templates" / "agents.yaml").read_text()
    shown = readme.partition("<!-- templates/agents.yaml -->\n```yaml\n")[2].partition("```")[0]
    assert shown == example
    defined = {
        name for file in (CHART / "templates").glob("*.tpl") for name in re.findall(r'define "([\w.-]+)"', file.read_text())
    }
    listed = re.findall(r"^\| `(equabot-broker\.\w+)` \|", readme, re.MULTILINE)
    assert len(listed) >= 9
    assert set(listed) <= defined
