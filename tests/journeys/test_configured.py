"""Profiles that the configuration names, and sources that are followed live, on running brokers."""

from datetime import UTC, datetime, timedelta

import pytest

from equabot_client import EventKind
from tests.fakes.volume import Volume
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

TOKEN = "sk-ant-oat01-" + "configured0" * 8
EXAMPLE = """\
agents:
  main: {providers: ["*"], deliveries: [raw, brokered], max_ttl: 1h, max_leases: 100}
required: [anthropic]
sources:
  - mounted: {path: secrets}
  - dotenv: {path: .env}
  - env: {}
profiles:
  anthropic:prod: {from: {mounted: {dir: llm, key: ANTHROPIC_API_KEY}}, expires_at: 2099-01-01T00:00:00Z}
  anthropic:login:
    from:
      env: MY_LOGIN
    mode: token
    expires_at: 2099-01-01T00:00:00+02:00
  openai:batch: {from: {dotenv: BATCH}, alias: batch}
auth: {order: {anthropic: [anthropic:prod, anthropic:login]}}
models: {default: anthropic/claude-sonnet-4-5, fallbacks: [], aliases: {sonnet: anthropic/claude-sonnet-4-5}}
leases: {default_ttl: 15m, max_ttl: 1h}
expiry: {warn_within: 24h, stale_budget: 10m}
audit: {path: "-", fail_closed: false}
"""


@pytest.fixture
def configured(make_broker: MakeBroker) -> RunningBroker:
    broker = make_broker(credentials={"MY_LOGIN": TOKEN}, dotenv="BATCH=sk-proj-batch\n", config=EXAMPLE)
    (broker.home / "secrets" / "llm").mkdir(parents=True)
    (broker.home / "secrets" / "llm" / "ANTHROPIC_API_KEY").write_text(KEY)
    return broker.start()


def test_profiles_are_where_the_configuration_says_they_come_from(configured: RunningBroker) -> None:
    """From a mounted directory, a variable, a `.env`; written on one line or on several; with the mode and end given."""
    with configured.connect() as broker:
        expected = {
            "anthropic:prod": (KEY, "api_key", datetime(2099, 1, 1, tzinfo=UTC), "x-api-key"),
            "anthropic:login": (TOKEN, "token", datetime(2098, 12, 31, 22, tzinfo=UTC), "Authorization"),
            "openai:batch": ("sk-proj-batch", "api_key", None, "Authorization"),
        }
        for profile, (secret, mode, end, header) in expected.items():
            lease = broker.acquire(profile)
            assert (lease.secret.reveal(), lease.mode, lease.credential_expires_at) == (secret, mode, end)
            assert header in lease.headers
        assert [profile.id for profile in broker.list_profiles()] == list(expected)
        assert broker.acquire("anthropic").profile == "anthropic:prod"
        (configured.home / "secrets" / "llm" / "ANTHROPIC_API_KEY").unlink()
        events = broker.stream("anthropic:login")
        assert next(events).kind is EventKind.GRANTED
        configured.wait_output("models", "status", until=lambda text: "anthropic:prod\tmissing" in text)
        assert broker.acquire("anthropic").profile == "anthropic:login"


def test_a_swap_of_the_kubelets_reaches_an_open_stream(make_broker: MakeBroker) -> None:
    """The whole directory is exchanged at once: what is new is pushed, what vanished is gone."""
    broker = make_broker(config="sources: [{mounted: {path: secrets}}]\n")
    volume = Volume(broker.home / "secrets", {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": "sk-proj-first"})
    broker.start()
    with broker.connect() as client:
        kept, lost = client.stream("anthropic"), client.stream("openai")
        first = next(kept).lease
        assert first is not None
        assert next(lost).kind is EventKind.GRANTED
        volume.swap({"ANTHROPIC_API_KEY": OTHER_KEY})
        rotated, ended = next(kept), next(lost)
        assert rotated.lease is not None
        assert (rotated.kind, rotated.lease.id, rotated.lease.secret.reveal()) == (EventKind.ROTATED, first.id, OTHER_KEY)
        assert (ended.kind, ended.reason) == (EventKind.REVOKED, "no_usable_profile")
        for key in (KEY, OTHER_KEY) * 5:
            volume.swap({"ANTHROPIC_API_KEY": key})
            rotated = next(kept)
            assert rotated.lease is not None
            assert rotated.lease.secret.reveal() == key


@pytest.mark.parametrize(("left", "code"), [(timedelta(days=3), 0), (timedelta(hours=3), 2), (timedelta(hours=-1), 1)])
def test_check_judges_tokens_by_their_end(make_broker: MakeBroker, left: timedelta, code: int) -> None:
    """0 fine, 2 within a day of the end, 1 after it: with the broker and without; health says the same where it is over."""
    end = (datetime.now(UTC) + left).strftime("%Y-%m-%dT%H:%M:%SZ")
    profile = f"profiles: {{anthropic:login: {{from: {{env: MY_LOGIN}}, mode: token, expires_at: {end}}}}}\n"
    broker = make_broker(credentials={"MY_LOGIN": TOKEN}, config=profile)
    assert broker.run("models", "status", "--check", MY_LOGIN=TOKEN).returncode == code
    broker.start()
    assert broker.run("models", "status", "--check").returncode == code
    assert broker.run("health", "provider/anthropic").returncode == (1 if code == 1 else 0)


def test_a_broker_without_secrets_of_a_cluster_has_not_loaded_their_client(shared_broker: RunningBroker) -> None:
    """Nor any other library that it has no use for: the extension modules that a process has are among its maps."""
    assert "/grpc/" in shared_broker.maps()
    assert "/aiohttp/" not in shared_broker.maps()
