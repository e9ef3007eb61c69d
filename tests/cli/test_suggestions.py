"""A mistyped command or option is answered with the nearest one; the help needs no option."""

import pytest

from equabot_broker.cli.main import PROGRAM
from equabot_cli import main as command_line
from equabot_cli.main import AGENT, main
from equabot_cli.program import AGENT_COMMANDS, BROKER_COMMANDS

CANARY = "sk-ant-api03-CANARYcanaryCANARY"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of a usage error."""
    assert main(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lese"], "equabot: 'lese' is not a command; did you mean lease?"),
        (["sevre"], "equabot: 'sevre' is not a command; did you mean serve?"),
        (["lease", "aquire", "anthropic"], "equabot lease: 'aquire' is not a command; did you mean acquire?"),
        (["models", "statsu"], "equabot models: 'statsu' is not a command; did you mean status?"),
        (["models", "auth", "ordr"], "equabot models auth: 'ordr' is not a command; did you mean order?"),
        (["help", "doktor"], "equabot: 'doktor' is not a command; did you mean doctor?"),
        (["lease", "list", "--jsn"], "equabot lease list: unrecognized arguments: --jsn; did you mean --json?"),
        (["key", "openai", "--agnet=x"], "equabot key: unrecognized arguments: --agnet; did you mean --agent?"),
        (["exec", "openai", "--delivry", "raw", "--", "env"],
         "equabot exec: unrecognized arguments: --delivry; did you mean --delivery?"),
        (["models", "status", "--chekc"], "equabot models status: unrecognized arguments: --chekc; did you mean --check?"),
    ],
)  # fmt: skip
def test_the_nearest_word_is_named(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """F17: at every level, and for the options of the command that was written."""
    assert refused(capsys, *arguments) == line


def test_a_word_that_is_near_to_none_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """F17: there is always a next step."""
    assert refused(capsys, "frobnicate") == "equabot: 'frobnicate' is not a command; `equabot --help` lists the commands"
    assert refused(capsys, "lease", "list", "--frobnicate") == "equabot lease list: unrecognized arguments: --frobnicate"


@pytest.mark.parametrize("arguments", [[CANARY], ["lease", CANARY], ["key", "openai", f"--{CANARY}"], ["key", "a", CANARY]])
def test_no_suggestion_repeats_a_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a credential is not shown."""
    assert main(arguments) == 64
    captured = capsys.readouterr()
    assert "CANARY" not in captured.out + captured.err


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_the_help_is_no_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """F17: `equabot` alone shows its commands."""
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert all(f"\n    {name}" in captured.out for name in PROGRAM.commands)


def test_the_help_of_a_command_is_that_of_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    """F17: `equabot help lease acquire`."""
    assert main(["help", "lease", "acquire"]) == main(["lease", "acquire", "--help"]) == 0
    first, second = capsys.readouterr().out.split("usage: ")[1:]
    assert first == second


def test_the_client_names_the_commands_of_the_broker() -> None:
    """The list in the client is the broker's."""
    assert set(BROKER_COMMANDS) == set(PROGRAM.commands) - set(AGENT_COMMANDS)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line of a machine without the broker's package."""
    monkeypatch.setattr(command_line, "installed", lambda: AGENT)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", BROKER_COMMANDS)
def test_without_the_broker_its_commands_are_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent's image has four commands; the others are not a typing error."""
    line = refused(capsys, name)
    assert line.startswith(f"equabot: {name!r} is a command of the package equabot-broker, which is not installed here")
    assert main(["--help"]) == 0
    assert name in capsys.readouterr().out.split("not installed here:")[1]
