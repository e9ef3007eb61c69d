"""Ends that are declared next to a credential belong to the value with which they were seen first."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import assess
from equabot_broker.domain.ends import FirstSeen, declare, judge
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.annotations import EXPIRES_AT, keys_after_end
from tests.fakes.engine import profile

A = "anthropic:a"
NOW, PAST, FUTURE = 1000.0, 10.0, 100_000.0


def declared(value: str | None, at: float | None, *, own: float | None = None, older: bool = False) -> Profile:
    end = declare(at, "annotation x", own=own, older=older)
    return replace(profile(A, value), expires_at=own if end is None else end.at, declared=end)


def digest(value: SecretValue) -> bytes:
    return value.digest(b"key")


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), st.sampled_from([None, PAST, FUTURE]))))
def test_end_applies_to_the_value_for_which_it_was_set(history: list[tuple[str, float | None]]) -> None:
    """K1: whatever is written in whatever order, an end is applied to the value with which it began, and to no other."""
    seen: FirstSeen | None = None
    began: tuple[float, str] | None = None
    for value, at in history:
        began = None if at is None else began if began is not None and began[0] == at else (at, value)
        judged, seen = judge(declared(value, at), seen, digest)
        applies = began is not None and began[1] == value
        assert judged.expires_at == (at if applies else None)
        assert bool(judged.doubt) == (at is not None and not applies)


def test_place_decides_without_an_observation() -> None:
    """K1: a broker that starts after the rotation judges as one that saw it; an end that is written anew ends the doubt."""
    judged, seen = judge(declared("new", PAST, older=True), None, digest)
    assert judged.expires_at is None
    assert "annotation x" in judged.doubt
    assert "1970-01-01T00:00:10Z" in judged.doubt
    judged, seen = judge(declared("new", FUTURE), seen, digest)
    assert (judged.expires_at, judged.doubt) == (FUTURE, "")
    assert seen is not None
    # What was seen is better evidence than the place's word.
    judged, _ = judge(declared("new", FUTURE, older=True), seen, digest)
    assert judged.doubt == ""


def test_own_end_applies_if_the_declared_one_does_not() -> None:
    """K1: a token whose data says when it ends is judged by that, whatever the configuration said of an earlier one."""
    _, seen = judge(declared("old", PAST, own=PAST), None, digest)
    judged, _ = judge(declared("new", PAST, own=FUTURE), seen, digest)
    assert judged.expires_at == FUTURE
    assert judged.doubt


def test_unusable_value_keeps_the_observation() -> None:
    """The end that was set with a typing error counts for the corrected value."""
    judged, seen = judge(declared(None, FUTURE), None, digest)
    assert (judged.expires_at, seen) == (FUTURE, None)
    judged, _ = judge(declared("right", FUTURE), seen, digest)
    assert (judged.expires_at, judged.doubt) == (FUTURE, "")


def test_a_login_that_renews_keeps_its_end() -> None:
    """Its access token changes with each refresh."""
    login = replace(declared("access", FUTURE), refresh=SecretValue("refresh"))
    assert judge(login, FirstSeen(FUTURE, b"other"), digest) == (login, None)


def test_unapplied_end_is_reported() -> None:
    """The reason says why a key that is served has no end."""
    _, seen = judge(declared("old", PAST), None, digest)
    judged, _ = judge(declared("new", PAST), seen, digest)
    standing = assess(HeldProfile(judged, 0, 1), Usage(), now=NOW, warn_within=60)
    assert (standing.state, standing.usable, standing.reason) == (State.OK, True, judged.doubt)


ENDS: dict[str, object] = {"f:metadata": {"f:annotations": {f"f:{EXPIRES_AT}": {}}}}
DATA: dict[str, object] = {"f:data": {".": {}, "f:KEY": {}}}


def entry(time: str, fields: object) -> dict[str, object]:
    return {"manager": "any", "time": f"2026-01-01T00:00:{time}Z", "fieldsV1": fields}


def test_managed_fields_show_the_last_writer() -> None:
    """A key that was written after the end; not one that was written before, with it, or by an unknown writer."""
    assert keys_after_end([entry("01", ENDS), entry("02", DATA)]) == {"KEY"}
    assert keys_after_end([entry("02", ENDS), entry("01", DATA)]) == frozenset()
    assert keys_after_end([entry("02", ENDS), entry("02", DATA)]) == frozenset()
    assert keys_after_end([entry("01", ENDS), entry("02", {**ENDS, **DATA})]) == frozenset()
    assert keys_after_end([entry("02", DATA)]) == frozenset()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["time", "fieldsV1", "f:data", "f:metadata", "f:annotations"]), inner, max_size=3)
        ),
    )
)
def test_any_record_is_read(managed: object) -> None:
    """Other servers may write what they like there."""
    assert keys_after_end(managed) == frozenset()
