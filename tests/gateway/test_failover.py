"""What the vendor answers decides about the next request, and what an operator does about the very next one."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anthropic
import pytest

from equabot_client import admin
from tests.fakes.token_endpoint import TokenEndpoint
from tests.fakes.upstream import Answer, Upstream, refused
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import HELLO, MESSAGES, TWO_KEYS, Gateway
from tests.journeys.running import KEY, OTHER_KEY

ORDER = {"order": {"anthropic": ["anthropic:dotenv", "anthropic:dotenv-second"]}}


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(refused(401), id="401"),
        pytest.param(refused(402), id="402"),
        pytest.param(refused(429, retry_after="60"), id="429"),
        pytest.param(refused(529), id="529"),
    ],
)
def test_the_next_request_goes_to_the_next_profile(make_gateway: MakeGateway, vendor: Upstream, bad: Answer) -> None:
    """Same token, same lease, no code of the agent's. What came of the first one the agent is told as it was."""
    gateway = make_gateway(dotenv=TWO_KEYS, auth=ORDER).start()
    vendor.verdicts[KEY] = bad
    token = gateway.lease().secret.reveal()
    assert gateway.ask(token).status == bad.status
    gateway.wait_answered(1)
    assert [gateway.ask(token).status for _ in range(3)] == [200] * 3
    assert [request.secret() for request in vendor.received] == [KEY, *[OTHER_KEY] * 3]
    assert [used["status"] for used in gateway.events("used")][:1] == [bad.status]
    assert [moved["profile"] for moved in gateway.events("moved")] == ["anthropic:dotenv-second"]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(refused(401), id="401"),
        pytest.param(refused(429, retry_after="60"), id="429"),
        pytest.param(refused(429), id="429 without a wait"),
    ],
)
def test_a_refusal_counts_although_the_agent_reads_only_its_head(
    make_gateway: MakeGateway, vendor: Upstream, bad: Answer
) -> None:
    """The body has not ended when the agent disconnects."""
    gateway = make_gateway(dotenv=TWO_KEYS, auth=ORDER).start()
    end = threading.Event()
    vendor.verdicts[KEY] = Answer(bad.status, bad.headers, chunks=[b"{", end, b"}"])
    token = gateway.lease().secret.reveal()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    headers = {"content-type": "application/json", "x-api-key": token}
    connection.request("POST", MESSAGES, body=json.dumps(HELLO), headers=headers)
    answer = connection.getresponse()
    answer.close()
    connection.close()
    assert answer.status == bad.status
    gateway.wait_answered(1)
    end.set()
    assert gateway.ask(token).status == 200
    assert vendor.received[-1].secret() == OTHER_KEY


def test_where_there_is_no_other_profile_the_vendor_is_asked_again(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """A profile in cooldown is better than none: what the vendor says, and when to come again, is passed on."""
    gateway = make_gateway().start()
    vendor.verdicts[KEY] = refused(429, retry_after="600")
    token = gateway.lease().secret.reveal()
    for _ in range(2):
        told = gateway.ask(token)
        assert (told.status, told.reason, told.headers["retry-after"]) == (429, "", "600")
        gateway.wait_answered(len(vendor.received))
    assert len(vendor.received) == 2


def test_a_key_that_the_vendor_has_rejected_is_not_shown_again(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """The gateway says so itself, in the vendor's words for it."""
    gateway = make_gateway().start()
    vendor.accepted = set()
    token = gateway.lease().secret.reveal()
    assert gateway.ask(token).status == 401
    gateway.wait_answered(1)
    told = gateway.ask(token)
    assert (told.status, told.reason) == (503, "NO_USABLE_PROFILE")
    assert told.json()["error"]["type"] == "overloaded_error"
    assert len(vendor.received) == 1


def test_a_key_that_is_rejected_is_told_by_health_and_replaced_by_the_next_one_in_the_file(
    make_gateway: MakeGateway, vendor: Upstream
) -> None:
    """What came through the gateway counts like what an agent reports; a rotation ends it, for the same token."""
    gateway = make_gateway().start(service="provider/anthropic")
    vendor.accepted = {OTHER_KEY}
    token = gateway.lease().secret.reveal()
    assert gateway.ask(token).status == 401
    gateway.wait_healthy("provider/anthropic", serving=False)
    gateway.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
    gateway.wait_healthy("provider/anthropic")
    assert gateway.ask(token).status == 200


def test_a_login_that_the_vendor_calls_expired_is_refreshed_once_for_all(
    make_gateway: MakeGateway, vendor: Upstream, tmp_path: Path
) -> None:
    """Whoever asks meanwhile waits, and is served with the new token: nobody is refused, and one refresh is all it takes."""
    with TokenEndpoint(tmp_path / "ledger", life=3600.0) as endpoint:
        acme = {"base_url": vendor.url, "token_url": endpoint.url, "client_id": "equabot-test", "requests": ["* /**"]}
        gateway = make_gateway(providers={"acme": acme}, dotenv="")
        login = endpoint.login("me")
        store = gateway.home / "agents/main/agent/auth-profiles.json"
        store.parent.mkdir(parents=True)
        store.write_text(json.dumps({"version": 1, "profiles": {"acme:me": {"type": "oauth", "provider": "acme"} | login}}))
        store.chmod(0o600)
        gateway.start(service="provider/acme")
        token = gateway.lease("acme").secret.reveal()
        vendor.verdicts[login["access"]] = refused(401)
        endpoint.faults, endpoint.slowness = ["slow"], 0.5
        assert gateway.ask("", "/acme/v1/messages", authorization=f"Bearer {token}").status == 401
        gateway.wait_answered(1)
        with ThreadPoolExecutor(16) as agents:
            asked = [agents.submit(gateway.ask, "", "/acme/v1/messages", authorization=f"Bearer {token}") for _ in range(16)]
            assert {one.result().status for one in asked} == {200}
        presented = [entry for entry in endpoint.ledger() if entry.event == "presented"]
        assert [entry.verdict for entry in presented] == ["redeemed"]
        assert {request.secret() for request in vendor.received[1:]} == {presented[0].access}


def test_a_revoked_lease_is_over_with_the_next_request(gateway: Gateway, vendor: Upstream) -> None:
    """C8: once the operator has the answer that it is revoked. What is under way is cut, or withheld if it had not begun."""
    lease = gateway.lease()
    token = lease.secret.reveal()
    going_on = threading.Event()
    vendor.answers.append(Answer(headers={"content-type": "text/plain"}, chunks=[b"begun", going_on, b", done"]))
    with ThreadPoolExecutor(1) as agent, admin.connect(str(gateway.socket("admin"))) as operator:
        under_way = agent.submit(gateway.ask, token)
        gateway.wait_for(lambda: len(vendor.received) == 1)
        assert operator.revoke_leases(lease_id=lease.id) == 1
        assert (gateway.ask(token).status, len(vendor.received)) == (401, 1)
        with suppress(http.client.IncompleteRead, ConnectionError):
            assert under_way.result().reason == "LEASE_NOT_FOUND"
        going_on.set()


def test_a_lease_goes_to_the_profile_that_was_asked_for_and_to_no_other(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """Who names a profile wants that one's answer, whatever it is."""
    gateway = make_gateway(dotenv=TWO_KEYS).start()
    vendor.verdicts[KEY] = refused(429, retry_after="60")
    token = gateway.lease("anthropic:dotenv").secret.reveal()
    assert [gateway.ask(token).status] == [429]
    gateway.wait_answered(1)
    assert gateway.ask(token).status == 429
    assert {request.secret() for request in vendor.received} == {KEY}


@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("status", [429, 503, 529])
def test_no_sdk_sleeps_while_another_profile_is_ready(
    make_gateway: MakeGateway, vendor: Upstream, status: int, header: str
) -> None:
    """C20: the agent is asked to wait for a second; the profile waits as long as the vendor has said."""
    gateway = make_gateway(dotenv=TWO_KEYS, auth=ORDER).start()
    vendor.verdicts[KEY] = Answer(status, {header: "600" if header == "retry-after" else "600000"}, b"{}")
    token = gateway.lease().secret.reveal()
    before = datetime.now(UTC)
    told = gateway.ask(token)
    assert (told.status, told.headers["retry-after"], "retry-after-ms" in told.headers) == (status, "1", False)
    gateway.wait_answered(1)
    assert gateway.ask(token).status == 200
    with gateway.connect() as broker:
        [cooling] = [profile for profile in broker.list_profiles("anthropic") if profile.id == "anthropic:dotenv"]
    assert cooling.cooldown_until is not None
    assert cooling.cooldown_until - before > timedelta(seconds=500)
    # Nor does the last one say less than the vendor, once none is left.
    vendor.verdicts[OTHER_KEY] = Answer(status, {"retry-after": "700"}, b"{}")
    assert gateway.ask(token).headers["retry-after"] == "700"


def test_an_unmodified_sdk_meets_the_next_profile_at_once(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """C20: with its own retries and the vendor's own words."""
    gateway = make_gateway(dotenv=TWO_KEYS, auth=ORDER).start()
    vendor.verdicts[KEY] = refused(429, retry_after="59")
    token = gateway.lease().secret.reveal()
    with anthropic.Anthropic(api_key=token, base_url=f"{gateway.url}/anthropic", max_retries=1, timeout=60) as client:
        said = client.with_raw_response.messages.create(
            model="claude", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )
    assert said.retries_taken == 1
    assert [request.secret() for request in vendor.received] == [KEY, OTHER_KEY]
