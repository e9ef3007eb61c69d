"""Where the gateway sends what it lets pass: one route a provider, made of the address that the provider has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from equabot_broker.domain.provider import Provider

_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Upstream:
    """A vendor's address. `names` are those by which paths of the gateway begin with it; `private` is whether it may be an
    address of this machine or of a private network; `address` is all of it, as it is configured."""

    provider: str
    host: str
    port: int
    tls: bool
    names: tuple[str, ...] = ()
    private: bool = False
    address: str = field(default="", compare=False)

    @property
    def authority(self) -> str:
        """The address as a request names it."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["https" if self.tls else "http"]
        return shown if self.port == usual else f"{shown}:{self.port}"


def upstreams(providers: Iterable[Provider], *, vendor_urls: Mapping[str, str]) -> tuple[Upstream, ...]:
    """The providers that the gateway serves, by id. Only one that the configuration gave, so that it differs from the vendor's
    own, may lie in a private network: who resolves a vendor's name to such an address is no vendor."""
    made = (_upstream(provider, private=provider.base_url != vendor_urls.get(provider.id)) for provider in providers)
    return tuple(sorted((one for one in made if one is not None), key=lambda one: one.provider))


def _upstream(provider: Provider, *, private: bool) -> Upstream | None:
    url = urlsplit(provider.base_url)
    if provider.gateway_fault or not url.hostname or url.scheme not in _PORTS:
        return None
    port = url.port or _PORTS[url.scheme]
    tls = url.scheme == "https"
    return Upstream(provider.id, url.hostname, port, tls, provider.names, private, provider.base_url)
