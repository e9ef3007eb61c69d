"""How `models status` is written."""

from dataclasses import replace
from pathlib import Path

import pytest

from equabot_broker.cli import status_views
from equabot_broker.cli.status_report import StatusReport, StatusTrouble
from equabot_broker.config.load import load
from equabot_broker.diagnosis.statuses import ProfileStatus

NOW = 1_795_000_000.0
DOTENV = "dotenv /home/me/.equabot/.env"
LOGIN = ProfileStatus(
    id="anthropic:claude-cli",
    provider="anthropic",
    mode="oauth",
    source="claude_cli",
    state="expiring",
    usable=True,
    next=True,
    label="sk-a…1234",
    expires_at=NOW + 3 * 3600,
)
KEY = ProfileStatus(
    id="anthropic:env",
    provider="anthropic",
    mode="api_key",
    source="env",
    state="ok",
    usable=True,
    label="sk-a…wxyz",
    cooldown_until=NOW + 300,
    disabled_until=NOW + 4 * 3600,
    disabled_reason="billing",
)
BROKEN = ProfileStatus(
    id="openai:dotenv", provider="openai", mode="api_key", source=DOTENV, state="invalid", reason="holds a placeholder"
)


@pytest.fixture
def report(tmp_path: Path) -> StatusReport:
    (tmp_path / "equabot.yaml").write_text("models: {default: anthropic/claude-sonnet-4-5, fallbacks: [groq/llama]}")
    config = load(environ={"EQUABOT_HOME": str(tmp_path)}, home=tmp_path)
    return StatusReport(config=config, agent="main", profiles=(LOGIN, KEY, BROKEN), troubles=(), broker="", now=NOW)


def test_the_document_has_the_shape_that_monitoring_reads(report: StatusReport, tmp_path: Path) -> None:
    """Keys as in OpenClaw; instants RFC 3339, durations in milliseconds, what is not known null."""
    assert status_views.document(report) == {
        "configPath": str(tmp_path / "equabot.yaml"),
        "agentDir": str(tmp_path / "agents/main/agent"),
        "defaultModel": "anthropic/claude-sonnet-4-5",
        "fallbacks": ["groq/llama"],
        "auth": {
            "storePath": str(tmp_path / "agents/main/agent/auth-profiles.json"),
            "shellEnvFallback": {"enabled": False, "appliedKeys": []},
            "missingProvidersInUse": ["groq"],
            "providers": [
                {
                    "provider": "anthropic",
                    "effective": {"kind": "profiles", "detail": "anthropic:claude-cli (claude_cli)"},
                    "profiles": {
                        "count": 2,
                        "oauth": 1,
                        "token": 0,
                        "apiKey": 1,
                        "labels": [
                            "anthropic:claude-cli=sk-a…1234",
                            "anthropic:env=sk-a…wxyz [cooldown 5m] [disabled:billing 4h]",
                        ],
                    },
                    "env": {"value": "sk-a…wxyz", "source": "env"},
                },
                {
                    "provider": "groq",
                    "effective": {"kind": "missing", "detail": "missing"},
                    "profiles": {"count": 0, "oauth": 0, "token": 0, "apiKey": 0, "labels": []},
                },
                {
                    "provider": "openai",
                    "effective": {"kind": "env", "detail": f"(hidden) ({DOTENV})"},
                    "profiles": {"count": 1, "oauth": 0, "token": 0, "apiKey": 1, "labels": ["openai:dotenv=(hidden)"]},
                    "env": {"value": "(hidden)", "source": DOTENV},
                },
            ],
            "unusableProfiles": [
                {
                    "profileId": "anthropic:env",
                    "provider": "anthropic",
                    "kind": "cooldown",
                    "until": "2026-11-18T11:11:40.000Z",
                    "remainingMs": 300_000,
                },
                {
                    "profileId": "anthropic:env",
                    "provider": "anthropic",
                    "kind": "disabled",
                    "reason": "billing",
                    "until": "2026-11-18T15:06:40.000Z",
                    "remainingMs": 14_400_000,
                },
            ],
            "oauth": {
                "warnAfterMs": 86_400_000,
                "profiles": [
                    {
                        "profileId": "anthropic:claude-cli",
                        "provider": "anthropic",
                        "type": "oauth",
                        "status": "expiring",
                        "expiresAt": "2026-11-18T14:06:40.000Z",
                        "remainingMs": 10_800_000,
                        "source": "claude_cli",
                        "label": "sk-a…1234",
                        "reason": "",
                        "next": True,
                    },
                    {
                        "profileId": "anthropic:env",
                        "provider": "anthropic",
                        "type": "api_key",
                        "status": "static",
                        "expiresAt": None,
                        "remainingMs": None,
                        "source": "env",
                        "label": "sk-a…wxyz",
                        "reason": "",
                        "next": False,
                    },
                    {
                        "profileId": "openai:dotenv",
                        "provider": "openai",
                        "type": "api_key",
                        "status": "invalid",
                        "expiresAt": None,
                        "remainingMs": None,
                        "source": DOTENV,
                        "label": "(hidden)",
                        "reason": "holds a placeholder",
                        "next": False,
                    },
                ],
                "providers": [
                    {
                        "provider": "anthropic",
                        "status": "expiring",
                        "expiresAt": "2026-11-18T14:06:40.000Z",
                        "remainingMs": 10_800_000,
                        "profiles": ["anthropic:claude-cli", "anthropic:env"],
                    },
                    {"provider": "groq", "status": "missing", "expiresAt": None, "remainingMs": None, "profiles": []},
                    {
                        "provider": "openai",
                        "status": "invalid",
                        "expiresAt": None,
                        "remainingMs": None,
                        "profiles": ["openai:dotenv"],
                    },
                ],
            },
        },
    }


def test_plain_is_a_line_a_profile(report: StatusReport, capsys: pytest.CaptureFixture[str]) -> None:
    """Four columns, always, also for a provider that lacks a profile."""
    status_views.show_plain(report)
    assert capsys.readouterr().out.splitlines() == [
        "anthropic:claude-cli\texpiring\texpires in 3h\tclaude_cli",
        "anthropic:env\tstatic\t-\tenv",
        f"openai:dotenv\tinvalid\t-\t{DOTENV}",
        "groq:\tmissing\t-\t-",
    ]


def test_a_pipe_gets_sections_with_tabs(report: StatusReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in use, what is missing with the next step, the state of each profile, and the faults of a source."""
    missing = f"set GROQ_API_KEY in the environment or in {tmp_path}/.env, or run `equabot models auth add --provider groq`"
    seen = replace(report, troubles=(StatusTrouble(DOTENV, "line 3 has no ="),), broker="unix:/run/equabot/admin/broker.sock")
    status_views.show(seen)
    shown = capsys.readouterr().out
    for line in (
        f"Profile store\t{tmp_path}/agents/main/agent/auth-profiles.json",
        "anthropic\tprofiles: anthropic:claude-cli (claude_cli)\t1 api_key, 1 oauth",
        f"groq\tno credential: {missing}",
        "anthropic:claude-cli\texpiring\texpires in 3h\t(claude_cli)\tnext",
        "anthropic:env\tstatic\t[cooldown 5m] [disabled:billing 4h]\t(env)",
        f"openai:dotenv\tinvalid\tholds a placeholder\t({DOTENV})",
        f"{DOTENV}\tline 3 has no =",
    ):
        assert line in shown.splitlines()


def test_nothing_at_all_says_what_to_do(report: StatusReport, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first thing a newcomer sees."""
    (tmp_path / "equabot.yaml").unlink()
    config = load(environ={"EQUABOT_HOME": str(tmp_path)}, home=tmp_path)
    status_views.show(replace(report, config=config, profiles=()))
    out = capsys.readouterr().out
    assert f"any provider\tno credential: set ANTHROPIC_API_KEY in the environment or in {tmp_path}/.env" in out


def test_a_workload_says_why_it_has_no_credential(report: StatusReport, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a key would be asked for; and in its row, in whatever state."""
    why = "not exchanged yet; the token endpoint answered 503"
    pod = ProfileStatus(id="groq:pod", provider="groq", mode="wif", source="workload", state="missing", reason=why)
    old = replace(pod, id="anthropic:pod", provider="anthropic", state="expired", reason="expired 1m ago; it answered 503")
    status_views.show(replace(report, profiles=(pod, old)))
    shown = capsys.readouterr().out
    assert f"groq\tno credential, because groq:pod could not get one: {why}" in shown
    assert f"groq:pod\tmissing\t{why}\t(workload)" in shown
    assert "anthropic:pod\texpired\texpired 1m ago; it answered 503\t(workload)" in shown
