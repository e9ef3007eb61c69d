"""Explains to the user of a command why no broker answers, and what to do."""

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
    """The failure to report when no broker answers at the address. It names the next step, or the agent that is not
    configured.

    `remedy` is the advice of the client library. The text of the gRPC error is not shown, because it addresses gRPC's
    developers.
    """
    socket = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
    if socket is not None and (denied := access_denied(socket)):
        return Failure(denied, code=Exit.NO_BROKER)
    if socket is not None and (unknown := _unknown_agent(args, socket)):
        return Failure(unknown, code=Exit.USAGE)
    local = address.startswith(_LOCAL) and "certificate is" not in remedy
    asked = "" if local and not environment().get("EQUABOT_BROKER_ADDRESS") else remedy
    how = f"{asked} `equabot serve` starts one" if asked else "start one with `equabot serve`"
    return Failure(f"no broker answers at {address}: {how}", code=Exit.NO_BROKER)


def access_denied(socket: Path) -> str:
    """The message for a socket that belongs to another user's broker, with what each user can do; empty if this user may open
    it."""
    step = _closed_step(socket)
    if step is None:
        return ""
    owner = owner_of(step)
    if owner == os.geteuid():
        return f"{socket} cannot be opened, because the owner of {step} has no access to it: chmod u+rwx {step}"
    do = f"run the command as that user (sudo -u '#{owner}' equabot …)" if owner is not None else "run the command as its user"
    return (
        f"{socket} belongs to another user's broker, and user {os.geteuid()} may not open it: {do}, or as an agent in"
        f" the group of the socket's directory, or start your own broker on other ports: `{_OWN_PORTS}`"
    )


def _closed_step(socket: Path) -> Path | None:
    """The first directory on the path that this user may not enter, or the socket if this user may not write to it."""
    for step in (*reversed(socket.parents), socket):
        try:
            step.stat()
        except PermissionError:
            return step.parent
        except OSError:
            return None
    return None if os.access(socket, os.W_OK) else socket


def _unknown_agent(args: Namespace, socket: Path) -> str:
    """The message for an agent that is not configured: it has no socket, even if a broker runs. Without `--agent` it is
    `main`."""
    config: Config | None = None
    with suppress(Failure):
        config = configuration(args)
    if config is None:
        return ""
    main_socket = config.run_dir / MAIN / "broker.sock"
    agent = getattr(args, "agent", None) or (MAIN if socket == main_socket else "")
    if not agent or agent in config.policies.agents:
        return ""
    if not getattr(args, "agent", None):
        return f"no agent was named, and {no_agent(agent, config.policies.agents)}. Name one with --agent"
    file = config.file or config.home / "equabot.yaml"
    return (
        f"{no_agent(agent, config.policies.agents)}. Agents are configured in {file}; an agent that is not configured has"
        f" no socket {socket}"
    )
