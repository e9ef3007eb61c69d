"""Profiles and their ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.profiles import SERVING_STATES, Profile, State, split_id
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue


def test_the_states_are_those_of_the_contract() -> None:
    """They appear in health, in `models status` and on the wire."""
    assert [state.value for state in State] == [
        "ok", "expiring", "expired", "missing", "invalid", "rejected", "reauth_required"
    ]  # fmt: skip
    assert {State.OK, State.EXPIRING} == SERVING_STATES


@given(st.text(min_size=1).filter(lambda s: ":" not in s), st.text(min_size=1))
def test_an_id_is_split_at_the_first_colon(provider: str, name: str) -> None:
    """The name may hold colons of its own."""
    assert split_id(f"{provider}:{name}") == (provider, name)


@pytest.mark.parametrize("profile_id", ["", ":", "anthropic", "anthropic:", ":work"])
def test_an_id_without_two_sides_is_refused(profile_id: str) -> None:
    """With the id in the message, for it is no secret."""
    with pytest.raises(InvalidArgument, match="not of the form provider:name"):
        split_id(profile_id)


def test_an_endless_id_is_not_repeated_whole() -> None:
    """An error fits in a log line."""
    with pytest.raises(InvalidArgument) as caught:
        split_id("x" * 10_000_000)
    assert len(caught.value.message) < 200


def test_a_profile_shows_no_secret() -> None:
    """Neither the credential nor the refresh token, however it is printed."""
    profile = Profile(
        id="a:b", provider="a", mode=Mode.OAUTH, source="s", unit="u", origin="o",
        secret=SecretValue("canary-access"), refresh=SecretValue("canary-refresh"),
    )  # fmt: skip
    assert "canary" not in f"{profile!r} {profile!s} {profile}"
