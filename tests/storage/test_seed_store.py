"""A store as OpenClaw writes it, made by hand after its documentation: read in full, changed, nothing of it lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, entry_of_token, with_entry, with_fields, without_entry
from equabot_broker.formats.auth_entries import entry_ids, store_unit, with_order_of
from equabot_broker.formats.auth_usage import with_usage
from equabot_broker.providers import BUILT_IN
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.sealing import Seal

FIXTURE = Path(__file__).parents[1] / "fixtures" / "seed_store.json"
THEIRS: dict[str, Any] = json.loads(FIXTURE.read_text())
FAR = 4_102_444_800.0


@pytest.fixture(params=["plain", "sealed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AuthProfiles:
    path = tmp_path / "auth-profiles.json"
    shutil.copy(FIXTURE, path)
    path.chmod(0o600)
    if request.param == "plain":
        return AuthProfiles(path, clock=SystemClock())
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(b"k" * 32)
    sealed = AuthProfiles(path, clock=SystemClock(), seal=Seal(tmp_path / "key", record=tmp_path / "seals.json").of("main"))
    sealed.edit(lambda document: document)
    return sealed


def test_store_of_openclaw_is_read_in_full(store: AuthProfiles) -> None:
    """Every type, usage, orders; what is not ours to use is said."""
    unit = store_unit(store.read(), rules=DiscoveryRules(BUILT_IN), source="s", name="main", origin="f", owner="main")
    found = {profile.id: (profile.mode, profile.secret is not None, profile.refresh is not None) for profile in unit.profiles}
    assert found == {
        "anthropic:default": (Mode.API_KEY, True, False),
        "anthropic:manual": (Mode.TOKEN, True, False),
        "anthropic:me@example.com": (Mode.OAUTH, True, True),
        "anthropic:claude-cli": (Mode.OAUTH, True, False),
        "zai:default": (Mode.API_KEY, True, False),
        "github-copilot:enterprise": (Mode.OAUTH, True, False),
        "openai:vault": (Mode.API_KEY, False, False),
    }
    assert unit.orders == {"anthropic": ("anthropic:me@example.com", "anthropic:default"), "zai": ("zai:default",)}
    assert unit.usage["anthropic:default"] == Usage(
        last_used=1_769_000_000.123, cooldown_until=FAR, error_count=2, failure_counts={"rate_limit": 2},
        last_failure=1_769_000_000.456,
    )  # fmt: skip
    assert unit.usage["anthropic:manual"].disabled_until == FAR
    assert unit.usage["zai:default"].last_used == 1_769_000_000.999
    assert [fault.message.removeprefix("f ").partition(" ")[0] for fault in unit.faults] == [
        "google-gemini-cli:me@example.com", "legacy-without-colon", "somebody:new",
    ]  # fmt: skip


def _entry(document: AuthDocument) -> AuthDocument:
    return with_entry(document, "anthropic:manual", entry_of_token("anthropic", SecretValue("t"), expires_at=FAR))


def _token(document: AuthDocument) -> AuthDocument:
    return with_fields(document, "anthropic:me@example.com", {"access": "a", "refresh": "r", "expires": 1})


def _usage(document: AuthDocument) -> AuthDocument:
    name = entry_ids(document, BUILT_IN)["zai:default"]
    return with_usage(document, {name: Usage(last_used=FAR), "anthropic:manual": Usage(last_used=FAR)})


def _order(document: AuthDocument) -> AuthDocument:
    return with_order_of(document, "zai", ["zai:default"], BUILT_IN)


def _removed(document: AuthDocument) -> AuthDocument:
    return without_entry(document, "anthropic:me@example.com")


def _expected(**changed: Any) -> dict[str, Any]:
    """What the fixture becomes; a path of keys, joined by `/`, to its new value, or to None for gone."""
    made: dict[str, Any] = json.loads(FIXTURE.read_text())
    for path, value in changed.items():
        *way, last = path.split("/")
        place = made
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return made


ME = "anthropic:me@example.com"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_entry, {
            "profiles/anthropic:manual": {"type": "token", "provider": "anthropic", "token": "t", "expires": 4102444800000},
        }),
        (_token, {f"profiles/{ME}/access": "a", f"profiles/{ME}/refresh": "r", f"profiles/{ME}/expires": 1}),
        (_usage, {
            "usageStats/z.ai:default": {"lastUsed": 4102444800000},
            "usageStats/anthropic:manual": {"lastUsed": 4102444800000, "futureStat": 7},
        }),
        (_order, {"order/z.ai": None, "order/zai": ["zai:default"]}),
        (_removed, {f"profiles/{ME}": None, "order/anthropic": ["anthropic:default"], "lastGood/anthropic": None}),
    ],
)  # fmt: skip
def test_change_keeps_other_fields_of_the_store(
    store: AuthProfiles, change: Callable[[AuthDocument], AuthDocument], expected: dict[str, Any]
) -> None:
    """Everything else, unknown entries, sections and fields included, stays as OpenClaw wrote it, in its order."""
    store.edit(change)
    after = store.read().raw
    assert after == _expected(**expected)
    assert list(after) == list(THEIRS)
    assert [name for name in after["profiles"] if name != ME] == [name for name in THEIRS["profiles"] if name != ME]


def test_plain_store_has_the_format_of_openclaw(tmp_path: Path) -> None:
    """Two spaces and a newline at the end: another program's next write makes no needless difference."""
    path = tmp_path / "auth-profiles.json"
    path.write_text(json.dumps(THEIRS, ensure_ascii=False))
    path.chmod(0o644)
    AuthProfiles(path, clock=SystemClock()).edit(lambda document: document)
    assert path.read_text() == json.dumps(THEIRS, indent=2, ensure_ascii=False) + "\n"
