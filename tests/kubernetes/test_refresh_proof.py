"""The refresh proof on Kubernetes: no refresh token is redeemed twice by brokers that share nothing but an API server.

Eight processes, whose wall clocks are up to an hour apart, share the logins in fifteen Secrets (two of a store in each, and
Claude's own in every third) and a token endpoint with single-use tokens that fails in nineteen ways. They die by `kill -9`, at
random instants and at every one of these fault points:

    before lock · lock on its way · locked
    intent: before request · on its way · written
    while asking · answered
    outcome: before request · on its way · written
    before unlock · unlocked

The API server is killed, stopped, paused for seconds and started again; the endpoint too. People label the Secrets, add keys,
log in again where a login has ended, and apply older manifests, spent tokens and all. The laws are in `tests/proof/verdict.py`.
`EQUABOT_PROOF_SECONDS` makes it longer, `EQUABOT_PROOF_SEED` repeats its choices.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.kube_worker import POINTS
from tests.tiers import absent, cluster_programs, require

SECONDS = float(os.environ.get("EQUABOT_PROOF_SECONDS", "25"))
SEED = int(os.environ.get("EQUABOT_PROOF_SEED", str(time.time_ns() % 10**6)))


@pytest.mark.timeout(SECONDS + 480)  # a busy machine needs longer to come to rest
def test_eight_nodes_and_every_death(record_property: Callable[[str, object], None]) -> None:
    """The Secrets can be understood at every moment, and nothing that others write into them is lost."""
    require("kubernetes")
    if cluster_programs() is None:
        absent("kubernetes", "a server that a test may stop needs kube-apiserver and etcd; deploy/ci/kubernetes builds them")
    program = [sys.executable, "-m", "tests.proof.kube_run", str(SECONDS), str(SEED)]
    run = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr + run.stdout
    told = json.loads(run.stdout)
    record_property("refresh proof on Kubernetes", told)
    print(f"seed {SEED}: {run.stdout}")
    assert told["deaths"].keys() <= {*POINTS, "at random"}
    assert told["deaths"], "nobody died"  # which deaths a short run comes to depends on how busy the machine is
    assert told["edits by others"] > 0
    assert min(told["ended as"][kind] for kind in ("refreshed", "adopted")) > 0
