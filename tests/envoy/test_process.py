"""Envoy as a child: started, started again, stopped, never left behind."""

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from equabot_broker.domain.errors import CannotStart
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.envoy.bootstrap_config import Gateway, as_yaml, bootstrap_config
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.envoy.process import EnvoyProcess, fitting
from tests.ports import free_port
from tests.tiers import program, require


@pytest.fixture
def config(tmp_path: Path) -> tuple[Path, int]:
    """A configuration and its port."""
    require("envoy")
    port = free_port()
    made = Gateway(host="127.0.0.1", port=port, control=tmp_path / "control.sock", upstreams=(), options=GatewayOptions())
    file = tmp_path / "envoy.yaml"
    file.write_text(as_yaml(bootstrap_config(made)))
    return file, port


def envoy(config: tuple[Path, int], name: str = "") -> EnvoyProcess:
    file, port = config
    return EnvoyProcess(
        name or str(program("envoy")), file, host="127.0.0.1", port=port, clock=SystemClock(), chance=lambda: 0.0
    )


def children(file: Path) -> list[psutil.Process]:
    """The Envoys that run with the file."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "envoy" and str(file) in process.cmdline():
                found.append(process)
    return found


async def until_listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(process: EnvoyProcess) -> AsyncIterator[None]:
    """Started, and kept running."""
    await process.start()
    task = asyncio.create_task(process.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await process.stop()


async def test_it_listens_once_it_is_started_and_is_gone_once_it_is_stopped(config: tuple[Path, int]) -> None:
    """With nothing of the broker's environment."""
    async with running(envoy(config)):
        await until_listening(config[1])
        [child] = children(config[0])
        assert child.environ().keys() <= {"LC_CTYPE"}  # which Python sets by itself
    assert children(config[0]) == []


async def test_no_process_in_its_network_can_take_its_place(config: tuple[Path, int]) -> None:
    """Sockets without a file have no owner: who shares the network could ask an Envoy there for the one that it listens on."""
    async with running(envoy(config)):
        [child] = children(config[0])
        assert {str(socket.laddr) for socket in child.net_connections("unix")} <= {""}


async def test_one_that_dies_is_started_again(config: tuple[Path, int], caplog: pytest.LogCaptureFixture) -> None:
    """And the log says so."""
    with caplog.at_level(logging.ERROR, "equabot.gateway"):
        async with running(envoy(config)):
            [child] = children(config[0])
            child.kill()  # and reaped by its parent alone
            async with asyncio.timeout(60):
                while "the gateway has ended (-9)" not in caplog.text:  # noqa: ASYNC110 - a line of the log sets no event
                    await asyncio.sleep(0.01)
            await until_listening(config[1])


async def test_a_program_that_is_not_there_is_named(config: tuple[Path, int]) -> None:
    """With what to do."""
    with pytest.raises(CannotStart, match=r"program 'no-such-envoy' does not exist.*install Envoy, or set gateway.envoy"):
        await envoy(config, "no-such-envoy").start()


async def test_a_port_that_is_taken_is_said(config: tuple[Path, int]) -> None:
    """Another program that answers there is not taken for the gateway."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", config[1])
    async with server:
        with pytest.raises(CannotStart, match=r"cannot listen on 127.0.0.1:\d+: Address already in use"):
            await envoy(config).start()


async def test_a_configuration_that_envoy_refuses_is_said(config: tuple[Path, int]) -> None:
    """In Envoy's own words."""
    config[0].write_text("nonsense: true\n")
    with pytest.raises(CannotStart, match=r"exited at its start with code 1: .*nonsense"):
        await envoy(config).start()


def test_it_does_not_outlive_a_broker_that_is_killed(config: tuple[Path, int]) -> None:
    """After SIGKILL, no process is left to stop it."""
    script = (
        "import asyncio, sys; from pathlib import Path; from equabot_broker.envoy.process import EnvoyProcess;"
        "from equabot_broker.engine.timing.clock import SystemClock;"
        f"e = EnvoyProcess({str(program('envoy'))!r}, Path({str(config[0])!r}), host='127.0.0.1', port={config[1]},"
        " clock=SystemClock(), chance=lambda: 0.0)\n"
        "async def main():\n    await e.start()\n    print('up', flush=True)\n    await e.run()\nasyncio.run(main())"
    )
    broker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]})
    assert broker.stdout is not None
    assert broker.stdout.readline() == b"up\n"
    [child] = children(config[0])
    broker.send_signal(signal.SIGKILL)
    broker.wait(60)
    broker.stdout.close()
    psutil.wait_procs([child], 10)
    assert children(config[0]) == []


def test_a_child_has_no_more_connections_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """S10: half of them, for each connection may need one to a vendor."""
    for files, allowed in ((1000, 500), (1 << 20, 8192), (resource.RLIM_INFINITY, 8192), (1, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (256, files))
        assert fitting(GatewayOptions()).max_connections == allowed
