"""The lease table: whatever happens to leases, its counts agree."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import BrokerError, LeaseExpired
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.mailboxes import LeaseChange
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.leases.streams import LeaseStream, Notice, NoticeKind
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.telemetry.events import Events
from tests.fakes.clock import FakeClock
from tests.fakes.engine import Engine, profile
from tests.fakes.state import MemoryStateStore

QUOTA = 4
AGENTS = ("main", "other")
IDS = ("anthropic:a", "anthropic:b", "anthropic:c")


def lease(lease_id: str = "1", *, streaming: bool = False, life: float = 60.0, profile_id: str = "anthropic:a") -> Lease:
    return Lease(
        id=lease_id, agent="main", session="", provider="anthropic", profile=profile_id, automatic=True, delivery=Delivery.RAW,
        asked=life, issued_at=5000.0, expires_at=5000.0 + life, max_expires_at=8600.0, streaming=streaming,
    )  # fmt: skip


@pytest.fixture
def lease_table() -> LeaseTable:
    return LeaseTable(clock=FakeClock(), store=MemoryStateStore(), events=Events())


def test_a_stream_is_reminded_once_and_then_due_at_its_end(lease_table: LeaseTable) -> None:
    """A reminder that comes later than what is planned is none."""
    lease_table.keep(lease(streaming=True))
    assert lease_table.deadlines.next() == 5060
    lease_table.remind("1", 5040)
    lease_table.remind("1", 5050)
    assert lease_table.deadlines.next() == 5040
    clock = lease_table._clock
    assert isinstance(clock, FakeClock)
    clock.advance(40)
    assert lease_table.tick() == 5060
    assert lease_table.mailbox("1")._change is LeaseChange.DUE


async def test_changes_go_to_the_mailbox_of_the_stream(lease_table: LeaseTable) -> None:
    """Which is gone with the lease, but can be read to its end by who holds it."""
    lease_table.keep(lease(streaming=True))
    mailbox = lease_table.mailbox("1")
    lease_table.wall_moved()
    lease_table.end("1", "policy")
    assert await mailbox.take() == LeaseChange.MOVED | LeaseChange.ENDED
    assert mailbox.reason == "policy"
    with pytest.raises(KeyError):
        lease_table.mailbox("1")


def test_streams_are_found_by_profile(lease_table: LeaseTable) -> None:
    """Where they are now; other leases are not."""
    lease_table.keep(lease("1", streaming=True))
    lease_table.keep(lease("2", streaming=True))
    lease_table.keep(lease("3"))
    moved = lease("1", streaming=True, profile_id="anthropic:b")
    lease_table.replace(moved)
    assert lease_table.streams("anthropic:a") == [lease("2", streaming=True)]
    assert lease_table.streams("anthropic:b") == [moved]
    assert lease_table.streams("anthropic:c") == []
    assert [held.id for held in lease_table.all()] == ["1", "2", "3"]


def test_adopted_lease_is_not_stored_again() -> None:
    """A restart with many leases writes none of them."""
    store = MemoryStateStore()
    lease_table = LeaseTable(clock=FakeClock(), store=store, events=Events())
    lease_table.adopt(lease())
    assert store._pending == []
    lease_table.end("1", "revoked")
    assert store._pending == [("leases", "1", None)]


class Books(RuleBasedStateMachine):
    """Agents, operators, sources, providers and clocks do what they like, in any order."""

    def __init__(self) -> None:
        super().__init__()
        policy = AgentPolicy(providers=frozenset({"anthropic"}), max_leases=QUOTA)
        self.policies = {"main": policy, "other": replace(policy, profiles=frozenset(IDS[:2]))}
        self.engine = Engine(agents=self.policies)
        self.streams: list[LeaseStream] = []
        self.ended: list[LeaseStream] = []
        self.named: dict[str, str] = {}
        self.ids: list[str] = ["never there"]
        self.runner = asyncio.Runner()
        self.rotation = 0

    def teardown(self) -> None:
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    # -- the world ---------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.engine.put(*(profile(i) for i in IDS))

    @rule()
    def everything_vanishes(self) -> None:
        self.engine.put()

    @rule(
        held=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(["", "main"])), unique=True, min_size=2, max_size=5),
        lives=st.lists(st.sampled_from([None, None, 30.0, 700.0]), min_size=5, max_size=5),
        faults=st.sets(st.integers(0, 20), max_size=2),
        rotated=st.booleans(),
        foreign=st.sampled_from([None, None, None, 0]),
    )
    def sources_change(
        self, held: list[tuple[str, str]], lives: list[float | None], faults: set[int], rotated: bool, foreign: int | None
    ) -> None:
        self.rotation += rotated
        now = self.engine.clock.now()
        found: list[Profile] = []
        for n, ((profile_id, agent), life) in enumerate(zip(held, lives, strict=False)):
            secret = None if n in faults else f"{profile_id} {agent} {self.rotation}"
            one = profile(profile_id, secret, agent=agent, expires_at=life and now + life)
            found.append(replace(one, provider="openai") if n == foreign else one)
        self.engine.put(*found)

    @rule(seconds=st.sampled_from([0.5, 10.0, 60.0, 600.0, 4000.0]), minded=st.booleans())
    def time_passes(self, seconds: float, minded: bool) -> None:
        self.engine.clock.advance(seconds)
        if minded:
            self.engine.expiry.turn()

    @rule(by=st.sampled_from([3600.0, -3600.0, 1.0]))
    def wall_jumps(self, by: float) -> None:
        self.engine.clock.jump_wall(by)
        self.engine.expiry.turn()

    # -- agents ------------------------------------------------------------------------------------------------------------

    @rule(
        agent=st.sampled_from(AGENTS), named=st.sampled_from(["", "", "", *IDS]), session=st.sampled_from(["", "s"]),
        ttl=st.sampled_from([None, 20.0, 5000.0]), streaming=st.booleans(),
    )  # fmt: skip
    def ask(self, agent: str, named: str, session: str, ttl: float | None, streaming: bool) -> None:
        request = LeaseRequest(provider="anthropic", profile=named, session=session, ttl=ttl)
        with suppress(BrokerError):
            if streaming:
                stream = self.engine.lease_service.stream(agent, request)
                self.streams.append(stream)
                granted = stream._granted
            else:
                granted = self.run(self.acquired(agent, request))
            self.check(granted)
            self.ids.append(granted.lease.id)
            self.named[granted.lease.id] = named

    @rule(data=st.data(), ttl=st.sampled_from([None, 5.0, 5000.0]))
    def renew(self, data: st.DataObject, ttl: float | None) -> None:
        with suppress(BrokerError):
            self.check(self.engine.lease_service.renew(*self.pick(data), ttl))

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        self.engine.lease_service.revoke(*self.pick(data))

    @rule(data=st.data(), outcome=st.sampled_from(Outcome), retry_after=st.sampled_from([None, 5.0]))
    def report(self, data: st.DataObject, outcome: Outcome, retry_after: float | None) -> None:
        with suppress(BrokerError):
            self.engine.lease_service.report(*self.pick(data), outcome, retry_after=retry_after)

    @rule(agent=st.sampled_from(AGENTS), profile_id=st.sampled_from(["", *IDS]), strict=st.booleans())
    def pin(self, agent: str, profile_id: str, strict: bool) -> None:
        with suppress(BrokerError):
            if profile_id:
                self.engine.resolver.pin(agent, "s", "anthropic", profile_id, strict=strict)
            else:
                self.engine.resolver.unpin(agent, "s", "anthropic")

    @rule(agent=st.sampled_from(AGENTS), order=st.lists(st.sampled_from(IDS), max_size=3))
    def set_order(self, agent: str, order: list[str]) -> None:
        with suppress(BrokerError):
            self.engine.resolver.set_order(agent, "anthropic", order)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.streams:
            stream = data.draw(st.sampled_from(self.streams))
            for notice in self.run(self.all_told(stream)):
                if notice.kind is NoticeKind.GRANTED:
                    continue  # it tells of the moment in which the stream was opened
                if notice.grant is not None:
                    self.check(notice.grant)
                elif notice.kind is NoticeKind.REVOKED:
                    assert self.engine.lease_table.get(notice.lease_id) is None
                    self.streams.remove(stream)
                    self.ended.append(stream)
                    return
            known = stream._granted
            with suppress(LeaseExpired):  # which nobody has minded yet
                current = self.engine.lease_service.look(known.lease.id)
                assert (current.held.version, current.lease.profile) == (known.held.version, known.lease.profile)

    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        if self.streams:
            with self.streams.pop(self.streams.index(data.draw(st.sampled_from(self.streams)))):
                pass

    # -- operators ---------------------------------------------------------------------------------------------------------

    @rule(profile_id=st.sampled_from(IDS))
    def revoke_all_on(self, profile_id: str) -> None:
        self.engine.lease_admin.revoke_matching(profile=profile_id)
        assert not any(held.profile == profile_id for held in self.engine.lease_admin.active())

    @rule()
    def kill_and_start_again(self) -> None:
        kept = [held for held in self.engine.lease_admin.active() if not held.streaming]
        self.engine.store.flush()
        material = self.engine.registry.material
        self.engine = Engine(agents=self.policies, store=self.engine.store, clock=self.engine.clock)
        self.streams.clear()
        assert list(self.engine.lease_admin.active()) == kept
        self.engine.put(*(held.profile for held in material.held.values()))

    # -- what holds ----------------------------------------------------------------------------------------------------------

    def pick(self, data: st.DataObject) -> tuple[str, str]:
        """A lease and its agent; now and then one that is over, or somebody else's."""
        living = [(held.agent, held.id) for held in self.engine.lease_table.all()]
        strange = (data.draw(st.sampled_from(AGENTS)), data.draw(st.sampled_from(self.ids[-4:])))
        return data.draw(st.sampled_from([*living, *living, strange]))

    def check(self, granted: Grant) -> None:
        """What is handed out is alive, allowed, of its provider, and what the sources hold now."""
        engine, lease = self.engine, granted.lease
        now = engine.clock.steady()
        assert lease.issued_at <= now < lease.expires_at <= lease.max_expires_at
        assert granted.held.profile.secret is not None
        assert granted.held.profile.provider == lease.provider == granted.provider.id
        assert granted.held.profile.agent in ("", lease.agent)
        assert self.policies[lease.agent].allows_profile(lease.provider, granted.held.profile.id)
        assert granted.held == engine.registry.material.held[granted.held.profile.agent, lease.profile]
        ends = granted.held.profile.expires_at
        assert ends is None or lease.expires_at <= ends - granted.offset + 1e-3
        usage = engine.registry.usage((granted.held.profile.agent, lease.profile))
        assert not (usage.rejected and usage.rejected_version == granted.held.version)

    @invariant()
    def the_books_agree(self) -> None:
        books = self.engine.lease_table
        leases = {held.id: held for held in books.all()}
        streams = {i for i, held in leases.items() if held.streaming}
        assert books.count() == (len(leases), len(streams))
        assert set(books._mailboxes) == streams
        assert {p: set(on) for p, on in books._streams_on.items()} == {
            p: {i for i in streams if leases[i].profile == p} for p in {leases[i].profile for i in streams}
        }
        for agent in AGENTS:
            assert books.held_by(agent) == sum(held.agent == agent for held in leases.values()) <= QUOTA
        assert set(books.deadlines._at) == set(leases)
        assert all(books.deadlines.at(i) <= held.expires_at <= held.max_expires_at for i, held in leases.items())

    @invariant()
    def a_named_profile_is_kept(self) -> None:
        for held in self.engine.lease_table.all():
            assert held.automatic == (not self.named[held.id])
            assert held.profile == (self.named[held.id] or held.profile)

    @invariant()
    def the_store_agrees(self) -> None:
        self.engine.store.flush()
        stored = {held.id: held for held in self.engine.store.load().leases}
        assert stored == {held.id: held for held in self.engine.lease_table.all() if not held.streaming}

    @invariant()
    def streams_are_where_they_can_serve(self) -> None:
        self.engine.registry.tick()
        for held in self.engine.lease_table.all():
            if held.streaming:
                home = self.engine.failover.home(held)
                assert home is not None
                assert home.standing.usable
                assert self.policies[held.agent].allows_profile(held.provider, held.profile)

    async def acquired(self, agent: str, request: LeaseRequest) -> Grant:
        return self.engine.lease_service.acquire(agent, request)

    async def all_told(self, stream: LeaseStream) -> list[Notice]:
        found: list[Notice] = []
        while not stream._begun or stream._mailbox._event.is_set():
            asking = asyncio.ensure_future(stream.next())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not asking.done():
                asking.cancel()
                break
            found.append(await asking)
        return found


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- tokens ------------------------------------------------------------------------------------------------------------


def token_lease(lease_id: str = "1", *, streaming: bool = False, token: bytes = b"t" * 32) -> Lease:
    return replace(lease(lease_id, streaming=streaming), delivery=Delivery.BROKERED, token=token)


def test_a_lease_is_found_by_its_token_while_it_lives(lease_table: LeaseTable) -> None:
    """The token itself is kept beside it, and gone with it."""
    secret = SecretValue("eqb_1")
    lease_table.keep(token_lease(), secret)
    assert (lease_table.by_token(b"t" * 32), lease_table.token("1")) == (token_lease(), secret)
    lease_table.end("1", "revoked")
    assert (lease_table.by_token(b"t" * 32), lease_table.token("1")) == (None, None)
    lease_table.keep(lease("2"))
    assert lease_table.by_token(b"") is None


def test_kept_token_belongs_to_the_new_lease(lease_table: LeaseTable) -> None:
    """The end of the old one does not take it along."""
    lease_table.keep(token_lease("1"), SecretValue("eqb_1"))
    lease_table.keep(token_lease("2"), SecretValue("eqb_1"))
    lease_table.end("1", "succeeded")
    found = lease_table.by_token(b"t" * 32)
    assert found is not None
    assert found.id == "2"


def test_the_lease_of_a_token_is_stored_though_a_stream_holds_it(lease_table: LeaseTable) -> None:
    """Without the stream, which is not there after a restart."""
    store = lease_table._store
    lease_table.keep(token_lease("1", streaming=True))
    lease_table.keep(lease("2", streaming=True))
    store.flush()
    assert [kept.id for kept in store.load().leases] == ["1"]
    lease_table.end("1", "revoked")
    store.flush()
    assert store.load().leases == ()


async def test_a_lease_that_is_detached_goes_on_without_its_stream(lease_table: LeaseTable) -> None:
    """The stream is told; the lease ends in its own time."""
    lease_table.keep(token_lease(streaming=True))
    lease_table.remind("1", 5010)
    mailbox = lease_table.mailbox("1")
    lease_table.detach("1", "shutting_down")
    assert (await mailbox.take(), mailbox.reason) == (LeaseChange.ENDED, "shutting_down")
    assert (lease_table.get("1"), lease_table.count()) == (token_lease(), (1, 0))
    assert (lease_table.deadlines.next(), lease_table.streams("anthropic:a")) == (5060, [])
    clock = lease_table._clock
    assert isinstance(clock, FakeClock)
    clock.advance(60)
    lease_table.tick()
    assert lease_table.get("1") is None
