"""Names that look like those of credentials, and that no provider has: they are not used, and that is said."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

from broker.domain.discovery import Rules
from broker.domain.hygiene import is_misplaced_key
from broker.domain.material import Fault
from broker.domain.provider import Catalog

_CREDENTIAL: Final = re.compile(r"([a-z][a-z0-9_.-]{0,80}?)[_-](api[_-]?keys?|token)", re.IGNORECASE)
_ENDINGS: Final = ("key", "keys", "token")
_NEAR: Final = 0.84
_SHOWN: Final = 20


def unknown_names(names: Iterable[str], rules: Rules, *, kind: str, unit: str = "") -> list[str]:
    """Those names of a bundle's values that look like credentials' and could make no profile; of many only some."""
    unused = (name for name in names if _looks_like_one(name) and not rules.wants(name, kind=kind, unit=unit))
    return sorted(islice(unused, _SHOWN))


def notes(names: Iterable[str], catalog: Catalog, *, where: Callable[[str], str]) -> tuple[Fault, ...]:
    """What to say of such names: that they are not used, and the nearest variable, or how their provider is declared."""
    return tuple(Fault(where(name), f"{where(name)} is not used: {_advice(name, catalog)}") for name in names)


def _looks_like_one(name: str) -> bool:
    return name.lower().endswith(_ENDINGS) and _CREDENTIAL.fullmatch(name) is not None and not is_misplaced_key(name)


def _advice(name: str, catalog: Catalog) -> str:
    owners = {env.name: provider.id for provider in catalog.providers.values() for env in provider.env_names}
    near = get_close_matches(name.upper().replace("-", "_"), owners, n=1, cutoff=_NEAR)
    if near:
        return f"no provider has a variable of this name; did you mean {near[0]} ({owners[near[0]]})?"
    found = _CREDENTIAL.fullmatch(name)
    stem, kind = (found[1], found[2]) if found else (name, "")
    provider = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "name"
    mode = "token" if kind.lower() == "token" else "api_key"
    return (
        "no provider has a variable of this name. To lend it to agents, declare its provider: providers:"
        f" {{{provider}: {{base_url: https://…, env: {{{name}: {mode}}}}}}}"
    )
