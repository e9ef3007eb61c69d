"""A mounted directory, on a real file system with real notifications."""

import json
import os
import shutil
from pathlib import Path

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, ValueLocation
from equabot_broker.domain.material import SourceUnavailable, Unit, UnitChanged, UnitsListed
from equabot_broker.sources.mounted import Mounted, MountedOptions
from tests.fakes.following import RULES, UNSHAPED, CountingRules, following, live_watch, secrets
from tests.fakes.volume import Volume


def mounted(path: Path, rules: DiscoveryRules = RULES) -> Mounted:
    return Mounted(MountedOptions(path), rules=rules, watch=live_watch())


def root(value: str) -> dict[str, str]:
    return {"openai:mounted": value}


def claude_login(token: str) -> str:
    return json.dumps({"claudeAiOauth": {"accessToken": token, "expiresAt": 1.9e12}})


def put(path: Path, value: str, key: str = "OPENAI_API_KEY") -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / key).write_text(value)


async def test_files_lines_and_subdirectories_make_profiles(tmp_path: Path) -> None:
    """A file a key, `.env` beneath the files, files of logins, a subdirectory a Secret of its own; nothing else is read."""
    put(tmp_path, "file")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=line\nGROQ_API_KEY=gsk_line\n")
    put(tmp_path / "team one", "sub")
    put(tmp_path / "team one" / "deeper", "never")
    put(tmp_path / ".hidden", "never")
    os.mkfifo(tmp_path / "README")
    (tmp_path / "auth-profiles.json").write_text('{"profiles": {"openai:x": {"type": "api_key", "key": "stored"}}}')
    (tmp_path / "team one" / ".credentials.json").write_text(claude_login("login"))
    async with following(mounted(tmp_path)) as events:
        assert await events.next() == {
            "": {"openai:mounted": "file", "groq:mounted": "gsk_line", "openai:x": "stored"},
            "team one": {"openai:team-one": "sub", "anthropic:team-one": "login"},
        }


async def test_files_of_logins_are_followed(tmp_path: Path) -> None:
    """Rewritten, replaced, broken, mended: a broken one leaves what the whole unit held before."""
    put(tmp_path, "k")
    file = tmp_path / ".credentials.json"
    async with following(mounted(tmp_path)) as events:
        assert await events.next() == {"": root("k")}
        file.write_text(claude_login("one"))
        assert await events.next() == ("", root("k") | {"anthropic:claude-cli": "one"})
        (tmp_path / "new").write_text(claude_login("two"))
        (tmp_path / "new").rename(file)
        assert await events.next() == ("", root("k") | {"anthropic:claude-cli": "two"})
        file.write_text(claude_login("three")[:-5])
        assert await events.next() == {"": "failed"}
        file.write_text(claude_login("three"))
        assert await events.next() == ("", root("k") | {"anthropic:claude-cli": "three"})
        (tmp_path / "auth-profiles.json").write_text("x" * (5 << 20))
        assert await events.next() == {"": "failed"}


async def test_a_profile_says_which_file_it_came_from(tmp_path: Path) -> None:
    """A person can look there, and an operator can bind it."""
    put(tmp_path / "team", "k")
    rules = DiscoveryRules(UNSHAPED, {ValueLocation("mounted", "team", "OPENAI_API_KEY"): "openai:prod"})
    async with following(mounted(tmp_path, rules)) as events:
        listed = await events.event()
        assert isinstance(listed, UnitsListed)
        (profile,) = (profile for unit in listed.units for profile in unit.profiles)
        assert (profile.id, profile.unit, profile.origin) == ("openai:prod", "team", f"{tmp_path}/team/OPENAI_API_KEY")
        assert profile.source == f"mounted {tmp_path}"


async def test_every_change_is_one_event_about_its_unit(tmp_path: Path) -> None:
    """Rewritten, replaced, added, gone: in the directory and in a subdirectory."""
    put(tmp_path, "1")
    put(tmp_path / "team", "1")
    async with following(mounted(tmp_path)) as events:
        assert await events.next() == {"": root("1"), "team": {"openai:team": "1"}}
        put(tmp_path, "2")
        assert await events.next() == ("", root("2"))
        put(tmp_path / "team", "2")
        assert await events.next() == ("team", {"openai:team": "2"})
        (tmp_path / "new").write_text("3")
        (tmp_path / "new").rename(tmp_path / "team" / "OPENAI_API_KEY")
        assert await events.next() == ("team", {"openai:team": "3"})
        (tmp_path / "team" / ".env").write_text("GROQ_API_KEY=gsk_1\n")
        assert await events.next() == ("team", {"openai:team": "3", "groq:team": "gsk_1"})
        (tmp_path / "team" / "OPENAI_API_KEY").unlink()
        assert await events.next() == ("team", {"groq:team": "gsk_1"})
        shutil.copytree(tmp_path / "team", tmp_path / ".prepared")
        (tmp_path / ".prepared").rename(tmp_path / "second")
        assert await events.next() == ("second", {"groq:second": "gsk_1"})
        (tmp_path / "second").rename(tmp_path / ".away")
        assert await events.next() == "second"
        (tmp_path / "linked").symlink_to(".away")
        assert await events.next() == ("linked", {"groq:linked": "gsk_1"})
        put(tmp_path / ".away", "gsk_2", "GROQ_API_KEY")
        assert await events.next() == ("linked", {"groq:linked": "gsk_2"})
        (tmp_path / "linked").unlink()
        assert await events.next() == "linked"


async def test_a_swap_of_the_kubelet_is_one_event(tmp_path: Path) -> None:
    """However many keys come, change and go with it, and whatever links the kubelet mends around it."""
    volume = Volume(tmp_path, {"OPENAI_API_KEY": "a0", "GROQ_API_KEY": "gsk_b0"})
    async with following(mounted(tmp_path)) as events:
        assert await events.next() == {"": {"openai:mounted": "a0", "groq:mounted": "gsk_b0"}}
        for number in range(1, 30):
            other = ("XAI_API_KEY", "xai-", "xai") if number % 2 else ("GROQ_API_KEY", "gsk_", "groq")
            volume.swap({"OPENAI_API_KEY": f"a{number}", other[0]: f"{other[1]}{number}"})
            told = await events.next()
            assert told == ("", {"openai:mounted": f"a{number}", f"{other[2]}:mounted": f"{other[1]}{number}"})


async def test_the_link_alone_is_the_swap(tmp_path: Path) -> None:
    """A kubelet that dies before it tidies up has exchanged everything all the same; and who writes past it is noticed too."""
    volume = Volume(tmp_path, {"OPENAI_API_KEY": "1"})
    async with following(mounted(tmp_path)) as events:
        assert await events.next() == {"": root("1")}
        volume.swap({"OPENAI_API_KEY": "2"}, dies=True)
        assert await events.next() == ("", root("2"))
        (tmp_path / "..data" / "OPENAI_API_KEY").write_text("3")
        assert await events.next() == ("", root("3"))


async def test_all_of_a_swap_is_one_event_even_over_several_secrets(tmp_path: Path) -> None:
    """A projected volume has a directory a Secret and one `..data` for all of them: never a mixture of old and new."""
    volume = Volume(tmp_path, {"one/OPENAI_API_KEY": "1", "two/OPENAI_API_KEY": "1"})
    put(tmp_path / "own", "1")
    async with following(mounted(tmp_path)) as events:
        own = {"own": {"openai:own": "1"}}
        assert await events.next() == {"one": {"openai:one": "1"}, "two": {"openai:two": "1"}} | own
        volume.swap({"one/OPENAI_API_KEY": "2", "two/OPENAI_API_KEY": "2"})
        assert await events.next() == {"one": {"openai:one": "2"}, "two": {"openai:two": "2"}} | own
        volume.swap({"two/OPENAI_API_KEY": "2"})
        assert await events.next() == "one"
        put(tmp_path / "own", "2")
        assert await events.next() == ("own", {"openai:own": "2"})


async def test_a_subdirectory_may_be_a_volume_itself(tmp_path: Path) -> None:
    """As when every Secret is mounted into a directory of its own."""
    volume = Volume(tmp_path / "llm", {"OPENAI_API_KEY": "1", "GROQ_API_KEY": "gsk_1"})
    async with following(mounted(tmp_path)) as events:
        assert await events.next() == {"llm": {"openai:llm": "1", "groq:llm": "gsk_1"}}
        volume.swap({"OPENAI_API_KEY": "2", "GROQ_API_KEY": "gsk_2"})
        assert await events.next() == ("llm", {"openai:llm": "2", "groq:llm": "gsk_2"})


async def test_it_may_appear_later(tmp_path: Path) -> None:
    """A directory that has never been there holds nothing, and is looked out for."""
    path = tmp_path / "run" / "secrets"
    async with following(mounted(path)) as events:
        assert await events.next() == {}
        put(path, "late")
        assert await events.until(lambda told: told == ("", root("late")))


async def test_one_that_disappears_is_unavailable_until_it_returns(tmp_path: Path) -> None:
    """So that what it held is served on; its return is listed in full, even if nothing is new."""
    path = tmp_path / "secrets"
    put(path, "here")
    put(path / "team", "here")
    everything = {"": root("here"), "team": {"openai:team": "here"}}
    async with following(mounted(path)) as events:
        assert await events.next() == everything
        path.rename(tmp_path / "away")
        unavailable = await events.event()
        assert isinstance(unavailable, SourceUnavailable)
        assert unavailable.fault.startswith(f"{path} has disappeared: mount or create it again")
        (tmp_path / "away").rename(path)
        assert await events.next() == everything
        shutil.rmtree(path)
        await events.until(lambda told: "has disappeared" in str(told))
        put(path, "new")
        assert await events.until(lambda told: told in ({"": root("new")}, ("", root("new"))))


async def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    """Nothing is guessed at."""
    path = tmp_path / "secrets"
    path.write_text("OPENAI_API_KEY=x")
    async with following(mounted(path)) as events:
        assert str(await events.next()).startswith(f"{path} cannot be read (Not a directory)")


@pytest.mark.parametrize("unit", ["", "team"])
async def test_a_key_that_cannot_be_read_fails_its_unit_alone(tmp_path: Path, unit: str) -> None:
    """Its last good content stays in effect; the others go on; mended, it is back."""
    put(tmp_path, "1")
    put(tmp_path / "team", "1")
    put(tmp_path / "other", "1")
    async with following(mounted(tmp_path)) as events:
        whole = await events.next()
        assert isinstance(whole, dict)
        (tmp_path / unit / "GROQ_API_KEY").symlink_to("GROQ_API_KEY")
        failed = await events.event()
        assert isinstance(failed, UnitsListed)
        assert failed.failed == {
            unit: f"{tmp_path / unit}/GROQ_API_KEY cannot be read (Too many levels of symbolic links): "
            "its links lead in a circle; remove or correct them"
        }
        assert {u.name: secrets(u) for u in failed.units} == {name: held for name, held in whole.items() if name != unit}
        put(tmp_path / "other", "2")
        assert await events.next() == ("other", {"openai:other": "2"})
        (tmp_path / unit / "GROQ_API_KEY").unlink()
        assert await events.next() == (unit, whole[unit])


async def test_a_line_of_a_dotenv_inside_that_assigns_nothing_is_said(tmp_path: Path) -> None:
    """P7: by its number, as an error of the source; what the other lines hold serves."""
    (tmp_path / ".env").write_text("a line of prose\nOPENAI_API_KEY=sk-whole\n")
    async with following(mounted(tmp_path)) as events:
        event = await events.event()
        assert isinstance(event, UnitsListed)
        assert secrets(event.units[0]) == {"openai:mounted": "sk-whole"}
        (fault,) = event.units[0].faults
        assert fault.where == f"mounted {tmp_path}"
        assert fault.message.startswith(f"{tmp_path}/.env line 1 is skipped")
        assert "prose" not in str(event)


async def test_a_forbidden_subdirectory_fails_alone_and_recovers(as_nobody: Path) -> None:
    """`chmod` is noticed."""
    put(as_nobody, "1")
    put(as_nobody / "team", "1")
    (as_nobody / "team").chmod(0)
    async with following(mounted(as_nobody)) as events:
        assert await events.next() == {"": root("1"), "team": "failed"}
        (as_nobody / "team").chmod(0o700)
        assert await events.next() == ("team", {"openai:team": "1"})


async def test_values_that_are_no_keys_cost_their_profile_alone(tmp_path: Path) -> None:
    """Ten megabytes, a binary, nothing at all: invalid, and the rest is served."""
    put(tmp_path, "good")
    (tmp_path / "GROQ_API_KEY").write_bytes(b"k" * 10_000_000)
    (tmp_path / "XAI_API_KEY").write_bytes(bytes(range(256)))
    (tmp_path / "MISTRAL_API_KEY").touch()
    async with following(mounted(tmp_path)) as events:
        event = await events.event()
        assert isinstance(event, UnitsListed)
        (unit,) = event.units
        assert secrets(unit) == {"openai:mounted": "good", "groq:mounted": "!", "xai:mounted": "!", "mistral:mounted": "!"}
        assert {profile.fault.removeprefix(f"{profile.origin} ") for profile in unit.profiles} == {
            "", "is longer than 64 KiB, so it is not a key", "is binary, not UTF-8 text", "is empty"
        }  # fmt: skip


async def test_ten_thousand_files_and_directories(tmp_path: Path) -> None:
    """All of them are there, and a change in one is a change of one."""
    for number in range(10_000):
        (tmp_path / f"file-{number}").write_text("x")
        put(tmp_path / f"s{number}", f"v{number}")
    put(tmp_path, "root")
    rules = CountingRules(UNSHAPED)
    async with following(mounted(tmp_path, rules)) as events:
        event = await events.event()
        assert isinstance(event, UnitsListed)
        assert len(event.units) == 10_001
        assert all(unit.profiles for unit in event.units)
        before = rules.reads
        put(tmp_path / "s7777", "changed")
        assert await events.next() == ("s7777", {"openai:s7777": "changed"})
        put(tmp_path, "changed")
        assert await events.next() == ("", root("changed"))
        put(tmp_path / "new", "new")
        await events.until(lambda told: told == ("new", {"openai:new": "new"}))
        assert rules.reads - before <= 10, "the other ten thousand are left alone"


async def test_what_changes_nothing_is_no_event(tmp_path: Path) -> None:
    """The same again, an extra file, an empty line."""
    put(tmp_path, "1")
    rules = CountingRules(UNSHAPED)
    async with following(mounted(tmp_path, rules)) as events:
        assert await events.next() == {"": root("1")}
        await events.unmoved(rules, lambda: put(tmp_path, "1\n"))
        await events.unmoved(rules, (tmp_path / "OPENAI_API_KEY").touch)
        (tmp_path / "README").write_text("not a key")
        put(tmp_path, "2")
        assert await events.event() == UnitChanged(Unit("", RULES.discover(
            {"OPENAI_API_KEY": "2"}, kind="mounted", source=f"mounted {tmp_path}", unit="", name="mounted",
            origin=lambda key: f"{tmp_path}/{key}",
        ).profiles))  # fmt: skip


async def test_asking_lists_everything_again(tmp_path: Path) -> None:
    """Also while it is away."""
    path = tmp_path / "secrets"
    put(path, "1")
    source = mounted(path)
    async with following(source) as events:
        first = await events.next()
        source.reread()
        assert await events.next() == first
        path.rename(tmp_path / "away")
        fault = await events.next()
        source.reread()
        assert await events.next() == fault


@pytest.mark.parametrize("where", ["", "team"])
async def test_a_link_out_of_the_directory_is_refused_and_said(tmp_path: Path, where: str) -> None:
    """S13: whoever may write there has no say over what else the broker can read. The other units go on."""
    seal_key, mount = tmp_path / "seal.key", tmp_path / "mount"
    seal_key.write_text("the-key-that-seals-the-stores")
    put(mount, "1")
    put(mount / "team", "1")
    put(mount / "other", "1")
    async with following(mounted(mount)) as events:
        whole = await events.next()
        assert isinstance(whole, dict)
        (mount / where / "GROQ_API_KEY").symlink_to("../seal.key" if not where else "../../seal.key")
        failed = await events.event()
        assert isinstance(failed, UnitsListed)
        fault = f"{mount / where}/GROQ_API_KEY is a link that leads out of {mount}: put the file itself there"
        assert failed.failed == {where: fault}
        assert {u.name: secrets(u) for u in failed.units} == {name: held for name, held in whole.items() if name != where}


async def test_a_directory_that_leads_elsewhere_is_refused_and_said(tmp_path: Path) -> None:
    """S13: a subdirectory that is a link, and a `..data` that is no link as the kubelet makes it."""
    mount, away = tmp_path / "mount", tmp_path / "away"
    put(away, "1")
    put(mount / "team", "1")
    (mount / "linked").symlink_to(away)
    async with following(mounted(mount)) as events:
        assert await events.next() == {"team": {"openai:team": "1"}, "linked": "failed"}
        (mount / "linked").unlink()
        await events.until(lambda told: told == "linked")
        (mount / "team" / "..data").symlink_to(away)
        assert await events.next() == {"team": "failed"}
        (mount / "..data").symlink_to(away)
        assert f"{mount}/..data is a link that leads out of {mount}" in str(await events.next())
