"""The how-to pages and tutorials name commands, alerts, metrics and values that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from equabot_cli.main import parse

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "equabot-broker"
PAGES = sorted([*ROOT.glob("docs/how-to/*.md"), *ROOT.glob("docs/tutorials/*.md")])
BLOCK = re.compile(r"^ *```sh[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|-- |\s)(equabot [a-z][^|<>&#`\n]*)", re.MULTILINE)
EXPOSITION = "".join(module.read_text() for module in ROOT.glob("broker/equabot_broker/telemetry/*.py"))


def commands(page: Path) -> list[str]:
    """Every command of `equabot` in a page: in its blocks, and in its sentences between backticks."""
    text = page.read_text()
    shells = [block.replace("\\\n", " ") for block in BLOCK.findall(text)]
    inline = re.findall(r"`(equabot [^`\n]+)`", BLOCK.sub("", text))
    return [command for shell in (*shells, *inline) for command in COMMAND.findall(shell)]


@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page in PAGES for command in commands(page)], ids=lambda part: str(part)[-60:]
)
def test_a_command_is_understood(page: Path, command: str) -> None:
    """Its words, options and arguments are those that the command line takes."""
    words = shlex.split(command)[1:]
    if words[-1:] == ["…"] or words == ["--version"]:
        return
    parse(words)


def test_there_are_commands() -> None:
    """Else the test above proves nothing."""
    assert sum(len(commands(page)) for page in PAGES) > 60


def test_the_runbook_has_a_section_for_each_alert() -> None:
    """In the order in which the chart has them."""
    alerts = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    sections = re.findall(r"^## (.*)$", (ROOT / "docs/how-to/runbook.md").read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_metrics_and_values_exist(page: Path) -> None:
    """A metric that is named is exposed, and a value of the chart has a default."""
    text = page.read_text()
    metrics = {
        name
        for name in re.findall(r"\bequabot_[a-z_]+", text)
        if name.removesuffix("_bucket").removesuffix("_total").removeprefix("equabot_") not in EXPOSITION
        and name not in ("equabot_broker", "equabot_client")
    }
    assert metrics == set()
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in re.findall(r"`((?:broker|gateway|metrics|networkPolicy|rbac|application)\.[a-zA-Z.]+)(?:=\w+)?`", text):
        if path in ("gateway.mode", "gateway.memory", "gateway.ca_file", "broker.lock"):
            continue  # keys of the broker's configuration, and a file
        found = values
        for name in path.split("."):
            assert name in found, path
            found = found[name]
