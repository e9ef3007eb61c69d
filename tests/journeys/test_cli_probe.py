"""`models status --probe` beside a broker whose credentials the command line does not have."""

import json

from tests.fakes.upstream import Upstream
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY


def test_a_credential_of_the_brokers_own_environment_is_leased(make_broker: MakeBroker) -> None:
    """It is tried on the provider, and given back."""
    with Upstream() as upstream:
        config = f"providers: {{anthropic: {{base_url: '{upstream.url}'}}}}\n"
        broker = make_broker(credentials={"ANTHROPIC_API_KEY": KEY}, config=config).start()
        probes = json.loads(broker.run("models", "status", "--probe", "--json").stdout)["auth"]["probes"]
        assert [(one["profileId"], one["status"]) for one in probes] == [("anthropic:env", "ok")]
        assert [received.keys() for received in upstream.received] == [{"x-api-key": KEY}]
        assert broker.run("lease", "list").stdout == ""
