"""`equabot lease` and `equabot key` against a broker process."""

import json
import signal
from datetime import UTC, datetime, timedelta

import pytest

from equabot.broker.v1 import broker_pb2
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

TWO_AGENTS = "agents: {main: {providers: ['*']}, coder: {providers: [openai]}}\n"


def test_acquire_json_is_the_lease_by_its_field_names(running_broker: RunningBroker) -> None:
    """Every field of the wire's Lease, instants RFC 3339, the secret included: that is what it is for."""
    done = running_broker.run("lease", "acquire", "anthropic", "--ttl", "10m", "--session", "s1", "--json")
    lease = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(lease) == {field.name for field in broker_pb2.Lease.DESCRIPTOR.fields}
    assert (lease["provider"], lease["profile"], lease["mode"]) == ("anthropic", "anthropic:dotenv", "api_key")
    assert (lease["delivery"], lease["secret"], lease["renewable"]) == ("raw", KEY, True)
    assert (lease["headers"], lease["env"]["ANTHROPIC_API_KEY"]) == ({"x-api-key": KEY}, KEY)
    assert lease["credential_expires_at"] is None
    issued, expires = (datetime.fromisoformat(lease[name]) for name in ("issued_at", "expires_at"))
    assert expires - issued == timedelta(minutes=10)
    assert abs(issued - datetime.now(UTC)) < timedelta(minutes=1)


def test_acquire_for_people_hides_the_secret(running_broker: RunningBroker) -> None:
    """It says how to get it, and until when the lease lasts."""
    done = running_broker.run("lease", "acquire", "anthropic:dotenv")
    assert done.returncode == 0
    assert KEY[:16] not in done.stdout + done.stderr
    assert "equabot key anthropic:dotenv" in done.stdout
    assert "in 15m" in done.stdout


def test_a_lease_is_listed_renewed_and_revoked(running_broker: RunningBroker) -> None:
    """From one command to the next: it outlives the command that acquired it."""
    lease = json.loads(running_broker.run("lease", "acquire", "anthropic", "--ttl", "60s", "--json").stdout)
    renewed = running_broker.run("lease", "renew", lease["id"], "--ttl", "30m", "--json")
    assert json.loads(renewed.stdout)["expires_at"] > lease["expires_at"]
    listed = json.loads(running_broker.run("lease", "list", "--json").stdout)
    assert [(entry["id"], entry["agent"], entry["profile"]) for entry in listed] == [(lease["id"], "main", "anthropic:dotenv")]
    assert "secret" not in listed[0]
    assert running_broker.run("lease", "list").stdout.startswith(f"{lease['id']}\tmain\tanthropic:dotenv\traw\tin ")
    assert running_broker.run("lease", "revoke", lease["id"]).returncode == 0
    assert running_broker.run("lease", "list").stdout == ""


def test_revoking_what_is_gone_is_no_failure(shared_broker: RunningBroker) -> None:
    """Idempotent."""
    assert shared_broker.run("lease", "revoke", "0" * 32).returncode == 0


def test_an_operator_revokes_any_agents_lease_an_agent_only_its_own(make_broker: MakeBroker) -> None:
    """With a word about which agent it is, the command speaks as that agent."""
    broker = make_broker(dotenv=f"OPENAI_API_KEY=sk-proj-{'a1' * 30}\n", config=TWO_AGENTS).start()
    lease = json.loads(broker.run("lease", "acquire", "openai", "--agent", "coder", "--json").stdout)
    assert broker.run("lease", "revoke", lease["id"], "--agent", "main").returncode == 0
    assert broker.run("lease", "revoke", lease["id"], EQUABOT_BROKER_ADDRESS=str(broker.socket("main"))).returncode == 0
    assert lease["id"] in broker.run("lease", "list", "--agent", "coder").stdout
    assert broker.run("lease", "revoke", lease["id"]).returncode == 0
    assert broker.run("lease", "list").stdout == ""


def test_an_agent_is_found_by_name_by_address_and_by_run_dir(make_broker: MakeBroker) -> None:
    """`--agent` goes before the address in the environment, and that before the usual place."""
    broker = make_broker(dotenv=f"OPENAI_API_KEY=sk-proj-{'a1' * 30}\nANTHROPIC_API_KEY={KEY}\n", config=TWO_AGENTS).start()
    coder = f"unix:{broker.socket('coder')}"
    refused = [
        broker.run("key", "anthropic", "--agent", "coder"),
        broker.run("key", "anthropic", EQUABOT_BROKER_ADDRESS=coder),
        broker.run("key", "anthropic", "--run-dir", str(broker.run_dir), "--agent", "coder", EQUABOT_RUN_DIR="/nowhere"),
    ]
    assert [(done.returncode, done.stderr.split(":")[1]) for done in refused] == [(1, " POLICY_DENIED")] * 3
    assert broker.run("key", "anthropic", "--agent", "main", EQUABOT_BROKER_ADDRESS=coder).stdout == KEY + "\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["lease", "acquire", "no-such-provider"], "PROVIDER_UNKNOWN"),
        (["lease", "acquire", "openai"], "NO_USABLE_PROFILE"),
        (["lease", "acquire", "anthropic:nowhere"], "PROFILE_NOT_FOUND"),
        (["lease", "acquire", "anthropic", "--delivery", "brokered"], "DELIVERY_NOT_ALLOWED"),
        (["lease", "renew", "0" * 32], "LEASE_NOT_FOUND"),
        (["key", "openai"], "NO_USABLE_PROFILE"),
        (["exec", "openai", "--", "true"], "NO_USABLE_PROFILE"),
    ],
)
def test_a_refusal_is_1_and_one_line_with_the_reason(shared_broker: RunningBroker, arguments: list[str], reason: str) -> None:
    """Nothing on standard output."""
    done = shared_broker.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"equabot: {reason}: ")


def test_key_prints_the_secret_alone_and_leaves_no_lease(shared_broker: RunningBroker) -> None:
    """More calls than an agent may hold leases: a script that asks in a loop must not use them up."""
    done = shared_broker.run("key", "anthropic")
    assert (done.returncode, done.stdout, done.stderr) == (0, KEY + "\n", "")
    assert shared_broker.run("lease", "list").stdout == ""
    assert shared_broker.run("key", "anthropic:dotenv").stdout == KEY + "\n"


def test_watch_follows_a_rotation_and_ends_with_the_lease(running_broker: RunningBroker) -> None:
    """One line an event, as it happens; the reader need not wait for a buffer to fill."""
    with running_broker.spawn("lease", "watch", "anthropic", "--json") as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        granted = json.loads(watching.stdout.readline())
        assert (granted["kind"], granted["lease"]["secret"]) == ("GRANTED", KEY)
        assert "streaming" in running_broker.run("lease", "list").stdout
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        rotated = json.loads(watching.stdout.readline())
        assert (rotated["kind"], rotated["lease"]["secret"]) == ("ROTATED", OTHER_KEY)
        assert rotated["lease_id"] == granted["lease_id"] == granted["lease"]["id"]
        running_broker.run("lease", "revoke", granted["lease_id"])
        revoked = json.loads(watching.stdout.readline())
        assert revoked == {"kind": "REVOKED", "lease_id": granted["lease_id"], "reason": "revoked", "lease": None}
        assert watching.wait(60) == 1
        assert watching.stderr.read() == "equabot: the lease has ended: revoked\n"


def test_watch_for_people_hides_the_secret_and_ends_by_ctrl_c(shared_broker: RunningBroker) -> None:
    """The lease ends with it."""
    with shared_broker.spawn("lease", "watch", "anthropic") as watching:
        assert watching.stdout is not None
        line = watching.stdout.readline()
        assert line.split("\t")[0].strip() == "GRANTED"
        assert KEY[:16] not in line
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
    assert shared_broker.run("lease", "list").stdout == ""
