"""A credential that a person has, into the store: at a terminal, and without one."""

import multiprocessing
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from equabot_broker.cli.auth_entering import lifetime
from tests.fakes.host import EQUABOT, KEY, TOKEN, Host

DAY_MS = 86_400_000


def claude(host: Host, script: str) -> dict[str, str]:
    """A stand-in `claude` on PATH; returns the environment that finds it."""
    folder = host.home / "bin"
    folder.mkdir()
    program = folder / "claude"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{host.environ['PATH']}"}


# -- where no source reads the store -----------------------------------------------------------------------------------

PODS = {
    "[kubernetes: {names: [llm]}]": "run `kubectl create secret generic llm --from-file=ANTHROPIC_API_KEY=KEY_FILE`",
    "[mounted: {path: HERE/secrets}]": "write it to the file HERE/secrets/ANTHROPIC_API_KEY",
}


@pytest.mark.parametrize("sources", list(PODS))
@pytest.mark.parametrize(
    "command",
    [
        ("models", "auth", "add", "--provider", "anthropic", "--method", "api-key"),
        ("models", "auth", "add", "--provider", "anthropic", "--method", "token"),
        ("models", "auth", "paste-token", "--provider", "anthropic"),
        ("models", "auth", "login", "--provider", "anthropic"),
        ("onboard", "--auth-choice", "api-key"),
    ],
)
def test_a_credential_that_no_source_would_read_is_not_stored(host: Host, sources: str, command: tuple[str, ...]) -> None:
    """K3: as in a pod whose only source is a Secret. Nothing is asked, no one logs in for nothing, no key is left in plain
    text, and the error names the place that this broker reads."""
    host.write_config(f"sources: {sources.replace('HERE', str(host.home))}\n")
    before = host.config
    done = host.run(*command, stdin=f"{KEY if 'token' not in command[-1] else TOKEN}\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"equabot: nothing was stored: no source of this broker reads {host.store_path()}; instead, ")
    assert PODS[sources].replace("HERE", str(host.home)) in done.err
    assert "models auth" not in done.err
    assert not host.store_path().exists()
    assert host.config == before


# -- paste-token -------------------------------------------------------------------------------------------------------


def test_a_pasted_token_is_in_the_store_and_named_in_the_configuration(host: Host) -> None:
    """Only the owner can read the store; without `--expires-in` the end of the token is not known."""
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=f"{TOKEN}\n")
    assert (done.code, done.err) == (0, "")
    assert host.store() == {
        "version": 1,
        "profiles": {"anthropic:manual": {"type": "token", "provider": "anthropic", "token": TOKEN}},
    }
    assert stat.S_IMODE(host.store_path().stat().st_mode) == 0o600
    assert stat.S_IMODE(host.store_path().parent.stat().st_mode) == 0o700
    assert host.config == 'auth:\n  profiles:\n    "anthropic:manual": {provider: anthropic, mode: token}\n'
    assert TOKEN[:20] not in done.out
    assert host.run("config", "check").code == 0


def wrapped(text: str, *, width: int, indent: str = "") -> str:
    """The text as a terminal shows it, and as it is copied from there."""
    return "\n".join(indent + text[at : at + width] for at in range(0, len(text), width))


LONG = "sk-ant-oat01-" + "w8Gz" * 24


@pytest.mark.parametrize(("width", "indent"), [(80, ""), (78, "  "), (40, ""), (36, "    ")])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_token_that_a_terminal_wrapped_is_stored_whole(host: Host, width: int, indent: str, newline: str) -> None:
    """P5: 109 characters on 80 columns are two lines; the first alone was stored for a year."""
    given = wrapped(LONG, width=width, indent=indent).replace("\n", newline)
    assert host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=f"{given}\n").code == 0
    assert host.store()["profiles"]["anthropic:manual"]["token"] == LONG


@pytest.mark.parametrize("width", [80, 40])
def test_a_wrapped_token_is_whole_at_a_terminal_too(host: Host, width: int) -> None:
    """P5: every line of the paste belongs to it, though a terminal hands over one line after the other."""
    with host.at_terminal("models", "auth", "paste-token", "--provider", "anthropic") as typing:
        typing.reads("Token of anthropic (not shown): ").types(wrapped(LONG, width=width)).reads(
            "stored anthropic:manual (token)"
        )
        assert typing.leaves() == 0
        assert LONG[:20] not in typing.seen
    assert host.store()["profiles"]["anthropic:manual"]["token"] == LONG


@pytest.mark.parametrize(
    "given",
    [
        LONG[:40],
        f"{LONG}\n{LONG}",
        f"{LONG[:40]}\n{LONG[40:50]}\n{LONG[50:]}",
        f"{LONG}\n\nStore this token securely.",
        "hello",
        "op://Team/Claude/token",
        "true",
        "someone@example.com",
        f"{LONG};",
    ],
)
def test_what_is_no_whole_token_is_refused(host: Host, given: str) -> None:
    """P5, F14: a part of one, two of them, a token with prose, a word: one line says why, and nothing is stored."""
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=given)
    assert done.code == 1
    assert done.err.startswith("equabot: the input ")
    assert LONG[13:30] not in done.err
    assert not host.store_path().exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "auth", "paste-token", "--provider", "openai"),
        ("models", "auth", "add", "--provider", "openai", "--method", "api-key"),
        ("models", "auth", "add", "--provider", "openai", "--method", "token"),
        ("onboard", "--auth-choice", "openai"),
        ("onboard", "--auth-choice", "openai", "--store-in", "env"),
    ],
)
def test_every_command_that_stores_has_the_one_gate(host: Host, arguments: tuple[str, ...]) -> None:
    """F14, P6: what one command refuses, all do, and so does every source that reads it."""
    for given in ("hello", "https://platform.openai.com/api-keys", "sk-proj-AbC...xyz"):
        done = host.run(*arguments, stdin=given)
        assert (done.code, "the input is" in done.err) == (1, True)
        assert not host.store_path().exists()
        assert not (host.home / ".env").exists()


def test_any_provider_may_be_pasted(host: Host) -> None:
    """Also one that has keys alone, as on the seed's page; and under another name, for another agent."""
    host.write_config("agents: {main: {}, coder: {providers: [openrouter]}}\n")
    key = "sk-or-v1-" + "0a" * 32
    done = host.run(
        "models",
        "auth",
        "paste-token",
        "--provider",
        "openrouter",
        "--profile-id",
        "openrouter:work",
        "--agent",
        "coder",
        stdin=key,
    )
    assert done.code == 0
    assert host.store("coder")["profiles"]["openrouter:work"] == {"type": "token", "provider": "openrouter", "token": key}
    assert not host.store_path("main").exists()


@pytest.mark.parametrize(
    ("written", "days"),
    [
        ("365d", 365.0),
        ("90", 90.0),
        ("12h", 0.5),
        ("30m", 30 / 1440),
        ("90s", 90 / 86400),
        ("1500ms", 1.5 / 86400),
        ("0.5d", 0.5),
    ],
)
def test_a_life_has_a_unit_and_days_without_one(host: Host, written: str, days: float) -> None:
    """ms, s, m, h, d. Stored as the instant at which it ends."""
    before = time.time() * 1000
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", "--expires-in", written, stdin=TOKEN)
    assert done.code == 0
    expires = host.store()["profiles"]["anthropic:manual"]["expires"]
    assert before + days * DAY_MS - 1 <= expires <= time.time() * 1000 + days * DAY_MS
    assert lifetime(written) == pytest.approx(days * 86400)


@pytest.mark.parametrize("written", ["", "0", "0d", "-1d", "soon", "1y", "1e3d", "99999999d", "1d 2h"])
def test_a_life_that_is_none_is_64(host: Host, written: str) -> None:
    """Nothing is asked, and nothing stored."""
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", f"--expires-in={written}", stdin=TOKEN)
    assert done.code == 64
    assert "365d" in done.err
    assert not host.store_path().exists()


def test_new_material_takes_the_place_of_the_old(host: Host) -> None:
    """The old one's expiry, cooldowns and refusals go with it; what other programs keep there, and all other profiles, stay."""
    host.write_store(
        {
            "version": 1,
            "profiles": {
                "anthropic:manual": {"type": "token", "provider": "anthropic", "token": "old", "expires": 1, "note": "mine"},
                "x:y": {"type": "what"},
            },
            "usageStats": {"anthropic:manual": {"lastUsed": 5000, "errorCount": 3, "disabledUntil": 9999999999999, "extra": 1}},
            "lastGood": {"anthropic": "anthropic:manual"},
            "unknown": [1],
        }
    )
    done = host.run("models", "auth", "paste-token", "--provider", "claude", stdin=TOKEN)
    assert done.code == 0
    assert done.out.startswith("replaced anthropic:manual (token) in ")
    assert host.store() == {
        "version": 1,
        "profiles": {
            "anthropic:manual": {"type": "token", "provider": "anthropic", "token": TOKEN, "note": "mine"},
            "x:y": {"type": "what"},
        },
        "usageStats": {"anthropic:manual": {"lastUsed": 5000, "extra": 1}},
        "lastGood": {"anthropic": "anthropic:manual"},
        "unknown": [1],
    }


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "told"),
    [
        (["--provider", "anthropic"], "", 64, "standard input is empty"),
        (["--provider", "anthropic"], "changeme", 1, "is a placeholder"),
        (["--provider", "anthropic"], f"{TOKEN}\n{TOKEN}", 1, "has more than one line"),
        (["--provider", "anthropic"], b"\xff\xfe\x00", 1, "is binary"),
        (["--provider", "anthropic"], "x" * 70_000, 1, "longer than 64 KiB"),
        (["--provider", "anthropic"], KEY, 1, "`equabot models auth add --provider anthropic --method api-key`"),
        (["--provider", "openai"], TOKEN, 1, "is a credential of anthropic, not of openai"),
        (["--provider", "antropic"], TOKEN, 64, "did you mean 'anthropic'?"),
        (["--provider", "anthropic", "--profile-id", "openai:x"], TOKEN, 64, "is not a profile of anthropic"),
        (["--provider", "anthropic", "--profile-id", "manual"], TOKEN, 64, "write provider:name"),
        (["--provider", "anthropic", "--agent", "nobody"], TOKEN, 64, "agent 'nobody' is not configured"),
        ([], TOKEN, 64, "--provider"),
    ],
)
def test_bad_input_stores_nothing(host: Host, arguments: list[str], stdin: str | bytes, code: int, told: str) -> None:
    """One line says what is wrong and what to do, with no byte of the secret; 64 for how it was asked, 1 for what was given."""
    done = host.run("models", "auth", "paste-token", *arguments, stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert not any(piece in done.err for piece in ("t0kt0k", "k3yk3y", "xxxx", "oat01", "api03"))
    assert not host.store_path().exists()
    assert not (host.home / "equabot.yaml").exists()


@pytest.mark.parametrize(
    "arguments", [[TOKEN], ["--token", TOKEN], [f"--token={TOKEN}"], ["hunter2hunter2hunter2"], ["--key=hunter2"]]
)
def test_a_secret_is_not_an_argument(host: Host, arguments: list[str]) -> None:
    """Not taken, and not repeated."""
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", *arguments)
    assert (done.code, done.out) == (64, "")
    assert "t0k" not in done.err
    assert "hunter2" not in done.err
    assert not host.store_path().exists()


@pytest.mark.parametrize("broken", ["{", "", "[]", '{"version": 9, "profiles": {}}', '{"profiles": []}'])
def test_a_corrupt_store_is_an_error_and_stays_as_it_is(host: Host, broken: str) -> None:
    """It is named; what can still be saved of it is for a person to see."""
    host.write_store(broken)
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=TOKEN)
    assert done.code == 1
    assert str(host.store_path()) in done.err
    assert host.store_path().read_text() == broken


def _paste(environ: dict[str, str], name: str) -> None:
    subprocess.run(
        [*EQUABOT, "models", "auth", "paste-token", "--provider", "anthropic", "--profile-id", f"anthropic:{name}"],
        env=environ,
        input=TOKEN.encode(),
        check=True,
        capture_output=True,
    )


def test_two_at_once_both_succeed(host: Host) -> None:
    """In the store, and in the configuration."""
    context = multiprocessing.get_context("spawn")
    names = ["a", "b", "c", "d"]
    processes = [context.Process(target=_paste, args=(host.environ, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(host.store()["profiles"]) == [f"anthropic:{name}" for name in names]
    assert all(f'"anthropic:{name}": {{provider: anthropic, mode: token}}' in host.config for name in names)
    assert host.run("config", "check").code == 0


@pytest.mark.parametrize("body", ['{"pid": 999999999, "createdAt": "2020-01-01T00:00:00Z"}', "", "no json"])
def test_a_lock_of_a_dead_process_is_taken_over(host: Host, body: str) -> None:
    """Whatever it says, once its holder cannot live any more."""
    host.write_store({"version": 1, "profiles": {}})
    lock = Path(f"{host.store_path()}.lock")
    lock.write_text(body)
    old = time.time() - 60
    os.utime(lock, (old, old))
    assert host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=TOKEN).code == 0
    assert "anthropic:manual" in host.store()["profiles"]
    assert not lock.exists()


def test_a_configuration_that_cannot_be_changed_is_left_alone(host: Host) -> None:
    """The token is stored all the same; what to write is said."""
    text = "auth: {profiles: &none {}}\nmodels: {aliases: *none}\n"
    host.write_config(text)
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=TOKEN)
    assert done.code == 0
    assert 'add it by hand, under auth.profiles: "anthropic:manual": {provider: anthropic, mode: token}' in done.err
    assert "anthropic:manual" in host.store()["profiles"]
    assert host.config == text


@pytest.mark.parametrize("where", ["store", "configuration"])
def test_an_order_that_leaves_it_out_is_reported(host: Host, where: str) -> None:
    """Orders are exclusive: without the warning, the token would not be used and the user would not know why."""
    if where == "store":
        host.write_store({"version": 1, "profiles": {}, "order": {"anthropic": ["anthropic:a"]}})
    else:
        host.write_config("auth: {order: {anthropic: ['anthropic:a']}}\n")
    done = host.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=TOKEN)
    assert done.code == 0
    assert "does not have anthropic:manual, so it is not used" in done.err


def test_at_a_terminal_it_is_pasted_unseen(host: Host) -> None:
    """The whole journey, as a person makes it."""
    with host.at_terminal("models", "auth", "paste-token", "--provider", "anthropic", "--expires-in", "30d") as person:
        person.reads("Token of anthropic (not shown): ").types(TOKEN).reads("stored anthropic:manual (token, expires in 30d)")
        assert person.leaves() == 0
        assert "t0k" not in person.seen
    assert host.store()["profiles"]["anthropic:manual"]["token"] == TOKEN


# -- add ---------------------------------------------------------------------------------------------------------------


def test_add_asks_for_everything(host: Host) -> None:
    """Provider, method, name, and then the secret."""
    with host.at_terminal("models", "auth", "add") as person:
        person.reads("1  anthropic").reads("Provider [anthropic]: ").types("")
        person.reads("1  api-key").reads("2  setup-token").reads("How [api-key]: ").types("1")
        person.reads("Profile [anthropic:default]: ").types("anthropic:work")
        person.reads("API key of anthropic (not shown): ").types(KEY).reads("stored anthropic:work (api_key)")
        assert person.leaves() == 0
        assert "k3y" not in person.seen
    assert host.store()["profiles"] == {"anthropic:work": {"type": "api_key", "provider": "anthropic", "key": KEY}}


def test_add_asks_how_long_a_token_lives(host: Host) -> None:
    """And again, if the answer is not valid."""
    with host.at_terminal("models", "auth", "add", "--provider", "anthropic", "--method", "token") as person:
        person.reads("Profile [anthropic:manual]: ").types("").reads("Does it expire? (y/N): ").types("y")
        person.reads("Lifetime [365d]: ").types("soon").reads("the maximum is a hundred years").reads("[365d]: ").types("")
        person.reads("(not shown): ").types(TOKEN)
        assert person.leaves() == 0
    left = host.store()["profiles"]["anthropic:manual"]["expires"] / 1000 - time.time()
    assert left == pytest.approx(365 * 86400, abs=60)


def test_add_works_by_flags_without_a_terminal(host: Host) -> None:
    """The secret on standard input; another provider's id may be given in any spelling."""
    assert host.run("models", "auth", "add", "--provider", "z.ai", "--method", "api-key", stdin="zai-key-1").code == 0
    assert host.store()["profiles"] == {"zai:default": {"type": "api_key", "provider": "zai", "key": "zai-key-1"}}
    assert host.config == 'auth:\n  profiles:\n    "zai:default": {provider: zai, mode: api_key}\n'


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "told"),
    [
        ([], "", 64, "standard input is not a terminal: give --provider and --method"),
        (["--provider", "anthropic"], KEY, 64, "--method"),
        (
            ["--provider", "openai", "--method", "setup-token"],
            KEY,
            64,
            "openai does not support setup-token: it supports api-key, token",
        ),
        (["--provider", "openai", "--method", "login"], "", 64, "openai does not support login"),
        (
            ["--provider", "anthropic", "--method", "api-key"],
            TOKEN,
            1,
            "`equabot models auth paste-token --provider anthropic`",
        ),
        (["--provider", "anthropic", "--method", "setup-token"], TOKEN, 2, "interactive terminal (TTY)"),
    ],
)
def test_add_refuses_what_cannot_be(host: Host, arguments: list[str], stdin: str, code: int, told: str) -> None:
    """Each with what to do instead."""
    done = host.run("models", "auth", "add", *arguments, stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert not host.store_path().exists()


# -- setup-token -------------------------------------------------------------------------------------------------------


def test_setup_token_without_a_terminal_is_2(host: Host) -> None:
    """It says so, and what else one can do."""
    done = host.run("models", "auth", "setup-token", "--provider", "anthropic", stdin=TOKEN)
    assert (done.code, done.out) == (2, "")
    assert "needs an interactive terminal (TTY)" in done.err
    assert "equabot models auth paste-token --provider anthropic" in done.err


def test_setup_token_is_anthropics_alone(host: Host) -> None:
    """Another provider's is a mistake."""
    assert host.run("models", "auth", "setup-token", "--provider", "openai").code == 64


def test_setup_token_runs_claude_and_stores_for_a_year(host: Host) -> None:
    """It has the terminal to itself; then the token that it showed is asked for. T5: rounded."""
    environ = claude(
        host, f'[ "$1" = setup-token ] && [ -t 0 ] && [ -t 1 ] && read -p "code? " x && echo "Your token: {TOKEN}"'
    )
    with host.at_terminal("models", "auth", "setup-token", "--provider", "anthropic", **environ) as person:
        person.reads("code? ").types("1234").reads(f"Your token: {TOKEN}").reads("Paste the token (not shown): ")
        shown = len(person.seen)
        person.types(TOKEN).reads("stored anthropic:default (token, expires in 365d)")
        assert person.leaves() == 0
        assert "t0k" not in person.seen[shown:]
    entry = host.store()["profiles"]["anthropic:default"]
    assert (entry["type"], entry["token"]) == ("token", TOKEN)
    assert entry["expires"] / 1000 - time.time() == pytest.approx(365 * 86400, abs=60)
    assert host.config == 'auth:\n  profiles:\n    "anthropic:default": {provider: anthropic, mode: token}\n'


def test_a_wrong_setup_token_is_asked_for_again(host: Host) -> None:
    """An API key, one that is cut off, and then the whole of it; under another name."""
    environ = claude(host, "echo ok")
    arguments = ("models", "auth", "setup-token", "--provider", "anthropic", "--profile-id", "anthropic:me")
    with host.at_terminal(*arguments, **environ) as person:
        person.reads("(not shown): ").types(KEY).reads("is an API key, not an OAuth token")
        person.reads("(not shown): ").types(TOKEN[:60]).reads("is cut off: a setup token has at least 80 characters")
        person.reads("(not shown): ").types(TOKEN)
        assert person.leaves() == 0
        assert "t0k" not in person.seen
        assert "k3y" not in person.seen
    assert list(host.store()["profiles"]) == ["anthropic:me"]


@pytest.mark.parametrize("given", [KEY, TOKEN[:79], "sk-ant-ort01-" + "r" * 90, "x" * 90])
def test_what_is_not_a_setup_token_is_refused_in_the_end(host: Host, given: str) -> None:
    """After three tries, with 1, and nothing stored."""
    environ = claude(host, "echo ok")
    with host.at_terminal("models", "auth", "setup-token", **environ) as person:
        for _ in range(3):
            person.reads("(not shown): ").types(given)
        assert person.leaves() == 1
        assert given[14:] not in person.seen
    assert not host.store_path().exists()


def test_claude_that_fails_or_is_not_there(host: Host) -> None:
    """It asks for nothing, and names the alternative."""
    with host.at_terminal("models", "auth", "setup-token", PATH="/nonexistent") as person:
        person.reads("there is no `claude` command on PATH: install Claude Code")
        assert person.leaves() == 1
    environ = claude(host, "exit 7")
    with host.at_terminal("models", "auth", "setup-token", **environ) as person:
        person.reads("`claude setup-token` exited with 7, and nothing was stored")
        assert person.leaves() == 1
