"""How a vendor answered, and what is counted of it."""

import pytest

from equabot_broker.domain.answers import ProviderAnswer, wait
from equabot_broker.domain.cooldowns import Outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.OK),
        (101, Outcome.OK),
        (201, Outcome.OK),
        (304, Outcome.OK),
        (400, None),
        (401, Outcome.AUTH),
        (402, Outcome.BILLING),
        (403, Outcome.AUTH),
        (404, None),
        (408, Outcome.TIMEOUT),
        (413, None),
        (422, None),
        (429, Outcome.RATE_LIMIT),
        (500, None),
        (502, None),
        (503, None),
        (504, Outcome.TIMEOUT),
        (529, Outcome.RATE_LIMIT),
        (0, None),
    ],
)
def test_a_status_counts_as(status: int, outcome: Outcome | None) -> None:
    """What another credential would have been told as well counts as nothing; nor does that whoever asked has gone."""
    assert ProviderAnswer(status=status).outcome is outcome


def test_503_with_retry_after_counts_as_a_rate_limit() -> None:
    """503 alone may be anything."""
    assert ProviderAnswer(status=503, retry_after=3.0).outcome is Outcome.RATE_LIMIT


@pytest.mark.parametrize("status", [0, 200, 503])
def test_a_vendor_that_fails_is_too_late(status: int) -> None:
    """Also one that had begun to answer."""
    assert ProviderAnswer(status=status, failed=True).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("status", [200, 401, 408, 429])
def test_answer_of_the_gateway_itself_is_not_counted(status: int) -> None:
    """An agent that is too slow, say."""
    assert ProviderAnswer(status=status, ours=True).outcome is None
    assert ProviderAnswer(status=status, ours=True, failed=True).outcome is Outcome.TIMEOUT


def test_only_401_is_surely_about_the_credential() -> None:
    """403 may be about what was asked."""
    assert ProviderAnswer(status=401).sure
    assert not ProviderAnswer(status=403).sure


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 18000 "}, 18000.0),
        ({"retry-after": "99999999999"}, 31 * 86400.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "90.25"}, 90.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after-ms": "0.0", "retry-after": "7"}, None),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1e9"}, None),
        ({"retry-after-ms": "99999999999"}, 31 * 86400.0),
    ],
)
def test_seconds_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or a date (RFC 9110, 10.2.3), or milliseconds; what makes no sense is nothing, and nothing is forever."""
    assert wait(headers, now=1_800_000_000.0) == seconds
