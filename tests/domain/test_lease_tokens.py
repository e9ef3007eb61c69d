"""Lease tokens: 256 bits, one spelling, and a digest that tells nothing of them."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.lease_tokens import PREFIX, digest, made


@given(st.binary(min_size=32, max_size=32))
def test_a_token_is_found_by_the_digest_of_its_text(chance: bytes) -> None:
    """Whatever the bytes: recognisable, fit for a header and a variable, and of a fixed length."""
    found, secret = made(chance)
    assert secret is not None
    token = secret.reveal()
    assert found == digest(token)
    assert token.startswith(PREFIX)
    assert len(token) == 47
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert digest(token) == sha256(token.encode()).digest()


def test_different_bytes_make_different_tokens() -> None:
    """No bit is lost on the way."""
    tokens = {made((1 << bit).to_bytes(32, "big")).digest for bit in range(256)}
    assert len(tokens) == 256


def test_a_token_does_not_show_itself() -> None:
    """It is a secret like any other."""
    assert "eqb_" not in repr(made(b"\1" * 32))


@pytest.mark.parametrize("count", [0, 31, 33])
def test_fewer_bytes_make_no_token(count: int) -> None:
    """A token that could be guessed is not made."""
    with pytest.raises(ValueError, match="32 bytes"):
        made(bytes(count))


_TOKEN = PREFIX + "A" * 43


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eqb_",
        "sk-ant-api03-something-else",
        _TOKEN[:-1],
        _TOKEN + "A",
        _TOKEN + "\n",
        " " + _TOKEN,
        _TOKEN.upper(),
        _TOKEN[:-1] + "B",
        _TOKEN[:-1] + "é",
        _TOKEN + "," + _TOKEN,
        _TOKEN[:20] + "\0" + _TOKEN[21:],
    ],
)
def test_other_text_has_no_token_digest(text: str) -> None:
    """Also what would decode to the same bytes: a token has one spelling."""
    assert digest(text) == b""
