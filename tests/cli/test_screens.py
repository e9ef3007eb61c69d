"""What a terminal of 60, 80 and 120 columns shows. `EQUABOT_GOLDEN=write` writes the present screens to `golden`."""

import os
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from equabot_broker.cli.findings_view import show_findings
from equabot_broker.cli.status_report import StatusReport, StatusTrouble
from equabot_broker.cli.status_screen import show_screen
from equabot_broker.config.load import load
from equabot_broker.diagnosis.findings import Finding, Severity
from equabot_broker.diagnosis.statuses import ProfileStatus
from tests.fakes.terminal import Terminal

NOW = 1_795_000_000.0
HOME = Path("/home/me")
GOLDEN = Path(__file__).with_name("golden")
WIDTHS = (60, 80, 120)
STORE = "profile_store"
HOUR = 3600.0


def profile(name: str, state: str = "ok", **fields: object) -> ProfileStatus:
    """A profile of the store that is usable if it is `ok`."""
    known = {
        "provider": name.partition(":")[0],
        "mode": "api_key",
        "source": STORE,
        "label": "sk-a…wxyz",
        "usable": state == "ok",
    }
    return ProfileStatus(id=name, state=state, **{**known, **fields})  # type: ignore[arg-type]


PROFILES = (
    profile("anthropic:claude-cli", mode="oauth", source=f"claude_cli {HOME}/.claude/.credentials.json", next=True,
            expires_at=NOW + 7 * HOUR),
    profile("anthropic:env", source="env", cooldown_until=NOW + 300),
    profile("anthropic:old", "expired", mode="token", expires_at=NOW - 2 * HOUR),
    profile("groq:a-name-that-is-much-longer-than-usual-names", next=True, model_cooldowns={"llama": NOW + 60}),
    profile("openai:dotenv", "invalid", source=f"dotenv {HOME}/.equabot/.env", label="",
            reason=f"{HOME}/.equabot/.env OPENAI_API_KEY holds a placeholder: put the real value there"),
    profile("openai:work", "rejected", reason="the provider refused it (401)", retry_at=NOW + 600),
    profile("openrouter:default", "expiring", mode="token", next=True, usable=True, expires_at=NOW + 3 * HOUR),
)  # fmt: skip
FINDINGS = (
    Finding(severity=Severity.ERROR, subject="anthropic:old", message="expired 2h ago",
            remedy="equabot models auth paste-token --provider anthropic --profile-id anthropic:old"),
    Finding(severity=Severity.WARNING, subject=f"{HOME}/.equabot/agents/main/agent/auth-profiles.json cohere:default",
            message="is of an unknown provider: add that to providers in the configuration"),
    Finding(severity=Severity.INFO, subject="/run/equabot", message="no broker answers: doctor read the sources itself",
            remedy="equabot serve"),
)  # fmt: skip


def shown(show: Callable[[], None], width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of the screen, without colours."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("HOME", str(HOME))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    with redirect_stdout(terminal):
        show()
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())


def report(home: Path, *profiles: ProfileStatus, broker: str = "") -> StatusReport:
    """A report on the agent `main`, whose models are of Anthropic and DeepSeek."""
    home.mkdir(exist_ok=True)
    models = "models: {default: anthropic/claude-sonnet-4-5, fallbacks: [deepseek/deepseek-chat]}\n" if profiles else ""
    (home / "equabot.yaml").write_text(models + f"sources: [env, {{dotenv: {{path: {HOME}/.equabot/.env}}}}, profile_store]\n")
    config = load(environ={"EQUABOT_HOME": str(home)}, home=home)
    troubles = [StatusTrouble(STORE, "cohere:default is of an unknown provider")] if profiles else []
    return StatusReport(config=config, agent="main", profiles=profiles, troubles=troubles, broker=broker, now=NOW)


SCREENS: dict[str, Callable[[Path], None]] = {
    "status": lambda home: show_screen(report(home, *PROFILES, broker="unix:/run/equabot/admin/broker.sock")),
    "status-nothing": lambda home: show_screen(report(home)),
    "status-one-key": lambda home: show_screen(report(home, profile("anthropic:env", source="env", next=True))),
    "findings": lambda _: show_findings(FINDINGS),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_the_golden_text(name: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F5: no line is broken by the terminal, the worst is first, and a summary is at the top."""
    text = shown(lambda: SCREENS[name](tmp_path / "home"), width, monkeypatch)
    golden = GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("EQUABOT_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_only_a_command_is_longer_than_the_terminal_is_wide(
    name: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command stays on one line, so that a person can copy it."""
    lines = shown(lambda: SCREENS[name](tmp_path / "home"), width, monkeypatch).splitlines()
    assert [line for line in lines if len(line) > width and "equabot " not in line and "/" not in line] == []
