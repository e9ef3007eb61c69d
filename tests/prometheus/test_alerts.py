"""The chart's alerts under `promtool`: Prometheus accepts them, and each is active when it should be and not before."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.rules import alerts, write_rules
from tests.tiers import program, require

CASES = Path(__file__).with_name("alerts.test.yaml")


def promtool(*arguments: str | Path) -> str:
    """What it prints. Fails the test where it finds a fault."""
    require("prometheus")
    done = subprocess.run(
        [str(program("promtool")), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    """Expressions, labels, and the templates of the annotations."""
    write_rules(tmp_path / "rules.yaml", alerts())
    assert f"{len(alerts())} rules found" in promtool("check", "rules", tmp_path / "rules.yaml")


def test_each_alert_is_active_when_it_should_be(tmp_path: Path) -> None:
    """The descriptions are left out: they are texts, and the cases would repeat them."""
    summaries = [each | {"annotations": {"summary": each["annotations"]["summary"]}} for each in alerts()]
    write_rules(tmp_path / "rules.yaml", summaries)
    shutil.copy(CASES, tmp_path)
    promtool("test", "rules", tmp_path / CASES.name)


@pytest.mark.parametrize("active", [True, False])
def test_there_is_a_case_for_each_alert(active: bool) -> None:
    """One in which it is active, and one in which it is not."""
    cases: Any = yaml.safe_load(CASES.read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in checks if bool(check["exp_alerts"]) is active} == {
        each["alert"] for each in alerts()
    }
