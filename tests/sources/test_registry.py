"""How an entry of the configuration becomes a source."""

from pathlib import Path

import pytest

from equabot_broker.sources.declaration import DefaultPlaces, SourceContext
from equabot_broker.sources.registry import KINDS, by_name
from tests.fakes.clock import FakeClock
from tests.fakes.following import RULES

CONTEXT = SourceContext(rules=RULES, clock=FakeClock())
PLACES = DefaultPlaces(home=Path("/home/me/.equabot"), user_home=Path("/home/me"), directories={"CODEX_HOME": Path("/moved")})


@pytest.mark.parametrize(
    ("kind", "given", "name"),
    [
        ("env", {}, "env"),
        ("dotenv", {}, "dotenv /home/me/.equabot/.env"),
        ("dotenv", {"path": "x.env"}, "dotenv /etc/x.env"),
        ("mounted", {}, "mounted /run/secrets/equabot"),
        ("mounted", {"path": "/mnt"}, "mounted /mnt"),
        ("kubernetes", {}, "kubernetes"),
        ("kubernetes", {"names": ("a", "b"), "namespace": "n"}, "kubernetes namespace=n names=a,b"),
        ("kubernetes", {"selector": "a=b", "kubeconfig": "k"}, "kubernetes selector=a=b kubeconfig=/etc/k"),
        ("profile_store", {}, "profile_store"),
        ("claude_cli", {}, "claude_cli /home/me/.claude/.credentials.json"),
        ("codex_cli", {}, "codex_cli /moved/auth.json"),
        ("qwen_cli", {"path": "/q.json", "refresh": True}, "qwen_cli /q.json"),
    ],
)
def test_a_source_is_named_after_its_place(kind: str, given: dict[str, object], name: str) -> None:
    """The name is what a person reads and what tells sources of a kind apart. Nothing is read to make one."""
    options = KINDS[kind].options(given, PLACES, lambda path: Path("/etc") / path)
    assert KINDS[kind].build(options, CONTEXT).name == name


def test_two_kinds_have_two_names() -> None:
    """One of two would never be built."""
    with pytest.raises(ValueError, match="two kinds of sources have the same name"):
        by_name(*KINDS.values(), KINDS["env"])


def test_the_last_tier_is_the_environment_and_the_file() -> None:
    """The profiles of these kinds come last in a choice."""
    assert {name for name, kind in KINDS.items() if kind.last} == {"env", "dotenv"}
