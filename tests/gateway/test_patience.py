"""What an agent is asked to wait for when another profile is ready, in whatever form its vendor asks for patience."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.fakes.upstream import Answer, Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import TWO_KEYS
from tests.gateway.test_failover import ORDER
from tests.journeys.running import KEY

DATE = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)


@pytest.mark.parametrize(
    "asked",
    [
        {"retry-after": DATE},
        {"retry-after": "45.5"},
        {"retry-after": "600, 600"},
        {"retry-after-ms": "45000.5", "retry-after": "46"},
        {"retry-after": "600", "x-should-retry": "false"},
    ],
    ids=["a date", "decimals", "said twice", "both headers", "final"],
)
def test_no_form_of_a_wait_keeps_an_agent_from_the_next_profile(
    make_gateway: MakeGateway, vendor: Upstream, asked: Mapping[str, str]
) -> None:
    """C20: it is asked to wait for a second and nothing says that asking again is no use; the next request is served."""
    gateway = make_gateway(dotenv=TWO_KEYS, auth=ORDER).start()
    vendor.verdicts[KEY] = Answer(429, dict(asked), b"{}")
    token = gateway.lease().secret.reveal()
    told = gateway.ask(token)
    assert (told.status, told.headers["retry-after"]) == (429, "1")
    assert not {"retry-after-ms", "x-should-retry"} & told.headers.keys()
    gateway.wait_answered(1)
    assert gateway.ask(token).status == 200
