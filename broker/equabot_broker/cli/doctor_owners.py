"""Who else can read or change the files of the broker (keys, stores, logins, records) and the directories that hold them."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equabot_broker.cli.problems import Problem, problem
from equabot_broker.diagnosis.findings import Severity
from equabot_broker.domain.policies import Delivery
from equabot_broker.files.ownership import OwnershipDoubt, directory_doubt, file_doubt, in_container, others_in, way_doubt
from equabot_broker.formats.tool_logins import TOOLS
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.config.model import Config

_CONTAINER_VARIABLES = ("KUBERNETES_SERVICE_HOST", "container")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file and its role. `required`: the broker does not start if other users can read it."""

    path: Path
    what: str
    secret: bool = True
    required: bool = False


def owners(config: "Config") -> Iterator[Problem]:
    """Access by other users that they should not have."""
    kept = list(_files(config))
    for one in kept:
        yield from _file(one)
    around = (config.home, config.state_path.parent, *(one.path.parent for one in kept), *_mounted(config))
    for directory in dict.fromkeys(around):
        if directory != config.run_dir:
            yield from _problem_of(directory_doubt(directory, anyones=True), Severity.ERROR)
    yield from _run_dir(config.run_dir)
    yield from _shared_users(config)


def _files(config: "Config") -> Iterator[_Kept]:
    if config.seal_key_file is not None:
        yield _Kept(config.seal_key_file, "seals the profile stores", required=True)
        yield _Kept(config.home / "seals.json", "has the number of each store's newest write", secret=False)
    if config.remote is not None:
        yield _Kept(config.remote.key, "is the key of the broker's certificate")
        accounts = config.remote.service_accounts
        if accounts is not None and accounts.kubeconfig is not None:
            yield _Kept(accounts.kubeconfig, "holds the credentials of a cluster")
    for spec in config.sources:
        if spec.kind in ("dotenv", *TOOLS):
            yield _Kept(Path(spec.options["path"]), "holds credentials")
        elif spec.kind == "kubernetes" and "kubeconfig" in spec.options:
            yield _Kept(Path(spec.options["kubeconfig"]), "holds the credentials of a cluster")
    if config.file is not None:
        what = "has an env section, which may hold credentials," if config.env else "sets what each agent may use"
        yield _Kept(config.file, what, secret=bool(config.env))
    for store in sorted((config.home / "agents").glob("*/agent/auth-profiles.json")):
        yield _Kept(store, "holds credentials")
    yield _Kept(config.state_path, "holds leases and cooldowns", secret=False)
    yield _Kept(config.anchor_path, "is the anchor of the audit log", secret=False)
    if config.audit.path is not None:
        yield _Kept(config.audit.path, "is the audit log", secret=False)


def _mounted(config: "Config") -> Iterator[Path]:
    """The directories of a mounted source: each directory in it is a unit."""
    for spec in config.sources:
        if spec.kind == "mounted":
            directory = Path(spec.options["path"])
            yield directory
            with suppress(OSError):  # its source reports that
                yield from sorted(one for one in directory.iterdir() if one.is_dir())


def _file(kept: _Kept) -> Iterator[Problem]:
    # The broker can run as another user than doctor. Only the seal key is checked with the broker's own rule.
    doubt = file_doubt(kept.path, secret=kept.secret, anyones=not kept.required)
    severity = Severity.ERROR if doubt is not None and (doubt.changeable or kept.required) else Severity.WARNING
    doubt = doubt or file_doubt(kept.path, secret=kept.secret, anyones=True, strict=True)
    yield from _problem_of(doubt, severity, kept.what)


def _problem_of(doubt: OwnershipDoubt | None, severity: Severity, what: str = "") -> Iterator[Problem]:
    if doubt is not None:
        message = f"{what} and {doubt.message}" if what else doubt.message
        yield problem(severity, doubt.path, message, doubt.remedy, fix=_chmod(doubt.path, doubt.mode))


def _chmod(path: Path, mode: int | None) -> Callable[[], str] | None:
    if mode is None:
        return None

    def close() -> str:
        path.chmod(mode)
        return f"{path} now has mode {mode:o}"

    return close


def _run_dir(run_dir: Path) -> Iterator[Problem]:
    doubt = directory_doubt(run_dir, anyones=True)
    yield from _problem_of(doubt or way_doubt(run_dir.parent), Severity.ERROR)
    if not os.path.exists(run_dir) or doubt is not None:  # noqa: PTH110
        return
    owner = run_dir.stat().st_uid
    if owner not in (0, os.geteuid()) or not os.access(run_dir, os.W_OK | os.X_OK):
        message = f"belongs to user {owner}: a broker of this user ({os.geteuid()}) cannot start there"
        yield problem(Severity.INFO, run_dir, message, "run as the broker's user, or choose another directory with --run-dir")


def _shared_users(config: "Config") -> Iterator[Problem]:
    """Agents without a right to keys that run as the user who can read them all. Not checked in a container: it does not show
    users of other containers, whose volumes are separate mounts."""
    if in_container() or any(name in environment() for name in _CONTAINER_VARIABLES):
        return
    for agent, policy in config.policies.agents.items():
        if tuple(policy.deliveries) != (Delivery.BROKERED,):
            continue
        directory = config.listen.agents.get(agent, config.run_dir / agent / "broker.sock").parent
        closest = next(step for step in (directory, *directory.parents) if os.path.exists(step))  # noqa: PTH110  (never raises)
        found = closest.stat()
        if not others_in(found.st_gid):
            message = (
                f"may have brokered leases only, but just programs of the broker's own user ({found.st_uid}) reach its"
                " socket: they can read the keys in the stores, in .env and through the admin socket"
            )
            remedy = f"run the broker as another user and put the agent's user into the group of {directory}, or use containers"
            yield problem(Severity.WARNING, f"agent {agent}", message, remedy)
