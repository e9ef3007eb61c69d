"""Results of a probe: the broker sends a small request to find out whether a provider accepts a credential."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a provider answered a probe."""

    OK = "ok"
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    BILLING = "billing"
    TIMEOUT = "timeout"
    FORMAT = "format"
    UNKNOWN = "unknown"
    NO_MODEL = "no_model"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A verdict and its reason. The reason repeats nothing of the answer's text.

    `sure`: every request with this credential would get the same answer.
    """

    verdict: Verdict
    reason: str = ""
    sure: bool = True
