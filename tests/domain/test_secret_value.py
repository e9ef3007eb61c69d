"""A secret cannot show itself, whoever asks and however."""

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from string import Template
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from equabot_broker.domain.secret_value import SecretValue

CANARY = "canary-8c1f0e-sk-ant-api03-do-not-print"


@dataclass
class Holder:
    """As a profile holds it."""

    name: str
    secret: SecretValue


def traceback_with_locals(secret: SecretValue) -> str:
    def fail(held: SecretValue, depth: int) -> None:
        if depth:
            fail(held, depth - 1)
        raise RuntimeError(f"failed with {held}", held)

    try:
        fail(secret, 3)
    except RuntimeError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True, lookup_lines=False)
        return "".join(told.format()) + repr(error.args) + str(error)
    raise AssertionError("unreachable")


def logged(secret: SecretValue) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%s %r %(secret)s", ({"secret": secret},), None))
    handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%s and %r", (secret, secret), None))
    return out.getvalue()


SHOWN: dict[str, Callable[[SecretValue], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "format with a spec": lambda s: format(s, ">80s"),
    "f-string": lambda s: f"{s} {s!r} {s!s} {s!a} {s:>50}",
    "str.format": "{0} {0!r} {0.__class__}".format,
    "percent": lambda s: "%s %r %a" % (s, s, s),  # noqa: UP031
    "template": lambda s: Template("$s").substitute(s=s),
    "join of str": lambda s: ",".join(map(str, [s])),
    "container": lambda s: f"{[s]} {(s,)} { {s} } { {s: s} }",
    "pprint": lambda s: pprint.pformat({"a": [Holder("n", s)]}, width=1),
    "dataclass repr": lambda s: repr(Holder("n", s)),
    "dataclass asdict": lambda s: repr(dataclasses.asdict(Holder("n", s))),
    "dataclass astuple": lambda s: repr(dataclasses.astuple(Holder("n", s))),
    "json with default=str": lambda s: json.dumps({"s": s}, default=str),
    "json with default=repr": lambda s: json.dumps([Holder("n", s)], default=repr),
    "traceback with locals": traceback_with_locals,
    "logging": logged,
    "doc and dir": lambda s: f"{s.__doc__} {dir(s)}",
    "copy": lambda s: repr(copy.copy(s)),
    "deepcopy": lambda s: repr(copy.deepcopy([Holder("n", s)])),
}


@pytest.mark.parametrize("way", SHOWN)
def test_no_way_of_printing_shows_it(way: str) -> None:
    """Not the value, and not a piece of it."""
    shown = SHOWN[way](SecretValue(CANARY))
    assert CANARY not in shown
    assert "canary" not in shown
    assert "do-not-print" not in shown


@given(st.text(min_size=6))
def test_shown_text_does_not_depend_on_the_value(text: str) -> None:
    """Two secrets look the same."""
    for show in (repr, str, format, "{:>30}".format):
        assert show(SecretValue(text)) == show(SecretValue(CANARY))


OTHER_WAYS: dict[str, Callable[[Any], object]] = {
    "pickle 0": lambda s: pickle.dumps(s, 0),
    "pickle highest": lambda s: pickle.dumps(s, pickle.HIGHEST_PROTOCOL),
    "pickle in a dataclass": lambda s: pickle.dumps(Holder("n", s)),
    "reduce_ex": lambda s: s.__reduce_ex__(4),
    "getstate": lambda s: s.__getstate__(),
    "json": json.dumps,
    "vars": vars,
    "len": len,
    "iter": iter,
    "bytes": bytes,
    "concatenation": lambda s: "x" + s,
    "subscript": lambda s: s[0],
    "strange format": lambda s: s.value,
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_pickling_is_refused(way: str) -> None:
    """Whatever would take it out of the process or apart fails, with an error that does not hold it."""
    with pytest.raises((TypeError, AttributeError)) as caught:
        OTHER_WAYS[way](SecretValue(CANARY))
    assert "canary" not in repr(caught.value)


def test_reveal_is_the_way_out() -> None:
    """It returns the text itself, also out of a copy."""
    assert SecretValue(CANARY).reveal() == CANARY
    assert copy.deepcopy(SecretValue(CANARY)).reveal() == CANARY


@given(st.text(), st.text())
def test_equal_exactly_when_the_texts_are(one: str, other: str) -> None:
    """Equality and hash follow the text; a plain text is never equal to a secret."""
    assert (SecretValue(one) == SecretValue(other)) == (one == other)
    assert SecretValue(one) == SecretValue(one)
    assert hash(SecretValue(one)) == hash(SecretValue(one))
    assert SecretValue(one) != one


def test_lone_surrogates_do_not_leak() -> None:
    """An undecodable byte of an environment variable is a lone surrogate, whose encoding error would hold the whole text."""
    odd = SecretValue(CANARY + "\udcff")
    assert odd == SecretValue(CANARY + "\udcff")
    assert odd != SecretValue(CANARY)
    assert len(odd.digest(b"k")) == 16


@given(st.text(min_size=24))
def test_a_label_shows_four_and_four_of_a_long_value(text: str) -> None:
    """At most the first and last four characters, of a value with 24 or more."""
    assert SecretValue(text).label() == f"{text[:4]}…{text[-4:]}"


@given(st.text(max_size=23))
def test_a_label_shows_nothing_of_a_short_value(text: str) -> None:
    """Eight characters of a short secret would be too many."""
    assert SecretValue(text).label() == "…"


@given(st.text(max_size=40), st.text(max_size=40), st.binary(min_size=1, max_size=32))
def test_digest_distinguishes_texts(one: str, other: str, key: bytes) -> None:
    """To the holder of the key; 16 bytes."""
    digest = SecretValue(one).digest(key)
    assert len(digest) == 16
    assert digest == SecretValue(one).digest(key)
    assume(one != other)
    assert digest != SecretValue(other).digest(key)


def test_a_digest_depends_on_key_and_context() -> None:
    """Without the key it says nothing, and the same secret in another context looks different."""
    secret = SecretValue(CANARY)
    digests = {secret.digest(b"a"), secret.digest(b"b"), secret.digest(b"a", "token"), secret.digest(b"a", "api_key 1.0")}
    assert len(digests) == 4
