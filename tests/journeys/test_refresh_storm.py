"""An agent with a raw lease cannot make the broker spend refresh tokens."""

import json
from contextlib import suppress
from pathlib import Path

from equabot_client import EquabotError, Outcome
from tests.fakes.token_endpoint import TokenEndpoint
from tests.journeys.conftest import MakeBroker

CONFIG = "providers: {{acme: {{base_url: 'http://127.0.0.1:9', token_url: '{url}', client_id: equabot-test}}}}\n"


def test_reports_in_turn_are_no_storm_of_refreshes(make_broker: MakeBroker, tmp_path: Path) -> None:
    """S6: success and refusal, two hundred times on the newest token: one refresh token is spent, for less than a minute has
    passed. The login is rejected in between, and says when it is tried again."""
    with TokenEndpoint(tmp_path / "ledger", life=3600.0) as endpoint:
        broker = make_broker(config=CONFIG.format(url=endpoint.url))
        store = broker.home / "agents/main/agent/auth-profiles.json"
        store.parent.mkdir(parents=True)
        entry = {"type": "oauth", "provider": "acme"} | endpoint.login("me")
        store.write_text(json.dumps({"version": 1, "profiles": {"acme:me": entry}}))
        store.chmod(0o600)
        broker.start(service="provider/acme")
        with broker.connect() as agent:
            lease = agent.acquire("acme")
            for _ in range(200):
                with suppress(EquabotError):
                    agent.report(lease, Outcome.OK)
                    agent.report(lease, Outcome.AUTH)
                    lease = agent.renew(lease)
            (status,) = agent.list_profiles("acme")
        presented = [entry for entry in endpoint.ledger() if entry.event == "presented"]
    assert 1 <= len(presented) <= 2
    assert (status.state, status.retry_at is not None) == ("rejected", True)
