"""The language of the documents: usual words, short sentences, links to a file and a heading that exist.

Fenced and indented blocks are code and are not checked. A code span counts as one word, and so does a list of code spans.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    (
        *(ROOT / "docs").glob("*.md"),
        ROOT / "docs" / "reference" / "stability.md",
        *(
            ROOT / name
            for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "clients/python/README.md")
        ),
    )
)
LONGEST: Final = 25
"""The maximum number of words in a sentence."""

BANNED: Final = {
    "tell, tells, told": "report, log, show, say",
    "anew": "again",
    "mend, mends, mended": "fix",
    "whoever, nobody, somebody": "a role: the agent, the operator, the caller",
    "meanwhile": "until then",
    "is none, are none": "is not, has no",
    "stands in, stands at, stands there, stands beside": "is in, is at",
    "beside": "next to, as well as",
}
"""Words that readers of this field do not use, and what to write instead."""

WORDS: Final = {
    re.compile(rf"\b{word}\b".replace(" ", r"\s+"), re.IGNORECASE): instead
    for words, instead in BANNED.items()
    for word in words.split(", ")
}
SPAN: Final = re.compile(r"(`+)(?:(?!\1).)+\1")
LIST_OF_SPANS: Final = re.compile(r"CODE(?:,? (?:and |or |to )?CODE)+|CODE(?:[/:.…]+CODE)+")
END: Final = re.compile(r"(?<=[.!?])[*_)”\"]*\s+(?=[(*\"“]*[A-Z\d…])")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Every line with its number. Lines of code are empty."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if mark := re.match(r"\s*(```+|~~~+)", line):
            fence = "" if fence else mark[1]
            yield number, ""
        else:
            yield number, "" if fence or line.startswith("    ") else line


def units(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, list items, table cells and headings, each with the number of its first line. A sentence is within one."""
    began, unit = 0, ""
    for number, line in lines(text):
        cells = re.split(r"(?<!\\)\|", line.strip())[1:-1] if line.startswith("|") else []
        if not line.strip() or cells or re.match(r"\s*(?:[-*+]|\d+\.) |#|>", line):
            yield began, unit
            began, unit = number, ""
        yield from ((number, cell) for cell in cells)
        if line.startswith("#"):
            yield number, line
        elif not cells:
            unit += f" {line}"
    yield began, unit


def plain(unit: str) -> str:
    """The unit without markup: a list of code spans becomes one word, and a link becomes its text."""
    bare = SPAN.sub("CODE", unit)
    bare = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", bare)
    bare = re.sub(r"^\s*(?:[-*+]|\d+\.|#+|>)\s+", "", bare)
    return LIST_OF_SPANS.sub("CODE", re.sub(r"\s+", " ", bare.replace("**", "")).strip())


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Every sentence, with the number of the line on which its paragraph begins."""
    for number, unit in units(text):
        for sentence in END.split(plain(unit)):
            if sentence.strip():
                yield number, sentence.strip()


def length(sentence: str) -> int:
    """The number of words. A word has a letter or a digit."""
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub generates them."""
    found = (re.match(r"#+ (.*)", line) for _, line in lines(page.read_text()))
    names = (re.sub(r"[^\w\- ]", "", heading[1].lower()) for heading in found if heading)
    return {name.replace(" ", "-") for name in names}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_words_are_usual(page: Path) -> None:
    """No banned word is in a paragraph, heading, list item or table cell."""
    found = [
        f"{name(page)}:{number}: '{match[0]}': write {instead}: {text}"
        for number, unit in units(page.read_text())
        for text in [plain(unit)]
        for word, instead in WORDS.items()
        if (match := word.search(text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page: Path) -> None:
    """Each sentence has at most 25 words."""
    long = [
        f"{name(page)}:{number}: {length(sentence)} words: {sentence}"
        for number, sentence in sentences(page.read_text())
        if length(sentence) > LONGEST
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    """Each link within the repository leads to a file and a heading that exist."""
    prose = "\n".join(line for _, line in lines(page.read_text()))
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_what_a_sentence_is() -> None:
    """The splitter finds sentences, code and banned words as the tests above expect."""
    text = (
        '# A heading\nOne `a. B c` is short. Two\nis (see 1.5). "Three"? **Four.** Five!\n\n- an item\n- another. It ends\n\n'
        "| a cell | [a link](x.md#y) of `x`, `y` and `z` |\n|---|---|\n```sh\necho told. Anew\n```\n    told\n"
    )
    assert [sentence for _, sentence in sentences(text)] == [
        "A heading", "One CODE is short.", "Two is (see 1.5).", '"Three"?', "Four.", "Five!", "an item", "another.", "It ends",
        "a cell", "a link of CODE", "---", "---",
    ]  # fmt: skip
    assert length("---") == 0
    assert length("one & CODE, three") == 3
    assert [word[0] for pattern in WORDS if (word := pattern.search("It Stands\nin a row, told anew"))] == [
        "told", "anew", "Stands\nin"
    ]  # fmt: skip
