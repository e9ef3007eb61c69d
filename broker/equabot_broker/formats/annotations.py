"""The annotations of a Kubernetes Secret that describe its credentials."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from equabot_broker.discovery.bundle_profiles import NOTHING, BundleNotes, safe_name
from equabot_broker.domain.masking import quoted
from equabot_broker.domain.provider import Catalog, Mode
from equabot_broker.parsing.untrusted_json import Malformed

PROVIDER: Final = "equabot.dev/provider"
PROFILE: Final = "equabot.dev/profile"
MODE: Final = "equabot.dev/mode"
EXPIRES_AT: Final = "equabot.dev/expires-at"

# A Secret's value cannot be a workload's identity.
_MODES: Final = (Mode.API_KEY, Mode.TOKEN, Mode.OAUTH)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_WRITTEN: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def read_annotations(
    annotations: Mapping[str, str], *, catalog: Catalog, where: str, newer: frozenset[str] = frozenset()
) -> BundleNotes:
    """Parses the annotations. A profile's id also names its provider. `newer` as in `BundleNotes`.

    Raises Malformed for annotations that are not valid or contradict each other: the author meant something else.
    """
    written_down = {
        key: annotations[key].strip() for key in (PROVIDER, PROFILE, MODE, EXPIRES_AT) if annotations.get(key, "").strip()
    }
    if not written_down:
        return NOTHING
    owner, colon, name = written_down.get(PROFILE, "").rpartition(":")
    provider = _provider(written_down.get(PROVIDER, ""), catalog, f"{where} annotation {PROVIDER}")
    meant = _provider(owner, catalog, f"{where} annotation {PROFILE}")
    if (colon and not owner) or name != safe_name(name) or (PROFILE in written_down and not name):
        raise Malformed(f"{where} annotation {PROFILE} is {quoted(written_down[PROFILE])}: write a name, or provider:name")
    if provider and meant and provider != meant:
        raise Malformed(
            f"{where} says that it is {provider}'s, and that it is a profile of {meant}: correct one of the annotations"
        )
    return BundleNotes(
        provider=provider or meant,
        name=name,
        mode=_mode(written_down.get(MODE, ""), where),
        expires_at=_instant(written_down.get(EXPIRES_AT, ""), where),
        ends_at=f"{where} annotation {EXPIRES_AT}" if EXPIRES_AT in written_down else "",
        newer=newer,
    )


def keys_after_end(managed: object) -> frozenset[str]:
    """The keys of a Secret that were written after the annotation with their expiry, according to `managedFields`: it has one
    entry per writer, with its fields and the time of its last change. If one writer has both, or the fields are missing,
    nothing is known."""
    entries = [entry for entry in managed if isinstance(entry, dict)] if isinstance(managed, list) else []
    ends = [entry for entry in entries if f"f:{EXPIRES_AT}" in _below(entry, "f:metadata", "f:annotations")]
    said = max((_time(entry) for entry in ends), default="")
    if not said:
        return frozenset()
    later = (entry for entry in entries if entry not in ends and _time(entry) > said)
    return frozenset(name.removeprefix("f:") for entry in later for name in _below(entry, "f:data") if name.startswith("f:"))


def _below(entry: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    found: Any = entry.get("fieldsV1")
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _time(entry: Mapping[str, Any]) -> str:
    """In the canonical form of the API, which sorts as text; else empty."""
    written = entry.get("time")
    return written if isinstance(written, str) and _WRITTEN.fullmatch(written) else ""


def _provider(written: str, catalog: Catalog, where: str) -> str:
    known = catalog.normalise(written)
    if written and known is None:
        raise Malformed(f"{where} names {quoted(written)}, which is not a known provider: correct it, or add it to providers")
    return known or ""


def _mode(written: str, where: str) -> Mode | None:
    if not written:
        return None
    if written not in _MODES:
        raise Malformed(f"{where} annotation {MODE} is {quoted(written)}: write one of {', '.join(_MODES)}")
    return Mode(written)


def _instant(written: str, where: str) -> float | None:
    if not written:
        return None
    try:
        if _INSTANT.fullmatch(written):
            return (datetime.fromisoformat(written.upper()) - datetime.fromtimestamp(0, UTC)).total_seconds()
    except (ValueError, OverflowError):
        pass
    raise Malformed(
        f"{where} annotation {EXPIRES_AT} is {quoted(written)}: write an instant with its offset, as 2027-01-01T00:00:00Z"
    )
