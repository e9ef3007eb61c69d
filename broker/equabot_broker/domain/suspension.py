"""Suspensions: an operator suspended an agent, which gets no credentials until it is resumed."""

from dataclasses import dataclass
from typing import Final

TOKENS_KEPT: Final = 1000
"""The number of token digests that one suspension keeps, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """A suspension of one agent: its start in seconds since the epoch, and the operator's reason.

    `tokens` are the SHA-256 digests of the lease tokens that the suspension ended. With them the gateway recognises a
    request of a suspended agent.
    """

    since: float
    reason: str = ""
    tokens: tuple[bytes, ...] = ()

    def with_tokens(self, tokens: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The tokens of this suspension and these, without duplicates. Only the newest are kept."""
        return tuple(dict.fromkeys((*self.tokens, *tokens)))[-TOKENS_KEPT:]
