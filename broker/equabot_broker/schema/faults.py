"""Faults of a configuration: where each is, what is wrong, and what to do. A fault never holds a byte of a secret."""

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
    """A value that cannot be used. The message says what is wrong and what to do, and never holds a secret."""


class Noted(ValueRefused):
    """A value that cannot be used because of its parts. The report already has the faults of these parts."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault. `where` is `file:line`, a file, a variable or a flag. `path` is the key, such as `agents.main.max_ttl`, or
    empty."""

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class ConfigurationFaults(Exception):
    """The whole configuration is refused. `str` has one line per fault. `file` is the file that was read; empty if no file
    was read."""

    def __init__(self, faults: Iterable[ConfigFault], *, file: str = "") -> None:
        self.faults = tuple(faults)
        self.file = file
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


def looks_secret(text: str) -> bool:
    """Whether the text may be a credential, so that no message may quote it. In doubt, it is one."""
    if len(text) > _SHOWN_MAX:
        return True
    vendors = (prefix for known in PROVIDERS.values() for prefix in (*known.key_prefixes, *known.token_prefixes))
    prefixes = (*_COMMON_PREFIXES, *vendors)
    return any(word.startswith(prefixes) or _OPAQUE.fullmatch(word) for word in _WORDS.split(text))


def is_credential(text: str) -> bool:
    """Whether the text begins like a vendor's credential and is long enough to be one. In doubt, it is not one."""
    vendors = (prefix for known in PROVIDERS.values() for prefix in (*known.key_prefixes, *known.token_prefixes))
    return len(text) >= _CREDENTIAL_MIN and text.startswith((*_COMMON_PREFIXES, *vendors))


def quote(text: str) -> str:
    """The text in quotes, for a message. Text that may be a credential is only described."""
    return f"a value of {len(text)} characters (not shown)" if looks_secret(text) else repr(text)
