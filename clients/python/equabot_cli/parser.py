"""The argument parser of every command: help with exit codes and examples, and errors that name the nearest word."""

import sys
from argparse import Action, ArgumentParser
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from equabot_cli.exits import NO_EXITS, Exit

_COMMAND: Final = "COMMAND"


class Parser(ArgumentParser):
    """An argument parser that exits with 64 on a usage error. `examples` are whole command lines. `exits` are the exit codes
    of a command that defines its own, with their meaning. The help shows both. `absent` are commands that exist only in the
    broker's package, if that is not installed."""

    def __init__(
        self,
        *,
        examples: Sequence[str] = (),
        exits: Mapping[int, str] = NO_EXITS,
        absent: Collection[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options, add_help=False)
        self.examples = tuple(examples)
        self.exits = exits
        self._absent = absent
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def format_help(self) -> str:
        codes = [f"  {code:<3}  {meaning}" for code, meaning in sorted(self.exits.items())]
        parts = (["exit codes:", *codes], ["examples:", *(f"  {example}" for example in self.examples)])
        return "\n".join((super().format_help(), *("\n".join((*part, "")) for part in parts if len(part) > 1)))

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: {_without_secrets(message)}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses an unknown argument here, and not in the parser above: only this parser knows its own options."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"{' '.join(['unrecognized arguments:', *_options(unknown)])}{self._meant(unknown)}")
        return parsed, unknown

    def _check_value(self, action: Action, value: Any) -> None:
        """Refuses a command that does not exist. argparse would list all commands and none that is near."""
        if action.metavar != _COMMAND or action.choices is None or value in action.choices:
            super()._check_value(action, value)
            return
        if value in self._absent:
            self.error(
                f"{value!r} is a command of the package equabot-broker, which is not installed here. Run it where the broker is"
                " installed"
            )
        near = _suggestion(value, (*action.choices, *self._absent))
        self.error(f"{value!r} is not a command{near or f'; `{self.prog} --help` lists the commands'}")

    def _meant(self, unknown: Sequence[str]) -> str:
        known = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
        written = (name.lstrip("-") for name in _options(unknown))
        return next(filter(None, (_suggestion(name, known, prefix="--") for name in written)), "")


def _suggestion(written: str, known: Collection[str], *, prefix: str = "") -> str:
    from equabot_cli.suggestions import nearest  # noqa: PLC0415

    near = nearest(written, known)
    return f"; did you mean {prefix}{near}?" if near else ""


def _options(words: Sequence[str]) -> Iterator[str]:
    """The names of the unknown options. A value and a free word may be a secret, and are not shown."""
    from equabot_cli.masking import looks_secret  # noqa: PLC0415

    names = [word.partition("=")[0] for word in words if word.startswith("-")]
    yield from [name for name in names if not looks_secret(name)] or ["(not shown)"]


def _without_secrets(message: str) -> str:
    """The error without words that could be a secret: argparse repeats what it does not understand."""
    from equabot_cli.masking import looks_secret  # noqa: PLC0415

    return " ".join("(not shown)" if looks_secret(word.strip("'\"")) else word for word in message.split(" "))
