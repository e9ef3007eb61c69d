"""Names that look like those of credentials, and that no provider has: they are not used, and that is said."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.masking import is_misplaced_key
from equabot_broker.domain.material import SourceFault
from equabot_broker.domain.provider import Catalog, Mode

_CREDENTIAL: Final = re.compile(r"([a-z][a-z0-9_.-]{0,80}?)[_-](api[_-]?keys?|token)", re.IGNORECASE)
_ENDINGS: Final = ("key", "keys", "token", "secret")
_SHORT: Final = re.compile(
    r"(?P<stem>[a-z][a-z0-9_.-]{0,80}?)[_.-]?(?:api|secret|access|auth)?[_.-]?(?:keys?|token|secret)", re.IGNORECASE
)
"""What people call a key: `ANTHROPIC_KEY`, `OPENAI_SECRET`, `GeminiApiKey`."""
_NAMES: Final = ("{}_API_KEY", "{}_TOKEN", "{}_API_TOKEN")
_KEY_LENGTH: Final = 16
_BEGINNING: Final = 3
_NEAR: Final = 0.84
_SHOWN: Final = 20


def unknown_names(names: Iterable[str], rules: DiscoveryRules, *, kind: str, unit: str = "") -> list[str]:
    """Those names of a bundle's values that look like credentials' and could make no profile; of many only some."""
    unused = (name for name in names if _looks_like_one(name) and not rules.wants(name, kind=kind, unit=unit))
    return sorted(islice(unused, _SHOWN))


def notes(names: Iterable[str], catalog: Catalog, *, where: Callable[[str], str]) -> tuple[SourceFault, ...]:
    """What to say of such names: that they are not used, and the nearest variable, or how their provider is declared."""
    return tuple(SourceFault(where(name), f"{where(name)} is not used: {_advice(name, catalog)}") for name in names)


def misnamed(
    values: Mapping[str, str], rules: DiscoveryRules, *, kind: str, where: Callable[[str], str]
) -> tuple[SourceFault, ...]:
    """What to say of other names that mean a credential all the same: another word for a provider's variable, or a value that
    begins as a vendor's keys do. No byte of a value is in it."""
    found = []
    for name, value in values.items():
        if _looks_like_one(name) or is_misplaced_key(name) or rules.wants(name, kind=kind):
            continue
        if meant := _another_word(name, rules) or _begins(value, rules.catalog):
            found.append(SourceFault(where(name), f"{where(name)} is not used: {meant}"))
    return tuple(found[:_SHOWN])


def _another_word(name: str, rules: DiscoveryRules) -> str:
    short = _SHORT.fullmatch(name)
    if short is None:
        return ""
    owners = {env.name: provider.id for provider in rules.catalog.providers.values() for env in provider.env_names}
    stem = re.sub(r"[.-]", "_", short["stem"].upper())
    meant = next((known for form in _NAMES if (known := form.format(stem)) in owners), "")
    return f"no provider has a variable of this name; did you mean {meant} ({owners[meant]})?" if meant else ""


def _begins(value: str, catalog: Catalog) -> str:
    """Which vendor's keys the value begins like, by the longest beginning that is known."""
    if len(value) < _KEY_LENGTH:
        return ""
    known = [
        (len(begin), provider.id, mode)
        for provider in catalog.providers.values()
        for mode, begins in ((Mode.API_KEY, provider.key_prefixes), (Mode.TOKEN, provider.token_prefixes))
        for begin in begins
        if len(begin) >= _BEGINNING and value.startswith(begin)
    ]
    longest = max(known, default=None)
    if longest is None:
        return ""
    owners = {owner for length, owner, _ in known if length == longest[0]}
    if len(owners) > 1:
        return "its value begins like a vendor's key; give it the name of that provider's variable"
    _, owner, mode = longest
    names = catalog.providers[owner].env_names
    name = next((env.name for env in names if env.mode is mode), names[0].name if names else "")
    return f"its value begins like a credential of {owner}; name it {name}" if name else ""


def _looks_like_one(name: str) -> bool:
    if not name.lower().endswith(_ENDINGS) or is_misplaced_key(name):
        return False
    return _CREDENTIAL.fullmatch(name) is not None


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
