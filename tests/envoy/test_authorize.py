"""External authorization as Envoy asks it: over the control socket, in Envoy's messages."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as pb
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub

from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.provider import Mode
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.envoy.authorize import AuthorizationServicer
from equabot_broker.rpc.server import control_server
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayRefused
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.logins import World, login
from tests.fakes.scripted_endpoint import UNREACHED, granted
from tests.rpc.serving import said

A, B = "anthropic:a", "anthropic:b"
KEY, OAUTH = "sk-ant-api03-canary-of-a", "sk-ant-oat01-canary-of-b"
BOTH = frozenset(Delivery)


@pytest.fixture
def engine() -> Engine:
    narrow = AgentPolicy(providers=frozenset({"anthropic"}), requests=("GET /v1/models*",))
    made = Engine(agents={"main": ANYTHING, "narrow": narrow}, deliveries=BOTH, order={"anthropic": (A, B)})
    made.put(profile(A, KEY), profile(B, OAUTH, mode=Mode.OAUTH), profile("google:g", "AIza-canary", mode=Mode.API_KEY))
    return made


class Gateway:
    """Envoy's part in a request: it asks, and does what the answer says."""

    def __init__(self, stub: Any, engine: Engine) -> None:
        self._stub = stub
        self._engine = engine

    def token(self, agent: str = "main", **asked: Any) -> str:
        return shown(
            self._engine.lease_service.acquire(
                agent, LeaseRequest(**{"provider": "anthropic", "delivery": "brokered", **asked})
            )
        )

    async def ask(
        self, headers: dict[str, str], path: str = "/anthropic/v1/messages", *, method: str = "POST", named: str | None = None,
        host: str = "127.0.0.1:8787", paths: str = "broker", timeout: float | None = 40.0, address: str = "",
    ) -> pb.CheckResponse:  # fmt: skip
        request = pb.CheckRequest()
        http = request.attributes.request.http
        http.method, http.path, http.host, http.protocol = method, path, host, "HTTP/1.1"
        http.headers.update({":method": method, ":path": path, ":authority": host, "user-agent": "sdk", **headers})
        request.attributes.context_extensions.update(provider=path.split("/")[1] if named is None else named, paths=paths)
        request.attributes.context_extensions["address"] = address
        found = await self._stub.Check(request, timeout=timeout)
        assert isinstance(found, pb.CheckResponse)
        return found

    async def passed(self, headers: dict[str, str], path: str = "/anthropic/v1/messages", **how: Any) -> dict[str, str]:
        """The headers that go on to the vendor."""
        response = await self.ask(headers, path, **how)
        assert response.WhichOneof("http_response") == "ok_response", response.denied_response.body
        going = dict(headers)
        for option in response.ok_response.headers:
            assert option.append_action == option.OVERWRITE_IF_EXISTS_OR_ADD
            going = {name: value for name, value in going.items() if name != option.header.key.lower()}
            if option.header.key != ":path":
                going[option.header.key.lower()] = option.header.value
        for name in response.ok_response.headers_to_remove:
            going.pop(name, None)
        return going

    async def refused(self, headers: dict[str, str], path: str = "/anthropic/v1/messages", **how: Any) -> tuple[int, str, Any]:
        """Status, reason, body."""
        response = await self.ask(headers, path, **how)
        assert response.WhichOneof("http_response") == "denied_response"
        assert response.status.code != 0
        denied = response.denied_response
        told = {option.header.key: option.header.value for option in denied.headers}
        assert "canary" not in str(response)
        return denied.status.code, told["x-equabot-reason"], json.loads(denied.body)


def shown(grant: Grant) -> str:
    assert grant.token is not None
    return grant.token.reveal()


@pytest.fixture
async def gateway(engine: Engine, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with serving(engine, tmp_path) as found:
        yield found


class serving:  # noqa: N801 - used like a function
    """A control server on the engine, and an Envoy that asks it."""

    def __init__(self, engine: Engine, run_dir: Path) -> None:
        self._engine = engine
        servicer = AuthorizationServicer(
            gateway_access=engine.gateway_access, ingest=engine.ingest, catalog=engine.catalog, events=engine.events
        )
        self._server = control_server(run_dir / "control.sock", [servicer.service()])
        self._channel = grpc.aio.insecure_channel(f"unix:{run_dir / 'control.sock'}")

    async def __aenter__(self) -> Gateway:
        await self._server.start()
        return Gateway(AuthorizationStub(self._channel), self._engine)

    async def __aexit__(self, *exc: object) -> None:
        await self._channel.close()
        await self._server.stop(None)


# -- what passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x-api-key", "authorization", "x-goog-api-key", "api-key"])
async def test_the_credential_takes_the_place_of_the_token_wherever_that_was(gateway: Gateway, name: str) -> None:
    """In the header that the vendor wants, and in no other; what else the SDK sent goes on as it was."""
    token = gateway.token()
    value = f"Bearer {token}" if name == "authorization" else token
    going = await gateway.passed({name: value, "anthropic-version": "2023-06-01", "accept": "*/*"})
    assert going == {"x-api-key": KEY, "anthropic-version": "2023-06-01", "accept": "*/*"}


async def test_a_login_brings_the_words_that_its_vendor_wants(gateway: Gateway) -> None:
    """Next to those of the SDK, once each."""
    token = gateway.token(profile=B)
    sent = {"x-api-key": token, "anthropic-beta": "files-api-2025-04-14,oauth-2025-04-20"}
    assert await gateway.passed(sent) == {
        "authorization": f"Bearer {OAUTH}",
        "anthropic-beta": "files-api-2025-04-14,oauth-2025-04-20",
    }
    assert (await gateway.passed({"x-api-key": token}))["anthropic-beta"] == "oauth-2025-04-20"


@pytest.mark.parametrize(
    ("sent", "profile_id", "carried"),
    [
        ({"user-agent": "claude-cli/2.0.14 (external, cli)"}, B, {"authorization": f"Bearer {OAUTH}"}),
        ({"anthropic-beta": "claude-code-20250219"}, B, {"authorization": f"Bearer {OAUTH}"}),
        ({"user-agent": "Anthropic/Python 0.75.0"}, A, {"x-api-key": KEY}),
    ],
)
async def test_a_claude_login_is_for_the_requests_of_claude_code(
    tmp_path: Path, sent: dict[str, str], profile_id: str, carried: dict[str, str]
) -> None:
    """C5: one lease token serves Claude Code with the login, and other programs with the API key."""
    engine = Engine(deliveries=BOTH)
    engine.put(profile(A, KEY), profile(B, OAUTH, mode=Mode.OAUTH))
    async with serving(engine, tmp_path) as gateway:
        token = gateway.token()
        going = await gateway.passed({"x-api-key": token, **sent})
        response = await gateway.ask({"x-api-key": token, **sent})
    assert carried.items() <= going.items()
    fields = response.dynamic_metadata.fields
    assert fields["profile"].string_value == profile_id
    assert ("client" in fields) is (profile_id == B)


async def test_the_access_log_gets_the_names_of_the_request(engine: Engine, gateway: Gateway) -> None:
    """Names alone."""
    token = gateway.token(session="talk")
    response = await gateway.ask({"x-api-key": token}, "/anthropic/v1/files/file_1?beta=true", method="GET")
    (lease,) = engine.lease_admin.active()
    found = engine.registry.find("main", A)
    assert found is not None
    [authorized] = [event for event in engine.emitted if isinstance(event, GatewayAuthorized)]
    told = {name: value.string_value for name, value in response.dynamic_metadata.fields.items()}
    assert len(told.pop("token")) == 64  # its digest
    assert told == {
        "request": authorized.request, "agent": "main", "session": "talk", "lease": lease.id, "provider": "anthropic",
        "profile": A, "version": str(found[1].held.version), "route": "/v1/files/*",
    }  # fmt: skip


async def test_a_provider_that_the_route_does_not_name_is_that_of_the_path(gateway: Gateway) -> None:
    """For an Envoy with a configuration of its own."""
    token = gateway.token(provider="google")
    path = "/google/v1beta/models/gemini-2.5-flash:generateContent"
    assert await gateway.passed({"x-goog-api-key": token}, path, named="", paths="") == {"x-goog-api-key": "AIza-canary"}
    for paths, sent in (("", []), ("broker", ["/v1beta/models/gemini:countTokens?alt=sse"])):
        asked = "/google/v1beta/models/gemini:countTokens?alt=sse"
        response = await gateway.ask({"x-goog-api-key": token}, asked, named="", paths=paths)
        options = response.ok_response.headers
        assert [option.header.value for option in options if option.header.key == ":path"] == sent
    unjoined = await gateway.refused({"x-goog-api-key": token}, "/google/models/gemini:countTokens", paths="")
    assert unjoined[:2] == (403, "POLICY_DENIED")


# -- what does not -----------------------------------------------------------------------------------------------------


async def test_refusals_say_why_in_the_vendors_form(engine: Engine, gateway: Gateway) -> None:
    """To the agent, to the log and to the metrics."""
    token = gateway.token()
    assert await gateway.refused({"x-api-key": KEY}) == (
        401,
        "KEY_REFUSED",
        {
            "type": "error",
            "error": {
                "type": "authentication_error",
                "message": "this is not a lease token: send the lease token, not the provider's key",
            },
        },
    )
    status, reason, body = await gateway.refused({"authorization": f"Bearer {token}"}, "/openai/chat/completions")
    assert (status, reason, body["error"]["code"]) == (403, "POLICY_DENIED", "policy_denied")
    assert (await gateway.refused({"x-api-key": token}, "/anthropic/v1/organizations/x", method="GET"))[:2] == (
        403,
        "POLICY_DENIED",
    )
    assert (await gateway.refused({"x-api-key": token}, method="CONNECT"))[:2] == (403, "INVALID_ARGUMENT")
    (lease,) = engine.lease_admin.active()
    of_lease = {"agent": "main", "lease": lease.id}
    of_nobody = {"agent": "", "lease": ""}
    assert [event for event in engine.emitted if isinstance(event, GatewayRefused)] == [
        GatewayRefused(
            **of_nobody, provider="anthropic", method="POST", route="/v1/messages", status=401, reason="KEY_REFUSED"
        ),
        GatewayRefused(
            **of_lease, provider="openai", method="POST", route="/chat/completions", status=403, reason="POLICY_DENIED"
        ),
        GatewayRefused(
            **of_lease, provider="anthropic", method="GET", route="/v1/organizations/x", status=403, reason="POLICY_DENIED"
        ),
        GatewayRefused(
            **of_lease, provider="anthropic", method="", route="/v1/messages", status=403, reason="INVALID_ARGUMENT"
        ),
    ]


@pytest.mark.parametrize("path", ["/nobody/v1", "/", "/anthropic/../x", "/anthropic/%2e%2e/x", "http://x/anthropic/v1"])
async def test_a_refused_path_is_not_logged(engine: Engine, gateway: Gateway, path: str) -> None:
    """It may be anything, a key for instance."""
    assert (await gateway.refused({"x-api-key": gateway.token()}, path, named=""))[0] in (403, 404)
    assert [event.route for event in engine.emitted if isinstance(event, GatewayRefused)] == [""]


async def test_a_revoked_token_is_refused_at_once(engine: Engine, gateway: Gateway) -> None:
    """By the request that follows."""
    token = gateway.token()
    await gateway.passed({"x-api-key": token})
    engine.lease_admin.revoke_matching(agent="main")
    assert (await gateway.refused({"x-api-key": token}))[:2] == (401, "LEASE_NOT_FOUND")


async def test_a_suspended_agent_is_refused_at_once(engine: Engine, gateway: Gateway) -> None:
    """S11: by the request that follows, in the vendor's form of an error, and recorded with whose it is; other agents pass."""
    token, other = gateway.token(), gateway.token("narrow")
    await gateway.passed({"x-api-key": token})
    await engine.suspension_control.suspend("main")
    assert (await gateway.refused({"x-api-key": token}))[:2] == (403, "AGENT_SUSPENDED")
    (event,) = [event for event in engine.emitted if isinstance(event, GatewayRefused)]
    assert (event.agent, event.reason, event.status) == ("main", "AGENT_SUSPENDED", 403)
    await gateway.passed({"x-api-key": other}, "/anthropic/v1/models", method="GET")


async def test_a_token_of_another_agent_is_bound_to_that_agents_policy(gateway: Gateway) -> None:
    """Whichever agent sends it."""
    token = gateway.token("narrow")
    assert (await gateway.refused({"x-api-key": token}))[:2] == (403, "POLICY_DENIED")
    await gateway.passed({"x-api-key": token}, "/anthropic/v1/models", method="GET")


async def test_where_nothing_can_serve_it_is_unavailable(engine: Engine, gateway: Gateway) -> None:
    """And may be tried again."""
    token = gateway.token()
    engine.put()
    assert (await gateway.refused({"x-api-key": token}))[:2] == (503, "NO_USABLE_PROFILE")


@pytest.mark.parametrize("spelled", ["X", "é", "\u2603", "a\x00b", " " * 4000])
async def test_any_bytes_in_a_header_are_answered(gateway: Gateway, spelled: str) -> None:
    """With a refusal, and no incident."""
    for headers in ({"x-api-key": spelled}, {"x-api-key": f"eqb_{spelled}"}, {"authorization": f"Bearer {spelled}"}):
        assert (await gateway.refused(headers))[0] == 401


async def test_nothing_is_logged_of_a_key_that_an_agent_sends(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """Though everything is said that is said at all."""
    caplog.set_level(logging.DEBUG)
    await gateway.refused({"x-api-key": KEY, "authorization": "Bearer sk-ant-canary-2"})
    assert not any("canary" in line for line in said(caplog))


# -- logins ------------------------------------------------------------------------------------------------------------


async def in_time(world: World, asking: "asyncio.Task[Any]") -> Any:
    """What is asked for, which comes once enough time has passed."""
    while not (await asyncio.wait({asking}, timeout=0.01))[0]:
        await world.clock.elapse(1.0)
    return asking.result()


async def test_a_login_is_refreshed_before_the_answer(tmp_path: Path) -> None:
    """Once, for all who wait."""
    world = World(granted(2), deliveries=BOTH)
    async with world.running(), serving(world, tmp_path) as gateway:
        await world.settle()
        token = gateway.token(provider="acme")
        world.write({"acme:me": login(left=-5)})
        await world.clock.elapse(0.1)
        asking = [asyncio.ensure_future(gateway.passed({"x-api-key": token}, "/acme/x")) for _ in range(8)]
        for one in asking:
            assert await in_time(world, one) == {"authorization": "Bearer at-2"}
        assert world.script.redeemed == ["rt-1"]


async def test_a_refresh_that_takes_too_long_is_said_in_time(tmp_path: Path) -> None:
    """Before Envoy gives up, which would say nothing."""
    world = World(UNREACHED, deliveries=BOTH)
    async with world.running(), serving(world, tmp_path) as gateway:
        await world.settle()
        token = gateway.token(provider="acme", ttl=3000.0)
        world.write({"acme:me": login(left=-5)})
        await world.clock.elapse(0.1)
        asking = asyncio.ensure_future(gateway.refused({"x-api-key": token}, "/acme/x", timeout=10.0))
        assert (await in_time(world, asking))[:2] == (503, "REFRESH_FAILED")


async def test_after_a_restart_a_request_waits_until_the_sources_have_been_read(engine: Engine, tmp_path: Path) -> None:
    """Its lease's profile is not read yet, and so not deleted: no request is refused, and no lease moves to another
    profile."""
    token = shown(engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", delivery="brokered")))
    engine.store.flush()
    again = Engine(
        agents={"main": ANYTHING}, deliveries=BOTH, order={"anthropic": (A, B)}, store=engine.store, clock=engine.clock
    )
    async with again.running(), serving(again, tmp_path) as gateway, asyncio.TaskGroup() as group:
        asking = group.create_task(gateway.passed({"x-api-key": token}))
        assert (await asyncio.wait({asking}, timeout=0.1))[0] == set()
        again.hold(profile(A, KEY), profile(B, OAUTH, mode=Mode.OAUTH))
        assert (await asking)["x-api-key"] == KEY


async def test_no_credential_follows_a_route_that_leads_elsewhere(gateway: Gateway) -> None:
    """C15: between a reload and Envoy's new routes; and where Envoy does not say where it leads, as an older one, it passes."""
    headers = {"x-api-key": gateway.token()}
    status, reason, _ = await gateway.refused(headers, address="https://elsewhere.example.com")
    assert (status, reason) == (503, "RELOADING")
    for address in ("https://api.anthropic.com", ""):
        assert (await gateway.passed(headers, address=address))["x-api-key"] == KEY
