"""Why no broker answers a command, and what to do about it: shortly, and for the user who types."""

import os
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from equabot_broker.cli.arguments import configuration
from equabot_broker.cli.exits import Exit, Failure
from equabot_broker.cli.surroundings import environment
from equabot_broker.domain.known_names import no_agent
from equabot_broker.domain.policies import MAIN
from equabot_broker.files.ownership import owner_of

if TYPE_CHECKING:
    from equabot_broker.config.model import Config

_OWN_PORTS = "EQUABOT_LISTEN_HEALTH=127.0.0.1:8687 EQUABOT_LISTEN_METRICS=127.0.0.1:9465 equabot serve"
_LOCAL = ("unix:", "127.", "localhost:", "[::1]:")


def absence(address: str, args: Namespace, *, remedy: str) -> Failure:
    """Why no broker answers at the address, and the step to take; or that the agent, which the address is made of, is not
    known. `remedy` is what the client library advises. What gRPC says is for its developers, and never a part of it."""
    socket = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
    if socket is not None and (closed := closed_to(socket)):
        return Failure(closed, code=Exit.NO_BROKER)
    if socket is not None and (unknown := _unknown_agent(args, socket)):
        return Failure(unknown, code=Exit.USAGE)
    local = address.startswith(_LOCAL) and "certificate is" not in remedy
    asked = "" if local and not environment().get("EQUABOT_BROKER_ADDRESS") else remedy
    how = f"{asked} `equabot serve` starts one" if asked else "start one with `equabot serve`"
    return Failure(f"no broker answers at {address}: {how}", code=Exit.NO_BROKER)


def closed_to(socket: Path) -> str:
    """That the socket belongs to another user's broker, and what each user can do. Empty: no such socket is seen."""
    step = _closed_step(socket)
    if step is None:
        return ""
    owner = owner_of(step)
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


def _unknown_agent(args: Namespace, socket: Path) -> str:
    """An agent that is not configured has no socket, whether or not a broker runs: that is no missing broker. Who names no
    agent means `main`."""
    config: Config | None = None
    with suppress(Failure):
        config = configuration(args)
    if config is None:
        return ""
    of_main = config.run_dir / MAIN / "broker.sock"
    agent = getattr(args, "agent", None) or (MAIN if socket == of_main else "")
    if not agent or agent in config.policies.agents:
        return ""
    if not getattr(args, "agent", None):
        return f"no agent is named, and {no_agent(agent, config.policies.agents)}. Name one with --agent"
    file = config.file or config.home / "equabot.yaml"
    return f"{no_agent(agent, config.policies.agents)}. Agents are configured in {file}; without that there is no {socket}"
