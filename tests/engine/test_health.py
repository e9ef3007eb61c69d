"""Health, as the contract says: by provider, by profile, as a whole, and live."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome
from equabot_broker.domain.material import SourceUnavailable, UnitsListed
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.provider import Provider
from equabot_broker.engine.leases.messages import LeaseRequest
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.source import FakeSource

A, B = "anthropic:a", "anthropic:b"
WHOLE = ("", "readiness")


def made(*required: str, sources: int = 1) -> Engine:
    return Engine(
        required=required,
        sources=tuple(FakeSource(f"s{n}") for n in range(sources)),
        agents={"main": ANYTHING, "ann": ANYTHING},
    )


@pytest.fixture
def engine() -> Engine:
    ready = made("anthropic")
    ready.put(profile(A))
    return ready


def statuses(engine: Engine, *names: str) -> list[bool | None]:
    return [engine.readiness.status(name) for name in names]


def report(engine: Engine, profile_id: str, outcome: Outcome) -> None:
    """Both agents have met it: what one alone has met is no matter of health."""
    leases = [engine.lease_service.acquire(agent, LeaseRequest(profile=profile_id)).lease for agent in engine.policies.agents]
    for lease in leases:
        engine.lease_service.report(lease.agent, lease.id, outcome)


# -- readiness ---------------------------------------------------------------------------------------------------------


def test_it_is_ready_when_every_source_was_read_and_every_required_provider_serves() -> None:
    """Not before, whichever comes last."""
    engine = made("anthropic", "openai", sources=2)
    assert statuses(engine, *WHOLE) == [False, False]
    engine.put(profile(A))
    assert statuses(engine, *WHOLE) == [False, False]
    assert engine.readiness.unmet().keys() == {"openai"}
    engine.put(profile("openai:x"), source=1)
    assert statuses(engine, *WHOLE) == [True, True]
    assert engine.readiness.unmet() == {}
    engine.put(source=1)
    assert statuses(engine, *WHOLE) == [False, False]


def test_with_nothing_required_every_source_must_have_been_tried_once() -> None:
    """P8: a source that cannot be read does not keep the broker unready, whether it could be read before or not."""
    engine = made(sources=2)
    engine.put()
    assert statuses(engine, *WHOLE) == [False, False]
    engine.ingest._take(1, SourceUnavailable("no route"))
    assert statuses(engine, *WHOLE) == [True, True]
    engine.put(source=1)
    engine.ingest._take(1, SourceUnavailable("no route"))
    assert statuses(engine, *WHOLE) == [True, True]


def test_a_source_that_cannot_be_read_counts_where_a_required_provider_lacks_its_credential() -> None:
    """P8: only through the provider, and with words that name the source."""
    engine = made("anthropic", sources=2)
    engine.put()
    engine.ingest._take(1, SourceUnavailable("no route"))
    assert statuses(engine, *WHOLE) == [False, False]
    assert "s1" in engine.readiness.unmet()["anthropic"]
    engine.put(profile(A))
    assert statuses(engine, *WHOLE) == [True, True]


def test_an_order_of_profiles_that_are_gone_serves_nothing() -> None:
    """P9: an exclusive order that names only a deleted profile; a request would be refused as well."""
    engine = Engine(required=("anthropic",), order={"anthropic": (B,)})
    engine.put(profile(A))
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [False, False, False, True]
    assert B in engine.readiness.unmet()["anthropic"]
    engine.put(profile(A), profile(B))
    assert statuses(engine, *WHOLE, "provider/anthropic") == [True, True, True]


def test_a_policy_that_names_a_profile_that_is_not_there_serves_nothing() -> None:
    """P9: the only agent may have another profile than the one that is there."""
    engine = Engine(required=("anthropic",), agents={"main": replace(ANYTHING, profiles=frozenset({B}))})
    engine.put(profile(A))
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [False] * 4
    engine.put(profile(A), profile(B))
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}", f"profile/{B}") == [True, True, True, False, True]


@pytest.mark.parametrize("outcome", [Outcome.RATE_LIMIT, Outcome.TIMEOUT, Outcome.FORMAT, Outcome.OK])
async def test_a_cooldown_alone_does_not_make_it_unready(engine: Engine, outcome: Outcome) -> None:
    """It passes."""
    report(engine, A, outcome)
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [True] * 4


@pytest.mark.parametrize("outcome", [Outcome.AUTH, Outcome.BILLING])
async def test_a_rejection_or_a_billing_disable_of_the_last_profile_does(engine: Engine, outcome: Outcome) -> None:
    """Of the last one: while another serves, only its own name says so. S5: billing disables when it comes a second time."""
    engine.put(profile(A), profile(B))
    for each in (A, B) if outcome is Outcome.BILLING else ():
        report(engine, each, outcome)
    assert statuses(engine, *WHOLE, f"profile/{A}", f"profile/{B}") == [True] * 4
    engine.clock.advance(MINUTE)
    report(engine, A, outcome)
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}", f"profile/{B}") == [True, True, True, False, True]
    report(engine, B, outcome)
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{B}") == [False] * 4


@pytest.mark.parametrize("outcome", [Outcome.AUTH, Outcome.BILLING])
async def test_evidence_of_one_agent_does_not_affect_health(engine: Engine, outcome: Outcome) -> None:
    """S4, S5: however often it reports it."""
    for _ in range(5):
        lease = next(engine.lease_admin.active(), None) or engine.lease_service.acquire("main", LeaseRequest(profile=A)).lease
        engine.lease_service.report("main", lease.id, outcome)
        engine.clock.advance(MINUTE)
        engine.expiry.turn()
        assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [True] * 4


async def test_a_billing_disable_ends(engine: Engine) -> None:
    """And with it the outage."""
    report(engine, A, Outcome.BILLING)
    engine.clock.advance(MINUTE)
    report(engine, A, Outcome.BILLING)
    assert statuses(engine, *WHOLE) == [False, False]
    engine.clock.advance(5 * HOUR)
    engine.expiry.turn()
    assert statuses(engine, *WHOLE) == [True, True]


def test_expired_profile_makes_it_unready(engine: Engine) -> None:
    """`expiring` serves, `expired` does not."""
    engine.put(profile(A, expires_at=engine.clock.now() + 60))
    assert statuses(engine, *WHOLE, f"profile/{A}") == [True, True, True]
    engine.clock.advance(60)
    engine.expiry.turn()
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [False] * 4


def test_missing_and_malformed_values_make_it_unready(engine: Engine) -> None:
    """What is there but unusable is known; what is gone is not."""
    engine.put(profile(A, None))
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [False] * 4
    engine.put()
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [False, False, False, None]


def test_a_source_that_is_away_does_when_its_budget_ends(engine: Engine) -> None:
    """Until then the last good values serve."""
    engine.ingest._take(0, SourceUnavailable("no route"))
    engine.clock.advance(599)
    engine.expiry.turn()
    assert statuses(engine, *WHOLE) == [True, True]
    engine.clock.advance(1)
    engine.expiry.turn()
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}") == [False] * 4


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deliveries", "requests", "ready"),
    [
        ((Delivery.BROKERED,), (), False),
        ((Delivery.BROKERED,), ("/**",), True),
        ((Delivery.BROKERED, Delivery.RAW), (), True),
    ],
)
def test_a_provider_that_no_agent_may_be_granted_does(
    deliveries: tuple[Delivery, ...], requests: tuple[str, ...], *, ready: bool
) -> None:
    """S1: one that is not brokered serves no agent that may have brokered leases alone."""
    acme = Provider(id="acme", base_url="https://api.acme.example", requests=requests)
    engine = Engine(
        required=("acme",),
        providers={"acme": acme},
        agents={"main": replace(ANYTHING, deliveries=deliveries)},
        deliveries=frozenset(Delivery),
    )
    engine.put(profile("acme:a"))
    assert statuses(engine, "readiness", "provider/acme", "profile/acme:a") == [ready] * 3


def test_liveness_shows_that_the_loop_runs() -> None:
    """Whatever the credentials do, and while draining."""
    engine = made("anthropic")
    assert engine.readiness.status("liveness") is True
    engine.readiness.drain()
    assert engine.readiness.status("liveness") is True


@pytest.mark.parametrize(
    "name", ["nobody", "provider/nobody", "provider/", "profile/", f"profile/{B}", "Readiness", " ", "provider", "/"]
)
def test_unknown_name_has_no_status(engine: Engine, name: str) -> None:
    """Also while draining."""
    assert engine.readiness.status(name) is None
    engine.readiness.drain()
    assert engine.readiness.status(name) is None


def test_a_known_provider_without_a_profile_does_not_serve(engine: Engine) -> None:
    """Under any of its names."""
    assert statuses(engine, "provider/zai", "provider/z.ai", "provider/Z.AI") == [False] * 3
    engine.put(profile("zai:x"))
    assert statuses(engine, "provider/zai", "provider/z.ai", "provider/Z.AI") == [True] * 3


def test_a_profile_of_one_agent_counts_under_its_name(engine: Engine) -> None:
    """If any of that id serves, the name does."""
    engine.put(profile(A, None), profile(A, "own", agent="ann"))
    assert statuses(engine, f"profile/{A}", "provider/anthropic") == [True, True]


def test_every_known_name_is_listed(engine: Engine) -> None:
    """With the status that asking for it gives."""
    engine.put(profile(A), profile(B, None), profile(B, None, agent="ann"))
    found = engine.readiness.statuses()
    expected = {*WHOLE, "liveness", *(f"provider/{p}" for p in engine.catalog.providers), f"profile/{A}", f"profile/{B}"}
    assert set(found) == expected
    assert found == {name: engine.readiness.status(name) for name in found}


def test_a_listing_of_ten_thousand_profiles_is_quick(engine: Engine) -> None:
    """It looks at each once: were it to look at all of them for each, this would take minutes."""
    engine.put(*(profile(f"anthropic:{n}") for n in range(10_000)))
    assert len(engine.readiness.statuses()) == 3 + len(engine.catalog.providers) + 10_000


def test_draining_serves_nothing_and_turns_on(engine: Engine) -> None:
    """So that traffic goes elsewhere first, and the process is not shot meanwhile."""
    engine.readiness.drain()
    assert statuses(engine, *WHOLE, "provider/anthropic", f"profile/{A}", "liveness") == [False, False, False, False, True]
    assert [name for name, serves in engine.readiness.statuses().items() if serves] == ["liveness"]


# -- watching ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def watching(engine: Engine, service: str) -> AsyncIterator[list[bool | None]]:
    """What a watcher was told so far; it reads whatever there is before each look at the list."""
    seen: list[bool | None] = []

    async def follow(stream: AsyncGenerator[bool | None, None]) -> None:
        async for status in stream:
            seen.append(status)  # noqa: PERF401 - it is looked at meanwhile

    others = set(engine.readiness._watchers)
    following = asyncio.ensure_future(follow(engine.readiness.watch(service)))
    await turns()
    yield seen
    following.cancel()
    await asyncio.wait({following})
    await turns()
    assert engine.readiness._watchers == others


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_watcher_gets_the_status_and_each_change(engine: Engine) -> None:
    """And nothing else, though much happens."""
    async with watching(engine, "provider/anthropic") as seen:
        assert seen == [True]
        for held in ((profile(A, "new"),), (profile(A), profile(B)), (profile(B),), (), (profile(A, None),), (profile(A),)):
            engine.put(*held)
            await turns()
        assert seen == [True, False, True]


async def test_slow_watcher_gets_the_last_status(engine: Engine) -> None:
    """An outage that was over before it looked is none."""
    async with watching(engine, "") as seen:
        engine.put()
        engine.put(profile(A))
        await turns()
        assert seen == [True]
        engine.put(profile(A))
        engine.put()
        await turns()
        assert seen == [True, False]


async def test_a_watcher_may_wait_for_a_name_to_appear(engine: Engine) -> None:
    """Unknown, serving, not serving, unknown again."""
    async with watching(engine, f"profile/{B}") as seen:
        for held in ((profile(B),), (profile(B, None),), ()):
            engine.put(*held)
            await turns()
        assert seen == [None, True, False, None]


async def test_the_last_source_is_heard_of_though_it_brings_no_profile() -> None:
    """That makes the broker ready."""
    engine = made(sources=2)
    async with watching(engine, "readiness") as seen:
        engine.put()
        await turns()
        assert seen == [False]
        engine.ingest._take(1, UnitsListed(()))
        await turns()
        assert seen == [False, True]


async def test_watcher_gets_changes_by_time(engine: Engine) -> None:
    """An expiry changes health without anybody doing anything."""
    engine.put(profile(A, expires_at=engine.clock.now() + 60))
    async with watching(engine, "") as seen:
        engine.clock.advance(60)
        engine.expiry.turn()
        await turns()
        assert seen == [True, False]


async def test_watcher_gets_draining_at_once(engine: Engine) -> None:
    """By every watcher but those of liveness."""
    async with watching(engine, "") as whole, watching(engine, f"profile/{A}") as one, watching(engine, "liveness") as live:
        engine.readiness.drain()
        await turns()
        assert (whole, one, live) == ([True, False], [True, False], [True])


async def test_a_thousand_watchers_may_leave(engine: Engine) -> None:
    """Each takes its own place away, also while a change is being told."""
    streams = [engine.readiness.watch("") for _ in range(1000)]
    for stream in streams:
        assert await anext(stream) is True
    engine.put()
    for stream in streams:
        await stream.aclose()
    assert engine.readiness._watchers == set()


async def test_a_broker_that_may_not_grant_is_not_ready() -> None:
    """Its profiles serve and its loop turns all the same; who watches is told when that changes."""
    blocked = [True]
    engine = Engine(required=("anthropic",), blocked=lambda: blocked[0])
    engine.put(profile("anthropic:a"))
    watching = engine.readiness.watch("readiness")
    assert [engine.readiness.status(s) for s in ("", "readiness", "liveness", "provider/anthropic")] == [
        False,
        False,
        True,
        True,
    ]
    assert await anext(watching) is False
    blocked.clear()
    blocked.append(False)
    engine.readiness.look_again()
    assert await anext(watching) is True
    await watching.aclose()
