"""What a message may quote."""

import pytest

from equabot_broker.providers import PROVIDERS
from equabot_broker.schema.faults import ConfigFault, ConfigurationFaults, looks_secret, quote

PREFIXES = sorted({p for known in PROVIDERS.values() for p in (*known.key_prefixes, *known.token_prefixes)})


@pytest.mark.parametrize(
    "text",
    [
        *(f"{prefix}x" for prefix in PREFIXES),
        "sk-x",
        "Bearer abc",
        "eyJhbGciOi",
        "0123456789abcdef",
        "A1B2C3D4E5F6G7H8",
        "openai:sk-x",
        "OPENAI_API_KEY=sk-x",
        '"sk-x"',
        "word " * 9,
    ],
)
def test_what_might_be_a_key_is_described(text: str) -> None:
    """Known beginnings wherever a word begins, long runs of letters and digits, and anything long."""
    assert looks_secret(text)
    assert quote(text) == f"a value of {len(text)} characters (not shown)"


@pytest.mark.parametrize(
    "text", ["anthropic", "15", "127.0.0.1:8686", "anthropic/claude", "github-copilot", "/run/secrets/equabot", "a b", ""]
)
def test_ordinary_values_are_quoted(text: str) -> None:
    """A person must recognise what they wrote."""
    assert quote(text) == repr(text)


def test_control_characters_are_quoted_harmlessly() -> None:
    """A message can be printed anywhere."""
    assert quote("a\x1b[31m\ud800") == "'a\\x1b[31m\\ud800'"


def test_faults_are_lines() -> None:
    """`file:line: path.to.key: what is wrong; what to do`; parts that are empty leave no gap."""
    faults = ConfigurationFaults([ConfigFault("f:1", "a.b", "is wrong; mend it"), ConfigFault("f", "", "is gone; find it")])
    assert str(faults) == "f:1: a.b: is wrong; mend it\nf: is gone; find it"
