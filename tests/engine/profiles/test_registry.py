"""ProfileRegistry: one board, one path by which it changes, and listeners that hear of one change after the other."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import Usage, succeeded
from equabot_broker.domain.credentials import NEVER
from equabot_broker.domain.material import HeldProfile, Material, Shadowed
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.telemetry.credential_events import CredentialStateChanged
from tests.fakes.engine import Engine, profile

A, B = "anthropic:a", "anthropic:b"


def material(*profiles: Profile, version: int = 1) -> Material:
    return Material({(p.agent, p.id): HeldProfile(p, 0, version) for p in profiles})


@pytest.fixture
def engine() -> Engine:
    return Engine(sources=())


@pytest.fixture
def heard(engine: Engine) -> list[frozenset[Key]]:
    found: list[frozenset[Key]] = []
    engine.registry.listeners.append(found.append)
    return found


def ids(registry: ProfileRegistry, agent: str, provider: str = "anthropic") -> list[Key]:
    return sorted(key for key, _ in registry.of(agent, provider))


def test_own_profile_hides_the_shared_one(engine: Engine) -> None:
    """For that agent alone, in every question that is asked for an agent; health counts both."""
    shared, own = profile(A, "shared"), profile(A, "own", agent="ann")
    engine.registry.replace_material(material(shared, profile(B), own))
    assert ids(engine.registry, "ann") == [("", B), ("ann", A)]
    assert ids(engine.registry, "bob") == [("", A), ("", B)]
    found = {agent: engine.registry.find(agent, A) for agent in ("ann", "bob", "")}
    assert {agent: f and f[1].held.profile for agent, f in found.items()} == {"ann": own, "bob": shared, "": shared}
    assert {c.held.profile.agent for c in engine.registry.holders(A)} == {"", "ann"}
    assert engine.registry.find("ann", "anthropic:none") is None
    engine.registry.replace_material(material(shared))
    assert ids(engine.registry, "ann") == [("", A)]


def test_unusable_own_profile_hides_the_shared_one(engine: Engine) -> None:
    """An agent that was given a credential is not silently served with another one."""
    engine.registry.replace_material(material(profile(A), profile(A, None, agent="ann")))
    assert [c.standing.state for _, c in engine.registry.of("ann", "anthropic")] == [State.INVALID]


def test_a_profile_that_changes_its_provider_leaves_the_old_one(engine: Engine, heard: list[frozenset[Key]]) -> None:
    """It is never a candidate of two."""
    engine.registry.replace_material(material(profile(A)))
    engine.registry.replace_material(material(replace(profile(A), provider="openai")))
    assert ids(engine.registry, "main") == []
    assert ids(engine.registry, "main", "openai") == [("", A)]
    assert engine.registry.providers() == {"openai"}
    assert heard == [{("", A)}] * 2
    engine.registry.replace_material(Material())
    assert engine.registry.providers() == set()


def test_listeners_get_only_changed_keys(engine: Engine, heard: list[frozenset[Key]]) -> None:
    """New, different, gone; not what is the same."""
    engine.registry.replace_material(material(profile(A), profile(B)))
    engine.registry.replace_material(material(profile(A, "other"), profile(B)))
    engine.registry.replace_material(material(profile(A, "other"), profile(B)))
    engine.registry.replace_material(material(profile(B)))
    assert heard == [{("", A), ("", B)}, {("", A)}, {("", A)}]


def test_change_of_usage_alone_is_not_sent(engine: Engine, heard: list[frozenset[Key]]) -> None:
    """A use, or a counter that changes no judgement."""
    engine.registry.replace_material(material(profile(A)))
    generation = engine.registry.generation
    heard.clear()
    engine.registry.touch(("", A))
    engine.registry.flush_used()
    engine.registry.replace_usage(("", A), Usage(error_count=1, last_failure=1.0))
    assert heard == []
    assert engine.registry.generation == generation


def test_use_is_remembered_at_once_and_stored_later(engine: Engine) -> None:
    """So that handing out costs no write."""
    engine.registry.replace_material(material(profile(A)))
    engine.clock.advance(5)
    engine.registry.touch(("", A))
    now = engine.clock.now()
    assert engine.registry.usage(("", A)).last_used == now
    assert engine.registry.remembered(("", A)) == Usage()
    assert [c.usage.last_used for _, c in engine.registry.of("main", "anthropic")] == [now]
    assert engine.registry.judge(("", A)).usage.last_used == now
    engine.store.flush()
    assert engine.store.load().usage == {}
    engine.registry.flush_used()
    engine.store.flush()
    assert engine.store.load().usage == {("", A): Usage(last_used=now)}


def test_use_that_is_not_stored_yet_is_not_lost_by_a_failure(engine: Engine) -> None:
    """Whoever changes what is remembered starts from all of it, and the older memory does not come back."""
    engine.registry.replace_material(material(profile(A)))
    engine.registry.touch(("", A))
    usage = replace(engine.registry.usage(("", A)), cooldown_until=engine.clock.now() + 60)
    engine.registry.replace_usage(("", A), usage)
    engine.clock.advance(1)
    engine.registry.flush_used()
    assert engine.registry.usage(("", A)) == usage
    assert usage.last_used == engine.clock.now() - 1


def test_a_success_after_the_use_is_the_later_use(engine: Engine) -> None:
    """What is stored of the use itself does not turn it back."""
    engine.registry.replace_material(material(profile(A)))
    engine.registry.touch(("", A))
    engine.clock.advance(3)
    healed = succeeded(engine.registry.usage(("", A)), now=engine.clock.now())
    engine.registry.replace_usage(("", A), healed)
    engine.registry.flush_used()
    assert engine.registry.usage(("", A)) == healed


def test_usage_of_a_removed_profile_is_kept(engine: Engine) -> None:
    """A Secret that is deleted and made anew does not become the least recently used."""
    engine.registry.replace_material(material(profile(A)))
    engine.registry.touch(("", A))
    engine.registry.replace_material(Material())
    engine.registry.flush_used()
    engine.registry.replace_material(material(profile(A)))
    assert [c.usage.last_used for _, c in engine.registry.of("main", "anthropic")] == [engine.clock.now()]


@pytest.mark.parametrize(("after", "state"), [(3599, State.EXPIRING), (3600, State.EXPIRED)])
def test_assessment_changes_with_time(engine: Engine, heard: list[frozenset[Key]], after: float, state: State) -> None:
    """At the instant, not before; and everybody hears of it."""
    end = engine.clock.now() + 3600
    engine.registry.replace_material(material(profile(A, expires_at=end)))
    heard.clear()
    assert engine.registry.tick() == end
    engine.clock.advance(after)
    assert engine.registry.tick() == (NEVER if state is State.EXPIRED else end)
    found = engine.registry.find("main", A)
    assert found is not None
    assert found[1].standing.state is state
    assert heard == ([{("", A)}] if state is State.EXPIRED else [])


def test_a_change_of_state_is_announced_once(engine: Engine) -> None:
    """From what, to what, and why: for the log and the metrics."""
    engine.registry.replace_material(material(profile(A, expires_at=engine.clock.now() + 60)))
    engine.registry.replace_material(material(profile(A, "new", expires_at=engine.clock.now() + 60)))
    engine.clock.advance(60)
    engine.registry.tick()
    engine.registry.tick()
    engine.registry.replace_material(Material())
    changes = [e for e in engine.emitted if isinstance(e, CredentialStateChanged)]
    assert [(e.profile, e.provider, e.before, e.after, e.reason) for e in changes] == [
        (A, "anthropic", "", "expiring", "expires in 1m"),
        (A, "anthropic", "expiring", "expired", "expired 0s ago"),
        (A, "anthropic", "expired", "missing", "fake no longer holds it"),
    ]


def test_reason_has_current_durations(engine: Engine) -> None:
    """What was judged an hour ago is told in words of now."""
    engine.registry.replace_material(material(profile(A, expires_at=engine.clock.now() + 7200)))
    engine.clock.advance(3600)
    engine.registry.tick()
    assert engine.registry.judge(("", A)).standing.reason == "expires in 1h"


def test_redaction_knows_all_current_secrets(engine: Engine) -> None:
    """All of them, hidden and refresh tokens too, and none that is gone; the same object while nothing changes."""
    login = replace(profile(A, "access"), refresh=SecretValue("refresh"))
    hidden = Shadowed(profile(A, "hidden"), login)
    engine.registry.replace_material(replace(material(login, profile(B, None)), shadowed=(hidden,)))
    live = engine.registry.secrets()
    assert {value.reveal() for value in live} == {"access", "refresh", "hidden"}
    assert engine.registry.secrets() is live
    engine.registry.replace_material(Material())
    assert engine.registry.secrets() == ()


# -- changes inside changes -----------------------------------------------------------------------------------------------


def test_a_listener_that_changes_something_does_not_interrupt_the_others(engine: Engine) -> None:
    """Everyone hears of the first change before anyone hears of the second; the board is ahead of both."""
    told: list[tuple[str, list[str], float]] = []
    registry, end = engine.registry, engine.clock.now() + 60

    def tell(name: str, keys: frozenset[Key]) -> None:
        told.append((name, sorted(i for _, i in keys), registry.usage(("", B)).cooldown_until))

    def meddle(keys: frozenset[Key]) -> None:
        tell("first", keys)
        if ("", A) in keys:
            registry.replace_usage(("", B), Usage(cooldown_until=end))
            found = registry.find("main", B)
            assert found is not None
            assert found[1].standing.cooling_until == end

    registry.replace_material(material(profile(A), profile(B)))
    registry.listeners += [meddle, lambda keys: tell("second", keys)]
    registry.replace_material(material(profile(A, "new"), profile(B)))
    assert told == [
        ("first", [A], 0.0), ("second", [A], end), ("first", [B], end), ("second", [B], end),
    ]  # fmt: skip


def test_failing_listener_does_not_block_others(engine: Engine, heard: list[frozenset[Key]]) -> None:
    """P1: of this change, and of the next."""

    def fail(keys: frozenset[Key]) -> None:
        engine.registry.listeners.remove(fail)
        raise RuntimeError("defect")

    engine.registry.listeners.insert(0, fail)
    engine.registry.replace_material(material(profile(A)))
    engine.registry.replace_material(material(profile(A), profile(B)))
    assert heard == [{("", A)}, {("", B)}]


def test_generation_grows_before_listeners_run(engine: Engine) -> None:
    """Who keeps something made of the board sees that it is old."""
    seen: list[int] = []
    before = engine.registry.generation
    engine.registry.listeners.append(lambda _: seen.append(engine.registry.generation))
    engine.registry.replace_material(material(profile(A)))
    assert seen == [before + 1]


# -- bounds ---------------------------------------------------------------------------------------------------------------


def test_reported_failures_use_constant_memory(engine: Engine) -> None:
    """A profile that fails a hundred thousand times, each with another end, is one deadline."""
    engine.registry.replace_material(material(profile(A)))
    for n in range(20_000):
        engine.registry.replace_usage(("", A), Usage(cooldown_until=engine.clock.now() + 60 + n))
    assert len(engine.registry.deadlines) < 1100


def test_profiles_that_come_and_go_leave_no_deadline(engine: Engine) -> None:
    """Nor an empty provider."""
    for n in range(100):
        engine.registry.replace_material(material(profile(f"anthropic:{n}", expires_at=engine.clock.now() + 60 + n)))
    engine.registry.replace_material(Material())
    assert engine.registry.tick() == NEVER
    assert engine.registry.providers() == set()
    assert list(engine.registry.all()) == []


# -- the wall clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "state"), [(3600.0, State.EXPIRED), (-3600.0, State.EXPIRING), (-90_000.0, State.OK)])
def test_states_follow_the_wall_clock(engine: Engine, by: float, state: State) -> None:
    """A credential ends when its issuer says, whatever the clock said before."""
    engine.registry.replace_material(material(profile(A, expires_at=engine.clock.now() + 1800)))
    engine.clock.jump_wall(by)
    engine.registry.wall_moved(by)
    found = engine.registry.find("main", A)
    assert found is not None
    assert found[1].standing.state is state
    engine.clock.jump_wall(-by)
    engine.registry.wall_moved(-by)
    assert (found := engine.registry.find("main", A)) is not None
    assert found[1].standing.state is State.EXPIRING


@pytest.mark.parametrize("by", [3600.0, -3600.0, 1e9, -1e9])
def test_a_cooldown_lasts_as_long_as_before_the_jump(engine: Engine, by: float) -> None:
    """It is a duration; also in the store, and of profiles that are away."""
    engine.registry.replace_material(material(profile(A)))
    for key in (("", A), ("", B)):
        engine.registry.replace_usage(key, Usage(cooldown_until=engine.clock.now() + 60))
    engine.clock.jump_wall(by)
    engine.registry.wall_moved(by)
    engine.store.flush()
    for key in (("", A), ("", B)):
        assert engine.registry.usage(key).cooldown_until == engine.clock.now() + 60
        assert engine.store.load().usage[key].cooldown_until == engine.clock.now() + 60
    found = engine.registry.find("main", A)
    assert found is not None
    assert found[1].standing.cooling_until == engine.clock.now() + 60
    assert engine.registry.tick() == engine.clock.now() + 60


@given(
    st.lists(st.tuples(st.sampled_from([A, B, "openai:c"]), st.sampled_from(["", "ann"]), st.sampled_from("xyz")), max_size=6)
)
def test_candidates_equal_the_material(found: list[tuple[str, str, str]]) -> None:
    """After any change of material, every index says the same as the material itself."""
    engine = Engine(sources=())
    for upto in range(len(found) + 1):
        held = material(*(profile(i, secret, agent=agent) for i, agent, secret in found[max(upto - 2, 0) : upto]))
        engine.registry.replace_material(held)
        assert {key: c.held for key, c in engine.registry.all()} == held.held
        for agent in ("", "ann", "bob"):
            for provider in ("anthropic", "openai"):
                ours = {k: h for k, h in held.held.items() if k[0] in ("", agent) and h.profile.provider == provider}
                seen = {key for key in ours if key[0] == agent or (agent, key[1]) not in ours}
                assert set(ids(engine.registry, agent, provider)) == seen
        assert engine.registry.providers() == {h.profile.provider for h in held.held.values()}
