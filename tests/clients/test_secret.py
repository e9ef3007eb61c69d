import copy
import json
import pickle
from typing import Any

import pytest

from equabot_client import Secret, SecretMap

CANARY = "sk-ant-api03-canary-1f2e3d"
HIDING = [Secret(CANARY), SecretMap({"x-api-key": CANARY})]


@pytest.mark.parametrize("hiding", HIDING, ids=["Secret", "SecretMap"])
def test_no_way_of_printing_shows_it(hiding: Any) -> None:
    """repr, str, format, % and a container around it."""
    printed = f"{hiding} {hiding!r} {hiding!s:>50} {[hiding]} { ({'a': hiding}) }" + "%s %r" % (hiding, hiding)  # noqa: UP031
    assert CANARY not in printed


@pytest.mark.parametrize("hiding", HIDING, ids=["Secret", "SecretMap"])
def test_it_does_not_leave_the_process(hiding: Any) -> None:
    """Neither pickle nor JSON take it, whatever it is in."""
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps([hiding])
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"lease": hiding})


@pytest.mark.parametrize("hiding", HIDING, ids=["Secret", "SecretMap"])
def test_a_copy_is_the_thing_itself(hiding: Any) -> None:
    """`dataclasses.asdict` copies deeply, and must work."""
    assert copy.deepcopy([hiding])[0] is hiding
    assert copy.copy(hiding) is hiding


def test_whoever_asks_gets_it() -> None:
    """`reveal` for a secret; every lookup for a map, which is read-only."""
    texts = SecretMap({"x-api-key": CANARY, "b": "2"})
    assert Secret(CANARY).reveal() == CANARY
    assert dict(texts) == {**texts} == {"x-api-key": CANARY, "b": "2"}
    assert not hasattr(texts, "__setitem__")


def test_secrets_compare_by_what_they_hold() -> None:
    """And only with each other: a secret does not equal its text."""
    assert Secret(CANARY) == Secret(CANARY) != Secret("other")
    assert len({Secret(CANARY), Secret(CANARY)}) == 1
    assert Secret(CANARY) != CANARY
