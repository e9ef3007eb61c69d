"""Header blocks pass whole or not at all, everything else as it comes."""

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.rpc import frames as framing
from equabot_broker.rpc.frames import HeaderGate, MalformedFrame
from tests.fakes.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    PUSH_PROMISE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)  # fmt: skip

LARGEST = 200
BLOCK = frame(HEADERS, 0, 1, b"a" * 50) + frame(CONTINUATION, 0, 1, b"b" * 50) + frame(CONTINUATION, END_HEADERS, 1, b"c" * 50)
SETTLED = PREFACE + frame(SETTINGS, 0, 0)


def gate() -> HeaderGate:
    return HeaderGate(largest=LARGEST)


frames = st.one_of(
    st.binary(max_size=60).map(lambda block: frame(HEADERS, END_HEADERS, 1, block)),
    st.just(BLOCK),
    st.builds(
        frame, st.sampled_from([DATA, SETTINGS, PING, WINDOW_UPDATE, 2, 3, 99]), st.integers(0, 255), st.just(1), st.binary()
    ),
    st.integers(0, 16_384).map(lambda size: frame(DATA, 0, 1, b"d" * size)),
)


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 40_000)))
def test_what_is_sound_passes_unchanged(sent: list[bytes], cuts: list[int]) -> None:
    """S2: in whatever pieces it arrives."""
    whole = SETTLED + b"".join(sent)
    at = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    opened = gate()
    assert b"".join(opened.pass_on(whole[one:other]) for one, other in pairwise(at)) == whole


@given(st.integers(0, len(BLOCK) - 1), st.booleans())
def test_a_block_waits_until_it_is_whole(sent: int, bytewise: bool) -> None:
    """S2: nothing of an unfinished header block reaches gRPC, which would keep it."""
    opened = gate()
    pieces = [SETTLED, *(BLOCK[at : at + 1] for at in range(sent))] if bytewise else [SETTLED + BLOCK[:sent]]
    assert b"".join(map(opened.pass_on, pieces)) == SETTLED
    assert opened.pass_on(BLOCK[sent:]) == BLOCK


@pytest.mark.parametrize(
    "sent",
    [
        frame(HEADERS, END_HEADERS, 1, b"a" * LARGEST),
        frame(HEADERS, 0, 1, b"a" * 100) + frame(CONTINUATION, END_HEADERS, 1, b"a" * 100),
        frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * LARGEST,
        frame(HEADERS, 0, 1, b"a") + frame(DATA, 0, 1, b"a"),
        frame(HEADERS, 0, 1, b"a") + frame(HEADERS, END_HEADERS, 3, b"a"),
        frame(CONTINUATION, END_HEADERS, 1, b"a"),
        frame(PUSH_PROMISE, END_HEADERS, 1, b"a"),
        frame(DATA, 0, 1, b"a" * 16_385),
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_gRPC_need_not_see_ends_the_connection(sent: bytes, size: int) -> None:  # noqa: N802
    """S2: a block that is too large, in however many frames, and what no client may send."""
    opened = gate()
    opened.pass_on(SETTLED)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    with pytest.raises(MalformedFrame):
        b"".join(map(opened.pass_on, pieces))


@given(st.binary(min_size=1))
def test_anything_that_is_not_http2_is_refused_at_its_first_byte(data: bytes) -> None:
    """S2: before gRPC gets it."""
    if not PREFACE.startswith(data) and not data.startswith(PREFACE):
        with pytest.raises(MalformedFrame):
            gate().pass_on(data)


@given(st.binary(max_size=4000), st.integers(1, 50))
def test_what_is_held_is_bounded(data: bytes, size: int) -> None:
    """S2: whatever comes."""
    opened = gate()
    sent = SETTLED + data
    passed = 0
    try:
        for at in range(0, len(sent), size):
            passed += len(opened.pass_on(sent[at : at + size]))
            assert min(at + size, len(sent)) - passed <= LARGEST
    except MalformedFrame:
        pass


def test_a_block_in_many_pieces_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: 16 KiB of empty frames, byte by byte, took 34 s of the loop while each piece looked at all before it."""
    looked = 0

    class Counting(struct.Struct):
        def unpack_from(self, *given: Any, **named: Any) -> tuple[Any, ...]:
            nonlocal looked
            looked += 1
            return super().unpack_from(*given, **named)

    monkeypatch.setattr(framing, "_HEAD", Counting(framing._HEAD.format))
    opened = HeaderGate(largest=16_384)
    opened.pass_on(PREFACE)
    sent = frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 1800
    assert b"".join(opened.pass_on(sent[at : at + 1]) for at in range(len(sent))) == b""
    assert looked <= 1801
    last = frame(CONTINUATION, END_HEADERS, 1, b"")
    assert opened.pass_on(last) == sent + last


@given(st.lists(st.integers(0, 3) | st.none(), max_size=6), st.integers(1, 40))
def test_as_many_blocks_pass_as_are_allowed(allowed: list[int | None], size: int) -> None:
    """S2: until a caller is identified its calls are few; what waits passes later, and nothing is lost."""
    opened = HeaderGate(largest=LARGEST, blocks=2)
    sent = SETTLED + BLOCK * 12
    passed = b"".join(opened.pass_on(sent[at : at + size]) for at in range(0, len(sent), size))
    assert passed == SETTLED + BLOCK * 2
    assert opened.waits
    most: float = 2
    for more in allowed:
        passed += opened.allow(more)
        most = float("inf") if more is None else most + more
        assert passed == SETTLED + BLOCK * int(min(most, 12))
        assert opened.waits is (most < 12)
