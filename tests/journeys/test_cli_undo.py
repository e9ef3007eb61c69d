"""What was done to leases and profiles is taken back by commands, beside a broker process and without one."""

import json

import pytest

from equabot_client import Outcome
from equabot_client.errors import LeaseLimit, NoUsableProfile
from tests.fakes.upstream import Answer, Upstream
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

OPENAI = f"sk-proj-{'a1' * 30}"
DOTENV = f"ANTHROPIC_API_KEY={KEY}\nOPENAI_API_KEY={OPENAI}\n"


@pytest.fixture
def broker(make_broker: MakeBroker) -> RunningBroker:
    """Two agents, and nothing that asks a provider."""
    agents = "agents: {main: {providers: ['*']}, coder: {providers: ['*']}}\nauth: {probe: false}\n"
    return make_broker(dotenv=DOTENV, config=agents).start()


def said(broker: RunningBroker, *arguments: str) -> str:
    done = broker.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def reject(broker: RunningBroker) -> None:
    """Both agents have met it, so that it holds for all."""
    for agent in ("main", "coder"):
        with broker.connect(agent) as client:
            client.report(client.acquire("anthropic:dotenv"), Outcome.AUTH)
    with broker.connect() as client, pytest.raises(NoUsableProfile) as caught:
        client.acquire("anthropic")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60


# -- leases ------------------------------------------------------------------------------------------------------------


def acquire(broker: RunningBroker, provider: str, agent: str) -> str:
    done = broker.run("lease", "acquire", provider, "--agent", agent, "--json")
    lease: str = json.loads(done.stdout)["id"]
    return lease


def test_many_leases_end_at_once_and_are_counted(broker: RunningBroker) -> None:
    """C1: by agent, provider and profile, and all that is given has to fit. Idempotent."""
    for agent in ("main", "coder"):
        for provider in ("anthropic", "openai"):
            acquire(broker, provider, agent)
    assert said(broker, "lease", "revoke", "--agent", "main", "--provider", "openai") == "1 lease is revoked\n"
    assert said(broker, "lease", "revoke", "--profile", "anthropic:dotenv") == "2 leases are revoked\n"
    assert said(broker, "lease", "revoke", "--agent", "coder") == "1 lease is revoked\n"
    assert said(broker, "lease", "revoke", "--agent", "coder") == "0 leases are revoked\n"
    assert said(broker, "lease", "list") == ""
    assert broker.run("lease", "revoke").returncode == 64
    assert broker.run("lease", "revoke", "x" * 32, "--provider", "openai").returncode == 64


def test_a_lease_is_named_by_how_its_id_begins(broker: RunningBroker) -> None:
    """C1, F18: an ambiguous beginning is refused and names whom it means; what became of the lease is said."""
    lease, other = acquire(broker, "anthropic", "main"), acquire(broker, "openai", "coder")
    alike = next(n for n in range(32) if lease[n] != other[n])
    refused = broker.run("lease", "revoke", lease[:alike])
    assert refused.returncode == 1
    assert lease in refused.stderr
    assert f"{other} (coder, openai:dotenv)" in refused.stderr
    assert json.loads(said(broker, "lease", "renew", lease[: alike + 1], "--json"))["id"] == lease
    assert said(broker, "lease", "revoke", other[: alike + 1]) == f"lease {other} is revoked\n"
    assert said(broker, "lease", "revoke", other) == f"no active lease {other}: nothing was revoked\n"
    assert said(broker, "lease", "revoke", lease, "--agent", "main") == f"lease {lease} is revoked\n"
    assert said(broker, "lease", "revoke", "beef") == "no active lease beef: nothing was revoked\n"
    assert broker.run("lease", "renew", "beef").returncode == 1


def test_a_lease_that_is_shorter_than_asked_says_so(broker: RunningBroker) -> None:
    """F18: and what bounds it, on standard error."""
    done = broker.run("lease", "acquire", "anthropic", "--ttl", "5h", "--json")
    assert (done.returncode, done.stderr.partition(": ")[2].strip()) == (
        0, "the lease lasts 1h, not 5h: see max_ttl of the agent and of leases in the configuration"
    )  # fmt: skip
    lease = json.loads(done.stdout)["id"]
    assert "not 2h" in broker.run("lease", "renew", lease, "--ttl", "2h").stderr
    assert broker.run("lease", "renew", lease, "--ttl", "10m").stderr == ""


def test_an_agent_at_its_limit_is_told_when_and_how_it_ends(make_broker: MakeBroker) -> None:
    """C1: the first lease's end, and the command."""
    config = "agents: {main: {providers: ['*'], max_leases: 2}}\n"
    broker = make_broker(dotenv=DOTENV, config=config).start()
    with broker.connect() as client:
        for _ in range(2):
            client.acquire("anthropic")
        with pytest.raises(LeaseLimit) as caught:
            client.acquire("anthropic")
    assert caught.value.retry_after is not None
    assert 800 < caught.value.retry_after <= 900
    assert "equabot lease revoke --agent main" in caught.value.message
    assert broker.run("key", "anthropic").returncode == 1
    assert said(broker, "lease", "revoke", "--agent", "main") == "2 leases are revoked\n"
    assert said(broker, "key", "anthropic") == f"{KEY}\n"


def test_a_name_without_its_kind_is_answered_with_what_it_may_mean(broker: RunningBroker) -> None:
    """F18: `health anthropic`."""
    for written, meant in (("anthropic", "provider/anthropic"), ("anthropic:dotenv", "profile/anthropic:dotenv")):
        done = broker.run("health", written)
        assert done.returncode == 1
        assert f"did you mean {meant}?" in done.stderr
    assert "did you mean" not in broker.run("health", "nothing-like-it").stderr
    assert "did you mean provider/anthropic?" in broker.run("health", "provider/antropic").stderr


TYPOS = [
    (("lease", "revoke", "--agent", "mian"), 1, "did you mean 'main'?"),
    (("lease", "revoke", "--provider", "antropic"), 1, "did you mean 'anthropic'?"),
    (("lease", "revoke", "--profile", "anthropic:dotenf"), 1, "did you mean 'anthropic:dotenv'?"),
    (("lease", "list", "--agent", "mian"), 1, "did you mean 'main'?"),
    (("lease", "acquire", "antropic"), 1, "did you mean 'anthropic'?"),
    (("lease", "acquire", "anthropic:dotenf"), 1, "did you mean 'anthropic:dotenv'?"),
    (("lease", "acquire", "anthropic", "--agent", "mian"), 64, "did you mean 'main'?"),
    (("lease", "watch", "antropic"), 1, "did you mean 'anthropic'?"),
    (("key", "antropic"), 1, "did you mean 'anthropic'?"),
    (("key", "anthropic", "--agent", "mian"), 64, "did you mean 'main'?"),
    (("exec", "antropic", "--", "true"), 1, "did you mean 'anthropic'?"),
    (("exec", "--agent", "mian", "anthropic", "--", "true"), 64, "did you mean 'main'?"),
    (("profile", "clear", "anthropic:dotenf"), 1, "did you mean 'anthropic:dotenv'?"),
    (("profile", "clear", "antropic:dotenv"), 1, "did you mean 'anthropic'?"),
    (("agent", "suspend", "mian"), 1, "did you mean 'main'?"),
    (("agent", "resume", "mian"), 1, "did you mean 'main'?"),
    (("models", "status", "--agent", "mian"), 64, "did you mean 'main'?"),
    (("models", "auth", "order", "get", "--provider", "antropic"), 64, "did you mean 'anthropic'?"),
    (("models", "auth", "order", "set", "--provider", "anthropic", "anthropic:dotenf"), 1, "did you mean 'anthropic:dotenv'?"),
    (("models", "auth", "add", "--method", "api-key", "--provider", "antropic"), 64, "did you mean 'anthropic'?"),
    (("models", "auth", "paste-token", "--provider", "antropic"), 64, "did you mean 'anthropic'?"),
    (("health", "profile/anthropic:dotenf"), 1, "did you mean profile/anthropic:dotenv?"),
]


def test_a_mistyped_name_is_refused_and_answered_with_the_nearest(broker: RunningBroker) -> None:
    """F13, F18: by every command that takes the name of an agent, a provider or a profile. That is no missing broker."""
    wrong = {}
    for words, code, hint in TYPOS:
        done = broker.run(*words, stdin="")
        if done.returncode != code or hint not in done.stderr or "no broker" in done.stderr:
            wrong[words] = (done.returncode, done.stderr)
    assert wrong == {}


# -- profiles ----------------------------------------------------------------------------------------------------------


def test_a_rejection_is_taken_back(broker: RunningBroker) -> None:
    """C1, P4: on a running broker, for every agent, at once."""
    reject(broker)
    assert said(broker, "profile", "clear", "anthropic:dotenv") == "profile anthropic:dotenv: its rejection ended\n"
    for agent in ("main", "coder"):
        assert said(broker, "key", "anthropic", "--agent", agent) == f"{KEY}\n"
    assert (
        said(broker, "profile", "clear", "anthropic:dotenv")
        == "profile anthropic:dotenv: no cooldown, disable or rejection to clear\n"
    )
    gone = broker.run("profile", "clear", "anthropic:gone")
    assert (gone.returncode, "PROFILE_NOT_FOUND" in gone.stderr) == (1, True)


def test_without_a_broker_the_stored_state_is_changed(broker: RunningBroker) -> None:
    """C1, P4: the next one does not know of it any more."""
    reject(broker)
    broker.stop()
    assert "its rejection ended (no broker runs" in said(broker, "profile", "clear", "anthropic:dotenv")
    document = json.loads(said(broker, "profile", "clear", "anthropic:dotenv", "--json"))
    assert document == {"profile": "anthropic:dotenv", "ended": [], "broker": False}
    assert broker.run("profile", "clear", "anthropic:gone").returncode == 1
    broker.start()
    assert said(broker, "key", "anthropic") == f"{KEY}\n"


def test_without_a_broker_the_agents_store_is_changed_too(make_broker: MakeBroker) -> None:
    """P4: OpenClaw reads it, and the next broker believes it."""
    broker = make_broker()
    path = broker.home / "agents" / "main" / "agent" / "auth-profiles.json"
    path.parent.mkdir(parents=True, mode=0o700)
    far = 4_000_000_000_000
    stats = {"disabledUntil": far, "disabledReason": "billing", "errorCount": 1, "lastUsed": 5, "tier": "pro"}
    profiles = {"openai:work": {"type": "api_key", "provider": "openai", "key": OPENAI}}
    path.write_text(json.dumps({"version": 1, "profiles": profiles, "usageStats": {"openai:work": stats}}))
    path.chmod(0o600)
    assert "its billing disable ended" in said(broker, "profile", "clear", "openai:work")
    assert json.loads(path.read_text())["usageStats"] == {"openai:work": {"lastUsed": 5, "tier": "pro"}}


def test_a_new_key_in_the_file_ends_what_the_old_one_met(broker: RunningBroker) -> None:
    """P4: without a command, also where the broker did not run meanwhile."""
    reject(broker)
    broker.write_dotenv(DOTENV.replace(KEY, OTHER_KEY))
    broker.wait_for(lambda: broker.run("key", "anthropic").stdout == f"{OTHER_KEY}\n")
    with broker.connect() as client, broker.connect("coder") as other:
        for one in (client, other):
            one.report(one.acquire("anthropic"), Outcome.RATE_LIMIT)
        assert client.list_profiles("anthropic")[0].cooldown_until is not None
    broker.stop()
    broker.write_dotenv(DOTENV)
    broker.start()
    with broker.connect() as client:
        assert client.list_profiles("anthropic")[0].cooldown_until is None


def test_a_probe_that_succeeds_takes_a_rejection_back(make_broker: MakeBroker) -> None:
    """C1, P4: and says so. One that does not changes nothing."""
    with Upstream() as upstream:
        config = f"providers: {{anthropic: {{base_url: '{upstream.url}'}}}}\nauth: {{probe: false}}\n"
        broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=config).start()
        with broker.connect() as client:
            client.report(client.acquire("anthropic"), Outcome.AUTH)

        def probed() -> tuple[str, str]:
            document = json.loads(broker.run("models", "status", "--probe", "--json").stdout)
            (one,) = document["auth"]["probes"]
            return one["status"], one["reason"]

        upstream.answers = [Answer(401, body={"error": {"message": "invalid x-api-key"}})]
        assert probed()[0] == "auth"
        assert broker.run("key", "anthropic").returncode == 1
        assert probed() == ("ok", "rejection ended")
        assert said(broker, "key", "anthropic") == f"{KEY}\n"


# -- bursts and models, over the wire ----------------------------------------------------------------------------------


def test_many_workers_that_meet_the_same_cost_a_minute(broker: RunningBroker) -> None:
    """P3: each on a lease of its own; P18: where they name a model, that model alone."""
    with broker.connect() as client, broker.connect("coder") as other:
        leases = [(one, one.acquire("openai")) for one in (client, other) for _ in range(8)]
        for one, lease in leases:
            one.report(lease, Outcome.RATE_LIMIT, model="gpt-5")
        (profile,) = client.list_profiles("openai")
        assert (profile.cooldown_until, set(profile.model_cooldowns), profile.usable) == (None, {"gpt-5"}, True)
        for one, lease in leases:
            one.report(lease, Outcome.TIMEOUT)
        (profile,) = client.list_profiles("openai")
        assert profile.cooldown_until is not None
        assert profile.retry_at == profile.cooldown_until
        (chosen,) = client.list_profiles("openai", model="gpt-5")
        assert chosen.retry_at is not None
    assert "[cooldown:gpt-5 " in said(broker, "models", "status")
    (entry,) = [e for e in json.loads(said(broker, "models", "status", "--json"))["auth"]["unusableProfiles"] if "model" in e]
    assert (entry["kind"], entry["model"]) == ("cooldown", "gpt-5")
    assert entry["remainingMs"] <= 60_000
