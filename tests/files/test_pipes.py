"""A named pipe where a file is expected: each reader refuses it at once, and does not wait for a writer."""

import asyncio
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from equabot_broker.config.load import load
from equabot_broker.domain.errors import CannotStart
from equabot_broker.domain.material import SourceFault, SourceUnavailable, UnitsListed
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.tool_logins import CLAUDE
from equabot_broker.identity.published_keys import KeysOfFile, KeysUnread
from equabot_broker.identity.server_certificate import ServerCertificate
from equabot_broker.kube import _client
from equabot_broker.kube._faults import KubeFault
from equabot_broker.oauth.workload import Workload
from equabot_broker.ports import Source, StoreFault
from equabot_broker.schema.faults import ConfigurationFaults
from equabot_broker.sources.dotenv import Dotenv, DotenvOptions
from equabot_broker.sources.mounted import Mounted, MountedOptions
from equabot_broker.sources.tool_login import ToolLogin, ToolLoginOptions
from equabot_broker.sources.workload import Workloads
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.dotenv_file import assign
from equabot_broker.storage.edited_file import Unwritable
from equabot_broker.storage.sealing import Seal
from tests.fakes.clock import FakeClock
from tests.fakes.following import RULES, live_watch
from tests.fakes.scripted_endpoint import ScriptedEndpoint, refused
from tests.kubernetes.certificates import Authority

_WITHIN = 60.0
PAIR = Authority("pipes").server("localhost")


def at_once(pipe: Path, read: Callable[[], object]) -> object:
    """What reading says, from a thread; one that waits for the pipe fails the test, and is let go."""
    said: list[object] = []

    def run() -> None:
        try:
            said.append(read())
        except Exception as error:  # noqa: BLE001 - it is looked at below
            said.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_WITHIN)
    if thread.is_alive():
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        pytest.fail(f"the reader waits for {pipe.name}")
    return said[0]


def piped(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_a_certificate(tmp_path: Path, name: str) -> None:
    """S28: the server's, its key, and the authority of its callers."""
    files = {"tls.crt": PAIR.certificate, "tls.key": PAIR.key, "ca.crt": PAIR.certificate}
    for other in files.keys() - {name}:
        (tmp_path / other).write_bytes(files[other])
    pipe = piped(tmp_path / name)
    certificate = ServerCertificate(
        tmp_path / "tls.crt", tmp_path / "tls.key", client_ca=tmp_path / "ca.crt",
        clock=FakeClock(now=datetime.now(UTC).timestamp()),
    )  # fmt: skip
    said = at_once(pipe, certificate.read)
    assert isinstance(said, CannotStart)
    assert f"{name} is not a regular file: put a plain file in its place" in str(said)


def test_the_keys_of_service_accounts(tmp_path: Path) -> None:
    """S28: a key set in a file."""
    pipe = piped(tmp_path / "jwks.json")
    said = at_once(pipe, lambda: asyncio.run(KeysOfFile(pipe, issuer="https://issuer").read()))
    assert isinstance(said, KeysUnread)
    assert "is not a regular file" in str(said)


def test_the_key_that_seals_stores(tmp_path: Path) -> None:
    """S28: nothing is written in the open instead."""
    pipe = piped(tmp_path / "seal.key")
    said = at_once(pipe, lambda: Seal(pipe, record=pipe.with_name("seals.json")).of("main").seal(b"{}"))
    assert isinstance(said, StoreFault)
    assert "is not a regular file" in str(said)


def test_the_configuration(tmp_path: Path) -> None:
    """S28: a fault of the configuration."""
    pipe = piped(tmp_path / "equabot.yaml")
    said = at_once(pipe, lambda: load(config_path=str(pipe), environ={}, home=tmp_path))
    assert isinstance(said, ConfigurationFaults)
    assert "is not a regular file" in str(said)


def test_a_profile_store(tmp_path: Path) -> None:
    """S28: an agent's `auth-profiles.json`."""
    pipe = piped(tmp_path / "agent" / "auth-profiles.json")
    said = at_once(pipe, AuthProfiles(pipe, clock=SystemClock()).read)
    assert isinstance(said, StoreFault)
    assert "is not a regular file" in str(said)


def test_a_kubeconfig(tmp_path: Path) -> None:
    """S28: the client library, which would wait, never opens it."""
    pipe = piped(tmp_path / "kubeconfig")
    said = at_once(pipe, lambda: asyncio.run(_client.load(pipe, mounted=tmp_path)))
    assert isinstance(said, KubeFault)
    said = at_once(piped(tmp_path / "token"), lambda: asyncio.run(_client.load(None, mounted=tmp_path)))
    assert isinstance(said, KubeFault)


def test_a_dotenv_that_a_key_is_to_be_written_to(tmp_path: Path) -> None:
    """S28: `equabot onboard` writes there."""
    pipe = piped(tmp_path / ".env")
    said = at_once(pipe, lambda: assign(pipe, "OPENAI_API_KEY", SecretValue("k")))
    assert isinstance(said, Unwritable)
    assert "is not a regular file" in str(said)


def _sources(path: Path) -> dict[str, Source]:
    token = Workload(profile="anthropic:wif", provider="anthropic", token_file=str(path))
    return {
        "dotenv": Dotenv(DotenvOptions(path), rules=RULES, watch=live_watch()),
        "claude_cli": ToolLogin(ToolLoginOptions("claude_cli", CLAUDE, path), rules=RULES, watch=live_watch()),
        "mounted": Mounted(MountedOptions(path.parent), rules=RULES, watch=live_watch()),
        "workload": Workloads([token], catalog=RULES.catalog, clock=SystemClock(), endpoint=ScriptedEndpoint(refused(400))),
    }


@pytest.mark.parametrize("kind", ["dotenv", "claude_cli", "mounted", "workload"])
def test_a_source(tmp_path: Path, kind: str) -> None:
    """S28: `.env`, another tool's login, a mounted key, an identity token."""
    pipe = piped(tmp_path / "OPENAI_API_KEY")

    async def first() -> object:
        events = _sources(pipe)[kind].events()
        try:
            return await anext(events)
        finally:
            await events.aclose()  # type: ignore[attr-defined]  # every source of ours is a generator

    said = at_once(pipe, lambda: asyncio.run(first()))
    match said:
        case SourceUnavailable(fault):
            assert "is not a regular file" in fault
        case UnitsListed((unit,), _) if kind == "workload":
            assert unit.faults == (SourceFault(str(pipe), f"{pipe} is not a regular file: put a plain file in its place"),)
        case UnitsListed((), failed):
            assert "is not a regular file" in failed[""]
        case _:
            pytest.fail(f"{said!r}")
