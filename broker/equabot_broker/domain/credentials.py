"""Credentials: the state of a profile now, and the headers and variables that carry its secret."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import SERVING_STATES, Profile, State
from equabot_broker.domain.provider import HeaderForm, Mode, Provider
from equabot_broker.domain.relogin import INTERRUPTED, SUPERSEDED, how_to_log_in
from equabot_broker.domain.remedies import how_to_recover
from equabot_broker.domain.secret_value import SecretValue

NEVER: Final = float("inf")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:@-]{1,256}")


class Revival(Enum):
    """Whether a login that cannot serve now will serve again after a refresh."""

    NONE = "no refresh can restore it"
    COMING = "a refresh is due or in progress"
    FAILING = "its refreshes fail, and continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTrouble:
    """Problems of a login, or of a workload identity, that its store does not contain. They apply to one version.

    `refused`: the provider refused the access token before its expiry. `failure` says why refreshes fail, `next_try` is the
    instant of the next one.
    """

    version: int
    refused: bool = False
    failure: str = ""
    next_try: float = 0.0


@dataclass(frozen=True, slots=True)
class Assessment:
    """The state of a profile, the reason, and the end of this assessment (seconds since the epoch).

    `reason` contains durations and is ignored in comparisons. `usable`: it can serve a request. A profile in cooldown stays
    usable, but others come first; a billing disable makes it unusable. `cooling_until` is the end of a cooldown or disable,
    or 0. For an unusable profile, `revival` says whether a refresh restores it, and `trial` that one request may test a
    rejected credential again. `models` maps models in cooldown to the end of each.

    `returns_at` is when it serves again without a person: after a cooldown, a disable, a trial or a refresh. 0: it serves
    now, or a person must act.
    """

    state: State
    reason: str = field(compare=False)
    usable: bool
    cooling_until: float
    valid_until: float
    revival: Revival = Revival.NONE
    trial: bool = False
    models: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    returns_at: float = field(default=0.0, compare=False)

    def for_model(self, model: str, *, now: float) -> "Assessment":
        """The assessment for a request with this model; the same object if nothing differs."""
        until = self.models.get(model, 0.0)
        if until <= max(now, self.cooling_until):
            return self
        reason = f"in cooldown for model {model} for {span(until - now)}" if self.usable else self.reason
        returns = max(until, self.returns_at) if self.usable or self.returns_at else 0.0
        ends = min(self.valid_until, until)
        return replace(self, reason=reason, cooling_until=until, valid_until=ends, returns_at=returns)


def assess(
    held: HeldProfile,
    usage: Usage,
    *,
    now: float,
    warn_within: float,
    trouble: RefreshTrouble | None = None,
    tried_until: float = 0.0,
) -> Assessment:
    """Assesses the profile at `now`. A `trouble` of another version is ignored.

    Until `tried_until`, a request is testing the rejected credential.
    """
    if trouble is not None and trouble.version != held.version:
        trouble = None
    judged = _judged(held, usage, trouble, now=now, warn_within=warn_within, tried_until=tried_until)
    usable, reason, revival, trial = judged.serves, judged.reason, Revival.NONE, judged.trial
    returns = 0.0 if usable else judged.returns
    if judged.revives:
        revival = Revival.FAILING if trouble is not None and trouble.failure else Revival.COMING
        returns = trouble.next_try if trouble is not None and trouble.failure else now
    cooling = usage.cooling_until(now)
    if usage.disabled_until > now:
        returns = max(cooling, returns) if usable or returns or trial else 0.0
        usable, revival, trial = False, Revival.NONE, False
        reason = f"disabled ({usage.disabled_reason or 'billing'}) for {span(usage.disabled_until - now)}"
    elif cooling and usable:
        reason, returns = f"in cooldown for {span(cooling - now)}", cooling
    models = {name: met.until for name, met in usage.models.items() if met.until > now}
    ends = (end for end in (usage.cooldown_until, usage.disabled_until, *models.values()) if end > now)
    until = min(judged.until, min(ends, default=NEVER))
    return Assessment(judged.state, reason, usable, cooling, until, revival, trial, models, returns)


def remedy_of(profile: Profile, standing: Assessment) -> str:
    """The remedy for an unusable profile if its reason does not contain one, otherwise empty."""
    if standing.usable or standing.revival is not Revival.NONE:
        return ""
    if standing.cooling_until:
        return f"replace the credential, or run `equabot profile clear {profile.id}`"
    if standing.state not in (State.EXPIRED, State.REJECTED):
        return ""
    mode = Mode.WIF if profile.workload else profile.mode
    return how_to_recover(profile.id, state=standing.state, mode=mode, source=profile.source, agent=profile.agent)


class _Judged(NamedTuple):
    state: State
    reason: str
    until: float
    serves: bool
    revives: bool = False
    trial: bool = False
    returns: float = 0.0


def _judged(
    held: HeldProfile, usage: Usage, trouble: RefreshTrouble | None, *, now: float, warn_within: float, tried_until: float
) -> _Judged:
    profile = held.profile
    if profile.secret is None and not profile.renews:
        return _plain(State.INVALID, profile.fault or "malformed")
    if held.stale_until is not None and now >= held.stale_until:
        return _plain(State.MISSING, f"{profile.source} has been unreadable for longer than the stale budget")
    stale_end = NEVER if held.stale_until is None else held.stale_until
    if usage.rejected and usage.rejected_version == held.version:
        return _rejected(usage, stale_end, now=now, tried_until=tried_until)
    if profile.renews:
        return _renewed(profile, trouble, stale_end, now=now, warn_within=warn_within)
    if profile.expires_at is None:
        return _plain(State.OK, profile.doubt, stale_end)
    left = profile.expires_at - now
    if left <= 0:
        return _plain(State.EXPIRED, f"expired {span(-left)} ago", stale_end)
    if profile.tool:
        # Its tool renews it shortly before its end: an end in the near future is normal.
        return _plain(State.OK, "", min(profile.expires_at, stale_end))
    # `now` is compared with the end of the assessment itself: rounding must not produce the same assessment at its end.
    warned_at = profile.expires_at - warn_within
    if now >= warned_at:
        return _plain(State.EXPIRING, f"expires in {span(left)}", min(profile.expires_at, stale_end))
    return _plain(State.OK, profile.doubt, min(warned_at, stale_end))


def _rejected(usage: Usage, stale_end: float, *, now: float, tried_until: float) -> _Judged:
    """After the delay one request tests the credential. Others wait for its result or its timeout."""
    if not usage.rejected_until:
        return _plain(State.REJECTED, usage.rejected, stale_end)
    again = max(usage.rejected_until, tried_until)
    if again > now:
        reason = f"{usage.rejected}; it is tried again in {span(again - now)}"
        return _plain(State.REJECTED, reason, min(again, stale_end))._replace(returns=again)
    return _plain(State.REJECTED, f"{usage.rejected}; the next request tries it again", stale_end)._replace(
        trial=True, returns=again
    )


def _plain(state: State, reason: str, until: float = NEVER) -> _Judged:
    return _Judged(state, reason, until, state in SERVING_STATES)


def _renewed(profile: Profile, trouble: RefreshTrouble | None, stale_end: float, *, now: float, warn_within: float) -> _Judged:
    """A login that can be refreshed, or a workload identity: its state is OK until a refresh or an exchange fails."""
    end = NEVER if profile.expires_at is None else profile.expires_at
    over = _over(profile, trouble, now)
    if profile.reauth:
        until = stale_end if over else min(end, stale_end)
        rest = "" if over or end == NEVER else f"; it still serves for {span(end - now)}"
        return _Judged(State.REAUTH_REQUIRED, f"{_ended(profile)}{rest}", until, not over)
    failing = "" if trouble is None else trouble.failure
    if over and profile.workload:
        state = State.MISSING if profile.secret is None else State.EXPIRED
        return _Judged(state, "; ".join(filter(None, (over, failing))), stale_end, serves=False, revives=True)
    if over:
        return _Judged(State.EXPIRED, f"{over}; {failing or 'it is refreshed on use'}", stale_end, serves=False, revives=True)
    warned_at = end - warn_within
    if failing and now >= warned_at:
        return _plain(State.EXPIRING, f"expires in {span(end - now)}; {failing}", min(end, stale_end))
    return _plain(State.OK, failing, min(warned_at if failing else end, stale_end))


def _over(profile: Profile, trouble: RefreshTrouble | None, now: float) -> str:
    """Why its access token cannot serve, or empty."""
    if profile.secret is None:
        return profile.fault or "it has no access token"
    if profile.expires_at is not None and profile.expires_at <= now:
        return f"expired {span(now - profile.expires_at)} ago"
    return "the provider refused its access token before its end" if trouble is not None and trouble.refused else ""


def _ended(profile: Profile) -> str:
    """Why a person must log in again, and how."""
    if profile.reauth == INTERRUPTED:
        why = "a refresh was interrupted, so that its refresh token may be spent"
    elif profile.reauth == SUPERSEDED:
        why = "an older login was restored, whose refresh token was already used or replaced"
    else:
        why = f"the token endpoint refused its refresh permanently ({profile.reauth})"
    return f"{why}: {how_to_log_in(profile)}"


def left(held: HeldProfile, *, now: float) -> float | None:
    """The remaining seconds of the credential. None: the end is unknown, or the broker refreshes it."""
    profile = held.profile
    return None if profile.expires_at is None or (profile.renews and not profile.reauth) else profile.expires_at - now


def span(seconds: float) -> str:
    """A duration as text with its two largest units."""
    whole = max(int(seconds), 0)
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{name}{rest}{small_name}" if rest else f"{whole // size}{name}"
    return f"{whole}s"


def headers(provider: Provider, profile: Profile, secret: SecretValue) -> dict[str, str]:
    """The headers of a request with the profile's credential."""
    form = provider.header_form(profile.mode)
    return {form.name: form.prefix + secret.reveal(), **form.extra, **_account(form, profile)}


def carried(form: HeaderForm, profile: Profile, secret: SecretValue, sent: Mapping[str, str]) -> dict[str, str]:
    """The headers that replace those of a request on its way to the vendor. `sent` are the request's own, in lower case.

    Lists in `-beta` headers are joined without duplicates.
    """
    made = {form.name: form.prefix + secret.reveal(), **_account(form, profile)}
    for name, value in form.extra.items():
        words = (word.strip() for word in f"{sent.get(name.lower(), '')},{value}".split(","))
        made[name] = ",".join(dict.fromkeys(filter(None, words))) if name.lower().endswith("-beta") else value
    return made


def _account(form: HeaderForm, profile: Profile) -> dict[str, str]:
    """The header with the account of the login. An account that is not a valid header value is left out."""
    named = form.account and _PLAIN.fullmatch(profile.account)
    return {form.account: profile.account} if named else {}


def sdk_env(provider: Provider, mode: Mode, secret: SecretValue, base_url: str = "") -> dict[str, str]:
    """The variables for the vendor's SDKs. `base_url` is set only if it differs from the default of the SDK."""
    env = {name: secret.reveal() for name in provider.sdk_env_names(mode)}
    if base_url and provider.base_url_env:
        env[provider.base_url_env] = base_url
    return env


def token_headers(provider: Provider, token: SecretValue) -> dict[str, str]:
    """The headers of a request to the gateway. They do not depend on the credential of the lease, which may change."""
    form = provider.header_form(Mode.API_KEY)
    return {form.name: form.prefix + token.reveal()}


def token_env(provider: Provider, token: SecretValue, base_url: str) -> dict[str, str]:
    """The variables that send a process's requests to the gateway: the token in every variable of the SDKs, and the address.

    Empty if no variable of the provider is known.
    """
    env = {name: token.reveal() for name in provider.sdk_env_names()}
    return {**env, provider.address_env: base_url} if env else {}
