"""What one agent provokes through the gateway is that agent's: the others are served, and health says so."""

import json
from pathlib import Path

from equabot_client import Outcome, health
from equabot_client.errors import EquabotError
from tests.fakes.token_endpoint import TokenEndpoint
from tests.fakes.upstream import Upstream, refused
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import MESSAGES, TWO_KEYS, Gateway
from tests.journeys.running import KEY, OTHER_KEY

AGENTS = {"main": {}, "good": {"providers": ["*"]}}
ORDER = {"order": {"anthropic": ["anthropic:dotenv", "anthropic:dotenv-second"]}}
SERVICES = ("", "provider/anthropic", "profile/anthropic:dotenv")


def healthy(gateway: Gateway) -> list[bool | None]:
    return [health.check(service, address=gateway.health, timeout=5) for service in SERVICES]


def asked_by_agents(vendor: Upstream) -> list[str]:
    """The keys with which agents' requests came, without the broker's own."""
    return [request.secret() for request in vendor.received if request.headers.get("user-agent") != "equabot-broker"]


def test_a_refusal_that_one_agent_provokes_takes_the_key_from_no_other(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S4: the vendor answers 401 to one agent. That agent goes on with the next key, the other one with the same; health
    serves. The broker has asked the vendor itself."""
    gateway = make_gateway(dotenv=TWO_KEYS, auth=ORDER, agents=AGENTS).start()
    bad, good = (gateway.lease(agent=agent).secret.reveal() for agent in AGENTS)
    vendor.answers = [refused(401)]
    assert gateway.ask(bad).status == 401
    gateway.wait_answered(1)
    gateway.wait_for(lambda: any(request.path.endswith("/count_tokens") for request in vendor.received))
    assert [gateway.ask(token).status for token in (bad, good, bad, good)] == [200] * 4
    assert asked_by_agents(vendor) == [KEY, OTHER_KEY, KEY, OTHER_KEY, KEY]
    assert healthy(gateway) == [True] * 3
    assert {record["about"] for record in gateway.events("probed")} == {"auth"}


def test_a_key_that_is_dead_is_found_to_be_by_the_broker_itself(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S4: one agent meets it, and the broker's own request confirms it: nobody else has to meet it."""
    gateway = make_gateway(agents=AGENTS).start()
    bad, good = (gateway.lease(agent=agent).secret.reveal() for agent in AGENTS)
    vendor.accepted = set()
    assert gateway.ask(bad).status == 401
    gateway.wait_healthy("provider/anthropic", serving=False)
    assert (gateway.ask(good).status, gateway.ask(good).reason) == (503, "NO_USABLE_PROFILE")
    assert asked_by_agents(vendor) == [KEY]


def test_a_second_agents_refusal_confirms_the_first(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S4: where the broker cannot ask, for no small model of the provider is known."""
    provider = {"acme": {"base_url": vendor.url, "requests": ["POST /v1/messages"], "env": {"ACME_API_KEY": "api_key"}}}
    dotenv = "ACME_API_KEY=" + "acme-key" * 8 + "\n"
    gateway = make_gateway(dotenv=dotenv, agents=AGENTS, providers=provider).start(service="provider/acme")
    bad, good = (gateway.lease("acme", agent=agent).secret.reveal() for agent in AGENTS)

    def ask(token: str) -> int:
        return gateway.ask("", "/acme/v1/messages", authorization=f"Bearer {token}").status

    vendor.answers = [refused(401)]
    assert ask(bad) == 401
    gateway.wait_answered(1)
    assert (ask(bad), ask(good)) == (503, 200)
    assert health.check("provider/acme", address=gateway.health, timeout=5)
    vendor.answers = [refused(401)]
    assert ask(good) == 401
    gateway.wait_healthy("provider/acme", serving=False)


def test_one_request_that_is_too_large_disables_nothing(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S5: 402 for one request of one agent, while small ones succeed: both agents go on with the key, also where the broker
    may ask nothing itself."""
    gateway = make_gateway(agents=AGENTS, auth={"probe": False}).start()
    bad, good = (gateway.lease(agent=agent).secret.reveal() for agent in AGENTS)
    for _ in range(3):
        vendor.answers = [refused(402)]
        assert gateway.ask(bad).status == 402
        gateway.wait_answered(len(asked_by_agents(vendor)))
        assert (gateway.ask(good).status, gateway.ask(bad).status) == (200, 200)
        gateway.wait_answered(len(asked_by_agents(vendor)))
        assert healthy(gateway) == [True] * 3
    assert gateway.events("probed") == []


def test_an_agent_alone_is_not_disabled_by_one_402(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S5: the key cools down, and serves all the same where there is no other."""
    gateway = make_gateway().start()
    token = gateway.lease().secret.reveal()
    vendor.answers = [refused(402)]
    assert gateway.ask(token).status == 402
    gateway.wait_answered(1)
    assert gateway.ask(token).status == 200
    assert healthy(gateway) == [True] * 3


def test_refusals_and_successes_in_turn_are_no_storm_of_refreshes(
    make_gateway: MakeGateway, vendor: Upstream, tmp_path: Path
) -> None:
    """S6: through the gateway's log: forty refusals, each after a success, cost one refresh token, for less than a minute has
    passed."""
    with TokenEndpoint(tmp_path / "ledger", life=3600.0) as endpoint:
        acme = {
            "base_url": vendor.url,
            "token_url": endpoint.url,
            "client_id": "equabot-test",
            "requests": ["POST /v1/messages"],
        }
        gateway = make_gateway(providers={"acme": acme}, dotenv="")
        store = gateway.home / "agents/main/agent/auth-profiles.json"
        store.parent.mkdir(parents=True)
        entry = {"type": "oauth", "provider": "acme"} | endpoint.login("me")
        store.write_text(json.dumps({"version": 1, "profiles": {"acme:me": entry}}))
        store.chmod(0o600)
        gateway.start(service="provider/acme")
        token = gateway.lease("acme").secret.reveal()
        for _ in range(40):
            for answers in ([], [refused(401)]):
                vendor.answers = answers
                before = len(vendor.received)
                gateway.ask("", "/acme/v1/messages", authorization=f"Bearer {token}")
                gateway.wait_answered(len(vendor.received))
                if len(vendor.received) == before:
                    break
        presented = [entry for entry in endpoint.ledger() if entry.event == "presented"]
    assert 1 <= len(presented) <= 2


def test_nothing_is_gained_by_an_agent_that_lies_in_reports(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S4, S5: of raw leases, every outcome in turn, a hundred times: the other agent is served with the same key."""
    gateway = make_gateway(agents=AGENTS).start()

    good = gateway.lease(agent="good").secret.reveal()
    with gateway.connect() as liar:
        lease = liar.acquire("anthropic", delivery="raw")
        for turn in range(100):
            for outcome in (Outcome.OK, Outcome.RATE_LIMIT, Outcome.TIMEOUT, Outcome.BILLING, Outcome.AUTH)[turn % 2 :]:
                try:
                    liar.report(lease, outcome)
                except EquabotError:
                    lease = liar.acquire("anthropic", delivery="raw")
    assert gateway.ask(good, MESSAGES).status == 200
    assert healthy(gateway) == [True] * 3
