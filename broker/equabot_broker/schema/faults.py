"""What is wrong with a configuration: where, what, what to do. Never a byte of a secret."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from equabot_broker.providers import PROVIDERS

_SHOWN_MAX: Final = 40
_CREDENTIAL_MIN: Final = 16
_WORDS: Final = re.compile(r"[\s=:;,'\"]+")
_OPAQUE: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_+=-]{16,}")
_COMMON_PREFIXES: Final = ("sk-", "sk_", "pk-", "ghp_", "gho_", "github_pat_", "xox", "hf_", "eyJ", "Bearer", "bearer")


class ValueRefused(ValueError):
    """A value that cannot be used. The message says what is wrong and what to do; it never holds a secret."""


class Noted(ValueRefused):
    """The same, where all that is wrong with it has been noted already: with a part of it."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing wrong. `where` is `file:line`, a file, or the variable or flag it came from; `path` the key, as
    `agents.main.max_ttl`, or empty."""

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class ConfigurationFaults(Exception):
    """A configuration that is refused, whole. `str` is every fault on a line of its own. `file` is
    the file that was read; empty where there was none."""

    def __init__(self, faults: Iterable[ConfigFault], *, file: str = "") -> None:
        self.faults = tuple(faults)
        self.file = file
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


def looks_secret(text: str) -> bool:
    """Whether the text might be a credential, so that no message may quote it. Rather too often than too rarely."""
    if len(text) > _SHOWN_MAX:
        return True
    vendors = (prefix for known in PROVIDERS.values() for prefix in (*known.key_prefixes, *known.token_prefixes))
    prefixes = (*_COMMON_PREFIXES, *vendors)
    return any(word.startswith(prefixes) or _OPAQUE.fullmatch(word) for word in _WORDS.split(text))


def is_credential(text: str) -> bool:
    """Whether the text begins as a vendor's credentials do and is long enough to be one. Rather too rarely than too often."""
    vendors = (prefix for known in PROVIDERS.values() for prefix in (*known.key_prefixes, *known.token_prefixes))
    return len(text) >= _CREDENTIAL_MIN and text.startswith((*_COMMON_PREFIXES, *vendors))


def quote(text: str) -> str:
    """The text for a message: quoted, or only described when it might be a credential."""
    return f"a value of {len(text)} characters (not shown)" if looks_secret(text) else repr(text)
