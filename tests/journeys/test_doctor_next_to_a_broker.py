"""`doctor` next to a running broker waits for nothing that the broker holds."""

import asyncio
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.bootstrap import survey
from equabot_broker.config.load import load
from tests.fakes.host import Host
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY

_opened: list[str] = []
_listens: list[bool] = [False]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect" and _listens[0]:
        _opened.append(str(arguments[0]))


@pytest.fixture
def databases() -> Iterator[list[str]]:
    """The databases that this process opens. An audit hook of Python cannot be taken away, so it is silenced."""
    if not getattr(sys, "_equabot_notes_databases", False):
        sys.addaudithook(_note)
        sys._equabot_notes_databases = True  # type: ignore[attr-defined]
    _opened.clear()
    _listens[0] = True
    yield _opened
    _listens[0] = False


def test_doctor_does_not_open_the_state_of_a_broker_that_answers(
    make_broker: MakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, databases: list[str]
) -> None:
    """F11: the broker has it open for as long as it runs. Without a broker the state is read, and the broker's own is not
    waited for: whoever holds it, a look is not queued behind that."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    state = broker.run_dir / "state.db"
    assert state.exists()
    host = Host(tmp_path, monkeypatch)
    host.environ |= broker.environ
    done = host.run("doctor")
    assert (done.code, "no broker answers" in done.out) == (0, False)
    assert databases == []
    broker.stop()
    done = host.run("doctor")
    assert "no broker answers" in done.out
    assert databases
    with closing(sqlite3.connect(state, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        assert host.run("doctor").code == 0


async def test_a_survey_leaves_a_silent_cluster_to_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F11: an API server that takes connections and never answers is the broker's to report."""
    monkeypatch.setattr(survey, "_SETTLE_WITHIN", 3600.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(port=silent.getsockname()[1]))
        kubeconfig.chmod(0o600)
        (tmp_path / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
        (tmp_path / "equabot.yaml").write_text(SOURCES.format(kubeconfig=kubeconfig, dotenv=tmp_path / ".env"))
        config = load(config_path=None, run_dir=None, environ={"HOME": str(tmp_path), "EQUABOT_HOME": str(tmp_path)})
        found = await asyncio.wait_for(survey.survey(config, answered=True), 60)
    assert [source.attempted for source in found.sources] == [False, True]
    assert [profile.id for profile in found.statuses["main"]] == ["anthropic:dotenv"]


SOURCES = "sources: [{{kubernetes: {{kubeconfig: {kubeconfig}, namespace: default}}}}, {{dotenv: {{path: {dotenv}}}}}]\n"
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
