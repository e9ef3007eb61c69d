"""What the environment of a command may hold, so that its leases are the only credentials of known providers in it.

Three things make a variable a provider's: its name is in the catalog or extends one that is; its name begins as the
provider's variables do and has a word for a credential in it; or its value has a key of the provider in it, whatever its name.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from equabot_cli.known_providers import KnownProvider, KnownProviders

_END: Final = re.compile(r"_(?:API_KEYS?|OAUTH_TOKEN|AUTH_TOKEN|TOKEN|KEY|BASE_URL|ENDPOINT)$")
_WORDS: Final = frozenset(
    """AUTH AUTHORIZATION COOKIE CREDENTIAL CREDENTIALS ENDPOINT HEADERS JWT KEY KEYS PASS PASSWD PASSWORD PAT SECRET SECRETS
    TOKEN""".split()  # noqa: SIM905 - thirty quotes hide the words
)
_ADDRESSES: Final = ("BASE_URL", "API_BASE", "API_HOST")
_OWN: Final = "EQUABOT_"
_NEEDED: Final = frozenset({"HOME", "LANG", "PATH", "PWD", "SHELL", "TERM", "USER"})
"""Handed on whatever is in them."""
_STRIPES: Final = "sk_"
"""With a word after it (`sk_live_`) it begins a key of another service than a provider."""
_MANYS: Final = ("sk-", _STRIPES)
"""What keys of many providers begin with."""
# A short prefix (`hf_`) may begin a word of ordinary text: what follows has to look like no word at all.
_LONG: Final = 6
_GOES_ON: Final = 16
_LIKE_NO_WORD: Final = re.compile(r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{12}")


@dataclass(frozen=True, slots=True)
class Screened:
    """An environment without credentials of known providers. `unnamed` are variables that no provider is known to have: their
    form or their value took them out."""

    kept: Mapping[str, str]
    unnamed: tuple[str, ...] = ()


def screened(environ: Mapping[str, str], known: KnownProviders, *, bound: Collection[str] = ()) -> Screened:
    """The environment for a command whose leases are all brokered. `bound` are the variables from which the configuration takes
    profiles. What leads to the broker's own files and to another identity goes as well."""
    providers = tuple(known)
    named = _Names(providers, addresses=True)
    stems = _stems(providers)
    others = {name.upper() for provider in providers for name in provider.other_env}
    keys = _key_pattern(providers)
    kept: dict[str, str] = {}
    unnamed: list[str] = []
    for name, value in environ.items():
        upper = name.upper()
        if upper in named or name in bound or upper.startswith(_OWN):
            continue
        if upper in others or _is_credential(upper, stems) or (upper not in _NEEDED and _holds_key(value, keys)):
            unnamed.append(name)
        else:
            kept[name] = value
    return Screened(kept, tuple(sorted(unnamed)))


def without_credentials(environ: Mapping[str, str], providers: Iterable[KnownProvider]) -> dict[str, str]:
    """The environment without what the providers' SDKs and tools would use next to a leased credential, or before it. Addresses
    stay."""
    known = tuple(providers)
    named = _Names(known, addresses=False)
    others = {name.upper() for provider in known for name in provider.other_env}
    return {name: value for name, value in environ.items() if name.upper() not in named and name.upper() not in others}


class _Names:
    """The variables of providers: `name in names`, in upper case."""

    def __init__(self, providers: Iterable[KnownProvider], *, addresses: bool) -> None:
        self._exact: set[str] = set()
        self._begin: tuple[str, ...] = ()
        for provider in providers:
            names = {*provider.env_names, *provider.list_env_names, *provider.sdk_env_names}
            self._begin += tuple(f"{name.upper()}_" for name in names if name.upper().endswith(("_API_KEY", "_TOKEN")))
            names |= set(provider.exchange_env)
            names |= {provider.base_url_env, provider.address_env} if addresses else set()
            self._exact |= {name.upper() for name in names if name}

    def __contains__(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._begin)


def _stems(providers: Iterable[KnownProvider]) -> tuple[str, ...]:
    """How the variables of the providers begin: `OPENAI_` for `OPENAI_API_KEY`."""
    return tuple(
        sorted({f"{_END.sub('', name)}_" for provider in providers for name in _written(provider) if _END.search(name)})
    )


def _written(provider: KnownProvider) -> Iterator[str]:
    yield from (name.upper() for name in provider.env_names)
    yield provider.base_url_env.upper()


def _is_credential(name: str, stems: tuple[str, ...]) -> bool:
    stem = next((stem for stem in stems if name.startswith(stem)), "")
    rest = name.removeprefix(stem)
    return bool(stem) and (not _WORDS.isdisjoint(rest.split("_")) or any(address in rest for address in _ADDRESSES))


def _key_pattern(providers: Iterable[KnownProvider]) -> re.Pattern[str]:
    """What may be a key of a provider, anywhere in a text: its prefix, and how it goes on."""
    prefixes = {prefix for provider in providers for prefix in provider.prefixes if prefix}
    longest_first = sorted(prefixes | set(_MANYS), key=lambda prefix: (-len(prefix), prefix))
    # One key may begin within what another prefix begins, so each place is looked at; an escape (`\n`, `%3D`) may go before it.
    begins = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2}))"
    return re.compile(rf"{begins}(?=({'|'.join(map(re.escape, longest_first))})([A-Za-z0-9_-]{{1,48}}))")


def _holds_key(value: str, keys: re.Pattern[str]) -> bool:
    return any(_goes_on_like_a_key(prefix, rest) for prefix, rest in keys.findall(value))


def _goes_on_like_a_key(prefix: str, rest: str) -> bool:
    if prefix == _STRIPES:
        return _LIKE_NO_WORD.match(rest) is not None
    return (len(prefix) >= _LONG and len(rest) >= _GOES_ON) or _LIKE_NO_WORD.search(rest) is not None
