"""A pod, on a Docker Engine: the broker and its agents in one network namespace, with one volume for the sockets.

The run directory is the volume. The broker mounts all of it, an agent only its own subdirectory, as with `subPath`.
Everybody runs as in the chart: no root, no capabilities, a root filesystem that cannot be written.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from testcontainers.core.container import DockerContainer

BROKER_ID = 65532  # user and group of the image
AGENT_UID = 1000  # another user than the broker's, in its group: what `fsGroup` does in a pod


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command in a container did."""

    code: int
    output: str  # both streams


@dataclass(frozen=True, slots=True)
class Pod:
    """The broker and its agents, running."""

    broker: DockerContainer
    agents: dict[str, DockerContainer]

    def run(self, agent: str, *command: str) -> Ran:
        """Runs a command in an agent's container."""
        code, output = self.agents[agent].get_wrapped_container().exec_run(list(command))
        return Ran(code, output.decode())


@contextmanager
def pod(image: str, *, directory: Path, config: str, secrets: dict[str, str], agents: tuple[str, ...]) -> Iterator[Pod]:
    """Runs one until the context ends. `secrets` are the files of a mounted Secret, `directory` is free for our use."""
    run_dir, secret_dir, config_file = directory / "run", directory / "secret", directory / "equabot.yaml"
    for path in (run_dir, secret_dir):
        path.mkdir()
        os.chown(path, BROKER_ID, BROKER_ID)
    for name, value in secrets.items():
        (secret_dir / name).write_text(value)
        os.chown(secret_dir / name, BROKER_ID, BROKER_ID)
    config_file.write_text(config)
    config_file.chmod(0o644)

    with ExitStack() as running:
        broker = (
            _hardened(image, user=f"{BROKER_ID}:{BROKER_ID}")
            .with_env("EQUABOT_CONFIG", "/etc/equabot/equabot.yaml")
            .with_exposed_ports(8686)
            .with_volume_mapping(config_file, "/etc/equabot/equabot.yaml")
            .with_volume_mapping(secret_dir, "/run/secrets/equabot")
            .with_volume_mapping(run_dir, "/run/equabot", "rw")
        )
        broker.tmpfs["/var/lib/equabot"] = f"uid={BROKER_ID},gid={BROKER_ID},mode=0700"
        running.enter_context(broker)
        wait_until_serving(broker)
        namespace = f"container:{broker.get_container_id()}"
        yield Pod(
            broker,
            {
                name: running.enter_context(
                    _hardened(image, user=f"{AGENT_UID}:{BROKER_ID}", network_mode=namespace, entrypoint=["sleep", "infinity"])
                    .with_env("EQUABOT_BROKER_ADDRESS", f"unix:/run/equabot/{name}/broker.sock")
                    .with_volume_mapping(run_dir / name, f"/run/equabot/{name}", "rw")
                )
                for name in agents
            },
        )


def wait_until_serving(broker: DockerContainer) -> None:
    """Waits for the broker's own word, over the port that a kubelet would probe."""
    address = f"{broker.get_container_host_ip()}:{broker.get_exposed_port(8686)}"
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
        try:
            any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch)
        except grpc.RpcError as error:
            raise AssertionError(f"not serving: {error}\n{logs(broker)}") from error
        watch.cancel()


def logs(container: DockerContainer) -> str:
    """All that it wrote, both streams."""
    return b"".join(container.get_logs()).decode()


def _hardened(image: str, **kwargs: object) -> DockerContainer:
    return DockerContainer(image).with_kwargs(read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], **kwargs)
