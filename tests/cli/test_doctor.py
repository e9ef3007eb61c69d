"""What `doctor` finds, what it says to do, and what `--fix` does by itself."""

import json
import os
import pwd
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import fingerprint
from tests.cli.test_onboard import log_in_to_claude
from tests.fakes.host import KEY, TOKEN, Done, Host
from tests.fakes.token_endpoint import TokenEndpoint

DAY = 86400
REMOTE = (
    "agents: {main: {certificates: [main]}}\nlisten: {agents: {certificate: HOME/tls.crt, key: HOME/tls.key,"
    " client_certificates: {address: '127.0.0.1:8444', ca: HOME/ca}}}"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that has nothing to do with the host."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    return folder


def token(**fields: Any) -> dict[str, Any]:
    return {"type": "token", "provider": "anthropic", "token": TOKEN, **fields}


def store(host: Host, *, agent: str = "main", **entries: dict[str, Any]) -> None:
    host.write_store({"version": 1, "profiles": {f"anthropic:{name}": entry for name, entry in entries.items()}}, agent)


def found(done: Done) -> list[list[str]]:
    """The findings: severity, subject, message, what to do."""
    return [line.split("\t") for line in done.out.splitlines() if line.split("\t")[0] in ("error", "warning", "info")]


def said(done: Done, severity: str, text: str) -> bool:
    return any(row[0] == severity and text in "\t".join(row) for row in found(done))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_host_in_order_is_0(host: Host) -> None:
    """A note is not an error."""
    store(host, manual=token())
    done = host.run("doctor")
    assert (done.code, done.err) == (0, "")
    assert {row[0] for row in found(done)} == {"info"}
    assert said(done, "info", "no broker answers")
    assert said(done, "info", "in plain text")
    assert done.out.splitlines()[-1] == "2 info"
    assert TOKEN[:20] not in done.out


def test_nothing_at_all_is_an_error(host: Host) -> None:
    """With the way to begin."""
    done = host.run("doctor")
    assert done.code == 1
    assert said(done, "error", "credentials\tthere is no credential\tset ANTHROPIC_API_KEY in the environment or in ")
    assert list(host.home.iterdir()) == [], "to look changes nothing"


def test_a_provider_in_use_without_a_credential_is_an_error(host: Host) -> None:
    """With the command."""
    store(host, manual=token())
    host.write_config("required: [openai]\n")
    done = host.run("doctor")
    assert done.code == 1
    assert said(done, "error", "openai\tis in use, and has no credential\tset OPENAI_API_KEY in the environment or in ")
    assert "or run `equabot models auth add --provider openai`" in done.out


@pytest.mark.parametrize(
    ("entry", "severity", "told", "command"),
    [
        (token(expires=int((time.time() - DAY) * 1000)), "error", "expired",
         "equabot models auth paste-token --provider anthropic --profile-id anthropic:x"),
        (token(expires=int((time.time() + 3600) * 1000)), "warning", "expires in",
         "equabot models auth paste-token --provider anthropic --profile-id anthropic:x"),
        (token(token="changeme"), "error", "is a placeholder",
         "equabot models auth paste-token --provider anthropic --profile-id anthropic:x"),
        ({"type": "api_key", "provider": "anthropic", "key": TOKEN}, "error", "is an OAuth token, not an API key",
         "equabot models auth add --method api-key --provider anthropic --profile-id anthropic:x"),
        ({"type": "oauth", "provider": "anthropic", "access": TOKEN, "expires": 1}, "error", "expired",
         "equabot models auth login --provider anthropic"),
    ],
)  # fmt: skip
def test_a_bad_credential_comes_with_the_exact_command(
    host: Host, entry: dict[str, Any], severity: str, told: str, command: str
) -> None:
    """Expired, ending, malformed, of the wrong kind."""
    store(host, x=entry)
    done = host.run("doctor")
    row = next(row for row in found(done) if row[1] == "anthropic:x")
    assert (row[0], row[3]) == (severity, command)
    assert told in row[2]
    assert done.code == (severity == "error")


def test_another_vendors_broken_key_is_a_warning(host: Host) -> None:
    """Where the configuration says who is in use."""
    store(host, manual=token())
    (host.home / ".env").write_text("GROQ_API_KEY=changeme\n")
    (host.home / ".env").chmod(0o600)
    host.write_config("required: [anthropic]\n")
    done = host.run("doctor")
    assert done.code == 0
    assert said(done, "warning", f"replace its value in {host.home}/.env")


def test_an_agents_own_credential_is_reported_as_its_own(host: Host) -> None:
    """And the command goes to its store."""
    host.write_config("agents: {main: {}, coder: {providers: [anthropic]}}\n")
    store(host, manual=token())
    store(host, agent="coder", mine=token(expires=1000))
    done = host.run("doctor")
    assert said(done, "error", "anthropic:mine (agent coder)")
    assert said(done, "error", "--profile-id anthropic:mine --agent coder")
    assert sum(row[1].startswith("anthropic:manual") for row in found(done)) == 0


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_open_to_others_is_reported_and_closed(host: Host) -> None:
    """Home, store, its directory, `.env`, a configuration that holds credentials."""
    store(host, manual=token())
    dotenv, config = host.home / ".env", host.home / "equabot.yaml"
    dotenv.write_text(f"OPENAI_API_KEY=sk-proj-{'0' * 20}\n")
    host.write_config("env: {vars: {SOME_KEY: s3cret}}\n")
    opened = {host.home: 0o777, host.store_path(): 0o644, host.store_path().parent: 0o777, dotenv: 0o640, config: 0o644}
    for path, open_mode in opened.items():
        path.chmod(open_mode)
    done = host.run("doctor")
    assert done.code == 1
    assert {Path(row[1]) for row in found(done)} >= opened.keys()
    assert {path: mode(path) for path in opened} == opened, "to look changes nothing"
    fixed = host.run("doctor", "--fix")
    assert (fixed.code, fixed.err) == (0, "")
    assert sum(line.startswith("fixed: ") for line in fixed.out.splitlines()) == 5
    assert mode(host.home) & 0o022 == 0
    assert [mode(path) for path in (host.store_path(), host.store_path().parent, dotenv, config)] == [
        0o600,
        0o755,
        0o600,
        0o600,
    ]
    assert not {row[0] for row in found(fixed)} & {"error", "warning"}


@pytest.mark.parametrize("broken", ["{", "", '{"version": 2, "profiles": {}}', '{"sealed": {}}'])
def test_a_store_that_cannot_be_read_is_an_error_that_stays(host: Host, broken: str) -> None:
    """No fix is safe for it; every other store is looked at all the same."""
    host.write_store(broken)
    store(host, agent="old", manual=token())
    for arguments in (("doctor",), ("doctor", "--fix")):
        done = host.run(*arguments)
        assert done.code == 1
        assert said(done, "error", str(host.store_path()))
        assert said(done, "info", "is the store of agent old, which is not configured")
    assert host.store_path().read_text() == broken


def test_a_restored_store_is_accepted_when_an_operator_says_so(host: Host) -> None:
    """S14: `--fix` does not accept it, because it cannot distinguish a backup from an older copy that an attacker put
    there."""
    host.write_config("seal: {key_file: seal.key}\nagents: {main: {}, coder: {}}\n")
    (host.home / "seal.key").touch(mode=0o600)
    (host.home / "seal.key").write_bytes(b"k" * 32)
    store(host, manual=token())
    assert host.run("doctor", "--fix").code == 0
    older = host.store_path().read_bytes()
    host.run("models", "auth", "order", "set", "--provider", "anthropic", "anthropic:manual")
    assert host.store_path().read_bytes() != older
    host.store_path().write_bytes(older)
    for arguments in (("doctor",), ("doctor", "--fix")):
        done = host.run(*arguments)
        assert done.code == 1
        assert said(done, "error", "it is an older copy (write 1, but this broker has seen write 2)")
        assert said(done, "error", "equabot doctor --accept-restored")
    done = host.run("doctor", "--accept-restored")
    assert f"accepted: {host.store_path()} with its present content; every other copy of it is refused" in done.out
    assert done.code == 0
    assert "accepted" not in host.run("doctor", "--accept-restored").out


def test_malformed_entries_are_warnings(host: Host) -> None:
    """They are kept, and not used."""
    host.write_store({"version": 1, "profiles": {"anthropic:a": token(), "nocolon": token(), "x:y": 3},
                      "order": {"anthropic": ["openai:z"]}})  # fmt: skip
    done = host.run("doctor")
    assert said(done, "warning", "nocolon\tis not a profile id: rename it")
    assert said(done, "warning", "x:y\tis not a profile: a profile is an object with a type")
    assert said(done, "warning", "openai:z")


def test_a_stale_lock_is_reported_and_removed(host: Host) -> None:
    """One that is held is neither."""
    store(host, manual=token())
    lock = Path(f"{host.store_path()}.lock")
    lock.write_text(json.dumps({"pid": os.getpid(), "createdAt": "2999-01-01T00:00:00Z"}))
    assert not said(host.run("doctor"), "warning", ".lock")
    lock.write_text(json.dumps({"pid": 2**22 + 1, "createdAt": "2020-01-01T00:00:00Z"}))
    os.utime(lock, (1, 1))
    assert said(host.run("doctor"), "warning", f"{lock}\tis the lock of a process that no longer runs\tequabot doctor --fix")
    assert lock.exists()
    done = host.run("doctor", "--fix")
    assert f"fixed: removed {lock}" in done.out
    assert not lock.exists()


def test_a_refresh_that_was_broken_off_needs_a_login(host: Host) -> None:
    """Its refresh token may be used up, and is never sent again; the command is named."""
    refresh = "sk-ant-ort01-r3fr35h"
    entry = {"type": "oauth", "provider": "anthropic", "access": TOKEN, "refresh": refresh,
             "expires": int((time.time() + DAY) * 1000),
             "pendingRefresh": {"digest": fingerprint(SecretValue(refresh)), "at": 1}}  # fmt: skip
    store(host, me=entry)
    for arguments in (("doctor",), ("doctor", "--fix")):
        done = host.run(*arguments)
        assert done.code == 1
        assert said(done, "error", "anthropic:me\ta refresh was interrupted")
        assert said(done, "error", "equabot models auth login --provider anthropic")
    assert host.store()["profiles"]["anthropic:me"] == entry
    store(host, me={**entry, "refresh": "sk-ant-ort01-n3w"})
    assert host.run("doctor").code == 0, "whoever logged in anew is rid of it"


def test_a_working_directorys_env_is_reported_and_not_read(host: Host, elsewhere: Path) -> None:
    """A repository must not choose an agent's key; the finding names the place that counts."""
    store(host, manual=token())
    (elsewhere / ".env").write_text("DEBUG=1\n")
    assert not said(host.run("doctor"), "warning", str(elsewhere))
    (elsewhere / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\nDEBUG=1\n")
    done = host.run("doctor")
    assert said(done, "warning", f"{elsewhere}/.env\tis not read")
    assert said(done, "warning", "it contains: ANTHROPIC_API_KEY\tmove it to")
    assert KEY[:20] not in done.out
    assert "anthropic:dotenv" not in host.run("models", "status").out


def test_a_run_directory_that_everybody_may_write_to_is_an_error(host: Host) -> None:
    """Another user could listen there in the broker's place."""
    store(host, manual=token())
    run_dir = host.home / "run"
    run_dir.mkdir()
    run_dir.chmod(0o777)
    done = host.run("doctor")
    assert done.code == 1
    assert said(
        done, "error", f"{run_dir}\thas mode 0777, with which every user can replace what is in it\tchmod 755 {run_dir}"
    )
    assert host.run("doctor", "--fix").code == 0
    assert mode(run_dir) == 0o755


@pytest.mark.parametrize(
    ("name", "config", "opened", "severity", "what"),
    [
        ("seal", "seal: {key_file: HOME/seal}", 0o666, "error", "seals the profile stores and has mode 0666"),
        ("seal", "seal: {key_file: HOME/seal}", 0o644, "error", "seals the profile stores and has mode 0644"),
        ("seal", "seal: {key_file: HOME/seal}", 0o640, "warning", "seals the profile stores and has mode 0640"),
        (".env", "", 0o644, "warning", "holds credentials and has mode 0644"),
        (".env", "", 0o646, "error", "holds credentials and has mode 0646"),
        ("login", "sources: [profile_store: {}, claude_cli: {path: HOME/login}]", 0o666, "error", "can read and change it"),
        ("login", "sources: [profile_store: {}, codex_cli: {path: HOME/login}]", 0o644, "warning", "can read it"),
        ("login", "sources: [profile_store: {}, qwen_cli: {path: HOME/login}]", 0o602, "error", "can change it"),
        ("kube", "sources: [profile_store: {}, kubernetes: {kubeconfig: HOME/kube}]", 0o644, "warning", "of a cluster"),
        ("log", "audit: {path: HOME/log}", 0o666, "error", "is the audit log"),
        ("log", "audit: {path: HOME/log}", 0o644, "", ""),
        ("run/audit.head", "", 0o606, "error", "is the anchor of the audit log"),
        ("anchor", "audit: {path: HOME/log, anchor: HOME/anchor}", 0o606, "error", "is the anchor of the audit log"),
        ("run/state.db", "", 0o666, "error", "holds leases"),
        ("equabot.yaml", "", 0o646, "error", "sets what each agent may use and has mode 0646"),
        ("equabot.yaml", "", 0o644, "", ""),
        ("tls.key", REMOTE, 0o644, "warning", "is the key of the broker's certificate"),
    ],
)  # fmt: skip
def test_a_file_that_others_can_read_or_change_is_reported_and_closed(  # noqa: PLR0917
    host: Host, name: str, config: str, opened: int, severity: str, what: str
) -> None:
    """S25: keys, logins, records and the configuration, each as far as it matters who reads it."""
    host.write_config(config.replace("HOME", str(host.home)) + "\n")
    path = host.home / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(b"k" * 32 if name == "seal" else b"")
    path.chmod(opened)
    done = host.run("doctor")
    told = [row for row in found(done) if row[1] == str(path) and " has mode " in f" {row[2]}"]
    if not severity:
        assert not told
        return
    closed = opened & (0o600 if name not in ("log", "anchor", "run/audit.head", "run/state.db", "equabot.yaml") else 0o644)
    assert [(row[0], what in row[2], row[3]) for row in told] == [(severity, True, f"chmod {closed:o} {path}")]
    fixed = host.run("doctor", "--fix")
    assert f"fixed: {path} now has mode {closed:o}" in fixed.out
    assert mode(path) == closed
    assert not [row for row in found(fixed) if row[1] == str(path) and " has mode " in f" {row[2]}"]


@pytest.mark.parametrize("which", ["creds", "creds/team", "home", "records", "run", "keys"])
def test_a_directory_in_which_others_can_replace_files_is_reported_and_closed(host: Host, which: str) -> None:
    """S25: of mounted credentials, of a unit of them, of the configuration, of the audit log, of sockets, of the seal's key."""
    for made in ("creds/team", "records", "run", "keys"):
        (host.home / made).mkdir(parents=True)
    config = "sources: [mounted: {path: HOME/creds}]\naudit: {path: HOME/records/audit}\nseal: {key_file: HOME/keys/seal}\n"
    host.write_config(config.replace("HOME", str(host.home)))
    directory = host.home if which == "home" else host.home / which
    told = f"{directory}\thas mode 0777, with which every user can replace what is in it\tchmod 755 {directory}"
    directory.chmod(0o1777)
    assert not said(host.run("doctor"), "error", "replace what is in it"), "in a sticky one they cannot"
    directory.chmod(0o777)
    assert said(host.run("doctor"), "error", told)
    assert f"fixed: {directory} now has mode 755" in host.run("doctor", "--fix").out
    assert mode(directory) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make what a kubelet makes")
@pytest.mark.parametrize("volume", [0o3777, 0o2775])
def test_a_pods_volumes_are_in_order(volume: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """K2: an emptyDir in memory or a claim, of root and the pod's group. What the pod may not change is not asked of it."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        host = Host(Path(made) / "home", monkeypatch)
        for directory in (host.home, host.home / "run"):
            directory.mkdir()
            os.chown(directory, 0, 54321)
            directory.chmod(volume)
        os.setegid(54321)
        os.seteuid(65532)
        try:
            store(host, manual=token())
            done = host.run("doctor")
            os.umask(os.umask(0o022))
        finally:
            os.seteuid(0)
            os.setegid(0)
        assert (done.code, done.err) == (0, "")
        assert not [row for row in found(done) if row[0] in ("error", "warning")]


@pytest.mark.parametrize(("deliveries", "told"), [("[brokered]", True), ("[raw, brokered]", False)])
@pytest.mark.parametrize("container", [False, True])
def test_an_agent_without_keys_that_shares_the_brokers_user_is_reported(
    host: Host, monkeypatch: pytest.MonkeyPatch, deliveries: str, told: bool, container: bool
) -> None:
    """S7: it can read them all the same. In a container the other side's users do not show, and its mounts keep it apart."""
    store(host, manual=token())
    host.write_config(f"agents: {{main: {{providers: [anthropic], deliveries: {deliveries}}}}}\ngateway: {{mode: child}}\n")
    inside = {"container": "oci"} if container else {}
    done = host.run("doctor", **inside)
    expected = told and not container and not Path("/.dockerenv").exists()
    assert said(done, "warning", "agent main\tmay have brokered leases only, but just programs of the broker's own") is expected


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory to a group")
def test_an_agent_that_can_be_another_user_is_not_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """S7: someone else is in the group of its socket."""
    monkeypatch.setattr("equabot_broker.cli.doctor_owners.in_container", lambda: False)
    store(host, manual=token())
    host.write_config("agents: {main: {providers: [anthropic], deliveries: [brokered]}}\ngateway: {mode: child}\n")
    other = next(user for user in pwd.getpwall() if user.pw_uid != 0)
    (host.home / "run" / "main").mkdir(parents=True, mode=0o750)
    os.chown(host.home / "run" / "main", 0, other.pw_gid)
    assert not said(host.run("doctor"), "warning", "brokered leases alone")


def test_two_sources_that_disagree_are_reported(host: Host) -> None:
    """One of the two values is not used, and the user may expect that it is."""
    for name, value in (("one", KEY), ("two", KEY.replace("k3y", "oth"))):
        (host.home / name).mkdir(mode=0o700)
        (host.home / name / "ANTHROPIC_API_KEY").write_text(value)
    host.write_config(f"sources: [mounted: {{path: {host.home}/one}}, mounted: {{path: {host.home}/two}}]\n")
    done = host.run("doctor")
    assert said(done, "warning", f"{host.home}/one/ANTHROPIC_API_KEY hides another value in {host.home}/two/ANTHROPIC_API_KEY")


def test_a_source_that_cannot_be_read_is_an_error(host: Host) -> None:
    """P7: with its line, and never the line itself, also where its other lines serve."""
    store(host, manual=token())
    (host.home / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\nopen s3cret\n")
    done = host.run("doctor")
    assert done.code == 1
    assert said(done, "error", f"{host.home}/.env line 2 is skipped")
    assert "s3cret" not in done.out


def test_all_faults_of_a_configuration_are_reported(host: Host) -> None:
    """Every fault of it; nothing else can be looked at."""
    host.write_config("requird: [anthropic]\nleases: {default_ttl: soon}\n")
    done = host.run("doctor", "--fix")
    assert done.code == 1
    assert [row[0] for row in found(done)] == ["error", "error"]
    assert "requird" in done.out
    assert "leases.default_ttl" in done.out


def test_an_order_of_an_unknown_profile_is_a_warning(host: Host) -> None:
    """With the command that takes it away."""
    host.write_store(
        {"version": 1, "profiles": {"anthropic:a": token()}, "order": {"anthropic": ["anthropic:gone", "anthropic:a"]}}
    )
    done = host.run("doctor")
    assert said(done, "warning", "anthropic:gone\tis in an order, but no source has it")
    assert said(done, "warning", "equabot models auth order clear --provider anthropic")


# -- what it does ------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_login_that_is_gone_is_not_used_and_fix_removes_it(host: Host) -> None:
    """P11: after a logout of Claude Code."""
    path = log_in_to_claude(host, expires=time.time() + 2 * DAY)
    assert host.run("onboard", "--auth-choice", "claude-cli").code == 0
    path.unlink()
    done = host.run("doctor")
    assert said(done, "info", "anthropic:claude-cli\tis a copy of a login that no longer exists")
    assert "anthropic:claude-cli" not in host.run("models", "status", "--plain").out
    assert "anthropic:claude-cli" in host.store()["profiles"]
    assert "fixed: removed anthropic:claude-cli" in host.run("doctor", "--fix").out
    assert host.store()["profiles"] == {}


def test_an_unknown_key_is_said_and_is_not_an_error(host: Host) -> None:
    """C13: in `.env` and in a mounted directory, with what to do."""
    (host.home / "mounted").mkdir()
    (host.home / "mounted" / "ACME_TOKEN").write_text("0123456789abcdef-token")
    (host.home / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\nANTROPIC_API_KEY={KEY}\n")
    host.write_config(f"sources: [mounted: {{path: {host.home / 'mounted'}}}, dotenv: {{}}]\n")
    done = host.run("doctor")
    notes = [row for row in found(done) if "is not used" in " ".join(row)]
    assert [row[0] for row in notes] == ["info", "info"]
    assert "did you mean ANTHROPIC_API_KEY (anthropic)?" in done.out
    assert "env: {ACME_TOKEN: token}" in done.out


def test_an_old_configuration_is_migrated_with_a_backup(host: Host) -> None:
    """`mode: token` of Claude's login is read as oauth; `--fix` writes it so, once."""
    before = "auth:\n  profiles:\n    anthropic:claude-cli: {provider: anthropic, mode: token} # mine\n"
    store(host, manual=token())
    host.write_config(before)
    assert said(host.run("doctor"), "info", "has mode: token for anthropic:claude-cli")
    assert host.config == before
    done = host.run("doctor", "--fix")
    assert "fixed: " in done.out
    assert host.config == before.replace("mode: token", "mode: oauth")
    assert (host.home / "equabot.yaml.before-migration").read_text() == before
    assert "fixed" not in host.run("doctor", "--fix").out


def test_older_files_are_moved_into_the_store_with_a_backup(host: Host) -> None:
    """An agent's `auth.json`, and the tokens next to it that older versions kept for all agents."""
    old = host.store_path().with_name("auth.json")
    old.parent.mkdir(parents=True, mode=0o700)
    old.write_text(json.dumps({"anthropic": {"type": "api_key", "key": KEY}}))
    tokens = host.home / "credentials" / "oauth.json"
    tokens.parent.mkdir(mode=0o700)
    tokens.write_text(json.dumps({"anthropic": {"access": TOKEN, "refresh": "sk-ant-ort01-r", "expires": 1}}))
    done = host.run("doctor")
    assert said(done, "warning", f"{old}\tholds credentials of an older version")
    assert said(done, "warning", f"{tokens}\tholds credentials of an older version")
    assert not host.store_path().exists()
    done = host.run("doctor", "--fix")
    assert host.store()["profiles"]["anthropic:default"]["key"] == KEY
    assert not old.exists()
    assert not tokens.exists()
    assert said(done, "info", "auth.json.migrated\tholds credentials from before a migration\trm ")
    assert KEY[:20] not in done.out + done.err
    assert "fixed: " not in host.run("doctor", "--fix").out


def test_an_older_file_that_is_broken_stays(host: Host) -> None:
    """And says why."""
    old = host.store_path().with_name("auth.json")
    old.parent.mkdir(parents=True, mode=0o700)
    old.write_text("{")
    done = host.run("doctor", "--fix")
    assert "could not be fixed" in done.err
    assert "cannot be migrated" in done.err
    assert old.read_text() == "{"


def test_a_login_whose_time_has_come_is_refreshed(host: Host, tmp_path: Path) -> None:
    """Without a broker nothing else refreshes them; `--fix` does it as a broker does."""
    with TokenEndpoint(tmp_path / "ledger", life=3600) as endpoint:
        host.write_config(f"providers: {{qwen-portal: {{token_url: {endpoint.url}}}}}\n")
        login = endpoint.login("me", life=-10) | {"type": "oauth", "provider": "qwen-portal"}
        host.write_store({"version": 1, "profiles": {"qwen-portal:default": login}})
        done = host.run("doctor")
        assert said(done, "warning", "qwen-portal:default\tits access token has expired; it is refreshed on use")
        assert endpoint.received == []
        done = host.run("doctor", "--fix")
        assert "fixed: qwen-portal:default: new tokens are in the store" in done.out
        assert done.code == 0
        entry = host.store()["profiles"]["qwen-portal:default"]
        assert endpoint.accepts(entry["access"])
        assert entry["expires"] / 1000 - time.time() == pytest.approx(3600, abs=60)
        assert login["refresh"] not in done.out + done.err
        assert host.run("models", "status", "--check").code == 0


def test_a_refresh_that_is_refused_is_reported_with_the_command(host: Host, tmp_path: Path) -> None:
    """It reports that the fix failed, and why; after that it is an error until the user logs in."""
    with TokenEndpoint(tmp_path / "ledger") as endpoint:
        host.write_config(f"providers: {{qwen-portal: {{token_url: {endpoint.url}}}}}\n")
        login = endpoint.login("me", life=-10) | {"type": "oauth", "provider": "qwen-portal"}
        endpoint.revoke(login["refresh"])
        host.write_store({"version": 1, "profiles": {"qwen-portal:default": login}})
        done = host.run("doctor", "--fix")
        assert "qwen-portal:default could not be fixed: the token endpoint answered 400 invalid_grant" in done.err
        done = host.run("doctor")
        assert done.code == 1
        assert said(done, "error", "equabot models auth login --provider qwen-portal")


def test_a_plain_store_is_sealed_where_a_key_is_configured(host: Host) -> None:
    """It is reported and fixed; the content stays."""
    store(host, manual=token())
    key = host.home / "seal.key"
    key.write_text("11" * 32)
    key.chmod(0o600)
    host.write_config(f"seal: {{key_file: {key}}}\n")
    assert said(host.run("doctor"), "warning", "is not sealed with the current key")
    done = host.run("doctor", "--fix")
    assert done.code == 0
    assert "sealed" in host.store()
    assert TOKEN[:20] not in host.store_path().read_text()
    assert "anthropic:manual\ttoken" in host.run("models", "auth", "list").out
    assert not said(host.run("doctor"), "info", "in plain text")


def test_what_cannot_be_fixed_says_so(host: Host) -> None:
    """And the rest is fixed all the same."""
    store(host, manual=token())
    host.store_path().chmod(0o644)
    guard = host.store_path().with_name(".auth-profiles.json.guard")
    guard.mkdir()
    (host.home / ".env").write_text("A=1\n")
    (host.home / ".env").chmod(0o644)
    done = host.run("doctor", "--fix")
    assert f"fixed: {host.home}/.env now has mode 600" in done.out
    assert "could not be fixed" in done.err


def test_a_broker_that_does_not_answer_is_an_error(host: Host) -> None:
    """The socket accepts connections, and no program reads from it. The sources are examined all the same."""
    with tempfile.TemporaryDirectory(prefix="eq-", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "admin.sock"
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        host.write_config(f"listen: {{admin: {path}}}\n")
        done = host.run("doctor")
    assert done.code == 1
    assert said(done, "error", "does not answer within 2 s")
    assert not said(done, "info", "no broker answers")
