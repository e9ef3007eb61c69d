"""The example in CONTRIBUTING.md: one module and one line are a source that is configured, documented and served."""

import asyncio
import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest

from equabot_broker.bootstrap.background_tasks import background_tasks
from equabot_broker.bootstrap.engine import ConfiguredEngine
from equabot_broker.config.keys import document_keys
from equabot_broker.config.load import load
from equabot_broker.config.model import Config
from equabot_broker.domain.errors import BrokerError
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.schema.faults import ConfigurationFaults
from equabot_broker.sources.declaration import SourceKind
from equabot_broker.sources.registry import KINDS, by_name
from equabot_broker.telemetry.events import Events
from tests.fakes.state import MemoryStateStore

ROOT = Path(__file__).parents[2]
KEY = "sk-proj-" + "k3y" * 16


@pytest.fixture
def kinds(tmp_path: Path) -> Mapping[str, SourceKind]:
    """Those of the broker, and that of the example."""
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    module = tmp_path / "one_key.py"
    module.write_text(guide.partition("```python\n")[2].partition("```")[0])
    return by_name(*KINDS.values(), runpy.run_path(str(module))["ONE_KEY"])


def configured(home: Path, text: str, kinds: Mapping[str, SourceKind]) -> Config:
    (home / "equabot.yaml").write_text(text)
    return load(environ={"EQUABOT_HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")}, home=home, kinds=kinds)


def test_the_configuration_reads_it(tmp_path: Path, kinds: Mapping[str, SourceKind]) -> None:
    """With its default, its keys and the paths of the file; only where it is registered."""
    found = configured(tmp_path, "sources: [one_key, {one_key: {path: x}}]", kinds).sources
    assert [spec.options["path"] for spec in found] == [tmp_path / "openai.key", tmp_path / "x"]
    assert "one_key" not in {spec.kind for spec in configured(tmp_path, "", kinds).sources}
    with pytest.raises(ConfigurationFaults, match="unknown key; known keys: path"):
        configured(tmp_path, "sources: [one_key: {where: x}]", kinds)
    with pytest.raises(ConfigurationFaults, match="unknown key"):
        configured(tmp_path, "sources: [one_key]", KINDS)


def test_the_reference_lists_it(kinds: Mapping[str, SourceKind], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys with their meaning, default and example."""
    monkeypatch.syspath_prepend(ROOT / "deploy" / "reference")
    page = runpy.run_path(str(ROOT / "deploy" / "reference" / "configuration.py"))["write"](document_keys(kinds))
    (row,) = (line for line in page.splitlines() if line.startswith("| `sources[].one_key.path`"))
    assert all(text in row for text in ("$EQUABOT_HOME/openai.key", "/run/openai.key", "The file."))


async def test_the_broker_serves_it(tmp_path: Path, kinds: Mapping[str, SourceKind]) -> None:
    """A lease of what the file holds, also when that changes."""
    config = configured(tmp_path, "sources: [one_key]", kinds)
    broker = ConfiguredEngine(config, clock=SystemClock(), store=MemoryStateStore(), events=Events())
    engine = broker.engine
    async with background_tasks(engine.ingest.run()):
        async with asyncio.timeout(60):
            await engine.ingest.wait_attempted()
            with pytest.raises(BrokerError):
                engine.lease_service.acquire("main", LeaseRequest(provider="openai"))
            (tmp_path / "openai.key").write_text(KEY)
            while not engine.profile_statuses.of("main", "openai"):
                await engine.ingest.reread()
        granted = engine.lease_service.acquire("main", LeaseRequest(provider="openai"))
    await broker.logins.close()
    assert granted.lease.profile == "openai:one_key"
