"""Which proxy a request goes through, as the usual variables say: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

Names of variables count in lower case first, and an empty one says nothing. An entry of `NO_PROXY` is a domain with what is
below it, an address, a network of either family, each with a port or without, or `*`: what curl and Go's programs take.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

_SCHEMES: Final = ("http", "https")
_SOCKS: Final = re.compile(r"socks[45]?[ah]?")
_ENTRY: Final = re.compile(r"(?:\[(?P<literal>[^\[\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_DOMAIN: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_PLAIN: Final = re.compile(r"[\x21-\x7e]+")
_PROXY_REMEDY: Final = "write http://HOST:PORT"
_SOCKS_REMEDY: Final = "name a proxy of HTTP there, or in HTTPS_PROXY, which goes first; or name the hosts in NO_PROXY"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy by the variable that names it. Its URL may hold a password. `fault`, if any: why it cannot be used, and what to
    do."""

    variable: str
    url: str = field(repr=False)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Exempt:
    """An entry of `NO_PROXY`: a domain (empty: every host) or a network."""

    domain: str = ""
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def covers(self, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return not self.domain or host == self.domain or (address is None and host.endswith(f".{self.domain}"))


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies by the scheme of a request. `misread` counts entries of `NO_PROXY` that make no sense, which count for
    nothing."""

    by_scheme: Mapping[str, Proxy]
    exempt: tuple[_Exempt, ...] = ()
    misread: int = 0

    def of(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """The proxy for a request; None: it goes straight there."""
        host = host.strip("[]").rstrip(".").lower()
        address = _address(host)
        number = port or (80 if scheme == "http" else 443)
        covered = any(entry.covers(host, address, number) for entry in self.exempt)
        return None if covered else self.by_scheme.get(scheme)

    def faults(self) -> Iterator[tuple[str, str]]:
        """The variables that cannot be used, and why, with what to do."""
        yield from dict.fromkeys((proxy.variable, proxy.fault) for proxy in self.by_scheme.values() if proxy.fault)
        if self.misread:
            why = "is not a domain, address or network, and is ignored"
            yield "NO_PROXY", f"an entry {why}: correct it" if self.misread == 1 else f"{self.misread} entries: each {why}"


def proxies(environ: Mapping[str, str]) -> Proxies:
    """What the variables say."""
    found = {}
    for scheme in _SCHEMES:
        for name in (f"{scheme}_proxy", "all_proxy"):
            variable, value = _read(environ, name)
            if value:
                found[scheme] = _proxy(variable, value)
                break
    entries = [entry for entry in re.split(r"[,\s]+", _read(environ, "no_proxy")[1].lower()) if entry]
    exempt = [_exempt(entry) for entry in entries]
    read = tuple(entry for entry in exempt if entry is not None)
    return Proxies(found, read, len(exempt) - len(read))


def _read(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    variable = name if name in environ else name.upper()
    return variable, environ.get(variable, "").strip()


def _proxy(variable: str, value: str) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    scheme = url.partition("://")[0].lower()
    if _SOCKS.fullmatch(scheme):
        return Proxy(variable, url, f"names a SOCKS proxy, which the broker cannot use: {_SOCKS_REMEDY}")
    try:
        parts = urlsplit(url)
        sound = scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0 and _PLAIN.fullmatch(url) is not None
    except ValueError:
        sound = False
    return Proxy(variable, url, "" if sound else f"is not the URL of a proxy: {_PROXY_REMEDY}")


def _exempt(entry: str) -> _Exempt | None:
    entry = entry.partition("://")[2] or entry
    if entry == "*":
        return _Exempt()
    if (network := _network(entry)) is not None:
        return _Exempt(network=network)
    found = _ENTRY.fullmatch(entry)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if (network := _network(found["literal"] or found["plain"])) is not None:
        return _Exempt(network=network, port=port)
    domain = (found["plain"] or "").removeprefix("*").strip(".")
    return _Exempt(domain, port=port) if _DOMAIN.fullmatch(domain) else None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    head, slash, bits = text.partition("/")
    try:
        return ip_network(f"{head.strip('[]').partition('%')[0]}{slash}{bits}", strict=False)
    except ValueError:
        return None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
