"""Ports for the processes that tests start."""

import os
import random
import socket
from typing import Final

_FIRST, _LAST = 12_000, 32_000
"""Below what kernels give to outgoing connections (`ip_local_port_range`), which take a port of that range at any time."""
_WORKERS: Final = 16
_given: Final[set[int]] = set()


def free_port() -> int:
    """A TCP port on which no process listens now, and which no other worker of pytest-xdist takes."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        port = random.randrange(_FIRST + worker, _LAST, _WORKERS)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        if port not in _given:  # who asked for it may not listen yet
            _given.add(port)
            return port
