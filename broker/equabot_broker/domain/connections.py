"""Which connections a listener keeps when there are too many: pure bookkeeping, no socket.

Every connection counts for its peer: an IPv4 address or an IPv6 /64, of which one host usually has all. A new connection is
always accepted. Where it is one too many, the connection that was silent for longest ends: one of the same peer where that
peer has its full share, else one of the peer that has most. So a peer that fills a listener ends its own connections, and a
probe from elsewhere is served.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final

_SHARED_BITS: Final = 64
"""Bits of an IPv6 address below its network: a host chooses them freely."""


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
        """Counts a new connection from an IP address. Returns the connection that has to end for it, which is forgotten."""
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
        """Forgets a connection that has ended. May be called again."""
        peer = self._peer_of.pop(connection, None)
        if peer is not None:
            del self._peers[peer][connection]
            if not self._peers[peer]:
                del self._peers[peer]

    def _quietest(self, peer: str) -> Hashable:
        return next(iter(self._peers[peer]))


def peer_of(address: str) -> str:
    """What the connections of an address count for. Text that is not an address counts for itself."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> _SHARED_BITS << _SHARED_BITS))
