"""Exit codes, and the failures that end a command with one line."""

from enum import IntEnum


class Exit(IntEnum):
    """What `equabot` exits with, where a command's own contract says nothing else."""

    DONE = 0
    FAILED = 1
    NO_BROKER = 3
    USAGE = 64
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Failure(Exception):
    """Ends the command: the message goes to standard error, the code to the caller. Never a secret in either."""

    def __init__(self, message: str, *, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
