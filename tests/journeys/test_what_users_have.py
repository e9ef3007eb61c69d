"""Credentials in the forms in which users have them: each is served, or what is said of it names the place and the way."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from equabot_client import Outcome
from tests.fakes.token_endpoint import TokenEndpoint
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import EQUABOT, KEY, OTHER_KEY, RunningBroker
from tests.strangers import without_rights_of_root

SETUP_TOKEN = "sk-ant-oat01-" + "w8Gz" * 24
OPENAI = "sk-proj-" + "steady00" * 12
GOOGLE = "AIza" + "Sy0" * 11 + "aB"
STORE = "agents/main/agent/auth-profiles.json"
CLAUDE, CODEX, QWEN = ".claude/.credentials.json", ".codex/auth.json", ".qwen/oauth_creds.json"


def put(broker: RunningBroker, place: str, content: object) -> None:
    """Writes a file into the user's home, for its owner alone."""
    path = broker.home / place
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)


def profiles(broker: RunningBroker) -> dict[str, str]:
    """Every profile and its state, without a broker."""
    rows = [line.split("\t") for line in broker.run("models", "status", "--plain").stdout.splitlines()]
    return {row[0]: row[1] for row in rows}


# -- stores and logins in other shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "content", "said"),
    [
        (STORE, {"anthropic": {"apiKey": KEY}}, "credentials outside of 'profiles'"),
        (STORE, {"version": 1, "anthropic:default": {"type": "api_key", "key": KEY}}, "credentials outside of 'profiles'"),
        (CLAUDE, {"claudeAiOauth": {"accessToken": "", "refreshToken": "", "expiresAt": 0}}, "as after a logout"),
        (CLAUDE, {"accessToken": SETUP_TOKEN, "expiresAt": 1}, "no object 'claudeAiOauth'"),
        (CODEX, {"OPENAI_API_KEY": OPENAI, "tokens": None}, "holds an API key and no login"),
    ],
)
def test_a_file_that_holds_nothing_usable_is_named(make_broker: MakeBroker, place: str, content: object, said: str) -> None:
    """P10: `doctor` reports the file and the reason, and no byte of the secret."""
    broker = make_broker()
    put(broker, place, content)
    report = broker.run("doctor").stdout
    (line,) = [line for line in report.splitlines() if str(broker.home / place) in line]
    assert said in line
    assert not any(secret[13:29] in report for secret in (KEY, SETUP_TOKEN, OPENAI))


@pytest.mark.parametrize(
    "entry",
    [
        {"mode": "api_key", "provider": "anthropic", "key": KEY},
        {"type": "api_key", "provider": "anthropic", "apiKey": KEY},
        {"mode": "api_key", "provider": "anthropic", "apiKey": KEY},
    ],
)
def test_a_store_with_openclaws_other_names_serves(make_broker: MakeBroker, entry: dict[str, str]) -> None:
    """P14: `mode` and `apiKey`, as OpenClaw's own reader takes them."""
    broker = make_broker()
    put(broker, STORE, {"version": 1, "profiles": {"anthropic:x": entry}})
    broker.start()
    assert broker.run("key", "anthropic").stdout == f"{KEY}\n"


@pytest.mark.parametrize(
    ("field", "said"),
    [("keyRef", "a reference to its secret"), ("api_key", "has a 'api_key', where 'key' is meant")],
)
def test_a_stores_field_that_is_not_read_is_named(make_broker: MakeBroker, field: str, said: str) -> None:
    """P14: the field that is there, and what is meant."""
    broker = make_broker()
    value = {"source": "env", "id": "X"} if field == "keyRef" else KEY
    put(broker, STORE, {"version": 1, "profiles": {"anthropic:x": {"type": "api_key", "provider": "anthropic", field: value}}})
    report = broker.run("doctor").stdout
    assert said in report
    assert KEY[13:29] not in report


def test_a_setup_token_in_a_login_file_serves(make_broker: MakeBroker) -> None:
    """P15: container images write the token and its scopes, and nothing else."""
    broker = make_broker()
    put(broker, CLAUDE, {"claudeAiOauth": {"accessToken": SETUP_TOKEN, "scopes": ["user:inference"]}})
    assert profiles(broker) == {"anthropic:claude-cli": "static"}
    broker.start()
    assert broker.run("key", "anthropic").stdout == f"{SETUP_TOKEN}\n"


@pytest.mark.parametrize("name", ["anthropic_api_key", "anthropic-api-key", "ANTHROPIC-API-KEY", "ANTHROPIC_API_KEY_FILE"])
def test_a_mounted_file_serves_under_dockers_and_azures_names(make_broker: MakeBroker, name: str) -> None:
    """P16: Docker's secrets are in lower case, Azure's vault has dashes; `<NAME>_FILE` of the environment leads to a file."""
    broker = make_broker()
    file = broker.home / "mounted" / ("key" if name.endswith("_FILE") else name)
    put(broker, str(file), f"{KEY}\n")
    (broker.home / "equabot.yaml").write_text(f"sources: [{{mounted: {{path: {file.parent}}}}}, {{env: {{}}}}]\n")
    if name.endswith("_FILE"):
        broker.credentials[name] = str(file)
    broker.start()
    assert broker.run("key", "anthropic").stdout == f"{KEY}\n"


# -- what is asked of a running broker ---------------------------------------------------------------------------------


def test_a_limit_on_the_model_of_a_lease_is_of_that_model(make_broker: MakeBroker) -> None:
    """P18: the lease names the model, the report does not; another model is granted as before."""
    broker = make_broker(credentials={"OPENAI_API_KEY": OPENAI}).start()
    with broker.connect() as client:
        client.report(client.acquire("openai", model="gpt-5"), Outcome.RATE_LIMIT)
        (profile,) = client.list_profiles("openai")
        assert (profile.usable, profile.cooldown_until) == (True, None)
        assert client.acquire("openai", model="gpt-4o-mini").profile == "openai:env"


def test_a_dead_login_of_qwen_asks_for_another_login(make_broker: MakeBroker, tmp_path: Path) -> None:
    """P19: its endpoint says in a sentence, under a code that passes elsewhere, that the refresh token is dead."""
    with TokenEndpoint(tmp_path / "ledger") as endpoint:
        broker = make_broker(
            config=f"providers: {{qwen-portal: {{token_url: '{endpoint.url}'}}}}\nsources: [{{profile_store: {{}}}}]\n"
        )
        endpoint.faults = ["invalid_request"] * 1000
        login = {"type": "oauth", "provider": "qwen-portal"} | endpoint.login("x", life=-10.0)
        put(broker, STORE, {"version": 1, "profiles": {"qwen-portal:x": login}})
        broker.start(service="liveness")
        broker.wait_output("models", "status", "--plain", until=lambda text: "reauth_required" in text)


def test_one_key_is_found_and_given_under_every_name_of_the_vendor(make_broker: MakeBroker) -> None:
    """C9: Google's own SDK and the Vercel AI SDK have different variables."""
    broker = make_broker(credentials={"GOOGLE_GENERATIVE_AI_API_KEY": GOOGLE}).start()
    given = broker.run("exec", "google", "--", "env").stdout.splitlines()
    assert f"GOOGLE_GENERATIVE_AI_API_KEY={GOOGLE}" in given
    assert f"GEMINI_API_KEY={GOOGLE}" in given


def test_a_codex_login_is_given_in_a_variable(make_broker: MakeBroker) -> None:
    """C12: with the account that its vendor wants in a header."""
    broker = make_broker(config="sources: [{codex_cli: {}}]\n")
    put(broker, CODEX, {"tokens": {"access_token": "codex-" + "c0d3" * 20, "refresh_token": "r", "account_id": "acc-1"}})
    broker.start()
    given = broker.run("exec", "openai-codex", "--", "env")
    assert "OPENAI_CODEX_TOKEN=codex-" in given.stdout, given.stderr
    with broker.connect() as client:
        assert client.acquire("openai-codex").headers["chatgpt-account-id"] == "acc-1"


# -- sources that change under a running broker ------------------------------------------------------------------------


def test_a_parent_that_is_closed_while_it_runs_costs_its_source_alone(make_broker: MakeBroker) -> None:
    """P1: `chmod` of a directory above `.env`, above a login and above the agent's store; all serve again once it is open."""
    broker = make_broker(credentials={"OPENAI_API_KEY": OPENAI})
    above = broker.home / "above"
    (broker.home / "equabot.yaml").write_text(
        f"sources: [{{dotenv: {{path: {above}/inner/.env}}}}, {{claude_cli: {{path: {above}/inner/login.json}}}},"
        f" {{mounted: {{path: {above}/inner/mounted}}}}, {{env: {{}}}}]\n"
    )
    put(broker, "above/inner/.env", f"GROQ_API_KEY=gsk_{'groq0000' * 6}\n")
    put(broker, "above/inner/login.json", {"claudeAiOauth": {"accessToken": SETUP_TOKEN, "expiresAt": 4_000_000_000_000}})
    put(broker, "above/inner/mounted/ANTHROPIC_API_KEY", KEY)
    broker.command = [*without_rights_of_root(), *broker.command]
    broker.start()
    try:
        above.chmod(0)
        broker.wait_for(lambda: "above" in broker.log())
        (broker.home / "touched").touch()
        assert broker.run("key", "openai").stdout == f"{OPENAI}\n"
    finally:
        above.chmod(0o700)
    put(broker, "above/inner/mounted/ANTHROPIC_API_KEY", OTHER_KEY)
    broker.wait_output("key", "anthropic:mounted", until=lambda text: text == f"{OTHER_KEY}\n")
    assert broker.process is not None
    assert broker.process.poll() is None


def test_a_bind_mount_of_one_file_that_went_stale_is_said(make_broker: MakeBroker) -> None:
    """P22: an editor renames another file over the original, and the mount keeps the old one for ever."""
    mounting = ("unshare", "--mount", "--propagation", "private")
    if (
        os.geteuid()
        or not shutil.which("unshare")
        or subprocess.run([*mounting, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs root and a mount namespace")
    broker = make_broker()
    put(broker, "outside", f"ANTHROPIC_API_KEY={KEY}\n")
    put(broker, ".env", "")
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    broker.command = [*mounting, "sh", "-c", script, "sh", str(broker.home / "outside"), str(broker.dotenv), *EQUABOT, "serve"]
    broker.start()
    put(broker, "edited", f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
    (broker.home / "edited").rename(broker.home / "outside")
    broker.wait_for(lambda: "is mounted alone, and its original was replaced" in broker.log())
    assert broker.run("key", "anthropic").stdout == f"{KEY}\n"


def test_a_key_is_not_stored_where_no_source_reads(make_broker: MakeBroker) -> None:
    """K3: what is said to do instead is about the sources that there are, by `models auth add` as by `doctor`."""
    broker = make_broker()
    (broker.home / "equabot.yaml").write_text(f"sources: [{{mounted: {{path: {broker.home}/mounted}}}}]\n")
    done = broker.run("models", "auth", "add", "--provider", "anthropic", "--method", "api-key", stdin=f"{KEY}\n")
    instead = f"{broker.home}/mounted/ANTHROPIC_API_KEY"
    assert (done.returncode, instead in done.stderr) == (1, True)
    assert not (broker.home / STORE).exists()
    assert instead in broker.run("doctor").stdout
