"""Why no broker answers a command, and what to do about it: shortly, and for the user who types."""

import errno
import os
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli.arguments import configuration
from broker.cli.exits import Failure
from broker.cli.surroundings import environment

if TYPE_CHECKING:
    from broker.config.model import Config

_OWN_PORTS = "EQUABOT_LISTEN_HEALTH=127.0.0.1:8687 EQUABOT_LISTEN_METRICS=127.0.0.1:9465 equabot serve"
_KNOWN = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


def absence(address: str, args: Namespace, *, said: str) -> str:
    """Why there is no broker at the address, and the step to take. `said` is what the client library says of it."""
    if not address.startswith("unix:"):
        return said
    socket = Path(address.removeprefix("unix:"))
    if closed := closed_to(socket):
        return closed
    if not any(os.strerror(number) in said for number in _KNOWN):
        return said
    if unknown := _unknown_agent(args, socket):
        return unknown
    if environment().get("EQUABOT_BROKER_ADDRESS"):
        return f"no broker answers at {address}: is one running, and is its socket mounted here?"
    return f"no broker answers at {address}: start one with `equabot serve`"


def closed_to(socket: Path) -> str:
    """Whether a broker of another user is there, and what its user and this one can do. Empty: there is none that is seen."""
    step = _closed_step(socket)
    if step is None:
        return ""
    owner = _owner(step)
    if owner == os.geteuid():
        return f"{socket} cannot be opened, because {step} is closed to its own user: chmod u+rwx {step}"
    do = f"use it as that user (sudo -u '#{owner}' equabot …)" if owner is not None else "use it as its user"
    return (
        f"{socket} is a broker's of another user, which user {os.geteuid()} may not open: {do}, as an agent in the group of its"
        f" socket's directory, or start your own on other ports: `{_OWN_PORTS}`"
    )


def _closed_step(socket: Path) -> Path | None:
    """The directory on the way that this user may not enter, or the socket that it may not write to."""
    for step in (*reversed(socket.parents), socket):
        try:
            step.stat()
        except PermissionError:
            return step.parent
        except OSError:
            return None
    return None if os.access(socket, os.W_OK) else socket


def _owner(step: Path) -> int | None:
    try:
        return step.stat().st_uid
    except OSError:
        return None


def _unknown_agent(args: Namespace, socket: Path) -> str:
    """An agent that is named and not configured has no socket, whether or not a broker runs."""
    agent = getattr(args, "agent", None)
    config: Config | None = None
    with suppress(Failure):
        config = configuration(args)
    if not agent or config is None or agent in config.policies.agents:
        return ""
    known = ", ".join(config.policies.agents)
    file = config.file or config.home / "equabot.yaml"
    return f"agent {agent!r} is not configured, so there is no {socket}: add it to agents in {file} (known: {known})"
