"""Where the configuration is found, what the environment says, and what cannot be read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from equabot_broker.config.load import _default_run_dir, load
from equabot_broker.schema.faults import ConfigFault, ConfigurationFaults
from equabot_broker.schema.values import Address

CANARY = "sk-ant-api03-CANARYcanary0123456789"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".equabot").mkdir()
    return tmp_path


def refused(**how: object) -> tuple[ConfigFault, ...]:
    with pytest.raises(ConfigurationFaults) as caught:
        load(**how)  # type: ignore[arg-type]
    assert caught.value.__cause__ is caught.value.__context__ is None
    return caught.value.faults


# --- which file -------------------------------------------------------------------------------------------------------


def test_no_file_is_every_default(home: Path) -> None:
    """Nothing has to be configured."""
    config = load(environ={}, home=home)
    assert (config.file, config.home) == (None, home / ".equabot")


def test_tools_may_keep_their_logins_elsewhere(home: Path) -> None:
    """Where their own variables say so."""

    def places(**environ: str) -> list[str]:
        found = {spec.kind: spec.options.get("path") for spec in load(environ=environ, home=home).sources}
        return [str(found[kind]).removeprefix(str(home)) for kind in ("claude_cli", "codex_cli", "qwen_cli")]

    assert places() == ["/.claude/.credentials.json", "/.codex/auth.json", "/.qwen/oauth_creds.json"]
    moved = {"CLAUDE_CONFIG_DIR": "/etc/claude", "CODEX_HOME": "~/codex"}
    assert places(**moved) == ["/etc/claude/.credentials.json", "/codex/auth.json", "/.qwen/oauth_creds.json"]


@pytest.mark.parametrize("text", [None, "run_dir: /x"])
def test_the_parser_is_loaded_only_for_a_file(home: Path, text: str | None) -> None:
    """A broker without a configuration file does not carry PyYAML in its memory."""
    if text is not None:
        (home / ".equabot/equabot.yaml").write_text(text)
    script = "import sys; from equabot_broker.config.load import load; load(); sys.exit('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env={"HOME": str(home)}, check=False)
    assert done.returncode == (text is not None)


def test_flag_goes_before_variable_and_variable_before_home(home: Path) -> None:
    """The first that is named is the only one that is read."""
    for name in ("flag", "variable", "elsewhere/equabot", ".equabot/equabot"):
        file = home / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"run_dir: /{name}")
    flag, variable = str(home / "flag.yaml"), {"EQUABOT_CONFIG": str(home / "variable.yaml")}
    assert load(config_path=flag, environ=variable, home=home).run_dir == Path("/flag")
    assert load(environ=variable, home=home).run_dir == Path("/variable")
    assert load(environ={}, home=home).run_dir == Path("/.equabot/equabot")
    config = load(environ={"EQUABOT_HOME": "~/elsewhere", "EQUABOT_CONFIG": ""}, home=home)
    assert (config.run_dir, config.home) == (Path("/elsewhere/equabot"), home / "elsewhere")


def test_relative_names_start_in_the_working_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person types is relative to where they are; what the file says, to where it is."""
    (home / "c.yaml").write_text("state_path: s.db")
    monkeypatch.chdir(home)
    config = load(config_path="c.yaml", run_dir="run", environ={}, home=home)
    assert (config.file, config.run_dir, config.state_path) == (home / "c.yaml", home / "run", home / "s.db")


def test_the_process_environment_is_the_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives no environment means that of the process."""
    monkeypatch.setenv("HOME", str(home))
    for name in ("EQUABOT_HOME", "EQUABOT_CONFIG", "EQUABOT_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert load().home == home / ".equabot"


def test_a_home_that_is_no_path_counts_as_root(home: Path) -> None:
    """Container runtimes give users without a home `/`; `~` itself is never a directory's name."""
    assert load(environ={"HOME": "~"}).home == Path("/.equabot")


# --- what cannot be read ----------------------------------------------------------------------------------------------


def unusable(home: Path) -> Iterator[tuple[str, str]]:
    """A path and what is said of it."""
    yield str(home / "none.yaml"), "does not exist; create it, or correct the path"
    yield str(home), "is a directory, not a file; remove it or name another path"
    (home / "big.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    yield str(home / "big.yaml"), "is larger than 1 MiB; name the right file, or remove what is not needed"
    (home / "latin.yaml").write_bytes(f"# ok\na: {CANARY}\xe9".encode("latin-1"))
    yield str(home / "latin.yaml"), "is not UTF-8 text (line 2); save it as UTF-8"
    os.mkfifo(home / "pipe.yaml")
    yield str(home / "pipe.yaml"), "is not a regular file; put a plain file in its place"
    (home / "loop.yaml").symlink_to("loop.yaml")
    loop = "cannot be read (Too many levels of symbolic links)"
    yield str(home / "loop.yaml"), f"{loop}; its links lead in a circle; remove or correct them"
    nested = home / "big.yaml" / "equabot.yaml"
    yield str(nested), "cannot be read (Not a directory); a part of the path is a file; correct the path"
    yield "/dev/zero", "is not a regular file; put a plain file in its place"


def test_what_cannot_be_read_is_one_clear_fault(home: Path) -> None:
    """One line, at once, without a byte of the content; a pipe is not waited for."""
    for path, message in unusable(home):
        assert refused(config_path=path, environ={}, home=home) == (ConfigFault(path, "", message),)


def test_a_default_file_that_cannot_be_read_is_a_fault_too(home: Path) -> None:
    """Only absence means "no file": bounds that exist must not be skipped because they could not be read."""
    (home / ".equabot/equabot.yaml").mkdir()
    assert refused(environ={}, home=home) == (
        ConfigFault(str(home / ".equabot/equabot.yaml"), "", "is a directory, not a file; remove it or name another path"),
    )


def test_an_empty_file_and_one_with_a_byte_order_mark_are_fine(home: Path) -> None:
    """Editors leave both behind."""
    file = home / ".equabot/equabot.yaml"
    file.write_bytes(b"")
    assert load(environ={}, home=home).file == file
    file.write_bytes(b"\xef\xbb\xbfrun_dir: /x\r\n")
    assert load(environ={}, home=home).run_dir == Path("/x")


# --- flags and variables ----------------------------------------------------------------------------------------------


def test_run_dir_flag_variable_file(home: Path) -> None:
    """A flag goes before a variable, a variable before the file."""
    (home / ".equabot/equabot.yaml").write_text("run_dir: /file")
    variable = {"EQUABOT_RUN_DIR": "/variable"}
    assert load(run_dir="/flag", environ=variable, home=home).run_dir == Path("/flag")
    assert load(environ=variable, home=home).run_dir == Path("/variable")
    assert load(environ={"EQUABOT_RUN_DIR": ""}, home=home).run_dir == Path("/file")


def test_default_run_dir_is_the_first_that_can_be(home: Path) -> None:
    """`/run/equabot`, else the user's runtime directory, else the broker's own home; there, or possible to make."""
    own, usable, nowhere = home / ".equabot", home / "system", Path("/nowhere/at/all")
    runtime = {"XDG_RUNTIME_DIR": str(home)}
    assert _default_run_dir(runtime, own, system=usable) == usable
    usable.mkdir()
    assert _default_run_dir(runtime, own, system=usable) == usable
    assert _default_run_dir(runtime, own, system=nowhere) == home / "equabot"
    assert _default_run_dir({"XDG_RUNTIME_DIR": "/nowhere/at/all"}, own, system=nowhere) == own / "run"
    assert _default_run_dir({"XDG_RUNTIME_DIR": "relative"}, own, system=nowhere) == own / "run"
    assert _default_run_dir({}, own, system=nowhere) == own / "run"


def test_nothing_is_created(home: Path) -> None:
    """Looking at a configuration leaves no trace."""
    before = sorted(home.rglob("*"))
    load(environ={"XDG_RUNTIME_DIR": str(home)}, home=home)
    assert sorted(home.rglob("*")) == before


def test_listen_variables_move_the_defaults_only(home: Path) -> None:
    """An image listens everywhere; a file that says otherwise explicitly is heard."""
    (home / ".equabot/equabot.yaml").write_text("listen: {health: '127.0.0.1:1'}")
    names = ("HEALTH", "METRICS", "GATEWAY")
    environ = {f"EQUABOT_LISTEN_{name}": f"0.0.0.0:{port}" for port, name in enumerate(names, 2)}
    listen = load(environ=environ, home=home).listen
    assert (listen.health, listen.metrics, listen.gateway) == (
        Address("127.0.0.1", 1),
        Address("0.0.0.0", 3),
        Address("0.0.0.0", 4),
    )


def test_faults_outside_and_inside_the_file_come_together(home: Path) -> None:
    """Flags, variables and file are refused in one list."""
    file = home / ".equabot/equabot.yaml"
    file.write_text(f"# a key pasted where none belongs\nANTHROPIC_API_KEY: {CANARY}\nleases: {{max_ttl: 5}}\n")
    environ = {"EQUABOT_LISTEN_HEALTH": "8686", "EQUABOT_RUN_DIR": "~you/x", "EQUABOT_LISTEN_METRICS": CANARY}
    with pytest.raises(ConfigurationFaults) as caught:
        load(environ=environ, home=home)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["EQUABOT_RUN_DIR", "names another user's home directory, which is not supported; write the whole path"],
        ["EQUABOT_LISTEN_HEALTH", "'8686' has no port; write host:port, such as 127.0.0.1:8686"],
        ["EQUABOT_LISTEN_METRICS", "a value of 35 characters (not shown) has no port; write host:port, such as 127.0.0.1:8686"],
        [f"{file}:2", "ANTHROPIC_API_KEY"],
        [f"{file}:3", "leases.max_ttl"],
    ]
    assert "CANARY" not in repr(caught.value) + str(caught.value)


def test_a_file_in_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name needs a working directory that is there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    message = "is relative to a working directory that was deleted; write the whole path"
    assert refused(config_path="c.yaml", environ={}, home=tmp_path) == (ConfigFault("--config", "", message),)
