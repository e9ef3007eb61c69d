"""Exit codes, and the failures that end a command with one line."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final


class Exit(IntEnum):
    """What `equabot` exits with, where a command's own contract says nothing else."""

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
"""For a command that has no exit codes of its own."""


class Failure(Exception):
    """Ends the command: the message goes to standard error, the code to the caller. Never a secret in either."""

    def __init__(self, message: str, *, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
