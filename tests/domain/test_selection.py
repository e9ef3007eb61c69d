"""Which profile serves: the seed's rules, as laws."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import NEVER, Assessment, Revival, assess
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.domain.selection import Candidate, Plan, explicit_order, plan

NOW = 1_800_000_000.0
KIND = {Mode.OAUTH: 0, Mode.WIF: 0, Mode.TOKEN: 1, Mode.API_KEY: 2}
IDS = [f"p:{name}" for name in "abcdefgh"]


def candidate(
    profile_id: str,
    *,
    mode: Mode = Mode.API_KEY,
    tail: bool = False,
    rank: int = 0,
    last_used: float = 0.0,
    cooling: float = 0.0,
    usable: bool = True,
    revival: Revival = Revival.NONE,
    valid_until: float = NEVER,
) -> Candidate:
    profile = Profile(
        id=profile_id, provider="p", mode=mode, source="s", unit="u", origin="o", secret=SecretValue("x")
    )  # fmt: skip
    until = NOW + cooling if cooling else 0.0
    state = State.OK if usable else State.REJECTED
    standing = Assessment(state, "", usable, until, min(valid_until, until or NEVER), revival)
    return Candidate(HeldProfile(profile, rank, 1, tail), standing, Usage(last_used=last_used, cooldown_until=until))


def candidates(*, cooling: bool = True) -> st.SearchStrategy[list[Candidate]]:
    # A source belongs to the last tier or it does not, and has one rank.
    sources = st.sampled_from([(0, False), (1, False), (2, True), (3, True)])
    one = st.builds(
        lambda i, mode, source, used, cools, worth: candidate(
            i, mode=mode, rank=source[0], tail=source[1], last_used=used, cooling=cools, usable=worth is None,
            revival=worth or Revival.NONE,
        ),
        st.sampled_from(IDS),
        st.sampled_from(Mode),
        sources,
        st.integers(0, 3).map(float),
        st.sampled_from([0.0, 0.0, 30.0, 60.0, 300.0]) if cooling else st.just(0.0),
        st.sampled_from([None, None, None, *Revival]),
    )  # fmt: skip
    return st.lists(one, max_size=8, unique_by=lambda c: c.id)


orders = st.lists(st.sampled_from([*IDS, "p:missing"]), max_size=10)


def ranked(found: Sequence[Candidate]) -> list[str]:
    """The rules without an order, said once more and as plainly as possible."""

    def key(c: Candidate) -> tuple[float, ...]:
        if c.standing.revival is Revival.FAILING:
            return (2,)
        if c.standing.cooling_until > NOW:
            return (1, not c.standing.usable, c.standing.cooling_until)
        kind = KIND[c.held.profile.mode]
        used = c.usage.last_used
        return (0, 1, c.held.rank, kind, used) if c.held.tail else (0, 0, kind, used)

    tried = sorted((c for c in found if serves_or_will(c)), key=lambda c: c.id)
    return [c.id for c in sorted(tried, key=key)]


def serves_or_will(c: Candidate) -> bool:
    return c.standing.usable or c.standing.revival is not Revival.NONE


def ids(found: Sequence[Candidate]) -> list[str]:
    return [c.id for c in found]


@given(candidates())
def test_without_an_order_the_rules_rank(found: list[Candidate]) -> None:
    """oauth, token, api_key; inside a kind the least recently used; environment and `.env` last, by source; then cooling; then
    logins whose refreshes fail."""
    made = plan(found, order=None, now=NOW)
    assert ids(made.ordered()) == ranked(found)
    assert {c.id for c in made.unusable} == {c.id for c in found if not serves_or_will(c)}
    assert made.excluded == {}


@given(candidates(), st.permutations(IDS))
def test_the_order_in_which_profiles_are_found_does_not_matter(found: list[Candidate], shuffle: list[str]) -> None:
    """Only what is true of them."""
    other = sorted(found, key=lambda c: shuffle.index(c.id))
    one, two = plan(found, order=None, now=NOW), plan(other, order=None, now=NOW)
    assert ids(one.ordered()) == ids(two.ordered())
    assert one.unusable == two.unusable


@given(candidates(), orders)
def test_an_explicit_order_is_exclusive_and_kept(found: list[Candidate], order: list[str]) -> None:
    """Whatever the modes, tiers and last uses; only those in cooldown move to the end, by soonest end, and behind them logins
    whose refreshes fail."""
    made = plan(found, order=order, now=NOW)
    known = {c.id: c for c in found}
    listed = [known[i] for i in dict.fromkeys(order) if i in known and serves_or_will(known[i])]
    failing = [c.id for c in listed if c.standing.revival is Revival.FAILING]
    ready = [c.id for c in listed if c.standing.cooling_until <= NOW and c.id not in failing]
    cooling = [c for c in listed if c.standing.cooling_until > NOW and c.id not in failing]
    cooling.sort(key=lambda c: (not c.standing.usable, c.standing.cooling_until))
    assert ids(made.ordered()) == ready + ids(cooling) + failing
    assert made.excluded.keys() == (set(order) ^ known.keys())
    assert {c.id for c in made.unusable} == {i for i in order if i in known and not serves_or_will(known[i])}


@given(candidates(), st.none() | orders)
def test_plan_contains_each_candidate_once(found: list[Candidate], order: list[str] | None) -> None:
    """Either it can serve, or it cannot, or the order excludes it: nothing disappears."""
    made = plan(found, order=order, now=NOW)
    places = [*ids(made.ordered()), *ids(made.unusable), *made.excluded]
    assert len(places) == len(set(places))
    assert set(places) == {c.id for c in found} | set(order or ())


@given(candidates(), st.none() | orders, st.integers(1, 20))
def test_unusable_candidate_is_never_taken(found: list[Candidate], order: list[str] | None, times: int) -> None:
    """However often one asks; and while something ready is left, nothing that cools is taken."""
    made = plan(found, order=order, now=NOW)
    able = {c.id: c for c in made.ordered()}
    for _ in range(times):
        taken = made.take()
        assert (taken is None) == (not able)
        if taken is not None:
            assert serves_or_will(taken)
            assert order is None or taken.id in order
            last = taken.standing.cooling_until > NOW or taken.standing.revival is Revival.FAILING
            assert not last or len(made.cooling) == len(able)
    for refused in (*made.unusable, *map(candidate, made.excluded)):
        assert made.find(refused.id) is None


@given(candidates(), orders)
def test_an_explicit_order_does_not_rotate(found: list[Candidate], order: list[str]) -> None:
    """Its first that can serve is taken, each time."""
    made = plan(found, order=order, now=NOW)
    first = made.first()
    assert all(made.take() is first for _ in range(5))


@given(candidates(), st.none() | orders)
def test_first_changes_nothing(found: list[Candidate], order: list[str] | None) -> None:
    """`first` and `find` leave the turns as they are."""
    made = plan(found, order=order, now=NOW)
    before = ids(made.ordered())
    for profile_id in [*IDS, "p:missing"]:
        made.first()
        held = made.find(profile_id)
        assert (held is not None) == (profile_id in before)
    assert ids(made.ordered()) == before


class TakingIsRanking(RuleBasedStateMachine):
    """A plan that is taken from in O(1) says at every step what ranking everything anew would say."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Candidate] = {}
        self.order: list[str] | None = None
        self.tick = 10.0
        self.made: Plan = plan([], order=None, now=NOW)

    @initialize(found=candidates(), order=st.none() | orders)
    def begin(self, found: list[Candidate], order: list[str] | None) -> None:
        self.found = {c.id: c for c in found}
        self.order = order
        self.made = plan(found, order=order, now=NOW)

    def use(self, profile_id: str) -> None:
        self.tick += 1
        used = self.found[profile_id]
        self.found[profile_id] = replace(used, usage=replace(used.usage, last_used=self.tick))

    @rule()
    def take(self) -> None:
        expected = self.anew().first()
        taken = self.made.take()
        assert (taken and taken.id) == (expected and expected.id)
        if taken is not None:
            self.use(taken.id)

    @rule(profile_id=st.sampled_from(IDS))
    def used(self, profile_id: str) -> None:
        """By a pin, a session, a request that named it, or another agent."""
        self.made.used(profile_id)
        if profile_id in self.found:
            self.use(profile_id)

    @rule()
    def used_nobody(self) -> None:
        self.made.used("p:missing")

    @precondition(lambda self: self.found)
    @rule()
    def replan(self) -> None:
        self.made = self.anew()

    @invariant()
    def same(self) -> None:
        assert ids(self.made.ordered()) == ids(self.anew().ordered())

    def anew(self) -> Plan:
        return plan(list(self.found.values()), order=self.order, now=NOW)


TestTakingIsRanking = TakingIsRanking.TestCase


@given(candidates(), st.none() | orders)
def test_a_plan_is_valid_until_the_first_of_its_judgements_ends(found: list[Candidate], order: list[str] | None) -> None:
    """Also of those that cannot serve now: a disable ends, too. What the order excludes does not count."""
    made = plan(found, order=order, now=NOW)
    counted = [c for c in found if order is None or c.id in order]
    assert made.valid_until == min((c.standing.valid_until for c in counted), default=NEVER)


def test_a_real_judgement_ends_the_plan_in_time() -> None:
    """An expiry, the beginning of `expiring`, and the ends of cooldown and disable."""
    held = HeldProfile(
        Profile(id="p:a", provider="p", mode=Mode.TOKEN, source="s", unit="u", origin="o", secret=SecretValue("x"),
                expires_at=NOW + 3600), 0, 1,
    )  # fmt: skip
    for usage, end in (
        (Usage(), 3600), (Usage(cooldown_until=NOW + 60), 60), (Usage(disabled_until=NOW + 120), 120),
    ):  # fmt: skip
        judged = Candidate(held, assess(held, usage, now=NOW, warn_within=86400), usage)
        assert plan([judged], order=None, now=NOW).valid_until == NOW + end


def test_ten_thousand_candidates_rotate() -> None:
    """Round robin: everyone serves before anyone serves twice."""
    made = plan([candidate(f"p:{n}") for n in range(10_000)], order=None, now=NOW)
    taken = [made.take() for _ in range(20_000)]
    assert len({c.id for c in taken[:10_000] if c}) == 10_000
    assert taken[:10_000] == taken[10_000:]


def test_the_stored_order_goes_before_the_configured_one() -> None:
    """An empty stored one is none; a configured one that is empty excludes everything."""
    configured = {"p": ("p:a",), "q": ()}
    assert explicit_order("p", stored=("p:b",), configured=configured) == ("p:b",)
    assert explicit_order("p", stored=(), configured=configured) == ("p:a",)
    assert explicit_order("p", stored=None, configured=configured) == ("p:a",)
    assert explicit_order("q", stored=None, configured=configured) == ()
    assert explicit_order("r", stored=None, configured=configured) is None
    assert plan([candidate("q:a")], order=(), now=NOW).take() is None
