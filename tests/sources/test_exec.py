"""The source `exec`: real programs that speak the protocol, fail, hang, write too much, or answer something else."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.bundle_profiles import Override
from equabot_broker.domain.material import SourceUnavailable, UnitsListed
from equabot_broker.domain.provider import Mode
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.exec_protocol import ANSWER_MAX, read_answer
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.sources.exec import ExecOptions, ExecProgram
from tests.fakes.following import RULES, following, secrets
from tests.rpc.serving import eventually

IDS = {"openai:team": "team/openai", "anthropic:team": "team/anthropic"}
CANARY = "sk-canary-4f1b9c72aa51"


class Program:
    """A shell script in a directory that no other user can change."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "helper"
        self.seen = directory / "seen"
        self.answer({"team/openai": "key-1", "team/anthropic": "key-2"})

    def script(self, text: str) -> None:
        made = self.path.with_suffix(".new")
        made.write_text(f"#!/bin/sh\n{text}\n")
        made.chmod(0o755)
        made.replace(self.path)

    def given(self, what: str) -> str:
        """What the last run got; empty if there was none."""
        path = Path(f"{self.seen}.{what}")
        return path.read_text() if path.exists() else ""

    def answer(self, values: Mapping[str, object], **more: object) -> None:
        said = json.dumps({"protocolVersion": 1, "values": values, **more})
        self.script(f"cat > {self.seen}.stdin; env > {self.seen}.env; cat <<'END'\n{said}\nEND")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def source(
    program: Program, *, ids: Mapping[str, str] = IDS, environ: Mapping[str, str] | None = None, **options: object
) -> ExecProgram:
    made = ExecOptions(command=(str(program.path),), ids=ids, **options)  # type: ignore[arg-type]
    return ExecProgram(made, rules=RULES, clock=SystemClock(), environ=lambda: environ or {})


def held(event: object) -> dict[str, str]:
    assert isinstance(event, UnitsListed), event
    return {name: secret for unit in event.units for name, secret in secrets(unit).items()}


async def test_one_run_reports_the_value_of_every_profile(program: Program) -> None:
    async with following(source(program)) as events:
        assert held(await events.event()) == {"openai:team": "key-1", "anthropic:team": "key-2"}
    request = json.loads(program.given("stdin"))
    assert request == {"protocolVersion": 1, "provider": "helper", "ids": ["team/openai", "team/anthropic"]}


async def test_the_program_gets_the_chosen_variables_only(program: Program) -> None:
    environ = {"HOME": "/home/x", "OPENAI_API_KEY": CANARY, "PATH": os.environ["PATH"]}
    async with following(source(program, environ=environ, pass_env=("HOME", "PATH", "MISSING"))) as events:
        await events.event()
    given = dict(line.split("=", 1) for line in program.given("env").splitlines())
    assert given["HOME"] == "/home/x"
    assert not given.keys() - {"HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}  # a shell sets the last ones itself


async def test_another_value_is_an_event_and_the_same_value_is_none(program: Program) -> None:
    followed = source(program, refresh=0.05)
    async with following(followed) as events:
        await events.event()
        program.answer({"team/openai": "key-3", "team/anthropic": "key-2"})
        assert held(await events.event()) == {"openai:team": "key-3", "anthropic:team": "key-2"}


async def test_a_value_that_ends_soon_is_asked_for_again_before_its_end(program: Program) -> None:
    end = time.time() + 3
    program.answer({"team/openai": "key-1", "team/anthropic": "key-2"}, expires_at={"team/openai": end})
    async with following(source(program, refresh=3600.0)) as events:
        first = await events.event()
        assert isinstance(first, UnitsListed)
        assert [profile.expires_at for unit in first.units for profile in unit.profiles] == [end, None]
        program.answer({"team/openai": "key-9", "team/anthropic": "key-2"})
        assert held(await events.event())["openai:team"] == "key-9"


async def test_an_end_in_the_configuration_comes_first(program: Program) -> None:
    program.answer({"team/openai": "key-1"}, expires_at={"team/openai": "2027-01-31T12:00:00Z"})
    made = ExecOptions(command=(str(program.path),), ids={"openai:team": "team/openai"})
    rules = type(RULES)(RULES.catalog, overrides={"openai:team": Override(expires_at=2e9)})
    async with following(ExecProgram(made, rules=rules, clock=SystemClock())) as events:
        event = await events.event()
    assert isinstance(event, UnitsListed)
    (profile,) = event.units[0].profiles
    assert profile.expires_at == 2e9
    assert profile.declared is not None
    assert profile.declared.own == 1801396800.0


async def test_the_mode_of_the_configuration_applies(program: Program) -> None:
    made = ExecOptions(command=(str(program.path),), ids={"openai:team": "team/openai"})
    rules = type(RULES)(RULES.catalog, overrides={"openai:team": Override(mode=Mode.TOKEN)})
    async with following(ExecProgram(made, rules=rules, clock=SystemClock())) as events:
        event = await events.event()
    assert isinstance(event, UnitsListed)
    assert event.units[0].profiles[0].mode is Mode.TOKEN


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"values": {}, "errors": {"team/openai": {"code": "NOT_FOUND"}}}, "the program reports the error NOT_FOUND"),
        ({"values": {}, "errors": {"team/openai": {"message": CANARY}}}, "the program reports an error without a code"),
        ({"values": {}, "errors": {"team/openai": {"code": f"x {CANARY}"}}}, "the program reports an error without a code"),
        ({"values": {}, "errors": {"team/openai": CANARY}}, "the program reports an error without a code"),
        ({"values": {"another/id": CANARY}}, "the answer has no value for it"),
        ({"values": {"team/openai": {"value": CANARY}}}, "its value in the answer is not a text"),
        ({"values": {"team/openai": ""}}, "its value in the answer is empty"),
        (
            {"values": {"team/openai": CANARY}, "expires_at": {"team/openai": CANARY}},
            "its expires_at in the answer is not an instant",
        ),
    ],
)
async def test_an_id_without_a_value_fails_alone(program: Program, answer: dict[str, object], why: str) -> None:
    values = {"team/anthropic": "key-2"} | dict(answer["values"])  # type: ignore[call-overload]
    program.answer(values, **{key: value for key, value in answer.items() if key != "values"})
    async with following(source(program)) as events:
        event = await events.event()
    assert isinstance(event, UnitsListed)
    assert held(event) == {"anthropic:team": "key-2"}
    assert why in event.failed["openai:team"]
    assert CANARY not in repr(event)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo {CANARY}; echo {CANARY} >&2; exit 3", "ended with exit code 3"),
        ("kill -9 $$", "was ended by signal 9"),
        (":", "it is empty"),
        (f"echo '{CANARY}'", "it is not JSON"),
        ("echo '[1]'", "it is not a JSON object"),
        ("""echo '{"protocolVersion": 2, "values": {}}'""", "its protocolVersion is not 1"),
        ("""echo '{"protocolVersion": true, "values": {}}'""", "its protocolVersion is not 1"),
        ("""echo '{"values": {}}'""", "its protocolVersion is not 1"),
        (f"""echo '{{"protocolVersion": 1, "values": ["{CANARY}"]}}'""", "its values is not an object"),
        (f"yes {CANARY}", "writes more than 1024 KiB"),
        ("exec sleep 600", "has not ended within 0.5 s"),
        ("sleep 600 & sleep 600", "has not ended within 0.5 s"),
        ("exec >&-; exec sleep 600", "has not ended within 0.5 s"),
    ],
)
async def test_a_program_that_fails_makes_the_source_unavailable(program: Program, script: str, why: str) -> None:
    program.script(script)
    followed = source(program, timeout=30.0 if "yes" in script else 0.5)
    async with following(followed) as events:
        event = await events.event()
        assert isinstance(event, SourceUnavailable)
        assert why in event.fault
        assert CANARY not in event.fault
        program.answer({"team/openai": "key-1", "team/anthropic": "key-2"})
        followed.reread()
        assert held(await events.event())["openai:team"] == "key-1"


async def test_nothing_that_the_program_started_is_left(program: Program, tmp_path: Path) -> None:
    program.script(f"sleep 600 & echo $! > {tmp_path}/child; sleep 600")
    async with following(source(program, timeout=0.5)) as events:
        assert isinstance(await events.event(), SourceUnavailable)
        child = int((tmp_path / "child").read_text())
        await eventually(lambda: not _runs(child))


async def test_a_source_that_ends_stops_its_program(program: Program, tmp_path: Path) -> None:
    program.script(f"echo $$ > {tmp_path}/own.new; mv {tmp_path}/own.new {tmp_path}/own; exec sleep 600")
    async with following(source(program, timeout=300.0)) as events:
        events.silent  # noqa: B018 - begins to listen
        await eventually((tmp_path / "own").exists)
    await eventually(lambda: not _runs(int((tmp_path / "own").read_text())))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_plain_output_is_the_value_of_the_only_id(program: Program) -> None:
    program.script("echo key-7")
    async with following(source(program, ids={"openai:team": "value"}, plain=True)) as events:
        assert held(await events.event()) == {"openai:team": "key-7"}


@pytest.mark.parametrize("make", ["world", "parent", "missing", "directory", "closed"])
async def test_a_program_that_others_can_replace_is_not_run(program: Program, tmp_path: Path, make: str) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    if make == "world":
        program.path.chmod(0o777)
    elif make == "parent":
        program.path = program.path.rename(folder / "helper")
        folder.chmod(0o777)
    elif make == "missing":
        program.path = folder / "none"
    elif make == "directory":
        program.path = folder
    else:
        program.path.chmod(0o600)
        if os.geteuid() == 0:
            program.path.write_text("no interpreter line")
    async with following(source(program)) as events:
        event = await events.event()
    assert isinstance(event, SourceUnavailable)
    assert str(program.path) in event.fault
    assert not program.given("stdin")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_an_answer_or_malformed(value: object) -> None:
    for text in (json.dumps(value), json.dumps({"protocolVersion": 1, "values": value, "errors": value, "expires_at": value})):
        try:
            answer = read_answer(text.encode(), ["a", "b"])
        except Malformed:
            continue
        assert answer.values.keys() | answer.refused.keys() == {"a", "b"}


@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer_or_malformed(text: bytes) -> None:
    """No other exception."""
    with suppress(Malformed):
        read_answer(text, ["a"])


def test_an_answer_has_a_bound() -> None:
    with pytest.raises(Malformed, match="larger than 1 MiB"):
        read_answer(b" " * (ANSWER_MAX + 1), ["a"])
