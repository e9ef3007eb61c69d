"""The chart's alerts and dashboard, for programs that are no Kubernetes."""

import json
from pathlib import Path
from typing import Any, Final

import yaml

FILES: Final = Path(__file__).parents[2] / "helm" / "equabot-broker" / "files"
JOB: Final = "agents/broker"


def alerts() -> list[dict[str, Any]]:
    """Each alert, with the job as the chart would write it."""
    found: list[dict[str, Any]] = yaml.safe_load((FILES / "alerts.yaml").read_text().replace("JOB", JOB))
    return found


def write_rules(path: Path, rules: list[dict[str, Any]]) -> None:
    """Writes a rule file of Prometheus."""
    path.write_text(yaml.safe_dump({"groups": [{"name": "equabot-broker", "rules": rules}]}))


def panels() -> dict[str, list[str]]:
    """The expressions of each panel by its title, for all jobs and namespaces and the last minute."""
    shown = json.loads((FILES / "dashboard.json").read_text())["panels"]
    chosen = {"$job": ".+", "$namespace": ".*", "$__rate_interval": "1m"}
    found: dict[str, list[str]] = {}
    for panel in shown:
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in chosen.items():
                text = text.replace(variable, value)
            found.setdefault(panel["title"], []).append(text)
    return found
