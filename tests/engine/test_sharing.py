"""One agent's answers are one agent's: what several agents, one of them a liar, make of a profile that they share."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from equabot_broker.domain.answers import ProviderAnswer
from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome
from equabot_broker.domain.errors import NoUsableProfile
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.profiles import State
from equabot_broker.engine.leases.gateway_access import RequestNames
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.leases.streams import NoticeKind
from equabot_broker.telemetry.credential_events import CredentialProbed
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.logins import World
from tests.fakes.probes import ScriptedProbes
from tests.fakes.scripted_endpoint import UNREACHED, granted

A, B = "anthropic:a", "anthropic:b"
ASKED = LeaseRequest(provider="anthropic")
AGENTS = dict.fromkeys(("bad", "good", "third"), ANYTHING)
FAILURES = [Outcome.AUTH, Outcome.RATE_LIMIT, Outcome.BILLING, Outcome.TIMEOUT]
GOOD, REFUSES, EMPTY = (
    ProbeResult(Verdict.OK),
    ProbeResult(Verdict.AUTH, "the provider refused it"),
    ProbeResult(Verdict.BILLING),
)
UNKNOWN = ProbeResult(Verdict.UNKNOWN)


def made(*profiles: str, probes: ScriptedProbes | None = None, **options: Any) -> Engine:
    order = {"anthropic": (A, B)}
    engine = Engine(
        agents=AGENTS, order=order, probes=probes, required=("anthropic",), deliveries=frozenset(Delivery), **options
    )
    engine.put(*(profile(name, f"secret of {name}") for name in profiles or (A, B)))
    return engine


def acquire(engine: Engine, agent: str, profile_id: str = "", delivery: str = "raw") -> Lease:
    provider = "" if profile_id else "anthropic"
    return engine.lease_service.acquire(agent, LeaseRequest(provider=provider, profile=profile_id, delivery=delivery)).lease


def report(engine: Engine, agent: str, outcome: Outcome, **told: Any) -> None:
    """Of its raw lease on A, whether or not it would get one now."""
    lease = next(engine.lease_admin.active(agent=agent, profile=A), None) or acquire(engine, agent, A)
    engine.lease_service.report(agent, lease.id, outcome, **told)


def answered(engine: Engine, agent: str, status: int, **told: Any) -> None:
    """A request of the agent's through the gateway, with A, was answered."""
    found = engine.registry.find(agent, A)
    assert found is not None
    used = RequestNames(
        agent=agent, session="", lease="gone", request="1", provider="anthropic", profile=A, version=found[1].held.version,
        method="POST", route="/v1/messages",
    )  # fmt: skip
    engine.gateway_access.answered(used, ProviderAnswer(status=status, **told))


def state(engine: Engine, agent: str) -> State:
    found = engine.registry.find(agent, A)
    assert found is not None
    return found[1].standing.state


def healthy(engine: Engine) -> list[bool | None]:
    return [engine.readiness.status(name) for name in ("", "provider/anthropic", f"profile/{A}")]


def later(engine: Engine, seconds: float) -> None:
    engine.clock.advance(seconds)
    engine.expiry.turn()


# -- one agent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", FAILURES)
async def test_report_applies_to_its_agent(outcome: Outcome) -> None:
    """S4, S5: it moves on at once. The others are served as before, and health says so."""
    engine = made()
    report(engine, "bad", outcome)
    assert acquire(engine, "bad").profile == B
    assert {acquire(engine, name).profile for name in ("good", "third")} == {A}
    assert healthy(engine) == [True] * 3
    assert engine.registry.judge(("", A)).standing.cooling_until == 0


@pytest.mark.parametrize("status", [401, 402, 403, 408, 429, 529])
async def test_what_the_gateway_sees_of_one_agent_holds_for_that_agent(status: int) -> None:
    """S4, S5: a second credential, an oversized request, a model with a small limit may be the cause of every one of these."""
    engine = made()
    answered(engine, "bad", status, retry_after=3600.0)
    assert acquire(engine, "bad").profile == B
    assert acquire(engine, "good").profile == A
    assert healthy(engine) == [True] * 3


@pytest.mark.parametrize("outcome", FAILURES)
async def test_no_number_of_one_agents_reports_takes_a_profile_from_others(outcome: Outcome) -> None:
    """S4, S5: a day of lies, success and failure in turn."""
    engine = made(A)
    for _ in range(24 * 6):
        for _ in range(3):
            report(engine, "bad", outcome)
            report(engine, "bad", Outcome.OK)
            report(engine, "bad", outcome)
        later(engine, 10 * MINUTE)
        good = acquire(engine, "good")
        assert (good.profile, healthy(engine)) == (A, [True] * 3)
        engine.lease_service.revoke("good", good.id)
        for lease in list(engine.lease_admin.active(agent="bad")):
            engine.lease_service.revoke("bad", lease.id)
        engine.registry._evidence.forget("bad", A)  # so that it is given the profile, and can lie of it, again


@pytest.mark.parametrize("outcome", FAILURES)
async def test_confirmed_failure_applies_to_all_agents(outcome: Outcome) -> None:
    """S4: whichever of them comes second."""
    engine = made()
    for name in ("bad", "good"):
        report(engine, name, outcome)
    assert {acquire(engine, name).profile for name in AGENTS} == {B}
    assert (state(engine, "third") is State.REJECTED) == (outcome is Outcome.AUTH)
    assert healthy(engine) == [True, True, outcome is not Outcome.AUTH]


async def test_a_refusal_of_other_material_confirms_nothing() -> None:
    """S4: the key that the second agent was refused with is another one."""
    engine = made()
    report(engine, "bad", Outcome.AUTH)
    engine.put(profile(A, "another"), profile(B, "b"))
    assert acquire(engine, "bad").profile == A
    report(engine, "good", Outcome.AUTH)
    assert (state(engine, "bad"), state(engine, "good"), state(engine, "third")) == (State.OK, State.REJECTED, State.OK)


async def test_only_agent_affects_the_profile() -> None:
    """A profile that no other agent may have, or that belongs to one, is judged by what that agent meets."""
    engine = Engine(agents={"main": ANYTHING, "other": AgentPolicy(providers=frozenset({"openai"}))})
    engine.put(profile(A))
    report(engine, "main", Outcome.AUTH)
    assert engine.readiness.status("provider/anthropic") is False
    engine = made()
    engine.put(profile(A, agent="bad"))
    report(engine, "bad", Outcome.AUTH)
    assert engine.readiness.status(f"profile/{A}") is False


async def test_a_key_that_serves_no_agent_that_may_act_makes_the_broker_unready() -> None:
    """S4, S11: the only agent that is not suspended has met a 401. Once another may act, the key is as good as before."""
    engine = made(A)
    for name in ("good", "third"):
        await engine.suspension_control.suspend(name)
    answered(engine, "bad", 401)
    assert healthy(engine) == [False] * 3
    await engine.suspension_control.resume("third")
    assert healthy(engine) == [True] * 3
    assert acquire(engine, "third").profile == A


async def test_streams_of_other_agents_stay() -> None:
    """S4: the one agent's stream moves at once, the other's hears nothing."""
    engine = made()
    with engine.lease_service.stream("bad", ASKED) as bad, engine.lease_service.stream("good", ASKED) as good:
        for stream in (bad, good):
            assert (await stream.next()).kind is NoticeKind.GRANTED
        report(engine, "bad", Outcome.AUTH)
        notice = await bad.next()
        assert (notice.kind, notice.grant and notice.grant.lease.profile) == (NoticeKind.ROTATED, B)
        assert [lease.profile for lease in engine.lease_admin.active(agent="good")] == [A]
        waiting = asyncio.ensure_future(good.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_error_has_the_reason_and_the_end() -> None:
    """S4: by the list, in its own words; an operator who asks for another agent sees that agent's."""
    engine = made()
    report(engine, "bad", Outcome.AUTH)
    mine, others = (engine.profile_statuses.of(name, "anthropic") for name in ("bad", "good"))
    (row,) = (row for row in mine if row.id == A)
    assert (row.state, row.usable, row.retry_at) == ("rejected", False, engine.clock.now() + MINUTE)
    assert row.reason.startswith("the provider refused it to this agent (401); it is tried again in 1m; replace it in fake")
    assert [(row.id, row.state, row.retry_at) for row in others] == [(A, "ok", 0.0), (B, "ok", 0.0)]


async def test_clear_applies_to_every_agent() -> None:
    """`ClearCooldown` ends what single agents have met, too."""
    engine = made()
    report(engine, "bad", Outcome.AUTH)
    engine.registry.clear(("", A))
    assert acquire(engine, "bad").profile == A


async def test_evidence_is_bounded_and_lapses() -> None:
    """S4: one entry a pair of agent and profile, and none an hour after the last failure, or when the profile is gone."""
    engine = made()
    for _ in range(100):
        report(engine, "bad", Outcome.TIMEOUT)
        answered(engine, "bad", 401)
    assert set(engine.registry.evidence(("", A))) == {"bad"}
    later(engine, HOUR + 1)
    assert dict(engine.registry.evidence(("", A))) == {}
    report(engine, "bad", Outcome.AUTH)
    engine.put(profile(B))
    assert engine.registry._evidence._of == {}


async def test_a_wall_clock_that_jumps_ends_nothing() -> None:
    """Neither early nor late."""
    engine = made()
    report(engine, "bad", Outcome.AUTH)
    engine.clock.jump_wall(10 * HOUR)
    engine.expiry.turn()
    assert acquire(engine, "bad").profile == B
    later(engine, MINUTE)
    assert acquire(engine, "bad").profile == A


# -- the way back ------------------------------------------------------------------------------------------------------


async def test_a_rejection_is_over_when_a_trial_succeeds() -> None:
    """S4: after a minute one request is let through, and no second one; health is well again once it has succeeded."""
    engine = made(A)
    for name in ("bad", "good"):
        report(engine, name, Outcome.AUTH)
    assert healthy(engine) == [False] * 3
    later(engine, MINUTE - 1)
    with pytest.raises(NoUsableProfile, match="tried again in 1s"):
        acquire(engine, "third")
    later(engine, 1)
    lease = acquire(engine, "third")
    with pytest.raises(NoUsableProfile, match="tried again in 1m"):
        acquire(engine, "good")
    assert healthy(engine) == [False] * 3
    engine.lease_service.report("third", lease.id, Outcome.OK)
    assert healthy(engine) == [True] * 3
    assert acquire(engine, "third").profile == A


async def test_a_rejection_lasts_twice_as_long_when_a_trial_fails() -> None:
    """S4: and what fails at the same time adds nothing to that."""
    engine = made(A)
    for name in ("bad", "good"):
        report(engine, name, Outcome.AUTH)
    for minutes in (1, 2, 4, 8):
        assert engine.registry.usage(("", A)).rejected_until == pytest.approx(engine.clock.now() + minutes * MINUTE)
        later(engine, minutes * MINUTE)
        acquire(engine, "third")
        for name in ("bad", "good", "bad", "good"):
            answered(engine, name, 401)


async def test_unanswered_trial_is_repeated() -> None:
    """S4: a minute later, by another agent; by the same one a minute after that, so that none can take every turn and say
    nothing."""
    engine = made(A)
    for name in ("bad", "good"):
        report(engine, name, Outcome.AUTH)
    later(engine, MINUTE)
    acquire(engine, "third")
    later(engine, MINUTE)
    with pytest.raises(NoUsableProfile, match="tried again in 1m"):
        acquire(engine, "third")
    assert acquire(engine, "good").profile == A
    later(engine, MINUTE)
    assert acquire(engine, "third").profile == A


async def test_a_stream_may_be_the_one_that_tries() -> None:
    """S4: it is granted, renewed as any other while it tries, and ends with the refusal that it meets."""
    engine = made(A)
    for name in ("bad", "good"):
        report(engine, name, Outcome.AUTH)
    later(engine, MINUTE)
    with engine.lease_service.stream("third", ASKED) as stream:
        granted = await stream.next()
        assert granted.grant is not None
        later(engine, 2 * MINUTE)
        engine.lease_service.renew("third", granted.lease_id)
        assert engine.lease_admin.count() == (3, 1)
        engine.lease_service.report("third", granted.lease_id, Outcome.AUTH)
        assert state(engine, "third") is State.REJECTED
        assert engine.lease_admin.count() == (2, 0)


async def test_with_a_token_it_is_the_request_that_tries() -> None:
    """S4: a brokered lease is none, and the gateway lets one request through."""
    engine = made(A)
    tokens = [acquire(engine, "third", delivery="brokered") for _ in range(3)]
    for name in ("bad", "good"):
        report(engine, name, Outcome.AUTH)
    later(engine, MINUTE)
    acquire(engine, "third", delivery="brokered")
    assert engine.gateway_leases.resolve(tokens[0])[1].profile.id == A
    with pytest.raises(NoUsableProfile):
        engine.gateway_leases.resolve(tokens[1])
    answered(engine, "third", 200)
    assert engine.gateway_leases.resolve(tokens[2])[1].profile.id == A


async def test_a_rejection_outlives_the_broker_and_so_does_its_way_back() -> None:
    """S4: a restart does not begin the wait again."""
    engine = made(A)
    for name in ("bad", "good"):
        report(engine, name, Outcome.AUTH)
    engine.store.flush()
    later(engine, 30)
    after = Engine(agents=AGENTS, store=engine.store, clock=engine.clock)
    after.put(profile(A, f"secret of {A}"))
    with pytest.raises(NoUsableProfile, match="tried again in 30s"):
        acquire(after, "third")
    later(after, 30)
    assert acquire(after, "third").profile == A


async def test_a_report_of_success_does_not_end_what_others_wait_for() -> None:
    """S4: an agent that lies well of a dead key keeps nobody else on it. What the gateway sees does."""
    engine = made()
    for name in ("good", "third"):
        report(engine, name, Outcome.AUTH)
    lying = acquire(engine, "bad")
    engine.lease_service.report("bad", lying.id, Outcome.OK)
    report_lease = next(engine.lease_admin.active(agent="good", profile=A))
    engine.lease_service.report("good", report_lease.id, Outcome.OK)
    assert state(engine, "bad") is State.REJECTED
    answered(engine, "good", 200)
    assert state(engine, "bad") is State.OK


async def test_two_doubted_agents_do_not_confirm() -> None:
    """S4: two agents that conspire take a key from the others once, and not again within the hour. A third one that has met the
    same is believed."""
    engine = made()
    for name in ("bad", "good"):
        answered(engine, name, 401)
    assert state(engine, "third") is State.REJECTED
    later(engine, MINUTE)
    answered(engine, "third", 200)
    for _ in range(10):
        for name in ("bad", "good"):
            answered(engine, name, 401)
        assert state(engine, "third") is State.OK
        later(engine, MINUTE)
    answered(engine, "third", 401)
    assert engine.readiness.status(f"profile/{A}") is False


# -- the broker's own question -----------------------------------------------------------------------------------------


async def test_a_refusal_is_confirmed_by_the_brokers_own_request() -> None:
    """S4: a key that is dead is so for everybody as soon as one agent has met that, and is recorded before it is used."""
    probes = ScriptedProbes(REFUSES)
    engine = made(A, probes=probes)
    async with engine.running():
        answered(engine, "bad", 401)
        assert healthy(engine) == [True] * 3
        await engine.clock.elapse(0)
        assert (probes.asked, healthy(engine)) == ([(A, Outcome.AUTH)], [False] * 3)
    told = [event for event in engine.emitted if isinstance(event, CredentialProbed)]
    assert told == [CredentialProbed(provider="anthropic", profile=A, about="auth")]


@pytest.mark.parametrize(
    "found", [GOOD, UNKNOWN, replace(REFUSES, sure=False), ProbeResult(Verdict.RATE_LIMIT), ProbeResult(Verdict.FORMAT)]
)
async def test_unconfirmed_failure_applies_to_the_agent(found: ProbeResult) -> None:
    """S4: the agent stays on its way for the minute, though the key is good."""
    engine = made(probes=ScriptedProbes(found))
    async with engine.running():
        answered(engine, "bad", 401)
        await engine.clock.elapse(0)
        assert healthy(engine) == [True] * 3
        assert (acquire(engine, "bad").profile, acquire(engine, "good").profile) == (B, A)


async def test_a_rejected_key_that_is_good_again_is_found_to_be() -> None:
    """S4: with no agent asking, when its time has come; and one that is not waits twice as long."""
    probes = ScriptedProbes(REFUSES, REFUSES, GOOD)
    engine = made(A, probes=probes)
    async with engine.running():
        answered(engine, "bad", 401)
        await engine.clock.elapse(59)
        assert (len(probes.asked), healthy(engine)) == (1, [False] * 3)
        await engine.clock.elapse(2)
        assert (len(probes.asked), healthy(engine)) == (2, [False] * 3)
        await engine.clock.elapse(121)
        assert (len(probes.asked), healthy(engine)) == (3, [True] * 3)


async def test_an_agent_alone_has_its_way_back_too() -> None:
    """S4: and no question is asked when its own word is enough."""
    probes = ScriptedProbes(GOOD)
    engine = Engine(probes=probes, required=("anthropic",))
    engine.put(profile(A))
    async with engine.running():
        report(engine, "main", Outcome.AUTH)
        await engine.clock.elapse(30)
        assert (probes.asked, healthy(engine)) == ([], [False] * 3)
        await engine.clock.elapse(31)
        assert (probes.asked, healthy(engine)) == ([(A, Outcome.AUTH)], [True] * 3)


async def test_probes_are_rare() -> None:
    """S4: whatever an agent does in an hour, its provider is asked a score of times at most, and never twice at a time."""
    probes = ScriptedProbes(GOOD)
    engine = made(A, probes=probes)
    async with engine.running():
        for _ in range(3600):
            answered(engine, "bad", 200)
            answered(engine, "bad", 402)
            answered(engine, "bad", 401)
            await engine.clock.elapse(1)
    assert 10 < len(probes.asked) <= 20


async def test_profile_without_a_probe_is_not_probed() -> None:
    """S4: then it takes a second agent."""
    engine = made(A)
    async with engine.running():
        answered(engine, "bad", 401)
        await engine.clock.elapse(10)
        assert (engine.probes.asked, healthy(engine)) == ([], [True] * 3)


# -- an empty account --------------------------------------------------------------------------------------------------


async def test_large_requests_disable_no_profile() -> None:
    """S5: while small ones succeed, however many there are of the large ones; also with one agent alone."""
    for engine in (made(A), Engine(deliveries=frozenset(Delivery))):
        engine.put(profile(A))
        first, second = ("bad", "good") if "bad" in engine.policies.agents else ("main", "main")
        for _ in range(50):
            answered(engine, first, 402)
            later(engine, 1)
            answered(engine, second, 200)
            later(engine, 2 * MINUTE)
            assert acquire(engine, second).profile == A
            assert engine.registry.usage(("", A)).disabled_until == 0


@pytest.mark.parametrize("agents", [("bad", "good"), ("main", "main")], ids=["two agents", "one agent alone"])
async def test_where_the_broker_can_ask_its_small_request_decides(agents: tuple[str, str]) -> None:
    """S5: two agents whose requests are too large, one of them a liar maybe, are no proof of an empty account either."""
    probes = ScriptedProbes(GOOD)
    engine = made(A, probes=probes) if agents[0] == "bad" else Engine(probes=probes, deliveries=frozenset(Delivery))
    engine.put(profile(A))
    async with engine.running():
        for _ in range(20):
            for name in agents:
                answered(engine, name, 402)
                await engine.clock.elapse(MINUTE + 1)
            assert engine.registry.usage(("", A)).disabled_until == 0
            assert acquire(engine, agents[1]).profile == A
        assert 1 < len(probes.asked) <= 20
        probes.answers = [EMPTY]
        for _ in range(10):
            answered(engine, agents[0], 402)
            await engine.clock.elapse(MINUTE + 1)
        assert engine.registry.usage(("", A)).disabled_until > engine.clock.now() + 4 * HOUR


async def test_billing_failure_of_one_agent_applies_to_it() -> None:
    """S5: its second 402 disables the profile for it alone."""
    engine = made()
    for _ in range(2):
        answered(engine, "bad", 402)
        later(engine, MINUTE)
    found = engine.registry.find("bad", A)
    assert found is not None
    assert found[1].standing.reason == "disabled (billing) for 4h59m"
    assert acquire(engine, "good").profile == A


async def test_a_small_request_that_fails_too_disables_for_all() -> None:
    """S5: the broker's own."""
    probes = ScriptedProbes(EMPTY)
    engine = made(A, probes=probes)
    async with engine.running():
        answered(engine, "bad", 402)
        await engine.clock.elapse(0)
        assert (probes.asked, healthy(engine)) == ([(A, Outcome.BILLING)], [False] * 3)
        assert engine.registry.usage(("", A)).disabled_until == pytest.approx(engine.clock.now() + 5 * HOUR)


# -- logins ------------------------------------------------------------------------------------------------------------


async def test_a_login_that_one_agent_calls_expired_is_refreshed_behind_the_others() -> None:
    """S4, S6: the agent waits for the new token; the others go on with the old one, also when no new one can be had."""
    world = World(UNREACHED, granted(2), agents=AGENTS)
    async with world.running():
        await world.clock.elapse(1)
        leases = {name: world.lease_service.acquire(name, LeaseRequest(provider="acme")) for name in AGENTS}
        bad = leases["bad"]
        assert world.readiness.status("provider/acme")
        with pytest.raises(Exception, match="refused its access token"):
            world.lease_service.report("bad", bad.lease.id, Outcome.AUTH, version=bad.held.version)
        await world.clock.elapse(0.5)
        assert world.readiness.status("provider/acme")
        assert world.lease_service.acquire("good", LeaseRequest(provider="acme")).held.version == bad.held.version
        await world.clock.elapse(10)
        assert world.lease_service.acquire("bad", LeaseRequest(provider="acme")).held.version != bad.held.version
        assert world.script.redeemed == ["rt-1", "rt-1"]
