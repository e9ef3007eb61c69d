"""Keeping logins fresh: when, how often, for whom, and what everybody else sees meanwhile."""

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import NoUsableProfile, ReauthRequired, RefreshFailed
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.domain.profiles import State
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.leases.streams import NoticeKind
from equabot_broker.formats.refresh_marks import with_doubt, with_intent, with_interruption, with_refusal
from equabot_broker.telemetry.credential_events import (
    CredentialStateChanged,
    LoginInvalidated,
    RefreshAttemptFailed,
    RefreshSucceeded,
)
from equabot_broker.telemetry.lease_events import LeaseDenied
from tests.fakes.engine import ANYTHING, profile
from tests.fakes.logins import ASKED, LEAD, LIFE, NOW, World, login
from tests.fakes.scripted_endpoint import LOST, UNREACHED, granted, refused

COMMAND = "equabot models auth login --provider acme"


# -- when --------------------------------------------------------------------------------------------------------------


async def test_a_login_is_refreshed_before_it_ends() -> None:
    """At two thirds of a short life, and once."""
    world = World()
    async with world.running():
        await world.clock.elapse(LIFE - LEAD - 1)
        assert world.script.redeemed == []
        await world.clock.elapse(2)
        assert world.script.redeemed == ["rt-1"]
        assert world.served == "at-2"
        await world.clock.elapse(LIFE - LEAD - 10)
        assert world.script.redeemed == ["rt-1"]
    assert world.told(RefreshSucceeded) == [RefreshSucceeded(profile="acme:me", provider="acme", adopted=False, seconds=0.0)]


async def test_it_is_refreshed_again_and_again() -> None:
    """Each time with the token that came last; and it is well all the time."""
    world = World(*[granted(number) for number in range(2, 7)])
    async with world.running():
        await world.clock.elapse(4 * (LIFE - LEAD) + 10)
        assert world.script.redeemed == ["rt-1", "rt-2", "rt-3", "rt-4"]
        assert world.served == "at-5"
    assert [(told.before, told.after) for told in world.told(CredentialStateChanged)] == [("", "ok")]


async def test_the_old_token_serves_while_the_new_one_is_fetched() -> None:
    """Nobody waits for a refresh behind."""
    world = World()
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(LIFE - LEAD + 1)
        assert world.script.redeemed == ["rt-1"]
        assert (world.served, world.board.standing.state) == ("at-1", State.OK)
        world.script.open.set()
        await world.clock.elapse(1)
        assert world.served == "at-2"


async def test_an_expired_login_is_refreshed_at_once() -> None:
    """Also one that has no access token, which need not be there."""
    for entry in (login(left=-5000), login(access="")):
        world = World(entry=entry)
        async with world.running():
            await world.clock.elapse(0.1)
            assert world.served == "at-2"


async def test_a_source_that_sees_the_new_tokens_is_not_asked_for_them() -> None:
    """It would read everything else again, too."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        before = world.following.rereads
        await world.clock.elapse(LIFE - LEAD + 1)
        assert (world.served, world.following.rereads) == ("at-2", before)


async def test_a_login_that_does_not_say_when_it_ends_is_left_alone() -> None:
    """Until the provider refuses it."""
    world = World(entry={name: value for name, value in login().items() if name != "expires"})
    async with world.running():
        await world.clock.elapse(1)
        world.clock.advance(10**6)
        await world.clock.elapse(10)
        assert (world.script.redeemed, world.board.standing.state) == ([], State.OK)


async def test_foreign_login_is_not_refreshed() -> None:
    """It belongs to another tool, has no refresh token, or its provider no endpoint."""
    world = World()
    other = login(left=-1)
    del other["refresh"]
    bare = login(left=-1, provider="bare")
    world.write({"acme:me": other, "bare:me": bare})
    async with world.running():
        await world.clock.elapse(1000)
        assert world.script.redeemed == []
        assert world.board.standing.state is State.EXPIRED
        with pytest.raises(NoUsableProfile):
            world.lease_service.acquire("main", ASKED)


async def test_tokens_from_another_broker_are_used() -> None:
    """From the store, before its own time has come."""
    world = World()
    async with world.running():
        await world.clock.elapse(100)
        world.write({"acme:me": login(7, left=100 + LIFE)})
        await world.clock.elapse(LIFE - LEAD - 10)
        assert (world.served, world.script.redeemed) == ("at-7", [])


async def test_clock_difference_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By the one that is behind: nothing can be given in the future."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        world.write({"acme:me": login(7) | {"issuedAt": int((NOW + 20) * 1000)}})
        await world.clock.elapse(10)
        assert caplog.records == []
        world.write({"acme:me": login(8) | {"issuedAt": int((NOW + 3600) * 1000)}})
        await world.clock.elapse(10)
    (record,) = caplog.records
    assert record.getMessage().startswith("acme:me was refreshed 35")


async def test_what_another_process_refreshed_just_now_is_adopted() -> None:
    """The source was a little slower than the clock."""
    world = World()
    async with world.running():
        await world.clock.elapse(100)
        world.logins.put("main", {"acme:me": login(7, left=LIFE + LIFE)})
        await world.clock.elapse(LIFE - LEAD)
        assert (world.served, world.script.redeemed) == ("at-7", [])
    assert [told.adopted for told in world.told(RefreshSucceeded)] == [True]


async def test_a_jump_of_the_wall_clock_is_noticed() -> None:
    """Tokens end by the wall clock."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        world.clock.jump_wall(LIFE)
        await world.clock.elapse(6)
        assert world.script.redeemed == ["rt-1"]


async def test_at_most_four_are_refreshed_at_a_time() -> None:
    """And at most one in a store, whose lock allows no more."""
    agents = dict.fromkeys(("main", *"abcdef"), ANYTHING)
    world = World(agents=agents)
    world.script.open.clear()
    for agent in agents:
        world.write({f"acme:{name}": login(left=-1) | {"refresh": f"rt-{agent}-{name}"} for name in ("me", "you")}, agent)
    async with world.running():
        await world.clock.elapse(1)
        stores = Counter(token.split("-")[1] for token in world.script.redeemed)
        assert (len(stores), max(stores.values())) == (4, 1)
        world.script.open.set()
        await world.clock.elapse(5)
        assert len(world.script.redeemed) == len(set(world.script.redeemed)) == 14


# -- who waits ---------------------------------------------------------------------------------------------------------


async def test_caller_waits_for_an_expired_login() -> None:
    """All of them for one refresh; and before, without time, they are told that it is under way."""
    world = World(entry=login(left=-1))
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(0.1)
        with pytest.raises(RefreshFailed) as failed:
            world.lease_service.acquire("main", ASKED)
        assert failed.value.retry_after is None
        assert "it is refreshed on use" in failed.value.message
        waiting = [asyncio.ensure_future(world.wait()) for _ in range(50)]
        await world.clock.elapse(1)
        assert not any(one.done() for one in waiting)
        world.script.open.set()
        await world.clock.elapse(0.1)
        assert [one.result() for one in waiting] == ["at-2"] * 50
        assert world.script.redeemed == ["rt-1"]


async def test_waiting_caller_uses_one_quota() -> None:
    """However often the engine is asked meanwhile."""
    policy = AgentPolicy(providers=frozenset({"*"}), rate=0.001, burst=2)
    world = World(UNREACHED, entry=login(left=-1), agents={"main": policy})
    async with world.running():
        await world.clock.elapse(0.1)
        for _ in range(5):
            with pytest.raises(RefreshFailed):
                world.lease_service.acquire("main", ASKED, waits=True)
        assert world.told(LeaseDenied) == []
        with pytest.raises(RefreshFailed):
            world.lease_service.acquire("main", ASKED)
        assert [told.reason for told in world.told(LeaseDenied)] == ["REFRESH_FAILED"]
        world.script.answers = [granted(2)]
        await world.clock.elapse(60)
        assert world.served == "at-2"


async def test_wait_ends_with_the_deadline() -> None:
    """After it, when an answer may come; at once, when the next try comes too late."""
    world = World(refused(503, retry_after="30"), granted(2), entry=login(left=-1))
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(0.1)
        waiting = asyncio.ensure_future(world.wait(within=5))
        await world.clock.elapse(4.8)
        assert not waiting.done()
        await world.clock.elapse(0.3)
        with pytest.raises(RefreshFailed):
            waiting.result()
        world.script.open.set()
        await world.clock.elapse(0.1)
        with pytest.raises(RefreshFailed) as failed:
            await world.wait(within=20)
        assert failed.value.retry_after == pytest.approx(30, abs=0.2)
        waiting = asyncio.ensure_future(world.wait(within=40))
        await world.clock.elapse(30)
        assert waiting.result() == "at-2"


async def test_another_profile_serves_while_refreshes_fail() -> None:
    """One that is due keeps its place, for it takes a moment; one that fails does not hold anybody up, nor one whose turn comes
    too late for who asks."""
    world = World(UNREACHED, granted(2), entry=login(left=-1))
    async with world.running():
        world.hold(profile("acme:key", "the key"), source=1)
        world.script.open.clear()
        await world.clock.elapse(0.1)
        with pytest.raises(RefreshFailed):
            world.lease_service.acquire("main", ASKED, waits=True)
        assert world.served == "the key"
        world.script.open.set()
        await world.clock.elapse(0.1)
        assert world.lease_service.acquire("main", ASKED, waits=True).held.profile.id == "acme:key"
        await world.clock.elapse(5)
        assert world.served == "at-2"


# -- what fails --------------------------------------------------------------------------------------------------------


async def test_a_failed_refresh_is_tried_again_later_and_later() -> None:
    """The access token serves meanwhile, and the state says how it stands."""
    world = World(UNREACHED)
    async with world.running():
        await world.clock.elapse(LIFE - LEAD + 0.5)
        standing = world.board.standing
        assert (standing.state, standing.usable, world.served) == (State.EXPIRING, True, "at-1")
        assert standing.reason == "expires in 3m20s; cannot connect to login.acme.example"
        await world.clock.elapse(150)
        waits = [told.retry_in for told in world.told(RefreshAttemptFailed)]
        assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0][: len(waits)]
        assert len(waits) == 8
        world.script.answers = [granted(2)]
        await world.clock.elapse(128)
        assert (world.served, world.board.standing.state) == ("at-2", State.OK)
    first = world.told(RefreshAttemptFailed)[0]
    assert first == RefreshAttemptFailed(
        profile="acme:me", provider="acme", outcome="transient", reason=UNREACHED.reason, retry_in=1.0
    )


async def test_the_endpoint_says_when_to_come_again() -> None:
    """Later than the table does, never sooner than two seconds."""
    world = World(refused(429, retry_after="90"), refused(503, retry_after="0"), granted(2))
    async with world.running():
        await world.clock.elapse(LIFE - LEAD + 89)
        assert world.script.redeemed == ["rt-1"]
        await world.clock.elapse(1.5)
        assert world.script.redeemed == ["rt-1", "rt-1"]
        await world.clock.elapse(1.8)
        assert len(world.script.redeemed) == 3
    assert [told.retry_in for told in world.told(RefreshAttemptFailed)] == [90.0, 2.0]


async def test_without_an_answer_the_access_token_is_used_up_first() -> None:
    """Then the refresh token is tried once more: it may not have been spent, and there is nothing left to lose."""
    world = World(LOST, granted(2))
    async with world.running():
        await world.clock.elapse(LIFE - 1)
        assert (world.script.redeemed, world.served) == (["rt-1"], "at-1")
        assert world.board.standing.state is State.EXPIRING
        await world.clock.elapse(2)
        assert (world.script.redeemed, world.served) == (["rt-1", "rt-1"], "at-2")
    (told,) = world.told(RefreshAttemptFailed)
    assert (told.outcome, told.retry_in) == ("uncertain", pytest.approx(LEAD, abs=1))


async def test_another_process_that_got_no_answer_is_respected() -> None:
    """Its mark is in the store."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        world.write({"acme:me": with_doubt(login(), by="a", now=NOW)})
        await world.clock.elapse(LIFE - 5)
        assert (world.script.redeemed, world.served) == ([], "at-1")
        await world.clock.elapse(5)
        assert world.served == "at-2"


async def test_unread_store_causes_no_busy_loop() -> None:
    """The store knows more of the login than its source has told: another process got no answer, refused, or took it away."""
    doubtful = with_doubt(login(7, left=100), by="a", now=NOW)
    refused_there = with_refusal(login(), "invalid_grant", now=NOW)
    for there in ({"acme:me": doubtful}, {"acme:me": refused_there}, {}):
        world = World(entry=login(left=-5))
        world.following.deaf = True
        world.logins.put("main", there)
        async with world.running():
            await world.clock.elapse(60)
            assert (world.script.redeemed, world.told(LoginInvalidated)) == ([], [])
            assert 1 <= world.logins.locks <= 8
            world.following.deaf = False
            await world.clock.elapse(120)
            found = world.registry.find("main", "acme:me")
            assert found is None or found[1].held.profile.reauth or world.served == "at-2"


async def test_ended_login_has_a_remedy() -> None:
    """Its access token serves to the end; then a person must act."""
    world = World(refused(400, "invalid_grant"))
    async with world.running():
        await world.clock.elapse(LIFE - LEAD + 1)
        standing = world.board.standing
        assert (standing.state, standing.usable, world.served) == (State.REAUTH_REQUIRED, True, "at-1")
        assert f"run `{COMMAND}`" in standing.reason
        assert world.lease_service.acquire("main", ASKED).lease.expires_at <= world.clock.steady() + LEAD
        await world.clock.elapse(LIFE)
        with pytest.raises(ReauthRequired) as failed:
            world.lease_service.acquire("main", ASKED)
        assert COMMAND in failed.value.message
        assert world.script.redeemed == ["rt-1"]
        world.script.answers = [granted(9)]
        world.write({"acme:me": login(8, left=world.clock.now() - NOW + LIFE)})
        await world.clock.elapse(1)
        assert (world.served, world.board.standing.state) == ("at-8", State.OK)
    (told,) = world.told(LoginInvalidated)
    assert (told.profile, told.command) == ("acme:me", COMMAND)


async def test_interrupted_refresh_ends_the_login() -> None:
    """It is never repeated, and the reason says why."""
    world = World(entry=with_intent(login(left=30), by="a", now=NOW))
    async with world.running():
        await world.clock.elapse(1)
        assert world.board.standing.state is State.REAUTH_REQUIRED
        assert "a refresh was interrupted" in world.board.standing.reason
        assert world.script.redeemed == []


async def test_unwritable_store_is_retried() -> None:
    """What is wrong with it is told, and nothing is sent."""
    world = World()
    async with world.running():
        world.logins.broken = "/home/auth-profiles.json cannot be locked: make room"
        await world.clock.elapse(LIFE - LEAD + 1)
        assert "make room" in world.board.standing.reason
        assert world.script.redeemed == []
        world.logins.broken = ""
        await world.clock.elapse(3)
        assert world.served == "at-2"


async def test_tokens_in_hand_are_stored_by_a_broker_that_was_taken_for_dead() -> None:
    """It was cut off with the tokens in its hands; another has seen its intent meanwhile, and said that the login has ended."""
    world = World()
    async with world.running():
        world.script.meanwhile = lambda: setattr(world.logins, "broken", "the API server is away")
        await world.clock.elapse(LIFE - LEAD + 1)
        assert world.script.redeemed == ["rt-1"]
        sent = world.logins.entry("acme:me")
        world.write({"acme:me": with_interruption(sent, found=sent, now=NOW)})
        await world.clock.elapse(0.1)
        assert world.board.standing.state is State.REAUTH_REQUIRED
        world.logins.broken = ""
        await world.clock.elapse(10)
        assert (world.served, world.board.standing.state) == ("at-2", State.OK)
        assert world.script.redeemed == ["rt-1"]


async def test_unread_tokens_are_reported() -> None:
    """And is looked for again; nothing is sent for it a second time."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        world.following.deaf = True
        await world.clock.elapse(LIFE - LEAD + 6)
        assert "has not read the new tokens" in world.board.standing.reason
        world.following.deaf = False
        await world.clock.elapse(10)
        assert (world.served, world.script.redeemed) == ("at-2", ["rt-1"])


# -- a refusal before its time -----------------------------------------------------------------------------------------


def refuse(world: World, grant: Grant) -> bool:
    """The agent says that the provider answered 401."""
    return world.lease_service.report("main", grant.lease.id, Outcome.AUTH, version=grant.held.version)


async def test_a_refused_access_token_is_refreshed_once() -> None:
    """Whoever asks meanwhile waits; nobody is given the refused one. A refusal of the new one is final."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        grant = world.lease_service.acquire("main", ASKED)
        world.script.open.clear()
        with pytest.raises(RefreshFailed):
            refuse(world, grant)
        await world.clock.elapse(1)
        assert (world.board.standing.state, world.script.redeemed) == (State.EXPIRED, ["rt-1"])
        with pytest.raises(RefreshFailed, match="refused its access token before its end"):
            world.lease_service.acquire("main", ASKED)
        world.script.open.set()
        await world.clock.elapse(1)
        held = grant.held
        assert world.lease_service.moved_on("main", grant.lease.id, profile=held.profile.id, version=held.version)
        assert refuse(world, grant), "a late report of the old token says nothing of the new one"
        again = world.lease_service.acquire("main", ASKED)
        assert world.served == "at-2"
        assert not refuse(world, again)
        assert world.board.standing.state is State.REJECTED
        assert world.script.redeemed == ["rt-1"]


@pytest.mark.parametrize("meanwhile", ["the provider took it", "a quarter of an hour"])
async def test_a_later_refusal_is_another_one(meanwhile: str) -> None:
    """One that is known to have worked, or that has lasted, may be refused for another reason. Not within a minute (S6)."""
    world = World(granted(2, expires_in=10**5), granted(3, expires_in=10**5))
    async with world.running():
        await world.clock.elapse(1)
        with pytest.raises(RefreshFailed):
            refuse(world, world.lease_service.acquire("main", ASKED))
        await world.clock.elapse(1)
        grant = world.lease_service.acquire("main", ASKED)
        if meanwhile == "a quarter of an hour":
            await world.clock.elapse(900)
        else:
            world.lease_service.report("main", grant.lease.id, Outcome.OK)
            await world.clock.elapse(60)
        with pytest.raises(RefreshFailed):
            refuse(world, world.lease_service.acquire("main", ASKED))
        await world.clock.elapse(1)
        assert (world.served, world.script.redeemed) == ("at-3", ["rt-1", "rt-2"])


async def test_delays_between_forced_refreshes_grow() -> None:
    """S6: an agent that reports success and refusal in turn, once a second for an hour, costs a handful of refresh tokens. Each
    wait is twice the one before; a login that is left alone for two hours begins with a minute again."""
    world = World(*[granted(number, expires_in=10**6) for number in range(2, 40)])
    async with world.running():
        await world.clock.elapse(1)
        at = []
        for second in range(3600):
            before = len(world.script.redeemed)
            _alternate(world)
            await world.clock.elapse(1)
            at += [second] * (len(world.script.redeemed) - before)
        apart = [later - sooner for sooner, later in pairwise(at)]
        assert len(at) <= 7
        assert all(60 <= one <= other for one, other in pairwise(apart))
        await world.clock.elapse(7200)
        for _ in range(62):
            _alternate(world)
            await world.clock.elapse(1)
        assert len(world.script.redeemed) == len(at) + 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([Outcome.OK, Outcome.AUTH]), st.sampled_from([0.0, 7.0, 59.0, 61.0])), max_size=40))
def test_outcomes_cannot_cause_many_refreshes(told: list[tuple[Outcome, float]]) -> None:
    """S6: whatever is reported over T seconds, at most 1 + T/60 refresh tokens are redeemed."""

    async def lived() -> tuple[int, float]:
        world = World(*[granted(number, expires_in=10**6) for number in range(2, 60)])
        async with world.running():
            await world.clock.elapse(1)
            began = world.clock.steady()
            for outcome, passed in told:
                with suppress(NoUsableProfile, RefreshFailed):
                    grant = world.lease_service.acquire("main", ASKED)
                    world.lease_service.report("main", grant.lease.id, outcome, version=grant.held.version)
                await world.clock.elapse(passed)
            return len(world.script.redeemed), world.clock.steady() - began

    redeemed, seconds = asyncio.run(lived())
    assert redeemed <= 1 + seconds / 60


def _alternate(world: World) -> None:
    """The agent says that its newest token works, and that it does not."""
    leases = list(world.lease_admin.active(agent="main"))
    with suppress(NoUsableProfile, RefreshFailed):
        lease_id = leases[0].id if leases else world.lease_service.acquire("main", ASKED).lease.id
        world.lease_service.report("main", lease_id, Outcome.OK)
        world.lease_service.report("main", lease_id, Outcome.AUTH)


async def test_a_forced_refresh_that_fails_goes_on() -> None:
    """With the refused token nobody is served meanwhile."""
    world = World(UNREACHED, LOST, granted(2))
    async with world.running():
        await world.clock.elapse(1)
        with pytest.raises(RefreshFailed):
            refuse(world, world.lease_service.acquire("main", ASKED))
        await world.clock.elapse(0.5)
        with pytest.raises(RefreshFailed, match="cannot connect"):
            world.lease_service.acquire("main", ASKED)
        await world.clock.elapse(10)
        assert (world.served, world.script.redeemed) == ("at-2", ["rt-1", "rt-1", "rt-1"])


async def test_a_refused_login_that_cannot_be_refreshed_is_rejected() -> None:
    """As any other credential."""
    world = World(refused(400, "invalid_grant"), entry=login(left=100))
    async with world.running():
        await world.clock.elapse(1)
        assert world.board.standing.state is State.REAUTH_REQUIRED
        assert not refuse(world, world.lease_service.acquire("main", ASKED))
        assert (world.board.standing.state, world.board.standing.usable) == (State.REJECTED, False)


# -- streams, leases, the end ------------------------------------------------------------------------------------------


async def test_streams_see_the_new_token() -> None:
    """And are not ended while their login is being refreshed, be it expired."""
    world = World()
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(1)
        with world.lease_service.stream("main", ASKED) as stream:
            first = await stream.next()
            assert first.grant is not None
            assert first.grant.held.profile.expires_at == NOW + LIFE
            nexts = asyncio.ensure_future(_rotated(stream))
            await world.clock.elapse(LIFE + 30)
            assert not nexts.done()
            world.script.open.set()
            await world.clock.elapse(1)
            rotated = nexts.result()
            assert rotated.grant is not None
            assert rotated.grant.held.profile.secret == world.board.held.profile.secret
            assert rotated.grant.held.profile.expires_at == NOW + (LIFE - LEAD) + LIFE
            assert world.served == "at-2"


async def _rotated(stream: Any) -> Any:
    while True:
        notice = await stream.next()
        assert notice.kind is not NoticeKind.REVOKED
        if notice.kind is NoticeKind.ROTATED:
            return notice


async def test_ended_login_ends_its_streams() -> None:
    """Once its access token has ended too."""
    world = World(refused(400, "invalid_grant"))
    async with world.running():
        await world.clock.elapse(1)
        with world.lease_service.stream("main", ASKED) as stream:
            await world.clock.elapse(LIFE - 10)
            kinds = [(await stream.next()).kind]
            ending = asyncio.ensure_future(_ended(stream))
            await world.clock.elapse(20)
            assert kinds == [NoticeKind.GRANTED]
            assert ending.result() == "no_usable_profile"


async def _ended(stream: Any) -> str:
    while (notice := await stream.next()).kind is not NoticeKind.REVOKED:
        pass
    return str(notice.reason)


async def test_a_lease_is_not_cut_to_a_token_that_is_refreshed() -> None:
    """It gives the newest at each renewal."""
    world = World()
    async with world.running():
        await world.clock.elapse(1)
        lease = world.lease_service.acquire("main", LeaseRequest(provider="acme", ttl=1800)).lease
        assert lease.expires_at == world.clock.steady() + 1800
        await world.clock.elapse(LIFE)
        renewed = world.lease_service.renew("main", lease.id)
        assert renewed.held.profile.secret == world.board.held.profile.secret
        assert world.served == "at-2"


async def test_a_renewal_waits_too() -> None:
    """For its lease's own login."""
    world = World()
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(1)
        lease = world.lease_service.acquire("main", LeaseRequest(provider="acme", ttl=1800)).lease
        await world.clock.elapse(LIFE)
        with pytest.raises(RefreshFailed):
            world.lease_service.renew("main", lease.id)
        waiting = asyncio.ensure_future(world.wait(lambda: world.lease_service.renew("main", lease.id)))
        await world.clock.elapse(1)
        world.script.open.set()
        await world.clock.elapse(1)
        assert waiting.result() == "at-2"


async def test_a_session_waits_for_its_own_login() -> None:
    """And one that is strictly pinned to it waits even where refreshes fail."""
    world = World(UNREACHED, UNREACHED, granted(2), entry=login(left=-1))
    async with world.running():
        world.hold(profile("acme:key", "the key"), source=1)
        await world.clock.elapse(0.1)
        asked = LeaseRequest(provider="acme", session="s")
        world.resolver.pin("main", "s", "acme", "acme:me", strict=False)
        assert world.lease_service.acquire("main", asked).held.profile.id == "acme:key"
        world.resolver.pin("main", "s", "acme", "acme:me", strict=True)
        with pytest.raises(RefreshFailed):
            world.lease_service.acquire("main", asked)
        await world.clock.elapse(10)
        assert world.lease_service.acquire("main", asked).held.profile.id == "acme:me"


async def test_a_session_waits_for_the_login_it_is_pinned_to() -> None:
    """Although another could serve at once: a refresh takes a moment."""
    world = World()
    world.write({"acme:me": login(), "acme:you": login(8, left=-1)})
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(0.1)
        world.resolver.pin("main", "s", "acme", "acme:you", strict=False)
        with pytest.raises(RefreshFailed, match="acme:you"):
            world.lease_service.acquire("main", LeaseRequest(provider="acme", session="s"), waits=True)
        assert world.served == "at-1"


async def test_a_broker_that_ends_finishes_what_it_began() -> None:
    """And begins nothing more: a refresh that is cut off costs a login."""
    world = World(agents={"main": ANYTHING, "a": ANYTHING})
    world.write({name: login(left=-1) for name in ("acme:me", "acme:queued")})
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(1)
        draining = asyncio.ensure_future(world.refresh_scheduler.drain())
        world.write({"acme:me": login(left=-1)}, "a")
        await world.clock.elapse(5)
        assert (draining.done(), world.script.redeemed) == (False, ["rt-1"])
        world.script.open.set()
        await world.clock.elapse(1)
        assert draining.done()
        assert world.script.redeemed == ["rt-1"]
        assert {world.logins.entry(name)["access"] for name in ("acme:me", "acme:queued")} == {"at-1", "at-2"}


async def test_a_broker_that_ends_stores_the_tokens_that_it_still_has_in_hand() -> None:
    """They came when the store could not be written, and nobody else has them. Nothing is sent for it."""
    world = World()
    async with world.running():
        world.script.meanwhile = lambda: setattr(world.logins, "broken", "the API server is away")
        await world.clock.elapse(LIFE - LEAD + 1)
        assert world.script.redeemed == ["rt-1"]
        draining = asyncio.ensure_future(world.refresh_scheduler.drain())
        await world.clock.elapse(5)
        assert not draining.done()
        world.logins.broken = ""
        await world.clock.elapse(3)
        assert draining.done()
    assert world.logins.entry("acme:me")["access"] == "at-2"
    assert world.script.redeemed == ["rt-1"]


async def test_a_broker_that_ends_does_not_wait_forever_for_a_store(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads its log learns what is lost with it."""
    world = World()
    async with world.running():
        world.script.meanwhile = lambda: setattr(world.logins, "broken", "the API server is away")
        await world.clock.elapse(LIFE - LEAD + 1)
        draining = asyncio.ensure_future(world.refresh_scheduler.drain())
        await world.clock.elapse(40)
        assert draining.done()
    assert "acme:me" in caplog.text
    assert "at-2" not in caplog.text


async def test_a_broker_that_ends_waits_for_no_login_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody deleted it while its tokens were on their way."""
    world = World()
    async with world.running():
        world.script.meanwhile = lambda: setattr(world.logins, "broken", "there is no such Secret")
        await world.clock.elapse(LIFE - LEAD + 1)
        world.write({})
        await world.clock.elapse(0.1)
        draining = asyncio.ensure_future(world.refresh_scheduler.drain())
        await world.clock.elapse(0)
        assert draining.done()
    assert caplog.text == ""


async def test_statuses_say_what_can_serve() -> None:
    """An expired login is next where it will be waited for, and is not called usable."""
    world = World(UNREACHED, entry=login(left=-1))
    world.script.open.clear()
    async with world.running():
        await world.clock.elapse(0.1)
        (status,) = world.profile_statuses.of("main", "acme")
        assert (status.state, status.usable, status.next) == ("expired", False, True)
        assert world.readiness.status("provider/acme") is False
        world.script.answers = [granted(2)]
        world.script.open.set()
        await world.clock.elapse(10)
        (status,) = world.profile_statuses.of("main", "acme")
        assert (status.state, status.usable, status.next) == ("ok", True, True)
        assert world.readiness.status("provider/acme") is True
