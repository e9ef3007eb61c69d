"""Leases in motion: granted within bounds, renewed from now, ended for one reason, stored before they are answered."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from equabot_broker.domain.cooldowns import MINUTE, Outcome
from equabot_broker.domain.errors import (
    BrokerError,
    DeliveryNotAllowed,
    InvalidArgument,
    LeaseExpired,
    LeaseLimit,
    LeaseNotFound,
    NoUsableProfile,
    PolicyDenied,
    ProfileNotFound,
    ProviderUnknown,
    RateLimited,
    ShuttingDown,
    SourceNotSynced,
)
from equabot_broker.domain.lease_tokens import digest
from equabot_broker.domain.leases import Lease, LeaseOptions
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.telemetry.lease_events import (
    LeaseDenied,
    LeaseGranted,
    LeaseMoved,
    LeaseRenewed,
    LeaseRevoked,
    OutcomeReported,
    RenewalDenied,
)
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.source import FakeSource

A, B, C = "anthropic:a", "anthropic:b", "anthropic:c"
ANY = LeaseRequest(provider="anthropic")


@pytest.fixture
def engine() -> Engine:
    made = Engine(agents={"main": ANYTHING, "other": ANYTHING})
    made.put(profile(A, "secret-a"), profile(B, "secret-b"))
    return made


@pytest.fixture
def alone() -> Engine:
    """As `engine`, with one agent: what that reports counts for everybody, for there is no other."""
    made = Engine()
    made.put(profile(A, "secret-a"), profile(B, "secret-b"))
    return made


def acquire(engine: Engine, agent: str = "main", **asked: object) -> Lease:
    return engine.lease_service.acquire(agent, replace(ANY, **asked)).lease  # type: ignore[arg-type]


def active(engine: Engine, **asked: str) -> list[str]:
    return [lease.id for lease in engine.lease_admin.active(**asked)]


def restarted(engine: Engine, **changed: object) -> Engine:
    """The broker was killed and started again, milliseconds later."""
    engine.store.flush()
    agents = {"main": ANYTHING, "other": ANYTHING}
    return Engine(**{"agents": agents, "store": engine.store, "clock": engine.clock, **changed})  # type: ignore[arg-type]


# -- acquire -----------------------------------------------------------------------------------------------------------


async def test_grant_has_lease_and_material(engine: Engine) -> None:
    """All of it: who, what, until when, on which material."""
    granted = engine.lease_service.acquire("main", LeaseRequest(profile=A, session="s", ttl=60.0, delivery="raw", model="any"))
    now = engine.clock.steady()
    lease = Lease(
        id=granted.lease.id, agent="main", session="s", provider="anthropic", profile=A, automatic=False,
        delivery=Delivery.RAW, asked=60.0, issued_at=now, expires_at=now + 60, max_expires_at=now + 3600,
        model="any",
    )  # fmt: skip
    found = engine.registry.find("main", A)
    assert found is not None
    offset = engine.clock.now() - now
    assert granted == Grant(lease, found[1].held, engine.catalog.providers["anthropic"], offset, renewable=True)
    assert granted.held.profile.secret == SecretValue("secret-a")
    assert engine.emitted[-1] == LeaseGranted(
        agent="main", provider="anthropic", profile=A, delivery="raw", seconds=60.0, session="s", lease=lease.id
    )  # fmt: skip
    assert active(engine) == [lease.id]


async def test_an_id_cannot_be_guessed(engine: Engine) -> None:
    """No two alike, and most of it chance: 80 bits and more, though all were granted in one moment."""
    ids = {acquire(engine).id for _ in range(200)}
    assert len(ids) == 200
    assert {len(i) for i in ids} == {32}
    assert sum(len({i[n] for i in ids}) == 16 for n in range(32)) * 4 >= 80


@pytest.mark.parametrize(
    ("asked", "limits", "credential", "granted"),
    [
        (None, (3600.0, 3600.0), None, (900.0, 3600.0)),
        (60.0, (3600.0, 3600.0), None, (60.0, 3600.0)),
        (10 * 365 * 86400.0, (3600.0, 7200.0), None, (3600.0, 3600.0)),
        (86400.0, (7200.0, 3600.0), None, (3600.0, 3600.0)),
        (900.0, (30.0, 3600.0), None, (30.0, 30.0)),
        (900.0, (3600.0, 3600.0), 120.0, (120.0, 3600.0)),
    ],
)
async def test_a_lease_is_as_long_as_the_least_of_all_bounds(
    asked: float | None, limits: tuple[float, float], credential: float | None, granted: tuple[float, float]
) -> None:
    """What was asked, the agent's policy, the broker's limit, what is left of the credential."""
    agents = {"main": AgentPolicy(providers=frozenset({"*"}), max_ttl=limits[0])}
    engine = Engine(agents=agents, lease_options=LeaseOptions(default_ttl=900, max_ttl=limits[1]))
    engine.put(profile(A, expires_at=credential and engine.clock.now() + credential))
    lease = acquire(engine, ttl=asked)
    now = engine.clock.steady()
    assert (lease.expires_at - now, lease.max_expires_at - now) == granted


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (LeaseRequest(), InvalidArgument),
        (LeaseRequest(provider="nobody"), ProviderUnknown),
        (LeaseRequest(provider="openai"), PolicyDenied),
        (LeaseRequest(provider="anthropic", profile="anthropic:secret"), PolicyDenied),
        (LeaseRequest(provider="anthropic", profile="openai:x"), InvalidArgument),
        (LeaseRequest(provider="anthropic", profile="c"), ProfileNotFound),
        (LeaseRequest(provider="anthropic", delivery="brokered"), DeliveryNotAllowed),
        (LeaseRequest(provider="anthropic", delivery="carrier pigeon"), DeliveryNotAllowed),
        (LeaseRequest(provider="anthropic", ttl=0.0), InvalidArgument),
        (LeaseRequest(provider="anthropic", ttl=-1.0), InvalidArgument),
        (LeaseRequest(provider="anthropic", ttl=float("nan")), InvalidArgument),
        (LeaseRequest(provider="anthropic", profile="b"), NoUsableProfile),
    ],
)
async def test_refused_request_changes_nothing(request_: LeaseRequest, error: type[BrokerError]) -> None:
    """No lease, no quota, nothing stored; the reason is counted, with no more of the request than its provider."""
    policy = AgentPolicy(providers=frozenset({"anthropic"}), profiles=frozenset({A, B, C}), max_leases=1)
    engine = Engine(agents={"main": policy})
    engine.put(profile(A), profile(B, None))
    with pytest.raises(error):
        engine.lease_service.acquire("main", request_)
    with pytest.raises(error):
        engine.lease_service.stream("main", request_)
    provider = request_.provider if request_.provider in engine.catalog.providers else ""
    denied = LeaseDenied(agent="main", provider=provider, reason=error.reason)
    denials = [] if request_.delivery == "brokered" else [denied, denied]  # without a gateway no policy is asked
    assert [e for e in engine.emitted if isinstance(e, LeaseDenied)] == denials
    assert engine.lease_admin.count() == (0, 0)
    engine.store.flush()
    assert engine.store.load().leases == ()
    assert acquire(engine).profile == A


async def test_an_agent_that_is_not_configured_gets_nothing(engine: Engine) -> None:
    """Deny by default, in every request an agent can make."""
    lease = acquire(engine)
    with pytest.raises(PolicyDenied):
        acquire(engine, "stranger")
    for ask in (engine.lease_service.renew, lambda a, i: engine.lease_service.report(a, i, Outcome.AUTH)):
        with pytest.raises(LeaseNotFound):
            ask("stranger", lease.id)
    engine.lease_service.revoke("stranger", lease.id)
    assert active(engine) == [lease.id]


async def test_a_credential_that_expired_a_moment_ago_is_not_leased(engine: Engine) -> None:
    """Though nobody has noticed yet."""
    engine.put(profile(A, expires_at=engine.clock.now() + 10))
    engine.clock.advance(10)
    for asked in ({}, {"profile": A}):
        with pytest.raises(NoUsableProfile):
            acquire(engine, **asked)


# -- quotas ------------------------------------------------------------------------------------------------------------


async def test_an_agent_holds_no_more_leases_than_its_quota() -> None:
    """Streams count as well; another agent's do not; whatever ends one makes room, also time that nobody minded yet."""
    policy = AgentPolicy(providers=frozenset({"*"}), max_leases=3)
    engine = Engine(agents={"main": policy, "other": policy})
    engine.put(profile(A))
    first = acquire(engine)
    acquire(engine, ttl=10.0)
    with engine.lease_service.stream("main", ANY):
        for ask in (engine.lease_service.acquire, engine.lease_service.stream):
            with pytest.raises(LeaseLimit, match="already holds 3 leases"):
                ask("main", ANY)
        acquire(engine, "other")
        engine.lease_service.revoke("main", first.id)
        acquire(engine)
        with pytest.raises(LeaseLimit):
            acquire(engine)
        engine.clock.advance(10)
        acquire(engine)
        with pytest.raises(LeaseLimit):
            acquire(engine)
    acquire(engine)


async def test_an_agent_asks_no_more_often_than_its_rate() -> None:
    """A burst at once, then at the rate, each agent on its own; what is refused for another reason costs nothing of it."""
    policy = AgentPolicy(providers=frozenset({"*"}), rate=0.5, burst=2)
    engine = Engine(agents={"main": policy, "other": policy})
    engine.put(profile(A))
    with pytest.raises(InvalidArgument):
        acquire(engine, ttl=0.0)
    engine.lease_service.revoke("main", acquire(engine).id)
    acquire(engine)
    with pytest.raises(RateLimited) as caught:
        acquire(engine)
    assert caught.value.retry_after == 2.0
    acquire(engine, "other")
    engine.clock.jump_wall(3600)
    with pytest.raises(RateLimited):
        acquire(engine)
    engine.clock.advance(2)
    acquire(engine)
    with pytest.raises(RateLimited):
        acquire(engine)


# -- renew -------------------------------------------------------------------------------------------------------------


async def test_a_renewal_counts_from_now_up_to_the_maximum(engine: Engine) -> None:
    """For as long as first asked, or as now asked; at the maximum nothing is gained, and it says so."""
    lease = acquire(engine, ttl=600.0)
    end = engine.clock.steady() + 3600
    engine.clock.advance(500)
    assert engine.lease_service.renew("main", lease.id).lease.expires_at == engine.clock.steady() + 600
    assert engine.lease_service.renew("main", lease.id, 1200.0).lease.expires_at == engine.clock.steady() + 1200
    engine.clock.advance(1100)
    renewed = engine.lease_service.renew("main", lease.id, 86400.0)
    assert (renewed.lease.expires_at, renewed.renewable) == (end, False)
    assert [e for e in engine.emitted if isinstance(e, LeaseRenewed)] == [
        LeaseRenewed(agent="main", provider="anthropic", profile=A, lease=lease.id)
    ] * 3
    engine.clock.advance(2000)
    with pytest.raises(LeaseExpired):
        engine.lease_service.renew("main", lease.id)
    assert engine.emitted[-2:] == [
        LeaseRevoked(agent="main", provider="anthropic", profile=A, reason="max_ttl", lease=lease.id),
        RenewalDenied(agent="main", lease=lease.id, reason="LEASE_EXPIRED"),
    ]
    with pytest.raises(LeaseNotFound):
        engine.lease_service.renew("main", lease.id)


async def test_a_renewal_ends_with_the_credential(engine: Engine) -> None:
    """And `renewable` says whether another would gain anything."""
    engine.put(profile(A, expires_at=engine.clock.now() + 1000))
    first = engine.lease_service.acquire("main", ANY)
    assert first.renewable
    engine.clock.advance(500)
    granted = engine.lease_service.renew("main", first.lease.id)
    assert granted.lease.expires_at == engine.clock.steady() + 500
    assert not granted.renewable
    engine.put(profile(A, "new", expires_at=engine.clock.now() + 86400))
    granted = engine.lease_service.renew("main", first.lease.id)
    assert granted.lease.expires_at == engine.clock.steady() + 900
    assert granted.renewable


async def test_a_renewal_returns_the_newest_material(engine: Engine) -> None:
    """With a greater version."""
    granted = engine.lease_service.acquire("main", replace(ANY, profile=A))
    engine.put(profile(A, "rotated"), profile(B, "secret-b"))
    renewed = engine.lease_service.renew("main", granted.lease.id)
    assert renewed.held.profile.secret == SecretValue("rotated")
    assert renewed.held.version > granted.held.version
    assert renewed.lease.id == granted.lease.id


async def test_a_credential_that_expired_a_moment_ago_is_not_renewed_on(engine: Engine) -> None:
    """Though nobody has noticed yet: the lease moves on."""
    lease = acquire(engine)
    engine.put(profile(A, "short", expires_at=engine.clock.now() + 10), profile(B))
    engine.clock.advance(10)
    renewed = engine.lease_service.renew("main", lease.id)
    assert (renewed.lease.profile, renewed.lease.expires_at) == (B, engine.clock.steady() + 900)


@pytest.mark.parametrize("ttl", [0.0, -5.0])
async def test_renewal_without_effect_is_refused(engine: Engine, ttl: float) -> None:
    """The lease lives on as it was; also when its profile cannot serve, nothing is moved for a malformed request."""
    lease = acquire(engine)
    engine.put(profile(A, None), profile(B))
    with pytest.raises(InvalidArgument):
        engine.lease_service.renew("main", lease.id, ttl)
    assert list(engine.lease_admin.active()) == [lease]


async def test_lease_belongs_to_its_agent(engine: Engine) -> None:
    """To another agent it does not exist."""
    lease = acquire(engine)
    with pytest.raises(LeaseNotFound):
        engine.lease_service.renew("other", lease.id)
    with pytest.raises(LeaseNotFound):
        engine.lease_service.report("other", lease.id, Outcome.AUTH)
    engine.lease_service.revoke("other", lease.id)
    assert engine.lease_service.renew("main", lease.id).lease.profile == A


# -- failover of leases without a stream -------------------------------------------------------------------------------


def fail(engine: Engine, profile_id: str, how: str) -> None:
    """Something happens to the profile."""
    if how == "vanish":
        engine.put(*(profile(i) for i in (A, B) if i != profile_id))
        return
    lease = acquire(engine, profile=profile_id)
    outcome = {"rejection": Outcome.AUTH, "cooldown": Outcome.RATE_LIMIT, "billing": Outcome.BILLING}[how]
    engine.lease_service.report("main", lease.id, outcome)
    if outcome is Outcome.BILLING:
        engine.clock.advance(MINUTE)
        engine.lease_service.report("main", lease.id, outcome)
    engine.lease_service.revoke("main", lease.id)


@pytest.mark.parametrize("how", ["vanish", "rejection", "cooldown", "billing"])
async def test_a_lease_moves_when_it_is_renewed(engine: Engine, how: str) -> None:
    """Not before: until then its holder works with what it was given. The lease stays the same, but for its profile."""
    lease = acquire(engine)
    fail(engine, A, how)
    assert list(engine.lease_admin.active()) == [lease]
    renewed = engine.lease_service.renew("main", lease.id)
    assert (renewed.lease.id, renewed.lease.profile, renewed.held.profile.id) == (lease.id, B, B)
    assert renewed.lease.max_expires_at == lease.max_expires_at
    assert [held.profile for held in restarted(engine).lease_admin.active()] == [B]


@pytest.mark.parametrize("how", ["rejection", "billing"])
async def test_a_lease_on_a_named_profile_never_moves(engine: Engine, how: str) -> None:
    """Its renewal fails, and it lives on until its end: when the profile is back, so is the lease."""
    lease = acquire(engine, profile=A)
    fail(engine, A, how)
    with pytest.raises(NoUsableProfile):
        engine.lease_service.renew("main", lease.id)
    assert list(engine.lease_admin.active()) == [lease]
    engine.put(profile(A, "new"), profile(B))
    assert engine.lease_service.renew("main", lease.id).lease.profile == A


async def test_a_named_profile_in_cooldown_serves_on(engine: Engine) -> None:
    """There is nothing else that could."""
    lease = acquire(engine, profile=A)
    fail(engine, A, "cooldown")
    assert engine.lease_service.renew("main", lease.id).lease.profile == A


async def test_when_everything_cools_a_lease_stays_or_goes_to_the_soonest(engine: Engine) -> None:
    """It is served all the same."""
    lease = acquire(engine)
    fail(engine, A, "cooldown")
    engine.clock.advance(10)
    fail(engine, B, "cooldown")
    assert engine.lease_service.renew("main", lease.id).lease.profile == A


async def test_when_nothing_can_serve_the_renewal_says_why(engine: Engine) -> None:
    """Each candidate's reason, as acquiring would."""
    lease = acquire(engine)
    for one in (A, B):
        fail(engine, one, "rejection")
    with pytest.raises(NoUsableProfile) as caught:
        engine.lease_service.renew("main", lease.id)
    assert set(caught.value.metadata) == {A, B}
    assert active(engine) == [lease.id]


async def test_a_lease_never_carries_another_providers_secret(engine: Engine) -> None:
    """Should a profile id come to mean another vendor, it is gone for the leases of the first."""
    lease = acquire(engine, profile=A)
    engine.put(replace(profile(A, "of-openai"), provider="openai"))
    with pytest.raises(BrokerError):
        engine.lease_service.renew("main", lease.id)
    with pytest.raises(LeaseNotFound):
        engine.lease_service.look(lease.id)
    with pytest.raises(LeaseNotFound):
        engine.lease_service.report("main", lease.id, Outcome.AUTH)


async def test_own_profile_replaces_the_shared_one(engine: Engine) -> None:
    """For its leases, at the next renewal; and back when it goes."""
    mine, others = acquire(engine, profile=A), acquire(engine, "other", profile=A)
    engine.put(profile(A, "secret-a"), profile(A, "own", agent="main"), profile(B))
    secrets = [
        engine.lease_service.renew(agent, i).held.profile.secret for agent, i in (("main", mine.id), ("other", others.id))
    ]
    assert secrets == [SecretValue("own"), SecretValue("secret-a")]
    engine.put(profile(A, "secret-a"), profile(B))
    assert engine.lease_service.renew("main", mine.id).held.profile.secret == SecretValue("secret-a")


# -- report ------------------------------------------------------------------------------------------------------------


async def test_a_rate_limit_cools_down_and_the_lease_moves_on(alone: Engine) -> None:
    """`changed`: another profile serves the lease now, so that trying again makes sense."""
    engine = alone
    lease = acquire(engine)
    assert engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT) is True
    assert engine.registry.usage(("", A)).cooldown_until == engine.clock.now() + MINUTE
    assert engine.lease_service.renew("main", lease.id).lease.profile == B
    reported = OutcomeReported(agent="main", provider="anthropic", profile=A, outcome="rate_limit", lease=lease.id)
    moved = LeaseMoved(agent="main", provider="anthropic", before=A, profile=B, lease=lease.id)
    assert [event for event in engine.emitted if isinstance(event, (OutcomeReported, LeaseMoved))] == [reported, moved]


@pytest.mark.parametrize(
    ("outcome", "retry_after", "cooldown", "disabled"),
    [
        (Outcome.RATE_LIMIT, 7.0, 7.0, 0), (Outcome.TIMEOUT, None, 60.0, 0), (Outcome.BILLING, None, 60.0, 0),
        (Outcome.AUTH, None, 0, 0), (Outcome.FORMAT, 7.0, 0, 0), (Outcome.OK, 7.0, 0, 0),
    ],
)  # fmt: skip
async def test_outcome_causes_the_documented_cooldown(
    alone: Engine, outcome: Outcome, retry_after: float | None, cooldown: float, disabled: float
) -> None:
    """And it is stored when the report is answered. S5: the first billing failure is a cooldown."""
    engine = alone
    lease = acquire(engine)
    engine.lease_service.report("main", lease.id, outcome, retry_after=retry_after)
    engine.store.crash()
    usage = engine.store.load().usage.get(("", A), engine.registry.usage(("", A)))
    now = engine.clock.now()
    assert (usage.cooldown_until, usage.disabled_until) == (cooldown and now + cooldown, disabled and now + disabled)
    assert bool(usage.rejected) == (outcome is Outcome.AUTH)


async def test_rejected_key_serves_no_agent_until_it_is_replaced(alone: Engine) -> None:
    """New material clears the rejection; the same material, listed again or gone and back, does not."""
    engine = alone
    lease = acquire(engine)
    assert engine.lease_service.report("main", lease.id, Outcome.AUTH) is True
    engine.put(profile(A, "secret-a"))
    with pytest.raises(NoUsableProfile):
        acquire(engine)
    engine.put()
    engine.put(profile(A, "secret-a"))
    with pytest.raises(NoUsableProfile):
        acquire(engine)
    engine.put(profile(A, "replaced"))
    assert acquire(engine).profile == A


async def test_lease_on_the_last_profile_stays(engine: Engine) -> None:
    """Nothing changed, so trying again makes no sense; the lease is not ended for it."""
    engine.put(profile(A))
    lease = acquire(engine)
    assert engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT) is False
    assert engine.lease_service.report("main", lease.id, Outcome.AUTH) is False
    assert active(engine) == [lease.id]


async def test_success_ends_the_cooldown(alone: Engine) -> None:
    """What was held against the profile is gone; without anything to heal, nothing is written."""
    engine = alone
    lease = acquire(engine, profile=A)
    engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT)
    assert engine.lease_service.report("main", lease.id, Outcome.OK) is False
    assert not engine.registry.usage(("", A)).cooling(engine.clock.now())
    usage = engine.registry.usage(("", A))
    engine.lease_service.report("main", lease.id, Outcome.OK)
    assert engine.registry.usage(("", A)) == usage


async def test_outcome_of_older_material_is_ignored(alone: Engine) -> None:
    """A request that was under way during a rotation does not condemn the key that replaced its own."""
    engine = alone
    granted = engine.lease_service.acquire("main", replace(ANY, profile=A))
    engine.put(profile(A, "rotated"), profile(B))
    assert engine.lease_service.report("main", granted.lease.id, Outcome.AUTH, version=granted.held.version) is True
    assert engine.registry.usage(("", A)).rejected == ""
    now = engine.lease_service.renew("main", granted.lease.id)
    engine.lease_service.report("main", granted.lease.id, Outcome.AUTH, version=now.held.version)
    assert engine.registry.usage(("", A)).rejected


async def test_concurrent_failures_count_for_their_profile(alone: Engine) -> None:
    """Ten requests under way with one key, ten refusals: its siblings, found in the same listing, stay untouched."""
    engine = alone
    engine.put(*(profile(f"anthropic:{n}") for n in range(5)))
    granted = engine.lease_service.acquire("main", ANY)
    for _ in range(10):
        assert engine.lease_service.report("main", granted.lease.id, Outcome.AUTH, version=granted.held.version) is True
    rejected = [c.id for _, c in engine.registry.all() if c.usage.rejected]
    assert rejected == [granted.lease.profile]


async def test_a_report_on_a_lease_whose_profile_is_gone_finds_another(engine: Engine) -> None:
    """And is counted against nobody."""
    lease = acquire(engine)
    engine.put(profile(B))
    assert engine.lease_service.report("main", lease.id, Outcome.AUTH) is True
    assert engine.registry.usage(("", B)).rejected == ""
    assert engine.lease_service.renew("main", lease.id).lease.profile == B


async def test_report_without_a_lease_is_refused(engine: Engine) -> None:
    """Ended, or never there."""
    with pytest.raises(LeaseNotFound):
        engine.lease_service.report("main", "none", Outcome.OK)


async def test_an_agents_own_profile_has_its_own_record(engine: Engine) -> None:
    """A refusal of its key says nothing of everybody's key of the same id."""
    engine.put(profile(A), profile(A, "own", agent="main"))
    lease = acquire(engine)
    engine.lease_service.report("main", lease.id, Outcome.AUTH)
    assert engine.registry.usage(("main", A)).rejected
    assert not engine.registry.usage(("", A)).rejected
    assert acquire(engine, "other").profile == A
    with pytest.raises(NoUsableProfile):
        acquire(engine)


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_revoking_is_idempotent(engine: Engine) -> None:
    """The first ends the lease, and says so once; what was never there is no error."""
    lease = acquire(engine)
    for _ in range(3):
        engine.lease_service.revoke("main", lease.id)
    engine.lease_service.revoke("main", "never there")
    ends = [e for e in engine.emitted if isinstance(e, LeaseRevoked)]
    assert ends == [LeaseRevoked(agent="main", provider="anthropic", profile=A, reason="revoked", lease=lease.id)]
    assert engine.lease_admin.count() == (0, 0)
    assert restarted(engine).lease_admin.count() == (0, 0)


async def test_expired_leases_end(engine: Engine) -> None:
    """Each at its instant, with the reason: it was not renewed, or could not be any more."""
    acquire(engine, ttl=60.0)
    acquire(engine, ttl=3600.0)
    assert engine.lease_table.tick() == engine.clock.steady() + 60
    engine.clock.advance(59.9)
    engine.lease_table.tick()
    assert engine.lease_admin.count() == (2, 0)
    engine.clock.advance(0.1)
    assert active(engine) != []
    assert engine.lease_table.tick() == engine.clock.steady() + 3540
    assert engine.lease_admin.count() == (1, 0)
    engine.clock.advance(1e9)
    assert engine.lease_table.tick() == float("inf")
    assert [e.reason for e in engine.emitted if isinstance(e, LeaseRevoked)] == ["expired", "max_ttl"]


async def test_expired_lease_is_not_listed(engine: Engine) -> None:
    """What is listed lives."""
    acquire(engine, ttl=60.0)
    engine.clock.advance(60)
    assert active(engine) == []


@pytest.mark.parametrize(
    ("asked", "ended"),
    [
        ({"agent": "main"}, [0, 1, 3]), ({"agent": "other"}, [2]), ({"profile": A}, [0, 2]), ({"provider": "openai"}, [3]),
        ({"agent": "main", "profile": A}, [0]), ({"agent": "nobody"}, []), ({"lease_id": "2"}, [2]),
        ({"lease_id": "2", "agent": "main"}, []),
    ],
)  # fmt: skip
async def test_an_operator_lists_and_revokes_what_matches_all(engine: Engine, asked: dict[str, str], ended: list[int]) -> None:
    """Of every agent, oldest first, streams as well."""
    engine.put(profile(A), profile(B), profile("openai:x"))
    leases = [
        acquire(engine, profile=A), acquire(engine, profile=B), acquire(engine, "other", profile=A),
        acquire(engine, provider="openai"),
    ]  # fmt: skip
    engine.lease_service.renew("main", leases[0].id)
    if "lease_id" in asked:
        asked = {**asked, "lease_id": leases[int(asked["lease_id"])].id}
    else:
        assert active(engine, **asked) == [leases[n].id for n in ended]
    assert engine.lease_admin.revoke_matching(**asked) == len(ended)
    assert active(engine) == [lease.id for n, lease in enumerate(leases) if n not in ended]
    assert engine.lease_admin.revoke_matching(**asked) == 0


async def test_revocation_needs_a_selection(engine: Engine) -> None:
    """No condition is no wish."""
    acquire(engine)
    with pytest.raises(InvalidArgument):
        engine.lease_admin.revoke_matching()
    assert engine.lease_admin.count() == (1, 0)


async def test_leases_may_end_while_they_are_listed(engine: Engine) -> None:
    """A listing is of the moment in which it began."""
    ids = [acquire(engine).id for _ in range(5)]
    seen = []
    for lease in engine.lease_admin.active():
        seen.append(lease.id)
        engine.lease_admin.revoke_matching(agent="main")
    assert seen == ids


async def test_draining_grants_nothing_more_and_keeps_what_is_stored(engine: Engine) -> None:
    """Streams are told to look for another broker; other leases are renewed on and are there after the restart."""
    lease = acquire(engine)
    with engine.lease_service.stream("main", ANY):
        engine.lease_admin.drain()
        for ask in (engine.lease_service.acquire, engine.lease_service.stream):
            with pytest.raises(ShuttingDown):
                ask("main", ANY)
        assert engine.lease_admin.count() == (1, 0)
    assert [e.reason for e in engine.emitted if isinstance(e, LeaseRevoked)] == ["shutting_down"]
    assert engine.lease_service.renew("main", lease.id).lease.profile == lease.profile
    again = restarted(engine)
    again.put(profile(A), profile(B))
    assert again.lease_service.renew("main", lease.id).lease.id == lease.id


# -- restart -----------------------------------------------------------------------------------------------------------


async def test_a_restart_ends_no_lease(engine: Engine) -> None:
    """Nor changes it; a stream's ends with the stream."""
    lease = acquire(engine, ttl=600.0)
    with engine.lease_service.stream("main", ANY):
        again = restarted(engine)
    assert list(again.lease_admin.active()) == [lease]
    again.put(profile(A, "secret-a"), profile(B, "secret-b"))
    engine.clock.advance(100)
    assert again.lease_service.renew("main", lease.id).lease.expires_at == engine.clock.steady() + 600
    engine.clock.advance(600)
    again.lease_table.tick()
    assert again.lease_admin.count() == (0, 0)


async def test_a_lease_is_stored_within_milliseconds(engine: Engine) -> None:
    """Without anything else happening; so `kill -9` loses none that is older. What changes it is stored before the answer."""
    lease = acquire(engine)
    async with asyncio.timeout(60):
        while not engine.store.load().leases:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.001)
    assert engine.store.load().leases == (lease,)
    engine.clock.advance(10)
    renewed = engine.lease_service.renew("main", lease.id)
    engine.store.crash()
    assert engine.store.load().leases == (renewed.lease,)
    engine.lease_service.revoke("main", lease.id)
    engine.store.crash()
    assert engine.store.load().leases == ()


async def test_a_restart_keeps_quotas(engine: Engine) -> None:
    """What was held before counts."""
    acquire(engine)
    again = restarted(engine, agents={"main": AgentPolicy(providers=frozenset({"*"}), max_leases=1)})
    again.put(profile(A))
    with pytest.raises(LeaseLimit):
        acquire(again)


@pytest.mark.parametrize(
    "policy",
    [
        {}, {"main": AgentPolicy()}, {"main": AgentPolicy(providers=frozenset({"openai"}))},
        {"main": AgentPolicy(providers=frozenset({"*"}), profiles=frozenset({B}))},
    ],
)  # fmt: skip
async def test_what_policy_no_longer_allows_ends_with_the_restart(engine: Engine, policy: dict[str, AgentPolicy]) -> None:
    """Also in the store."""
    lease = acquire(engine)
    again = restarted(engine, agents=policy)
    assert again.lease_admin.count() == (0, 0)
    assert again.emitted == [LeaseRevoked(agent="main", provider="anthropic", profile=A, reason="policy", lease=lease.id)]
    with pytest.raises(LeaseNotFound):
        again.lease_service.renew("main", lease.id)
    again.store.flush()
    assert again.store.load().leases == ()


async def test_removed_provider_ends_its_leases(engine: Engine) -> None:
    """Nothing would know how its requests look."""
    acquire(engine)
    again = restarted(engine, providers={"openai": engine.catalog.providers["openai"]})
    assert again.lease_admin.count() == (0, 0)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"requests": ()}, r'providers\.acme\.requests does not list .* list them, .* or \["\* /\*\*"\] for all requests'),
        ({"requests": ("!/keys*",)}, r"providers\.acme\.requests lists only requests that the gateway refuses: list them"),
        ({"requests": ("/**",), "base_url": ""}, r"no address: set providers\.acme\.base_url"),
    ],
)
async def test_a_provider_without_a_list_of_requests_is_not_brokered(facts: dict[str, Any], why: str) -> None:
    """S1: asked for, or where the agent may have nothing else; raw leases are as they were. What to write is said."""
    acme = replace(Provider(id="acme", base_url="https://api.acme.example"), **facts)
    agents = {"main": ANYTHING, "token-only": replace(ANYTHING, deliveries=(Delivery.BROKERED,))}
    engine = Engine(providers={"acme": acme}, agents=agents, deliveries=frozenset(Delivery))
    engine.put(profile("acme:a"))
    for agent, delivery in (("main", "brokered"), ("token-only", "brokered"), ("token-only", "")):
        with pytest.raises(DeliveryNotAllowed, match=why):
            engine.lease_service.acquire(agent, LeaseRequest(provider="acme", delivery=delivery))
    assert not engine.lease_service.acquire("main", LeaseRequest(provider="acme")).lease.brokered


async def test_brokered_lease_ends_without_its_request_rules() -> None:
    """S1: the configuration is asked again, as about the rest of the policy."""
    acme = Provider(id="acme", base_url="https://api.acme.example", requests=("/**",))
    both = frozenset(Delivery)
    engine = Engine(providers={"acme": acme}, deliveries=both)
    engine.put(profile("acme:a"))
    lease = engine.lease_service.acquire("main", LeaseRequest(provider="acme", delivery="brokered")).lease
    engine.store.flush()
    kept = restarted(engine, providers={"acme": acme}, deliveries=both)
    assert [one.id for one in kept.lease_admin.active()] == [lease.id]
    ended = restarted(engine, providers={"acme": replace(acme, requests=())}, deliveries=both)
    assert ended.lease_admin.count() == (0, 0)


async def test_unread_source_ends_no_lease_after_a_restart(engine: Engine) -> None:
    """The holder is told to come again, and keeps its lease."""
    lease = acquire(engine, profile=A)
    again = restarted(engine, sources=(FakeSource("slow"),))
    with pytest.raises(SourceNotSynced):
        again.lease_service.renew("main", lease.id)
    again.put(profile(A, "secret-a"))
    assert again.lease_service.renew("main", lease.id).held.profile.secret == SecretValue("secret-a")


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [3600.0, -3600.0])
async def test_a_jump_of_the_wall_clock_leaves_what_is_left_of_a_lease(engine: Engine, by: float) -> None:
    """Only its wall-clock instants move; that is what is stored, too."""
    lease = acquire(engine, ttl=600.0)
    before = engine.lease_table.offset()
    engine.clock.jump_wall(by)
    engine.expiry.turn()
    assert engine.lease_table.offset() == before + by
    assert engine.lease_service.look(lease.id).offset == before + by
    assert list(restarted(engine).lease_admin.active()) == [lease]
    engine.clock.advance(599)
    engine.expiry.turn()
    assert engine.lease_admin.count() == (1, 0)
    engine.clock.advance(1)
    engine.expiry.turn()
    assert engine.lease_admin.count() == (0, 0)


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_ended_leases_use_no_memory(engine: Engine) -> None:
    """The agenda is as long as what lives, not as what was."""
    for _ in range(20_000):
        engine.lease_service.revoke("main", engine.lease_service.acquire("main", ANY).lease.id)
        engine.emitted.clear()
    assert engine.lease_admin.count() == (0, 0)
    assert len(engine.lease_table.deadlines) < 1100


async def test_renewed_lease_uses_constant_memory(engine: Engine) -> None:
    """Nor do renewals pile up."""
    lease = acquire(engine)
    for n in range(5000):
        engine.lease_service.renew("main", lease.id, 900.0 + n % 7)
    assert len(engine.lease_table.deadlines) < 1100


async def test_leases_do_not_depend_on_the_mode(engine: Engine) -> None:
    """A refreshable login bounds no lease; a token does."""
    ends = engine.clock.now() + 60
    login = replace(profile(A, mode=Mode.OAUTH, expires_at=ends), refresh=SecretValue("r"))
    engine.put(login, profile(B, mode=Mode.TOKEN, expires_at=ends))
    assert acquire(engine, profile=A).expires_at == engine.clock.steady() + 900
    assert acquire(engine, profile=B).expires_at == engine.clock.steady() + 60


# -- tokens ------------------------------------------------------------------------------------------------------------

BROKERED = replace(ANY, delivery="brokered")


async def test_a_token_is_found_by_its_digest_and_is_nowhere_else() -> None:
    """The holder has it, this process knows it; what is stored, told and printed does not tell it."""
    engine = Engine(deliveries=frozenset(Delivery))
    engine.put(profile(A, "secret-a"))
    granted = engine.lease_service.acquire("main", BROKERED)
    assert granted.token is not None
    token = granted.token.reveal()
    assert granted.lease.token == digest(token)
    assert engine.lease_service.renew("main", granted.lease.id).token == granted.token
    engine.store.flush()
    seen = repr((granted, engine.emitted, engine.store.load(), vars(engine.store)))
    assert token not in seen
    assert token[4:] not in seen


async def test_a_policy_may_allow_tokens_alone() -> None:
    """Who asks for nothing is given one; a raw lease of before ends with the policy that allowed it."""
    engine = Engine(deliveries=frozenset(Delivery))
    engine.put(profile(A, "secret-a"))
    raw = engine.lease_service.acquire("main", ANY).lease
    token = engine.lease_service.acquire("main", BROKERED).lease
    policy = replace(ANYTHING, deliveries=(Delivery.BROKERED,))
    after = restarted(engine, agents={"main": policy}, deliveries=frozenset(Delivery))
    after.put(profile(A, "secret-a"))
    assert (raw.delivery, active(after)) == (Delivery.RAW, [token.id])
    assert after.lease_service.acquire("main", ANY).lease.brokered
    with pytest.raises(DeliveryNotAllowed):
        after.lease_service.acquire("main", replace(ANY, delivery="raw"))


async def test_without_a_gateway_there_are_no_tokens() -> None:
    """Also those of before end, when it is gone."""
    engine = Engine(deliveries=frozenset(Delivery))
    engine.put(profile(A, "secret-a"))
    engine.lease_service.acquire("main", BROKERED)
    after = restarted(engine)
    assert active(after) == []


@pytest.mark.parametrize("deliveries", [(Delivery.RAW,), (Delivery.BROKERED,), (Delivery.RAW, Delivery.BROKERED)])
async def test_missing_gateway_has_its_own_cause(deliveries: tuple[Delivery, ...]) -> None:
    """S7: `exec` hands out a key in a token's place for the one reason, and never for the other."""
    policy = replace(ANYTHING, deliveries=deliveries)
    without, beside = Engine(agents={"main": policy}), Engine(agents={"main": policy}, deliveries=frozenset(Delivery))
    without.put(profile(A))
    beside.put(profile(A))
    with pytest.raises(DeliveryNotAllowed, match="no gateway runs") as refused:
        without.lease_service.acquire("main", BROKERED)
    assert refused.value.metadata == {"cause": "no_gateway"}
    assert [event for event in without.emitted if isinstance(event, LeaseDenied)] == []
    if Delivery.BROKERED not in deliveries:
        with pytest.raises(DeliveryNotAllowed) as refused:
            beside.lease_service.acquire("main", BROKERED)
        assert "cause" not in refused.value.metadata


async def test_there_are_no_tokens_for_a_provider_without_an_address() -> None:
    """The gateway would not know where to go: that is said before there is a lease; who names none is given a raw one."""
    engine = Engine(
        agents={"main": replace(ANYTHING, deliveries=(Delivery.BROKERED, Delivery.RAW))}, deliveries=frozenset(Delivery)
    )
    engine.put(profile("microsoft-foundry:a"))
    asked = LeaseRequest(provider="microsoft-foundry")
    with pytest.raises(DeliveryNotAllowed, match="base_url"):
        engine.lease_service.acquire("main", replace(asked, delivery="brokered"))
    assert engine.lease_service.acquire("main", asked).lease.delivery is Delivery.RAW


async def test_report_about_a_brokered_lease_is_not_counted() -> None:
    """The gateway has seen it, and its own refusals say nothing of a key. The agent learns whether to try again."""
    engine = Engine(deliveries=frozenset(Delivery), order={"anthropic": (A, B)})
    engine.put(profile(A, "secret-a"), profile(B, "secret-b"))
    granted = engine.lease_service.acquire("main", BROKERED)
    for outcome in (Outcome.AUTH, Outcome.RATE_LIMIT, Outcome.BILLING):
        assert engine.lease_service.report("main", granted.lease.id, outcome, version=granted.held.version) is False
    assert engine.registry.usage(("", A)).error_count == 0
    engine.outcomes.note(granted.held, Outcome.RATE_LIMIT, agent="main")
    assert engine.lease_service.report("main", granted.lease.id, Outcome.RATE_LIMIT, version=granted.held.version) is True


async def test_a_named_holder_of_tokens_has_one_lease(engine: Engine) -> None:
    """C1: a helper that asks a hundred times gets one token, and holds one lease; another holder has its own. A raw lease has
    no holder, and after a restart the token is another, for the broker knows the old one no more."""
    engine = restarted(engine, deliveries=frozenset(Delivery))
    engine.put(profile(A, "secret-a"), profile(B, "secret-b"))
    asked = LeaseRequest(profile=A, delivery="brokered", holder="key")
    tokens = {engine.lease_service.acquire("main", asked).token for _ in range(5)}
    assert len(tokens) == 1
    assert engine.lease_admin.count() == (1, 0)
    assert engine.lease_service.acquire("main", replace(asked, holder="other")).token not in tokens
    assert engine.lease_service.acquire("other", asked).token not in tokens
    assert engine.lease_admin.count() == (3, 0)
    for _ in range(3):
        engine.lease_service.acquire("main", replace(asked, delivery="raw"))
    assert engine.lease_admin.count() == (6, 0)
    again = restarted(engine, deliveries=frozenset(Delivery))
    again.put(profile(A, "secret-a"), profile(B, "secret-b"))
    assert again.lease_service.acquire("main", asked).token not in tokens
