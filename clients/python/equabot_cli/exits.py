"""Exit codes, and the failure that ends a command with one line."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final


class Exit(IntEnum):
    """The exit codes of `equabot`, unless a command defines others."""

    DONE = 0
    FAILED = 1
    NO_BROKER = 3
    USAGE = 64
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: Final[Mapping[Exit, str]] = MappingProxyType(
    {
        Exit.DONE: "The command succeeded.",
        Exit.FAILED: "The command was refused or failed. One line on standard error says why.",
        Exit.NO_BROKER: "No broker answers.",
        Exit.USAGE: "The arguments or the configuration have a mistake.",
        Exit.INTERRUPTED: "Ctrl-C interrupted the command.",
        Exit.BROKEN_PIPE: "Standard output was closed.",
    }
)
NO_EXITS: Final[Mapping[int, str]] = MappingProxyType({})
"""The value for a command that defines no exit codes."""


class Failure(Exception):
    """Ends the command: the message goes to standard error, and the code is the exit code. The message never has a secret."""

    def __init__(self, message: str, *, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
