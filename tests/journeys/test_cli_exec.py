"""`equabot exec` against a broker process."""

import json
import os
import signal
import sys
from contextlib import suppress

import pytest

from equabot_client.errors import EquabotError
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

OPENAI_KEY = "sk-proj-" + "b2" * 30
WAIT = "import os, signal; print(os.getpid(), flush=True); signal.pause()"


def test_the_command_gets_what_its_sdk_reads(make_broker: MakeBroker) -> None:
    """Several providers at once, beside the environment that was there."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\nOPENAI_API_KEY={OPENAI_KEY}\n").start()
    done = broker.run("exec", "anthropic", "openai", "--", "env", KEPT="yes")
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert (shown["ANTHROPIC_API_KEY"], shown["OPENAI_API_KEY"], shown["KEPT"]) == (KEY, OPENAI_KEY, "yes")


def test_another_kind_of_credential_left_in_the_environment_is_taken_out(shared_broker: RunningBroker) -> None:
    """The vendor's SDK would use it beside or before the leased one."""
    left = ("AUTH_TOKEN", "OAUTH_TOKEN", "API_KEYS", "API_KEY_2", "API_KEY")
    environ = {f"ANTHROPIC_{name}": "left-over" for name in left} | {"CLAUDE_CODE_OAUTH_TOKEN": "left-over"}
    done = shared_broker.run(
        "exec", "anthropic", "--", "env", **environ, ANTHROPIC_BASE_URL="https://mine", OPENAI_API_KEY="mine"
    )
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert shown["ANTHROPIC_API_KEY"] == KEY
    assert "left-over" not in done.stdout
    assert (shown["ANTHROPIC_BASE_URL"], shown["OPENAI_API_KEY"]) == ("https://mine", "mine")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_the_lease_lives_exactly_as_long_as_the_command(shared_broker: RunningBroker, ending: signal.Signals) -> None:
    """Held on a stream meanwhile, so that it is renewed, and ends even with `kill -9`, which cannot be handed on."""
    with shared_broker.spawn("exec", "anthropic", "--", sys.executable, "-c", WAIT) as running:
        assert running.stdout is not None
        command = int(running.stdout.readline())
        assert "streaming" in shared_broker.run("lease", "list").stdout
        running.send_signal(ending)
        assert running.wait(60) == (128 + ending if ending is signal.SIGTERM else -ending)
    shared_broker.wait_output("lease", "list", until=lambda text: not text)
    with suppress(ProcessLookupError):
        os.kill(command, signal.SIGKILL)


def test_the_secret_is_in_no_argument(shared_broker: RunningBroker) -> None:
    """Arguments are open to every process of the machine; environments are not."""
    seen = shared_broker.run("exec", "anthropic", "--", "sh", "-c", "cat /proc/$PPID/cmdline /proc/$$/cmdline")
    assert seen.returncode == 0
    assert KEY not in seen.stdout


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_the_commands_exit_code_is_handed_on(shared_broker: RunningBroker, command: str, code: int) -> None:
    """128 + n for a signal."""
    assert shared_broker.run("exec", "anthropic", "--", "sh", "-c", command).returncode == code


def test_standard_input_passes_through(shared_broker: RunningBroker) -> None:
    """Untouched."""
    assert shared_broker.run("exec", "anthropic", "--", "cat", stdin="hello\n").stdout == "hello\n"


def test_a_command_that_does_not_exist_costs_no_lease(shared_broker: RunningBroker) -> None:
    """127, as in a shell."""
    done = shared_broker.run("exec", "anthropic", "--", "no-such-command")
    assert (done.returncode, done.stderr) == (127, "equabot: no-such-command: command not found\n")


def test_a_restart_of_the_broker_does_not_disturb_the_command(running_broker: RunningBroker) -> None:
    """The lease is taken anew behind its back."""
    with running_broker.spawn("exec", "anthropic", "--", sys.executable, "-c", WAIT) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        running_broker.kill()
        running_broker.start()
        running_broker.wait_output("lease", "list", until=lambda text: "streaming" in text)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + 15


def test_a_rotation_is_told_to_those_who_ask(running_broker: RunningBroker) -> None:
    """An environment cannot be changed from outside, so the command keeps what it has; `-v` says so."""
    with running_broker.spawn("exec", "anthropic", "-v", "--", sys.executable, "-c", WAIT) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        line = running.stderr.readline()
        assert line == "equabot: anthropic:dotenv was rotated; the command keeps its old key\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + 15


def test_where_a_gateway_is_missing_that_is_said_and_not_to_hand_out_the_key(make_broker: MakeBroker) -> None:
    """An agent that may have tokens alone, before its operator has started the gateway."""
    config = "agents: {main: {deliveries: [brokered], providers: ['*']}}\n"
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=config).start()
    done = broker.run("exec", "anthropic", "--", "env")
    assert done.returncode == 1
    assert "no gateway runs with this broker: start it with `equabot serve --gateway`" in done.stderr
    assert "agents.main.deliveries" not in done.stderr


def test_without_a_gateway_the_audit_log_has_no_denial(running_broker: RunningBroker) -> None:
    """F18: `exec` asks for a token first; that no gateway runs is no refusal of the agent."""
    assert running_broker.run("exec", "anthropic", "--", "true").returncode == 0
    with running_broker.connect() as client, pytest.raises(EquabotError):
        client.acquire("no-such-provider")
    running_broker.wait_for(lambda: '"denied"' in running_broker.audit())
    kinds = [json.loads(line)["kind"] for line in running_broker.audit().splitlines()]
    assert kinds.count("denied") == 1
    assert "granted" in kinds


@pytest.mark.parametrize("how", ["revoked", "suspended"])
def test_the_end_of_a_lease_is_said_with_its_reason(running_broker: RunningBroker, how: str) -> None:
    """C19: and no other lease is taken, which the command could not use."""
    with running_broker.spawn("exec", "anthropic", "--", sys.executable, "-c", WAIT) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        lease = running_broker.run("lease", "list").stdout.split()[0]
        if how == "revoked":
            assert running_broker.run("lease", "revoke", lease).returncode == 0
            why = "it was revoked"
        else:
            assert running_broker.run("agent", "suspend", "main").returncode == 0
            why = "the agent is suspended, until an operator resumes it"
        line = running.stderr.readline()
        assert line == f"equabot: the lease of anthropic has ended: {why}; the command still has the key\n"
        running_broker.run("agent", "resume", "main")
        running_broker.wait_output("lease", "list", until=lambda text: not text)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + 15
        assert running.stderr.read() == ""
