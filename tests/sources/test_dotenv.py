"""One `.env`, on a real file system with real notifications: whatever happens to it is followed."""

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from equabot_broker.domain.material import SourceUnavailable, UnitsListed
from equabot_broker.sources.dotenv import Dotenv, DotenvOptions
from tests.fakes.following import RULES, UNSHAPED, CountingRules, following, live_watch
from tests.fakes.volume import Volume


def dotenv(path: Path) -> Dotenv:
    return Dotenv(DotenvOptions(path), rules=RULES, watch=live_watch())


def one(value: str) -> dict[str, dict[str, str]]:
    return {"": {"openai:dotenv": value}}


def line(value: str) -> str:
    return f"OPENAI_API_KEY={value}\n"


async def turns() -> None:
    """Long enough for a reader that does not wait to have read."""
    for _ in range(10):
        await asyncio.sleep(0.0005)


async def test_every_way_of_changing_it_is_followed(tmp_path: Path) -> None:
    """Created later, rewritten in place, replaced, linked into place, deleted, created again."""
    path = tmp_path / ".env"
    async with following(dotenv(path)) as events:
        assert await events.next() == {}
        path.write_text(line("created"))
        assert await events.next() == one("created")
        path.write_text(line("rewritten"))
        assert await events.next() == one("rewritten")
        (tmp_path / "new").write_text(line("replaced"))
        (tmp_path / "new").rename(path)
        assert await events.next() == one("replaced")
        path.unlink()
        assert await events.next() == {}
        (tmp_path / "linked").write_text(line("linked"))
        path.hardlink_to(tmp_path / "linked")
        assert await events.next() == one("linked")
        path.unlink()
        path.symlink_to("linked")
        (tmp_path / "linked").write_text(line("through the link"[:7]))
        assert await events.next() == one("through")


async def test_a_directory_on_the_way_may_come_and_go(tmp_path: Path) -> None:
    """The nearest directory that there is tells when the next one appears; one that is moved away takes the file along."""
    path = tmp_path / "home" / ".equabot" / ".env"
    async with following(dotenv(path)) as events:
        assert await events.next() == {}
        path.parent.mkdir(parents=True)
        path.write_text(line("deep"))
        assert await events.next() == one("deep")
        (tmp_path / "home").rename(tmp_path / "away")
        assert await events.next() == {}
        (tmp_path / "away").rename(tmp_path / "home")
        assert await events.next() == one("deep")


async def test_links_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    """Into a volume of the kubelet, over a link to a directory: any step may be exchanged."""
    volume = Volume(tmp_path / "volume", {".env": line("first")})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "current").symlink_to("../volume")
    path = tmp_path / ".env"
    path.symlink_to("etc/current/.env")
    async with following(dotenv(path)) as events:
        assert await events.next() == one("first")
        volume.swap({".env": line("second")})
        assert await events.next() == one("second")
        Volume(tmp_path / "other", {".env": line("third")})
        (tmp_path / "new").symlink_to(tmp_path / "other")
        (tmp_path / "new").rename(tmp_path / "etc" / "current")
        assert await events.next() == one("third")


async def test_what_changes_nothing_is_no_event(tmp_path: Path) -> None:
    """The same keys again, a comment, a touch, a mode: nobody needs to hear of it."""
    path = tmp_path / ".env"
    path.write_text(line("same"))
    rules = CountingRules(UNSHAPED)
    async with following(Dotenv(DotenvOptions(path), rules=rules, watch=live_watch())) as events:
        assert await events.next() == one("same")
        await events.unmoved(rules, lambda: path.write_text("# comment\n" + line("same")))
        await events.unmoved(rules, path.touch)
        await events.unmoved(rules, lambda: path.chmod(0o600))
        path.write_text(line("different"))
        assert await events.next() == one("different")


async def test_other_files_are_none_of_its_business(tmp_path: Path) -> None:
    """A neighbour that is written all day wakes nobody."""
    path = tmp_path / ".env"
    path.write_text(line("mine"))
    rules = CountingRules(UNSHAPED)
    async with following(Dotenv(DotenvOptions(path), rules=rules, watch=live_watch())) as events:
        assert await events.next() == one("mine")
        for number in range(100):
            (tmp_path / "log").write_text(str(number))
        path.write_text(line("again"))
        assert await events.next() == one("again")
        assert rules.reads <= 3, "one for each state of its own, and one that a write may have crossed"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"# mine\nthis is prose\n", "has no assignment: line 2 is skipped"),
        (b"\x00\x01\x02", "is binary, not text"),
        (b"A=" + b"x" * 1024 * 1024, "is larger than 128 KiB"),
    ],
)
async def test_what_cannot_be_understood_makes_the_source_unavailable(tmp_path: Path, raw: bytes, fault: str) -> None:
    """So that what was good is served on; once mended, it is listed again, even if nothing is new."""
    path = tmp_path / ".env"
    path.write_text(line("good"))
    async with following(dotenv(path)) as events:
        assert await events.next() == one("good")
        path.write_bytes(raw)
        unavailable = await events.event()
        assert isinstance(unavailable, SourceUnavailable)
        assert unavailable.fault.startswith(f"{path} ")
        assert fault in unavailable.fault
        path.write_text(line("good"))
        assert await events.next() == one("good")


async def test_a_bad_value_is_not_a_bad_file(tmp_path: Path) -> None:
    """Ten megabytes are refused above; a placeholder or a key that is too long only costs its own profile."""
    path = tmp_path / ".env"
    path.write_text(line("changeme") + "GROQ_API_KEY=gsk_good\nXAI_API_KEY=" + "x" * 70_000 + "\n")
    async with following(dotenv(path)) as events:
        assert await events.next() == {"": {"openai:dotenv": "!", "groq:dotenv": "gsk_good", "xai:dotenv": "!"}}


async def test_special_files_in_its_place(tmp_path: Path) -> None:
    """A pipe does not block, a directory and a circle of links are named, and all of it can be mended."""
    path = tmp_path / ".env"
    os.mkfifo(path)
    async with following(dotenv(path)) as events:
        told = str(await events.next())
        assert "is not a regular file: put a plain file in its place." in told
        assert "password manager such as 1Password writes it, start the broker with its variables" in told
        path.unlink()
        path.mkdir()
        await events.until(lambda told: "is a directory, not a file" in str(told))
        path.rmdir()
        path.symlink_to(".env")
        await events.until(lambda told: "circle" in str(told))
        path.unlink()
        path.write_text(line("mended"))
        await events.until(lambda told: told == one("mended"))


async def test_a_file_that_may_not_be_read_is_noticed_when_it_may(as_nobody: Path) -> None:
    """`chmod` is enough."""
    path = as_nobody / ".env"
    path.write_text(line("mine"))
    path.chmod(0)
    async with following(dotenv(path)) as events:
        assert await events.next() == f"{path} cannot be read (Permission denied): let the user of the broker read it"
        path.chmod(0o600)
        assert await events.next() == one("mine")


async def test_half_a_file_is_never_served(tmp_path: Path) -> None:
    """A writer that truncates, writes in pieces and takes its time: only what it closed is seen."""
    path = tmp_path / ".env"
    path.write_text(line("0-complete"))
    async with following(dotenv(path)) as events:
        assert await events.next() == one("0-complete")
        for number in range(1, 20):
            with path.open("w") as file:
                for piece in ("OPENAI_API", f"_KEY={number}-com", "plete\n"):
                    file.write(piece)
                    file.flush()
                    await turns()
                    assert events.silent
            assert await events.next() == one(f"{number}-complete")


async def test_a_file_that_is_never_closed_is_read_in_the_end(tmp_path: Path) -> None:
    """A writer that hangs holds nobody up for more than a moment."""
    path = tmp_path / ".env"
    async with following(dotenv(path)) as events:
        assert await events.next() == {}
        with path.open("w") as file:
            file.write(line("open"))
            file.flush()
            assert await events.next() == one("open")


async def test_asking_lists_it_again_though_nothing_changed(tmp_path: Path) -> None:
    """Whoever asks wants an answer, also that it is still broken."""
    path = tmp_path / ".env"
    path.write_text("'")
    source = dotenv(path)
    async with following(source) as events:
        fault = await events.next()
        source.reread()
        assert await events.next() == fault
        path.write_text(line("good"))
        assert await events.next() == one("good")
        source.reread()
        assert await events.next() == one("good")


async def test_a_file_that_is_mounted_alone_and_was_replaced_is_said(tmp_path: Path) -> None:
    """P22: what is left of it is served, and the fault says why no change arrives, as soon as the original is replaced."""
    original = tmp_path / "original"
    original.write_text(line("old"))
    with original.open() as mounted:
        source = dotenv(Path(f"/proc/{os.getpid()}/fd/{mounted.fileno()}"))
        async with aclosing(source.events()) as events:
            first = await anext(events)
            assert isinstance(first, UnitsListed)
            assert first.units[0].faults == ()
            (tmp_path / "new").write_text(line("new"))
            (tmp_path / "new").rename(original)
            source.reread()
            found = await anext(events)
            assert isinstance(found, UnitsListed)
            (unit,) = found.units
            assert [profile.secret and profile.secret.reveal() for profile in unit.profiles] == ["old"]
            (fault,) = unit.faults
            assert "is mounted alone, and its original was replaced" in fault.message
