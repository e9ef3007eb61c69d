"""What a broker would have to offer, without one."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from broker.bootstrap.beside import beside
from broker.bootstrap.engine import Engine
from broker.config.model import Config
from broker.domain.material import Material, Shadowed, SourceState
from broker.domain.profiles import Profile
from broker.domain.statuses import ProfileStatus
from broker.domain.suspension import Suspension
from broker.engine.clock import SystemClock
from broker.storage.glimpse import Glimpse
from broker.telemetry.events import Events

_SETTLE_WITHIN: Final = 10.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What a broker would have to offer, read once without one running. `statuses` and `suspensions` by
    agent."""

    statuses: Mapping[str, list[ProfileStatus]]
    sources: tuple[SourceState, ...]
    shadowed: tuple[Shadowed, ...]
    material: Material
    suspensions: Mapping[str, Suspension]

    def profile(self, agent: str, profile_id: str) -> Profile | None:
        """The profile as the agent would be given it: its own before everybody's."""
        held = self.material.held.get((agent, profile_id)) or self.material.held.get(("", profile_id))
        return None if held is None else held.profile


async def survey(config: Config) -> Survey:
    """Reads every source once, in this process: needs no broker and disturbs none. What is wrong stands in `sources`."""
    clock = SystemClock()
    engine = Engine(config, clock=clock, store=Glimpse(config.state_path, clock=clock), events=Events())
    async with beside(engine.ingesting.run()):
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_WITHIN + (config.shell_env.timeout if config.shell_env.enabled else 0.0)):
                await engine.ingesting.wait_settled()
    return Survey(
        {agent: engine.availability.statuses(agent) for agent in config.policies.agents},
        tuple(engine.ingesting.states),
        engine.ingesting.shadowed,
        engine.standings.material,
        engine.suspensions.all,
    )
