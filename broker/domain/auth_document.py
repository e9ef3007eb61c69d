"""`auth-profiles.json`, the seed system's store of an agent: what its JSON means, and how it is changed and nothing of it lost.

Instants in the file are milliseconds since the epoch. Whatever is not understood, entries and fields alike, is kept as it is.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.domain.cooldowns import Usage
from broker.domain.errors import InvalidArgument
from broker.domain.hygiene import Unclean, clean
from broker.domain.material import Fault
from broker.domain.profiles import Profile, split_id
from broker.domain.provider import Catalog, Mode
from broker.domain.secret_value import SecretValue

VERSION: Final = 1
LARGEST: Final = 4 << 20
_SECRET_FIELD: Final = {Mode.API_KEY: "key", Mode.TOKEN: "token", Mode.OAUTH: "access"}
_SECONDS_BELOW: Final = 100_000_000_000  # as milliseconds this is March 1973; as seconds, the year 5138
_YEAR_9999: Final = 253_402_300_799.0

Json = dict[str, Any]


class Malformed(Exception):
    """The text is not a store: why, and at which byte offset where that can be told. Never a byte of the text."""

    def __init__(self, why: str, *, offset: int | None = None) -> None:
        super().__init__(why if offset is None else f"{why} (at byte {offset})")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed store. `raw` is all of it; the functions below never change one, they return another."""

    raw: Json = field(default_factory=lambda: {"version": VERSION, "profiles": {}}, repr=False)

    @property
    def entries(self) -> Mapping[str, Json]:
        """The profile entries by id, as they stand in the file."""
        found: Mapping[str, Json] = self.raw.get("profiles") or {}
        return found

    @property
    def order(self) -> Mapping[str, tuple[str, ...]]:
        """The stored order overrides by provider, as they stand in the file, without what is no list of texts."""
        stored = self.raw.get("order") or {}
        return {provider: tuple(ids) for provider, ids in stored.items() if _is_order(ids)}


def parse(text: bytes) -> Document:
    """The store in the text. A byte order mark is accepted. Raises Malformed, and nothing chained to it holds the text."""
    return _checked(decode(text))


def decode(text: bytes) -> object:
    """Any JSON of another program, read with suspicion. Raises Malformed, and nothing chained to it holds the text."""
    if len(text) > LARGEST:
        raise Malformed(f"it is larger than {LARGEST >> 20} MiB")
    if not text.strip(b" \t\r\n\0"):
        raise Malformed("it is empty: restore it from a backup, or remove it to begin anew")
    mark = len(_MARK) if text.startswith(_MARK) else 0
    try:
        return _DECODER.decode(text[mark:].decode())
    except Malformed as malformed:
        fault = malformed
    except UnicodeDecodeError as error:
        fault = Malformed("it is not UTF-8 text", offset=mark + error.start)
    except json.JSONDecodeError as error:
        at = mark + len(error.doc[: error.pos].encode())
        broken_off = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string")
        fault = Malformed("it breaks off in the middle" if broken_off else "it is not JSON", offset=at)
    except ValueError:
        fault = Malformed("it holds a number too long to be one")
    except RecursionError:
        fault = Malformed("it is nested too deeply")
    raise fault


_MARK: Final = b"\xef\xbb\xbf"


def _object(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Writing it back would lose one of them without a word.
        raise Malformed("a key comes twice in one object: keep one of the two")
    return found


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:  # infinite
        raise Malformed("it holds a number that is out of range")
    return value


def _no_number(_: str) -> float:
    raise Malformed("it holds NaN or Infinity, which are not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_no_number)


def _is_order(ids: object) -> bool:
    return isinstance(ids, list) and all(isinstance(i, str) for i in ids)


def _checked(raw: object) -> Document:
    if not isinstance(raw, dict):
        raise Malformed("it is not a JSON object")
    if "sealed" in raw:
        raise Malformed("it is sealed: name the key's file in the configuration, `seal: {key_file: …}`")
    number = raw.get("version", VERSION)
    if isinstance(number, bool) or number != VERSION:
        shown = str(number) if isinstance(number, int) and abs(number) < 10**6 else "of another kind"
        raise Malformed(f"its version is {shown}, where this program knows {VERSION}: use a newer program")
    for name in ("profiles", "order", "usageStats", "lastGood"):
        if not isinstance(raw.get(name), dict | None):
            raise Malformed(f"its {name!r} is not an object")
    return Document(raw)


def serialize(document: Document) -> bytes:
    """The text of the store: JSON, two spaces, a newline at the end."""
    try:
        return (json.dumps(document.raw, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        pass  # half of a character, which only an escape can write; the error is let go: it holds the text
    return (json.dumps(document.raw, indent=2) + "\n").encode()


def profiles(
    document: Document, *, catalog: Catalog, source: str, unit: str, origin: str, agent: str
) -> tuple[list[Profile], list[Fault]]:
    """The profiles of a store and what is wrong with single entries. An entry of a type that is not known is no profile, and
    is kept."""
    found: list[Profile] = []
    faults: list[Fault] = []
    for profile_id, entry in document.entries.items():
        where = f"{origin} {profile_id[:80]}"
        try:
            mode = Mode(entry["type"])
            name = str(entry.get("provider") or split_id(profile_id)[0])
            provider = catalog.get(name)
            split_id(profile_id)
        except (InvalidArgument, KeyError, TypeError, ValueError, AttributeError):
            faults.append(Fault(where, "not a profile this program knows: it is kept, and not used"))
            continue
        if provider is None or mode not in _SECRET_FIELD:
            faults.append(Fault(where, "its provider is unknown: add it to providers in the configuration"))
            continue
        expires, doubt = instant(entry.get("expires"))
        if doubt:
            faults.append(Fault(where, doubt))
        refresh = entry.get("refresh")
        secret, fault = _secret(entry, provider_mode=mode, catalog=catalog, provider=provider.id)
        found.append(
            Profile(
                id=f"{provider.id}:{split_id(profile_id)[1]}",
                provider=provider.id,
                mode=mode,
                source=source,
                unit=unit,
                origin=where,
                secret=secret,
                fault=fault,
                expires_at=expires,
                refresh=SecretValue(refresh) if mode is Mode.OAUTH and isinstance(refresh, str) and refresh else None,
                client_id=_text(entry, "clientId"),
                account=_text(entry, "accountId"),
                email=_text(entry, "email"),
                agent=agent,
            )
        )
    return found, faults


def _secret(entry: Json, *, provider_mode: Mode, catalog: Catalog, provider: str) -> tuple[SecretValue | None, str]:
    raw = entry.get(_SECRET_FIELD[provider_mode])
    if not isinstance(raw, str):
        return None, f"its {_SECRET_FIELD[provider_mode]!r} is missing"
    try:
        return clean(raw, provider=catalog.providers[provider], mode=provider_mode, catalog=catalog), ""
    except Unclean as error:
        return None, str(error)


def _text(entry: Json, name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def instant(value: object) -> tuple[float | None, str]:
    """Seconds since the epoch of an `expires` field, or None for "it does not say", and what is doubtful about it.

    Milliseconds are meant; a number too small to be any is taken for seconds; digits in a string are read; zero, negative
    numbers and instants beyond the calendar say nothing.
    """
    if value is None:
        return None, ""
    if isinstance(value, str) and value.strip().lstrip("-").isascii() and value.strip().lstrip("-").isdigit():
        value, doubt = int(value), "its 'expires' is a string, where a number of milliseconds is meant"
    else:
        doubt = ""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None, "its 'expires' is not a number of milliseconds: treated as unknown"
    if value <= 0:
        return None, "its 'expires' is zero or negative: treated as unknown"
    if value < _SECONDS_BELOW:
        return float(value), "its 'expires' looks like seconds, where milliseconds are meant: read as seconds"
    seconds = value / 1000
    if seconds > _YEAR_9999:
        return None, "its 'expires' lies beyond the calendar: treated as unknown"
    return seconds, doubt


def usage(document: Document) -> dict[str, Usage]:
    """What the file remembers of each profile's use. Malformed parts count as never."""
    return {i: _usage(stats) for i, stats in (document.raw.get("usageStats") or {}).items() if isinstance(stats, dict)}


def _usage(stats: Json) -> Usage:
    counts = stats.get("failureCounts")
    return Usage(
        last_used=_seconds(stats, "lastUsed"),
        cooldown_until=_seconds(stats, "cooldownUntil"),
        disabled_until=_seconds(stats, "disabledUntil"),
        disabled_reason=_text(stats, "disabledReason"),
        error_count=int(_seconds(stats, "errorCount") * 1000),
        failure_counts={k: n for k, n in counts.items() if isinstance(n, int)} if isinstance(counts, dict) else {},
        last_failure=_seconds(stats, "lastFailureAt"),
    )


def _seconds(stats: Json, name: str) -> float:
    value = stats.get(name)
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _YEAR_9999 * 1000
    return value / 1000 if good else 0.0  # type: ignore[operator]


def with_usage(document: Document, changed: Mapping[str, Usage]) -> Document:
    """The store with these profiles' usage; other fields of theirs stay."""
    stats = {**(document.raw.get("usageStats") or {})}
    for profile_id, use in changed.items():
        before = stats.get(profile_id)
        kept = {k: v for k, v in before.items() if k not in _USAGE_FIELDS} if isinstance(before, dict) else {}
        stats[profile_id] = kept | dict(_usage_fields(use))
    return Document({**document.raw, "usageStats": stats})


_USAGE_FIELDS: Final = frozenset(
    {"lastUsed", "cooldownUntil", "disabledUntil", "disabledReason", "errorCount", "failureCounts", "lastFailureAt"}
)


def _usage_fields(use: Usage) -> Iterator[tuple[str, object]]:
    for name, seconds in (
        ("lastUsed", use.last_used),
        ("cooldownUntil", use.cooldown_until),
        ("disabledUntil", use.disabled_until),
        ("lastFailureAt", use.last_failure),
    ):
        if seconds:
            yield name, int(seconds * 1000)
    if use.disabled_until:
        yield "disabledReason", use.disabled_reason
    if use.error_count:
        yield "errorCount", use.error_count
    if use.failure_counts:
        yield "failureCounts", dict(use.failure_counts)


def with_order(document: Document, provider: str, ids: Sequence[str]) -> Document:
    """The store with an order override; an empty one takes it away."""
    order = {k: v for k, v in (document.raw.get("order") or {}).items() if k != provider}
    if ids:
        order[provider] = list(ids)
    raw = {k: v for k, v in document.raw.items() if k != "order"}
    return Document({**raw, "order": order} if order else raw)


def with_entry(document: Document, profile_id: str, entry: Mapping[str, object]) -> Document:
    """The store with a profile added, or changed: fields that `entry` does not name stay when the type stays."""
    before = document.entries.get(profile_id)
    same = isinstance(before, dict) and before.get("type") == entry.get("type")
    merged = {**(before or {}), **entry} if same else dict(entry)
    return Document({**document.raw, "profiles": {**document.entries, profile_id: merged}})


def without_entry(document: Document, profile_id: str) -> Document:
    """The store without a profile, its usage, and its place in orders."""
    raw = dict(document.raw)
    raw["profiles"] = {k: v for k, v in document.entries.items() if k != profile_id}
    for name in ("usageStats",):
        if isinstance(raw.get(name), dict):
            raw[name] = {k: v for k, v in raw[name].items() if k != profile_id}
    if isinstance(raw.get("lastGood"), dict):
        raw["lastGood"] = {k: v for k, v in raw["lastGood"].items() if v != profile_id}
    cleared = Document(raw)
    for provider, ids in cleared.order.items():
        if profile_id in ids:
            cleared = with_order(cleared, provider, [i for i in ids if i != profile_id])
    return cleared


def entry_of_key(provider: str, secret: SecretValue, *, email: str = "") -> Json:
    """An `api_key` entry."""
    return {"type": "api_key", "provider": provider, "key": secret.reveal(), **({"email": email} if email else {})}


def entry_of_token(provider: str, secret: SecretValue, *, expires_at: float | None) -> Json:
    """A `token` entry; `expires_at` in seconds since the epoch."""
    expires = {} if expires_at is None else {"expires": int(expires_at * 1000)}
    return {"type": "token", "provider": provider, "token": secret.reveal(), **expires}


def entry_of_oauth(
    provider: str,
    access: SecretValue,
    refresh: SecretValue | None,
    *,
    expires_at: float,
    client_id: str = "",
    account: str = "",
    email: str = "",
) -> Json:
    """An `oauth` entry; `expires_at` in seconds since the epoch."""
    optional = {"refresh": refresh.reveal() if refresh else "", "clientId": client_id, "accountId": account, "email": email}
    fields: Json = {"type": "oauth", "provider": provider, "access": access.reveal(), "expires": int(expires_at * 1000)}
    return fields | {k: v for k, v in optional.items() if v}
