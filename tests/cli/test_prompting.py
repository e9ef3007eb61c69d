"""Questions at a real pseudo-terminal, and secrets that do not show."""

import os
import subprocess
import sys

import pytest

from tests.fakes.terminal import Person

SECRET = "sk-ant-oat01-" + "s3cret-" * 12

ASKS = """
import sys
from equabot_cli.exits import Failure
from equabot_broker.cli import prompting
try:
    {0}
except Failure as failure:
    print("refused:", failure.message, failure.code)
"""
ENVIRON = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


def person(statement: str) -> Person:
    return Person([sys.executable, "-c", ASKS.format(statement)], environ=ENVIRON)


def test_a_question_has_a_default() -> None:
    """An empty line takes it."""
    with person("print('=', prompting.ask('Name', default='main'), prompting.ask('Other'))") as typing:
        typing.reads("Name [main]: ").types("")
        typing.reads("Other: ").types("  x ")
        typing.reads("= main x")
        assert typing.leaves() == 0


def test_a_choice_is_by_number_or_name() -> None:
    """What is neither is asked again."""
    with person("print('=', *(prompting.choose('Which', {'a': 'the first', 'b': ''}) for _ in range(3)))") as typing:
        typing.reads("1  a  the first").reads("2  b").reads("Which [a]: ").types("3").reads("Which [a]: ").types("2")
        typing.reads("Which [a]: ").types("b").reads("Which [a]: ").types("").reads("= b b a")


def test_yes_or_no() -> None:
    """Nothing else is taken; an empty line is the default."""
    with person("print('=', *(prompting.confirm('Sure?', default=False) for _ in range(3)))") as typing:
        typing.reads("(y/N): ").types("maybe").reads("(y/N): ").types("YES").reads("(y/N): ").types("n")
        typing.reads("(y/N): ").types("").reads("= True False False")


@pytest.mark.parametrize("length", [20, 4094, 4096, 9000, 60_000])
def test_a_secret_is_not_shown_however_long(length: int) -> None:
    """A terminal in line mode would cut it off at 4095 characters without a word."""
    value = (SECRET * (length // len(SECRET) + 1))[:length]
    with person("print('=', len(prompting.secret('Token').reveal()))") as typing:
        typing.reads("Token (not shown): ").types(value).reads(f"= {length}\n")
        assert typing.leaves() == 0
        assert value[:16] not in typing.seen


def test_mistakes_can_be_corrected() -> None:
    """Backspace, and Ctrl-U for all of it."""
    with person("print('=', prompting.secret('Token').reveal())") as typing:
        typing.reads("(not shown): ").types("wrong\x15rightt\x7f").reads("= right\n")


def test_what_is_pasted_behind_the_first_line_belongs_to_the_secret() -> None:
    """P5: a terminal wraps what it shows, so that a copy has several lines. No shell runs the rest, and the echo is back."""
    with person("print('=', repr(prompting.secret('Token').reveal())); print('then', prompting.ask('Next'))") as typing:
        typing.reads("(not shown): ").types("first\n  second\nrm -rf x").reads("= 'first\\n  second\\nrm -rf x'\n").reads(
            "Next: "
        ).types("typed")
        typing.reads("typed").reads("then typed")


def test_giving_up_stores_nothing() -> None:
    """Ctrl-D, or an empty line where a secret is wanted."""
    with person("prompting.secret('Token')") as typing:
        typing.reads("(not shown): ").types("\x04", enter=False).reads("refused: cancelled: nothing was stored 1")
    with person("prompting.secret('Token')") as typing:
        typing.reads("(not shown): ").types("").reads("refused: nothing was entered, and nothing was stored 1")
    with person("prompting.ask('Name')") as typing:
        typing.reads("Name: ").types("\x04", enter=False).reads("refused: cancelled: nothing was stored 1")


def test_ctrl_c_gives_the_echo_back() -> None:
    """The terminal is left as it was."""
    program = """import subprocess
    try:
        prompting.secret("Token")
    except KeyboardInterrupt:
        subprocess.run(["stty", "-a"])"""
    with person(program) as typing:
        typing.reads("(not shown): ").types("\x03", enter=False)
        assert typing.leaves() == 0
        assert "-echo " not in typing.seen
        assert "-icanon" not in typing.seen


def piped(content: bytes | None, statement: str = "print('=', prompting.secret('Token').reveal())") -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASKS.format(statement)],
        env=ENVIRON,
        input=content,
        stdin=subprocess.DEVNULL if content is None else None,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def test_without_a_terminal_standard_input_is_the_secret() -> None:
    """All of it; an empty one is refused with 64, for a script has forgotten something."""
    assert piped(b"value\n") == "= value\n\n"
    assert piped(b" \n").startswith("refused: standard input is empty")
    assert piped(None).rstrip().endswith("(token) 64")
