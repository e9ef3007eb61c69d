"""Whose a profile id is, where several places hold a profile of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.claims import PLACES_MAX, IdClaim, ProfileLocation, owner_of, with_place
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue

MOUNT = "mounted /run/secrets"


def claim(unit: str, source: str = MOUNT, *, rank: int = 0, profile_id: str = "anthropic:team", **fields: object) -> IdClaim:
    profile = Profile(
        id=profile_id, provider="anthropic", mode=Mode.TOKEN, source=source, unit=unit, origin=f"{source} {unit}",
        secret=SecretValue(f"of {unit}"),
    )  # fmt: skip
    return IdClaim(replace(profile, **fields), source, unit, rank)  # type: ignore[arg-type]


def winner(*claims: IdClaim, places: tuple[ProfileLocation, ...] = ()) -> str:
    """The unit that has it, whatever the order in which they come."""
    found = {owner_of(order, places).unit for order in (claims, claims[::-1])}
    assert len(found) == 1
    return found.pop()


def test_unit_with_the_name_owns_the_id() -> None:
    """S13: `evil/auth-profiles.json` with `anthropic:team` takes nothing from `team`, by a later end or by being first."""
    evil = claim("evil", expires_at=4e9)
    for team in (claim("team"), claim("team", expires_at=1.9e9), claim("team", secret=None, fault="is empty")):
        assert winner(team, evil) == "team"
        assert winner(team, evil, places=((MOUNT, "evil"), (MOUNT, "team"))) == "team"


def test_source_name_applies_to_a_unit_without_a_name() -> None:
    """S13: `anthropic:mounted` is the directory's itself; a subdirectory of that name is a rival, and comes later."""
    assert winner(claim("", profile_id="anthropic:mounted"), claim("evil", profile_id="anthropic:mounted")) == ""
    assert winner(claim("", profile_id="anthropic:mounted"), claim("mounted", profile_id="anthropic:mounted")) == ""


def test_first_holder_owns_the_id() -> None:
    """S13: also where it was gone for a while, and others have held the id since."""
    claims = [claim(unit) for unit in ("a", "b", "c")]
    assert winner(*claims) == "a"
    assert winner(*claims, places=((MOUNT, "c"),)) == "c"
    assert winner(*claims, places=((MOUNT, "c"), (MOUNT, "b"))) == "c"
    assert winner(*claims[:2], places=((MOUNT, "c"), (MOUNT, "b"))) == "b"
    assert winner(*claims, places=(("kubernetes", "c"), (MOUNT, "b"))) == "b", "a place is a unit of one source"


def test_the_order_of_the_sources_is_the_operator_s() -> None:
    """A source that comes first wins, whoever was there before."""
    first, second = claim("team", "kubernetes"), claim("team", rank=1)
    assert winner(first, second, places=((MOUNT, "team"),)) == "team"
    assert owner_of([second, first], ((MOUNT, "team"),)) is first


def test_configured_place_owns_the_id() -> None:
    """S13: of units as of sources."""
    assert winner(claim("team"), claim("vault", configured=True), places=((MOUNT, "team"),)) == "vault"
    assert winner(claim("team", expires_at=4e9), claim("vault", "dotenv", rank=3, configured=True, expires_at=1.9e9)) == "vault"


@pytest.mark.parametrize(
    ("profile_id", "units", "later"),
    [
        ("anthropic:claude-cli", ("main", ""), True),
        ("anthropic:team", ("team", "team"), True),
        ("anthropic:team", ("team", "evil"), False),
    ],
)
def test_a_later_end_counts_where_it_is_the_same_login(profile_id: str, units: tuple[str, str], *, later: bool) -> None:
    """S13: a tool's login and its copy, or one Secret that comes by two ways; of others the end says nothing."""
    first = claim(units[0], "first", profile_id=profile_id, expires_at=1.9e9)
    second = claim(units[1], "second", rank=1, profile_id=profile_id, expires_at=4e9)
    assert (owner_of([first, second], ()) is second) is later


units = st.sampled_from(["", "a", "b", "team", "mounted"])
ends = st.sampled_from([None, 1e9, 2e9])
claims = st.builds(
    lambda unit, rank, end: claim(unit, f"{MOUNT}{rank}", rank=rank, expires_at=end), units, st.integers(0, 2), ends
)
places = st.lists(st.tuples(st.sampled_from([f"{MOUNT}{n}" for n in range(3)]), units), max_size=5, unique=True).map(tuple)


@given(st.lists(claims, min_size=1, max_size=6, unique_by=lambda c: c.place), places, st.randoms(use_true_random=False))
def test_order_of_the_claims_does_not_matter(made: list[IdClaim], held: tuple[ProfileLocation, ...], random: object) -> None:
    """S13: units come in the order of a directory or of an API, which others have a say in."""
    before = owner_of(made, held)
    random.shuffle(made)  # type: ignore[attr-defined]
    assert owner_of(made, held) is before


def test_first_places_are_kept() -> None:
    """S13: a stranger who makes units without end pushes no older one out."""
    held: tuple[ProfileLocation, ...] = ()
    for number in range(3 * PLACES_MAX):
        held = with_place(held, (MOUNT, f"u{number}"))
        assert with_place(held, (MOUNT, "u0")) == held
    assert held == tuple((MOUNT, f"u{number}") for number in range(PLACES_MAX))
