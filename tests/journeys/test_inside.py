"""Nothing inside of a running broker can be made to show a secret, and no defect of its own makes it do so."""

import json
import signal
import sys
from collections.abc import Iterator

import pytest

from equabot_client import errors
from tests.journeys.canaries import KEY, TOKEN, Canaries
from tests.journeys.running import RunningBroker


@pytest.fixture
def looked_into() -> Iterator[tuple[RunningBroker, Canaries, str]]:
    """A broker with somebody inside, what to look for, and the one secret that can be leased."""
    canaries = Canaries()
    secret = canaries.new("the environment", like=KEY)
    moonshot = canaries.new("malformed", like=KEY)
    broker = RunningBroker(
        credentials={"ANTHROPIC_API_KEY": secret, "MOONSHOT_API_KEY": moonshot, "ANTHROPIC_API_KEYS": canaries.new("listed")},
        dotenv=f"ANTHROPIC_API_KEY={canaries.new('the file', like=TOKEN)}\nGROQ_API_KEY=${{{canaries.new('a placeholder')}}}\n",
        config=f"env: {{ACME_TOKEN: {canaries.new('the configuration')}}}\n",
    )
    broker.command = (sys.executable, "-m", "tests.journeys.inside")
    yield broker.start("-vv"), canaries, secret
    broker.close()


def test_nothing_inside_can_be_made_to_speak(looked_into: tuple[RunningBroker, Canaries, str]) -> None:
    """Every object of ours that can be got at from the engine, printed, formatted, copied, pickled, as JSON; the text of a
    secret is in reach through its SecretValue alone. Tracebacks of refusals show nothing, local variables included."""
    broker, canaries, _ = looked_into
    with broker.connect() as client:
        events = client.stream("anthropic:env", session="held")
        assert next(events).kind.name == "GRANTED"
        assert client.acquire("anthropic").profile == "anthropic:env-keys-1"
        broker.send(signal.SIGUSR1)
        written = broker.home / "inside.json"
        broker.wait_for(written.exists)
    report = json.loads(written.read_text())
    assert report["hidden"] >= 3
    assert report["kinds"].keys() >= {
        "Engine",
        "ProfileRegistry",
        "HeldProfile",
        "Profile",
        "Lease",
        "Mailbox",
        "Plan",
        "LeaseMessages",
    }
    assert report["reasons"] == ["LEASE_EXPIRED", "PROFILE_NOT_FOUND", "NO_USABLE_PROFILE", "POLICY_DENIED", "LEASE_NOT_FOUND"]
    assert len(report["spoken"]) > 500
    assert "anthropic:env" in report["texts"]
    assert canaries.leaks({f"{what} {at}": text for what in ("spoken", "texts") for at, text in enumerate(report[what])}) == {}


def test_a_live_secret_is_masked_in_the_log_whatever_it_looks_like(looked_into: tuple[RunningBroker, Canaries, str]) -> None:
    """The last net: somebody logs it. It holds for what came with the last change as well."""
    broker, canaries, _ = looked_into
    broker.write_dotenv(f"GROQ_API_KEY={canaries.new('new, and of no known form')}\n")
    broker.wait_healthy("provider/groq")
    broker.send(signal.SIGUSR1)
    broker.wait_for((broker.home / "inside.json").exists)
    log = broker.log()
    for profile in ("anthropic:env", "anthropic:env-keys-1", "groq:dotenv"):
        assert f'"message":"{profile} is [redacted]!"' in log
    assert not canaries.leaks({"log": log})


def test_a_defect_in_a_handler_is_an_incident_without_a_word_of_it(looked_into: tuple[RunningBroker, Canaries, str]) -> None:
    """The caller learns a number, the log where it was; the broker serves on."""
    broker, canaries, secret = looked_into
    with broker.connect() as client:
        with pytest.raises(errors.Unexpected, match=r"internal error: .* incident [0-9a-f]{8}") as raised:
            client.acquire("anthropic:env", session="explode")
        assert client.acquire("anthropic:env").secret.reveal() == secret
    incident = str(raised.value).rpartition(" ")[2]
    log = broker.log()
    assert f"incident {incident}: RuntimeError in equabot.broker.v1.Broker/AcquireLease at inside.py" in log
    assert canaries.leaks({"log": log, "error": repr(raised.value)}) == {}


def test_a_defect_in_a_source_is_a_fault_without_a_word_of_it(looked_into: tuple[RunningBroker, Canaries, str]) -> None:
    """P1: said by number, with where it was; the broker serves on, and the source once the defect is not met."""
    broker, canaries, secret = looked_into
    broker.write_dotenv(f"GROQ_API_KEY={canaries.new('the last', like='gsk_{}')}\n# explode\n")
    broker.wait_for(lambda: "an unexpected fault of source dotenv" in broker.log())
    with broker.connect() as client:
        assert client.acquire("anthropic:env").secret.reveal() == secret
    log, said = broker.log(), broker.run("doctor").stdout
    assert "inside.py" in log
    assert "an unexpected fault (ValueError), incident " in said
    assert canaries.leaks({"log": log, "doctor": said}) == {}
    broker.write_dotenv(f"GROQ_API_KEY={canaries.new('another', like='gsk_{}')}\n")
    broker.wait_healthy("provider/groq")
