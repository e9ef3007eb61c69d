"""Secrets in a stream are blanked out, however it is cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.envoy.scrubber import Scrubber

SECRET = b"sk-ant-abcabcabd"
OTHER = b"sk-ant-abc"


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A text with secrets, and beginnings of secrets, in it; and the chunks in which it comes."""
    pieces = st.sampled_from([SECRET, OTHER, SECRET[:7], SECRET[:-1], b"a", b"sk-", b" ", b"sk-ant-abcabc"])
    text = b"".join(draw(st.lists(pieces, max_size=12)))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return text, [text[one:other] for one, other in pairwise([0, *places, len(text)])]


@given(cut())
def test_no_cut_lets_a_secret_through(made: tuple[bytes, list[bytes]]) -> None:
    """What comes out of the chunks is what comes out of the whole, holds no secret, and is as long as what went in."""
    text, chunks = made
    scrubber = Scrubber([SECRET, OTHER])
    out = b"".join([*(scrubber.feed(chunk) for chunk in chunks), scrubber.feed(b"", last=True)])
    assert SECRET not in out
    assert OTHER not in out
    assert len(out) == len(text)
    assert [b for b, a in zip(out, text, strict=True) if b != a] == [ord("*")] * sum(
        b != a for b, a in zip(out, text, strict=True)
    )


def test_what_cannot_be_a_secret_is_handed_on_at_once() -> None:
    """An event of a stream does not wait for the next one."""
    scrubber = Scrubber([SECRET])
    assert scrubber.feed(b"data: hello\n\n") == b"data: hello\n\n"
    assert scrubber.feed(b"data: sk-ant") == b"data: "
    assert scrubber.feed(b"-nothing\n\n") == b"sk-ant-nothing\n\n"


def test_an_end_that_looks_like_a_beginning_is_not_lost() -> None:
    """The stream may end there."""
    scrubber = Scrubber([SECRET])
    assert scrubber.feed(b"x" + SECRET[:9]) == b"x"
    assert scrubber.feed(b"", last=True) == SECRET[:9]


def test_nothing_to_look_for_changes_nothing() -> None:
    """An empty secret is in every text."""
    assert Scrubber([b""]).feed(b"text") == b"text"
    assert Scrubber([]).blank(b"text") == b"text"
    assert Scrubber([SECRET]).blank(b"a " + SECRET) == b"a " + b"*" * len(SECRET)
