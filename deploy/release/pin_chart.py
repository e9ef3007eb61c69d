"""Writes the repository, tag and digest of an image to the chart's values, or prints the image in them.

    pin_chart.py broker ghcr.io/example/equabot-broker v1.2.3 sha256:…
    pin_chart.py gateway

A released chart references its images by digest, because a tag can move.
"""

import re
import sys
from pathlib import Path
from typing import Final

VALUES: Final = Path(__file__).parents[2] / "helm" / "equabot-broker" / "values.yaml"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def _fields(section: str) -> re.Pattern[str]:
    """Matches the three fields of the image of a section, with the comments between them."""
    gap = r"\n(?:    #[^\n]*\n)*"
    start = rf"(?P<head>^{section}:\n(?:(?:  [^\n]*|#[^\n]*)?\n)*?  image:{gap}"
    return re.compile(
        rf"{start}    repository: )(?P<repository>\S+)(?P<a>{gap}    tag: )(?P<tag>\S+)(?P<b>{gap}    digest: )(?P<digest>\S+)",
        re.MULTILINE,
    )


def main(arguments: list[str]) -> int:
    """Runs the command, and returns the exit code."""
    section, *given = arguments or [""]
    text = VALUES.read_text()
    found = _fields(re.escape(section)).search(text) if section else None
    if found is None or len(given) not in (0, 3) or (given and not _DIGEST.fullmatch(given[2])):
        print(__doc__, file=sys.stderr)
        return 64
    if not given:
        print(f"{found['repository']}:{found['tag'].strip(chr(34))}")
        return 0
    repository, tag, digest = given
    pinned = f'{found["head"]}{repository}{found["a"]}"{tag}"{found["b"]}"{digest}"'
    VALUES.write_text(text[: found.start()] + pinned + text[found.end() :])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
