"""How an entry of the configuration becomes a source."""

from pathlib import Path

import pytest

from equabot_broker.sources.registry import KINDS, TAIL, Context, build
from tests.fakes.clock import FakeClock
from tests.fakes.following import RULES

CONTEXT = Context(home=Path("/home/me/.equabot"), rules=RULES, clock=FakeClock())


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("env", {}, "env"),
        ("dotenv", {}, "dotenv /home/me/.equabot/.env"),
        ("dotenv", {"path": Path("/etc/x.env")}, "dotenv /etc/x.env"),
        ("mounted", {}, "mounted /run/secrets/equabot"),
        ("mounted", {"path": "/mnt"}, "mounted /mnt"),
        ("kubernetes", {}, "kubernetes"),
        ("kubernetes", {"names": ("a", "b"), "namespace": "n"}, "kubernetes namespace=n names=a,b"),
        ("kubernetes", {"selector": "a=b", "kubeconfig": Path("/k")}, "kubernetes selector=a=b kubeconfig=/k"),
        ("profile_store", {}, "profile_store"),
        ("claude_cli", {"path": Path("/home/me/.claude/.credentials.json")}, "claude_cli /home/me/.claude/.credentials.json"),
        ("codex_cli", {"path": "/home/me/.codex/auth.json"}, "codex_cli /home/me/.codex/auth.json"),
        ("qwen_cli", {"path": "/home/me/.qwen/oauth_creds.json"}, "qwen_cli /home/me/.qwen/oauth_creds.json"),
    ],
)
def test_a_source_is_named_after_its_place(kind: str, options: dict[str, object], name: str) -> None:
    """The name is what a person reads and what tells sources of a kind apart. Nothing is read to make one."""
    assert build(kind, options, CONTEXT).name == name


def test_what_cannot_be_built_is_refused() -> None:
    """An unknown kind, and a path that depends on where the broker was started."""
    with pytest.raises(ValueError, match=r"unknown kind of source 'vault': known are kubernetes, mounted, .*, env$"):
        build("vault", {}, CONTEXT)
    with pytest.raises(ValueError, match="must be absolute"):
        build("dotenv", {"path": ".env"}, CONTEXT)
    with pytest.raises(ValueError, match="must be absolute"):
        build("kubernetes", {"kubeconfig": "config"}, CONTEXT)


def test_the_last_tier_is_the_environment_and_the_file() -> None:
    """Of kinds that there are."""
    assert {"env", "dotenv"} == TAIL
    assert KINDS.keys() >= TAIL
