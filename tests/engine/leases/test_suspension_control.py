"""A suspended agent gets nothing until it is resumed, whatever happens to the broker or its configuration."""

import pytest

from equabot_broker.domain.errors import AgentSuspended, InvalidArgument, LeaseNotFound, StateUnavailable
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.suspension import TOKENS_KEPT, Suspension
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.leases.streams import NoticeKind
from equabot_broker.telemetry.broker_events import SuspensionLifted, SuspensionSet
from equabot_broker.telemetry.lease_events import LeaseDenied, LeaseRevoked
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.state import MemoryStateStore

AGENTS = {"main": ANYTHING, "coder": ANYTHING}
RAW, BROKERED = LeaseRequest(provider="anthropic"), LeaseRequest(provider="anthropic", delivery="brokered")


def engine(store: MemoryStateStore | None = None, *, agents: dict[str, AgentPolicy] | None = None) -> Engine:
    made = Engine(agents=agents or AGENTS, store=store, deliveries=frozenset(Delivery), required=("anthropic",))
    made.put(profile("anthropic:a"))
    return made


def shown(grant: Grant) -> str:
    assert grant.token is not None
    return grant.token.reveal()


async def test_a_suspended_agent_has_no_lease_and_gets_none() -> None:
    """S11: its leases end in the same turn, and it cannot have another; other agents go on."""
    made = engine()
    raw = made.lease_service.acquire("main", RAW)
    other = made.lease_service.acquire("coder", RAW)
    assert await made.suspension_control.suspend("main", "odd requests at night") == 1
    with pytest.raises(AgentSuspended, match=r"agent 'main' is suspended: .* `equabot agent resume main`") as refused:
        made.lease_service.acquire("main", RAW)
    assert not refused.value.retryable
    assert "night" not in str(refused.value)
    with pytest.raises(AgentSuspended):
        made.lease_service.renew("main", raw.lease.id)
    with pytest.raises(AgentSuspended):
        made.lease_service.stream("main", RAW)
    assert [lease.id for lease in made.lease_admin.active()] == [other.lease.id]
    made.lease_service.renew("coder", other.lease.id)
    ended = [event.reason for event in made.emitted if isinstance(event, LeaseRevoked)]
    denied = [event.reason for event in made.emitted if isinstance(event, LeaseDenied)]
    assert (ended, denied) == (["agent_suspended"], ["AGENT_SUSPENDED", "AGENT_SUSPENDED"])


async def test_stream_gets_the_reason_of_its_end() -> None:
    """S11: the holder of a stream loses its lease at once, with the reason."""
    made = engine()
    with made.lease_service.stream("main", RAW) as stream:
        assert (await stream.next()).kind is NoticeKind.GRANTED
        await made.suspension_control.suspend("main")
        ended = await stream.next()
    assert (ended.kind, ended.reason) == (NoticeKind.REVOKED, "agent_suspended")


async def test_token_of_a_suspended_agent_is_recognised() -> None:
    """S11: not that the token never was, which would send the agent to acquire another; after resuming it has simply ended."""
    made = engine()
    token, other = (shown(made.lease_service.acquire(agent, BROKERED)) for agent in ("main", "coder"))
    await made.suspension_control.suspend("main")
    with pytest.raises(AgentSuspended) as refused:
        made.gateway_access.bearer(token)
    assert refused.value.metadata == {"agent": "main"}
    made.gateway_access.bearer(other)
    with pytest.raises(LeaseNotFound):
        made.gateway_access.bearer("eqb_" + "x" * 43)
    await made.suspension_control.resume("main")
    with pytest.raises(LeaseNotFound):
        made.gateway_access.bearer(token)


async def test_suspension_survives_a_restart() -> None:
    """S11: also one that dies with `kill -9` right after the answer; the tokens that it ended are still known."""
    made = engine()
    token = shown(made.lease_service.acquire("main", BROKERED))
    await made.suspension_control.suspend("main", "odd")
    made.store.crash()
    after = engine(made.store)
    with pytest.raises(AgentSuspended):
        after.lease_service.acquire("main", RAW)
    with pytest.raises(AgentSuspended):
        after.gateway_access.bearer(token)
    assert await after.suspension_control.resume("main")
    after.store.crash()
    engine(after.store).lease_service.acquire("main", RAW)


async def test_leases_that_a_store_still_holds_end_at_the_start() -> None:
    """S11: a store that could be written for the suspension and not for the end of the leases revives nobody."""
    made = engine()
    granted = made.lease_service.acquire("main", BROKERED)
    await made.suspension_control.suspend("main")
    made.store.put_lease(granted.lease.id, granted.lease)
    made.store.flush()
    after = engine(made.store)
    assert list(after.lease_admin.active()) == []


async def test_removed_agent_stays_suspended() -> None:
    """S11: a change of the configuration is no way out. Meanwhile it can be resumed, but not suspended."""
    made = engine()
    await made.suspension_control.suspend("coder")
    without = engine(made.store, agents={"main": ANYTHING})
    assert without.suspension_control.states() == {"coder": True, "main": False}
    with pytest.raises(InvalidArgument, match="agent 'coder' is not configured: the configured agents are main"):
        await without.suspension_control.suspend("coder")
    back = engine(made.store)
    with pytest.raises(AgentSuspended):
        back.lease_service.acquire("coder", RAW)
    without = engine(made.store, agents={"main": ANYTHING})
    assert await without.suspension_control.resume("coder")
    engine(made.store).lease_service.acquire("coder", RAW)


async def test_suspension_is_idempotent() -> None:
    """The beginning stays, and the reason unless another is given; what is not suspended can be resumed."""
    made = engine()
    await made.suspension_control.suspend("main", "odd requests")
    made.clock.advance(60)
    assert await made.suspension_control.suspend("main") == 0
    assert made.suspensions.of("main") == Suspension(since=made.clock.now() - 60, reason="odd requests")
    await made.suspension_control.suspend("main", "confirmed")
    assert made.suspensions.of("main") == Suspension(since=made.clock.now() - 60, reason="confirmed")
    assert [await made.suspension_control.resume("main") for _ in range(2)] == [True, False]
    set_ = [(event.reason, event.leases) for event in made.emitted if isinstance(event, SuspensionSet)]
    assert set_ == [("odd requests", 0), ("odd requests", 0), ("confirmed", 0)]
    assert [event.agent for event in made.emitted if isinstance(event, SuspensionLifted)] == ["main"]


async def test_unknown_agent_error_lists_agents() -> None:
    """A misspelled name must not pass for a suspension; what looks like a key is not repeated."""
    made = engine()
    for act in (made.suspension_control.suspend, made.suspension_control.resume):
        with pytest.raises(InvalidArgument, match="agent 'mian' is not configured: the configured agents are coder, main"):
            await act("mian")
    with pytest.raises(InvalidArgument, match="not shown") as refused:
        await made.suspension_control.suspend("sk-ant-api03-" + "a1" * 40)
    assert "a1a1" not in str(refused.value)
    many = engine(agents={f"agent-{number:02}": ANYTHING for number in range(25)})
    with pytest.raises(InvalidArgument, match=r"agent-19 and 5 more$"):
        await many.suspension_control.suspend("mian")


async def test_failed_write_keeps_the_suspension() -> None:
    """S11: it holds in memory, and the operator hears that a restart would forget it. Repeated, it is stored."""
    made = engine()
    made.store.broken = "cannot write state.db: disk full"
    with pytest.raises(StateUnavailable, match=r"restart of the broker would lose the suspension: .*disk full"):
        await made.suspension_control.suspend("main")
    with pytest.raises(AgentSuspended):
        made.lease_service.acquire("main", RAW)
    made.store.broken = ""
    await made.suspension_control.suspend("main")
    assert set(made.store.load().suspensions) == {"main"}
    made.store.broken = "cannot write state.db: disk full"
    with pytest.raises(StateUnavailable, match="is resumed, but a restart of the broker would suspend it again"):
        await made.suspension_control.resume("main")
    made.lease_service.acquire("main", RAW)


async def test_tokens_of_a_suspension_are_bounded() -> None:
    """An agent with many leases fills neither memory nor disk: of the newest tokens the gateway knows that they are its."""
    made = engine()
    tokens = [shown(made.lease_service.acquire("main", BROKERED)) for _ in range(TOKENS_KEPT + 1)]
    assert await made.suspension_control.suspend("main") == TOKENS_KEPT + 1
    suspension = made.suspensions.of("main")
    assert suspension is not None
    assert len(suspension.tokens) == TOKENS_KEPT
    with pytest.raises(LeaseNotFound):
        made.gateway_access.bearer(tokens[0])
    with pytest.raises(AgentSuspended):
        made.gateway_access.bearer(tokens[-1])


async def test_readiness_counts_only_what_an_agent_may_be_granted() -> None:
    """A required provider needs an agent that may have it: with every such agent suspended the broker is not ready, although
    the provider serves. The provider's own health says what the credential is worth."""
    made = engine(agents={"main": ANYTHING, "coder": AgentPolicy(providers=frozenset({"openai"}))})
    async with made.running():
        made.hold(profile("anthropic:a"))
        await made.settle()
        assert made.readiness.status("readiness") is True
        await made.suspension_control.suspend("main")
        assert made.readiness.status("readiness") is False
        assert (made.readiness.status("provider/anthropic"), list(made.readiness.unmet())) == (False, ["anthropic"])
        await made.suspension_control.resume("main")
        assert made.readiness.status("") is True
