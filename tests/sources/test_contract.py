"""What every source promises, the one for tests included."""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from equabot_broker.domain.material import Unit, UnitsListed
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.tool_logins import CLAUDE
from equabot_broker.ports import Source
from equabot_broker.sources.dotenv import Dotenv, DotenvOptions
from equabot_broker.sources.env import Env
from equabot_broker.sources.mounted import Mounted, MountedOptions
from equabot_broker.sources.profile_store import ProfileStores
from equabot_broker.sources.tool_login import ToolLogin, ToolLoginOptions
from equabot_broker.storage.auth_profiles import AuthProfiles
from tests.fakes.exhausted import without_descriptors
from tests.fakes.following import RULES, following, live_watch
from tests.fakes.source import FakeSource
from tests.fakes.volume import Volume


@dataclass
class Case:
    """A source, and how to make it hold a key. `tells`: it says by itself when that happens."""

    source: Source
    hold: Callable[[str], object]
    tells: bool = True


def _fake(_: Path) -> Case:
    source = FakeSource("fake")
    return Case(source, lambda key: source.push(UnitsListed((_unit(key),))))


def _unit(key: str) -> Unit:
    return RULES.discover({"OPENAI_API_KEY": key}, kind="fake", source="fake", unit="", name="x", origin=str)


def _env(_: Path) -> Case:
    environ: dict[str, str] = {}
    source = Env(rules=RULES, environ=lambda: environ, clock=SystemClock())
    return Case(source, lambda key: environ.update(OPENAI_API_KEY=key), tells=False)


def _dotenv(path: Path) -> Case:
    file = path / ".env"
    source = Dotenv(DotenvOptions(file), rules=RULES, watch=live_watch())
    return Case(source, lambda key: file.write_text(f"OPENAI_API_KEY={key}"))


def _mounted(path: Path) -> Case:
    source = Mounted(MountedOptions(path), rules=RULES, watch=live_watch())
    return Case(source, (path / "OPENAI_API_KEY").write_text)


def _volume(path: Path) -> Case:
    volume = Volume(path, {})
    source = Mounted(MountedOptions(path), rules=RULES, watch=live_watch())
    return Case(source, lambda key: volume.swap({"OPENAI_API_KEY": key}))


def _store(path: Path) -> Case:
    store = AuthProfiles(path / "auth-profiles.json", clock=SystemClock())

    def hold(key: str) -> None:
        store.path.write_text(json.dumps({"profiles": {"openai:x": {"type": "api_key", "key": key}}}))

    return Case(ProfileStores({"main": store}, rules=RULES, watch=live_watch()), hold)


def _login(path: Path) -> Case:
    file = path / ".credentials.json"
    source = ToolLogin(ToolLoginOptions("claude_cli", CLAUDE, file), rules=RULES, watch=live_watch())
    return Case(source, lambda key: file.write_text(json.dumps({"claudeAiOauth": {"accessToken": key, "expiresAt": 1.9e12}})))


@pytest.fixture(params=[_fake, _env, _dotenv, _mounted, _volume, _store, _login])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    made: Case = request.param(tmp_path)
    return made


def keys(event: object) -> set[str]:
    units = event.units if isinstance(event, UnitsListed) else [getattr(event, "unit", Unit(""))]
    return {profile.secret.reveal() for unit in units for profile in unit.profiles if profile.secret}


async def test_nothing_is_read_before_somebody_listens(case: Case) -> None:
    """Making a source and asking for its events touches nothing: what it says first is how things are by then."""
    assert case.source.name
    async with following(case.source) as events:
        case.hold("by-then")
        assert keys(await events.event()) == {"by-then"}


async def test_it_lists_first_and_then_tells_what_changes(case: Case) -> None:
    """Every state is told, in order, to whoever keeps listening."""
    case.hold("k0")
    async with following(case.source) as events:
        first = await events.event()
        assert isinstance(first, UnitsListed)
        assert keys(first) == {"k0"}
        for number in range(1, 5):
            case.hold(f"k{number}")
            if not case.tells:
                case.source.reread()
            assert keys(await events.event()) == {f"k{number}"}


async def test_a_reread_lists_again_whatever_happened(case: Case) -> None:
    """Once per asking that was heard, although nothing changed."""
    case.hold("k")
    async with following(case.source) as events:
        first = await events.event()
        for _ in range(3):
            case.source.reread()
            assert await events.event() == first


def descriptors(path: Path) -> list[str]:
    """What this process has open of inotify, and under the path."""
    opened = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  (only the names)
        with suppress(FileNotFoundError):
            opened.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return [name for name in opened if "inotify" in name or name.startswith(str(path))]


async def test_it_ends_by_cancellation_and_leaves_nothing_open(case: Case, tmp_path: Path) -> None:
    """At whatever moment it comes: a broker that drains does not wait for a file. It can be followed anew."""
    case.hold("k")
    for turns in range(8):

        async def follow() -> None:
            async for _ in case.source.events():
                pass

        task = asyncio.ensure_future(follow())
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        case.source.reread()
        task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()
    async with asyncio.timeout(60):
        while descriptors(tmp_path):  # noqa: ASYNC110  (a reading thread may be finishing)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("make", [_dotenv, _mounted, _volume, _store, _login])
async def test_what_could_not_be_read_for_a_moment_is_read_without_an_event(
    make: Callable[[Path], Case], tmp_path: Path
) -> None:
    """S9: descriptors ran out while it was read. Nothing changes afterwards, and what it holds by then is told."""
    case = make(tmp_path)
    case.hold("before")
    async with following(case.source) as events:
        assert keys(await events.event()) == {"before"}
        case.hold("after")
        with without_descriptors():
            failed = await events.event()
            assert "Too many open files" in repr(failed)
        assert keys(await events.event()) == {"after"}


@pytest.mark.parametrize("make", [_dotenv, _mounted, _store, _login])
async def test_what_is_forbidden_is_tried_again(make: Callable[[Path], Case], as_nobody: Path) -> None:
    """S9: a right may come back without an event where the file is: one of the directories above it has changed."""
    directory = as_nobody / "above" / "closed"
    directory.mkdir(parents=True)
    case = make(directory)
    case.hold("k")
    (as_nobody / "above").chmod(0)
    async with following(case.source) as events:
        await events.event()
        (as_nobody / "above").chmod(0o700)
        assert keys(await events.event()) == {"k"}
