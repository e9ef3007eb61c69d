"""Credentials: the usable form of a profile now. What it is worth, and how a request or a process carries it."""

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
    """Whether a login that cannot serve now may serve soon, to those who wait."""

    NONE = "nothing brings it back by itself"
    COMING = "a refresh is due, or under way"
    FAILING = "its refreshes fail, and go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTrouble:
    """What is known of a login that its store does not say, for as long as it has this version: that the provider has
    `refused` its access token, whatever its expiry says; and why refreshes fail, with the instant of the next one. Of what a
    workload's identity is exchanged for likewise."""

    version: int
    refused: bool = False
    failure: str = ""
    next_try: float = 0.0


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a profile is worth: its state, why, and until when that judgement holds (seconds since the epoch). The words of
    `reason` age sooner, and do not count when two are compared.

    `usable`: it can serve a request, and health may count on it. A cooldown leaves it so, for others only come first; a billing
    disable does not. `cooling_until` is when either ends, 0 for now. Where it is not usable, `revival` says whether to wait,
    and `trial` that it was refused a while ago, so that one request is to find out. `models` are those it is in cooldown for,
    with the end of each.

    `returns_at` is when it serves again by itself: a cooldown or disable ends, a refused credential is tried again, a refresh
    that failed is. 0: it serves now, or it takes a person.
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
        """What it is worth to a request for this model; the same object where that makes no difference."""
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
    """What the profile is worth at `now`. A `trouble` of another version does not count. A request that tries a refused
    credential again is under way until `tried_until`."""
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


def way_back(profile: Profile, standing: Assessment) -> str:
    """What a person can do so that a profile that does not serve serves again, where its reason does not say it; else empty."""
    if standing.usable or standing.revival is not Revival.NONE:
        return ""
    if standing.cooling_until:
        return f"a new credential ends that, and so does `equabot profile clear {profile.id}`"
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
        # Its tool renews it shortly before its end: how soon that is says nothing until it has passed.
        return _plain(State.OK, "", min(profile.expires_at, stale_end))
    # The very instant that ends the judgement is compared, so that no rounding brings the same one back at its end.
    warned_at = profile.expires_at - warn_within
    if now >= warned_at:
        return _plain(State.EXPIRING, f"expires in {span(left)}", min(profile.expires_at, stale_end))
    return _plain(State.OK, profile.doubt, min(warned_at, stale_end))


def _rejected(usage: Usage, stale_end: float, *, now: float, tried_until: float) -> _Judged:
    """One request tries the credential again when its time has come, and the next one only when nothing came of that."""
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
    """A login that can be refreshed, a workload's identity that can be exchanged: it is well however soon its token ends, until
    that has failed."""
    end = NEVER if profile.expires_at is None else profile.expires_at
    over = _over(profile, trouble, now)
    if profile.reauth:
        until = stale_end if over else min(end, stale_end)
        rest = "" if over or end == NEVER else f"; until then it serves for {span(end - now)}"
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
    """Why its access token cannot serve; empty: it can."""
    if profile.secret is None:
        return profile.fault or "it has no access token"
    if profile.expires_at is not None and profile.expires_at <= now:
        return f"expired {span(now - profile.expires_at)} ago"
    return "the provider refused its access token before its end" if trouble is not None and trouble.refused else ""


def _ended(profile: Profile) -> str:
    """Why a person must log in again, and how."""
    if profile.reauth == INTERRUPTED:
        why = "a refresh was broken off, so that its refresh token may be spent"
    elif profile.reauth == SUPERSEDED:
        why = "somebody put an older login back, whose refresh token was exchanged or given up before"
    else:
        why = f"its refresh was refused for good ({profile.reauth})"
    return f"{why}: {how_to_log_in(profile)}"


def left(held: HeldProfile, *, now: float) -> float | None:
    """How many seconds the credential will still serve without anybody's help; None: it does not say, or is refreshed."""
    profile = held.profile
    return None if profile.expires_at is None or (profile.renews and not profile.reauth) else profile.expires_at - now


def span(seconds: float) -> str:
    """A duration for a person: its largest two units."""
    whole = max(int(seconds), 0)
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{name}{rest}{small_name}" if rest else f"{whole // size}{name}"
    return f"{whole}s"


def headers(provider: Provider, profile: Profile, secret: SecretValue) -> dict[str, str]:
    """What a request with the profile's credential must carry."""
    form = provider.header_form(profile.mode)
    return {form.name: form.prefix + secret.reveal(), **form.extra, **_account(form, profile)}


def carried(form: HeaderForm, profile: Profile, secret: SecretValue, sent: Mapping[str, str]) -> dict[str, str]:
    """What takes the place of a request's own headers (`sent`, names in lower case) on its way to the vendor. Lists that both
    have something to say in are joined; where they agree, once."""
    made = {form.name: form.prefix + secret.reveal(), **_account(form, profile)}
    for name, value in form.extra.items():
        words = (word.strip() for word in f"{sent.get(name.lower(), '')},{value}".split(","))
        made[name] = ",".join(dict.fromkeys(filter(None, words))) if name.lower().endswith("-beta") else value
    return made


def _account(form: HeaderForm, profile: Profile) -> dict[str, str]:
    """The header that names the login's account. One that no header can hold is left out: the vendor's answer says so."""
    named = form.account and _PLAIN.fullmatch(profile.account)
    return {form.account: profile.account} if named else {}


def sdk_env(provider: Provider, mode: Mode, secret: SecretValue, base_url: str = "") -> dict[str, str]:
    """What a process must be given so that the vendor's SDKs work; `base_url` only where it is not the SDK's own."""
    env = {name: secret.reveal() for name in provider.sdk_env_names(mode)}
    if base_url and provider.base_url_env:
        env[provider.base_url_env] = base_url
    return env


def token_headers(provider: Provider, token: SecretValue) -> dict[str, str]:
    """What a request to the gateway must carry. It does not depend on the credential behind the lease, which may change."""
    form = provider.header_form(Mode.API_KEY)
    return {form.name: form.prefix + token.reveal()}


def token_env(provider: Provider, token: SecretValue, base_url: str) -> dict[str, str]:
    """What a process must be given so that its requests go to the gateway: the token wherever an SDK may look for a credential,
    whatever credential is behind it, and the gateway's address. Empty where no variable of the provider is known."""
    env = {name: token.reveal() for name in provider.sdk_env_names()}
    return {**env, provider.address_env: base_url} if env else {}
