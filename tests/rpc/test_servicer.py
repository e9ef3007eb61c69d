"""The `Broker` service over a real socket: what is asked, answered and refused. Streams have a file of their own."""

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from equabot.broker.v1 import admin_pb2
from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.material import SourceUnavailable, UnitsListed
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.provider import Mode
from tests.fakes.clock import FakeClock
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.source import FakeSource
from tests.fakes.state import MemoryStateStore
from tests.rpc.conftest import Serve
from tests.rpc.serving import refused

SECRET = "sk-ant-api03-the-one-and-only"
NOW = 1_800_000_000


def ask(provider: str = "anthropic", **fields: Any) -> pb.AcquireLeaseRequest:
    ttl = fields.pop("ttl", None)
    if ttl is not None:
        fields["ttl"] = Duration(seconds=int(ttl // 1), nanos=int(ttl % 1 * 1e9))
    return pb.AcquireLeaseRequest(provider=provider, **fields)


def holding(*secrets: str, **options: Any) -> Engine:
    """An engine whose only source holds a profile `anthropic:<letter>` for every secret."""
    engine = Engine(**options)
    engine.hold(*(profile(f"anthropic:{letter}", secret) for letter, secret in zip("abcdef", secrets, strict=False)))
    return engine


# -- leases ------------------------------------------------------------------------------------------------------------


async def test_acquire_grants_what_a_request_needs(serve: Serve) -> None:
    """Secret, headers, environment, address, and until when."""
    async with serve(holding(SECRET)) as served:
        lease = await (await served.broker()).AcquireLease(ask(ttl=60))
        assert served.acquires == [0.0]
    assert (lease.provider, lease.profile, lease.mode, lease.delivery) == ("anthropic", "anthropic:a", "api_key", "raw")
    assert lease.secret == SECRET
    assert dict(lease.headers) == {"x-api-key": SECRET}
    assert dict(lease.env) == {"ANTHROPIC_API_KEY": SECRET}
    assert lease.base_url == "https://api.anthropic.com"
    assert (lease.issued_at.seconds, lease.expires_at.seconds, lease.max_expires_at.seconds) == (NOW, NOW + 60, NOW + 3600)
    assert lease.renewable
    assert not lease.HasField("credential_expires_at")


@pytest.mark.parametrize("request_", [ask("Anthropic"), ask("", profile="anthropic:a"), ask("anthropic", profile="a")], ids=str)
async def test_names_may_be_said_in_several_ways(serve: Serve, request_: pb.AcquireLeaseRequest) -> None:
    """A provider by id or alias, a profile id alone, or a profile's name with its provider."""
    async with serve(holding(SECRET)) as served:
        assert (await (await served.broker()).AcquireLease(request_)).profile == "anthropic:a"


@pytest.mark.parametrize(("asked", "granted"), [(10 * 365 * 86400.0, 3600), (315_576_000_000.0, 3600), (0.5, 0.5), (None, 900)])
async def test_a_lease_is_as_long_as_asked_and_allowed(serve: Serve, asked: float | None, granted: float) -> None:
    """Ten years are cut to the policy; nothing said means the default."""
    async with serve(holding(SECRET)) as served:
        lease = await (await served.broker()).AcquireLease(ask(ttl=asked))
    assert lease.expires_at.ToNanoseconds() - lease.issued_at.ToNanoseconds() == granted * 1e9


async def test_a_lease_ends_with_its_credential(serve: Serve) -> None:
    """What is left of the credential is a limit too, and the lease says when that is."""
    engine = Engine()
    engine.hold(profile("anthropic:t", "tok", mode=Mode.TOKEN, expires_at=NOW + 100.0))
    async with serve(engine) as served:
        lease = await (await served.broker()).AcquireLease(ask())
    assert lease.expires_at.seconds == lease.credential_expires_at.seconds == NOW + 100
    assert not lease.renewable


async def test_renew_counts_from_now_and_brings_the_newest_material(serve: Serve) -> None:
    """Same lease, later end, new secret, greater version; never past the maximum."""
    engine = holding("old")
    async with serve(engine) as served:
        broker = await served.broker()
        before = await broker.AcquireLease(ask(ttl=100))
        engine.clock.advance(60)
        engine.hold(profile("anthropic:a", "new"))
        await engine.settle()
        after = await broker.RenewLease(pb.RenewLeaseRequest(lease_id=before.id))
        assert (after.id, after.secret, after.expires_at.seconds) == (before.id, "new", NOW + 160)
        assert after.version > before.version
        longest = await broker.RenewLease(pb.RenewLeaseRequest(lease_id=before.id, ttl=Duration(seconds=10**6)))
        assert (longest.expires_at, longest.renewable) == (before.max_expires_at, False)


async def test_revoke_is_idempotent(serve: Serve) -> None:
    """A revoked lease stays revoked, and revoking it again is not an error."""
    async with serve(holding(SECRET)) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ask())
        for lease_id in (lease.id, lease.id, "never-there"):
            await broker.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease_id))
        assert (await refused(broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id)))).reason == "LEASE_NOT_FOUND"
        assert served.engine.lease_admin.count() == (0, 0)


async def test_an_outcome_moves_the_lease_to_another_profile(serve: Serve) -> None:
    """A rate limit cools the profile down. The holder learns that a retry makes sense, and a renewal brings the next
    profile."""
    async with serve(holding("one", "two")) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ask())
        report = pb.ReportOutcomeRequest(
            lease_id=lease.id, outcome=pb.RATE_LIMIT, retry_after=Duration(seconds=30), version=lease.version
        )
        assert (await broker.ReportOutcome(report)).changed
        other = await broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id))
        assert {lease.secret, other.secret} == {"one", "two"}
        listed = await broker.ListProfiles(pb.ListProfilesRequest(provider="anthropic"))
        cooling = {status.id: status.cooldown_until.seconds for status in listed.profiles}
        assert cooling == {lease.profile: NOW + 30, other.profile: 0}
        report = pb.ReportOutcomeRequest(lease_id=lease.id, outcome=pb.OK)
        assert not (await broker.ReportOutcome(report)).changed


# -- profiles and pins -------------------------------------------------------------------------------------------------


async def test_profiles_are_listed_in_order_without_secrets(serve: Serve) -> None:
    """In the order in which they would be tried, with state and reason; the secret at most as a label."""
    engine = Engine()
    engine.hold(
        profile("anthropic:late", "a" * 40, mode=Mode.TOKEN, expires_at=NOW - 60.0),
        profile("anthropic:key", SECRET),
        profile("openai:key", "sk-other"),
    )
    async with serve(engine) as served:
        broker = await served.broker()
        listed = (await broker.ListProfiles(pb.ListProfilesRequest(provider="anthropic"))).profiles
        everything = (await broker.ListProfiles(pb.ListProfilesRequest())).profiles
    assert [(s.id, s.state, s.usable, s.next) for s in listed] == [
        ("anthropic:key", "ok", True, True),
        ("anthropic:late", "expired", False, False),
    ]
    assert listed[1].reason == "expired 1m ago; replace it in fake"
    assert [s.id for s in everything] == ["anthropic:key", "anthropic:late", "openai:key"]
    assert listed[0].label == "sk-a…only"
    assert SECRET not in str(everything)


async def test_labels_are_for_those_who_may_hold_the_secret(serve: Serve) -> None:
    """S12: an agent that may have brokered leases alone is shown no character of a key. An operator sees the label."""
    token = AgentPolicy(providers=frozenset({"*"}), deliveries=(Delivery.BROKERED,))
    async with serve(holding(SECRET, agents={"main": ANYTHING, "other": token})) as served:
        admin, asked = await served.admin(), pb.ListProfilesRequest()
        labels = {name: (await (await served.broker(name)).ListProfiles(asked)).profiles[0].label for name in ("main", "other")}
        operator = await admin.ListAllProfiles(admin_pb2.ListAllProfilesRequest(agent="other"))
    assert labels == {"main": "sk-a…only", "other": ""}
    assert [status.label for status in operator.agents[0].profiles] == ["sk-a…only"]


async def test_a_pin_holds_for_its_session_until_it_is_taken_away(serve: Serve) -> None:
    """Other sessions and other agents are not concerned."""
    async with serve(holding("one", "two", "three", agents={"main": ANYTHING, "other": ANYTHING})) as served:
        main, other = await served.broker(), await served.broker("other")
        pin = pb.PinProfileRequest(session="talk", provider="anthropic", profile="b")
        await main.PinProfile(pin)
        for _ in range(3):
            assert (await main.AcquireLease(ask(session="talk"))).profile == "anthropic:b"
        assert {(await other.AcquireLease(ask(session=s))).profile for s in ("talk", "x", "y")} != {"anthropic:b"}
        listed = await main.ListProfiles(pb.ListProfilesRequest(provider="anthropic", session="talk"))
        assert [(s.id, s.next) for s in listed.profiles if s.pinned] == [("anthropic:b", True)]
        for _ in range(2):
            await main.UnpinProfile(pb.UnpinProfileRequest(session="talk", provider="anthropic"))
        listed = await main.ListProfiles(pb.ListProfilesRequest(provider="anthropic", session="talk"))
        assert not any(s.pinned for s in listed.profiles)


async def test_pins_survive_the_death_of_the_broker(serve: Serve) -> None:
    """They are on disk before the caller gets the answer."""
    store = MemoryStateStore()
    async with serve(holding("one", store=store)) as served:
        await (await served.broker()).PinProfile(pb.PinProfileRequest(session="talk", profile="anthropic:a", strict=True))
        store.crash()
    assert store.load().pins == {("main", "talk", "anthropic"): ("anthropic:a", True)}


# -- refusals ----------------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[str, pb.AcquireLeaseRequest]] = {
    "zero ttl": ("INVALID_ARGUMENT", ask(ttl=0)),
    "negative ttl": ("INVALID_ARGUMENT", ask(ttl=-1)),
    "nothing named": ("INVALID_ARGUMENT", pb.AcquireLeaseRequest()),
    "a profile of another provider": ("INVALID_ARGUMENT", ask(profile="openai:a")),
    "no profile id": ("INVALID_ARGUMENT", ask(profile="anthropic:")),
    "a session too long": ("INVALID_ARGUMENT", ask(session="x" * 257)),
    "a session with a bell": ("INVALID_ARGUMENT", ask(session="\a")),
    "an unknown provider": ("PROVIDER_UNKNOWN", ask("athropic")),
    "an unknown profile": ("PROFILE_NOT_FOUND", ask(profile="anthropic:nope")),
    "a provider without a profile": ("NO_USABLE_PROFILE", ask("mistral")),
    "an expired profile": ("NO_USABLE_PROFILE", ask("openai")),
    "a provider not allowed": ("POLICY_DENIED", ask("groq")),
    "a profile not allowed": ("POLICY_DENIED", ask(profile="anthropic:b")),
    "a delivery that is none": ("DELIVERY_NOT_ALLOWED", ask(delivery="carrier pigeon")),
    "a delivery nobody serves": ("DELIVERY_NOT_ALLOWED", ask(delivery="brokered")),
}


def strict() -> Engine:
    """Narrow bounds, and a profile for every refusal."""
    policy = AgentPolicy(
        providers=frozenset({"anthropic", "openai", "mistral"}),
        profiles=frozenset({"anthropic:a", "anthropic:nope", "openai:late"}),
        deliveries=(Delivery.RAW,),
        max_leases=2,
    )
    engine = Engine(agents={"main": policy})
    engine.hold(
        profile("anthropic:a", SECRET), profile("anthropic:b", SECRET), profile("openai:late", SECRET, expires_at=NOW - 9.0)
    )
    return engine


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_cannot_be_granted_is_refused_with_its_reason(serve: Serve, name: str) -> None:
    """By AcquireLease and StreamLease alike; no lease is left behind, and no secret is in the error."""
    reason, request = REFUSALS[name]
    async with serve(strict()) as served:
        broker = await served.broker()
        call: Any = broker.StreamLease(request)
        for failed in (await refused(broker.AcquireLease(request)), await refused(call.read())):
            assert (failed.reason, failed.domain) == (reason, "equabot.dev")
            assert failed.details
            assert SECRET not in failed.raw
        assert served.engine.lease_admin.count() == (0, 0)
        assert len(served.acquires) == 2


async def test_the_reason_is_given_for_each_profile(serve: Serve) -> None:
    """Every candidate's reason is in the metadata."""
    engine = Engine()
    engine.hold(profile("openai:late", expires_at=NOW - 60.0), profile("openai:bad", None, fault="a placeholder"))
    async with serve(engine) as served:
        failed = await refused((await served.broker()).AcquireLease(ask("openai")))
    assert failed.metadata == {"openai:late": "expired 1m ago; replace it in fake", "openai:bad": "a placeholder"}


async def test_ten_thousand_unusable_candidates_are_refused_as_one(serve: Serve) -> None:
    """The refusal arrives, where a header too long would have become another error."""
    engine = Engine()
    engine.hold(*(profile(f"anthropic:{'n' * 60}-{number}", None, fault="a placeholder") for number in range(10_000)))
    async with serve(engine) as served:
        failed = await refused((await served.broker()).AcquireLease(ask()))
    assert failed.reason == "NO_USABLE_PROFILE"
    assert "are not shown" in failed.metadata["more"]


async def test_limits_have_different_reasons(serve: Serve) -> None:
    """Too many at once, or too often: the latter says when to come again."""
    hasty = AgentPolicy(providers=frozenset({"*"}), rate=0.5, burst=1)
    agents = {"main": AgentPolicy(providers=frozenset({"*"}), max_leases=1), "hasty": hasty}
    async with serve(holding(SECRET, agents=agents)) as served:
        main, quick = await served.broker(), await served.broker("hasty")
        await main.AcquireLease(ask())
        assert (await refused(main.AcquireLease(ask()))).reason == "LEASE_LIMIT"
        await quick.AcquireLease(ask())
        failed = await refused(quick.AcquireLease(ask()))
    assert (failed.reason, failed.code, failed.retry_after) == ("RATE_LIMITED", "RESOURCE_EXHAUSTED", 2.0)


async def test_a_lease_that_has_expired_is_not_renewed(serve: Serve) -> None:
    """Late is late: first LEASE_EXPIRED, or LEASE_NOT_FOUND once it has been cleared away."""
    async with serve(holding(SECRET)) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ask(ttl=10))
        served.engine.clock.advance(11)
        failed = await refused(broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id)))
    assert failed.reason in ("LEASE_EXPIRED", "LEASE_NOT_FOUND")


async def test_no_agent_reaches_anothers_lease(serve: Serve) -> None:
    """Knowing its id is not enough: it looks as if there were none, and nothing happens to it."""
    async with serve(holding(SECRET, agents={"main": ANYTHING, "thief": ANYTHING})) as served:
        main, thief = await served.broker(), await served.broker("thief")
        lease = await main.AcquireLease(ask())
        renew = pb.RenewLeaseRequest(lease_id=lease.id)
        report = pb.ReportOutcomeRequest(lease_id=lease.id, outcome=pb.AUTH)
        for failed in (await refused(thief.RenewLease(renew)), await refused(thief.ReportOutcome(report))):
            assert (failed.code, failed.reason) == ("NOT_FOUND", "LEASE_NOT_FOUND")
            assert SECRET not in failed.raw
        await thief.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))
        assert (await main.RenewLease(renew)).secret == SECRET


async def test_one_agents_profile_is_not_shown_to_another(serve: Serve) -> None:
    """Neither in the list nor by name."""
    engine = Engine(agents={"main": ANYTHING, "other": ANYTHING})
    engine.hold(profile("anthropic:own", SECRET, agent="main"))
    async with serve(engine) as served:
        main, other = await served.broker(), await served.broker("other")
        assert (await main.AcquireLease(ask())).secret == SECRET
        assert not (await other.ListProfiles(pb.ListProfilesRequest())).profiles
        assert (await refused(other.AcquireLease(ask(profile="anthropic:own")))).reason == "PROFILE_NOT_FOUND"
        assert (await refused(other.AcquireLease(ask()))).reason == "NO_USABLE_PROFILE"


@pytest.mark.parametrize(
    ("method", "message", "reason"),
    [
        ("RevokeLease", pb.RevokeLeaseRequest(), "INVALID_ARGUMENT"),
        ("RenewLease", pb.RenewLeaseRequest(), "INVALID_ARGUMENT"),
        ("RenewLease", pb.RenewLeaseRequest(lease_id="x"), "LEASE_NOT_FOUND"),
        ("ReportOutcome", pb.ReportOutcomeRequest(outcome=pb.OK), "INVALID_ARGUMENT"),
        ("ReportOutcome", pb.ReportOutcomeRequest(lease_id="x"), "INVALID_ARGUMENT"),
        ("ReportOutcome", pb.ReportOutcomeRequest(lease_id="x", outcome=pb.OK), "LEASE_NOT_FOUND"),
        ("ListProfiles", pb.ListProfilesRequest(provider="athropic"), "PROVIDER_UNKNOWN"),
        ("ListProfiles", pb.ListProfilesRequest(session="x" * 300), "INVALID_ARGUMENT"),
        ("PinProfile", pb.PinProfileRequest(provider="anthropic", profile="a"), "INVALID_ARGUMENT"),
        ("PinProfile", pb.PinProfileRequest(session="s", provider="anthropic"), "INVALID_ARGUMENT"),
        ("PinProfile", pb.PinProfileRequest(session="s", provider="openai", profile="anthropic:a"), "INVALID_ARGUMENT"),
        ("PinProfile", pb.PinProfileRequest(session="s", provider="anthropic", profile="nope"), "PROFILE_NOT_FOUND"),
        ("PinProfile", pb.PinProfileRequest(session="s", profile="anthropic:b"), "POLICY_DENIED"),
        ("UnpinProfile", pb.UnpinProfileRequest(session="s"), "INVALID_ARGUMENT"),
        ("UnpinProfile", pb.UnpinProfileRequest(session="s", provider="athropic"), "PROVIDER_UNKNOWN"),
    ],
    ids=str,
)
async def test_every_method_refuses_what_it_cannot_do(serve: Serve, method: str, message: Any, reason: str) -> None:
    """With a reason, and without a trace."""
    async with serve(strict()) as served:
        failed = await refused(getattr(await served.broker(), method)(message))
    assert failed.reason == reason


async def test_a_draining_broker_sends_callers_on(serve: Serve) -> None:
    """SHUTTING_DOWN is UNAVAILABLE, which clients retry; leases still work until the end."""
    async with serve(holding(SECRET)) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ask())
        served.engine.lease_admin.drain()
        failed = await refused(broker.AcquireLease(ask()))
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
        assert (await broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id))).secret == SECRET


# -- sources that are not read yet -------------------------------------------------------------------------------------


def unread() -> tuple[Engine, FakeSource]:
    """A source that has a key, and one that has not said anything."""
    slow = FakeSource("slow")
    engine = Engine(sources=(FakeSource("quick"), slow))
    engine.hold(profile("openai:a", SECRET))
    return engine, slow


@pytest.mark.parametrize("method", ["AcquireLease", "StreamLease", "PinProfile", "ListProfiles"])
async def test_a_call_waits_for_the_sources(serve: Serve, method: str) -> None:
    """Right after the start, a caller waits for the sources instead of an error."""
    engine, _ = unread()
    async with serve(engine) as served:
        broker = await served.broker()
        message: Any = {
            "PinProfile": pb.PinProfileRequest(session="s", profile="anthropic:a"),
            "ListProfiles": pb.ListProfilesRequest(provider="anthropic"),
        }.get(method, ask())
        call: Any = getattr(broker, method)(message)
        pending = asyncio.ensure_future(call.read() if method == "StreamLease" else _awaited(call))
        done, _ = await asyncio.wait({pending}, timeout=0.1)
        assert not done
        engine.hold(profile("anthropic:a", "late"), source=1)
        answer: Any = await asyncio.wait_for(pending, 60)
        match method:
            case "AcquireLease":
                assert answer.secret == "late"
            case "StreamLease":
                assert answer.lease.secret == "late"
            case "ListProfiles":
                assert [status.id for status in answer.profiles] == ["anthropic:a"]


async def _awaited(call: Any) -> Any:
    return await call


async def test_a_short_deadline_gets_the_reason_for_the_wait(serve: Serve) -> None:
    """Before the deadline, so that it is not a mere timeout; and who can be served by what was read is."""
    engine, _ = unread()
    async with serve(engine) as served:
        broker = await served.broker()
        failed = await refused(broker.AcquireLease(ask(), timeout=1.0))
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "SOURCE_NOT_SYNCED")
        assert "slow" in failed.details
        assert (await broker.AcquireLease(ask("openai"), timeout=1.0)).secret == SECRET


async def test_a_source_that_cannot_be_read_delays_no_call(serve: Serve) -> None:
    """It is known to be unavailable: what the others hold is served, what it may hold is not called absent."""
    engine, slow = unread()
    slow.push(SourceUnavailable("permission denied: chmod it"))
    async with serve(engine) as served:
        broker = await served.broker()
        async with asyncio.timeout(60):
            assert (await broker.AcquireLease(ask("openai"))).secret == SECRET
            assert (await refused(broker.AcquireLease(ask()))).reason == "SOURCE_NOT_SYNCED"


async def test_a_lease_from_before_a_restart_outlives_a_slow_source(serve: Serve) -> None:
    """Renewing it before its source was read fails, and does not end it."""
    store, clock = MemoryStateStore(), FakeClock()
    async with serve(holding("old", store=store, clock=clock)) as served:
        lease = await (await served.broker()).AcquireLease(ask())
    store.crash()
    engine = Engine(store=store, clock=clock)
    async with serve(engine) as served:
        broker = await served.broker()
        renew = pb.RenewLeaseRequest(lease_id=lease.id)
        assert (await refused(broker.RenewLease(renew, timeout=1.0))).reason == "SOURCE_NOT_SYNCED"
        engine.hold(profile("anthropic:a", "old"))
        again = await broker.RenewLease(renew)
        assert (again.id, again.secret, again.version) == (lease.id, "old", lease.version)


async def test_a_source_that_loses_its_profile_ends_what_was_lent_of_it(serve: Serve) -> None:
    """The lease named its profile, which no source holds any more: it is revoked."""
    engine = holding(SECRET)
    async with serve(engine) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ask(profile="a"))
        engine.sources[0].push(UnitsListed(()))
        await engine.settle()
        failed = await refused(broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id)))
        assert failed.reason == "LEASE_NOT_FOUND"


async def test_the_shortest_policy_bounds_a_lease(serve: Serve) -> None:
    """The agent's limit and the broker's: the lesser counts."""
    agents = {"main": AgentPolicy(providers=frozenset({"*"}), max_ttl=120.0)}
    async with serve(holding(SECRET, agents=agents, lease_options=LeaseOptions(default_ttl=900, max_ttl=7200))) as served:
        lease = await (await served.broker()).AcquireLease(ask())
    assert lease.expires_at.seconds == lease.max_expires_at.seconds == NOW + 120
