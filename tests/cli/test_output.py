"""What a terminal and what a pipe gets."""

import json
from contextlib import redirect_stdout

import pytest

from equabot_broker.domain.instants import rfc3339
from equabot_cli import output
from equabot_cli.output import Cell, Style
from tests.fakes.terminal import Terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


ROWS = [("anthropic:env", Cell("ok", Style.GOOD), "in 3h"), ("openai:work", Cell("expired", Style.BAD), "")]


def test_a_pipe_gets_columns_parted_by_tabs_without_header_and_colour(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain text: what awk and grep want."""
    output.table(ROWS, header=("profile", "state", "expires"), indent=2)
    assert capsys.readouterr().out == "anthropic:env\tok\tin 3h\nopenai:work\texpired\n"


def test_a_terminal_gets_aligned_columns_a_header_and_colour(terminal: Terminal) -> None:
    """Alignment counts what is seen, not the escape sequences."""
    with redirect_stdout(terminal):
        output.table(ROWS, header=("profile", "state", "expires"), indent=2)
    plain = [
        "  \x1b[2mPROFILE\x1b[0m        \x1b[2mSTATE\x1b[0m    \x1b[2mEXPIRES\x1b[0m",
        "  anthropic:env  \x1b[32mok\x1b[0m       in 3h",
        "  openai:work    \x1b[31mexpired\x1b[0m",
    ]
    assert terminal.getvalue().splitlines() == plain


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_none_is_wanted(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """https://no-color.org: any text in NO_COLOR. The columns stay."""
    monkeypatch.setenv(name, value)
    with redirect_stdout(terminal):
        output.table(ROWS)
    assert terminal.getvalue() == "anthropic:env  ok       in 3h\nopenai:work    expired\n"


def test_an_empty_no_color_does_not_count(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://no-color.org: "when present and not an empty string"."""
    monkeypatch.setenv("NO_COLOR", "")
    with redirect_stdout(terminal):
        output.heading("Providers")
    assert terminal.getvalue() == "\x1b[1mProviders\x1b[0m\n"


def test_nothing_from_outside_moves_a_cursor_or_draws_a_line(terminal: Terminal) -> None:
    """A profile's name may come from a Secret that any user wrote."""
    with redirect_stdout(terminal):
        output.table([("anthropic:\x1b[2Jevil\r\n", "x\ty")])
        output.say("a\x07b\x9bc")
    assert terminal.getvalue() == "anthropic:�[2Jevil��  x�y\na�b�c\n"


def test_complaints_go_to_standard_error_under_the_programs_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for what was asked for."""
    output.complain("no broker\nanswers")
    assert capsys.readouterr() == ("", "equabot: no broker�answers\n")


def test_a_complaint_repeats_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    """It may quote what was typed, and a key may have been typed in the wrong place."""
    output.complain("agent 'sk-ant-api03-abcDEF012345' is not configured")
    assert capsys.readouterr().err == "equabot: agent '[redacted]' is not configured\n"


def test_a_document_is_json_and_keeps_its_letters(capsys: pytest.CaptureFixture[str]) -> None:
    """Labels hold an ellipsis, and it stays one."""
    output.document({"label": "sk-a…wxyz"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"label": "sk-a…wxyz"}
    assert "…" in out


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *[(0, "0s"), (0.4, "0s"), (59.6, "1m"), (61, "1m 1s"), (3600, "1h"), (11520, "3h 12m"), (90061, "1d 1h"), (-5, "0s")],
        *[(28798, "8h"), (365 * 86400 - 9, "365d"), (85980, "23h 53m"), (3540, "59m"), (86000, "23h 53m")],
    ],
)
def test_a_span_is_its_largest_two_units(seconds: float, shown: str) -> None:
    """What is smaller than the second of two neighbouring units is left out."""
    assert output.span(seconds) == shown


def test_a_span_has_no_gap() -> None:
    """An hour and five seconds: the seconds are no news."""
    assert output.span(3605) == "1h"


@pytest.mark.parametrize(("instant", "shown"), [(1300.0, "in 5m"), (1000.0, "in 0s"), (700.0, "5m ago")])
def test_instants_are_relative_to_now(instant: float, shown: str) -> None:
    """For people."""
    assert output.relative(instant, 1000.0) == shown


def test_instants_for_programs_are_rfc_3339_in_utc() -> None:
    """Milliseconds and Z."""
    assert rfc3339(1_795_000_000.25) == "2026-11-18T11:06:40.250Z"
