"""The contributor's surroundings, read: the workflow calls targets that exist, with actions that cannot be moved."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
RUFF = Path(sys.executable).with_name("ruff")
CI = (ROOT / ".github/workflows/ci.yaml").read_text()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    """A tag can be moved to other code, which would run with the workflow's rights. One action has one commit everywhere."""
    used = re.findall(r"uses: (\S+?)@(\S+)", workflow.read_text())
    assert used
    assert [name for name, commit in used if not re.fullmatch(r"[0-9a-f]{40}", commit)] == []
    everywhere = {found for path in WORKFLOWS for found in re.findall(r"uses: (\S+?)@(\S+)", path.read_text())}
    assert len({name for name, _ in everywhere}) == len(everywhere)


def test_the_workflow_calls_the_makefile_and_ci() -> None:
    """What runs there runs on a laptop too."""
    jobs = yaml.safe_load(CI)["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = [re.sub(r"\S+=\S*\$\{\{.*?\}\}", "", command) for command in commands if command.startswith("make ")]
    called = {word for command in made for word in command.split()[1:]}
    assert called <= TARGETS
    assert called >= {"check", "proto-lint", "docs", "test-python"}
    assert "make proto-lint" in (ROOT / ".ci/run").read_text()
    assert ".ci/run" in commands
    assert jobs["python"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert "write" not in CI.replace("actions/checkout", "")


def test_coverage_only_rises() -> None:
    """CI runs the fast tests once, and measures. A lower value in pyproject.toml is a decision, which changes this test too."""
    assert "make test FAST=coverage" in (ROOT / ".ci/run").read_text()
    report = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["report"]
    assert report["fail_under"] >= 92


def test_hooks_are_local() -> None:
    """pre-commit runs the locked tools, and fetches nothing."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    for hook in config["repos"][0]["hooks"]:
        assert hook["entry"].startswith(".venv/bin/")
    assert json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())["postCreateCommand"] == "make install"


def test_hooks_leave_generated_files_alone() -> None:
    """pre-commit names every changed file, and a named file counts although the configuration excludes it."""
    generated = sorted((ROOT / "clients/python/equabot/broker/v1").glob("*.py"))
    assert generated
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([RUFF, *command, *generated], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_has_the_keys_that_github_takes(form: str) -> None:
    """In a flow mapping, a comma in a text that is not quoted starts another key, and GitHub shows no form at all."""
    read = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yaml").read_text())
    assert read.keys() == {"name", "description", "labels", "body"}
    for field in read["body"]:
        assert field.keys() <= {"type", "id", "attributes", "validations"}
        assert field["attributes"].keys() <= {"label", "description", "placeholder", "value", "render", "options", "multiple"}
        assert all(isinstance(text, str | list) for text in field["attributes"].values())


def test_dependencies_are_updated_where_there_are_any() -> None:
    """Each directory that dependabot reads has the file of its ecosystem."""
    files = {"docker": "Dockerfile", "github-actions": ".github/workflows", "npm": "package-lock.json", "gomod": "go.mod"}
    for update in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]:
        for directory in update.get("directories", [update.get("directory")]):
            assert (ROOT / directory.strip("/") / files[update["package-ecosystem"]]).exists()
