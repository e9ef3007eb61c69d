"""The environment as a source."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import Unit
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.sources._environment import process_environment
from equabot_broker.sources.env import Env, EnvOptions
from tests.fakes.following import RULES, UNSHAPED, following


async def test_it_is_listed_once_and_again_when_asked() -> None:
    """An environment does not tell when it changes; a reload reads it again."""
    environ = {"OPENAI_API_KEY": "one", "PATH": "/bin"}
    source = Env(rules=RULES, environ=lambda: environ, clock=SystemClock())
    async with following(source) as events:
        assert await events.next() == {"": {"openai:env": "one"}}
        environ["OPENAI_API_KEY"] = "two"
        source.reread()
        assert await events.next() == {"": {"openai:env": "two"}}


async def test_a_profile_says_which_variable_it_came_from() -> None:
    """A person can look there."""
    async with following(Env(rules=RULES, environ=lambda: {"OPENAI_API_KEY": "changeme"}, clock=SystemClock())) as events:
        event = await events.event()
        profile = event.units[0].profiles[0]  # type: ignore[union-attr]
        assert (profile.source, profile.unit, profile.origin) == ("env", "", "environment variable OPENAI_API_KEY")
        assert profile.fault == "environment variable OPENAI_API_KEY is a placeholder: put the real value there"


async def test_bytes_that_are_no_text_make_an_invalid_profile() -> None:
    """The operating system puts no encoding on the environment."""
    async with following(
        Env(rules=DiscoveryRules(UNSHAPED), environ=lambda: {"OPENAI_API_KEY": "k\udcff"}, clock=SystemClock())
    ) as events:
        assert await events.next() == {"": {"openai:env": "!"}}


async def listed(options: EnvOptions, **environ: str) -> Unit:
    async with following(Env(options, rules=RULES, environ=lambda: environ, clock=SystemClock())) as events:
        event = await events.event()
        return event.units[0]  # type: ignore[union-attr]


def told(unit: Unit) -> dict[str, tuple[str, str]]:
    """Secrets and origins by profile."""
    return {p.id: (p.secret.reveal() if p.secret else "!", p.origin) for p in unit.profiles}


def shell(tmp_path: Path, script: str) -> str:
    """A stand-in for the user's login shell."""
    path = tmp_path / "shell"
    path.write_text(f'#!/bin/sh\n[ "$1 $2" = "-l -c" ] || exit 9\n{script}\n')
    path.chmod(0o755)
    return str(path)


async def test_the_process_goes_before_the_section_and_that_before_the_login_shell(tmp_path: Path) -> None:
    """Nothing that is set is overridden; an empty variable is none."""
    given = {"OPENAI_API_KEY": SecretValue("given"), "GROQ_API_KEY": SecretValue("given")}
    program = shell(tmp_path, 'OPENAI_API_KEY=x GROQ_API_KEY=x XAI_API_KEY="of\nshell" env -0')
    unit = await listed(EnvOptions(given, 10.0), OPENAI_API_KEY="process", GROQ_API_KEY="", SHELL=program, PATH="/bin:/usr/bin")
    assert told(unit) == {
        "openai:env": ("process", "environment variable OPENAI_API_KEY"),
        "groq:env": ("given", "env section of the configuration, GROQ_API_KEY"),
        "xai:env": ("!", "login shell's variable XAI_API_KEY"),
    }
    assert unit.faults == ()


async def test_a_login_shell_is_asked_only_where_that_is_wanted(tmp_path: Path) -> None:
    """It runs whatever the user's profile says. Of what it tells only credentials are taken."""
    program = shell(tmp_path, f"touch {tmp_path}/ran; OPENAI_API_KEY=mine LANG=xx env -0")
    assert told(await listed(EnvOptions(), SHELL=program)) == {}
    assert not (tmp_path / "ran").exists()
    unit = await listed(EnvOptions(shell_within=10.0), SHELL=program, PATH="/bin:/usr/bin")
    assert told(unit) == {"openai:env": ("mine", "login shell's variable OPENAI_API_KEY")}


@pytest.mark.parametrize(
    ("script", "within", "why"),
    [
        ("sleep 60 & sleep 60", 0.2, "reported nothing within 0.2 s: correct its profile, or set env.shellEnv.enabled: false"),
        ("exit 3", 10.0, "ended with 3"),
    ],
)
async def test_a_login_shell_that_fails_is_a_fault_beside_the_rest(
    tmp_path: Path, script: str, within: float, why: str
) -> None:
    """What it has started goes with it."""
    program = shell(tmp_path, script)
    unit = await listed(EnvOptions(shell_within=within), OPENAI_API_KEY="mine", SHELL=program, PATH="/bin:/usr/bin")
    assert told(unit) == {"openai:env": ("mine", "environment variable OPENAI_API_KEY")}
    assert [why in fault.message for fault in unit.faults] == [True]


async def test_a_shell_that_is_none_is_the_systems() -> None:
    """Whatever SHELL says."""
    unit = await listed(EnvOptions(shell_within=10.0), SHELL="no/such", OPENAI_API_KEY="mine", PATH="/bin:/usr/bin")
    assert unit.faults == ()


def test_by_default_it_is_that_of_the_process() -> None:
    """The only other door to it is the configuration's."""
    assert "PATH" in process_environment()


async def test_a_variable_that_names_a_file_is_followed(tmp_path: Path) -> None:
    """P16: Docker's `<NAME>_FILE`; read again when asked, and only where NAME itself is not set."""
    file = tmp_path / "key"
    file.write_text("in-the-file\n")
    environ = {
        "OPENAI_API_KEY_FILE": str(file),
        "GROQ_API_KEY": "set",
        "GROQ_API_KEY_FILE": str(file),
        "OTHER_FILE": "/nowhere",
    }
    source = Env(rules=RULES, environ=lambda: environ, clock=SystemClock())
    async with following(source) as events:
        event = await events.event()
        unit = event.units[0]  # type: ignore[union-attr]
        origin = f"environment variable OPENAI_API_KEY_FILE, file {file}"
        assert told(unit) == {
            "openai:env": ("in-the-file", origin),
            "groq:env": ("set", "environment variable GROQ_API_KEY"),
        }
        assert unit.faults == ()
        file.write_text("changed")
        source.reread()
        assert await events.next() == {"": {"openai:env": "changed", "groq:env": "set"}}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "which does not exist: mount it, or correct the path"),
        (Path.mkdir, "is a directory, not a file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.write_bytes(b"x" * 70_000), "is larger than 64 KiB"),
    ],
)
async def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """P16: with the variable and the path; nothing waits for a pipe, and nothing endless is read."""
    make(tmp_path / "key")
    unit = await listed(EnvOptions(), OPENAI_API_KEY_FILE=str(tmp_path / "key"))
    assert unit.profiles == ()
    (fault,) = unit.faults
    assert fault.message.startswith("environment variable OPENAI_API_KEY_FILE")
    assert f"{tmp_path}/key" in fault.message
    assert why in fault.message


async def test_a_file_is_named_by_its_whole_path() -> None:
    """P16: a key in the place of a path is not repeated."""
    unit = await listed(EnvOptions(), OPENAI_API_KEY_FILE="sk-proj-canary")
    assert unit.profiles == ()
    assert "is not an absolute path: set it to the file that holds OPENAI_API_KEY" in unit.faults[0].message
    assert "canary" not in unit.faults[0].message
