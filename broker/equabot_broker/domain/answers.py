"""The answer of a vendor to a request through the gateway, and its meaning for the credential.

The body of the answer is not read. A vendor that reports an empty account with status 400 is therefore not recognised: the
answer counts as a malformed request.
"""

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
    """The answer to one request.

    `status` is the HTTP status, or 0 without an answer. `ours`: the gateway itself answered. `failed`: the vendor could not
    be reached, broke the connection or was too late. `seconds` is the time from the first byte of the request to the last
    byte of the answer; `began` is the instant of that first byte (seconds since the epoch). `sent` and `received` are the
    sizes of both bodies in bytes.
    """

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
        """The outcome to count, or None if the answer does not depend on the credential."""
        if self.failed:
            return Outcome.TIMEOUT
        if self.ours:
            return None
        if self.status == 503 and self.retry_after is not None:
            return Outcome.RATE_LIMIT
        return Outcome.OK if 100 < self.status < 400 else _BY_STATUS.get(self.status)

    @property
    def doubts_client(self) -> bool:
        """Whether the vendor may have refused the client program: the status is 400, as for a malformed request."""
        return self.status == 400 and not self.ours and not self.failed

    @property
    def sure(self) -> bool:
        """Whether AUTH is about the credential. A 403 may be about the request: it must not disable the key for all agents."""
        return self.status != 403


def wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds of `retry-after-ms`, or else of `retry-after`; None without them. Names of headers are in lower case."""
    if not headers:
        return None
    precise = headers.get("retry-after-ms", "").strip()
    if _MILLISECONDS.fullmatch(precise):
        return min(float(precise) / 1000, _LONGEST_WAIT) or None
    return seconds_to_wait(headers.get("retry-after", ""), now=now, longest=_LONGEST_WAIT) or None
