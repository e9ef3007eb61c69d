"""How readers compose: every fault is found at once, each at its line and path, and none shows a secret."""

from typing import Any

import pytest

from equabot_broker.schema.faults import ConfigFault, ValueRefused
from equabot_broker.schema.reading import ConfigNode, FaultReport, Many, Named, OneOf, Section, Text, under
from equabot_broker.schema.tree import parse

CANARY = "sk-ant-api03-CANARYcanary0123456789"


def number(text: str) -> int:
    if not text.isdecimal():
        raise ValueRefused("is no number; write digits")
    return int(text)


def name(text: str) -> str:
    if text != text.lower():
        raise ValueRefused("is not lower case; write it so")
    return text


INNER = Section(dict[str, Any], {"one": Text(number), "uno": ("one", Text(number)), "two": Text(number)})
TABLE = Section(
    dict[str, Any],
    {
        "count": Text(number),
        "many": Many(Text(number)),
        "some": Many(Text(number), some=True),
        "named": Named(name, INNER),
        "inner": INNER,
        "kind": OneOf(
            {"alone": INNER, "with": Text(number), "needy": Section(dict[str, Any], {"a": Text(number)}, needs=("a",))}
        ),
    },
)


def read(text: str) -> tuple[Any, list[str]]:
    report = FaultReport("f.yaml")
    place = ConfigNode(parse(text), "", report)
    value = None
    with place.refusing():
        value = TABLE(place)
    return value, [str(fault) for fault in report.faults()]


def test_what_lacks_a_sound_value_that_it_needs_is_not_built() -> None:
    """The value's fault is all that is told of it: half of a section would be a defect of whoever takes it for a whole one."""
    value, faults = read("count: 1\nkind: {needy: {a: [1]}}\n")
    assert value == {"count": 1}
    assert faults == ["f.yaml:2: kind.needy.a: must be a single value, not a list"]


def test_a_sound_document_is_read_whole() -> None:
    """Values by key; an empty section is one that says nothing."""
    text = "count: 1\nmany: [1, 2]\nnamed: {a: {one: 1}, b: }\ninner: {uno: 3}\nkind: {with: 4}\n"
    assert read(text) == (
        {
            "count": 1,
            "many": (1, 2),
            "named": {"a": {"one": 1}, "b": {}},
            "inner": {"one": 3},
            "kind": ("with", 4),
        },
        [],
    )


def test_every_fault_is_found_at_once_by_line() -> None:
    """What is wrong in one place hides nothing in another, and what is right is read all the same."""
    value, faults = read(
        "inner:\n  two: x\n  tow: 1\ncont: 1\nmany: [1, x, 2, 1]\n"
        "named:\n  A: {one: y}\n  b: {one: 1, uno: 1}\nkind: {with: 1, alone: }\n"
    )
    assert value == {"inner": {}, "many": (1, 2), "named": {"b": {"one": 1}}}
    assert faults == [
        "f.yaml:2: inner.two: is no number; write digits",
        "f.yaml:3: inner.tow: unknown key; did you mean 'two'?",
        "f.yaml:4: cont: unknown key; did you mean 'count'?",
        "f.yaml:5: many[1]: is no number; write digits",
        "f.yaml:5: many[3]: is in the list already; keep one",
        "f.yaml:7: named.A.one: is no number; write digits",
        "f.yaml:7: named.A: is not lower case; write it so",
        "f.yaml:8: named.b.uno: sets the same as another key of this section; keep one",
        "f.yaml:9: kind: must name exactly one of alone, with, needy, not 2",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("count: 1\n\ncount: 2\n", "f.yaml:3: count: is a duplicate of line 1; keep one"),
        ("count:\n", "f.yaml:1: count: has no value; add one, or remove the key"),
        ("count: [1]\n", "f.yaml:1: count: must be a single value, not a list"),
        ("count: {a: 1}\n", "f.yaml:1: count: must be a single value, not a section of keys"),
        ("many: 1\n", "f.yaml:1: many: must be a list, such as [a, b], not '1'"),
        ("many:\n", "f.yaml:1: many: must be a list, such as [a, b], not nothing"),
        ("some: []\n", "f.yaml:1: some: is empty; list at least one, or remove the key"),
        ("inner: 1\n", "f.yaml:1: inner: must be a section of keys, not '1'"),
        ("- 1\n", "f.yaml:1: must be a section of keys, not a list"),
        (
            "inner:\n  <<: {one: 1}\n",
            "f.yaml:2: inner.(hidden): is a YAML merge key, which the configuration does not allow; write each key",
        ),
        ("zzz: 1\n", "f.yaml:1: zzz: unknown key; known keys: count, many, some, named, inner, kind"),
        (
            "A_KEY: 1\n",
            "f.yaml:1: A_KEY: unknown key; put a credential into the environment or a .env file, not here",
        ),
        ("kind: with\n", "f.yaml:1: kind: has no value; add one, or remove the key"),
        ("kind: wiht\n", "f.yaml:1: kind: unknown key; did you mean 'with'?"),
        ("kind: needy\n", "f.yaml:1: kind: lacks a; add it"),
        ("kind: {}\n", "f.yaml:1: kind: must name exactly one of alone, with, needy, not 0"),
    ],
)
def test_each_fault_says_where_what_and_what_to_do(text: str, fault: str) -> None:
    """`file:line: path.to.key: what is wrong; what to do`."""
    assert read(text)[1] == [fault]


def test_a_kind_that_needs_nothing_may_stand_alone() -> None:
    """`kind: alone` is `kind: {alone: {}}`."""
    assert read("kind: alone\n") == read("kind: {alone: {}}\n") == ({"kind": ("alone", {})}, [])


@pytest.mark.parametrize(
    "text",
    [
        f"{CANARY}: 1\n",
        f"OPENAI_KEY: {CANARY}\n",
        f"count: {CANARY}\n",
        f"inner: {CANARY}\n",
        f"many: {CANARY}\n",
        f"kind: {CANARY}\n",
        f"kind: {{{CANARY}: 1}}\n",
        f"named: {{{CANARY}: {{one: x}}}}\n",
        f"inner: {{x{CANARY}: 1}}\n",
        f"many: [[{CANARY}]]\n",
    ],
)
def test_no_fault_shows_a_key(text: str) -> None:
    """Pasted as a key, as a value, under a known or an unknown name: it is refused without being told."""
    _, faults = read(text)
    assert faults
    assert "CANARY" not in "".join(faults)


def test_a_report_knows_what_was_given_and_what_is_sound() -> None:
    """A rule between values asks first whether they were understood; its fault stands where the value does."""
    report = FaultReport("f.yaml")
    TABLE(ConfigNode(parse("count: 1\ninner:\n  two: x\nmany:\n  - 1\n"), "", report))
    assert report.given("many[0]")
    assert not report.given("inner.one")
    assert report.sound("count", "many")
    assert not report.sound("count", "inner")
    report.refuse("many[0]", "is odd")
    report.refuse("inner.one", "is missing")
    report.refuse_outside("EQUABOT_X", "is wrong")
    assert report.faults() == (
        ConfigFault("EQUABOT_X", "", "is wrong"),
        ConfigFault("f.yaml:2", "inner.one", "is missing"),
        ConfigFault("f.yaml:3", "inner.two", "is no number; write digits"),
        ConfigFault("f.yaml:5", "many[0]", "is odd"),
    )


@pytest.mark.parametrize(("key", "path"), [("b", "a.b"), ("z.ai", "a.z.ai"), ("x y", "a.(hidden)"), (CANARY, "a.(hidden)")])
def test_paths_show_plain_keys_only(key: str, path: str) -> None:
    """A key that might be a secret, or that a terminal could choke on, is hidden; the line says where it is."""
    assert under("a", key) == path
