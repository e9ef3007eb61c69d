"""Resolver: orders, pins and sessions, over what is true of the profiles now."""

import pytest

from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import NEVER, Assessment
from equabot_broker.domain.errors import (
    BrokerError,
    InvalidArgument,
    NoUsableProfile,
    PolicyDenied,
    ProfileNotFound,
    ProviderUnknown,
    ReauthRequired,
    SourceNotSynced,
)
from equabot_broker.domain.material import HeldProfile, Material, SourceUnavailable, Unit, UnitsListed
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.selection import Candidate
from equabot_broker.engine.profiles.explanations import unusable
from equabot_broker.engine.profiles.resolver import Resolver
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.source import FakeSource

REFUSED = "the provider refused it"

A, B, C = "anthropic:a", "anthropic:b", "anthropic:c"


@pytest.fixture
def engine() -> Engine:
    made = Engine()
    made.put(profile(A), profile(B), profile(C))
    return made


def choose(engine: Engine, *, agent: str = "main", profile: str = "", session: str = "") -> str:
    return engine.resolver.choose(agent, "anthropic", profile=profile, session=session).candidate.id


def cool(engine: Engine, profile_id: str, seconds: float = 60.0) -> None:
    usage = Usage(last_used=engine.registry.usage(("", profile_id)).last_used, cooldown_until=engine.clock.now() + seconds)
    engine.registry.replace_usage(("", profile_id), usage)


def refused(profile_id: str) -> str:
    """Why a refused profile does not serve, with what a person does about it."""
    return f"{REFUSED}; replace it in fake; if the provider was wrong, `equabot profile clear {profile_id}`"


def reject(engine: Engine, profile_id: str) -> None:
    found = engine.registry.find("", profile_id)
    assert found is not None
    usage = Usage(rejected=REFUSED, rejected_version=found[1].held.version)
    engine.registry.replace_usage(found[0], usage)


def later(engine: Engine, seconds: float = 1.0) -> None:
    engine.clock.advance(seconds)
    engine.registry.tick()


def rows(engine: Engine, agent: str = "main", *, session: str = "") -> list[ProfileStatus]:
    return engine.profile_statuses.of(agent, "anthropic", session=session)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "profile_id", "resolved"),
    [
        ("anthropic", "", ("anthropic", "")),
        (" Anthropic ", "", ("anthropic", "")),
        ("", A, ("anthropic", A)),
        ("anthropic", A, ("anthropic", A)),
        ("anthropic", "a", ("anthropic", A)),
        ("ANTHROPIC", "anthropic:me@x.org:2", ("anthropic", "anthropic:me@x.org:2")),
        ("z.ai", "zai:x", ("zai", "zai:x")),
        ("zai", "z.ai:x", ("zai", "zai:x")),
    ],
)
def test_names_are_normalised(engine: Engine, provider: str, profile_id: str, resolved: tuple[str, str]) -> None:
    """Any spelling of a provider, a whole profile id or the part after the colon."""
    assert engine.resolver.resolve_names(provider, profile_id) == resolved


@pytest.mark.parametrize(
    ("provider", "profile_id", "error"),
    [
        ("", "", InvalidArgument),
        ("openai", A, InvalidArgument),
        ("anthropic", "anthropic:", InvalidArgument),
        ("anthropic", ":a", InvalidArgument),
        ("nobody", "", ProviderUnknown),
        ("", "nobody:a", ProviderUnknown),
        ("nobody", A, ProviderUnknown),
        ("", "a", ProviderUnknown),
        ("x" * 1_000_000, "", ProviderUnknown),
    ],
)
def test_unknown_names_are_refused(engine: Engine, provider: str, profile_id: str, error: type[BrokerError]) -> None:
    """In few words, however many were said."""
    with pytest.raises(error) as caught:
        engine.resolver.resolve_names(provider, profile_id)
    assert len(caught.value.message) < 250


# -- automatic choices -------------------------------------------------------------------------------------------------


def test_profiles_rotate(engine: Engine) -> None:
    """The least recently used first."""
    assert [choose(engine) for _ in range(6)] == [A, B, C, A, B, C]


def test_a_use_by_one_agent_counts_for_all() -> None:
    """The load on a shared key is the sum of its users, whether they named it or not."""
    engine = Engine(agents={"ann": ANYTHING, "bob": ANYTHING})
    engine.put(profile(A), profile(B), profile(C))
    order = [choose(engine, agent="ann"), choose(engine, agent="bob"), choose(engine, agent="ann"), choose(engine, agent="bob")]
    assert order == [A, B, C, A]
    choose(engine, agent="ann", profile=B)
    assert [choose(engine, agent="bob"), choose(engine, agent="bob")] == [C, A]


def test_rotation_survives_changes_and_a_restart(engine: Engine) -> None:
    """They are kept as instants of use."""
    for _ in range(2):
        later(engine)
        choose(engine)
    later(engine)
    engine.put(profile(A), profile(B), profile(C), profile("anthropic:d"))
    assert choose(engine) == C
    later(engine)
    engine.registry.flush_used()
    engine.store.flush()
    again = Engine(store=engine.store, clock=engine.clock)
    again.put(profile(A), profile(B), profile(C))
    assert [choose(again) for _ in range(3)] == [A, B, C]


def test_kind_comes_before_rotation(engine: Engine) -> None:
    """oauth, then token, then api_key."""
    oauth = [profile("anthropic:o1", mode=Mode.OAUTH), profile("anthropic:o2", mode=Mode.OAUTH)]
    engine.put(profile(A), profile("anthropic:t", mode=Mode.TOKEN), *oauth)
    assert [choose(engine) for _ in range(4)] == ["anthropic:o1", "anthropic:o2"] * 2
    for one in oauth:
        reject(engine, one.id)
    assert choose(engine) == "anthropic:t"
    reject(engine, "anthropic:t")
    assert choose(engine) == A


def test_profiles_in_cooldown_come_last(engine: Engine) -> None:
    """By soonest end; afterwards they are back."""
    cool(engine, A, 60)
    assert [choose(engine) for _ in range(3)] == [B, C, B]
    cool(engine, B, 30)
    cool(engine, C, 90)
    assert [choose(engine) for _ in range(2)] == [B, B]
    later(engine, 30)
    assert choose(engine) == B
    later(engine, 30)
    assert choose(engine) == A


def test_outdated_assessment_is_not_used(engine: Engine) -> None:
    """Also before the loop that minds the time has come round."""
    engine.put(profile(A, expires_at=engine.clock.now() + 10), profile(B))
    assert {choose(engine), choose(engine)} == {A, B}
    engine.clock.advance(10)
    engine.registry.tick()
    assert [choose(engine) for _ in range(3)] == [B] * 3
    cool(engine, B, 5)
    assert len(engine.resolver.plan("main", "anthropic").cooling) == 1
    engine.clock.advance(5)
    assert engine.resolver.plan("main", "anthropic").cooling == ()


def test_no_usable_profile_error_has_all_reasons(engine: Engine) -> None:
    """In words of now, and with what was excluded."""
    engine.put(profile(A, expires_at=engine.clock.now() + 10), profile(B, None, fault="it is a placeholder"), profile(C))
    reject(engine, C)
    later(engine, 130)
    with pytest.raises(NoUsableProfile) as caught:
        choose(engine)
    assert caught.value.metadata == {
        A: "expired 2m ago; replace it in fake", B: "it is a placeholder", C: refused(C)
    }  # fmt: skip
    assert A in caught.value.message


def test_missing_credential_error_has_a_remedy(engine: Engine) -> None:
    """A newcomer's first error says what to do."""
    with pytest.raises(NoUsableProfile, match="OPENAI_API_KEY"):
        engine.resolver.choose("main", "openai")


def test_the_remedy_names_a_key_before_a_login() -> None:
    """F13: most people have a key, and every command names the same variable."""
    engine = Engine()
    engine.put(profile("openai:x"))
    with pytest.raises(
        NoUsableProfile,
        match="set ANTHROPIC_API_KEY in the environment or in",
    ):
        engine.resolver.choose("main", "anthropic")


def test_unread_source_raises_source_not_synced() -> None:
    """Then trying again makes sense; once it has been read, absence is absence."""
    sources = (FakeSource("quick"), FakeSource("slow"))
    engine = Engine(sources=sources)
    engine.put(profile("openai:x"), source=0)
    for asked in ("", A):
        with pytest.raises(SourceNotSynced, match="slow"):
            choose(engine, profile=asked)
    engine.ingest._take(1, SourceUnavailable("no route"))
    with pytest.raises(SourceNotSynced):
        choose(engine)
    engine.put(source=1)
    with pytest.raises(NoUsableProfile):
        choose(engine)
    with pytest.raises(ProfileNotFound):
        choose(engine, profile=A)


def test_unusable_profile_does_not_wait_for_sources() -> None:
    """A rejected key is told as that, though another source is still unread."""
    engine = Engine(sources=(FakeSource("quick"), FakeSource("slow")))
    engine.put(profile(A))
    reject(engine, A)
    with pytest.raises(NoUsableProfile):
        choose(engine)


def test_ended_login_raises_reauth_required(engine: Engine) -> None:
    """All of the candidates, not some."""
    found = engine.resolver.plan("main", "anthropic").ordered()
    login = Assessment(State.REAUTH_REQUIRED, "log in again", usable=False, cooling_until=0.0, valid_until=NEVER)
    lapsed = [Candidate(c.held, login, c.usage) for c in found]
    assert type(unusable("x", lapsed, {}, now=0.0)) is ReauthRequired
    assert type(unusable("x", [*lapsed[1:], found[0]], {}, now=0.0)) is NoUsableProfile
    assert type(unusable("x", [], {}, now=0.0)) is NoUsableProfile


# -- policy ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Engine:
    """Two agents: one may have one profile, the other nothing."""
    made = Engine(
        agents={
            "ann": AgentPolicy(providers=frozenset({"anthropic"}), profiles=frozenset({A, "anthropic:gone"})),
            "eve": AgentPolicy(),
        },
        order={"anthropic": (B, "anthropic:gone", A)},
    )
    made.put(profile(A), profile(B), profile(C))
    return made


def test_policy_is_checked_first(guarded: Engine) -> None:
    """Not chosen, not by name, not by a pin, not by an order."""
    assert [choose(guarded, agent="ann") for _ in range(3)] == [A] * 3
    for asked in (B, "anthropic:unknown"):
        with pytest.raises(PolicyDenied):
            choose(guarded, agent="ann", profile=asked)
    with pytest.raises(PolicyDenied):
        guarded.resolver.pin("ann", "s", "anthropic", "b", strict=False)
    with pytest.raises(PolicyDenied):
        guarded.resolver.set_order("ann", "anthropic", [A, B])
    for agent in ("eve", "stranger", ""):
        for asked in ("", A):
            with pytest.raises(PolicyDenied):
                choose(guarded, agent=agent, profile=asked)
        with pytest.raises(PolicyDenied):
            guarded.profile_statuses.of(agent, "anthropic")


def test_forbidden_profiles_are_not_listed(guarded: Engine) -> None:
    """No status, no name in an error, though the configured order names it."""
    assert [row.id for row in rows(guarded, "ann")] == [A, "anthropic:gone"]
    assert [row.id for row in guarded.profile_statuses.of("ann")] == [A, "anthropic:gone"]
    assert guarded.profile_statuses.of("eve") == []
    with pytest.raises(ProfileNotFound) as caught:
        choose(guarded, agent="ann", profile="anthropic:gone")
    assert B not in caught.value.message
    assert A in caught.value.message
    reject(guarded, A)
    with pytest.raises(NoUsableProfile) as refused:
        choose(guarded, agent="ann")
    assert set(refused.value.metadata) == {A, "anthropic:gone"}


def test_a_pin_from_before_a_stricter_policy_is_not_honoured(engine: Engine) -> None:
    """A restart with another configuration does not leave a door open."""
    engine.resolver.pin("main", "s", "anthropic", B, strict=False)
    stricter = {"main": AgentPolicy(providers=frozenset({"anthropic"}), profiles=frozenset({A}))}
    again = Engine(agents=stricter, store=engine.store, clock=engine.clock)
    again.put(profile(A), profile(B))
    assert choose(again, session="s") == A


# -- a profile by its name ---------------------------------------------------------------------------------------------


def test_a_named_profile_is_the_only_one_tried(engine: Engine) -> None:
    """In cooldown as well; when it cannot serve, the request fails."""
    assert choose(engine, profile=B) == B
    cool(engine, B)
    assert choose(engine, profile=B) == B
    reject(engine, B)
    with pytest.raises(NoUsableProfile) as caught:
        choose(engine, profile=B)
    assert caught.value.metadata == {B: refused(B)}
    with pytest.raises(ProfileNotFound, match="anthropic:a, anthropic:b, anthropic:c"):
        choose(engine, profile="anthropic:nobody")


def test_a_named_profile_need_not_be_in_the_order() -> None:
    """The order is about what is tried by itself."""
    engine = Engine(order={"anthropic": (A,)})
    engine.put(profile(A), profile(B))
    assert choose(engine, profile=B) == B


def test_a_profile_of_another_provider_is_not_found_by_its_name(engine: Engine) -> None:
    """Its secret would go to this provider."""
    odd = Profile(id=A, provider="openai", mode=Mode.API_KEY, source="s", unit="u", origin="o", secret=profile(A).secret)
    engine.registry.replace_material(Material({("", A): HeldProfile(odd, 0, 1)}))
    with pytest.raises(ProfileNotFound):
        choose(engine, profile=A)
    with pytest.raises(NoUsableProfile):
        choose(engine)


# -- orders ------------------------------------------------------------------------------------------------------------


def test_the_agents_order_goes_before_the_configured_one() -> None:
    """Both are exclusive; each agent has its own; clearing brings the configured one back."""
    engine = Engine(agents={"ann": ANYTHING, "bob": ANYTHING}, order={"anthropic": (B, A)})
    engine.put(profile(A), profile(B), profile(C))
    assert [choose(engine, agent="ann") for _ in range(2)] == [B, B]
    assert engine.resolver.set_order("ann", "Anthropic", ["c", A, C]) == (C, A)
    assert engine.resolver.order("ann", "anthropic") == (C, A)
    assert [choose(engine, agent="ann"), choose(engine, agent="bob")] == [C, B]
    reject(engine, C)
    assert choose(engine, agent="ann") == A
    reject(engine, A)
    with pytest.raises(NoUsableProfile) as caught:
        choose(engine, agent="ann")
    assert caught.value.metadata[B] == "not in the order, which is exclusive"
    assert engine.resolver.set_order("ann", "anthropic", ()) == ()
    assert choose(engine, agent="ann") == B


def test_an_order_outlives_the_process(engine: Engine) -> None:
    """It is stored when the call returns."""
    engine.resolver.set_order("main", "anthropic", [B])
    engine.store.crash()
    again = Engine(store=engine.store, clock=engine.clock)
    assert again.resolver.order("main", "anthropic") == (B,)
    again.resolver.set_order("main", "anthropic", ())
    engine.store.crash()
    assert engine.store.load().orders == {}


@pytest.mark.parametrize(
    ("profiles", "error"),
    [
        (["a", "nobody"], ProfileNotFound),
        (["a", "openai:a"], InvalidArgument),
        (["a", ""], InvalidArgument),
        (["a", ":"], InvalidArgument),
    ],
)
def test_an_order_with_a_fault_is_refused_whole(engine: Engine, profiles: list[str], error: type[BrokerError]) -> None:
    """What was stored before stays."""
    engine.resolver.set_order("main", "anthropic", [C])
    with pytest.raises(error):
        engine.resolver.set_order("main", "anthropic", profiles)
    assert engine.resolver.order("main", "anthropic") == (C,)


# -- sessions and pins -------------------------------------------------------------------------------------------------


def test_a_session_keeps_its_profile(engine: Engine) -> None:
    """Until a new session, while others take turns."""
    first = choose(engine, session="one")
    assert {choose(engine, session="one") for _ in range(5)} == {first}
    assert choose(engine, session="two") != first
    assert choose(engine) != first
    assert choose(engine, session="one") == first


def test_sessions_of_two_agents_are_two() -> None:
    """Though they have the same name."""
    engine = Engine(agents={"ann": ANYTHING, "bob": ANYTHING})
    engine.put(profile(A), profile(B))
    assert choose(engine, agent="ann", session="s") == A
    assert choose(engine, agent="bob", session="s") == B


@pytest.mark.parametrize("asked_meanwhile", [True, False])
@pytest.mark.parametrize("order", [None, (A, B)])
def test_a_cooldown_moves_an_automatic_choice_for_as_long_as_it_lasts(
    order: tuple[str, ...] | None, *, asked_meanwhile: bool
) -> None:
    """P27: the session goes back to its first profile once that has recovered, in an order and without one."""
    engine = Engine(order={} if order is None else {"anthropic": order})
    engine.put(profile(A), profile(B))
    first = choose(engine, session="s")
    later(engine)
    cool(engine, first, 60)
    second = choose(engine, session="s") if asked_meanwhile else ""
    later(engine, 30)
    if asked_meanwhile:
        assert second not in ("", first)
        assert choose(engine, session="s") == second
    later(engine, 31)
    assert {choose(engine, session="s") for _ in range(3)} == {first}


def test_a_session_whose_first_profile_is_gone_begins_again(engine: Engine) -> None:
    """P27: a profile of the same name that comes later is another one."""
    first = choose(engine, session="s")
    engine.put(*(profile(i) for i in (A, B, C) if i != first))
    second = choose(engine, session="s")
    engine.put(profile(A), profile(B), profile(C))
    assert {choose(engine, session="s") for _ in range(3)} == {second}


def test_unusable_choice_is_replaced(engine: Engine) -> None:
    """Rejected, or gone."""
    first = choose(engine, session="s")
    reject(engine, first)
    second = choose(engine, session="s")
    assert second != first
    engine.put(*(profile(i) for i in (A, B, C) if i not in (first, second)))
    assert choose(engine, session="s") not in (first, second)


def test_a_pinned_profile_is_tried_first(engine: Engine) -> None:
    """In its session alone, before the session's own choice, and though an order excludes it."""
    assert choose(engine, session="s") == A
    engine.resolver.pin("main", "s", "anthropic", "b", strict=False)
    engine.resolver.set_order("main", "anthropic", [C, A])
    assert {choose(engine, session="s") for _ in range(3)} == {B}
    assert choose(engine, session="other") == C
    assert choose(engine) == C
    engine.resolver.unpin("main", "s", "Anthropic")
    assert choose(engine, session="s") == A


def test_other_profiles_serve_during_a_pins_cooldown(engine: Engine) -> None:
    """Unless the pin is strict; afterwards the pin holds again."""
    engine.resolver.pin("main", "s", "anthropic", B, strict=False)
    cool(engine, B, 60)
    assert choose(engine, session="s") == A
    later(engine, 60)
    assert choose(engine, session="s") == B
    reject(engine, B)
    assert {choose(engine, session="s") for _ in range(3)} == {A}


@pytest.mark.parametrize("why", ["in cooldown for 1m", REFUSED, "no source holds it"])
def test_a_strict_pin_fails_rather_than_move(engine: Engine, why: str) -> None:
    """With the reason; and only for its session."""
    engine.resolver.pin("main", "s", "anthropic", B, strict=True)
    assert choose(engine, session="s") == B
    if why.startswith("in cooldown"):
        cool(engine, B, 60)
    elif why.startswith("no source"):
        engine.put(profile(A), profile(C))
    else:
        reject(engine, B)
    with pytest.raises(NoUsableProfile) as caught:
        choose(engine, session="s")
    assert caught.value.metadata == {B: refused(B) if why == REFUSED else why}
    assert choose(engine) in (A, C)
    engine.resolver.unpin("main", "s", "anthropic")
    assert choose(engine, session="s") in (A, C)


@pytest.mark.parametrize(
    ("session", "provider", "profile_id", "error"),
    [
        ("", "anthropic", A, InvalidArgument),
        ("s", "anthropic", "", InvalidArgument),
        ("s", "openai", A, InvalidArgument),
        ("s", "nobody", A, ProviderUnknown),
        ("s", "anthropic", "anthropic:nobody", ProfileNotFound),
    ],
)
def test_invalid_pin_is_refused(engine: Engine, session: str, provider: str, profile_id: str, error: type[BrokerError]) -> None:
    """The pin before it stays."""
    engine.resolver.pin("main", "s", "anthropic", C, strict=False)
    with pytest.raises(error):
        engine.resolver.pin("main", session, provider, profile_id, strict=True)
    assert choose(engine, session="s") == C


# -- what is told ------------------------------------------------------------------------------------------------------


def told(found: list[ProfileStatus]) -> list[tuple[str, bool, bool, str]]:
    return [(row.id, row.next, row.usable, row.reason) for row in found]


def test_statuses_are_in_the_order_of_attempts(engine: Engine) -> None:
    """Then those that cannot serve, each with its reason; the first is next, and asking takes no turn."""
    engine.put(profile(A), profile(B), profile(C), profile("anthropic:d", None, fault="empty"))
    choose(engine)
    cool(engine, B, 60)
    expected = [
        (C, True, True, "ok"), (A, False, True, "ok"), (B, False, True, "in cooldown for 1m"),
        ("anthropic:d", False, False, "empty"),
    ]  # fmt: skip
    assert told(rows(engine)) == expected
    assert told(rows(engine)) == expected
    assert choose(engine) == C


def test_next_status_is_the_next_choice(engine: Engine) -> None:
    """In every state of session, pin and order."""
    engine.resolver.pin("main", "pinned", "anthropic", C, strict=False)
    engine.resolver.pin("main", "strict", "anthropic", B, strict=True)
    choose(engine, session="sticky")
    for step in range(4):
        for session in ("", "sticky", "pinned", "strict", "new"):
            chosen = [row.id for row in rows(engine, session=session) if row.next]
            try:
                assert chosen == [choose(engine, session=session)]
            except NoUsableProfile:
                assert chosen == []
        [lambda: cool(engine, A), lambda: cool(engine, B), lambda: reject(engine, C), lambda: None][step]()


def test_status_shows_the_pin(engine: Engine) -> None:
    """And first, if it can serve; in its session only."""
    engine.resolver.pin("main", "s", "anthropic", C, strict=False)
    assert [(row.id, row.pinned) for row in rows(engine, session="s")] == [(C, True), (A, False), (B, False)]
    assert not any(row.pinned for row in rows(engine))
    cool(engine, C)
    assert [(row.id, row.pinned) for row in rows(engine, session="s")] == [(A, False), (B, False), (C, True)]


def test_missing_profile_of_an_order_has_a_status() -> None:
    """So that a person finds the typing error."""
    engine = Engine(order={"anthropic": (A, "anthropic:typo")})
    engine.put(profile(A), profile(B))
    assert told(rows(engine)) == [
        (A, True, True, "ok"), ("anthropic:typo", False, False, "no source holds it"),
        (B, False, False, "not in the order, which is exclusive"),
    ]  # fmt: skip
    assert rows(engine)[1].state == "missing"


def test_statuses_of_all_providers(engine: Engine) -> None:
    """That has a profile or an order, and that the agent may use."""
    engine.put(profile(A), profile("openai:x", None, fault="empty"))
    assert [row.id for row in engine.profile_statuses.of("main")] == [A, "openai:x"]
    with pytest.raises(ProviderUnknown):
        engine.profile_statuses.of("main", "nobody")


def test_status_has_current_durations(engine: Engine) -> None:
    """When it was used, how long it cools, what has expired meanwhile, and where requests go."""
    engine.put(profile(A, expires_at=engine.clock.now() + 100))
    choose(engine)
    cool(engine, A, 60)
    engine.clock.advance(30)
    row = rows(engine)[0]
    assert (row.reason, row.state, row.cooldown_until) == ("in cooldown for 30s", "expiring", engine.clock.now() + 30)
    assert row.last_used_at == engine.clock.now() - 30
    assert row.base_url == "https://api.anthropic.com"
    engine.clock.advance(70)
    row = rows(engine)[0]
    assert (row.state, row.usable, row.next) == ("expired", False, False)


def test_the_plan_is_kept_while_nothing_changes(engine: Engine) -> None:
    """That is what makes a choice cheap; and thrown away when something does."""
    plan = engine.resolver.plan("main", "anthropic")
    choose(engine)
    engine.ingest._take(0, UnitsListed((Unit("unit", (profile(A), profile(B), profile(C))),)))
    assert engine.resolver.plan("main", "anthropic") is plan
    cool(engine, A)
    assert engine.resolver.plan("main", "anthropic") is not plan


def test_resolver_needs_no_subscription(engine: Engine) -> None:
    """A listener that chooses in the middle of a change chooses from what is true now, whoever was told first."""
    chosen: list[str] = []
    engine.registry.listeners.insert(0, lambda _: chosen.append(choose(engine)))
    engine.put(profile(C))
    assert chosen == [C]
    assert isinstance(engine.resolver, Resolver)
