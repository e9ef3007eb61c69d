"""The exec-provider protocol, version 1: the request that a program gets on its standard input, and its answer.

The request names the values that are wanted. The answer has a value or an error for each of them. An error has a `code`, which
is shown. Its `message` is never shown, because a program may quote the secret in it. As an addition to version 1, an answer
may say under `expires_at` when a value ends: an RFC 3339 instant, or seconds since the epoch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from equabot_broker.domain.masking import is_misplaced_key
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.parsing.untrusted_json import Malformed, decode

VERSION: Final = 1
ANSWER_MAX: Final = 1 << 20
"""The maximum number of bytes of an answer."""
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExecValue:
    """A value, and when it ends in seconds since the epoch, if the program says so."""

    secret: SecretValue
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class ExecAnswer:
    """The values by id, and for each other id that was asked for, the reason why it has none."""

    values: Mapping[str, ExecValue] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def request_of(provider: str, ids: Sequence[str]) -> bytes:
    """The request for these ids. `provider` is the name by which the program knows its configuration."""
    return json.dumps({"protocolVersion": VERSION, "provider": provider, "ids": list(ids)}).encode() + b"\n"


def read_answer(text: bytes, ids: Sequence[str]) -> ExecAnswer:
    """Parses an answer. Ids that were not asked for are ignored. Raises Malformed, without a byte of the answer."""
    answer = decode(text, largest=ANSWER_MAX)
    if not isinstance(answer, dict):
        raise Malformed("it is not a JSON object")
    if answer.get("protocolVersion") != VERSION or isinstance(answer["protocolVersion"], bool):
        raise Malformed(f"its protocolVersion is not {VERSION}")
    values, errors, ends = (_section(answer, name) for name in ("values", "errors", "expires_at"))
    found: dict[str, ExecValue] = {}
    refused: dict[str, str] = {}
    for name in ids:
        try:
            found[name] = _value(name, values, errors, ends)
        except Malformed as why:
            refused[name] = str(why)
    return ExecAnswer(found, refused)


def read_text(text: bytes, name: str) -> ExecAnswer:
    """Reads an output that is the value of the only id, with or without a newline at its end. Raises Malformed."""
    try:
        value = text.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Malformed("it is not UTF-8 text") from None
    if not value:
        raise Malformed("it is empty")
    return ExecAnswer({name: ExecValue(SecretValue(value))})


def _section(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = answer.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Malformed(f"its {name} is not an object with ids as keys")
    return found


def _value(name: str, values: Mapping[str, Any], errors: Mapping[str, Any], ends: Mapping[str, Any]) -> ExecValue:
    """The value of one id. Raises Malformed with the reason why it has none."""
    if name in errors:
        error = errors[name]
        code = error.get("code") if isinstance(error, dict) else None
        shown = isinstance(code, str) and _CODE.fullmatch(code) and not is_misplaced_key(code)
        raise Malformed(f"the program reports the error {code}" if shown else "the program reports an error without a code")
    if name not in values:
        raise Malformed("the answer has no value for it")
    value = values[name]
    if not isinstance(value, str) or not value:
        raise Malformed("its value in the answer is empty" if value == "" else "its value in the answer is not a text")
    return ExecValue(SecretValue(value), _instant(ends.get(name)))


def _instant(written: object) -> float | None:
    if written is None:
        return None
    if isinstance(written, int | float) and not isinstance(written, bool) and 0 < written < 1e11:
        return float(written)
    if isinstance(written, str) and _INSTANT.fullmatch(written):
        try:
            return datetime.fromisoformat(written.upper()).timestamp()
        except (ValueError, OverflowError):
            pass
    raise Malformed("its expires_at in the answer is not an instant such as 2027-01-31T12:00:00Z")
