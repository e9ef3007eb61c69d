"""What commands write into the configuration, and that nothing else in it changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.config.recording import migrated, with_profile, without_profile
from equabot_broker.schema.faults import ValueRefused
from equabot_broker.schema.tree import Listing, Mapping, Node, Scalar, parse

ENTRY = '"anthropic:manual": {provider: anthropic, mode: token}'


def recorded(text: str, mode: str = "token") -> str:
    return with_profile(text, "anthropic:manual", provider="anthropic", mode=mode)


def told(node: Node) -> object:
    match node:
        case Scalar():
            return None if node.null else node.text
        case Listing():
            return [told(item) for item in node.items]
        case Mapping():
            return {key.text: told(value) for key, value in node.pairs}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"auth:\n  profiles:\n    {ENTRY}\n"),
        ("# nothing yet", f"# nothing yet\nauth:\n  profiles:\n    {ENTRY}\n"),
        ("---\n", f"---\nauth:\n  profiles:\n    {ENTRY}\n"),
        ("{}\n", '{auth: {profiles: {"anthropic:manual": {provider: anthropic, mode: token}}}}\n'),
        ("required: [anthropic] # yes\n", f"required: [anthropic] # yes\nauth:\n  profiles:\n    {ENTRY}\n"),
        ("required: [anthropic]", f"required: [anthropic]\nauth:\n  profiles:\n    {ENTRY}\n"),
        ("a:\n  - b\n\n# the end\n", f"a:\n  - b\nauth:\n  profiles:\n    {ENTRY}\n\n# the end\n"),
        ("a: |\n  text\n  more\nb: c\n...\n", f"a: |\n  text\n  more\nb: c\nauth:\n  profiles:\n    {ENTRY}\n...\n"),
        ("a: >\n  text\n", f"a: >\n  text\nauth:\n  profiles:\n    {ENTRY}\n"),
        ("auth:\nb: c\n", f"auth:\n  profiles:\n    {ENTRY}\nb: c\n"),
        ("auth: ~\n", 'auth: {profiles: {"anthropic:manual": {provider: anthropic, mode: token}}}\n'),
        (
            "auth:\n    # order\n    order: {openai: [x]} # why\n# b\nb: c\n",
            f"auth:\n    # order\n    order: {{openai: [x]}} # why\n    profiles:\n      {ENTRY}\n# b\nb: c\n",
        ),
        ("auth: {order: {openai: [x]}} # why\n", f"auth: {{order: {{openai: [x]}}, profiles: {{{ENTRY}}}}} # why\n"),
        ("auth: {order: {openai: [x]},}\n", f"auth: {{order: {{openai: [x]}}, profiles: {{{ENTRY}}},}}\n"),
        ("auth:\n  profiles:\n", f"auth:\n  profiles:\n    {ENTRY}\n"),
        ("auth:\n  profiles: {}\n", f"auth:\n  profiles: {{{ENTRY}}}\n"),
        ("auth:\n  profiles: {o: {mode: token}}\n", f"auth:\n  profiles: {{o: {{mode: token}}, {ENTRY}}}\n"),
        (
            "auth:\n  profiles:\n    o:\n      mode: token # mine\n  order: {}\n",
            f"auth:\n  profiles:\n    o:\n      mode: token # mine\n    {ENTRY}\n  order: {{}}\n",
        ),
        ("auth:\r\n  profiles:\r\n    o: {}\r\n", f"auth:\r\n  profiles:\r\n    o: {{}}\r\n    {ENTRY}\r\n"),
        (
            "auth:\n  profiles:\n    anthropic:manual: {mode: api_key} # was\n",
            "auth:\n  profiles:\n    anthropic:manual: {mode: token} # was\n",
        ),
        (
            "auth:\n  profiles:\n    anthropic:manual:\n",
            "auth:\n  profiles:\n    anthropic:manual:\n      provider: anthropic\n      mode: token\n",
        ),
        (
            "auth:\n  profiles:\n    anthropic:manual: {email: me@x}\n",
            "auth:\n  profiles:\n    anthropic:manual: {email: me@x, mode: token}\n",
        ),
    ],
)  # fmt: skip
def test_a_profile_is_added_where_it_belongs(before: str, after: str) -> None:
    """Comments, blank lines, quotes and style stay; once there, it is not added again."""
    assert recorded(before) == after
    assert recorded(after) == after


@pytest.mark.parametrize(
    "text",
    [
        "auth: &a {order: {}}\nb: *a\n",
        "a: 1\nauth: &a\n  profiles: {}\nb: *a\n",
        "auth: [x]\n",
        "- x\n",
        "a: [\n",
        "a: 1\na: 2\n",
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_refused(text: str) -> None:
    """With what to write by hand."""
    with pytest.raises(ValueRefused, match=r'under auth\.profiles: "anthropic:manual": \{provider: anthropic, mode: token\}'):
        recorded(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"auth:\n  profiles:\n    {ENTRY} # mine\n    o: {{}}\n", "auth:\n  profiles:\n    o: {}\n"),
        (f"auth:\n  profiles:\n    {ENTRY}\nb: c\n", "auth:\n  profiles:\nb: c\n"),
        (f"auth: {{profiles: {{{ENTRY}, o: {{}}}}}}\n", "auth: {profiles: {o: {}}}\n"),
        (f"auth: {{profiles: {{o: {{}}, {ENTRY}}}}}\n", "auth: {profiles: {o: {}}}\n"),
        (f"auth: {{profiles: {{{ENTRY}}}}}\n", "auth: {profiles: {}}\n"),
        ("auth:\n  profiles:\n    anthropic:manual:\n      mode: token\n", "auth:\n  profiles:\n"),
        ("b: c\n", "b: c\n"),
    ],
)
def test_a_profile_is_taken_away(before: str, after: str) -> None:
    """And nothing else."""
    assert without_profile(before, "anthropic:manual") == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "auth: {profiles: {anthropic:claude-cli: {mode: token}}} # x\n",
            "auth: {profiles: {anthropic:claude-cli: {mode: oauth}}} # x\n",
        ),
        (
            "auth: {profiles: {anthropic:claude-cli: {mode: oauth}}}\n",
            "auth: {profiles: {anthropic:claude-cli: {mode: oauth}}}\n",
        ),
        ("auth: {profiles: {anthropic:manual: {mode: token}}}\n", "auth: {profiles: {anthropic:manual: {mode: token}}}\n"),
        ("", ""),
    ],
)
def test_claudes_login_may_be_either(before: str, after: str) -> None:
    """OpenClaw once wrote `token` for it. The mode of other profiles stays."""
    assert migrated(before) == after


keys = st.sampled_from(["a", "b", "auth", "profiles", "order", "mode", "x y"])
leaves = st.sampled_from(["1", '"q # q"', "~", "[a, b]", "'it'", "", "{}", "{x: 1}", "|\n# no comment"])


@st.composite
def documents(draw: st.DrawFn, depth: int = 0) -> str:
    """Block mappings of every shape, with comments between."""
    lines = []
    for key in draw(st.lists(keys, unique=True, min_size=1, max_size=3)):
        if draw(st.booleans()):
            lines.append("  " * depth + "# note")
        if depth < 3 and draw(st.booleans()):
            lines.append("  " * depth + f"{key}: # inner")
            lines.append(draw(documents(depth + 1)))
        else:
            lines.append("  " * depth + f"{key}: {draw(leaves)}".replace("\n", "\n" + "  " * (depth + 1)))
    return "\n".join(lines)


@given(documents(), st.sampled_from(["", "\n", "\n\n# end\n"]))
def test_whatever_the_file_is_nothing_in_it_is_lost(text: str, end: str) -> None:
    """Every line of it is still there, in order, and it says what it said; or it is refused."""
    text += end
    try:
        after = recorded(text)
    except ValueRefused:
        return
    lines = iter(after.splitlines())
    kept = [line for line in text.splitlines() if "mode:" not in line]
    assert all(any(line.startswith(wanted.rstrip("} ,~")) for line in lines) for wanted in kept)
    found = told(parse(after))
    assert isinstance(found, dict)
    assert found["auth"]["profiles"]["anthropic:manual"] == {"provider": "anthropic", "mode": "token"}
    original = told(parse(text))
    assert isinstance(original, dict)
    assert {key: value for key, value in found.items() if key != "auth"} == {k: v for k, v in original.items() if k != "auth"}
