"""What MkDocs does not do by itself: pages from outside docs/, links out of docs/, and Markdown as code hosts read it.

The pages are written for two readers: a code host, which shows the files of the repository, and the site. The files keep the
form that the code host needs, and the site adapts here:

- The files of the repository in `OUTSIDE` become pages.
- A link from one page to another is written as a path in the repository. It becomes a link inside the site. A link to any other
  file of the repository leads to `repo_url`, or is text alone where no `repo_url` is set. A link to a file that does not exist
  stays as it is, so that `--strict` reports it.
- `dir/*` in the navigation is every page in that directory, by file name; a directory without pages is left out.
"""

import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MERMAID = "assets/mermaid.min.js"
OUTSIDE = {  # a file of the repository: its page in the site
    "README.md": "overview.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "clients/python/README.md": "python-client.md",
    "clients/typescript/README.md": "typescript-client.md",
    "helm/equabot-broker/README.md": "helm-chart.md",
}
SOURCES = {uri: path for path, uri in OUTSIDE.items()}
LINK = re.compile(r"(?P<text>\[(?:[^\[\]]|\[[^\[\]]*\])*\])\((?P<target>[^()\s]+)\)")
FENCE = re.compile(r"(?P<indent> *)(?P<mark>`{3,})(?P<language>[\w-]*)(?P<rest>.*)")
CELL = re.compile(r"<td>.*?</td>", re.DOTALL)
CODE = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
BREAKS = re.compile(r"(?<=\w)[._/](?=[a-zA-Z\[])")
FETCHED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
ITEM = re.compile(r"(?:[-*]|\d+\.) ")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills `dir/*` in the navigation."""
    config.nav = list(_filled(config.nav or []))
    return config


def _filled(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        match entry:
            case str() if entry.endswith("/*"):
                yield from _pages_in(entry.removesuffix("/*"))
            case dict():
                [(title, inner)] = entry.items()
                inner = [inner] if isinstance(inner, str) and inner.endswith("/*") else inner
                inner = list(_filled(inner)) if isinstance(inner, list) else inner
                if inner:
                    yield {title: inner}
            case _:
                yield entry


def _pages_in(directory: str) -> list[str]:
    pages = sorted(DOCS.glob(f"{directory}/*.md"), key=lambda page: (page.name != "index.md", page.name))
    return [str(page.relative_to(DOCS)) for page in pages]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside docs/."""
    for path, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapts one page: its fences, its lists and its links."""
    here = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def linked(text: str) -> str:
        return LINK.sub(lambda link: _link(link, here=here, page=page, config=config, files=files), text)

    return "\n".join(_fenced(part) if code else linked(_spaced(part)) for code, part in _parts(markdown))


def _parts(markdown: str) -> Iterator[tuple[bool, str]]:
    """The page in order: what is a fenced block (True), and what is between two."""
    lines: list[str] = []
    closing = ""
    for line in markdown.splitlines():
        fence = FENCE.fullmatch(line)
        if not closing and fence:
            yield False, "\n".join(lines)
            lines, closing = [line], fence["mark"]
        elif closing and line.strip() == closing:
            yield True, "\n".join([*lines, line])
            lines, closing = [], ""
        else:
            lines.append(line)
    yield bool(closing), "\n".join(lines)


def _spaced(text: str) -> str:
    """Python-Markdown needs an empty line between a paragraph and a list."""
    lines: list[str] = []
    for line in text.splitlines():
        before = lines[-1] if lines else ""
        if ITEM.match(line) and before and not before.startswith(" ") and not ITEM.match(before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _fenced(block: str) -> str:
    """The name of a file after the language becomes the block's title. Other words there are for tests."""
    first, _, body = block.partition("\n")

    def opening(fence: re.Match[str]) -> str:
        words = fence["rest"].strip()
        named = f' title="{words}"' if "." in words else ""
        return f"{fence['indent']}{fence['mark']}{fence['language']}{named}"

    return f"{FENCE.sub(opening, first, count=1)}\n{body}"


def _link(link: re.Match[str], *, here: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    path, mark, anchor = link["target"].partition("#")
    if not path or ":" in path or path.startswith("/"):
        return link[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    uri = OUTSIDE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
    if uri and files.get_file_from_path(uri):
        inside = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{link['text']}({inside}{mark}{anchor})"
    if not (ROOT / target).exists() or target.startswith("../"):
        return link[0]
    if config.repo_url:
        return f"{link['text']}({config.repo_url.rstrip('/')}/blob/main/{target}{mark}{anchor})"
    return link["text"][1:-1]


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Loads Mermaid (3.5 MB) where a page has a diagram. The theme would otherwise fetch it from another host.

    Names in tables may break after a dot, a slash or an underscore, and nowhere else. The search index is complete by now.
    """
    output = CELL.sub(lambda cell: CODE.sub(lambda code: BREAKS.sub(r"\g<0><wbr>", code[0]), cell[0]), output)
    if 'class="mermaid"' not in output:
        return output
    script = posixpath.relpath(MERMAID, posixpath.dirname(page.file.dest_uri) or ".")
    return output.replace("</head>", f'<script src="{script}"></script></head>', 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Puts Mermaid's script into the site, and refuses a page that fetches anything from another host."""
    target = Path(config.site_dir, MERMAID)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / ".venv-docs/mermaid.min.js", target)
    for written in Path(config.site_dir).rglob("*.html"):
        foreign = FETCHED.search(written.read_text())
        if foreign:
            raise PluginError(f"{written.name} fetches from another host: {foreign[0]}")
