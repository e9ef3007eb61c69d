"""The page as one document: HTML with its style and script inside, and the policy that lets nothing else run in it."""

import base64
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

_PARTS: Final = Path(__file__).with_name("page")
_SCRIPTS: Final = ("elements.js", "charts.js", "sections.js", "live.js")


@dataclass(frozen=True, slots=True)
class PageDocument:
    """The bytes of the page, of its icon, and the value of Content-Security-Policy."""

    html: bytes
    icon: bytes
    policy: str


def read_document() -> PageDocument:
    """The document, from the files of the package."""
    style = _text("page.css")
    script = '"use strict";\n' + "\n".join(map(_text, _SCRIPTS))
    html = _text("page.html").replace("/*style*/", style, 1).replace("/*script*/", script, 1)
    policy = "; ".join((
        "default-src 'none'",
        f"script-src '{_hash(script)}'",
        f"style-src '{_hash(style)}'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ))  # fmt: skip
    return PageDocument(html.encode(), _text("icon.svg").encode(), policy)


def _text(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"
