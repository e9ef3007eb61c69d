"""A tool's login file, on a real file system with real notifications."""

import json
import os
from pathlib import Path

import pytest

from equabot_broker.domain.material import SourceUnavailable, UnitsListed
from equabot_broker.formats.tool_logins import CLAUDE, CODEX, QWEN, Tool
from equabot_broker.sources.tool_login import ToolLogin, ToolLoginOptions
from tests.fakes.following import RULES, following, live_watch


def source(path: Path, tool: Tool = CLAUDE, kind: str = "claude_cli") -> ToolLogin:
    return ToolLogin(ToolLoginOptions(kind, tool, path), rules=RULES, watch=live_watch())


def claude(token: str) -> str:
    return json.dumps({"claudeAiOauth": {"accessToken": token, "refreshToken": "r", "expiresAt": 1.9e12}})


def held(token: str) -> dict[str, dict[str, str]]:
    return {"": {"anthropic:claude-cli": token}}


async def test_a_login_is_followed(tmp_path: Path) -> None:
    """Made, refreshed in place, replaced, logged out, deleted."""
    path = tmp_path / ".claude" / ".credentials.json"
    async with following(source(path)) as events:
        assert await events.next() == {}
        path.parent.mkdir()
        path.write_text(claude("one"))
        assert await events.next() == held("one")
        path.write_text(claude("two"))
        assert await events.next() == held("two")
        (tmp_path / "new").write_text(claude("three"))
        (tmp_path / "new").rename(path)
        assert await events.next() == held("three")
        path.write_text("{}")
        assert await events.next() == {}
        path.unlink()
        path.write_text(claude("four"))
        assert await events.next() == held("four")


async def test_a_file_that_cannot_be_used_makes_the_source_unavailable(tmp_path: Path) -> None:
    """Its fault says where and why, and nothing of what it holds; mended, it serves again."""
    path = tmp_path / "c.json"
    path.write_text(claude("secret-token")[:-9])
    async with following(source(path)) as events:
        broken = await events.event()
        assert isinstance(broken, SourceUnavailable)
        assert broken.fault.startswith(f"{path} is not usable: it breaks off in the middle (at byte ")
        assert "secret" not in broken.fault
        path.unlink()
        path.mkdir()
        assert "is a directory" in str(await events.until(lambda told: "directory" in str(told)))
        path.rmdir()
        assert await events.next() == {}
        path.write_text(claude("good"))
        assert await events.next() == held("good")


async def test_a_home_that_is_closed_holds_no_login(as_nobody: Path) -> None:
    """The broker may run as somebody whose `~` is another's: that is no fault of the source, which is read as a whole."""
    path = as_nobody / "home" / "c.json"
    path.parent.mkdir()
    path.write_text(claude("one"))
    path.parent.chmod(0)
    async with following(source(path)) as events:
        assert await events.next() == {}
        path.parent.chmod(0o700)
        path.chmod(0)
        assert "cannot be read (Permission denied)" in str(await events.until(lambda told: told != {}))


async def test_a_login_of_no_use_is_a_fault_of_its_unit(tmp_path: Path) -> None:
    """The source itself is well."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r"}}))
    async with following(source(path)) as events:
        listed = await events.event()
        assert isinstance(listed, UnitsListed)
        assert ["expiresAt is missing" in fault.message for unit in listed.units for fault in unit.faults] == [True]


@pytest.mark.parametrize(
    ("tool", "contents", "profile_id", "expires_at"),
    [
        (CODEX, {"tokens": {"access_token": "t", "refresh_token": "r"}}, "openai-codex:codex-cli", 1_900_000_000.5 + 3600),
        (QWEN, {"access_token": "t", "expiry_date": 1_900_000_000_000}, "qwen-portal:qwen-cli", 1_900_000_000.0),
    ],
)
async def test_other_tools_keep_theirs_elsewhere(
    tmp_path: Path, tool: Tool, contents: object, profile_id: str, expires_at: float
) -> None:
    """A token that does not say when it ends does so an hour after the file was changed."""
    path = tmp_path / "login.json"
    path.write_text(json.dumps(contents))
    os.utime(path, (1_900_000_000.5, 1_900_000_000.5))
    async with following(source(path, tool, "x_cli")) as events:
        listed = await events.event()
        assert isinstance(listed, UnitsListed)
        (profile,) = listed.units[0].profiles
        assert (profile.id, profile.expires_at) == (profile_id, expires_at)
        assert (profile.source, profile.unit, profile.origin) == (f"x_cli {path}", "", str(path))
