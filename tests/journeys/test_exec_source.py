"""A real broker whose credential comes from a program: rotation, a failing program, and the last good value."""

import json

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker

CONFIG = """\
required: [anthropic]
sources:
  - exec: {{command: ['{helper}'], ids: {{anthropic:team: team/anthropic}}, refresh: 200ms}}
"""


def reports(broker: RunningBroker, script: str) -> None:
    new = broker.home / "helper.new"
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.replace(broker.home / "helper")


def answer(key: str) -> str:
    return "echo '" + json.dumps({"protocolVersion": 1, "values": {"team/anthropic": key}}) + "'"


def test_a_program_rotates_a_key_and_fails_without_ending_it(make_broker: MakeBroker) -> None:
    broker = make_broker()
    (broker.home / "equabot.yaml").write_text(CONFIG.format(helper=broker.home / "helper"))
    reports(broker, answer(KEY))
    broker.start()
    with broker.connect() as client, client.credential("anthropic") as credential:
        lease = credential.lease()
        assert (lease.profile, lease.secret.reveal()) == ("anthropic:team", KEY)
        second = KEY[:-4] + "2222"
        reports(broker, answer(second))
        assert credential.wait_for_change(since=lease, timeout=60).secret.reveal() == second
        reports(broker, f"echo {KEY} >&2; exit 7")
        broker.wait_for(lambda: "ended with exit code 7" in broker.log())
        assert client.acquire("anthropic").secret.reveal() == second
        said = broker.run("doctor").stdout
        assert "ended with exit code 7" in said
        assert KEY not in said + broker.log()
