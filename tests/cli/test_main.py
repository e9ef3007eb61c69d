"""The frame around every command: what it exits with, and what it says when something goes wrong."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from equabot_cli.main import main, parse
from tests.fakes.host import Host
from tests.ports import free_port
from tests.version import VERSION

CANARY = "sk-ant-api03-CANARYcanaryCANARY"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def equabot(home: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The command line as a process, with no broker in reach."""
    return subprocess.run(
        [sys.executable, "-m", "equabot_broker", *arguments],
        env=alone(home) | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def alone(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "EQUABOT_HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["key"],
        ["key", "anthropic", "extra"],
        ["lease"],
        ["lease", "acquire", "anthropic", "--ttl", "15"],
        ["lease", "acquire", "anthropic", "--ttl", "0s"],
        ["lease", "acquire", "anthropic", "--ttl", "-5m"],
        ["models", "status", "--json", "--plain"],
        ["exec", "--", "env"],
        ["serve", "--port", "1"],
    ],
)
def test_a_misuse_is_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Not argparse's 2, which `models status --check` has another meaning for. Said on standard error."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert (code, captured.out) == (64, "")
    assert captured.err.startswith("usage: equabot")


@pytest.mark.parametrize("arguments", [["--help"], ["lease", "--help"], ["exec", "--help"], ["models", "status", "-h"]])
def test_help_is_not_a_failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, on standard output."""
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("usage: equabot")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`equabot --version`."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"equabot {VERSION}\n"


def test_what_stands_behind_two_dashes_belongs_to_the_command() -> None:
    """Whatever it looks like, also like options of our own."""
    args = parse(["exec", "anthropic", "openai:work", "--delivery", "raw", "--", "cmd", "--agent", "x", "--", "-v"])
    assert (args.providers, args.delivery, args.agent) == (["anthropic", "openai:work"], "raw", None)
    assert args.command == ["cmd", "--agent", "x", "--", "-v"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["key", "anthropic"],
        ["lease", "acquire", "anthropic"],
        ["lease", "renew", "x"],
        ["lease", "revoke", "x"],
        ["lease", "list"],
        ["lease", "watch", "anthropic"],
        ["exec", "anthropic", "--", "true"],
        ["health"],
    ],
)
def test_without_a_broker_it_is_3_and_one_line(home: Path, arguments: list[str]) -> None:
    """The line names the address that did not answer."""
    done = equabot(home, *arguments, EQUABOT_LISTEN_HEALTH="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (3, "")
    where = "127.0.0.1:1" if arguments == ["health"] else f"unix:{home}/run/"
    assert done.stderr.startswith(f"equabot: no broker answers at {where}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["key", "anthropic"], ["serve"], ["models", "status"], ["lease", "list"], ["health"]])
def test_a_configuration_that_is_refused_is_64_with_every_fault(home: Path, command: list[str]) -> None:
    """All of them at once, so that one round of corrections is enough."""
    (home / "equabot.yaml").write_text("requird: [anthropic]\nleases: {default_ttl: soon}\n")
    done = equabot(home, *command)
    assert (done.returncode, done.stdout) == (64, "")
    faults = done.stderr.splitlines()
    assert len(faults) == 2
    assert "requird" in faults[0]
    assert "leases.default_ttl" in faults[1]


def test_a_gateway_without_envoy_is_refused_clearly(home: Path) -> None:
    """With what to install, or to set."""
    (home / "equabot.yaml").write_text("gateway: {envoy: no-such-envoy}\n")
    ports = {f"EQUABOT_LISTEN_{name}": f"127.0.0.1:{free_port()}" for name in ("HEALTH", "METRICS")}
    done = equabot(home, "serve", "--gateway", **ports)  # the default ports may be a running broker's
    assert done.returncode == 1
    assert "program 'no-such-envoy' does not exist" in done.stderr
    assert "install Envoy, or set gateway.envoy" in done.stderr


@pytest.mark.parametrize("word", [CANARY, f"--token={CANARY}", f"--agent={CANARY}"])
@pytest.mark.parametrize("command", [["models", "auth", "paste-token", "--provider", "anthropic"], ["models", "status"]])
def test_a_credential_is_not_an_argument(command: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All users of the machine can read it there. It is refused in any position, and not repeated."""
    code = main([*command, word])
    captured = capsys.readouterr()
    assert (code, captured.out) == (64, "")
    assert "standard input" in captured.err
    assert "canary" not in captured.err.lower()


def test_what_is_not_understood_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a secret; the names of options are not."""
    assert main(["lease", "list", "hunter2", "--tokn=hunter2"]) == 64
    assert main(["lease", "acquire", "anthropic", "--ttl", "hunter2-hunter2-hunter2"]) == 64
    told = capsys.readouterr().err
    assert "unrecognized arguments: --tokn\n" in told
    assert "hunter2" not in told


def test_an_address_that_is_none_is_64(home: Path) -> None:
    """Before the broker is asked."""
    done = equabot(home, "key", "anthropic", EQUABOT_BROKER_ADDRESS="broker.example.com:443")
    assert done.returncode == 64
    assert "broker.example.com:443" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(home: Path) -> None:
    """`equabot … | head -1`: no traceback, and the code that other programs have."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, "-m", "equabot_broker", "--help"], env=alone(home), stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(60)) == ("", 141)


def test_a_full_disk_is_one_line(home: Path) -> None:
    """The requested output was lost, so the command fails."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "equabot_broker", "models", "status"],
            env=alone(home),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "equabot: No space left on device\n")


FAULTY = f"""
import sys
from equabot_cli import main
from equabot_cli import key
def broken(args):
    secret = "{CANARY}"
    raise ValueError(secret)
key.run = broken
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("debug", "lines"), [("", 1), ("1", 3)])
def test_a_defect_of_ours_shows_no_value(home: Path, debug: str, lines: int) -> None:
    """Its type, and where it was raised for those who ask; never its text, which may hold anything."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTY, "key", "anthropic"],
        env=alone(home) | {"EQUABOT_DEBUG": debug},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("equabot: internal error: ValueError")
    assert len(done.stderr.splitlines()) == lines
    assert "canary" not in done.stderr.lower()


INTERRUPTED = """
import os, signal, sys
from equabot_cli import main
from equabot_cli import key
key.run = lambda args: os.kill(os.getpid(), signal.SIGINT)
sys.exit(main.main(sys.argv[1:]))
"""


def test_ctrl_c_is_130_without_a_word(home: Path) -> None:
    """128 and the number of the signal, as shells have it."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "key", "x"], env=alone(home), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize(
    ("command", "closed", "code", "said"),
    [
        (["models", "status", "--plain"], "HOME", 0, ""),
        (["key", "anthropic"], "HOME", 3, "no broker answers"),
        (
            ["key", "anthropic"],
            "EQUABOT_HOME",
            64,
            "equabot.yaml: cannot be read (Permission denied); let the",
        ),
        (["agent", "list"], "EQUABOT_HOME", 64, "equabot.yaml: cannot be read (Permission denied); let the"),
    ],
)
def test_a_home_of_another_user_is_not_a_traceback(host: Host, command: list[str], closed: str, code: int, said: str) -> None:
    """As after `su` or in a CI job, where HOME may still be root's."""
    mine = Path(tempfile.mkdtemp())
    mine.chmod(0o755)
    (mine / "equabot.yaml").touch()
    environ = dict.fromkeys(("HOME", "EQUABOT_HOME", "EQUABOT_RUN_DIR"), str(mine))
    host.run(*command, **environ)  # now its modules are imported: Python itself may be closed to the other user
    (mine / "equabot.yaml").unlink()
    os.seteuid(54322)
    try:
        done = host.run(*command, **environ | {closed: str(host.home)})
    finally:
        os.seteuid(0)
        shutil.rmtree(mine)
    assert (done.code, said in done.err) == (code, True), done.err


def test_a_command_is_ended_before_the_broker_where_memory_runs_out() -> None:
    """K7: commands run in the broker's container, and count against its limit."""
    code = (
        "from pathlib import Path; from equabot_cli.main import main; main(['config', 'check', '--config', '/nowhere']);"
        " print('score', Path('/proc/self/oom_score_adj').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[-2:] == ["score", "1000"]


def test_the_command_line_imports_grpc_only_for_a_call() -> None:
    """gRPC reads its tracing variables when it is imported: `configure_log` has removed them by then."""
    for module in ("equabot_cli.main", "equabot_broker.cli.main"):
        code = f"import {module}, sys; sys.exit(any(name in sys.modules for name in ('grpc', 'equabot_client')))"
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0, module
