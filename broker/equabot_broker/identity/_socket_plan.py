"""Where the sockets are to be, and what would be wrong with that. Decided from names alone, before anything is touched."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

RESERVED: Final = frozenset({"admin", "gateway"})
"""Directories of the broker's own, so no names for agents."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LONGEST: Final = 107
"""Bytes of a Unix socket's path (`sun_path` without its terminator)."""


@dataclass(frozen=True, slots=True)
class AgentSocket:
    """The socket that says which agent is calling."""

    agent: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPlan:
    """Every Unix socket of a broker."""

    run_dir: Path
    agents: tuple[AgentSocket, ...]
    admin: Path
    control: Path

    def faults(self) -> list[str]:
        """All that is wrong with it, each with what to do; no disk is asked. Empty: nothing."""
        named = [(f"the socket of agent {one.agent!r}", one.path) for one in self.agents]
        named += [("the admin socket", self.admin), ("the gateway's control socket", self.control)]
        return [
            *(fault for one in self.agents for fault in _name_faults(one.agent)),
            *(fault for what, path in named for fault in _path_faults(what, path)),
            *self._places_shared(named),
        ]

    def _places_shared(self, named: list[tuple[str, Path]]) -> Iterable[str]:
        own = len(self.agents)
        for (i, (what, path)), (j, (other, there)) in combinations(enumerate(named), 2):
            if path == there:
                yield f"{what} and {other} are to be at one path, {path}: give each its own"
            elif i < own:
                # An agent's directory is mounted into its container as a whole, with all that is below it.
                if there.is_relative_to(path.parent):
                    yield f"{other} ({there}) is to be in the directory of {what} ({path.parent}): {_APART}"
                elif j < own and path.is_relative_to(there.parent):
                    yield f"{what} ({path}) is to be in the directory of {other} ({there.parent}): {_APART}"


_APART: Final = "whoever may use the one would reach the other, so give it a directory of its own"


def plan(
    run_dir: Path,
    agents: Iterable[str],
    *,
    admin: Path | None = None,
    control: Path | None = None,
    agent_paths: Mapping[str, Path] | None = None,
) -> SocketPlan:
    """The sockets of a broker on that run directory: those given, and the others at their usual places."""
    given = agent_paths or {}
    return SocketPlan(
        run_dir=run_dir,
        agents=tuple(AgentSocket(agent, given.get(agent, run_dir / agent / "broker.sock")) for agent in agents),
        admin=admin or run_dir / "admin" / "broker.sock",
        control=control or run_dir / "gateway" / "control.sock",
    )


def _name_faults(agent: str) -> Iterable[str]:
    if agent in RESERVED:
        yield f"{agent!r} is no name for an agent: it is a directory of the broker's own. Give the agent another"
    elif not _NAME.fullmatch(agent):
        yield f"{agent[:80]!r} is no name for an agent: use up to 63 of a-z, 0-9, - and _, beginning with a letter or digit"


def _path_faults(what: str, path: Path) -> Iterable[str]:
    if not path.is_absolute() or ".." in path.parts:
        yield f"{what} needs a whole path, without '..': {path}"
    if len(os.fsencode(path)) > _LONGEST:
        yield (
            f"{what} has a path of {len(os.fsencode(path))} bytes, and the system's limit is {_LONGEST}: {path}."
            " Choose a shorter run directory"
        )
