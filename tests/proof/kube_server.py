"""The API server of the refresh proof, as a process of its own: killed, stopped, paused and started again, on the same data.

    python -m tests.proof.kube_server DIRECTORY SEED

Prints the namespace once `DIRECTORY/kubeconfig` leads there. From then on it obeys lines: `chaos`, `calm`, `end`; `calm` is
answered, once the server is there for good, with how often it was away.
"""

import random
import select
import sys
import time
from pathlib import Path

from tests.kubernetes.cluster import Cluster
from tests.tiers import cluster_programs


class Server:
    """A cluster, and what is done to it."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self.times: dict[str, int] = {}

    def chaos(self) -> None:
        """Until somebody says something."""
        plan: list[str] = []
        while not _spoken(self._chance.uniform(1.5, 5)):
            plan = plan or self._chance.sample(("pause", "pause", "kill", "stop"), 4)
            self._do(plan.pop())

    def _do(self, what: str) -> None:
        self.times[what] = self.times.get(what, 0) + 1
        if what == "pause":
            self._cluster.pause()
            time.sleep(self._chance.uniform(0.1, 3))
            self._cluster.resume()
        else:
            self._cluster.kill() if what == "kill" else self._cluster.stop()
            time.sleep(self._chance.uniform(0.0, 1.5))
            self._cluster.start()


def _spoken(within: float) -> bool:
    return bool(select.select([sys.stdin], [], [], within)[0])


def main() -> None:
    """Serves until `end`, or until nobody is there any more."""
    directory, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    assets = cluster_programs()
    if assets is None:
        raise SystemExit("there is no kube-apiserver: deploy/ci/kubernetes builds it")
    with Cluster(assets, directory / "cluster") as cluster:
        server = Server(cluster, chance)
        namespace = cluster.namespace("proof")
        cluster.kubeconfig(directory / "kubeconfig", namespace=namespace)
        print(namespace, flush=True)
        for line in iter(sys.stdin.readline, ""):
            match line.strip():
                case "chaos":
                    server.chaos()
                case "calm":
                    print(server.times, flush=True)
                case "end":
                    break


if __name__ == "__main__":
    main()
