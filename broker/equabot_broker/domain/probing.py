"""What a provider says of a credential that was tried on it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a provider makes of a credential."""

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
    """A verdict, and a sentence in our own words: nothing of an answer's text is repeated. `sure`: any request with this
    credential would be answered so."""

    verdict: Verdict
    reason: str = ""
    sure: bool = True
