"""A real Prometheus that scrapes a real broker: what the chart's dashboard asks has answers, and an alert becomes active."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import SERVICE_UNAVAILABLE
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from equabot_client import EquabotError, Outcome
from tests.fakes.upstream import Upstream
from tests.gateway.running import DOTENV, Gateway
from tests.journeys.running import KEY, OTHER_KEY
from tests.ports import free_port
from tests.prometheus.rules import JOB, alerts, panels, write_rules
from tests.tiers import program, require

UNUSED: Final = {"Login refreshes"}
"""Panels without data here: the broker has no login that it refreshes."""


class Prometheus:
    """A server with the chart's alerts, which scrapes one broker each second."""

    def __init__(self, home: Path, target: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        write_rules(home / "rules.yaml", alerts())
        scraped = {"targets": [target], "labels": {"namespace": "agents", "pod": "a-0"}}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": JOB, "static_configs": [scraped]}],
        }
        (home / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._log = (home / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                str(program("prometheus")), f"--config.file={home / 'prometheus.yaml'}", f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API; None while it does not answer."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            if refused.code != SERVICE_UNAVAILABLE:
                raise AssertionError(refused.read().decode()) from None
        except (urllib.error.URLError, ConnectionError):
            pass  # it does not listen yet
        return None

    def rows(self, expression: str) -> list[Any]:
        """What an expression yields now."""
        data = self.ask("query", query=expression)
        found: list[Any] = data["result"] if data else []
        return found

    def alert(self, name: str, state: str) -> bool:
        """Whether the alert is in the state: `pending` or `firing`."""
        data = self.ask("alerts")
        return data is not None and (name, state) in {(one["labels"]["alertname"], one["state"]) for one in data["alerts"]}

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait(60)
        self._log.close()


@pytest.fixture
def broker() -> Iterator[Gateway]:
    """A broker of which every panel but those in UNUSED can show something."""
    require("prometheus")
    end = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with Upstream() as vendor:
        profiles = {"groq:trial": {"from": {"dotenv": "TRIAL"}, "expires_at": end}}
        made = Gateway(vendor, dotenv=f"{DOTENV}TRIAL=gsk_{'trialkey' * 6}\n", profiles=profiles)
        made.start()
        yield made
        made.close()


@pytest.fixture
def prometheus(broker: Gateway, tmp_path: Path) -> Iterator[Prometheus]:
    started = Prometheus(tmp_path, broker.metrics)
    yield started
    started.close()


def use(broker: Gateway) -> None:
    """Leases, a stream, a rotation, a report, answered and refused requests."""
    with broker.connect() as main:
        lease = main.acquire("groq")
        main.report(lease, Outcome.RATE_LIMIT)
        with pytest.raises(EquabotError):
            main.acquire("mistral")
    token = broker.lease().secret.reveal()
    assert broker.ask(token).status == 200
    assert broker.ask("no-lease").status == 401
    broker.write_dotenv(broker.dotenv.read_text().replace(KEY, OTHER_KEY))


def test_every_panel_and_every_alert_has_an_answer(broker: Gateway, prometheus: Prometheus) -> None:
    broker.wait_for(lambda: bool(prometheus.rows("up == 1")))
    use(broker)
    for title, expressions in panels().items():
        for text in expressions:
            if title in UNUSED:
                assert prometheus.ask("query", query=text)["result"] == [], text
            else:
                broker.wait_for(lambda text=text: bool(prometheus.rows(text)))  # type: ignore[misc]
    broker.wait_for(lambda: prometheus.alert("EquabotCredentialExpiring", "firing"))
    (group,) = prometheus.ask("rules")["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == {each["alert"]: "ok" for each in alerts()}
    assert [rule["name"] for rule in group["rules"] if rule["alerts"]] == ["EquabotCredentialExpiring"]

    broker.kill()
    broker.wait_for(lambda: prometheus.alert("EquabotBrokerDown", "pending"))
