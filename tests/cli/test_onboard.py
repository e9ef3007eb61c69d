"""From nothing to a credential that serves."""

import json
import stat
import time
from pathlib import Path

import pytest

from tests.fakes.host import KEY, TOKEN, Host

OPENAI = "sk-proj-" + "0pen" * 12


def log_in_to_claude(host: Host, *, expires: float, refresh: str = "sk-ant-ort01-r3fr35h") -> Path:
    """The file that Claude Code writes at a login."""
    path = host.home / ".claude" / ".credentials.json"
    path.parent.mkdir(exist_ok=True)
    login = {"accessToken": TOKEN, "refreshToken": refresh, "expiresAt": int(expires * 1000), "scopes": ["user:inference"]}
    path.write_text(json.dumps({"claudeAiOauth": login}))
    path.chmod(0o600)
    return path


def test_the_wizard_offers_all_there_is(host: Host) -> None:
    """And ends with a key in the store, and with how to go on."""
    with host.at_terminal("onboard") as person:
        for choice in ("api-key", "setup-token", "token", "claude-cli", "openai", "openrouter", "skip"):
            person.reads(f"  {choice}  ")
        person.reads("What to set up [api-key]: ").types("").reads("Where to store it [store]: ").types("")
        person.reads("API key of anthropic (not shown): ").types(KEY).reads("stored anthropic:default (api_key)")
        person.reads("`equabot models status`")
        assert person.leaves() == 0
        assert "k3y" not in person.seen
    assert host.store()["profiles"] == {"anthropic:default": {"type": "api_key", "provider": "anthropic", "key": KEY}}
    assert host.run("models", "status", "--check").code == 0


def test_a_key_may_go_where_a_daemon_reads_it(host: Host) -> None:
    """`~/.equabot/.env`, whose other lines stay."""
    dotenv = host.home / ".env"
    dotenv.write_text("# mine\nA=1\n")
    with host.at_terminal("onboard") as person:
        person.reads("What to set up [api-key]: ").types("openai").reads(f"{dotenv}, for a broker to read")
        person.reads("Where to store it [store]: ").types("env")
        person.reads("API key of openai (not shown): ").types(OPENAI).reads(f"OPENAI_API_KEY is set in {dotenv}")
        assert person.leaves() == 0
    assert dotenv.read_text() == f"# mine\nA=1\nOPENAI_API_KEY={OPENAI}\n"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    assert not host.store_path().exists()
    assert "openai:dotenv\tstatic" in host.run("models", "status").out


def test_skipping_stores_nothing(host: Host) -> None:
    """One may only look."""
    done = host.run("onboard", "--auth-choice", "skip")
    assert (done.code, done.err) == (0, "")
    assert list(host.home.iterdir()) == []


@pytest.mark.parametrize(
    ("choice", "stdin", "profile", "entry"),
    [
        ("api-key", KEY, "anthropic:default", {"type": "api_key", "provider": "anthropic", "key": KEY}),
        ("openai", OPENAI, "openai:default", {"type": "api_key", "provider": "openai", "key": OPENAI}),
        ("openrouter", "sk-or-v1-0123456789", "openrouter:default",
         {"type": "api_key", "provider": "openrouter", "key": "sk-or-v1-0123456789"}),
        ("token", TOKEN, "anthropic:manual", {"type": "token", "provider": "anthropic", "token": TOKEN}),
    ],
)  # fmt: skip
def test_without_a_terminal_flags_say_the_same(
    host: Host, choice: str, stdin: str, profile: str, entry: dict[str, str]
) -> None:
    """The secret comes on standard input."""
    done = host.run("onboard", "--auth-choice", choice, stdin=stdin)
    assert (done.code, done.err) == (0, "")
    assert host.store()["profiles"] == {profile: entry}


def test_flags_name_the_place_the_profile_and_the_life(host: Host) -> None:
    """As the questions do."""
    assert host.run("onboard", "--auth-choice", "api-key", "--store-in", "env", stdin=KEY).code == 0
    assert (host.home / ".env").read_text() == f"ANTHROPIC_API_KEY={KEY}\n"
    arguments = ("onboard", "--auth-choice", "token", "--profile-id", "anthropic:me", "--expires-in", "30d")
    assert host.run(*arguments, stdin=TOKEN).code == 0
    assert host.store()["profiles"]["anthropic:me"]["expires"] / 1000 - time.time() == pytest.approx(30 * 86400, abs=60)


def test_the_login_of_claude_code_is_taken_over(host: Host) -> None:
    """Into main's store, without its refresh token, which is Claude's to redeem; the configuration takes either kind of it."""
    path = log_in_to_claude(host, expires=time.time() + 8 * 3600)
    before = path.read_bytes()
    done = host.run("onboard", "--auth-choice", "claude-cli")
    assert (done.code, done.err) == (0, "")
    entry = host.store()["profiles"]["anthropic:claude-cli"]
    assert (entry["type"], entry["access"]) == ("oauth", TOKEN)
    assert "r3fr35h" not in host.store_path().read_text()
    assert '"anthropic:claude-cli": {provider: anthropic, mode: oauth}' in host.config
    assert path.read_bytes() == before
    assert host.run("config", "check").code == 0


@pytest.mark.parametrize("hours", [None, -1])
def test_no_login_of_claude_code_is_reported(host: Host, hours: int | None) -> None:
    """Or one that has expired: with what to do."""
    if hours is not None:
        log_in_to_claude(host, expires=time.time() + hours * 3600)
    done = host.run("onboard", "--auth-choice", "claude-cli")
    assert (done.code, done.out) == (1, "")
    assert "log in with `claude`, or run `equabot models auth setup-token`" in done.err
    assert not (host.home / "equabot.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "told"),
    [
        ([], "", 64, "name what to set up with --auth-choice"),
        (["--auth-choice", "api-key"], "", 64, "standard input is empty"),
        (["--auth-choice", "api-key"], TOKEN, 1, "is an OAuth token, not an API key"),
        (["--auth-choice", "api-key", "--store-in", "env"], "a b", 1, "whitespace inside"),
        (["--auth-choice", "token"], KEY, 1, "is an API key, not an OAuth token"),
        (["--auth-choice", "setup-token"], TOKEN, 2, "interactive terminal (TTY)"),
        (
            ["--auth-choice", "api-key", "--store-in", "env", "--profile-id", "anthropic:x"],
            KEY,
            64,
            "--profile-id applies to the store only",
        ),
        (["--auth-choice", "nonsense"], "", 64, "--auth-choice"),
    ],
)
def test_bad_input_stores_nothing(host: Host, arguments: list[str], stdin: str, code: int, told: str) -> None:
    """With a remedy, and without a byte of the secret."""
    done = host.run("onboard", *arguments, stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert "t0k" not in done.err
    assert list(host.home.iterdir()) == []


def test_env_needs_a_source_that_reads_it(host: Host) -> None:
    """A key that is not read would not help."""
    host.write_config("sources: [env]\n")
    done = host.run("onboard", "--auth-choice", "api-key", "--store-in", "env", stdin=KEY)
    assert done.code == 1
    assert "the configuration has no dotenv source" in done.err


def test_an_env_file_that_is_not_a_text_is_not_written(host: Host) -> None:
    """It is named, and stays as it is."""
    (host.home / ".env").write_bytes(b"\0\1\2")
    done = host.run("onboard", "--auth-choice", "openai", "--store-in", "env", stdin=OPENAI)
    assert done.code == 1
    assert f"{host.home}/.env is binary, not text" in done.err
    assert (host.home / ".env").read_bytes() == b"\0\1\2"


def test_lines_that_assign_nothing_do_not_keep_a_key_from_being_written(host: Host) -> None:
    """P7: they stay as they are."""
    (host.home / ".env").write_text("A='open\nset -a\n")
    assert host.run("onboard", "--auth-choice", "openai", "--store-in", "env", stdin=OPENAI).code == 0
    assert (host.home / ".env").read_text() == f"A='open\nset -a\nOPENAI_API_KEY={OPENAI}\n"
