"""Alerts and dashboard: PromQL that asks for what the broker exports."""

import asyncio
import json
import re
import urllib.request
from collections import defaultdict
from typing import Any, Final

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from equabot_broker.domain.profiles import State
from equabot_broker.telemetry.credential_events import RefreshSucceeded
from equabot_broker.telemetry.gateway_events import GatewayRefused, GatewayUsed
from equabot_broker.telemetry.lease_events import LeaseDenied, OutcomeReported
from equabot_broker.telemetry.metrics import CredentialGauge, Metrics, Snapshot, SourceGauge
from tests.fakes.engine import Engine
from tests.helm.chart import CHART, FIXTURES, of_kind, render

OBJECTS: Final = FIXTURES / "pod-monitor.yaml"
OF_THE_SCRAPE: Final = {"job", "namespace", "pod"}
ANYBODYS: Final = {"up", "process_resident_memory_bytes"}
"""Prometheus' own, and what every exporter has."""
SNAPSHOT: Final = Snapshot(
    credentials=(CredentialGauge(profile="acme:me", provider="acme", state="ok", expires_at=1.0, agent="main"),),
    sources=(SourceGauge(source="env", sync_age=1.0, stale=False),),
    leases={("main", "acme"): 1},
    streams={"main": 1},
    suspended={"main": False},
)


def alerts() -> list[dict[str, Any]]:
    (rule,) = of_kind(render(OBJECTS), "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    (text,) = [text for each in of_kind(render(OBJECTS), "ConfigMap") for name, text in each["data"].items() if "json" in name]
    found: dict[str, Any] = json.loads(text)
    return found


def expressions() -> list[str]:
    """All there are, with a duration for Grafana's interval."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [alert["expr"] for alert in alerts()] + [text.replace("$__rate_interval", "5m") for text in shown]


def selectors(text: str) -> list[promql_parser.VectorSelector]:
    """Every place in an expression that names a metric. Raises ValueError for what is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(text), visit)
    return found


async def exported() -> dict[str, set[str]]:
    """The metrics of a broker to which everything has happened, with their labels."""
    metrics = Metrics(version="1")
    metrics.record(LeaseDenied(agent="main", provider="acme", reason="LEASE_LIMIT"))
    metrics.record(OutcomeReported(agent="main", provider="acme", profile="acme:me", outcome="ok"))
    metrics.record(RefreshSucceeded(profile="acme:me", provider="acme", adopted=False, seconds=1))
    request: dict[str, Any] = {
        "agent": "main",
        "provider": "acme",
        "lease": "1",
        "method": "GET",
        "route": "/v1/models",
        "status": 200,
    }
    metrics.record(GatewayUsed(**request, request="1", session="", profile="acme:me", sent=0, received=1, seconds=1))
    metrics.record(GatewayRefused(**request, reason="LEASE_EXPIRED"))
    server = metrics.serve("127.0.0.1", 0, snapshot=lambda: SNAPSHOT, health=Engine().readiness)
    try:
        url = f"http://127.0.0.1:{server.port}/metrics"
        answer = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read().decode())
    finally:
        server.close()
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(answer):
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    return found


async def test_everything_that_is_asked_for_is_exported() -> None:
    """Every metric's name, and every label that an expression looks at, in valid PromQL; each keeps to its job."""
    known = await exported()
    asked = [(text, selector) for text in expressions() for selector in selectors(text)]
    assert len(asked) > 25
    for text, selector in asked:
        name = selector.name
        assert name in known.keys() | ANYBODYS, text
        labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert "job" in labels, text
        if name in known:
            assert labels.keys() <= known[name] | OF_THE_SCRAPE, text
        if name == "equabot_credential_state" and "state" in labels:
            assert set(labels["state"].split("|")) <= {state.value for state in State}, text


async def test_groups_are_made_by_labels_that_there_are() -> None:
    """`by (…)` and `on (…)` of a label that nobody has would fold everything into one."""
    known = set().union(*(await exported()).values()) | OF_THE_SCRAPE
    for text in expressions():
        for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", text):
            assert {name.strip() for name in names.split(",")} <= known, text


def test_every_alert_tells_what_to_do() -> None:
    """Severity, a summary and a description, with labels that its expression keeps; those that were promised are there."""
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical")
        told = alert["annotations"]["summary"] + alert["annotations"]["description"]
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", alert["expr"])))) or OF_THE_SCRAPE
        assert set(re.findall(r"\$labels\.(\w+)", told)) <= kept, alert["alert"]
    assert {alert["alert"] for alert in alerts()} >= {
        "EquabotBrokerDown",
        "EquabotCredentialExpired",
        "EquabotCredentialExpiring",
        "EquabotCredentialRejected",
        "EquabotReauthenticationRequired",
        "EquabotSourceStale",
    }


@pytest.mark.parametrize(
    ("fixture", "job"), [("pod-monitor", "agents/test-equabot-broker"), ("service-monitor", "test-equabot-broker-health")]
)
def test_the_alerts_look_at_the_job_of_the_monitor(fixture: str, job: str) -> None:
    """The operator names a PodMonitor's job by namespace and name, a ServiceMonitor's by its Service."""
    objects = render(FIXTURES / f"{fixture}.yaml")
    (rule,) = of_kind(objects, "PrometheusRule")
    jobs = {text for alert in rule["spec"]["groups"][0]["rules"] for text in re.findall(r'job="([^"]+)"', alert["expr"])}
    assert jobs == {job}
    names = {f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in of_kind(objects, "PodMonitor")}
    names |= {each["metadata"]["name"] for each in of_kind(objects, "Service")}
    assert job in names


@pytest.mark.parametrize("fixture", ["pod-monitor", "service-monitor"])
def test_alerts_lead_to_their_sections_of_the_runbook(fixture: str) -> None:
    """Where the values name the page. tests/test_how_to.py compares the sections with the alerts."""
    (rule,) = of_kind(render(FIXTURES / f"{fixture}.yaml"), "PrometheusRule")
    urls = {alert["alert"]: alert["annotations"].get("runbook_url") for alert in rule["spec"]["groups"][0]["rules"]}
    page = "https://docs.example/how-to/runbook.html" if fixture == "service-monitor" else None
    assert urls == {name: page and f"{page}#{name.lower()}" for name in urls}
    assert len(urls) == len(yaml.safe_load((CHART / "files/alerts.yaml").read_text()))


def test_every_panel_says_what_it_shows() -> None:
    """A description for people, and in the legend only labels that the expression keeps."""
    for panel in dashboard()["panels"]:
        assert panel["description"].endswith("."), panel["title"]
        for target in panel["targets"]:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"])))) or OF_THE_SCRAPE
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_no_panel_lies_on_another() -> None:
    """24 columns, every panel with a place, a title and a number of its own."""
    places: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    for panel in panels:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not own & places, panel["title"]
        assert max(x for x, _ in own) < 24
        places |= own
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
