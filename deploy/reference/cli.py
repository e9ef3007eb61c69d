"""`cli.md`: every command of `equabot`, from its argument parser."""

import argparse
from collections.abc import Iterator
from typing import Final

from pages import code, literal, page, sentence, table

from equabot_broker.cli.main import PROGRAM
from equabot_cli.exits import MEANINGS
from equabot_cli.main import command_line
from equabot_cli.parser import Parser

ABOUT: Final = """\
`equabot COMMAND --help` prints the same. Secrets are read from a prompt or from standard input, never from an argument.
The environment variables are in [Configuring the broker](../configure.md#location-and-precedence)."""
USUAL: Final = (
    "A command without a table of its own exits with these codes, and any other command does where its table says nothing."
)


def write() -> str:
    """The page."""
    commands = list(_commands(command_line(PROGRAM)))
    index = [(f"[`{parser.prog}`](#{parser.prog.replace(' ', '-')})", sentence(about)) for parser, about in commands]
    return page(
        "Command line",
        ABOUT,
        table(("command", "what it does"), index),
        f"## Exit codes\n\n{USUAL}",
        table(("code", "meaning"), ((str(int(number)), sentence(meaning)) for number, meaning in MEANINGS.items())),
        *(part for parser, about in commands for part in _command(parser, about)),
    )


def _commands(parser: Parser) -> Iterator[tuple[Parser, str]]:
    """The commands that can be run, with the line that the list of commands has for each."""
    for group in _groups(parser):
        about = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, below in group.choices.items():
            if any(_groups(below)):
                yield from _commands(below)
            else:
                yield below, about[name]


def _groups(parser: Parser) -> Iterator["argparse._SubParsersAction[Parser]"]:
    return (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _command(parser: Parser, about: str) -> Iterator[str]:
    if not parser.examples:
        raise SystemExit(f"{parser.prog}: its parser needs examples")
    yield f"## {parser.prog}"
    yield "\n\n".join(_shown(part) for part in (parser.description or sentence(about)).strip().split("\n\n"))
    yield code(_synopsis(parser))
    rows = [(_named(action), _help(action)) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    yield table(("argument", "meaning"), rows) if rows else ""
    if parser.exits:
        yield table(("exit code", "meaning"), ((str(number), sentence(meaning)) for number, meaning in parser.exits.items()))
    yield "Example:" if len(parser.examples) == 1 else "Examples:"
    yield code("\n".join(parser.examples), "sh")


def _shown(paragraph: str) -> str:
    """A paragraph in which the page shows `<run_dir>` as it is."""
    return " ".join(paragraph.split()).replace("<", "\\<")


def _synopsis(parser: Parser) -> str:
    if parser.usage:
        return parser.usage
    words = [_word(action) for action in sorted(parser._actions, key=lambda action: not action.option_strings)]
    return " ".join([parser.prog, *filter(None, words)])


def _word(action: argparse.Action) -> str:
    if isinstance(action, argparse._HelpAction):
        return ""
    if action.option_strings:
        word = " ".join(filter(None, (action.option_strings[-1], _value(action))))
        return word if action.required else f"[{word}]"
    return {"?": "[{}]", "+": "{0} [{0} ...]"}.get(str(action.nargs), "{}").format(_value(action))


def _named(action: argparse.Action) -> str:
    if not action.option_strings:
        return literal(_value(action))
    shown = ", ".join(action.option_strings)
    return literal(" ".join(filter(None, (shown, _value(action)))))


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _help(action: argparse.Action) -> str:
    required = "Required. " if action.option_strings and action.required else ""
    return required + sentence(_shown(action.help or ""))
