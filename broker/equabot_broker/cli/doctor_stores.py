"""Problems with the profile stores of all agents: unreadable, open to other users, or left incomplete by a crash."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from equabot_broker.cli.problems import FIX, Problem, problem
from equabot_broker.cli.storing import CommandContext, faults
from equabot_broker.diagnosis.findings import Severity
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.relogin import login_command
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_entries import entry_ids
from equabot_broker.formats.refresh_marks import pending
from equabot_broker.oauth.refresh_steps import Pending
from equabot_cli.exits import Failure

if TYPE_CHECKING:
    from equabot_broker.config.model import Config
    from equabot_broker.storage.auth_profiles import AuthProfiles

_OPEN = 0o077


def stores(config: "Config") -> Iterator[Problem]:
    """The problems of each store."""
    yield from _older_files(config)
    for agent in kept_agents(config):
        context = CommandContext(config, agent)
        try:
            yield from _store(context)
        except Failure as failure:
            path = config.home / "agents" / agent / "agent" / "auth-profiles.json"
            yield problem(Severity.ERROR, path, failure.message)


def _older_files(config: "Config") -> Iterator[Problem]:
    """Credentials in places that older versions of OpenClaw used. A broker moves them when it starts."""
    from equabot_broker.storage import migrations  # noqa: PLC0415

    def move() -> str:
        from equabot_broker.bootstrap.stores import migrate_stores  # noqa: PLC0415

        done = migrate_stores(config)
        failed = "; ".join(migration.fault for migration in done if migration.fault)
        if failed:
            raise Failure(failed)
        return "; ".join(map(str, done))

    for number, file in enumerate(migrations.pending(config.home)):
        message = "holds credentials of an older version, which belong in the profile store"
        yield problem(Severity.WARNING, file, message, FIX, fix=None if number else move)
    for file in migrations.backups(config.home):
        message = "holds credentials from before a migration"
        yield problem(Severity.INFO, file, message, f"rm {file}, once the migrated credentials work")


def kept_agents(config: "Config") -> list[str]:
    """The agents that have a store or are configured."""
    kept = sorted(path.parent.parent.name for path in (config.home / "agents").glob("*/agent/auth-profiles.json"))
    return list(dict.fromkeys((*kept, *config.policies.agents)))


def _store(context: CommandContext) -> Iterator[Problem]:
    store = context.store
    if not store.path.is_symlink() and not store.path.exists():
        return
    with faults():
        document, doubts = store.inspect()
    for doubt in doubts:
        what, _, do = doubt.partition(": ")
        subject = store.path if doubt.startswith(f"{store.path} ") else store.path.parent
        yield problem(Severity.WARNING, subject, what, do, fix=lambda: _restrict(store))
    if context.config.seal_key_file is None and document.entries:
        message = "keeps its credentials in plain text that only its owner can read"
        yield problem(Severity.INFO, store.path, message, "seal: {key_file: …} in the configuration, if that is not enough")
    lock = store.stale_lock()
    if lock is not None:
        yield problem(
            Severity.WARNING, lock, "is the lock of a process that no longer runs", FIX, fix=lambda: _unlock(store, lock)
        )
    if context.agent not in (MAIN, *context.config.policies.agents):
        yield problem(
            Severity.INFO, store.path, f"is the store of agent {context.agent}, which is not configured", "add it to agents"
        )
    yield from _intents(context, document)


def _restrict(store: "AuthProfiles") -> str:
    with faults():
        store.edit(lambda document: document)
    folder = store.path.parent
    if folder.stat().st_mode & _OPEN:
        folder.chmod(0o700)
    return f"{store.path} has safe permissions"


def _unlock(store: "AuthProfiles", lock: Path) -> str:
    with faults(), store.locked():
        pass
    return f"removed {lock}"


def _intents(context: CommandContext, document: AuthDocument) -> Iterator[Problem]:
    """Refreshes that a crash interrupted: the refresh token may be used up, and is never sent again (ADR 7)."""
    if not any(_interrupted(entry) for entry in document.entries.values()):
        return
    with faults():
        if context.store.is_locked():  # a refresh is in progress
            return
        document = context.store.read()
    for profile_id, written in entry_ids(document, context.config.catalog).items():
        if _interrupted(document.entries[written]):
            message = "a refresh was interrupted, so its refresh token may be used up; its access token works until it expires"
            agent = "" if context.agent == MAIN else context.agent
            yield problem(Severity.ERROR, _named(profile_id, agent), message, login_command(profile_id, agent))


def _interrupted(entry: object) -> bool:
    return isinstance(entry, dict) and pending(entry) is Pending.SENT


def _named(profile_id: str, agent: str) -> str:
    return f"{profile_id} (agent {agent})" if agent else profile_id
