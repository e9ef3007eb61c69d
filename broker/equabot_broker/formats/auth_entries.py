"""Converts the entries of a store to profiles and orders. A faulty entry does not affect the others."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override
from equabot_broker.discovery.hygiene import Unclean, clean
from equabot_broker.domain.masking import is_misplaced_key, masked
from equabot_broker.domain.material import SourceFault, Unit, admitted
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import TOOL_OF, Profile, split_id
from equabot_broker.domain.provider import Catalog, Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import COPIED, REAUTH, AuthDocument, fingerprint, with_order
from equabot_broker.formats.auth_usage import usage_of
from equabot_broker.formats.refresh_marks import issued_at
from equabot_broker.parsing.untrusted_json import Json

_SECRET_FIELD: Final = {Mode.API_KEY: "key", Mode.TOKEN: "token", Mode.OAUTH: "access"}
_SECONDS_BELOW: Final = 100_000_000_000  # in milliseconds this is March 1973, in seconds the year 5138
_YEAR_9999: Final = 253_402_300_799_000
_ID_MAX: Final = 200
_TOP: Final = frozenset({"version", "profiles", "order", "usageStats", "lastGood"})
_FIELDS: Final = frozenset({"key", "apiKey", "api_key", "token", "access", "accessToken", "access_token", "keyRef", "tokenRef"})
_MISFITS_SHOWN: Final = 5
_DEPTH_MAX: Final = 4
_OTHER_NAMES: Final = ("apiKey", "api_key", "key", "token", "accessToken", "access_token", "access")
_SHOWN_MAX: Final = 80


def store_unit(document: AuthDocument, *, rules: DiscoveryRules, source: str, name: str, origin: str, owner: str) -> Unit:
    """The unit of a store. A faulty entry or order is reported, kept in the file, and not used.

    `origin` names the file. `owner` is the agent of the store; profiles of `main` are for all agents. A store without an owner
    has no usage and no orders.
    """
    faults: list[SourceFault] = []
    profiles: dict[str, Profile] = {}
    names = _names(document, rules.catalog)
    agent = "" if owner == MAIN else owner
    if misfits := _beside_profiles(document):
        shown = ", ".join(misfits)
        faults.append(
            SourceFault(origin, f"{origin} has credentials outside of 'profiles', which are not read: move {shown} there")
        )
    for written, found in document.entries.items():
        entry = as_named_here(found)
        where = f"{origin} {_shown(written)}"
        if entry != found:
            faults.append(
                SourceFault(where, f"{where} has other names of fields: 'mode' is read as 'type', and 'apiKey' as 'key'")
            )
        profile_id, why = names[written]
        if why:
            faults.append(SourceFault(where, f"{where} {why}"))
        else:
            reader = _Entry(entry, where, rules, faults)
            profiles[profile_id] = reader.profile(profile_id, source=source, unit=name, agent=agent)
    if not owner:
        return admitted(Unit(name, tuple(profiles.values()), tuple(faults)))
    usage = {profile_id: usage_of(document, written) for written, (profile_id, why) in names.items() if not why}
    orders = _orders(document, rules.catalog, origin, faults)
    return admitted(Unit(name, tuple(profiles.values()), tuple(faults), owner=owner, usage=usage, orders=orders))


def as_named_here(entry: Any) -> Any:
    """An entry with `mode` and `apiKey` under the names `type` and `key`, as OpenClaw reads it."""
    if not isinstance(entry, dict):
        return entry
    read = {name: entry.get(other) for name, other in (("type", "mode"), ("key", "apiKey")) if name not in entry}
    given = {name: value for name, value in read.items() if isinstance(value, str)}
    return {**entry, **given} if given else entry


def _beside_profiles(document: AuthDocument) -> list[str]:
    """Top-level names that look like credentials, for a message."""
    others = ((name, value) for name, value in document.raw.items() if name not in _TOP)
    return [_shown(name) for name, value in others if (":" in name and isinstance(value, dict)) or _holds(value)][
        :_MISFITS_SHOWN
    ]


def _holds(value: object, *, depth: int = _DEPTH_MAX) -> bool:
    """Whether it is an entry or a bare key, or contains one."""
    if isinstance(value, str):
        return is_misplaced_key(value)
    if isinstance(value, dict) and not _FIELDS.isdisjoint(value):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and any(_holds(entry, depth=depth - 1) for entry in inner)


def entry_ids(document: AuthDocument, catalog: Catalog) -> dict[str, str]:
    """The ids in the store by the profile ids that they make: the store may use an alias of a provider."""
    return {profile_id: written for written, (profile_id, why) in _names(document, catalog).items() if not why}


def _names(document: AuthDocument, catalog: Catalog) -> dict[str, tuple[str, str]]:
    """The profile of each entry, or why it has none, as a phrase after its name."""
    found: dict[str, tuple[str, str]] = {}
    taken: set[str] = set()
    for written, entry in document.entries.items():
        profile_id, why = _name(written, as_named_here(entry), catalog)
        if profile_id in taken:
            why = f"is another entry for {profile_id}, which is above it: rename or remove one"
        elif not why:
            taken.add(profile_id)
        found[written] = (profile_id, why)
    return found


def _name(written: str, entry: object, catalog: Catalog) -> tuple[str, str]:
    prefix, colon, name = written.partition(":")
    if not isinstance(entry, dict):
        return "", "is not a profile: a profile is an object with a type"
    if not colon or not prefix or not name:
        return "", "is not a profile id: rename it to provider:name, for example anthropic:default"
    if not name.isprintable() or len(written) > _ID_MAX:
        return "", "has an id that is too long or cannot be shown: rename it"
    if is_misplaced_key(written):
        return "", "has an id that looks like a key, so it is not used: rename it, and replace that key"
    if entry.get("type") not in list(_SECRET_FIELD):
        return "", "has a type that this program does not know: it is kept for other programs"
    named = entry.get("provider")
    provider = catalog.normalise(named if isinstance(named, str) and named else prefix)
    if provider is None:
        return "", "is of an unknown provider: add that to providers in the configuration"
    return f"{provider}:{name}", ""


def with_order_of(document: AuthDocument, provider: str, ids: Sequence[str], catalog: Catalog) -> AuthDocument:
    """The store with an order, which replaces one under an alias of the provider; an empty order removes it."""
    for written in [written for written in document.raw.get("order") or {} if catalog.normalise(written) == provider]:
        document = with_order(document, written, ())
    return with_order(document, provider, ids) if ids else document


def _orders(document: AuthDocument, catalog: Catalog, origin: str, faults: list[SourceFault]) -> dict[str, tuple[str, ...]]:
    orders = {}
    for written in document.raw.get("order") or {}:
        provider, ids = catalog.normalise(written), document.order.get(written)
        if provider is None or ids is None:
            faults.append(
                SourceFault(origin, f"{origin} has an order of {_shown(written)} that no program can use: set it again")
            )
        else:
            orders[provider] = _order(ids, provider, catalog, f"{origin} order of {provider}", faults)
    return orders


def _order(ids: Sequence[str], provider: str, catalog: Catalog, where: str, faults: list[SourceFault]) -> tuple[str, ...]:
    """The order with each id under the provider's own name. Faulty ids are left out, unless none remains: an order is
    exclusive, and a mistake must not admit the profiles that it excludes."""
    wanted = {}
    for written in ids:
        prefix, colon, name = written.partition(":")
        if colon and catalog.normalise(prefix) == provider:
            wanted[f"{provider}:{name}"] = True
        else:
            why = f"is not a profile of {provider}" if colon else "has no colon, so it is not a profile id"
            faults.append(SourceFault(where, f"{where}: {_shown(written)} {why}: set the order again"))
    return tuple(wanted) or tuple(ids)


def _shown(name: str) -> str:
    if is_misplaced_key(name):
        return masked(name)
    return repr(name[:_SHOWN_MAX]) if not name.isprintable() or len(name) > _SHOWN_MAX else name


class _Entry:
    """Reads one entry of a store."""

    def __init__(self, entry: Json, where: str, rules: DiscoveryRules, faults: list[SourceFault]) -> None:
        self._entry = entry
        self._where = where
        self._rules = rules
        self._faults = faults

    def profile(self, profile_id: str, *, source: str, unit: str, agent: str) -> Profile:
        """The profile of the entry."""
        provider = split_id(profile_id)[0]
        override = self._rules.overrides.get(profile_id, Override())
        kind = Mode(self._entry["type"])
        expires_at, doubt = instant(self._entry.get("expires"))
        if doubt and kind is not Mode.API_KEY:
            self._faults.append(SourceFault(self._where, f"{self._where}: its 'expires' {doubt}"))
        own = None if kind is Mode.API_KEY else expires_at
        end = override.end(profile_id, own)
        refresh = self._refresh(profile_id, kind)
        secret, fault = self._secret(provider, kind, override.mode or kind)
        return Profile(
            id=profile_id,
            provider=provider,
            mode=override.mode or kind,
            source=source,
            unit=unit,
            origin=self._where,
            secret=secret,
            fault=fault,
            expires_at=own if end is None else end.at,
            declared=end,
            refresh=refresh,
            client_id=self._text("clientId"),
            account=self._text("accountId"),
            email=self._text("email"),
            agent=agent,
            reauth=self._reauth(refresh),
            issued_at=issued_at(self._entry),
            copied_from=self._copied_from(profile_id, kind),
        )

    def _secret(self, provider: str, kind: Mode, mode: Mode) -> tuple[SecretValue | None, str]:
        name = _SECRET_FIELD[kind]
        written = self._entry.get(name)
        if not isinstance(written, str):
            if isinstance(written, dict) or any(isinstance(self._entry.get(ref), dict) for ref in ("keyRef", "tokenRef")):
                return (
                    None,
                    f"{self._where} has a reference to its secret, which is not followed here: store its value",
                )
            meant = next((other for other in _OTHER_NAMES if isinstance(self._entry.get(other), str)), "")
            if meant:
                return None, f"{self._where} has a {meant!r}, where {name!r} is meant: rename that field"
            return None, f"{self._where} has no {name!r}"
        catalog = self._rules.catalog
        try:
            return clean(written, provider=catalog.providers[provider], mode=mode, catalog=catalog), ""
        except Unclean as unclean:
            return None, f"{self._where} has a {name!r} that {unclean.reason}"

    def _refresh(self, profile_id: str, kind: Mode) -> SecretValue | None:
        written = self._text("refresh").strip()
        ours = kind is Mode.OAUTH and profile_id not in self._rules.foreign_logins
        endpoint = self._rules.catalog.providers[split_id(profile_id)[0]].token_url
        return SecretValue(written) if written and ours and endpoint else None

    def _copied_from(self, profile_id: str, kind: Mode) -> str:
        """An older copy names no source: a login of a tool that the broker cannot refresh counts as one."""
        unrefreshed = kind is Mode.OAUTH and not self._text("refresh")
        return self._text(COPIED) or (TOOL_OF.get(profile_id, "") if unrefreshed else "")

    def _reauth(self, refresh: SecretValue | None) -> str:
        noted = self._entry.get(REAUTH)
        if refresh is None or not isinstance(noted, dict):
            return ""
        # Another program may have logged in since, and kept fields that it does not know.
        if noted.get("digest", fingerprint(refresh)) != fingerprint(refresh):
            return ""
        code = noted.get("code")
        return code[:_SHOWN_MAX] if isinstance(code, str) and code and code.isprintable() else "the refresh failed for good"

    def _text(self, name: str) -> str:
        value = self._entry.get(name)
        return value if isinstance(value, str) else ""


def instant(value: object) -> tuple[float | None, str]:
    """The expiry in seconds since the epoch, or None if it is not known, and the doubt about it.

    The unit is milliseconds. A number that is too small is read as seconds; numbers and dates in a text are accepted. Zero,
    negative numbers and instants beyond the calendar count as unknown.
    """
    if value is None:
        return None, ""
    if isinstance(value, str):
        seconds, doubt = _of_text(value.strip())
        return seconds, doubt or "is a text, where a number of milliseconds is meant"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  (NaN)
        return None, "is not a number of milliseconds: treated as unknown"
    if value <= 0:
        return None, "is zero or negative: treated as unknown"
    if value > _YEAR_9999:
        return None, "lies beyond the calendar: treated as unknown"
    if value < _SECONDS_BELOW:
        return float(value), "looks like seconds, where milliseconds are meant: read as seconds"
    return value / 1000, ""


def _of_text(text: str) -> tuple[float | None, str]:
    try:
        return instant(float(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
        return instant((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None, "is not a number of milliseconds: treated as unknown"
