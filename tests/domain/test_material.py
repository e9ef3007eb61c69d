"""Material: whole bundles, the first source wins, stale is kept for a while, and what vanished is gone."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import (
    HeldProfile,
    Material,
    Shadowed,
    SourceEvent,
    SourceFault,
    SourceState,
    SourceUnavailable,
    Unit,
    UnitChanged,
    UnitRemoved,
    UnitsListed,
    apply,
    changed,
    merge,
)
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue

BUDGET = 600.0


def profile(profile_id: str, secret: str = "s", *, source: str = "a", unit: str = "u", agent: str = "") -> Profile:
    return Profile(
        id=profile_id, provider=profile_id.partition(":")[0], mode=Mode.API_KEY, source=source, unit=unit, origin=source,
        secret=SecretValue(secret), agent=agent,
    )  # fmt: skip


unit_names = st.sampled_from(["", "one", "two", "three"])
profiles = st.builds(
    profile, st.sampled_from(["p:1", "p:2", "q:1"]), st.sampled_from(["s", "t"]), agent=st.sampled_from(["", "main"])
)
units = st.builds(Unit, unit_names, st.lists(profiles, max_size=3).map(tuple))
listings = st.builds(
    UnitsListed,
    st.lists(units, max_size=4, unique_by=lambda u: u.name).map(tuple),
    st.dictionaries(unit_names, st.just("unreadable"), max_size=2),
).map(lambda e: UnitsListed(tuple(u for u in e.units if u.name not in e.failed), e.failed))
events = st.one_of(
    listings,
    st.builds(UnitChanged, units),
    st.builds(UnitRemoved, unit_names),
    st.builds(SourceUnavailable, st.just("no route")),
)
histories = st.lists(events, max_size=12)


def number(_: Profile) -> int:
    return 1


def lived(history: list[SourceEvent], name: str = "a", *, start: float = 100.0) -> SourceState:
    """A source after these events, a second apart."""
    state = SourceState(name)
    for n, event in enumerate(history):
        state = apply(state, event, now=start + n)
    return state


def merged(*states: SourceState, tail: frozenset[str] = frozenset()) -> Material:
    return merge(states, version=number, stale_budget=BUDGET, tail=tail)


@dataclass
class Model:
    """What a source holds, in the plainest words there are."""

    units: dict[str, Unit] = field(default_factory=dict)
    down: bool = False
    unreadable: set[str] = field(default_factory=set)
    ever: bool = False

    def hear(self, event: SourceEvent) -> None:
        match event:
            case UnitsListed(listed, failed):
                self.units = {n: u for n, u in self.units.items() if n in failed} | {u.name: u for u in listed}
                self.down, self.unreadable, self.ever = False, set(failed), True
            case UnitChanged(unit):
                self.units[unit.name] = unit
                self.unreadable.discard(unit.name)
            case UnitRemoved(name):
                self.units.pop(name, None)
                self.unreadable.discard(name)
            case SourceUnavailable():
                self.down = True


@given(histories)
def test_source_state_follows_its_events(history: list[SourceEvent]) -> None:
    """A listing is the whole; what vanished is gone; what cannot be read now stays as it was read last."""
    model = Model()
    for event in history:
        model.hear(event)
    state = lived(history)
    assert dict(state.units) == model.units
    assert (state.stale_since is not None) == bool(state.fault) == model.down
    assert set(state.stale_units) == model.unreadable
    assert (state.synced_at is not None) == model.ever
    assert state.attempted == (model.ever or model.down)


@given(histories, histories)
def test_stale_begins_with_the_first_failure_and_ends_with_the_next_reading(
    before: list[SourceEvent], after: list[SourceEvent]
) -> None:
    """Failing on does not prolong the budget."""
    state = lived([*before, UnitsListed(()), SourceUnavailable("first"), *(e for e in after if not isinstance(e, UnitsListed))])
    began = 100.0 + len(before) + 1
    assert state.stale_since == began
    again = apply(state, SourceUnavailable("still"), now=10_000)
    assert (again.stale_since, again.fault) == (began, "still")
    fresh = apply(again, UnitsListed(()), now=10_001)
    assert fresh == SourceState("a", {}, 10_001)


def test_a_unit_that_cannot_be_read_is_stale_alone() -> None:
    """Since it failed first; the rest of the listing is fresh; a unit never read is only a fault."""
    one, two = Unit("one", (profile("p:1"),)), Unit("two", (profile("p:2"),))
    state = apply(SourceState("a"), UnitsListed((one, two)), now=1)
    state = apply(state, UnitsListed((two,), {"one": "permission denied", "new": "binary"}), now=2)
    state = apply(state, UnitsListed((two,), {"one": "still denied"}), now=3)
    assert dict(state.units) == {"one": one, "two": two}
    assert dict(state.stale_units) == {"one": ("still denied", 2)}
    material = merged(state)
    assert material.held["", "p:1"].stale_until == 2 + BUDGET
    assert material.held["", "p:2"].stale_until is None
    assert apply(state, UnitChanged(one), now=4).stale_units == {}
    down = apply(apply(state, UnitsListed((one, two)), now=5), SourceUnavailable("down"), now=6)
    partly = apply(down, UnitsListed((two,), {"one": "still down"}), now=7)
    assert dict(partly.stale_units) == {"one": ("still down", 6)}, "the source was down before: that counts"
    assert merged(apply(state, UnitsListed((two,)), now=4)).held.keys() == {("", "p:2")}


def test_a_source_that_is_down_keeps_its_last_good_content_until_the_budget_ends() -> None:
    """All of it, marked with the end of the budget; the judgement is the engine's."""
    state = apply(SourceState("a"), UnitsListed((Unit("one", (profile("p:1"),)),)), now=1)
    state = apply(state, SourceUnavailable("no route to host"), now=50)
    assert merged(state).held["", "p:1"] == HeldProfile(profile("p:1"), 0, 1, False, 50 + BUDGET)
    assert state.faults() == [SourceFault("a", "no route to host", 50)]


def test_a_fault_says_since_when() -> None:
    """S9: of what cannot be read; failing on does not make it younger."""
    state = apply(
        apply(SourceState("a"), SourceUnavailable("gone"), now=1_800_000_000), SourceUnavailable("gone"), now=1_800_000_060
    )
    assert [str(fault) for fault in state.faults()] == ["gone (since 2027-01-15T08:00:00Z)"]
    assert str(SourceFault("/f:3", "a line without =")) == "a line without ="


def test_all_faults_are_listed() -> None:
    """Of the source, of units that cannot be read, and inside units that can."""
    inside = SourceFault("/f:3", "a line without =")
    state = apply(SourceState("a"), UnitsListed((Unit("one", (), (inside,)),), {"two": "too large"}), now=1)
    state = apply(state, SourceUnavailable("gone"), now=2)
    assert state.faults() == [SourceFault("a", "gone", 2), SourceFault("a two", "too large", 1), inside]


@given(st.lists(histories, min_size=1, max_size=4))
def test_the_first_source_wins_and_the_others_are_reported(stories: list[list[SourceEvent]]) -> None:
    """Nothing is lost: every profile that a source holds is either in effect or reported as shadowed, by whom."""
    states = [lived(story, f"source {n}") for n, story in enumerate(stories)]
    material = merged(*states)
    seen: dict[tuple[str, str], tuple[int, str, Profile]] = {}
    shadowed: set[tuple[Profile, Profile, bool]] = set()
    for rank, state in enumerate(states):
        for name in sorted(state.units):
            for found in state.units[name].profiles:
                key = (found.agent, found.id)
                if key in seen:
                    first = seen[key]
                    shadowed.add((found, first[2], first[0] == rank and first[1] != name))
                else:
                    seen[key] = (rank, name, found)
    assert {key: (held.rank, held.profile) for key, held in material.held.items()} == {
        key: (rank, found) for key, (rank, _, found) in seen.items()
    }
    assert {(one.profile, one.by, one.contested) for one in material.shadowed} == shadowed
    assert not any(one.older for one in material.shadowed)
    assert material.unread == tuple(state.name for state in states if state.synced_at is None)


@given(histories, st.randoms(use_true_random=False))
def test_an_equal_listing_changes_nothing(history: list[SourceEvent], random: Random) -> None:
    """In whatever order it comes; a copy of the same secrets is the same material."""
    state = lived([*history, UnitsListed(())])
    again = list(state.units.values()) or [Unit("one", (profile("p:1"),))]
    before = merged(apply(state, UnitsListed(tuple(again)), now=500))
    random.shuffle(again)
    copies = tuple(
        Unit(u.name, tuple(profile(p.id, p.secret.reveal(), agent=p.agent) for p in u.profiles if p.secret)) for u in again
    )
    after = merged(apply(state, UnitsListed(copies), now=600))
    assert changed(before, after) == set()
    assert before.held == after.held


@given(histories, histories)
def test_changed_names_exactly_what_differs(one: list[SourceEvent], other: list[SourceEvent]) -> None:
    """Both ways, and nothing between equals."""
    before, after = merged(lived(one)), merged(lived(other))
    names = changed(before, after)
    assert names == changed(after, before)
    for key in before.held.keys() | after.held.keys():
        assert (key in names) == (before.held.get(key) != after.held.get(key))
    assert changed(before, before) == set()


def test_a_profile_of_an_agent_and_one_of_everybody_are_two() -> None:
    """The same id does not shadow across that line."""
    shared, own = profile("p:1"), profile("p:1", agent="main")
    material = merged(apply(SourceState("a"), UnitsListed((Unit("one", (shared, own)),)), now=1))
    assert set(material.held) == {("", "p:1"), ("main", "p:1")}
    assert material.shadowed == ()


def test_the_last_tier_is_named_by_source() -> None:
    """`tail` marks what comes from the environment and `.env`."""

    def one(name: str) -> SourceState:
        return apply(SourceState(name), UnitsListed((Unit("u", (profile(f"p:{name}"),)),)), now=1)

    material = merged(one("mounted"), one("dotenv"), one("env"), tail=frozenset({"dotenv", "env"}))
    assert [(held.profile.id, held.rank, held.tail) for held in material.held.values()] == [
        ("p:mounted", 0, False), ("p:dotenv", 1, True), ("p:env", 2, True)
    ]  # fmt: skip


def test_the_version_comes_from_whoever_numbers() -> None:
    """Asked once for each profile in effect, never for one that is shadowed."""
    asked: list[str] = []

    def count(found: Profile) -> int:
        asked.append(found.id)
        return len(asked) * 10

    state = apply(
        SourceState("a"), UnitsListed((Unit("1", (profile("p:1"),)), Unit("2", (profile("p:1"), profile("p:2"))))), now=1
    )
    material = merge([state], version=count, stale_budget=BUDGET, tail=frozenset())
    assert asked == ["p:1", "p:2"]
    assert [held.version for held in material.held.values()] == [10, 20]


@pytest.mark.parametrize("event", [UnitsListed(()), UnitChanged(Unit("one")), UnitRemoved("one"), SourceUnavailable("x")])
def test_applying_an_event_leaves_the_state_before_as_it_was(event: SourceEvent) -> None:
    """Whoever still holds it sees no half of a change."""
    before = apply(SourceState("a"), UnitsListed((Unit("one", (profile("p:1"),)),)), now=1)
    kept = (dict(before.units), before.synced_at, before.stale_since, before.fault)
    apply(before, event, now=2)
    assert (dict(before.units), before.synced_at, before.stale_since, before.fault) == kept


def until(expires_at: float | None, secret: str | None = "s", *, refresh: str = "") -> Profile:
    kept = None if secret is None else SecretValue(secret)
    redeemed = SecretValue(refresh) if refresh else None
    return replace(profile("p:1"), expires_at=expires_at, secret=kept, refresh=redeemed, fault="" if secret else "malformed")


@pytest.mark.parametrize(
    ("one", "other", "winner"),
    [
        (until(100.0), until(200.0), 1),
        (until(200.0), until(100.0), 0),
        (until(100.0), until(100.0), 0),
        (until(100.0), until(100.0, refresh="r"), 1),
        (until(100.0, refresh="r"), until(100.0), 0),
        (until(200.0), until(100.0, refresh="r"), 0),
        (until(None), until(200.0), 0),
        (until(100.0), until(None), 0),
        (until(100.0), until(200.0, None), 0),
        (until(100.0, None), until(200.0), 0),
    ],
)
def test_later_expiry_wins_within_one_login(one: Profile, other: Profile, winner: int) -> None:
    """It is the same login, refreshed, wherever it comes from; of equal ones that which can be refreshed; else precedence."""
    pair = [replace(one, source="a"), replace(other, source="b")]
    sources = [lived([UnitsListed((Unit("u", (held,)),))], held.source) for held in pair]
    numbered: list[Profile] = []

    def count(found: Profile) -> int:
        numbered.append(found)
        return len(numbered)

    merged = merge(sources, version=count, stale_budget=BUDGET, tail=frozenset())
    assert merged.held["", "p:1"] == HeldProfile(pair[winner], winner, 1)
    assert numbered == [pair[winner]], "what is not in effect was numbered"
    by_expiry = None not in (one.secret, other.secret, one.expires_at, other.expires_at) and (
        one.expires_at != other.expires_at or (one.refresh is None) != (other.refresh is None)
    )
    assert merged.shadowed == (Shadowed(pair[1 - winner], pair[winner], older=by_expiry),)


def test_no_other_credential_outlives_a_workloads() -> None:
    """It is exchanged again and again, before the first time too; what else has its name is not the same."""
    for workload in (replace(until(1.0), workload=True), replace(until(None, None), workload=True)):
        held = [replace(workload, source="a"), replace(until(200.0, refresh="r"), source="b")]
        sources = [lived([UnitsListed((Unit("u", (one,)),))], one.source) for one in held]
        merged = merge(sources, version=number, stale_budget=BUDGET, tail=frozenset())
        assert merged.held["", "p:1"].profile == held[0]
        assert merged.shadowed == (Shadowed(held[1], held[0]),)


def test_usage_in_stores_is_by_agent() -> None:
    """Usage of `main`'s profiles goes with the profiles everybody has; orders go by the agent whose store it is."""
    main = Unit("main", owner="main", usage={"p:1": Usage(last_used=1.0)}, orders={"p": ("p:1",), "r": ()})
    coder = Unit("coder", owner="coder", usage={"p:1": Usage(last_used=2.0)}, orders={"q": ("q:1",)})
    merged = merge([lived([UnitsListed((main, coder))])], version=number, stale_budget=BUDGET, tail=frozenset())
    assert merged.usage == {("", "p:1"): Usage(last_used=1.0), ("coder", "p:1"): Usage(last_used=2.0)}
    assert merged.orders == {("main", "p"): ("p:1",), ("coder", "q"): ("q:1",)}


KEY = "sk-ant-api03-" + "k9Q2" * 12


@pytest.mark.parametrize(
    "unit",
    [
        Unit(KEY, (profile("p:1", unit=KEY),)),
        Unit("u", (profile(f"p:{KEY}"), profile("p:2"))),
        Unit("u", (profile(f"p:{KEY.lower()}"), profile("p:2"))),
        Unit("u", (replace(profile("p:2"), origin=f"/run/{KEY}/OPENAI_API_KEY"),)),
        Unit("u", (replace(profile("p:2"), email=KEY),)),
        Unit("u", (replace(profile("p:2"), secret=None, fault=f"/run/{KEY} is empty"),)),
        Unit("u", (profile("p:2"),), (SourceFault(f"/run/{KEY}", f"/run/{KEY} is empty"),)),
        Unit("u", (profile("p:2"),), owner="main", usage={f"p:{KEY}": Usage()}, orders={"p": (f"p:{KEY}",)}),
    ],
)
@pytest.mark.parametrize("how", ["listed", "changed"])
def test_a_name_that_looks_like_a_key_does_not_enter(unit: Unit, how: str) -> None:
    """S19: of a unit, a profile, a place, an address, an order: it is masked or not there, and what is masked is said."""
    state = apply(SourceState("a"), UnitsListed((unit,)) if how == "listed" else UnitChanged(unit), now=1)
    shown = f"{state} {merged(state)} {state.faults()}"
    assert "k9Q2" not in shown
    assert "k9q2" not in shown
    if unit.name == "u":
        assert ("", "p:2") in merged(state).held
    if unit.name == KEY or any("k9" in found.id for found in unit.profiles):
        assert "looks like a key and is not used: rename it, and replace that key" in str(state.faults())


def test_fault_with_such_a_name_is_masked() -> None:
    """S19: and it is gone under the same mask."""
    state = apply(SourceState("a"), UnitsListed((), {KEY: f"/run/{KEY} is not a regular file"}), now=1)
    assert "k9Q2" not in str(state)
    assert state.stale_units
    assert not apply(state, UnitRemoved(KEY), now=2).stale_units
    assert "k9Q2" not in str(apply(state, SourceUnavailable(f"/run/{KEY} cannot be read"), now=2))


LOGIN = "anthropic:claude-cli"
TOOL = "claude_cli /home/me/.claude/.credentials.json"


def _of_tool(*found: Profile, fault: str = "") -> SourceState:
    state = apply(SourceState(TOOL), UnitsListed((Unit("", found),) if found else ()), now=1.0)
    return apply(state, SourceUnavailable(fault), now=2.0) if fault else state


def _of_store(copied_from: str) -> SourceState:
    copy = replace(profile(LOGIN, "copy", source="profile_store", unit="main"), copied_from=copied_from)
    return apply(SourceState("profile_store"), UnitsListed((Unit("main", (copy,)),)), now=1.0)


@pytest.mark.parametrize(
    ("tool", "copied_from", "serves"),
    [
        (_of_tool(), TOOL, False),
        (_of_tool(), "claude_cli", False),
        (_of_tool(profile(LOGIN, "login", source=TOOL, unit="")), TOOL, True),
        (_of_tool(fault="no permission"), TOOL, True),
        (SourceState(TOOL), TOOL, True),
        (_of_tool(), "claude_cli /elsewhere", True),
        (_of_tool(), "", True),
    ],
)
def test_copy_of_a_removed_login_does_not_serve(tool: SourceState, copied_from: str, serves: bool) -> None:
    """P11: unless its tool's file cannot be read, is another one, or a person stored it."""
    material = merged(_of_store(copied_from), tool)
    assert (("", LOGIN) in material.held, [copy.id for copy in material.left_over]) == (serves, [] if serves else [LOGIN])
