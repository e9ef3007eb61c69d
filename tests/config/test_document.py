"""The tables of the document against the written documentation, and against any text at all."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.config.document import ConfigDocument
from equabot_broker.config.keys import document_keys, read
from equabot_broker.config.load import load
from equabot_broker.config.model import Config
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.schema.faults import ConfigurationFaults
from equabot_broker.schema.reading import ConfigKey, FaultReport, Many, Named, OneOf, Section

DOCUMENT = document_keys()

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/configure.md").read_text()
EXAMPLE = (ROOT / "deploy/equabot.example.yaml").read_text()


def keys(reader: Any) -> Iterator[str]:
    """Every key that a table knows, at any depth."""
    match reader:
        case Section():
            for key, (_, inner) in reader.keys.items():
                yield key
                yield from keys(inner)
        case OneOf():
            for kind, inner in reader.kinds.items():
                yield kind
                yield from keys(inner)
        case ConfigKey() | Many() | Named():
            yield from keys(reader.of)


@pytest.mark.parametrize("key", sorted({*keys(DOCUMENT), "vars", "shellEnv", "enabled", "timeout", "timeoutMs"}))
def test_every_key_is_documented(key: str) -> None:
    """A key that is not in the guide does not exist for its reader."""
    assert re.search(rf"[`.{{ ]{key}\b", GUIDE)


def test_tables_hold_what_the_guide_says() -> None:
    """The guide's list of top-level sections is the table's."""
    headings = re.findall(r"^### (.*)$", GUIDE, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(headings))) == sorted(DOCUMENT.keys)


def examples() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [*examples(), EXAMPLE])
def test_every_example_is_sound(text: str, tmp_path: Path) -> None:
    """What the guide and the example file show can be copied."""
    file = tmp_path / "equabot.yaml"
    file.write_text(text)
    assert load(config_path=str(file), environ={}, home=tmp_path).file == file


def test_the_examples_of_the_guide_make_one_file(tmp_path: Path) -> None:
    """The sections go together: the guide as a whole is one configuration (`auth` is shown twice, in two spellings; and agents
    over TCP, which takes two sections, by themselves)."""
    file = tmp_path / "equabot.yaml"
    file.write_text("\n".join(text for text in examples() if not re.search("billingBackoffHours|client_certificates", text)))
    config = load(config_path=str(file), environ={}, home=tmp_path)
    assert set(config.policies.agents) == {"main", "coder"}
    assert config.required == ("anthropic",)


def test_the_example_file_is_the_defaults(tmp_path: Path) -> None:
    """Copying the example changes nothing."""
    home = tmp_path / ".equabot"
    home.mkdir()
    bare = load(environ={}, home=tmp_path, run_dir="/run/equabot")
    (home / "equabot.yaml").write_text(EXAMPLE)
    full = load(environ={}, home=tmp_path, run_dir="/run/equabot")
    assert differing(bare, full) == {"file", "revision"}


def differing(one: Config, other: Config) -> set[str]:
    catalogs = {name: (c.catalog.providers, c.rules.bindings, c.rules.overrides) for name, c in (("1", one), ("2", other))}
    assert catalogs["1"] == catalogs["2"]
    names = [name for name in Config.__slots__ if name not in ("catalog", "rules")]
    return {name for name in names if getattr(one, name) != getattr(other, name)}


def test_the_commands_in_the_guide_say_what_is_shown(tmp_path: Path) -> None:
    """The faults that the guide shows are those of such a file."""
    file = tmp_path / "equabot.yaml"
    file.write_text("agents:\n  coder:\n    providers: [antropic]\nleases:\n  max_ttl: 15\n")
    with pytest.raises(ConfigurationFaults) as caught:
        load(config_path=str(file), environ={}, home=tmp_path)
    shown = re.findall(r"^equabot\.yaml:\d.*$", GUIDE, re.MULTILINE)
    assert [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()] == shown


def test_the_env_section_holds_secrets() -> None:
    """Variables under `env` may be credentials: from the door on they cannot be shown."""
    report = FaultReport("f.yaml")
    document = read("env: {A_KEY: sk-ant-x, vars: {B: 8080}, shellEnv: {enabled: yes, timeout: 3s}}", report)
    assert report.faults() == ()
    assert document.env.variables == {"A_KEY": SecretValue("sk-ant-x"), "B": SecretValue("8080")}
    assert (document.env.shell.enabled, document.env.shell.timeout) == (True, 3.0)
    assert "sk-ant" not in repr(document)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("env: {A-B: x}", "f.yaml:1: env.A-B: 'A-B' is not a name for an environment variable; use A-Z, 0-9 and _"),
        ("env: {A: [x]}", "f.yaml:1: env.A: must be a single value, not a list"),
        ("env: {A: x, vars: {A: y}}", "f.yaml:1: env.A: is also under vars; keep one"),
        ("- a", "f.yaml:1: must be a section of keys, not a list"),
        ("a: 'b", "f.yaml:1: is not valid YAML: found unexpected end of stream; correct this line or the line before"),
    ],
)
def test_what_is_wrong_with_a_document_is_reported(text: str, fault: str) -> None:
    """Malformed text and the odd section have their faults like any other."""
    report = FaultReport("f.yaml")
    read(text, report)
    assert [str(found) for found in report.faults()] == [fault]


WORDS = st.sampled_from(
    [*keys(DOCUMENT), "anthropic", "anthropic:env", "15m", "15", "*", "main", "~/x", "true", "", "<<", "a/b"]
)
TREES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)


def written(tree: Any) -> str:
    """A tree as YAML in flow style."""
    match tree:
        case str():
            return tree if tree.isalnum() else f'"{tree}"'
        case list():
            return f"[{', '.join(map(written, tree))}]"
    return f"{{{', '.join(f'{written(key)}: {written(value)}' for key, value in tree.items())}}}"


@given(tree=st.dictionaries(st.sampled_from([*DOCUMENT.keys, "x"]), TREES, max_size=6))
def test_any_document_gives_a_configuration_or_faults(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever stands where, the answer is one of the two: a configuration, or every fault with its line."""
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(written(tree))
    try:
        load(config_path=str(file), environ={}, home=Path("/"))
    except ConfigurationFaults as refused:
        lines = str(refused).splitlines()
    else:
        lines = []
    assert all(line.startswith(f"{file}:1: ") for line in lines)


@given(st.text(max_size=200))
def test_any_text_gives_a_document_and_a_report(text: str) -> None:
    """Nothing else gets out."""
    report = FaultReport("f.yaml")
    assert isinstance(read(text, report), ConfigDocument)
