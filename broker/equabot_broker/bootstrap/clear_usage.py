"""Clears what is held against a profile, where no broker runs that could do it."""

import asyncio
from contextlib import closing

from equabot_broker.bootstrap.stores import agent_stores
from equabot_broker.bootstrap.survey import survey
from equabot_broker.config.model import Config
from equabot_broker.domain.cooldowns import Usage, obstacles
from equabot_broker.domain.errors import ProfileNotFound, StateUnavailable
from equabot_broker.domain.known_names import no_profile
from equabot_broker.domain.policies import MAIN
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_entries import entry_ids
from equabot_broker.formats.auth_usage import usage_of, with_usage
from equabot_broker.storage.state import SqliteStateStore


def clear_stored(config: Config, profile: str) -> tuple[str, ...]:
    """Forgets cooldowns, billing disable, rejection and counters of the profile in `state.db` and in the agents' stores.
    Returns what that ended, by the names of the API. Blocking. Raises ProfileNotFound, StateUnavailable, StoreFault."""
    found = asyncio.run(survey(config))
    owners = {agent for agent, name in found.material.held if name == profile}
    if not owners:
        provider = profile.partition(":")[0]
        raise ProfileNotFound(no_profile(profile, (name for _, name in found.material.held if name.startswith(f"{provider}:"))))
    ended = _in_state(config, profile)
    for agent in dict.fromkeys((MAIN, *config.policies.agents)):
        ended |= _in_store(config, agent, profile)
    return tuple(sorted(ended))


def _in_state(config: Config, profile: str) -> set[str]:
    if not config.state_path.exists():
        return set()
    clock = SystemClock()
    with closing(SqliteStateStore(config.state_path, clock=clock)) as state:
        stored = state.load()
        ended = set()
        for key, usage in stored.usage.items():
            if key[1] == profile:
                version = stored.versions[key].version if key in stored.versions else 0
                ended |= set(obstacles(usage, version, now=clock.now()))
                state.put_usage(key, Usage(last_used=usage.last_used))
        state.flush()
        if state.fault:
            raise StateUnavailable(state.fault)
    return ended


def _in_store(config: Config, agent: str, profile: str) -> set[str]:
    """OpenClaw reads its store as well, and the next broker takes it over."""
    store, clock, ended = agent_stores(config).of(agent), SystemClock(), set[str]()
    if not store.path.exists():
        return ended

    def cleared(document: AuthDocument) -> AuthDocument:
        name = entry_ids(document, config.catalog).get(profile)
        usage = Usage() if name is None else usage_of(document, name)
        ended.update(obstacles(usage, 0, now=clock.now()))
        return document if name is None or usage.clean else with_usage(document, {name: Usage(last_used=usage.last_used)})

    store.edit(cleared)
    return ended
