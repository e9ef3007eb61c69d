"""The rules that the client has a copy of, because it must not import the broker: they agree with the broker's (ADR 45)."""

import subprocess
import sys
from argparse import ArgumentTypeError
from typing import Final

import pytest

from equabot_broker.cli.local_broker import known_provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.schema import faults, values
from equabot_broker.telemetry import redaction
from equabot_broker.telemetry.redaction import Redactor
from equabot_cli import masking
from equabot_cli.arguments import duration
from equabot_cli.built_in_providers import BUILT_IN

TEXTS: Final = (
    "",
    "a plain sentence: nothing to hide here",
    "sk-ant-api03-" + "k3y" * 30,
    "an argument 'sk-proj-abcdefgh12345678' in a sentence",
    "Authorization: Bearer abcdef0123456789",
    "password=hunter2hunter2hunter2",
    "token: eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
    "eqb_" + "0aB" * 12,
    "ghp_" + "a1" * 18,
    "x" * 20_000,
    "AKIA0123456789ABCDEF",
    "https://user:pass@example.com/path?key=0123456789abcdefghij",
    "/home/me/.equabot/agents/main/agent/auth-profiles.json",
    "anthropic:prod",
)
DURATIONS: Final = (
    "15m", "1h30m", "90s", "7d", "500ms", "3650d", "3651d", "0s", "0h0m", "", "15", "1.5", "1.5h", "-5m", "m", "1m1h", " 1h",
    "1H", "1h ", "9999999999s", "999999999d", "٣m", "1h30", "never",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_the_mask_is_the_brokers(text: str) -> None:
    """The command line without the broker shows no more than the broker's log."""
    assert masking.masked(text) == Redactor().text(text)
    assert masking.looks_secret(text) == faults.looks_secret(text)


def test_the_shapes_are_the_brokers() -> None:
    """A key that the broker learns to mask is masked by the commands too."""
    assert masking.SHAPES.pattern == redaction._SHAPES.pattern


@pytest.mark.parametrize("written", DURATIONS)
def test_a_duration_is_read_as_the_configuration_reads_it(written: str) -> None:
    """The same value, or a refusal with the same text."""
    read: list[object] = []
    for parse in (lambda text: duration(text).total_seconds(), values.duration):
        try:
            read.append(parse(written))
        except (ArgumentTypeError, faults.ValueRefused) as refused:
            read.append(str(refused))
    assert read[0] == read[1]


def test_the_providers_are_the_brokers() -> None:
    """`exec` clears the same variables with the broker's package and without it."""
    assert list(BUILT_IN) == [known_provider(provider) for provider in PROVIDERS.values()]


def test_the_library_imports_no_command() -> None:
    """An agent that embeds the client loads nothing of the command line, and the commands load nothing of the broker."""
    find = "import sys, {0}; print(*sorted(name for name in sys.modules if name.split('.')[0] in {1}))"
    for modules, banned in (
        ("equabot_client, equabot_client.aio, equabot_client.admin", ("equabot_cli", "equabot_broker")),
        (
            "equabot_cli.main, equabot_cli.key, equabot_cli.exec_command, equabot_cli.lease, equabot_cli.health",
            ("equabot_broker",),
        ),
    ):
        done = subprocess.run([sys.executable, "-c", find.format(modules, banned)], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []
