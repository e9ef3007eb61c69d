"""One mounted directory, of which several people may write a part: nobody takes another's profile."""

import json
from pathlib import Path

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker

CONFIG = "sources: [{mounted: {path: mounted}}]\n"
EVIL = "sk-ant-api03-" + "evil0000" * 11 + "AA"


def put(mounted: Path, unit: str, name: str, text: str) -> None:
    (mounted / unit).mkdir(parents=True, exist_ok=True)
    written = mounted / unit / ".new"
    written.write_text(text)
    written.rename(mounted / unit / name)


def store(profile: str, key: str) -> str:
    return json.dumps({"version": 1, "profiles": {profile: {"type": "api_key", "provider": "anthropic", "key": key}}})


def served(running: RunningBroker, profile: str) -> str:
    with running.connect() as broker:
        return broker.acquire(profile).secret.reveal()


def test_another_subdirectory_does_not_take_a_profile(make_broker: MakeBroker) -> None:
    """S13: `evil/auth-profiles.json` claims `anthropic:team` while the broker runs, and while it does not. `doctor` says so."""
    running = make_broker(config=CONFIG)
    mounted = running.home / "mounted"
    put(mounted, "team", "ANTHROPIC_API_KEY", KEY)
    running.start()
    assert served(running, "anthropic:team") == KEY
    put(mounted, "evil", "auth-profiles.json", store("anthropic:team", EVIL))
    running.wait_output("doctor", until=lambda printed: "hides another value in" in printed and "/evil/" in printed)
    assert served(running, "anthropic:team") == KEY
    running.kill()
    running.start()
    assert served(running, "anthropic:team") == KEY


def test_what_was_claimed_first_stays_over_a_restart(make_broker: MakeBroker) -> None:
    """S13: neither unit is called so, and the other one comes first by name and while the broker is down."""
    running = make_broker(config=CONFIG)
    mounted = running.home / "mounted"
    put(mounted, "logins", "auth-profiles.json", store("anthropic:shared", KEY))
    running.start()
    assert served(running, "anthropic:shared") == KEY
    running.stop()
    put(mounted, "evil", "auth-profiles.json", store("anthropic:shared", EVIL))
    running.start()
    assert served(running, "anthropic:shared") == KEY
