"""Chooses the connections that a listener keeps when there are too many. It does no I/O.

Every connection counts for its peer: an IPv4 address, or an IPv6 /64, which one host usually has for itself. A new connection
is always accepted. Above a limit, the connection that was idle for longest is closed: a connection of the same peer if that
peer has reached its limit, otherwise one of the peer with the most connections. A peer that fills a listener thus closes its
own connections, and the probe of another peer is served.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final

_SHARED_BITS: Final = 64
"""The bits of an IPv6 address that a host chooses freely."""


class ConnectionTable:
    """The connections of one listener, by peer."""

    def __init__(self, *, most: int, most_per_peer: int) -> None:
        self._most = most
        self._most_per_peer = most_per_peer
        self._peers: dict[str, OrderedDict[Hashable, None]] = {}
        self._peer_of: dict[Hashable, str] = {}

    def __len__(self) -> int:
        return len(self._peer_of)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._peer_of))

    def add(self, connection: Hashable, address: str) -> Hashable | None:
        """Adds a connection from an IP address. Returns the connection to close for it, which it removes, or None."""
        peer = peer_of(address)
        mine = self._peers.get(peer, ())
        ended = None
        if len(mine) >= self._most_per_peer:
            ended = self._quietest(peer)
        elif len(self._peer_of) >= self._most:
            ended = self._quietest(max(self._peers, key=lambda peer: len(self._peers[peer])))
        if ended is not None:
            self.remove(ended)
        self._peers.setdefault(peer, OrderedDict())[connection] = None
        self._peer_of[connection] = peer
        return ended

    def touch(self, connection: Hashable) -> None:
        """Notes that the peer has sent something."""
        peer = self._peer_of.get(connection)
        if peer is not None:
            self._peers[peer].move_to_end(connection)

    def remove(self, connection: Hashable) -> None:
        """Removes a connection that has ended. Can be called again."""
        peer = self._peer_of.pop(connection, None)
        if peer is not None:
            del self._peers[peer][connection]
            if not self._peers[peer]:
                del self._peers[peer]

    def _quietest(self, peer: str) -> Hashable:
        return next(iter(self._peers[peer]))


def peer_of(address: str) -> str:
    """The peer for which the connections of an address count. A text that is not an address is a peer of its own."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> _SHARED_BITS << _SHARED_BITS))
