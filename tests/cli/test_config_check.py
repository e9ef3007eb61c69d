"""`equabot config check`: the answer a broker would give, without starting one."""

import os
import subprocess
import sys
from pathlib import Path

CANARY = "sk-ant-api03-CANARYcanary0123456789"


def check(home: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The command as a process."""
    usual = {"PATH": os.environ["PATH"], "HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")}
    return subprocess.run(
        [sys.executable, "-m", "equabot_broker", "config", "check", *arguments],
        env=usual | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_valid_configuration_is_summarised(tmp_path: Path) -> None:
    """0, and what it comes to on standard output; nothing is made on disk."""
    file = tmp_path / "c.yaml"
    file.write_text("agents: {main: , coder: }\nrequired: [anthropic]\nsources: [env, mounted: {path: /x}]\n")
    done = check(tmp_path, "--config", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{file}: valid",
        f"run_dir\t{tmp_path}/run",
        f"state_path\t{tmp_path}/run/state.db",
        "listen\thealth 127.0.0.1:8686, metrics 127.0.0.1:9464, gateway 127.0.0.1:8787",
        "agents\tmain, coder",
        "sources\tenv, mounted /x",
        "required\tanthropic",
    ]
    assert list(tmp_path.iterdir()) == [file]


def test_no_file_is_valid(tmp_path: Path) -> None:
    """Nothing has to be configured; flags count as they do for `serve`."""
    done = check(tmp_path, "--run-dir", "/flag")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["no configuration file: the defaults apply", "run_dir\t/flag"]


def test_a_provider_that_is_not_brokered_is_warned_of(tmp_path: Path) -> None:
    """S1: with how its list is written; a broker takes the configuration."""
    file = tmp_path / "c.yaml"
    file.write_text(
        "providers:\n"
        "  acme: {base_url: 'https://a.example'}\n"
        "  other: {base_url: 'https://b.example', requests: ['!/keys*']}\n"
        "  third: {base_url: 'https://c.example', requests: ['* /**']}\n"
        "  openai: {base_url: 'https://d.example'}\n"
    )
    done = check(tmp_path, "--config", str(file))
    assert done.returncode == 0
    how = 'list them, for example ["POST /v1/chat/completions", "GET /v1/models"], or ["* /**"] for all requests'
    acme = "providers.acme.requests does not list the allowed requests"
    other = "providers.other.requests lists only requests that the gateway refuses"
    assert done.stderr.splitlines() == [
        f"warning: provider 'acme' has raw leases only: {acme}: {how}",
        f"warning: provider 'other' has raw leases only: {other}: {how}",
    ]


def test_every_fault_is_a_line_of_its_own(tmp_path: Path) -> None:
    """64, and `file:line: path.to.key: what is wrong; what to do` on standard error; a pasted key is not shown."""
    file = tmp_path / "c.yaml"
    file.write_text(f"agents:\n  coder: {{max_tll: 1h}}\nOPENAI_KEY: {CANARY}\nleases: {{max_ttl: {CANARY}}}\n")
    done = check(tmp_path, EQUABOT_CONFIG=str(file), EQUABOT_LISTEN_HEALTH="x")
    assert (done.returncode, done.stdout) == (64, "")
    assert [line.rpartition("; ")[0] for line in done.stderr.splitlines()] == [
        "EQUABOT_LISTEN_HEALTH: 'x' has no port",
        f"{file}:2: agents.coder.max_tll: unknown key",
        f"{file}:3: OPENAI_KEY: unknown key",
        f"{file}:4: leases.max_ttl: a value of 35 characters (not shown) is not a duration",
    ]
    assert "CANARY" not in done.stderr


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """Also 64: a broker would not start."""
    done = check(tmp_path, "--config", "/nowhere.yaml")
    assert (done.returncode, done.stderr) == (64, "/nowhere.yaml: does not exist; create it, or correct the path\n")
