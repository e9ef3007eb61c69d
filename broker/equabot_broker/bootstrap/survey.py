"""What a broker would offer, read where no broker runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from equabot_broker.bootstrap.background_tasks import background_tasks
from equabot_broker.bootstrap.engine import ConfiguredEngine
from equabot_broker.config.model import Config
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.material import Material, Shadowed, SourceState
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.suspension import Suspension
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.storage.read_only_state import ReadOnlyState
from equabot_broker.telemetry.events import Events

_SETTLE_WITHIN: Final = 10.0
_SLOW_WITHIN: Final = 1.0


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
        """The profile as the agent would be given it: its own before the shared one."""
        held = self.material.held.get((agent, profile_id)) or self.material.held.get(("", profile_id))
        return None if held is None else held.profile


async def survey(config: Config, *, answered: bool = False) -> Survey:
    """Reads every source once, in this process: needs no broker and disturbs none. What is wrong is in `sources`.

    `answered`: a running broker has answered for statuses and suspensions. Its state is then not opened, because the broker
    holds it; and a source that waits for another program or the network gets one second, because the broker reports it."""
    clock = SystemClock()
    store = ReadOnlyState(None if answered else config.state_path, clock=clock)
    engine = ConfiguredEngine(config, clock=clock, store=store, events=Events()).engine
    ingest, shell = engine.ingest, config.shell_env
    slow = ("kubernetes", "env") if shell.enabled else ("kubernetes",)
    waits = [not answered or state.name.partition(" ")[0] not in slow for state in ingest.states]
    async with background_tasks(ingest.run()):
        await ingest.wait_for(
            lambda: all(state.attempted or not wait for state, wait in zip(ingest.states, waits, strict=True)),
            within=_SETTLE_WITHIN + (shell.timeout if shell.enabled else 0.0),
        )
        if answered:
            await ingest.wait_for(lambda: ingest.attempted, within=_SLOW_WITHIN)
    return Survey(
        {agent: engine.availability.statuses(agent) for agent in config.policies.agents},
        tuple(engine.ingest.states),
        engine.ingest.shadowed,
        engine.registry.material,
        engine.suspensions.all,
    )
