"""Explains to the user of a command why no broker answers, and what to do."""

import os
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Final

from equabot_cli.exits import Exit, Failure
from equabot_cli.local_configuration import LocalConfiguration
from equabot_cli.surroundings import environment

_MAIN: Final = "main"
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
    if not args.program.reads_files:
        return Failure(f"no broker answers at {address}: {remedy.rstrip('.;')}", code=Exit.NO_BROKER)
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
    owner = _owner_of(step)
    if owner == os.geteuid():
        return f"{socket} cannot be opened, because the owner of {step} has no access to it: chmod u+rwx {step}"
    do = f"run the command as that user (sudo -u '#{owner}' equabot …)" if owner is not None else "run the command as its user"
    return (
        f"{socket} belongs to another user's broker, and user {os.geteuid()} may not open it: {do}, or as an agent in"
        f" the group of the socket's directory, or start your own broker on other ports: `{_OWN_PORTS}`"
    )


def _owner_of(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


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
    local: LocalConfiguration | None = None
    with suppress(Failure):
        local = args.program.local(args)
    if local is None:
        return ""
    named: str = getattr(args, "agent", None) or ""
    agent = named or (_MAIN if f"unix:{socket}" == local.agent_address(_MAIN) else "")
    missing = local.missing_agent(agent) if agent else ""
    if not missing:
        return ""
    if not named:
        return f"no agent was named, and {missing}. Name one with --agent"
    return (
        f"{missing}. Agents are configured in {local.configured_in()}; an agent that is not configured has no socket {socket}"
    )
