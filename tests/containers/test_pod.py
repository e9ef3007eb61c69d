"""The image beside two agents, as a pod runs them."""

import json
import secrets
from collections.abc import Iterator

import pytest

from tests.containers.pod import Pod, logs, pod

pytestmark = pytest.mark.timeout(600)  # the first test waits for the image to be built

CANARY = f"sk-ant-api03-{secrets.token_urlsafe(48)}"
CONFIG = """
agents:
  alpha: {providers: [anthropic]}
  beta: {providers: [anthropic]}
required: [anthropic]
sources:
  - mounted: {path: /run/secrets/equabot}
"""
CHECK_HEALTH = """
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel("127.0.0.1:8686") as channel:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="provider/anthropic"), timeout=60)
print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
"""
GET_METRICS = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/metrics').read().decode())"


@pytest.fixture(scope="module")
def running(docker_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with pod(
        docker_image,
        directory=tmp_path_factory.mktemp("pod"),
        config=CONFIG,
        secrets={"ANTHROPIC_API_KEY": CANARY},
        agents=("alpha", "beta"),
    ) as started:
        yield started


@pytest.mark.parametrize("agent", ["alpha", "beta"])
def test_every_agent_gets_the_credential_over_its_own_socket(running: Pod, agent: str) -> None:
    """An agent's container needs its socket directory and nothing else."""
    ran = running.run(agent, "equabot", "key", "anthropic")
    assert (ran.code, ran.output.strip()) == (0, CANARY)


def test_health_answers_over_tcp_in_the_shared_namespace(running: Pod) -> None:
    """A kubelet cannot probe a Unix socket."""
    ran = running.run("alpha", "python", "-c", CHECK_HEALTH)
    assert (ran.code, ran.output.strip()) == (0, "SERVING")


def test_metrics_hold_no_secret(running: Pod) -> None:
    """Whoever shares the network namespace can read the metrics."""
    ran = running.run("beta", "python", "-c", GET_METRICS)
    assert ran.code == 0, ran.output
    assert "equabot" in ran.output
    assert CANARY not in ran.output


def test_no_path_leads_to_a_socket_that_is_not_the_agents_own(running: Pod) -> None:
    """The socket is the identity: neither the other agent's nor the admin's is anywhere to be found."""
    found = running.run("beta", "find", "/", "-path", "/proc", "-prune", "-o", "-type", "s", "-print").output
    sockets = [line for line in found.splitlines() if line.startswith("/")]  # the rest tells which directories it may not read
    assert sockets == ["/run/equabot/beta/broker.sock"]
    # The namespace is shared, and an abstract socket would be reachable in all of it.
    assert "@" not in running.run("beta", "cat", "/proc/net/unix").output
    other = running.run(
        "beta", "env", "EQUABOT_BROKER_ADDRESS=unix:/run/equabot/alpha/broker.sock", "equabot", "key", "anthropic"
    )
    assert other.code == 3, other.output  # no broker there


def test_a_lease_of_another_agent_is_out_of_reach(running: Pod) -> None:
    """Knowing a lease's id gives nothing: to another agent it does not exist, and revoking it has no effect."""
    lease = json.loads(running.run("alpha", "equabot", "lease", "acquire", "anthropic", "--json").output)["id"]
    assert lease not in running.run("beta", "equabot", "lease", "list").output
    renewed = running.run("beta", "equabot", "lease", "renew", lease)
    assert renewed.code == 1
    assert "LEASE_NOT_FOUND" in renewed.output
    running.run("beta", "equabot", "lease", "revoke", lease)
    assert running.run("alpha", "equabot", "lease", "renew", lease).code == 0


def test_the_log_holds_no_secret(running: Pod) -> None:
    """After all of the above."""
    written = logs(running.broker)
    assert written
    assert CANARY not in written
