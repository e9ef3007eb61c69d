"""The dashboard of a broker in a pod, as docs/how-to/dashboard.md says: kubectl exec, kubectl port-forward, a browser."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.browser.chromium import Chromium
from tests.containers.test_chart import made_up_key
from tests.kubelet.release import BROKER, Release
from tests.ports import free_port
from tests.tiers import require

pytestmark = pytest.mark.timeout(900)  # the first test waits for the images and the node


@contextmanager
def lasting(release: Release, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A command of kubectl that ends with the block."""
    process = release.node.spawn("kubectl", "--namespace", release.namespace, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def line(process: "subprocess.Popen[str]") -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    found = process.stdout.readline()
    assert found, "it has ended"
    return found


def test_a_browser_outside_sees_the_broker_of_the_pod(release: Release) -> None:
    """With the same port on both sides. The Secret's next key is seen as a rotation."""
    require("browser")
    release.install()
    release.secret(made_up_key("first"))
    release.wait_until(release.ready)
    name, port = str(release.pod()["metadata"]["name"]), str(free_port())
    command = ("equabot", "dashboard", "--no-browser", "--port", port)
    with (
        lasting(release, "exec", name, "--container", BROKER, "--", *command) as served,
        lasting(release, "port-forward", f"pod/{name}", f"{port}:{port}") as forwarded,
        Chromium() as browser,
    ):
        link = line(served).split()[-1]
        assert link.startswith(f"http://127.0.0.1:{port}/#")
        assert f"127.0.0.1:{port}" in line(forwarded)
        page = browser.page()
        page.open(link)
        page.wait_text("#status", "Live")
        page.wait_text("#credentials", "anthropic", "ok")
        page.wait_text("#audit-note", "standard output")
        page.wait("document.querySelectorAll('#traffic-body svg').length === 3")
        release.secret(made_up_key("second"))
        page.wait_text("#changes-body", "was rotated")
        assert page.complaints() == []
