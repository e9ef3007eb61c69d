"""What a profile is worth at an instant, and how its secret travels."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.cooldowns import Usage
from broker.domain.credentials import NEVER, Standing, assess, headers, left, sdk_env
from broker.domain.material import Held
from broker.domain.profiles import Profile, State
from broker.domain.provider import HeaderForm, Mode, Provider
from broker.domain.secret_value import SecretValue

NOW = 1_800_000_000.0
WARN = 86_400.0
FRESH = Usage()
KEY = Profile(
    id="p:a", provider="p", mode=Mode.API_KEY, source="mounted /run", unit="u", origin="/run/P_KEY", secret=SecretValue("x")
)  # fmt: skip

instants = st.floats(min_value=NOW - 1e6, max_value=NOW + 1e6)
usages = st.builds(
    Usage,
    cooldown_until=st.just(0.0) | instants,
    disabled_until=st.just(0.0) | instants,
    disabled_reason=st.sampled_from(["", "billing"]),
    rejected=st.sampled_from(["", "401"]),
    rejected_version=st.sampled_from([0, 1, 2]),
)
helds = st.builds(
    lambda bad, expires, stale, version: Held(
        replace(KEY, secret=None if bad else KEY.secret, fault="empty" if bad else "", expires_at=expires),
        0, version, False, stale,
    ),
    st.sampled_from([False, False, False, True]), st.none() | instants, st.none() | instants, st.sampled_from([1, 2]),
)  # fmt: skip


def judged(profile: Profile = KEY, usage: Usage = FRESH, *, now: float = NOW, stale: float | None = None) -> Standing:
    return assess(Held(profile, 0, 1, False, stale), usage, now=now, warn_within=WARN)


def expiring_in(seconds: float) -> Profile:
    return replace(KEY, mode=Mode.TOKEN, expires_at=NOW + seconds)


@pytest.mark.parametrize(
    ("profile", "state", "reason", "valid_for"),
    [
        (KEY, State.OK, "", NEVER),
        (expiring_in(WARN + 60), State.OK, "", 60),
        (expiring_in(WARN), State.EXPIRING, "expires in 1d", WARN),
        (expiring_in(5400), State.EXPIRING, "expires in 1h30m", 5400),
        (expiring_in(1), State.EXPIRING, "expires in 1s", 1),
        (expiring_in(0), State.EXPIRED, "expired 0s ago", NEVER),
        (expiring_in(-90), State.EXPIRED, "expired 1m30s ago", NEVER),
        (replace(KEY, secret=None, fault="it is a placeholder"), State.INVALID, "it is a placeholder", NEVER),
        (replace(KEY, secret=None), State.INVALID, "malformed", NEVER),
    ],
)
def test_the_states_of_material(profile: Profile, state: State, reason: str, valid_for: float) -> None:
    """State, the words for a person, and until when they hold."""
    usable = state in (State.OK, State.EXPIRING)
    standing = judged(profile)
    assert standing == Standing(state, reason, usable, 0.0, NOW + valid_for)
    assert standing.reason == reason


def test_a_rejection_counts_against_the_material_that_was_rejected() -> None:
    """New material clears it."""
    usage = Usage(rejected="the provider refused it", rejected_version=1)
    assert judged(usage=usage).state is State.REJECTED
    assert judged(usage=usage).reason == "the provider refused it"
    assert assess(Held(KEY, 0, 2), usage, now=NOW, warn_within=WARN).state is State.OK


def test_a_stale_profile_serves_until_the_budget_ends() -> None:
    """Then it is missing, whatever else is known of it, but for a value that was never good."""
    assert judged(stale=NOW + 5) == Standing(State.OK, "", True, 0.0, NOW + 5)
    over = judged(stale=NOW)
    assert (over.state, over.usable) == (State.MISSING, False)
    assert over.reason.startswith("mounted /run has been unreadable")
    assert judged(usage=Usage(rejected="401", rejected_version=1), stale=NOW).state is State.MISSING
    assert judged(replace(KEY, secret=None, fault="empty"), stale=NOW).state is State.INVALID


def test_a_cooldown_leaves_the_profile_usable() -> None:
    """Others come first, and health counts on it."""
    standing = judged(usage=Usage(cooldown_until=NOW + 300))
    assert standing == Standing(State.OK, "", True, NOW + 300, NOW + 300)
    assert standing.reason == "in cooldown for 5m"


def test_a_billing_disable_does_not() -> None:
    """Until it ends."""
    usage = Usage(disabled_until=NOW + 4 * 3600, disabled_reason="billing", cooldown_until=NOW + 60)
    standing = judged(usage=usage)
    assert standing == Standing(State.OK, "", False, NOW + 4 * 3600, NOW + 60)
    assert standing.reason == "disabled (billing) for 4h"
    assert judged(usage=usage, now=NOW + 4 * 3600) == Standing(State.OK, "", True, 0.0, NEVER)


@given(helds, usages, instants)
def test_only_ok_and_expiring_can_be_usable(held: Held, usage: Usage, now: float) -> None:
    """And of those, exactly the ones that are not disabled."""
    standing = assess(held, usage, now=now, warn_within=WARN)
    fine = standing.state in (State.OK, State.EXPIRING)
    assert standing.usable == (fine and not usage.disabled_until > now)
    assert standing.cooling_until == usage.cooling_until(now)
    assert standing.usable or standing.reason
    assert standing.state is not State.OK or held.profile.secret is not None


@given(helds, usages, instants, st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1e6))
def test_a_judgement_holds_until_it_says(held: Held, usage: Usage, now: float, part: float, warn_within: float) -> None:
    """Nothing but the words changes before `valid_until`, which lies ahead; and coming back then brings no endless loop."""
    standing = assess(held, usage, now=now, warn_within=warn_within)
    assert standing.valid_until > now
    if standing.valid_until == NEVER:
        assert assess(held, usage, now=now + 1e7, warn_within=warn_within) == standing
        return
    between = now + (standing.valid_until - now) * part
    if between < standing.valid_until:
        assert assess(held, usage, now=between, warn_within=warn_within) == standing
    after = assess(held, usage, now=standing.valid_until, warn_within=warn_within)
    assert after.valid_until > standing.valid_until


def test_what_is_left_is_what_nobody_will_add_to() -> None:
    """A credential that does not say, or that is refreshed, bounds no lease; an expired one has less than nothing left."""
    assert left(Held(KEY, 0, 1), now=NOW) is None
    assert left(Held(expiring_in(60), 0, 1), now=NOW) == 60
    assert left(Held(expiring_in(-60), 0, 1), now=NOW) == -60
    refreshed = replace(expiring_in(60), mode=Mode.OAUTH, refresh=SecretValue("r"))
    assert left(Held(refreshed, 0, 1), now=NOW) is None


VENDOR = Provider(
    id="p",
    headers={Mode.API_KEY: HeaderForm("x-api-key", ""), Mode.TOKEN: HeaderForm(extra={"beta": "oauth-1"})},
    sdk_env={Mode.API_KEY: "P_KEY", Mode.TOKEN: "P_TOKEN"},
    base_url_env="P_URL",
)


def test_headers_carry_the_secret_in_the_vendors_form() -> None:
    """With what must stand beside it."""
    assert headers(VENDOR, Mode.API_KEY, SecretValue("k")) == {"x-api-key": "k"}
    assert headers(VENDOR, Mode.TOKEN, SecretValue("t")) == {"Authorization": "Bearer t", "beta": "oauth-1"}
    assert headers(Provider(id="q"), Mode.OAUTH, SecretValue("o")) == {"Authorization": "Bearer o"}


def test_the_environment_carries_it_under_the_sdks_name() -> None:
    """A base URL only where one is given and the SDK has a name for it; nothing where no name is known."""
    assert sdk_env(VENDOR, Mode.API_KEY, SecretValue("k")) == {"P_KEY": "k"}
    assert sdk_env(VENDOR, Mode.TOKEN, SecretValue("t"), "http://x") == {"P_TOKEN": "t", "P_URL": "http://x"}
    assert sdk_env(Provider(id="q"), Mode.API_KEY, SecretValue("k"), "http://x") == {}
