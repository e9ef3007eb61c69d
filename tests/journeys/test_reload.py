"""The configuration, read again while a broker runs: applied as a whole or refused as a whole, by command and by SIGHUP."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from equabot_client import EquabotError, LeaseEvent
from equabot_client import admin as operator
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker

LOCAL = "providers: {local: {base_url: 'http://127.0.0.1:9/v1', env: {LOCAL_API_KEY: api_key}, requests: ['* /**']}}\n"
MAIN = "main: {max_leases: 50}"


def configure(broker: RunningBroker, text: str) -> None:
    """Replaces the configuration as an editor would: at once."""
    new = broker.home / "equabot.yaml.new"
    new.write_text(text)
    new.replace(broker.home / "equabot.yaml")


def agents(*written: str) -> str:
    return f"agents: {{{', '.join((MAIN, *written))}}}\n"


def reload(broker: RunningBroker) -> str:
    done = broker.run("reload")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def metric(broker: RunningBroker, name: str) -> float:
    line = next(line for line in broker.scrape().splitlines() if line.startswith(f"equabot_{name} "))
    return float(line.split()[1])


def audited(broker: RunningBroker, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in broker.audit().splitlines() if line.startswith("{")]
    return [record for record in records if record.get("kind") == kind]


@contextmanager
def streaming(broker: RunningBroker, agent: str = "main") -> Iterator[Callable[[str], LeaseEvent | None]]:
    """A lease on a stream. Gives a function that waits until an event of that kind has come."""
    seen: list[LeaseEvent] = []
    with broker.connect(agent) as client:

        def follow() -> None:
            try:
                for event in client.stream("anthropic"):
                    seen.append(event)  # noqa: PERF402 - the other thread looks meanwhile
            except EquabotError:
                return

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()

        def wait(kind: str) -> LeaseEvent | None:
            broker.wait_for(lambda: any(event.kind.name == kind for event in seen))
            return next(event for event in seen if event.kind.name == kind)

        wait("GRANTED")
        yield lambda kind: wait(kind) if kind else next((e for e in seen if e.kind.name == "REVOKED"), None)
    thread.join(60)


@pytest.fixture
def broker(make_broker: MakeBroker) -> RunningBroker:
    return make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\nLOCAL_API_KEY=local-key-of-a-test\n", config=agents()).start()


def test_an_agent_and_a_provider_come_while_a_stream_lives(broker: RunningBroker) -> None:
    """C15: both serve at once, no lease ends, and what was done is recorded without values."""
    with streaming(broker) as event, broker.connect() as client:
        lease = client.acquire("anthropic")
        configure(broker, agents("worker: {providers: [local]}") + LOCAL)
        assert reload(broker) == "reloaded: agent worker added, provider local added"
        with broker.connect("worker") as worker:
            assert worker.acquire("local").secret.reveal() == "local-key-of-a-test"
            with pytest.raises(EquabotError, match="may not use provider"):
                worker.acquire("anthropic")
        assert broker.socket("worker").stat().st_mode & 0o777 == 0o660
        assert event("") is None
        client.renew(lease.id)
    (record,) = audited(broker, "reloaded")
    assert (record["by"], record["leases"]) == ("admin", 0)
    assert record["changes"][:2] == ["agent worker added", "provider local added"]
    assert len(record["digest"]) == 16
    assert metric(broker, "config_last_reload_successful") == 1


def test_an_agent_that_goes_loses_its_leases_and_its_socket(broker: RunningBroker) -> None:
    """C15: its stream hears why; the others stay."""
    configure(broker, agents("worker: {providers: ['*']}"))
    reload(broker)
    with streaming(broker) as of_main, streaming(broker, "worker") as of_worker:
        configure(broker, agents())
        assert reload(broker) == "reloaded: agent worker removed; 1 lease ended"
        revoked = of_worker("REVOKED")
        assert revoked is not None
        assert revoked.reason == "policy"
        broker.wait_for(lambda: not broker.socket("worker").exists())
        assert of_main("") is None


def test_a_policy_that_grants_less_ends_what_it_does_not_grant(broker: RunningBroker) -> None:
    """C15: leases of a provider or delivery that is taken away end; a shorter max_ttl shortens; the rest stays."""
    with broker.connect() as client:
        kept, gone = client.acquire("anthropic"), client.acquire("anthropic", ttl=timedelta(minutes=50))
        configure(broker, "agents: {main: {max_ttl: 20m}}\n")
        assert reload(broker) == "reloaded: agent main changed"
        (first, second) = (lease for lease in _leases(broker))
        assert {first.id, second.id} == {kept.id, gone.id}
        assert all((lease.max_expires_at - lease.issued_at).total_seconds() <= 1200.01 for lease in (first, second))
        configure(broker, "agents: {main: {providers: [openai]}}\n")
        assert reload(broker) == "reloaded: agent main changed; 2 leases ended"
        with pytest.raises(EquabotError, match="may not use provider"):
            client.acquire("anthropic")


def _leases(broker: RunningBroker) -> list[operator.LeaseSummary]:
    with operator.connect(str(broker.socket("admin"))) as admin:
        return admin.list_leases()


def test_a_wrong_file_changes_nothing(broker: RunningBroker) -> None:
    """C15: every fault is listed, with exit 64; the metric, Diagnose and the audit log say it; a right one clears it."""
    with streaming(broker) as event:
        configure(broker, "agents: {main: {max_ttl: never}, worker: {}}\nnonsense: 1\n")
        done = broker.run("reload")
        assert done.returncode == 64
        assert len([line for line in done.stderr.splitlines() if "max_ttl" in line or "nonsense" in line]) == 2
        assert not broker.socket("worker").exists()
        assert metric(broker, "config_last_reload_successful") == 0
        said = broker.run("doctor").stdout
        assert "the last reload was refused" in said or "max_ttl" in said
        assert audited(broker, "reload_refused")[0]["faults"] == 2
        assert event("") is None
        configure(broker, agents("worker: {providers: ['*']}"))
        reload(broker)
    assert metric(broker, "config_last_reload_successful") == 1


def test_what_cannot_change_is_refused_whole(broker: RunningBroker) -> None:
    """C15: nothing of that file is applied."""
    configure(broker, agents("worker: {}") + "listen: {metrics: '127.0.0.1:1'}\naudit: {path: audit}\n")
    done = broker.run("reload")
    assert (done.returncode, done.stderr) == (1, "needs a restart: listen.metrics, audit.path\n")
    assert not broker.socket("worker").exists()
    with operator.connect(str(broker.socket("admin"))) as admin:
        (found,) = [finding for finding in admin.findings() if finding.message.startswith("the running")]
        assert (found.subject, found.remedy) == ("configuration", "equabot reload")
    (broker.home / "equabot.yaml").unlink()
    done = broker.run("reload")
    assert (done.returncode, "is gone; put it back" in done.stderr) == (64, True)


def test_sources_come_and_go(broker: RunningBroker, tmp_path: Path) -> None:
    """C15: their profiles with them, as one update."""
    (tmp_path / "OPENAI_API_KEY").write_text("sk-proj-" + "m0unted0" * 8)
    configure(broker, agents() + f"sources: [mounted: {{path: {tmp_path}}}]\nrequired: [openai]\n")
    assert "source mounted" in reload(broker)
    done = broker.run("models", "status", "--plain", EQUABOT_DEBUG="1")
    assert (done.stdout.split("\t")[0], done.stderr) == ("openai:mounted", "")
    broker.wait_healthy("readiness")
    broker.wait_healthy("provider/anthropic", serving=False)
    configure(broker, agents())
    reload(broker)
    broker.wait_healthy("profile/anthropic:dotenv")


def test_sighup_reloads_and_kills_at_no_time(make_broker: MakeBroker) -> None:
    """P24: not while the broker starts, not under load, not while it stops."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=agents())
    broker.start(service="liveness")
    configure(broker, agents("worker: {providers: ['*']}"))
    with streaming(broker) as event:
        for _ in range(50):
            broker.send(signal.SIGHUP)
        broker.wait_for(broker.socket("worker").exists)
        broker.wait_for(lambda: bool(audited(broker, "reloaded")))
        assert "SIGHUP" in audited(broker, "reloaded")[0]["by"]
        configure(broker, "nonsense: 1\n")
        broker.send(signal.SIGHUP)
        broker.wait_for(lambda: "the configuration is refused" in broker.log())
        assert event("") is None
    broker.send(signal.SIGTERM)
    broker.send(signal.SIGHUP)
    assert broker.wait_ended() == 0


def test_a_sighup_that_is_ignored_stays_ignored(make_broker: MakeBroker) -> None:
    """P24: `nohup equabot serve` keeps its meaning."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=agents())
    broker.command = ("/usr/bin/env", "nohup", *broker.command)
    broker.start()
    configure(broker, agents("worker: {providers: ['*']}"))
    broker.send(signal.SIGHUP)
    assert reload(broker) == "reloaded: agent worker added"
    assert [record["by"] for record in audited(broker, "reloaded")] == ["admin"]
