"""What commands know about providers: their names, their variables, and the prefixes of their credentials."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """A provider, as far as it concerns the environment of a command.

    People keep its credentials in the variables `env_names` and `list_env_names`. Its SDKs read `sdk_env_names`, of which
    `key_env` is the first for an API key and `token_env` the first for a bearer token. Other tools read `other_env`, and a
    workload's identity is in `exchange_env`. `base_url_env` is the variable for the address that its SDK reads, empty if no
    such variable is known; `address_env` is the one to set. `prefixes` begin its credentials. `speaks` names the SDK that can
    be pointed at it; it may be empty.
    """

    id: str
    aliases: tuple[str, ...] = ()
    env_names: tuple[str, ...] = ()
    list_env_names: tuple[str, ...] = ()
    sdk_env_names: tuple[str, ...] = ()
    key_env: str = ""
    token_env: str = ""
    other_env: tuple[str, ...] = ()
    exchange_env: tuple[str, ...] = ()
    base_url_env: str = ""
    address_env: str = ""
    prefixes: tuple[str, ...] = ()
    speaks: str = ""


class KnownProviders:
    """Providers by id and by alias."""

    def __init__(self, providers: Iterable[KnownProvider]) -> None:
        self._by_id = {provider.id: provider for provider in providers}
        self._by_name = {name: provider for provider in self._by_id.values() for name in (provider.id, *provider.aliases)}

    def __iter__(self) -> Iterator[KnownProvider]:
        return iter(self._by_id.values())

    def get(self, name: str) -> KnownProvider | None:
        """The provider of that id or alias, in any case; None if it is not known."""
        return self._by_name.get(name) or self._by_name.get(name.strip().lower())

    def names(self) -> Iterable[str]:
        """Every id and every alias."""
        return self._by_name.keys()
