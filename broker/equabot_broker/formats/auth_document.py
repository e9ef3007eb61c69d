"""`auth-profiles.json`, OpenClaw's store of an agent: the meaning of its JSON, and changes that lose nothing of it.

Instants in the file are milliseconds since the epoch. Unknown entries and fields are kept unchanged.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from equabot_broker.discovery.hygiene import ENTRIES_MAX
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.parsing.untrusted_json import Json, Malformed, decode

VERSION: Final = 1
_ORDERED_MAX: Final = 10_000
_OF_A_CREDENTIAL: Final = frozenset(
    {
        "type",
        "provider",
        "key",
        "token",
        "access",
        "refresh",
        "expires",
        "issuedAt",
        "email",
        "clientId",
        "accountId",
        "copiedFrom",
    }
)
COPIED: Final = "copiedFrom"
"""The field with the source of an entry that is a copy of another tool's login."""
PENDING: Final = "pendingRefresh"
"""The field in which a refresh is recorded before it is sent (ADR 7)."""
REAUTH: Final = "reauthRequired"
"""The field with the reason why the user must log in again."""


@dataclass(frozen=True, slots=True)
class AuthDocument:
    """A parsed store. `raw` is the whole document; the functions below return a changed copy."""

    raw: Json = field(default_factory=lambda: {"version": VERSION, "profiles": {}}, repr=False)

    @property
    def entries(self) -> Mapping[str, Json]:
        """The profile entries by id, as in the file."""
        found: Mapping[str, Json] = self.raw.get("profiles") or {}
        return found

    @property
    def order(self) -> Mapping[str, tuple[str, ...]]:
        """The stored orders by provider, as in the file, without values that are not lists of texts."""
        stored = self.raw.get("order") or {}
        return {provider: tuple(ids) for provider, ids in stored.items() if _is_order(ids)}


def parse(text: bytes) -> AuthDocument:
    """Parses a store. A byte order mark is accepted. Raises Malformed, without any part of the text."""
    return _checked(decode(text))


def _is_order(ids: object) -> bool:
    return isinstance(ids, list) and all(isinstance(i, str) for i in ids)


def _checked(raw: object) -> AuthDocument:
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
    document = AuthDocument(raw)
    if excess := excessive(document):
        raise Malformed(excess)
    return document


def excessive(document: AuthDocument) -> str:
    """The limit that the store exceeds, as a phrase after its name; else empty."""
    if len(document.entries) > ENTRIES_MAX:
        return f"it holds more than {ENTRIES_MAX:,} profiles: remove those that are not needed"
    ordered = document.raw.get("order") or {}
    if len(ordered) + sum(len(ids) for ids in ordered.values() if isinstance(ids, list)) > _ORDERED_MAX:
        return f"its orders name more than {_ORDERED_MAX:,} profiles: set them again"
    return ""


def serialize(document: AuthDocument) -> bytes:
    """The text of the store: JSON, indented by two spaces, with a newline at the end."""
    try:
        return (json.dumps(document.raw, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        pass  # a lone surrogate, from an escape; the error is dropped, because it has the text
    return (json.dumps(document.raw, indent=2) + "\n").encode()


def with_order(document: AuthDocument, provider: str, ids: Sequence[str]) -> AuthDocument:
    """The store with an order; an empty order removes the stored one."""
    order = {**(document.raw.get("order") or {}), provider: list(ids)}
    if not ids:
        del order[provider]
    if order or "order" in document.raw:
        return AuthDocument({**document.raw, "order": order})
    return document


def with_entry(document: AuthDocument, profile_id: str, entry: Mapping[str, object]) -> AuthDocument:
    """The store with a credential added or replaced. Of the old entry only fields that belong to no credential stay, and only
    for the same type."""
    before = document.entries.get(profile_id)
    same = isinstance(before, dict) and before.get("type") == entry.get("type")
    gone = _OF_A_CREDENTIAL | {PENDING, REAUTH}
    kept = {name: value for name, value in before.items() if name not in gone} if before and same else {}
    return AuthDocument({**document.raw, "profiles": {**document.entries, profile_id: {**entry, **kept}}})


def with_fields(document: AuthDocument, profile_id: str, fields: Mapping[str, object]) -> AuthDocument:
    """The store with changed fields of an entry; None removes a field. Raises KeyError for an unknown entry."""
    changed = {**document.entries[profile_id], **fields}
    entry = {name: value for name, value in changed.items() if value is not None or name not in fields}
    return AuthDocument({**document.raw, "profiles": {**document.entries, profile_id: entry}})


def fingerprint(secret: SecretValue) -> str:
    """Identifies a token where the token itself must not be written: 16 hex digits of its SHA-256."""
    return hashlib.sha256(secret.reveal().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def without_entry(document: AuthDocument, profile_id: str) -> AuthDocument:
    """The store without a profile, its usage and its place in orders."""
    if profile_id not in document.entries:
        return document
    raw = dict(document.raw)
    raw["profiles"] = {k: v for k, v in document.entries.items() if k != profile_id}
    if isinstance(raw.get("usageStats"), dict):
        raw["usageStats"] = {k: v for k, v in raw["usageStats"].items() if k != profile_id}
    if isinstance(raw.get("lastGood"), dict):
        raw["lastGood"] = {k: v for k, v in raw["lastGood"].items() if v != profile_id}
    cleared = AuthDocument(raw)
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
