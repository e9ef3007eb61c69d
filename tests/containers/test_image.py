"""The image alone."""

import pytest
from testcontainers.core.container import DockerContainer

from tests.containers.pod import logs, wait_until_serving

pytestmark = pytest.mark.timeout(600)  # the first test waits for the image to be built


def test_it_serves_without_configuration_and_stops_when_asked(docker_image: str) -> None:
    """`docker run`, hardened, with one writable directory: SERVING, and on SIGTERM a drain that ends with 0, no kill."""
    broker = DockerContainer(docker_image).with_exposed_ports(8686)
    broker.with_kwargs(read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"])
    broker.tmpfs["/run/equabot"] = "uid=65532,gid=65532,mode=0755"
    with broker:
        wait_until_serving(broker)
        container = broker.get_wrapped_container()
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] == 0, logs(broker)


def test_it_runs_as_a_numeric_user(docker_image: str) -> None:
    """Kubernetes' `runAsNonRoot` can verify a number, not a name."""
    with DockerContainer(docker_image).with_kwargs(entrypoint=["sleep", "infinity"]) as container:
        assert container.get_wrapped_container().attrs["Config"]["User"] == "65532:65532"
        assert container.exec(["id", "-u"]).output == b"65532\n"


def test_it_holds_no_installer_and_its_bytecode(docker_image: str) -> None:
    """No pip to fetch more with, and nothing to compile on a root filesystem that cannot be written."""
    look = (
        "import importlib.util, sys, asyncio, equabot_broker.cli.main\n"
        "assert importlib.util.find_spec('pip') is None\n"
        "caches = [m.__cached__ for m in sys.modules.values() if getattr(m, '__cached__', None)]\n"
        "import os.path; print([path for path in caches if not os.path.exists(path)])"
    )
    with DockerContainer(docker_image).with_kwargs(entrypoint=["sleep", "infinity"]) as container:
        answer = container.exec(["/opt/equabot/bin/python", "-c", look])
        assert answer.output == b"[]\n"
