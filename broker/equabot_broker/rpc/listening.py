"""Creates the sockets of listeners."""

import errno
import socket
from pathlib import Path
from typing import Any, Final

from equabot_broker.domain.errors import CannotStart

BACKLOG: Final = 128
_EVERY_INTERFACE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


class CannotListen(CannotStart):
    """An address cannot be used: which one, and what to do."""


def bound_at(path: Path) -> list[socket.socket]:
    """A listening socket at a path. Raises CannotListen."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise cannot_listen(f"unix:{path}") from None
    return [bound]


def bound_on(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on all addresses of the host; for the wildcard address, on every interface of both families. Raises
    CannotListen."""
    # The kernel may support IPv6 while the container's network does not: only the bind shows it.
    hosts = ("::", "0.0.0.0") if host in _EVERY_INTERFACE and socket.has_dualstack_ipv6() else (host,)  # noqa: S104
    for each in hosts:
        try:
            return _bound(each, port, dual=each != host or host == "::")
        except (OSError, OverflowError) as error:
            if each == hosts[-1] or getattr(error, "errno", 0) == errno.EADDRINUSE:
                break
    raise cannot_listen(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _bound(host: str, port: int, *, dual: bool) -> list[socket.socket]:
    """`dual`: an IPv6 socket that also accepts IPv4. Raises OSError and OverflowError."""
    found: list[socket.socket] = []
    try:
        for family, kind, _, _, address in _addresses(host, port):
            found.append(socket.socket(family, kind))
            found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                found[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
            found[-1].bind(address)
            found[-1].listen(BACKLOG)
    except (OSError, OverflowError):
        for bound in found:
            bound.close()
        raise
    return found


def _addresses(host: str, port: int) -> list[Any]:
    """The addresses of a host name; for `localhost`, those that this machine has."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(found))


def cannot_listen(address: str) -> CannotListen:
    """The error for an address."""
    return CannotListen(
        f"cannot listen on {address}: it is in use, forbidden or not an address of this machine; free it or set another"
    )
