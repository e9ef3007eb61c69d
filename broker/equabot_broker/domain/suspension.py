"""A suspended agent: an operator has said that it gets nothing until it is resumed."""

from dataclasses import dataclass
from typing import Final

TOKENS_KEPT: Final = 1000
"""Digests of ended tokens that one suspension keeps at most, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """Since when (seconds since the epoch) an agent is suspended, and why, in the operator's words.

    `tokens` are the SHA-256 digests of the lease tokens that the suspension ended. By them the gateway knows a
    request of a suspended agent from one whose token never was.
    """

    since: float
    reason: str = ""
    tokens: tuple[bytes, ...] = ()

    def with_tokens(self, tokens: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The tokens of this suspension and these, without repetition, as many as are kept."""
        return tuple(dict.fromkeys((*self.tokens, *tokens)))[-TOKENS_KEPT:]
