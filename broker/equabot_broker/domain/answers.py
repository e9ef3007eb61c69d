"""How a vendor answered a request that went through the gateway, and what that says of the credential. The answer's body is not
looked at: who tells of an empty account with 400 is taken for one that did not like the request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.backoff import seconds_to_wait
from equabot_broker.domain.cooldowns import Outcome

_BY_STATUS: Final = {
    401: Outcome.AUTH,
    402: Outcome.BILLING,
    403: Outcome.AUTH,
    408: Outcome.TIMEOUT,
    429: Outcome.RATE_LIMIT,
    504: Outcome.TIMEOUT,
    529: Outcome.RATE_LIMIT,
}
_LONGEST_WAIT: Final = 31 * 86400.0
_MILLISECONDS: Final = re.compile(r"[0-9]{1,11}(?:\.[0-9]{0,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAnswer:
    """`status` as in HTTP, 0 where none came; `ours`: it is the gateway's own; `failed`: the vendor was not reached, broke off
    or was too late, whatever the status. Durations in seconds, `seconds` from the request's first byte to the answer's last;
    `began` is when that first one came (seconds since the epoch); `sent` and `received` are the bytes of both bodies."""

    status: int
    ours: bool = False
    failed: bool = False
    retry_after: float | None = None
    seconds: float = 0.0
    began: float = 0.0
    sent: int = 0
    received: int = 0

    @property
    def outcome(self) -> Outcome | None:
        """What it is to be counted as; None: as nothing, for another credential would have been told the same."""
        if self.failed:
            return Outcome.TIMEOUT
        if self.ours:
            return None
        if self.status == 503 and self.retry_after is not None:
            return Outcome.RATE_LIMIT
        return Outcome.OK if 100 < self.status < 400 else _BY_STATUS.get(self.status)

    @property
    def doubts_client(self) -> bool:
        """Whether the vendor may have refused the client program: it does so with 400, as it refuses a malformed request."""
        return self.status == 400 and not self.ours and not self.failed

    @property
    def sure(self) -> bool:
        """Whether AUTH is about the credential. 403 may be about what was asked: one request for what a key may not do would
        otherwise take the key away from everybody."""
        return self.status != 403


def wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """How many seconds an answer asks to be left alone for: `retry-after-ms`, else `retry-after`; None: it asks for none. Names
    are lower case."""
    if not headers:
        return None
    precise = headers.get("retry-after-ms", "").strip()
    if _MILLISECONDS.fullmatch(precise):
        return min(float(precise) / 1000, _LONGEST_WAIT) or None
    return seconds_to_wait(headers.get("retry-after", ""), now=now, longest=_LONGEST_WAIT) or None
