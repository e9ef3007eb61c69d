"""`equabot serve` whose ports throw while the file `throw` in its home names them: each time another exception, which says
something that must not be seen anywhere.

Run as a program. `CANARY` in its environment is what the exceptions say.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any

from equabot_broker.bootstrap import serve
from equabot_broker.engine.expiry import Expiry
from equabot_broker.rpc.convert import LeaseMessages
from equabot_broker.sources.dotenv import Dotenv
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.state import SqliteStateStore
from equabot_broker.telemetry import _audit_writer
from equabot_broker.telemetry.metrics import Metrics
from equabot_broker.upstream import token_endpoint
from equabot_broker.upstream.probe import HttpProbes
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint
from equabot_cli.main import main

PORTS: Mapping[str, tuple[Any, str]] = {
    "source": (Dotenv, "_read"),
    "unit": (AuthProfiles, "inspect"),
    "endpoint": (HttpTokenEndpoint, "ask"),
    "client": (token_endpoint, "client"),
    "store": (AuthProfiles, "lock"),
    "probe": (HttpProbes, "probe"),
    "judgement": (HttpProbes, "possible"),
    "state": (SqliteStateStore, "_moment"),
    "audit": (_audit_writer, "seal"),
    "metrics": (Metrics, "record"),
    "log": (serve, "log_event"),
    "listener": (LeaseMessages, "forget"),
    "task": (Expiry, "turn"),
}
"""Where the broker meets what is not its own, and the function that throws there."""


def foreign(said: str) -> Iterator[Exception]:
    """Exceptions that are none of ours."""
    yield PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    yield from cycle(
        (
            OSError(said),
            ValueError(said),
            ExceptionGroup(said, [KeyError(said), OSError(errno.EIO, os.strerror(errno.EIO))]),
            RecursionError(said),
            UnicodeDecodeError("utf-8", said.encode(), 0, 1, said),
            UnicodeEncodeError("ascii", said, 0, 1, said),
            ImportError(said),
            MemoryError(said),
            AssertionError(said),
            StopIteration(said),
        )
    )


def throwing(port: str, function: Callable[..., Any], kinds: Iterator[Exception]) -> Callable[..., Any]:
    """The function, which throws while its port is named."""
    file = Path(os.environ["EQUABOT_HOME"]) / "throw"

    @wraps(function)
    def thrown(*args: Any, **kwargs: Any) -> Any:
        if file.exists() and port in file.read_text().split():
            raise next(kinds)
        return function(*args, **kwargs)

    return thrown


if __name__ == "__main__":
    for name, (owner, function) in PORTS.items():
        exceptions = foreign(os.environ["CANARY"])
        if name == "audit":
            next(exceptions)  # a log that may not be written keeps a broker from starting, as its configuration is wrong
        setattr(owner, function, throwing(name, getattr(owner, function), exceptions))
    sys.exit(main(["serve", *sys.argv[1:]]))
