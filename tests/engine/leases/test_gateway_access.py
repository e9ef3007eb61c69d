"""Lease tokens, spent: each request is decided anew, and what comes of it counts for the next one."""

import asyncio
from dataclasses import replace

import pytest

from equabot_broker.domain.answers import ProviderAnswer
from equabot_broker.domain.cooldowns import HOUR, MINUTE
from equabot_broker.domain.errors import (
    AuditUnavailable,
    BrokerError,
    InvalidArgument,
    LeaseExpired,
    LeaseNotFound,
    NoUsableProfile,
    PolicyDenied,
    RateLimited,
    RefreshFailed,
    ShuttingDown,
    WebsocketRefused,
)
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Provider
from equabot_broker.engine.leases.gateway_access import PermittedRequest, RequestNames
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.providers import PROVIDERS
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayUsed
from equabot_broker.telemetry.lease_events import OutcomeReported
from tests.fakes.audit import MemoryAudit
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.logins import ACME, LIFE, World, login
from tests.fakes.scripted_endpoint import UNREACHED, granted

A, B = "anthropic:a", "anthropic:b"
BOTH = frozenset(Delivery)
ASKED = LeaseRequest(provider="anthropic", delivery="brokered")
ANTHROPIC = PROVIDERS["anthropic"]


@pytest.fixture
def engine() -> Engine:
    made = Engine(deliveries=BOTH, order={"anthropic": (A, B)})
    made.put(profile(A, "secret-a"), profile(B, "secret-b"))
    return made


def acquire(engine: Engine, **asked: object) -> Grant:
    return engine.lease_service.acquire("main", replace(ASKED, **asked))  # type: ignore[arg-type]


def shown(grant: Grant) -> str:
    assert grant.token is not None
    return grant.token.reveal()


async def use(
    engine: Engine,
    token: str,
    provider: Provider = ANTHROPIC,
    *,
    asked: str = "POST /v1/messages",
    within: float = 30.0,
    websocket: bool = False,
) -> PermittedRequest:
    method, path = asked.split(" ")
    lease = engine.gateway_access.bearer(token)
    return await engine.gateway_access.use(
        lease, provider, method=method, path=path, within=lambda: within, websocket=websocket
    )


async def served(engine: Engine, token: str) -> str:
    return (await use(engine, token)).held.profile.id


def used(found: PermittedRequest) -> RequestNames:
    lease = found.lease
    return RequestNames(
        agent=lease.agent, session=lease.session, lease=lease.id, provider=lease.provider, profile=lease.profile,
        version=found.held.version, request=found.request, method="POST", route="/v1/messages",
    )  # fmt: skip


def answered(engine: Engine, found: PermittedRequest, status: int, **told: object) -> None:
    engine.gateway_access.answered(used(found), ProviderAnswer(status=status, **told))  # type: ignore[arg-type]


# -- who shows a token -------------------------------------------------------------------------------------------------


async def test_token_is_replaced_by_the_credential(engine: Engine) -> None:
    """Of the lease's profile, as it is now."""
    granted = acquire(engine)
    found = await use(engine, shown(granted))
    assert (found.lease, found.held, found.provider) == (granted.lease, granted.held, ANTHROPIC)
    assert found.secret == granted.held.profile.secret
    assert "secret-a" not in shown(granted)


async def test_token_without_an_active_lease_is_refused(engine: Engine) -> None:
    """A key, a token of nobody, a lease's id."""
    granted = acquire(engine)
    for text in ("", "secret-a", granted.lease.id, shown(granted)[:-1], "eqb_" + "A" * 43):
        with pytest.raises(LeaseNotFound):
            engine.gateway_access.bearer(text)


async def test_revoking_stops_the_very_next_request(engine: Engine) -> None:
    """Whoever revokes; with no turn of the loop in between."""
    one, two = shown(acquire(engine)), acquire(engine)
    engine.lease_service.revoke("main", two.lease.id)
    with pytest.raises(LeaseNotFound):
        engine.gateway_access.bearer(shown(two))
    assert await served(engine, one) == A
    engine.lease_admin.revoke_matching(provider="anthropic")
    with pytest.raises(LeaseNotFound):
        engine.gateway_access.bearer(one)


async def test_ended_lease_is_refused(engine: Engine) -> None:
    """To the second, whether or not the loop that minds time has had its turn."""
    token = shown(acquire(engine, ttl=60.0))
    engine.clock.advance(59.9)
    assert await served(engine, token) == A
    engine.clock.advance(0.2)
    with pytest.raises(LeaseExpired):
        engine.gateway_access.bearer(token)
    with pytest.raises(LeaseNotFound):
        engine.gateway_access.bearer(token)


async def test_tokens_work_while_the_broker_drains(engine: Engine) -> None:
    """And of one that is not known, the next broker may know."""
    token = shown(acquire(engine))
    engine.lease_admin.drain()
    assert await served(engine, token) == A
    with pytest.raises(ShuttingDown):
        engine.gateway_access.bearer("eqb_" + "A" * 43)


# -- what for ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "asked", "error"),
    [
        ("openai", "POST /chat/completions", PolicyDenied),
        ("anthropic", "GET /v1/organizations/members", PolicyDenied),
        ("anthropic", "DELETE /v1/messages", PolicyDenied),
        ("anthropic", "TRACE /v1/messages", InvalidArgument),
        ("anthropic", "CONNECT /v1/messages", InvalidArgument),
    ],
)
async def test_a_token_is_for_one_provider_and_its_api(
    engine: Engine, provider: str, asked: str, error: type[BrokerError]
) -> None:
    """Not for another's, not for administration, not for what no API is asked with."""
    token = shown(acquire(engine))
    with pytest.raises(error):
        await use(engine, token, PROVIDERS[provider], asked=asked)


async def test_an_agents_policy_narrows_what_may_be_asked() -> None:
    """And does not widen it. Paths may be told as behind the base URL, or whole."""
    policy = AgentPolicy(
        providers=frozenset({"*"}), requests=("POST /v1/messages", "/v1/organizations*", "POST /v1/chat/completions")
    )
    engine = Engine(deliveries=BOTH, agents={"main": policy})
    engine.put(profile(A), profile("openai:a"))
    token, other = shown(acquire(engine)), shown(acquire(engine, provider="openai"))
    await use(engine, token)
    await use(engine, other, PROVIDERS["openai"], asked="POST /chat/completions")
    for asked in ("GET /v1/models", "GET /v1/organizations/members"):
        with pytest.raises(PolicyDenied):
            await use(engine, token, asked=asked)
    with pytest.raises(PolicyDenied, match=r"agents\.main\.requests"):
        await use(engine, other, PROVIDERS["openai"], asked="POST /embeddings")


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ("GET /models", True),
        ("GET /v1/models", True),
        ("GET /v1/v1/models", True),
        ("GET /v1/models/", True),
        ("GET /v1", False),
        ("POST /responses/", True),
        ("POST /Responses", False),
        ("POST /v1/realtime/client_secrets", False),
        ("POST /v1/v1/realtime/client_secrets", False),
    ],
)
@pytest.mark.parametrize("requests", [PROVIDERS["openai"].requests, ("GET /v1/models*", "POST /v1/responses")])
async def test_the_base_path_counts_once(engine: Engine, asked: str, passes: bool, requests: tuple[str, ...]) -> None:
    """S1: what is let through is what the vendor receives, in whichever way the rules are written."""
    engine.put(profile("openai:a"))
    token = shown(acquire(engine, provider="openai"))
    openai = replace(PROVIDERS["openai"], requests=requests)
    if passes:
        used = await use(engine, token, openai, asked=asked)
        assert used.path.rstrip("/") in ("/v1/models", "/v1/responses")
    else:
        with pytest.raises(PolicyDenied):
            await use(engine, token, openai, asked=asked)


async def test_provider_without_allowing_rules_refuses_all(engine: Engine) -> None:
    """S1: none, or one that only forbids, should a token be shown all the same."""
    token = shown(acquire(engine))
    for requests in ((), ("!/v1/organizations*",)):
        with pytest.raises(PolicyDenied, match=r"providers\.anthropic\.requests"):
            await use(engine, token, replace(ANTHROPIC, requests=requests))


async def test_a_websocket_is_opened_only_where_one_is_listed() -> None:
    """C8: in every spelling of the path; the same request passes without the upgrade, and a list of requests opens nothing."""
    engine = Engine(deliveries=BOTH, agents={"main": replace(ANYTHING, requests=("!/v1/realtime",))})
    engine.put(profile("openai:a"))
    token = shown(acquire(engine, provider="openai"))
    openai = PROVIDERS["openai"]
    for asked in ("GET /responses", "GET /v1/responses", "GET /v1/v1/responses/"):
        assert (await use(engine, token, openai, asked=asked, websocket=True)).path == "/v1/responses"
    for asked in ("GET /models", "GET /v1/files/f/content", "POST /v1/responses/x/cancel"):
        await use(engine, token, openai, asked=asked)
        with pytest.raises(WebsocketRefused, match=r"providers\.openai\.websockets"):
            await use(engine, token, openai, asked=asked, websocket=True)
    with pytest.raises(WebsocketRefused):
        await use(engine, token, replace(openai, websockets=()), asked="GET /responses", websocket=True)
    with pytest.raises(PolicyDenied, match=r"agents\.main\.requests"):
        await use(engine, token, openai, asked="GET /realtime", websocket=True)
    everywhere = replace(openai, requests=("POST /responses",), websockets=("/**",))
    with pytest.raises(PolicyDenied, match=r"providers\.openai\.requests"):
        await use(engine, token, everywhere, asked="GET /responses", websocket=True)


async def test_an_agents_policy_may_forbid_alone() -> None:
    """It narrows what the provider's list lets through, by whichever name of the path."""
    engine = Engine(deliveries=BOTH, agents={"main": replace(ANYTHING, requests=("!/v1/files*", "!DELETE /**"))})
    engine.put(profile(A), profile("openai:a"))
    token, other = shown(acquire(engine)), shown(acquire(engine, provider="openai"))
    await use(engine, token)
    await use(engine, other, PROVIDERS["openai"], asked="POST /responses")
    for asked in ("GET /v1/files", "GET /files", "DELETE /responses/r"):
        with pytest.raises(PolicyDenied, match=r"agents\.main\.requests|openai"):
            await use(engine, other, PROVIDERS["openai"], asked=asked)
    with pytest.raises(PolicyDenied, match=r"agents\.main\.requests"):
        await use(engine, token, asked="POST /v1/files")


async def test_request_that_cannot_be_recorded_is_refused(engine: Engine) -> None:
    """S8: where nothing may happen unrecorded, the use itself is what is to be recorded."""
    token, audit = shown(acquire(engine)), MemoryAudit(fail_closed=True)
    engine.events.sinks.insert(0, audit.record)
    audit.fault = "the disk is full"
    with pytest.raises(AuditUnavailable):
        await use(engine, token)
    audit.fault = ""
    await use(engine, token)
    assert [type(event) for event in audit.heard] == [GatewayAuthorized]


# -- what comes of it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [(401, State.REJECTED), (402, State.OK), (403, State.OK), (408, State.OK), (429, State.OK), (529, State.OK)],
)
async def test_the_next_request_uses_the_next_profile(engine: Engine, status: int, state: State) -> None:
    """With the same token, and no word from the agent."""
    token = shown(acquire(engine))
    answered(engine, await use(engine, token), status)
    assert await served(engine, token) == B
    board = engine.registry.find("main", A)
    assert board is not None
    assert board[1].standing.state is state
    assert [event.outcome for event in engine.emitted if isinstance(event, OutcomeReported)] != []


@pytest.mark.parametrize("status", [200, 400, 404, 413, 500, 503, 0])
async def test_answer_without_an_outcome_changes_nothing(engine: Engine, status: int) -> None:
    """A request that was wrong, a vendor that is down, an agent that has gone."""
    token = shown(acquire(engine))
    answered(engine, await use(engine, token), status)
    assert await served(engine, token) == A


async def test_a_vendor_that_fails_moves_the_request_too(engine: Engine) -> None:
    """Whatever status was sent before."""
    token = shown(acquire(engine))
    answered(engine, await use(engine, token), 200, failed=True)
    assert await served(engine, token) == B


async def test_the_profile_comes_back_when_the_vendor_said(engine: Engine) -> None:
    """A lease has gone on by then, whenever its next request comes, and stays there; a new one begins with the first again."""
    token = shown(acquire(engine))
    answered(engine, await use(engine, token), 429, retry_after=7.0)
    engine.clock.advance(8)
    assert await served(engine, token) == B
    assert await served(engine, shown(acquire(engine))) == A


async def test_concurrent_failures_count_once(engine: Engine) -> None:
    """Twenty requests under way when the quota ends cost a minute, not an hour; one that began later counts."""
    tokens = [shown(acquire(engine)) for _ in range(20)]
    under_way = [await use(engine, token) for token in tokens]
    engine.clock.advance(10)
    for found in under_way:
        answered(engine, found, 429, seconds=10.0)
    usage = engine.registry.usage(("", A))
    assert (usage.error_count, usage.cooldown_until) == (1, engine.clock.now() + MINUTE)
    engine.clock.advance(1)
    answered(engine, under_way[0], 429, seconds=0.5)
    assert engine.registry.usage(("", A)).error_count == 2


async def test_older_success_ends_no_cooldown(engine: Engine) -> None:
    """A long answer that ends well says nothing of the quota of now; one that began since does."""
    token = shown(acquire(engine))
    found = await use(engine, token)
    engine.clock.advance(30)
    answered(engine, found, 429, seconds=1.0)
    answered(engine, found, 200, seconds=20.0)
    assert engine.registry.usage(("", A)).cooldown_until > 0
    engine.clock.advance(2)
    answered(engine, found, 200, seconds=1.0)
    assert engine.registry.usage(("", A)).cooldown_until == 0


async def test_late_report_counts_from_its_request(engine: Engine) -> None:
    """What went well is told a moment after it has: that is no word on what happened meanwhile."""
    token = shown(acquire(engine))
    found = await use(engine, token)
    asked = engine.clock.now()
    engine.clock.advance(1)
    answered(engine, found, 429, seconds=0.5)
    engine.clock.advance(1)
    answered(engine, found, 200, seconds=0.1, began=asked)
    assert engine.registry.usage(("", A)).cooldown_until > 0


async def test_403_disables_the_key_for_no_agent(engine: Engine) -> None:
    """403 costs a cooldown: where there is no other profile, it goes on."""
    engine.put(profile(A, "secret-a"))
    token = shown(acquire(engine))
    answered(engine, await use(engine, token), 403)
    assert await served(engine, token) == A


async def test_report_about_older_material_is_ignored(engine: Engine) -> None:
    """The key that was refused has been replaced meanwhile; or its profile is gone."""
    token = shown(acquire(engine))
    found = await use(engine, token)
    engine.put(profile(A, "secret-a2"), profile(B, "secret-b"))
    answered(engine, found, 401)
    assert (await use(engine, token)).held.profile.secret != found.held.profile.secret
    assert await served(engine, token) == A
    engine.put(profile(B, "secret-b"))
    answered(engine, found, 401)
    assert await served(engine, token) == B


async def test_every_request_is_recorded(engine: Engine) -> None:
    """S8: before the credential is handed over, and once more at its end; with what it was, and nothing that was in it."""
    found = await use(engine, shown(acquire(engine, session="talk")))
    assert [event for event in engine.emitted if isinstance(event, (GatewayAuthorized, GatewayUsed))] == [
        GatewayAuthorized(
            agent="main", session="talk", provider="anthropic", profile=A, lease=found.lease.id, request=found.request,
            method="POST", route="/v1/messages",
        )
    ]  # fmt: skip
    answered(engine, found, 200, seconds=1.5, sent=10, received=2000)
    assert [event for event in engine.emitted if isinstance(event, GatewayUsed)] == [
        GatewayUsed(
            agent="main", session="talk", provider="anthropic", profile=A, lease=found.lease.id, request=found.request,
            method="POST", route="/v1/messages", status=200, sent=10, received=2000, seconds=1.5,
        )
    ]  # fmt: skip


async def test_repeated_check_is_recorded_once(engine: Engine) -> None:
    """S8: Envoy asks again where no answer arrived. With other material it is another use; so is a check without a name."""
    token = shown(acquire(engine))

    async def name(check: str) -> str:
        lease = engine.gateway_access.bearer(token)
        use = await engine.gateway_access.use(
            lease, ANTHROPIC, method="POST", path="/v1/messages", within=lambda: 30.0, check=check
        )
        return use.request

    first = await name("17")
    assert await name("17") == first
    assert len({first, await name("18"), await name(""), await name("")}) == 4
    engine.put(profile(A, "rotated-secret-a"), profile(B, "secret-b"))
    assert await name("17") != first
    assert len([event for event in engine.emitted if isinstance(event, GatewayAuthorized)]) == 5
    for number in range(5_000):
        await name(f"flood {number}")
    assert len(engine.gateway_access._checked) == 4096


async def test_lease_stays_if_no_profile_can_serve(engine: Engine) -> None:
    """The request is refused with the reason; once there is something again, the same token works."""
    token = shown(acquire(engine))
    engine.put()
    with pytest.raises(NoUsableProfile):
        await use(engine, token)
    engine.put(profile(B, "secret-b"))
    assert await served(engine, token) == B


async def test_lease_on_a_named_profile_does_not_move(engine: Engine) -> None:
    """It serves as long as it can at all."""
    token = shown(acquire(engine, profile=A))
    answered(engine, await use(engine, token), 429)
    assert await served(engine, token) == A
    answered(engine, await use(engine, token), 401)
    with pytest.raises(NoUsableProfile):
        await use(engine, token)


async def test_a_static_credential_ends_and_the_token_does_not() -> None:
    """The lease is as long as was asked for, whatever is behind it."""
    engine = Engine(deliveries=BOTH, order={"anthropic": (A, B)})
    engine.put(profile(A, expires_at=engine.clock.now() + 60), profile(B))
    granted = acquire(engine, ttl=HOUR)
    assert granted.lease.expires_at == engine.clock.steady() + HOUR
    engine.clock.advance(61)
    assert await served(engine, shown(granted)) == B
    renewed = engine.lease_service.renew("main", granted.lease.id)
    assert renewed.lease.expires_at == granted.lease.max_expires_at


# -- logins ------------------------------------------------------------------------------------------------------------


async def held_up(world: World) -> tuple[str, list["asyncio.Task[str]"]]:
    """A token on a login that has ended, and five requests with it that wait for its refresh."""

    async def ask() -> str:
        found = await use(world, token, ACME, asked="POST /anything")
        assert found.held.profile.secret is not None
        return found.held.profile.secret.reveal()

    token = shown(world.lease_service.acquire("main", LeaseRequest(provider="acme", delivery="brokered", ttl=HOUR)))
    world.write({"acme:me": login(left=-5)})
    await world.clock.elapse(0.1)
    asking = [asyncio.ensure_future(ask()) for _ in range(5)]
    await world.clock.elapse(0.1)
    return token, asking


async def test_an_expired_login_is_refreshed_once_for_all_who_wait() -> None:
    """None of them is told, and each gets the new one."""
    world = World(granted(2), deliveries=BOTH)
    async with world.running():
        await world.settle()
        world.script.open.clear()
        _, asking = await held_up(world)
        assert not any(task.done() for task in asking)
        world.script.open.set()
        await world.clock.elapse(1)
        assert await asyncio.gather(*asking) == ["at-2"] * 5
        assert world.script.redeemed == ["rt-1"]


async def test_revocation_ends_the_wait_for_a_refresh() -> None:
    """The lease has to live when the answer is given, not when it was asked for."""
    world = World(granted(2), deliveries=BOTH)
    async with world.running():
        await world.settle()
        world.script.open.clear()
        _, asking = await held_up(world)
        world.lease_admin.revoke_matching(agent="main")
        world.script.open.set()
        await world.clock.elapse(1)
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {LeaseNotFound}


async def test_failed_wait_has_a_retry_delay() -> None:
    """As soon as nothing can come of waiting."""
    world = World(UNREACHED, entry=login(left=LIFE), deliveries=BOTH)
    async with world.running():
        await world.settle()
        token, asking = await held_up(world)
        await world.clock.elapse(60)
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {RefreshFailed}
        with pytest.raises(RefreshFailed):
            await use(world, token, ACME, asked="POST /anything", within=0.0)


async def test_a_refused_access_token_is_refreshed_for_the_next_request() -> None:
    """Once; and the request after it waits for that."""
    world = World(granted(2), deliveries=BOTH)
    async with world.running():
        await world.settle()
        token = shown(world.lease_service.acquire("main", LeaseRequest(provider="acme", delivery="brokered")))
        found = await use(world, token, ACME, asked="POST /anything")
        for _ in range(3):
            answered(world, found, 401)
        asking = asyncio.ensure_future(use(world, token, ACME, asked="POST /anything"))
        await world.clock.elapse(1)
        secret = (await asking).held.profile.secret
        assert secret is not None
        assert (secret.reveal(), world.script.redeemed) == ("at-2", ["rt-1"])


def test_policies_may_allow_tokens_alone() -> None:
    """Then a raw lease is refused, and one that asks for nothing in particular is given a token."""
    policy = AgentPolicy(providers=frozenset({"*"}), deliveries=(Delivery.BROKERED,))
    assert policy.choose_delivery("main", "", available=BOTH) is Delivery.BROKERED
    assert ANYTHING.choose_delivery("main", "", available=BOTH) is Delivery.RAW


async def test_an_agents_requests_at_once_are_bounded() -> None:
    """S10: one more is refused until one has ended, or no gateway is connected. What was refused does not count."""
    engine = Engine(agents={"main": replace(ANYTHING, max_requests=2)}, deliveries=BOTH, order={"anthropic": (A, B)})
    engine.put(profile(A, "secret-a"), profile(B, "secret-b"))
    token = shown(acquire(engine))
    for _ in range(5):
        with pytest.raises(PolicyDenied):
            await use(engine, token, asked="GET /v1/organizations")
    first, _ = await use(engine, token), await use(engine, token)
    with pytest.raises(RateLimited, match=r"agents\.main\.max_requests") as raised:
        await use(engine, token)
    assert raised.value.retry_after == 1.0
    engine.gateway_access.answered(used(first), ProviderAnswer(status=200))
    await use(engine, token)
    with pytest.raises(RateLimited):
        await use(engine, token)
    engine.gateway_access.disconnected()
    await use(engine, token)


async def test_refused_list_of_models_is_not_about_the_key(engine: Engine) -> None:
    """C1: the 401 to a list of models costs a cooldown, and the next request passes; a 401 to a model's request rejects."""
    token = shown(acquire(engine))
    listing = replace(used(await use(engine, token, asked="GET /v1/models")), method="GET")
    engine.gateway_access.answered(listing, ProviderAnswer(status=401, began=engine.clock.now()))
    assert not engine.registry.usage(("", A)).rejected
    assert engine.registry.usage(("", A)).cooldown_until == engine.clock.now() + MINUTE
    engine.gateway_access.answered(replace(listing, method="POST"), ProviderAnswer(status=401, began=engine.clock.now()))
    assert engine.registry.usage(("", A)).rejected


@pytest.mark.parametrize("asked", ["GET /v1/realtime", "GET /responses"])
async def test_refused_websocket_is_about_the_key(engine: Engine, asked: str) -> None:
    """C8: a 401 to its handshake is about the key, as one to a POST is; a 401 to a list of models is not."""
    engine.put(profile("openai:a"))
    token = shown(acquire(engine, provider="openai"))
    made = await use(engine, token, PROVIDERS["openai"], asked=asked, websocket=True)
    listing = await use(engine, token, PROVIDERS["openai"], asked="GET /models")
    looked = replace(used(listing), method="GET", route=listing.route)
    engine.gateway_access.answered(looked, ProviderAnswer(status=401, began=engine.clock.now()))
    assert not engine.registry.usage(("", "openai:a")).rejected
    engine.gateway_access.answered(
        replace(used(made), method="GET", route=made.route), ProviderAnswer(status=401, began=engine.clock.now())
    )
    assert engine.registry.usage(("", "openai:a")).rejected


async def test_a_list_of_models_is_one_with_every_provider(engine: Engine) -> None:
    """C1: also where the form of the API is not known, so that no request of the broker could confirm it."""
    engine.put(profile("elevenlabs:a"))
    token = shown(acquire(engine, provider="elevenlabs"))
    listing = await use(engine, token, PROVIDERS["elevenlabs"], asked="GET /v1/models")
    looked = replace(used(listing), method="GET", route=listing.route)
    engine.gateway_access.answered(looked, ProviderAnswer(status=401, began=engine.clock.now()))
    assert not engine.registry.usage(("", "elevenlabs:a")).rejected
