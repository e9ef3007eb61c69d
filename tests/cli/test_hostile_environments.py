"""F16, P20: no command falls, whatever terminal, home and streams it is given. Every command of the command line is tried."""

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from equabot_broker.cli.main import PROGRAM
from equabot_cli.main import command_line, main
from tests.fakes.host import EQUABOT, KEY

BROKEN_PIPE = 141
_POSITIONALS = {"FILE": "/nonexistent", "AGENT": "main", "PROVIDER…": "anthropic"}
_OPTIONS = {"--provider": "anthropic", "--method": "api-key", "--profile-id": "anthropic:x"}
_FOREVER = {("serve",), ("dashboard",)}


def commands() -> Iterator[tuple[str, ...]]:
    """Every command with what it needs, but for those that do not end."""
    for words, leaf in _leaves(command_line(PROGRAM), ()):
        if words not in _FOREVER:
            yield (*words, *_needed(leaf), *(["--", "true"] if words == ("exec",) else []))
    yield ("models", "status", "--json")
    yield ("models", "status", "--plain")
    yield ("models", "status", "--check")
    yield ("--help",)
    yield ("--version",)


def _leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield words, parser
    for action in below:
        for name, one in action.choices.items():
            yield from _leaves(one, (*words, name))


def _needed(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings:
            if action.nargs not in ("?", "*"):
                yield _POSITIONALS.get(str(action.metavar), "anthropic")
        elif action.required:
            yield from (action.option_strings[0], _OPTIONS.get(action.option_strings[0], "x"))


def run(words: Sequence[str], *, encoding: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """A command in this process, whose outputs take that encoding."""
    out, err = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patch:
        for name in os.environ:
            patch.delenv(name)
        for name, value in {"PATH": os.defpath, "HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
        patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        return code, out.getvalue().decode(encoding), err.getvalue().decode(encoding)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a key, whose mask has a character that not every terminal has, and a name that no terminal has."""
    (tmp_path / ".equabot").mkdir()
    (tmp_path / ".equabot/.env").write_text(f"ANTHROPIC_API_KEY={KEY}\nOPENAI_API_KEY=größer\n")
    return tmp_path


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_no_command_falls_over_a_terminals_encoding(
    words: Sequence[str], encoding: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: what a terminal lacks is written plainly; JSON escapes it."""
    code, out, err = run(words, encoding=encoding, home=home, monkeypatch=monkeypatch)
    assert "internal error" not in err
    assert code in (0, 1, 2, 3, 64)
    if "--json" in words and code == 0:
        assert json.loads(out)


def test_a_mask_is_written_plainly(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P20: as three full stops where the terminal has no other, and as it is elsewhere."""
    plain = run(["models", "status"], encoding="ascii", home=home, monkeypatch=monkeypatch)
    whole = run(["models", "status"], encoding="utf-8", home=home, monkeypatch=monkeypatch)
    assert plain[:2] == (whole[0], whole[1].replace("…", "..."))
    assert "…" in whole[1]


@pytest.mark.parametrize("words", [["models", "status"], ["config", "check"], ["--help"], ["doctor"], ["key", "anthropic"]])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| true", ">/dev/full"])
def test_no_command_falls_over_a_closed_stream(words: Sequence[str], closed: str, home: Path) -> None:
    """F16: as other tools: a code, and no traceback; nothing is written where it does not belong."""
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {closed}', "bash", *EQUABOT, *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not any(word in done.stderr for word in ("Traceback", "internal error", "Exception ignored")), done.stderr
    assert done.returncode in (0, 1, 2, 3, BROKEN_PIPE)
    if closed in (">&-", ">/dev/full") and words != ["key", "anthropic"]:
        assert done.returncode != 0


@pytest.mark.parametrize(
    "words", [["models", "status"], ["config", "check"], ["doctor"], ["key", "anthropic"], ["lease", "list"]]
)
def test_no_command_falls_without_a_home(words: Sequence[str], tmp_path: Path) -> None:
    """F16: HOME is not set, and the system does not know the user."""
    main = "from equabot_cli.main import main; sys.exit(main(sys.argv[1:]))"
    program = f"import os, sys; os.path.expanduser = lambda p: p; {main}"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={"PATH": os.environ["PATH"], "EQUABOT_RUN_DIR": str(tmp_path / "run"), "EQUABOT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "internal error" not in done.stderr
    assert done.returncode in (0, 1, 3), done.stderr
