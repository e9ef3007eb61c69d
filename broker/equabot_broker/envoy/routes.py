"""The routes of the gateway: one per provider, derived from the provider's address."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from equabot_broker.domain.provider import Provider

_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Upstream:
    """The address of a vendor. `names` are the first path segments that lead to it. `private` is whether it may be on this
    machine or in a private network. `address` is the whole address as configured."""

    provider: str
    host: str
    port: int
    tls: bool
    names: tuple[str, ...] = ()
    private: bool = False
    address: str = field(default="", compare=False)

    @property
    def authority(self) -> str:
        """The value of the host header."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["https" if self.tls else "http"]
        return shown if self.port == usual else f"{shown}:{self.port}"


def upstreams(providers: Iterable[Provider], *, vendor_urls: Mapping[str, str]) -> tuple[Upstream, ...]:
    """The providers that the gateway serves, by id. Only an address from the configuration that differs from the vendor's own
    may be in a private network: a vendor's own name must not resolve to one."""
    made = (_upstream(provider, private=provider.base_url != vendor_urls.get(provider.id)) for provider in providers)
    return tuple(sorted((one for one in made if one is not None), key=lambda one: one.provider))


def _upstream(provider: Provider, *, private: bool) -> Upstream | None:
    url = urlsplit(provider.base_url)
    if provider.gateway_fault or not url.hostname or url.scheme not in _PORTS:
        return None
    port = url.port or _PORTS[url.scheme]
    tls = url.scheme == "https"
    return Upstream(provider.id, url.hostname, port, tls, provider.names, private, provider.base_url)
