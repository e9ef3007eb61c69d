"""What a profile is worth at an instant, and how its secret travels."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import (
    NEVER,
    Assessment,
    RefreshTrouble,
    Revival,
    assess,
    carried,
    headers,
    left,
    remedy_of,
    sdk_env,
    token_env,
    token_headers,
)
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.provider import HeaderForm, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue

NOW = 1_800_000_000.0
WARN = 86_400.0
FRESH = Usage()
KEY = Profile(
    id="p:a", provider="p", mode=Mode.API_KEY, source="mounted /run", unit="u", origin="/run/P_KEY", secret=SecretValue("x")
)  # fmt: skip

LOGIN = replace(KEY, id="acme:me", mode=Mode.OAUTH, refresh=SecretValue("r"))
AGAIN = "run `equabot models auth login --provider acme`"

instants = st.floats(min_value=NOW - 1e6, max_value=NOW + 1e6)
usages = st.builds(
    Usage,
    cooldown_until=st.just(0.0) | instants,
    disabled_until=st.just(0.0) | instants,
    disabled_reason=st.sampled_from(["", "billing"]),
    rejected=st.sampled_from(["", "401"]),
    rejected_version=st.sampled_from([0, 1, 2]),
)
materials = st.builds(
    lambda bad, expires, refresh, reauth: replace(
        KEY, secret=None if bad else KEY.secret, fault="empty" if bad else "", expires_at=expires,
        refresh=SecretValue("r") if refresh else None, reauth=reauth if refresh else "",
    ),
    st.sampled_from([False, False, False, True]), st.none() | instants, st.booleans(), st.sampled_from(["", "invalid_grant"]),
)  # fmt: skip
helds = st.builds(
    lambda profile, stale, version: HeldProfile(profile, 0, version, False, stale),
    materials, st.none() | instants, st.sampled_from([1, 2]),
)  # fmt: skip
troubles = st.none() | st.builds(
    RefreshTrouble,
    version=st.sampled_from([1, 2]),
    refused=st.booleans(),
    failure=st.sampled_from(["", "503"]),
    next_try=instants,
)


def judged(
    profile: Profile = KEY,
    usage: Usage = FRESH,
    *,
    now: float = NOW,
    stale: float | None = None,
    trouble: RefreshTrouble | None = None,
) -> Assessment:
    return assess(HeldProfile(profile, 0, 1, False, stale), usage, now=now, warn_within=WARN, trouble=trouble)


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
    assert standing == Assessment(state, reason, usable, 0.0, NOW + valid_for)
    assert standing.reason == reason


@pytest.mark.parametrize("source", ["claude_cli /x", "codex_cli /x", "qwen_cli /x"])
def test_a_login_that_its_tool_renews_is_ok_until_its_end(source: str) -> None:
    """F6, P12: it does not say when it will be renewed; past its end the tool has to be opened. So is a copy."""
    login = replace(KEY, mode=Mode.OAUTH, source=source, expires_at=NOW + 60)
    for profile in (login, replace(login, source="profile_store", copied_from=source.split(" ", maxsplit=1)[0])):
        assert judged(profile) == Assessment(State.OK, "", True, 0.0, NOW + 60)
        over = judged(profile, now=NOW + 60)
        assert (over.state, over.usable) == (State.EXPIRED, False)
        assert remedy_of(replace(profile, id="anthropic:claude-cli"), over).startswith("open ")
    assert judged(replace(login, mode=Mode.TOKEN)).state is State.EXPIRING
    assert judged(replace(login, source="profile_store")).state is State.EXPIRING


def test_a_rejection_counts_against_the_material_that_was_rejected() -> None:
    """New material clears it."""
    usage = Usage(rejected="the provider refused it", rejected_version=1)
    assert judged(usage=usage).state is State.REJECTED
    assert judged(usage=usage).reason == "the provider refused it"
    assert assess(HeldProfile(KEY, 0, 2), usage, now=NOW, warn_within=WARN).state is State.OK


def test_a_stale_profile_serves_until_the_budget_ends() -> None:
    """Then it is missing, whatever else is known of it, but for a value that was never good."""
    assert judged(stale=NOW + 5) == Assessment(State.OK, "", True, 0.0, NOW + 5)
    over = judged(stale=NOW)
    assert (over.state, over.usable) == (State.MISSING, False)
    assert over.reason.startswith("mounted /run has been unreadable")
    assert judged(usage=Usage(rejected="401", rejected_version=1), stale=NOW).state is State.MISSING
    assert judged(replace(KEY, secret=None, fault="empty"), stale=NOW).state is State.INVALID


def test_a_cooldown_leaves_the_profile_usable() -> None:
    """Others come first, and health counts on it."""
    standing = judged(usage=Usage(cooldown_until=NOW + 300))
    assert standing == Assessment(State.OK, "", True, NOW + 300, NOW + 300)
    assert standing.reason == "in cooldown for 5m"


def test_billing_disable_makes_the_profile_unusable() -> None:
    """Until it ends."""
    usage = Usage(disabled_until=NOW + 4 * 3600, disabled_reason="billing", cooldown_until=NOW + 60)
    standing = judged(usage=usage)
    assert standing == Assessment(State.OK, "", False, NOW + 4 * 3600, NOW + 60)
    assert standing.reason == "disabled (billing) for 4h"
    assert judged(usage=usage, now=NOW + 4 * 3600) == Assessment(State.OK, "", True, 0.0, NEVER)


def login_ending_in(seconds: float, **fields: str) -> Profile:
    return replace(LOGIN, expires_at=NOW + seconds, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [1, 299, WARN - 1, WARN + 1])
def test_a_login_whose_refresh_works_is_ok(seconds: float) -> None:
    """However soon its access token ends."""
    assert judged(login_ending_in(seconds)) == Assessment(State.OK, "", True, 0.0, NOW + seconds)
    assert judged(LOGIN) == Assessment(State.OK, "", True, 0.0, NEVER)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (login_ending_in(-90), "expired 1m30s ago; it is refreshed on use"),
        (replace(LOGIN, secret=None, fault="it has no 'access'"), "it has no 'access'; it is refreshed on use"),
    ],
)
def test_expired_login_can_be_refreshed(profile: Profile, reason: str) -> None:
    """It serves nobody, and health does not count on it; who can wait, may."""
    standing = judged(profile)
    assert standing == Assessment(State.EXPIRED, reason, False, 0.0, NEVER, Revival.COMING)
    assert standing.reason == reason


def test_failing_refresh_is_in_the_reason() -> None:
    """First in the words and in the state, then in what others may expect; another version knows nothing of it."""
    failing = RefreshTrouble(version=1, failure="the token endpoint answered 503", next_try=NOW + 30)
    standing = judged(login_ending_in(240), trouble=failing)
    assert standing == Assessment(State.EXPIRING, "", True, 0.0, NOW + 240)
    assert standing.reason == "expires in 4m; the token endpoint answered 503"
    assert judged(login_ending_in(2 * WARN), trouble=failing).state is State.OK
    over = judged(login_ending_in(-1), trouble=failing)
    assert over == Assessment(State.EXPIRED, "", False, 0.0, NEVER, Revival.FAILING)
    assert over.reason == "expired 1s ago; the token endpoint answered 503"
    assert judged(login_ending_in(240), trouble=replace(failing, version=2)).state is State.OK


def test_a_refused_access_token_is_over_before_its_end() -> None:
    """The provider knows better than its expiry."""
    standing = judged(login_ending_in(7200), trouble=RefreshTrouble(version=1, refused=True))
    assert standing == Assessment(State.EXPIRED, "", False, 0.0, NEVER, Revival.COMING)
    assert standing.reason == "the provider refused its access token before its end; it is refreshed on use"


def test_reason_has_the_login_command() -> None:
    """What is left of the access token serves meanwhile; then nothing brings it back."""
    refused = judged(login_ending_in(240, reauth="invalid_grant"))
    assert refused == Assessment(State.REAUTH_REQUIRED, "", True, 0.0, NOW + 240)
    assert (
        refused.reason == f"the token endpoint refused its refresh permanently (invalid_grant): {AGAIN}; it still serves for 4m"
    )
    over = judged(login_ending_in(-1, reauth="interrupted", agent="coder"))
    assert over == Assessment(State.REAUTH_REQUIRED, "", False, 0.0, NEVER)
    why = "a refresh was interrupted, so that its refresh token may be spent"
    assert over.reason == f"{why}: run `equabot models auth login --provider acme --agent coder`"
    assert judged(replace(LOGIN, reauth="invalid_grant")).usable
    assert not judged(login_ending_in(240, reauth="x"), trouble=RefreshTrouble(version=1, refused=True)).usable


def test_disabled_login_has_no_revival() -> None:
    """A refresh changes nothing about an unpaid bill."""
    standing = judged(login_ending_in(-1), Usage(disabled_until=NOW + 60, disabled_reason="billing"))
    assert (standing.usable, standing.revival) == (False, Revival.NONE)


@given(helds, usages, troubles, instants)
def test_only_valid_credentials_are_usable(held: HeldProfile, usage: Usage, trouble: RefreshTrouble | None, now: float) -> None:
    """Of that, exactly what is not disabled; and what is not usable says why."""
    standing = assess(held, usage, now=now, warn_within=WARN, trouble=trouble)
    fine = standing.state in (State.OK, State.EXPIRING)
    rest = standing.state is State.REAUTH_REQUIRED and (held.profile.expires_at is None or held.profile.expires_at > now)
    assert standing.usable <= (fine or rest)
    assert not fine or standing.usable == (not usage.disabled_until > now)
    assert standing.cooling_until == usage.cooling_until(now)
    assert standing.usable or standing.reason
    assert not standing.usable or held.profile.secret is not None


@given(helds, usages, troubles, instants)
def test_only_an_expired_login_has_a_revival(
    held: HeldProfile, usage: Usage, trouble: RefreshTrouble | None, now: float
) -> None:
    """One that cannot serve now, is refreshed by us, and has not been refused."""
    standing = assess(held, usage, now=now, warn_within=WARN, trouble=trouble)
    assert standing.revival is Revival.NONE or (
        standing.state is State.EXPIRED
        and not standing.usable
        and held.profile.refresh is not None
        and not held.profile.reauth
        and not usage.disabled_until > now
    )


@given(helds, usages, troubles, st.tuples(instants, st.floats(min_value=0, max_value=1)), st.floats(0, 1e6))
def test_assessment_is_valid_until_its_end(
    held: HeldProfile, usage: Usage, trouble: RefreshTrouble | None, times: tuple[float, float], warn_within: float
) -> None:
    """Nothing but the words changes before `valid_until`, which lies ahead; and coming back then brings no endless loop."""
    now, part = times

    def at(instant: float) -> Assessment:
        return assess(held, usage, now=instant, warn_within=warn_within, trouble=trouble)

    standing = at(now)
    assert standing.valid_until > now
    if standing.valid_until == NEVER:
        assert at(now + 1e7) == standing
        return
    between = now + (standing.valid_until - now) * part
    if between < standing.valid_until:
        assert at(between) == standing
    assert at(standing.valid_until).valid_until > standing.valid_until


def test_remaining_time_of_a_static_credential() -> None:
    """A credential that does not say, or that is refreshed, bounds no lease; an expired one has less than nothing left."""
    assert left(HeldProfile(KEY, 0, 1), now=NOW) is None
    assert left(HeldProfile(expiring_in(60), 0, 1), now=NOW) == 60
    assert left(HeldProfile(expiring_in(-60), 0, 1), now=NOW) == -60
    refreshed = replace(expiring_in(60), mode=Mode.OAUTH, refresh=SecretValue("r"))
    assert left(HeldProfile(refreshed, 0, 1), now=NOW) is None
    assert left(HeldProfile(replace(refreshed, reauth="invalid_grant"), 0, 1), now=NOW) == 60


VENDOR = Provider(
    id="p",
    headers={Mode.API_KEY: HeaderForm("x-api-key", ""), Mode.TOKEN: HeaderForm(extra={"beta": "oauth-1"})},
    sdk_env={Mode.API_KEY: "P_KEY", Mode.TOKEN: "P_TOKEN"},
    base_url_env="P_URL",
)


def test_headers_carry_the_secret_in_the_vendors_form() -> None:
    """With what must stand beside it."""
    key, token = KEY, replace(KEY, mode=Mode.TOKEN)
    assert headers(VENDOR, key, SecretValue("k")) == {"x-api-key": "k"}
    assert headers(VENDOR, token, SecretValue("t")) == {"Authorization": "Bearer t", "beta": "oauth-1"}
    assert headers(Provider(id="q"), token, SecretValue("o")) == {"Authorization": "Bearer o"}


@pytest.mark.parametrize("account", ["", "a b", "a\r\nx: y", "é", "x" * 257])
def test_a_login_carries_its_account_where_the_vendor_wants_it(account: str) -> None:
    """C12: one that no header can hold is left out."""
    form = HeaderForm(account="chatgpt-account-id")
    provider, login = Provider(id="codex", headers={Mode.API_KEY: form}), replace(KEY, mode=Mode.OAUTH, account="acc-1")
    with_account = {"Authorization": "Bearer t", "chatgpt-account-id": "acc-1"}
    assert headers(provider, login, SecretValue("t")) == with_account
    assert carried(form, login, SecretValue("t"), {"chatgpt-account-id": "mine"}) == with_account
    other = replace(login, account=account)
    assert (
        headers(provider, other, SecretValue("t"))
        == carried(form, other, SecretValue("t"), {})
        == {"Authorization": "Bearer t"}
    )


def test_headers_of_a_token_do_not_depend_on_the_credential() -> None:
    """C3, C22: in every variable that an SDK reads, with the gateway's address; in the header of keys."""
    assert token_headers(VENDOR, SecretValue("eqb")) == {"x-api-key": "eqb"}
    assert token_env(VENDOR, SecretValue("eqb"), "http://x") == {"P_KEY": "eqb", "P_TOKEN": "eqb", "P_URL": "http://x"}
    assert token_env(Provider(id="q"), SecretValue("eqb"), "http://x") == {}


def test_the_environment_carries_it_under_the_sdks_name() -> None:
    """A base URL only where one is given and the SDK has a name for it; nothing where no name is known."""
    assert sdk_env(VENDOR, Mode.API_KEY, SecretValue("k")) == {"P_KEY": "k"}
    assert sdk_env(VENDOR, Mode.TOKEN, SecretValue("t"), "http://x") == {"P_TOKEN": "t", "P_URL": "http://x"}
    assert sdk_env(Provider(id="q"), Mode.API_KEY, SecretValue("k"), "http://x") == {}


def test_a_request_carries_the_credential_in_place_of_its_own_headers() -> None:
    """Words that the vendor wants beside it join those that the SDK sent; anything else fixed replaces what was sent."""
    form = HeaderForm("Authorization", "Bearer ", {"anthropic-beta": "oauth-2025-04-20", "x-app": "cli"})
    assert carried(form, KEY, SecretValue("tok"), {}) == {
        "Authorization": "Bearer tok",
        "anthropic-beta": "oauth-2025-04-20",
        "x-app": "cli",
    }
    sent = {"anthropic-beta": "files-api-2025-04-14, oauth-2025-04-20,,mcp", "x-app": "mine", "authorization": "Bearer eqb_x"}
    assert carried(form, KEY, SecretValue("tok"), sent) == {
        "Authorization": "Bearer tok",
        "anthropic-beta": "files-api-2025-04-14,oauth-2025-04-20,mcp",
        "x-app": "cli",
    }


# -- workloads ---------------------------------------------------------------------------------------------------------

WORKLOAD = replace(KEY, id="acme:pod", mode=Mode.WIF, expires_at=NOW + 60, workload=True)
UNTRIED = replace(WORKLOAD, secret=None, expires_at=None, fault="not exchanged yet")
FAILS = RefreshTrouble(version=1, failure="it answered 503", next_try=NOW + 5)


@pytest.mark.parametrize(
    ("profile", "trouble", "state", "reason", "revival"),
    [
        (WORKLOAD, None, State.OK, "", Revival.NONE),
        (WORKLOAD, FAILS, State.EXPIRING, "expires in 1m; it answered 503", Revival.NONE),
        (UNTRIED, None, State.MISSING, "not exchanged yet", Revival.COMING),
        (UNTRIED, FAILS, State.MISSING, "not exchanged yet; it answered 503", Revival.FAILING),
        (replace(WORKLOAD, expires_at=NOW - 60), None, State.EXPIRED, "expired 1m ago", Revival.COMING),
        (replace(WORKLOAD, expires_at=NOW - 60), FAILS, State.EXPIRED, "expired 1m ago; it answered 503", Revival.FAILING),
        (
            WORKLOAD,
            RefreshTrouble(version=1, refused=True),
            State.EXPIRED,
            "the provider refused its access token before its end",
            Revival.COMING,
        ),
    ],
)
def test_workload_is_ok_while_exchanges_succeed(
    profile: Profile, trouble: RefreshTrouble | None, state: State, reason: str, revival: Revival
) -> None:
    """However soon its token ends; it is missing before the first one, and worth waiting for until exchanges fail."""
    standing = assess(HeldProfile(profile, 0, 1), FRESH, now=NOW, warn_within=WARN, trouble=trouble)
    assert (standing.state, standing.reason, standing.revival) == (state, reason, revival)
    assert standing.usable is (revival is Revival.NONE)


def test_a_lease_on_a_workload_may_outlive_its_token() -> None:
    """There will be another one."""
    assert left(HeldProfile(WORKLOAD, 0, 1), now=NOW) is None
