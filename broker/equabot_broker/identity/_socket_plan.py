"""Plans the paths of sockets, and finds faults in the plan. It uses names only, before anything on disk changes."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

RESERVED: Final = frozenset({"admin", "gateway"})
"""Names of the broker's own directories, which no agent can have."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LONGEST: Final = 107
"""The maximum number of bytes of a Unix socket's path (`sun_path` without its terminator)."""


@dataclass(frozen=True, slots=True)
class AgentSocket:
    """The socket that identifies its agent."""

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
        """All faults of the plan, each with its remedy. It does not read the disk."""
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
                yield f"{what} and {other} have the same path, {path}: give each its own"
            elif i < own:
                # An agent's directory is mounted into its container with everything in it.
                if there.is_relative_to(path.parent):
                    yield f"{other} ({there}) would be in the directory of {what} ({path.parent}): {_APART}"
                elif j < own and path.is_relative_to(there.parent):
                    yield f"{what} ({path}) would be in the directory of {other} ({there.parent}): {_APART}"


_APART: Final = "a user of the one could reach the other, so give it its own directory"


def plan(
    run_dir: Path,
    agents: Iterable[str],
    *,
    admin: Path | None = None,
    control: Path | None = None,
    agent_paths: Mapping[str, Path] | None = None,
) -> SocketPlan:
    """The sockets of a broker with this run directory: the configured ones, and the others at their default paths."""
    given = agent_paths or {}
    return SocketPlan(
        run_dir=run_dir,
        agents=tuple(AgentSocket(agent, given.get(agent, run_dir / agent / "broker.sock")) for agent in agents),
        admin=admin or run_dir / "admin" / "broker.sock",
        control=control or run_dir / "gateway" / "control.sock",
    )


def _name_faults(agent: str) -> Iterable[str]:
    if agent in RESERVED:
        yield f"{agent!r} cannot be the name of an agent: it is a directory of the broker's own. Choose another name"
    elif not _NAME.fullmatch(agent):
        yield (
            f"{agent[:80]!r} cannot be the name of an agent: use up to 63 of a-z, 0-9, - and _, beginning with a letter or"
            " digit"
        )


def _path_faults(what: str, path: Path) -> Iterable[str]:
    if not path.is_absolute() or ".." in path.parts:
        yield f"{what} needs an absolute path without '..': {path}"
    if len(os.fsencode(path)) > _LONGEST:
        yield (
            f"{what} has a path of {len(os.fsencode(path))} bytes, and the system's limit is {_LONGEST}: {path}."
            " Choose a shorter run directory"
        )
