"""Records of events for the audit log. A record has a keyed digest in place of a lease's id."""

import hmac
from collections.abc import Callable
from dataclasses import fields
from functools import cache, lru_cache, partial
from typing import Final

from equabot_broker.telemetry.audit_chain import pseudonym
from equabot_broker.telemetry.events import Event

_FREE: Final = frozenset({"route", "session", "reason", "words", "resource"})
"""Fields whose text is not ours alone."""
_LISTED: Final = 20
"""Items of a list that are recorded."""


class Records:
    """Makes records. `key` is the key of the digests of leases; `clean` removes secrets from a text."""

    def __init__(self, *, key: bytes, clean: Callable[[str], str]) -> None:
        # Many events have the same lease.
        self._pseudonym = lru_cache(maxsize=256)(partial(pseudonym, key=hmac.digest(key, b"audit: leases", "sha256")))
        self._clean = clean

    def of(self, event: Event, *, at: str) -> dict[str, object]:
        """The record of an event that has an `audit_kind`, without empty fields."""
        record: dict[str, object] = {"ts": at, "kind": event.audit_kind}
        for name, plain in _recorded(type(event)):  # type: ignore[arg-type]  # mypy: a class is hashable
            value = getattr(event, name)
            if value not in ("", ()):
                record[name] = value if plain else self._field(name, value)
        return record

    def _field(self, name: str, value: object) -> object:
        match value:
            case str() if name == "lease":
                return self._pseudonym(value)
            case str() if name in _FREE:
                return self._clean(value)
            case float():
                return round(value, 6)
            case tuple() if len(value) > _LISTED:
                return [*value[:_LISTED], f"and {len(value) - _LISTED} more"]
        return value


@cache
def _recorded(kind: type[Event]) -> tuple[tuple[str, bool], ...]:
    """The names of the event's fields, each with whether it is recorded without a change."""
    return tuple(
        (field.name, field.type is int or (field.type is str and field.name not in {"lease", *_FREE})) for field in fields(kind)
    )


def shortened(record: dict[str, object], limit: int) -> dict[str, object]:
    """The record with every text cut to `limit` characters."""
    return {
        name: value[:limit] + "…" if isinstance(value, str) and len(value) > limit else _items(value, limit)
        for name, value in record.items()
    }


def _items(value: object, limit: int) -> object:
    return [str(item)[:limit] for item in value] if isinstance(value, (list, tuple)) else value
