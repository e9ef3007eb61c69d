"""An agent that turns hostile gains nothing, and takes nothing from the others: a real broker, a real Envoy, and a process of
its own that tries what has worked before."""

import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from equabot_broker.providers.catalog import PROVIDERS
from tests.fakes.upstream import Answer, Received, Upstream, refused
from tests.gateway import hostile
from tests.gateway.running import Gateway

pytestmark = pytest.mark.timeout(300)

AGENTS: Final = {
    "hostile": {"providers": [*hostile.MINTS], "deliveries": ["brokered"]},
    "honest": {"providers": ["*"], "deliveries": ["brokered"]},
}
AUDIT_AT_MOST: Final = 400_000
"""Bytes of audit log for what the hostile agent does here: some hundred uses and refusals, and the sums of the rest."""


RANDOM: Final = {provider: secrets.token_hex(24) for provider in hostile.MINTS}
KEYS: Final = {
    provider: next(iter(PROVIDERS[provider].key_prefixes), "key-") + "api03-" * (provider == "anthropic") + known
    for provider, known in RANDOM.items()
}


class Vendor(Upstream):
    """Every vendor. It refuses whatever carries a second credential, and what it is asked to refuse."""

    def answer(self, received: Received) -> Answer:
        if hostile.ANOTHER in received.path or hostile.ANOTHER in repr(received.headers):
            return refused(401)
        for status in (401, 402):
            if b"verdict-%d" % status in received.body:
                return refused(status)
        return super().answer(received)


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    with Vendor() as serving:
        yield serving


@pytest.fixture(scope="module")
def gateway(vendor: Vendor) -> Iterator[Gateway]:
    """With a key of every provider that the hostile agent tries."""
    names = {provider: PROVIDERS[provider] for provider in hostile.MINTS}
    variables = {provider: known.env_names[-1].name for provider, known in names.items()}
    dotenv = "".join(f"{variable}={KEYS[provider]}\n" for provider, variable in variables.items())
    places = {provider: {"base_url": vendor.url + urlsplit(known.base_url).path} for provider, known in names.items()}
    made = Gateway(vendor, dotenv=dotenv, agents=AGENTS, providers=places, required=["anthropic"])
    try:
        yield made.start()
    finally:
        made.close()


def run(gateway: Gateway, loot: Path, *later: str) -> dict[str, Any]:
    """What became of the hostile agent's attempts."""
    place = {"EQUABOT_BROKER_ADDRESS": f"unix:{gateway.socket('hostile')}"}
    done = subprocess.run(
        [sys.executable, hostile.__file__, str(gateway.port), str(loot), *later],
        env=place | {"PYTHONPATH": str(Path(hostile.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_hostile_agent_gains_nothing(gateway: Gateway, vendor: Vendor, tmp_path: Path) -> None:
    """S1, S4, S5, S8, S10, S11, S12: no path that mints credentials, no second credential and no verdict gets it anything; it
    is given no byte of a key; the honest agent is served all the while; the audit log stays small and whole; and once
    suspended it is refused everywhere."""
    honest = gateway.lease(agent="honest").secret.reveal()
    served: list[int] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            served.append(gateway.ask(honest).status)

    working = threading.Thread(target=go_on)
    working.start()
    try:
        report = run(gateway, tmp_path / "loot")
    finally:
        over.set()
        working.join()
    became: dict[str, list[list[Any]]] = report["became"]

    # It gained nothing.
    loot = (tmp_path / "loot").read_bytes()
    for provider, known in RANDOM.items():
        assert not any(known[at : at + 8].encode() in loot for at in range(len(known) - 7)), provider
    assert {tuple(each) for each in became["leases"]} == {(200, "")}
    assert {status for status, _ in became["mints"]} <= {403, 404}
    assert became["raw"] == [[0, "DELIVERY_NOT_ALLOWED"]]
    assert [each.path for each in vendor.received if hostile.ANOTHER in each.path + repr(each.headers)] == []
    reached = {urlsplit(each.path).path for each in vendor.received}
    assert reached <= {"/v1/messages", "/v1/models", "/v1/messages/count_tokens"}  # the last is the broker's own question

    # The others lost nothing.
    assert len(served) > 10
    assert set(served) == {200}
    assert gateway.run("health", "provider/anthropic").returncode == 0
    assert gateway.run("health", "readiness").returncode == 0
    assert {status for status, _ in became["strangers"]} <= {401, 429, 503}

    # What it did is on record, and does not fill a disk.
    log = tmp_path / "audit"
    log.write_text(gateway.audit())
    assert log.stat().st_size < AUDIT_AT_MOST
    assert gateway.run("audit", "verify", str(log)).returncode == 0

    # It can be stopped.
    assert gateway.run("agent", "suspend", "hostile").returncode == 0
    later = run(gateway, tmp_path / "later", "again", report["token"])["became"]
    assert later == {"gateway": [[403, "AGENT_SUSPENDED"]], "acquire": [[0, "AGENT_SUSPENDED"]]}
    assert gateway.ask(honest).status == 200
