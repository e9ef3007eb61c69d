"""JSON of other programs: how deep it may be nested, on every version of Python."""

import pytest

from equabot_broker.parsing.untrusted_json import Malformed, decode


@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}"), ('[7,"[",{"a":', "}]")])
@pytest.mark.parametrize("depth", [201, 999, 5_000])
def test_json_that_is_nested_too_deeply_is_refused(before: str, after: str, depth: int) -> None:
    """Python 3.14 decodes it, and what walks through the result would fail."""
    with pytest.raises(Malformed, match="it is nested too deeply"):
        decode(f"{before * depth}[]{after * depth}".encode())


def test_json_that_is_wide_is_read() -> None:
    """Many objects and lists at 200 levels, and brackets in texts, are not too deep."""
    assert decode(b"[" + b",".join([b'{"a":[]}'] * 9_000) + b"]") == [{"a": []}] * 9_000
    decode(b"[" * 200 + b'"[","{"' + b"]" * 200)
    assert decode(b'"' + b"[" * 500 + b'"') == "[" * 500
