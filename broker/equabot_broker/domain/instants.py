"""Instants as text in RFC 3339."""

from datetime import UTC, datetime


def rfc3339(instant: float, *, timespec: str = "milliseconds") -> str:
    """Seconds since the epoch, in UTC: `2026-11-22T17:00:00.250Z`."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
