"""Problems in the environment of a broker: variables, directories without access, a seal key that is not valid, a missing
gateway."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from equabot_broker.cli.problems import Problem, problem
from equabot_broker.diagnosis.findings import Severity
from equabot_broker.domain.policies import Delivery
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.files.ownership import owner_of
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.config.model import Config


def surroundings(config: "Config") -> Iterator[Problem]:
    """The problems that this process can see. A broker of another user has other variables and permissions."""
    yield from variables()
    yield from unreachable(config)
    yield from _seal_key(config)
    yield from _brokered_without_gateway(config)


def variables() -> Iterator[Problem]:
    """Proxy and certificate variables that prevent refreshes and tests of credentials."""
    from equabot_broker.upstream.clients import outside_faults  # noqa: PLC0415

    for fault in outside_faults(environment()):
        message, _, do = fault.message.partition(": ")
        yield problem(Severity.ERROR, fault.variable, message, do)


def unreachable(config: "Config") -> Iterator[Problem]:
    """Paths that this user cannot reach. The broker treats what is there as absent, or reports a fault of the source."""
    paths = [config.home, config.run_dir, *(Path(spec.options["path"]) for spec in config.sources if "path" in spec.options)]
    reported: set[Path] = set()
    for path in paths:
        step, number = _stopped(path)
        if step is None or step in reported:
            continue
        reported.add(step)
        if number == errno.ENAMETOOLONG:
            yield problem(Severity.ERROR, path, "has a component that is too long for a file name", "correct the path")
            continue
        owner = owner_of(step)
        whose = f", which belongs to user {owner}" if owner not in (None, os.geteuid()) else ""
        message = f"cannot be reached: user {os.geteuid()} may not enter {step}{whose}"
        do = f"chmod o+x {step}, or choose another path (EQUABOT_HOME, HOME, --run-dir, the path of the source)"
        yield problem(Severity.ERROR if path in (config.home, config.run_dir) else Severity.WARNING, path, message, do)


def _stopped(path: Path) -> tuple[Path | None, int]:
    """The directory on the path that cannot be entered, with the error; None if the path can be reached."""
    for step in (*reversed(path.parents), path):
        try:
            step.stat()
        except OSError as error:
            return (step.parent, error.errno or 0) if error.errno in (errno.EACCES, errno.ENAMETOOLONG) else (None, 0)
    return None, 0


def _seal_key(config: "Config") -> Iterator[Problem]:
    from equabot_broker.bootstrap.stores import seal_fault  # noqa: PLC0415

    if fault := seal_fault(config):
        message, _, do = fault.partition(": ")
        yield problem(Severity.ERROR, "seal.key_file", message, do)


def _brokered_without_gateway(config: "Config") -> Iterator[Problem]:
    """Agents that can get no lease: they may have tokens only, and a token needs a gateway."""
    if config.gateway.mode is not GatewayMode.OFF:
        return
    for agent, policy in config.policies.agents.items():
        if tuple(policy.deliveries) == (Delivery.BROKERED,):
            message = "may have brokered leases only, but gateway.mode is off: it gets a lease only from `serve --gateway`"
            do = "set gateway.mode to child, start with `equabot serve --gateway`, or add raw to its deliveries"
            yield problem(Severity.WARNING, f"agent {agent}", message, do)
