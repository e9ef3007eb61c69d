"""As many sources as there would be brokers, in one process. python -m benchmarks._crowd KUBECONFIG NUMBER

Prints a line once all of them have read their Secrets, and one whenever all have heard of a change.
"""

import asyncio
import sys
from pathlib import Path

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import UnitChanged, UnitsListed
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.providers.catalog import BUILT_IN
from equabot_broker.sources.kubernetes import KubernetesOptions, KubernetesSecrets


async def main(kubeconfig: Path, number: int) -> None:
    """Follows forever."""
    heard = 0

    async def follow() -> None:
        nonlocal heard
        source = KubernetesSecrets(
            KubernetesOptions(kubeconfig=kubeconfig), rules=DiscoveryRules(BUILT_IN), clock=SystemClock()
        )
        async for event in source.events():
            if not isinstance(event, UnitsListed | UnitChanged):
                raise SystemExit(f"one of the crowd lost its way: {event}")
            heard += 1
            if heard % number == 0:
                print(heard // number, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(follow())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
