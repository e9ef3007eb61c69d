"""What a Kubernetes Secret says of its credentials in annotations."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from broker.domain.auth_document import Malformed
from broker.domain.discovery import NOTHING, Said, safe_name
from broker.domain.hygiene import quoted
from broker.domain.provider import Catalog, Mode

PROVIDER: Final = "equabot.dev/provider"
PROFILE: Final = "equabot.dev/profile"
MODE: Final = "equabot.dev/mode"
EXPIRES_AT: Final = "equabot.dev/expires-at"

# What a Secret holds can be no workload's identity.
_MODES: Final = (Mode.API_KEY, Mode.TOKEN, Mode.OAUTH)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def read_annotations(annotations: Mapping[str, str], *, catalog: Catalog, where: str) -> Said:
    """What they say. A profile's id names its provider as well.

    Raises Malformed for what cannot be understood or contradicts itself: whoever wrote it meant something else to happen.
    """
    told = {key: annotations[key].strip() for key in (PROVIDER, PROFILE, MODE, EXPIRES_AT) if annotations.get(key, "").strip()}
    if not told:
        return NOTHING
    owner, colon, name = told.get(PROFILE, "").rpartition(":")
    provider = _provider(told.get(PROVIDER, ""), catalog, f"{where} annotation {PROVIDER}")
    meant = _provider(owner, catalog, f"{where} annotation {PROFILE}")
    if (colon and not owner) or name != safe_name(name) or (PROFILE in told and not name):
        raise Malformed(f"{where} annotation {PROFILE} is {quoted(told[PROFILE])}: write a name, or provider:name")
    if provider and meant and provider != meant:
        raise Malformed(
            f"{where} says that it is {provider}'s, and that it is a profile of {meant}: correct one of the annotations"
        )
    return Said(
        provider=provider or meant,
        name=name,
        mode=_mode(told.get(MODE, ""), where),
        expires_at=_instant(told.get(EXPIRES_AT, ""), where),
    )


def _provider(written: str, catalog: Catalog, where: str) -> str:
    known = catalog.normalise(written)
    if written and known is None:
        raise Malformed(f"{where} names {quoted(written)}, which is no known provider: correct it, or add it to providers")
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
