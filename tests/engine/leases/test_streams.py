"""A stream is a lease: told of what changes, renewed while it is read, and ended with the connection."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import LeaseExpired, LeaseLimit, LeaseNotFound
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.mailboxes import LeaseChange
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.leases.streams import LeaseStream, Notice, NoticeKind
from equabot_broker.telemetry.lease_events import LeaseRevoked
from tests.fakes.engine import ANYTHING, Engine, profile

A, B = "anthropic:a", "anthropic:b"
ANY = LeaseRequest(provider="anthropic")
GRANTED, ROTATED, RENEWED, EXPIRING, REVOKED = NoticeKind


@pytest.fixture
def engine() -> Engine:
    made = Engine(agents={"main": ANYTHING, "other": ANYTHING})
    made.put(profile(A, "secret-a"), profile(B, "secret-b"))
    return made


async def told(stream: LeaseStream) -> Notice:
    """The next event, which must come without any time passing."""
    async with asyncio.timeout(60):
        return await stream.next()


async def all_told(stream: LeaseStream) -> list[Notice]:
    """Every event there is to tell now."""
    found: list[Notice] = []
    while True:
        asking = asyncio.ensure_future(stream.next())
        for _ in range(10):
            await asyncio.sleep(0)
        if not asking.done():
            asking.cancel()
            return found
        found.append(await asking)
        if found[-1].kind is REVOKED:
            return found


async def begun(engine: Engine, agent: str = "main", **asked: object) -> LeaseStream:
    stream = engine.lease_service.stream(agent, replace(ANY, **asked))  # type: ignore[arg-type]
    assert (await told(stream)).kind is GRANTED
    return stream


def passes(engine: Engine, seconds: float) -> None:
    """Time goes on, and the loop that minds it has its turn."""
    engine.clock.advance(seconds)
    engine.expiry.turn()


def kinds(notices: list[Notice]) -> list[tuple[NoticeKind, str]]:
    return [(notice.kind, notice.reason) for notice in notices]


def ends(engine: Engine) -> list[str]:
    return [event.reason for event in engine.emitted if isinstance(event, LeaseRevoked)]


def secret(notice: Notice) -> SecretValue | None:
    assert notice.grant is not None
    return notice.grant.held.profile.secret


# -- the course of a stream --------------------------------------------------------------------------------------------


async def test_the_first_event_is_the_lease(engine: Engine) -> None:
    """As it was granted; there is nothing else to tell then."""
    with engine.lease_service.stream("main", ANY) as stream:
        notice = await told(stream)
        assert notice.grant is not None
        assert notice == Notice(GRANTED, notice.grant.lease.id, notice.grant, "", 900.0)
        assert notice.grant.lease.streaming
        assert secret(notice) == SecretValue("secret-a")
        assert await all_told(stream) == []


async def test_stream_renews_after_two_thirds(engine: Engine) -> None:
    """Not before; and from then on again and again."""
    with await begun(engine) as stream:
        for _ in range(3):
            passes(engine, 599.9)
            assert await all_told(stream) == []
            passes(engine, 0.1)
            notice = await told(stream)
            assert notice.kind is RENEWED
            assert notice.grant is not None
            assert notice.grant.lease.expires_at == engine.clock.steady() + 900


async def test_stream_warns_once_before_its_maximum(engine: Engine) -> None:
    """EXPIRING when a renewal gains nothing any more, REVOKED at the end, and nothing in between."""
    course: list[tuple[float, NoticeKind, str]] = []
    with await begun(engine) as stream:
        began = engine.clock.steady()
        for _ in range(3700):
            passes(engine, 1)
            course += [(engine.clock.steady() - began, n.kind, n.reason) for n in await all_told(stream)]
            if course and course[-1][1] is REVOKED:
                break
    *renewals, warning, end = course
    assert {kind for _, kind, _ in renewals} == {RENEWED}
    assert warning[1:] == (EXPIRING, "max_ttl")
    assert renewals[-1][0] < warning[0] < 3600
    assert end == (3600, REVOKED, "max_ttl")
    assert ends(engine) == ["max_ttl"]
    assert engine.lease_admin.count() == (0, 0)


async def test_warning_needs_few_wakeups(engine: Engine) -> None:
    """Between the warning and the end nobody is woken."""
    engine = Engine(agents={"main": ANYTHING}, lease_options=LeaseOptions(max_ttl=900))
    engine.put(profile(A))
    with await begun(engine) as stream:
        passes(engine, 600)
        assert kinds(await all_told(stream)) == [(EXPIRING, "max_ttl")]
        assert engine.lease_table.deadlines.next() == engine.clock.steady() + 300


async def test_leaving_the_stream_ends_the_lease(engine: Engine) -> None:
    """However it is left; and what waits in its mailbox is nobody's any more."""
    for error in (None, RuntimeError("broken pipe"), asyncio.CancelledError()):
        stream = await begun(engine)
        try:
            with stream:
                engine.put(profile(A, f"new {error}"), profile(B))
                if error:
                    raise error
        except (RuntimeError, asyncio.CancelledError):
            pass
        assert engine.lease_admin.count() == (0, 0)
    assert ends(engine) == ["revoked"] * 3
    passes(engine, 1e6)
    assert len(engine.lease_table.deadlines) < 10


async def test_stream_ends_the_lease_once(engine: Engine) -> None:
    """A stream that was revoked and is then left says the first reason, once."""
    with await begun(engine) as stream:
        assert engine.lease_admin.revoke_matching(profile=A) == 1
        assert kinds(await all_told(stream)) == [(REVOKED, "revoked")]
    assert ends(engine) == ["revoked"]


async def test_last_event_has_no_material(engine: Engine) -> None:
    """No grant, no secret."""
    with await begun(engine) as stream:
        (lease,) = engine.lease_admin.active()
        engine.lease_admin.drain()
        assert await told(stream) == Notice(REVOKED, lease.id, None, "shutting_down", 5.0)


async def test_unread_stream_is_not_renewed(engine: Engine) -> None:
    """Nobody is there to use it: the lease ends, and a slow reader finds that, alone."""
    with await begun(engine) as stream:
        passes(engine, 600)
        engine.put(profile(A, "new"), profile(B))
        passes(engine, 300)
        assert engine.lease_admin.count() == (0, 0)
        assert kinds(await all_told(stream)) == [(REVOKED, "expired")]


async def test_rotation_after_the_end_is_not_delivered(engine: Engine) -> None:
    """Though nobody has ended the lease yet."""
    with await begun(engine, profile=A, ttl=10.0) as stream:
        engine.clock.advance(10)
        engine.put(profile(A, "rotated"), profile(B))
        assert kinds(await all_told(stream)) == [(REVOKED, "expired")]


async def test_a_notice_is_read_in_the_time_of_the_lease(engine: Engine) -> None:
    """`patience`: what is left of the lease it tells of."""
    with await begun(engine, ttl=300.0) as stream:
        passes(engine, 100)
        engine.put(profile(A, "new"), profile(B))
        assert (await told(stream)).patience == 200


# -- rotation ----------------------------------------------------------------------------------------------------------


async def test_new_material_is_sent_at_once(engine: Engine) -> None:
    """To the streams on that profile, and to no other; with a greater version; the lease lasts as long as before."""
    with await begun(engine, profile=A) as one, await begun(engine, profile=B) as other:
        (lease, _) = engine.lease_admin.active()
        passes(engine, 60)
        engine.put(profile(A, "rotated"), profile(B, "secret-b"))
        notice = await told(one)
        assert notice.grant is not None
        assert (notice.kind, notice.grant.lease, secret(notice)) == (ROTATED, lease, SecretValue("rotated"))
        assert await all_told(one) == await all_told(other) == []


async def test_slow_reader_gets_only_the_newest_material(engine: Engine) -> None:
    """A thousand rotations that nobody read are one; and one that was taken back is none."""
    with await begun(engine, profile=A) as stream:
        for n in range(1000):
            engine.put(profile(A, f"rotated {n}"), profile(B))
        notices = await all_told(stream)
        assert kinds(notices) == [(ROTATED, "")]
        assert secret(notices[0]) == SecretValue("rotated 999")


async def test_change_without_effect_is_not_sent(engine: Engine) -> None:
    """The same secrets, listed again; another profile; a counter."""
    with await begun(engine, profile=A) as stream:
        engine.put(profile(A, "secret-a"), profile(B, "new"), profile("anthropic:c"))
        engine.lease_service.report("main", next(engine.lease_admin.active()).id, Outcome.FORMAT)
        passes(engine, 5)
        assert await all_told(stream) == []


async def test_concurrent_rotation_and_renewal_are_both_sent(engine: Engine) -> None:
    """In that order."""
    with await begun(engine, profile=A) as stream:
        passes(engine, 600)
        engine.put(profile(A, "rotated"), profile(B))
        notices = await all_told(stream)
        assert kinds(notices) == [(ROTATED, ""), (RENEWED, "")]
        assert secret(notices[1]) == SecretValue("rotated")


async def test_rotation_during_a_cooldown_is_sent(engine: Engine) -> None:
    """Also where the lease stays with a profile that cools, because nothing else would do."""
    with await begun(engine, profile=A) as stream:
        engine.lease_service.report("main", next(engine.lease_admin.active()).id, Outcome.RATE_LIMIT)
        engine.put(profile(A, "rotated"), profile(B))
        notices = await all_told(stream)
        assert kinds(notices) == [(ROTATED, "")]
        assert secret(notices[0]) == SecretValue("rotated")


async def test_an_agents_own_profile_takes_over_at_once(engine: Engine) -> None:
    """For its streams and no others; so does everybody's when its own goes, and then that one's rotations are heard of."""
    shared, own = profile(A, "secret-a"), profile(A, "own", agent="main")
    with await begun(engine, profile=A) as mine, await begun(engine, "other", profile=A) as others:
        engine.put(shared, own, profile(B))
        assert secret(await told(mine)) == SecretValue("own")
        engine.put(profile(A, "new"), own, profile(B))
        assert secret(await told(others)) == SecretValue("new")
        assert await all_told(mine) == []
        engine.put(profile(A, "new"), profile(B))
        assert secret(await told(mine)) == SecretValue("new")
        engine.put(profile(A, "newer"), profile(B))
        assert [secret(await told(stream)) for stream in (mine, others)] == [SecretValue("newer")] * 2
        assert await all_told(mine) == await all_told(others) == []


# -- the end of a credential -------------------------------------------------------------------------------------------


async def test_a_credential_that_ends_is_warned_of_and_replaced_in_time(engine: Engine) -> None:
    """EXPIRING once, `credential`; its replacement is told, and the lease lives on."""
    engine.put(profile(A, "short", expires_at=engine.clock.now() + 300))
    with await begun(engine) as stream:
        passes(engine, 200)
        assert kinds(await all_told(stream)) == [(EXPIRING, "credential")]
        passes(engine, 50)
        assert await all_told(stream) == []
        engine.put(profile(A, "long", expires_at=engine.clock.now() + 86400))
        notice = await told(stream)
        assert notice.kind is ROTATED
        assert notice.grant is not None
        assert notice.grant.lease.expires_at == engine.clock.steady() + 850
        passes(engine, 549)
        assert await all_told(stream) == []
        passes(engine, 1)
        assert kinds(await all_told(stream)) == [(RENEWED, "")]


async def test_every_credential_that_ends_is_warned_of(engine: Engine) -> None:
    """Not only the first."""
    course: list[tuple[NoticeKind, str]] = []
    with await begun(engine, profile=A) as stream:
        for n in range(3):
            engine.put(profile(A, f"number {n}", expires_at=engine.clock.now() + 300), profile(B))
            course += kinds(await all_told(stream))
            for _ in range(25):
                passes(engine, 10)
                course += kinds(await all_told(stream))
    assert course == [(ROTATED, ""), (EXPIRING, "credential")] * 3


async def test_stream_moves_after_a_missed_warning(engine: Engine) -> None:
    """The credential's end is not the stream's."""
    engine.put(profile(A, "short", expires_at=engine.clock.now() + 300), profile(B, "secret-b"))
    with await begun(engine) as stream:
        passes(engine, 300)
        assert secret((await all_told(stream))[0]) == SecretValue("secret-b")


@pytest.mark.parametrize("named", [True, False])
async def test_a_credential_that_ends_moves_or_ends_the_stream(engine: Engine, named: bool) -> None:
    """To the next profile; where the request named it, it is over."""
    engine.put(profile(A, "short", expires_at=engine.clock.now() + 300), profile(B, "secret-b"))
    with await begun(engine, profile=A if named else "") as stream:
        passes(engine, 200)
        await all_told(stream)
        passes(engine, 100)
        notices = await all_told(stream)
    if named:
        assert kinds(notices) == [(REVOKED, "no_usable_profile")]
    else:
        assert kinds(notices) == [(ROTATED, "")]
        assert secret(notices[0]) == SecretValue("secret-b")


async def test_material_that_ends_sooner_is_shown_and_warned_of_as_such(engine: Engine) -> None:
    """No grant claims to outlive its credential."""
    with await begun(engine, profile=A) as stream:
        engine.put(profile(A, "short", expires_at=engine.clock.now() + 60), profile(B))
        notice = await told(stream)
        assert notice.grant is not None
        assert notice.grant.lease.expires_at == engine.clock.steady() + 60
        passes(engine, 40)
        assert kinds(await all_told(stream)) == [(EXPIRING, "credential")]
        passes(engine, 20)
        assert kinds(await all_told(stream)) == [(REVOKED, "no_usable_profile")]


async def test_a_credential_that_lives_longer_than_the_lease_is_warned_of_near_its_end(engine: Engine) -> None:
    """Renewals reach up to it, and not past it."""
    engine.put(profile(A, expires_at=engine.clock.now() + 1200))
    course: list[tuple[float, NoticeKind, str]] = []
    with await begun(engine) as stream:
        end = engine.clock.steady() + 1200
        for _ in range(120):
            passes(engine, 10)
            for notice in await all_told(stream):
                course.append((end - engine.clock.steady(), notice.kind, notice.reason))
                assert notice.grant is None or notice.grant.lease.expires_at <= end
    assert course == [(600, RENEWED, ""), (200, EXPIRING, "credential"), (0, REVOKED, "no_usable_profile")]


# -- failover ----------------------------------------------------------------------------------------------------------


def fail(engine: Engine, how: str) -> None:
    """Something happens to profile A."""
    if how == "vanish":
        engine.put(profile(B, "secret-b"))
        return
    outcome = {"rejection": Outcome.AUTH, "cooldown": Outcome.RATE_LIMIT, "billing": Outcome.BILLING}[how]
    lease = next(engine.lease_admin.active(profile=A))
    engine.lease_service.report(lease.agent, lease.id, outcome)
    if outcome is Outcome.BILLING and lease in engine.lease_admin.active(profile=A):
        engine.clock.advance(60.0)
        engine.lease_service.report(lease.agent, lease.id, outcome)


@pytest.mark.parametrize("how", ["vanish", "rejection", "cooldown", "billing"])
async def test_a_stream_moves_at_once(engine: Engine, how: str) -> None:
    """To the next profile, in the same turn; it stays the same lease, with the same end."""
    with await begun(engine) as stream:
        (before,) = engine.lease_admin.active()
        fail(engine, how)
        notices = await all_told(stream)
        assert kinds(notices) == [(ROTATED, "")]
        assert notices[0].grant is not None
        assert notices[0].grant.lease == replace(before, profile=B)
        assert secret(notices[0]) == SecretValue("secret-b")
    assert engine.lease_admin.count() == (0, 0)


async def test_report_returns_that_the_lease_moved(engine: Engine) -> None:
    """So that it tries again."""
    with await begun(engine):
        (lease,) = engine.lease_admin.active()
        assert engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT) is True


@pytest.mark.parametrize("how", ["vanish", "rejection", "billing"])
async def test_a_stream_on_a_named_profile_never_moves(engine: Engine, how: str) -> None:
    """It ends."""
    with await begun(engine, profile=A) as stream:
        fail(engine, how)
        assert kinds(await all_told(stream)) == [(REVOKED, "no_usable_profile")]
    assert ends(engine) == ["no_usable_profile"]


async def test_a_cooldown_does_not_end_a_stream_on_a_named_profile(engine: Engine) -> None:
    """It passes."""
    with await begun(engine, profile=A) as stream:
        fail(engine, "cooldown")
        assert await all_told(stream) == []
        passes(engine, 600)
        assert kinds(await all_told(stream)) == [(RENEWED, "")]


async def test_without_another_profile_a_stream_ends(engine: Engine) -> None:
    """Unless its own only cools down."""
    engine.put(profile(A))
    with await begun(engine) as stream:
        fail(engine, "cooldown")
        assert await all_told(stream) == []
        fail(engine, "rejection")
        assert kinds(await all_told(stream)) == [(REVOKED, "no_usable_profile")]


async def test_a_strict_pin_keeps_a_stream_that_cools_and_ends_one_that_cannot_serve(engine: Engine) -> None:
    """It does not go to a sibling; one that is not strict does."""
    engine.resolver.pin("main", "strict", "anthropic", A, strict=True)
    engine.resolver.pin("main", "loose", "anthropic", A, strict=False)
    with await begun(engine, session="strict") as strict, await begun(engine, session="loose") as loose:
        fail(engine, "cooldown")
        assert await all_told(strict) == []
        assert secret(await told(loose)) == SecretValue("secret-b")
        fail(engine, "rejection")
        assert kinds(await all_told(strict)) == [(REVOKED, "no_usable_profile")]
        assert await all_told(loose) == []


async def test_failing_profile_moves_its_session(engine: Engine) -> None:
    """The session's stream and its next request end up on one profile."""
    with await begun(engine, session="s") as stream:
        fail(engine, "cooldown")
        notice = await told(stream)
        assert notice.grant is not None
        assert notice.grant.lease.profile == B
        assert {engine.lease_service.acquire("main", replace(ANY, session="s")).lease.profile for _ in range(3)} == {B}


async def test_many_streams_spread(engine: Engine) -> None:
    """Those of a failing profile take turns on what is left, each told once."""
    engine.put(*(profile(f"anthropic:{n}") for n in range(4)))
    streams = [await begun(engine) for _ in range(12)]
    engine.put(*(profile(f"anthropic:{n}") for n in range(1, 4)))
    assert [notice for stream in streams for notice in kinds(await all_told(stream))] == [(ROTATED, "")] * 3
    assert Counter(lease.profile for lease in engine.lease_admin.active()) == {f"anthropic:{n}": 4 for n in (1, 2, 3)}


async def test_a_stream_never_carries_another_providers_secret(engine: Engine) -> None:
    """Should its profile id come to mean another vendor, the stream moves on or ends."""
    with await begun(engine) as automatic, await begun(engine, profile=A) as named:
        engine.put(replace(profile(A, "of-openai"), provider="openai"), profile(B, "secret-b"))
        assert secret(await told(automatic)) == SecretValue("secret-b")
        assert kinds(await all_told(named)) == [(REVOKED, "no_usable_profile")]


async def test_failover_respects_the_policy() -> None:
    """A stream does not move to what its agent may not have."""
    engine = Engine(agents={"main": AgentPolicy(providers=frozenset({"*"}), profiles=frozenset({A}))})
    engine.put(profile(A), profile(B))
    with await begun(engine) as stream:
        fail(engine, "rejection")
        assert kinds(await all_told(stream)) == [(REVOKED, "no_usable_profile")]


# -- the wall clock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [3600.0, -3600.0])
async def test_clock_jump_sends_new_instants(engine: Engine, by: float) -> None:
    """RENEWED, so that the holder's idea of the end is right again; what is left of the lease is what was left."""
    with await begun(engine) as stream:
        before = engine.lease_service.look(next(engine.lease_admin.active()).id)
        engine.clock.jump_wall(by)
        engine.expiry.turn()
        notices = await all_told(stream)
        assert kinds(notices) == [(RENEWED, "")]
        assert notices[0].grant == replace(before, offset=before.offset + by)


async def test_a_jump_and_a_renewal_that_come_together_are_one(engine: Engine) -> None:
    """And a renewal that gains nothing does not swallow the jump."""
    with await begun(engine) as stream:
        engine.clock.jump_wall(3600)
        passes(engine, 600)
        assert kinds(await all_told(stream)) == [(RENEWED, "")]
    engine.put(profile(A, expires_at=engine.clock.now() + 700))
    with await begun(engine) as stream:
        passes(engine, 500)
        assert kinds(await all_told(stream)) == [(EXPIRING, "credential")]
        engine.clock.jump_wall(-60)
        passes(engine, 190)
        stream._mailbox.post(LeaseChange.DUE)
        assert [kind for kind, _ in kinds(await all_told(stream))] == [RENEWED]


async def test_jump_and_warning_are_sent_as_one_warning() -> None:
    """With the new instants in it."""
    engine = Engine(lease_options=LeaseOptions(max_ttl=900))
    engine.put(profile(A))
    with await begun(engine) as stream:
        engine.clock.jump_wall(3600)
        passes(engine, 600)
        notices = await all_told(stream)
        assert kinds(notices) == [(EXPIRING, "max_ttl")]
        assert notices[0].grant is not None
        assert notices[0].grant.offset == engine.lease_table.offset()


async def test_a_credential_that_a_jump_gave_more_time_is_warned_of_again(engine: Engine) -> None:
    """Its end is another one then."""
    engine.put(profile(A, expires_at=engine.clock.now() + 300))
    with await begun(engine, profile=A) as stream:
        passes(engine, 200)
        assert kinds(await all_told(stream)) == [(EXPIRING, "credential")]
        engine.clock.jump_wall(-1000)
        course: list[tuple[NoticeKind, str]] = []
        for _ in range(120):
            passes(engine, 10)
            course += kinds(await all_told(stream))
    assert course[0] == (RENEWED, "")
    assert course[-2:] == [(EXPIRING, "credential"), (REVOKED, "no_usable_profile")]
    assert course.count((EXPIRING, "credential")) == 1


async def test_jump_and_rotation_are_both_sent(engine: Engine) -> None:
    """And a rotation that is none does not swallow the jump."""
    with await begun(engine, profile=A) as stream:
        engine.put(profile(A, "rotated"), profile(B))
        engine.put(profile(A, "secret-a"), profile(B))
        engine.clock.jump_wall(3600)
        engine.expiry.turn()
        notices = await all_told(stream)
        assert (RENEWED, "") in kinds(notices)
        assert notices[-1].grant is not None
        assert notices[-1].grant.offset == engine.lease_table.offset()


async def test_a_jump_past_the_credentials_end_moves_the_stream(engine: Engine) -> None:
    """The credential's issuer goes by the wall clock."""
    engine.put(profile(A, expires_at=engine.clock.now() + 1800), profile(B, "secret-b"))
    with await begun(engine) as stream:
        engine.clock.jump_wall(3600)
        engine.expiry.turn()
        notices = await all_told(stream)
        assert kinds(notices)[0] == (ROTATED, "")
        assert secret(notices[0]) == SecretValue("secret-b")


async def test_ended_lease_is_not_read(engine: Engine) -> None:
    """What an open stream may ask is refused then."""
    stream = await begun(engine)
    (lease,) = engine.lease_admin.active()
    with stream:
        pass
    for ask in (engine.lease_service.look, engine.stream_leases.extend):
        with pytest.raises(LeaseNotFound):
            ask(lease.id)


# -- streams of tokens -------------------------------------------------------------------------------------------------


@pytest.fixture
def gateway() -> Engine:
    made = Engine(deliveries=frozenset(Delivery), order={"anthropic": (A, B)})
    made.put(profile(A, "secret-a"), profile(B, "secret-b"))
    return made


async def test_holder_of_a_token_gets_no_rotation(gateway: Engine) -> None:
    """The token is the same whatever is behind it; another profile is told, for the lease says which it is."""
    with await begun(gateway, delivery="brokered") as stream:
        gateway.put(profile(A, "secret-a2"), profile(B, "secret-b"))
        assert await all_told(stream) == []
        gateway.put(profile(B, "secret-b"))
        (notice,) = await all_told(stream)
        assert notice.grant is not None
        assert (notice.kind, notice.grant.lease.profile) == (ROTATED, B)
        assert notice.grant.token == stream._granted.token


async def test_token_stays_without_a_usable_profile(gateway: Engine) -> None:
    """A process has it in its environment: it works again once there is something."""
    with await begun(gateway, delivery="brokered") as stream:
        gateway.put()
        assert await all_told(stream) == []
        gateway.put(profile(A, "secret-a3"))
        assert await all_told(stream) == []
        assert gateway.gateway_leases.bearer(stream._granted.lease.token).profile == A


async def test_a_token_is_renewed_past_the_end_of_its_credential(gateway: Engine) -> None:
    """Nothing is said of an end that is none."""
    gateway.put(profile(A, expires_at=gateway.clock.now() + 60))
    with await begun(gateway, delivery="brokered", ttl=100.0) as stream:
        passes(gateway, 59)
        assert await all_told(stream) == []
        passes(gateway, 10)
        assert kinds(await all_told(stream)) == [(RENEWED, "")]


async def test_a_token_ends_with_its_stream(gateway: Engine) -> None:
    """With the process that held it open."""
    with await begun(gateway, delivery="brokered") as stream:
        token = stream._granted.lease.token
        assert gateway.gateway_leases.bearer(token) == stream._granted.lease
    with pytest.raises(LeaseNotFound):
        gateway.gateway_leases.bearer(token)


async def test_a_token_survives_the_brokers_restart(gateway: Engine) -> None:
    """The stream is told to look for another broker, which knows the token by its digest until the lease ends."""
    with await begun(gateway, delivery="brokered", ttl=100.0) as stream:
        lease = stream._granted.lease
        gateway.lease_admin.drain()
        assert kinds(await all_told(stream)) == [(REVOKED, "shutting_down")]
    gateway.store.flush()
    after = Engine(deliveries=frozenset(Delivery), store=gateway.store, clock=gateway.clock)
    after.put(profile(A, "secret-a"))
    found = after.gateway_leases.bearer(lease.token)
    assert (found.id, found.streaming) == (lease.id, False)
    assert after.lease_service.renew("main", lease.id).token is None
    after.clock.advance(101)
    with pytest.raises(LeaseExpired):
        after.gateway_leases.bearer(lease.token)


@pytest.mark.parametrize("killed", [False, True])
async def test_next_stream_keeps_the_token(gateway: Engine, killed: bool) -> None:
    """One process is given one token, however many leases its life takes, and whether or not the broker was killed between
    them. The lease before is over then."""
    first = gateway.lease_service.stream("main", replace(ANY, delivery="brokered", session="talk"))
    lease, token = first._granted.lease, first._granted.token
    engine = gateway
    if killed:
        gateway.store.flush()
        engine, token = Engine(deliveries=frozenset(Delivery), store=gateway.store, clock=gateway.clock), None
        engine.put(profile(A, "secret-a"))
    with await begun(engine, delivery="brokered", succeeds=lease.id) as stream:
        granted = stream._granted
        assert (granted.lease.token, granted.token) == (lease.token, token)
        assert granted.lease.max_expires_at == engine.clock.steady() + 3600
        assert engine.gateway_leases.bearer(lease.token).id == granted.lease.id != lease.id
        assert ends(engine) == ["succeeded"]
        if not killed:
            first.__exit__()
        assert engine.gateway_leases.bearer(lease.token).id == granted.lease.id


async def test_successor_needs_no_quota(gateway: Engine) -> None:
    """The one takes the place of the other."""
    engine = Engine(deliveries=frozenset(Delivery), agents={"main": replace(ANYTHING, max_leases=1)})
    engine.put(profile(A, "secret-a"))
    first = engine.lease_service.stream("main", replace(ANY, delivery="brokered"))._granted.lease
    with pytest.raises(LeaseLimit):
        engine.lease_service.stream("main", replace(ANY, delivery="brokered"))
    second = engine.lease_service.stream("main", replace(ANY, delivery="brokered", succeeds=first.id))._granted.lease
    assert (second.token, [one.id for one in engine.lease_admin.active()]) == (first.token, [second.id])


@pytest.mark.parametrize("why", ["revoked", "unknown", "provider", "agent", "raw"])
async def test_token_of_another_lease_is_not_kept(gateway: Engine, why: str) -> None:
    """Not once it was revoked, not to another provider or agent. Who asks is given another."""
    agents = {"main": ANYTHING, "other": ANYTHING}
    engine = Engine(deliveries=frozenset(Delivery), agents=agents)
    engine.put(profile(A, "secret-a"), profile("openai:a", "secret-o"))
    asked = replace(ANY, delivery="raw" if why == "raw" else "brokered")
    lease = engine.lease_service.acquire("main", asked).lease
    before = "none" if why == "unknown" else lease.id
    if why == "revoked":
        engine.lease_service.revoke("main", lease.id)
    granted = engine.lease_service.acquire(
        "other" if why == "agent" else "main",
        LeaseRequest(provider="openai" if why == "provider" else "anthropic", delivery="brokered", succeeds=before),
    )
    assert granted.token is not None
    assert granted.lease.token != lease.token
    assert why in ("revoked", "unknown") or engine.lease_service.look(lease.id).lease == lease
