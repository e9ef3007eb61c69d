"""The language of texts that are read without context: API comments, metric help, command-line help, the chart, deployments."""

import asyncio
import json
import re
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from token import tok_name
from tokenize import tokenize
from typing import Any, Final
from urllib.request import urlopen

import pytest
import yaml

from equabot_broker.cli.main import PROGRAM
from equabot_broker.telemetry.metrics import Metrics, Snapshot
from equabot_cli.parser import Parser
from tests.docs.test_language import LONGEST, WORDS, length
from tests.fakes.engine import Engine

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "equabot-broker"
DEPLOYED: Final = ("ci", "compose", "kubernetes", "systemd", "termux")
PROTOS: Final = sorted((ROOT / "proto").rglob("*.proto"))
COMMENTED: Final = sorted(
    path
    for path in (
        *CHART.rglob("*.yaml"),
        *CHART.rglob("*.tpl"),
        *(CHART / "templates").glob("*.txt"),
        *(ROOT / name for name in ("Makefile", "Dockerfile", ".dockerignore", "deploy/equabot.example.yaml")),
        *(ROOT / "deploy/equabot-auth-monitor", ROOT / "deploy/release/dist", ROOT / "deploy/example-agent/Dockerfile"),
        *(path for part in DEPLOYED for path in (ROOT / "deploy" / part).rglob("*")),
        *(ROOT / "deploy").rglob("*.py"),
    )
    if path.is_file() and not {"client-locks", "assets", "secrets"} & {*path.parts}
)
"""Files with comments that people read; the chart's templates and NOTES.txt also print text."""

NEVER: Final = {
    r"\b(?:anybody|fares?|living leases?)\b": "the role; the state; active leases",
    r"\bstands?\b": "is",
    r"\b(?<!there )is no (?!longer\b|more\b)": "is not, has no",
    r"\b(?:which|that|who) (?:is|are) none\b": "is not",
}
"""What these texts do not say, in addition to the words that no document says."""
BANNED: Final = WORDS | {re.compile(pattern, re.IGNORECASE): instead for pattern, instead in NEVER.items()}

DECLARATION: Final = re.compile(r"\s*(?:(?:repeated |map<[^>]+> )?[\w.]+ \w+ = \d|\w+ = \d|(?:message|enum|service|rpc) \w)")
END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z`(])|(?<=[:;])\s+(?=- )|\s+(?=- [A-Z])")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unusual(texts: Mapping[str, str]) -> list[str]:
    """Where a word is that these texts do not have, and what to write."""
    return [
        f"{where}: '{found[0]}': write {instead}"
        for where, text in texts.items()
        for word, instead in BANNED.items()
        if (found := word.search(text))
    ]


def unfinished(texts: Mapping[str, str]) -> list[str]:
    """Texts that are not complete sentences with a capital letter, a full stop and at most 25 words."""
    return [
        f"{where}: {text}"
        for where, text in texts.items()
        if not re.match(r"[A-Z`]", text)
        or not text.rstrip().endswith((".", ".)"))
        or any(length(re.sub(r"`[^`]*`", "CODE", sentence)) > LONGEST for sentence in END.split(text))
    ]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, with their numbers; of a Python file its comments and strings."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    with path.open("rb") as file:
        for token in tokenize(file.readline):
            if tok_name[token.type] in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
                yield token.start[0], token.string


def proto_comments(path: Path) -> Iterator[tuple[str, str]]:
    """The comment of each declaration, by line; empty if it has none. Also each comment of a file."""
    note: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        comment = re.match(r"\s*//\s?(.*)", line)
        if comment:
            note.append(comment[1])
            continue
        if note or DECLARATION.match(line):
            yield f"{name(path)}:{number}", " ".join(note).strip()
        note = []


def option_help() -> Iterator[tuple[str, str]]:
    """Every help text and description of the command line."""
    parser = Parser(prog="equabot")
    family = parser.add_subparsers()
    for name, command in PROGRAM.commands.items():
        yield f"equabot {name}", command.about
        import_module(command.module).add_parser(family, help=command.about)
    yield from _help_of(parser)


def _help_of(parser: ArgumentParser) -> Iterator[tuple[str, str]]:
    if parser.description:
        yield parser.prog, " ".join(parser.description.split())
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for below in action.choices.values():
                yield from _help_of(below)
        else:
            yield f"{parser.prog} {'/'.join(action.option_strings) or action.metavar}", action.help or ""


def described(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The description of each property of a JSON schema, by path; empty where it has none."""
    for key, below in node.get("properties", {}).items():
        yield f"{path}{key}", below.get("description", "")
        yield from described(below, f"{path}{key}.")
    if isinstance(node.get("items"), dict):
        yield from described(node["items"], path)
    for key, below in node.get("definitions", {}).items():
        yield key, below.get("description", "")
        yield from described(below, f"{key}: ")


def explained() -> dict[str, str]:
    """The comment above each key of values.yaml, by path."""
    path: list[str] = []
    note: list[str] = []
    found = {}
    for line in (CHART / "values.yaml").read_text().splitlines():
        if comment := re.match(r" *# (.*)", line):
            note.append(comment[1])
        elif key := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            found[".".join(path)] = " ".join(note)
            note = []
        else:
            note = []
    return {key: text for key, text in found.items() if text}


@pytest.mark.parametrize("path", PROTOS, ids=name)
def test_each_declaration_of_the_api_has_a_plain_comment(path: Path) -> None:
    """The comments are the documentation of the API."""
    comments = dict(proto_comments(path))
    assert len(comments) > 50
    assert [where for where, text in comments.items() if not text] == []
    assert unusual(comments) == []
    # An item of a list can be a reason only, which is not a sentence.
    assert unfinished({where: text for where, text in comments.items() if " - " not in text}) == []


def test_each_argument_of_the_command_line_has_a_plain_help() -> None:
    """So does each command."""
    texts = dict(option_help())
    assert len(texts) > 50
    assert unusual(texts) == []
    assert unfinished(texts) == []


async def test_each_metric_has_a_plain_help() -> None:
    """Prometheus shows it without context."""
    server = Metrics(version="1").serve("127.0.0.1", 0, snapshot=Snapshot, health=Engine().readiness)
    try:
        page = await asyncio.to_thread(_fetch, f"http://127.0.0.1:{server.port}/metrics")
    finally:
        server.close()
    texts = dict(re.findall(r"^# HELP (equabot_\w+) (.*)$", page, re.MULTILINE))
    assert len(texts) > 20
    assert unusual(texts) == []
    assert unfinished(texts) == []


def _fetch(url: str) -> str:
    with urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def test_the_chart_describes_each_value_with_one_text() -> None:
    """In values.yaml, in the schema and in README.md."""
    texts = explained()
    schema = dict(described(json.loads((CHART / "values.schema.json").read_text())))
    assert [key for key, text in schema.items() if not text] == []
    assert unusual(texts | schema) == []
    assert unfinished(texts | schema) == []
    assert {key: text for key, text in schema.items() if texts.get(key, text) != text} == {}
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .*? \| (.*) \|$", (CHART / "README.md").read_text(), re.MULTILINE))
    assert {key: text for key, text in rows.items() if texts[key] != text} == {}


def test_alerts_and_the_dashboard_are_plain() -> None:
    """Descriptions are sentences; titles and summaries need not be."""
    alerts = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    panels = json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]
    notes = {f"{one['alert']}.{key}": text for one in alerts for key, text in one["annotations"].items()}
    shown = {f"{panel['title']}.{key}": panel[key] for panel in panels for key in ("title", "description") if panel.get(key)}
    assert unusual(notes | shown) == []
    long = {key: text for key, text in (notes | shown).items() if key.endswith(".description")}
    assert unfinished({key: re.sub(r"\{\{.*?\}\}", "X", text) for key, text in long.items()}) == []


def test_targets_of_make_are_sentences() -> None:
    """`make help` lists them."""
    texts = dict(re.findall(r"^([a-z-]+):.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(texts) > 10
    assert unfinished(texts) == []


@pytest.mark.parametrize("path", COMMENTED, ids=name)
def test_comments_of_the_deployments_use_usual_words(path: Path) -> None:
    """In the whole file, because the chart's templates also print text; of Python in comments and strings."""
    assert unusual({f"{name(path)}:{number}": line for number, line in prose(path)}) == []
