"""Recognises credentials in the place of a name, and masks them in messages."""

import re
from typing import Final

KEY_BEGINNINGS: Final = (
    r"[prs]k[-_]|gsk_|hf_|xai-|nvapi-|pplx-|r8_|tvly-|csk-|vck_|cpk_|syn_|fc-|dop_v1_|gl[a-z]{2,4}-|eqb_|gh[a-z]_|github_pat_"
    r"|xox[a-z]-|xapp-|npm_|pypi-|lin_api_|ntn_|sntry[a-z]_|shp[a-z]{2}_|AKIA|ASIA|AIza|ya29\.|eyJ"
)
"""Prefixes of credentials, as a regular expression. The redaction of the log uses it as well."""
BEGINS_LIKE_A_KEY: Final = re.compile(rf"(?<![A-Za-z0-9])(?:{KEY_BEGINNINGS})", re.IGNORECASE)
_RUN: Final = re.compile(r"[A-Za-z0-9]{12,}")
_QUOTED_MAX: Final = 80
_WORD: Final = re.compile(r"[^\s/:,;'\"()]+")
_MASKED: Final = "(not shown: it looks like a key)"


def is_misplaced_key(name: str) -> bool:
    """Whether a name looks like a credential: it has a known prefix and a run of mixed letters and digits.

    A secret without a known prefix cannot be recognised: 20 random letters may be the name of a project.
    """
    return BEGINS_LIKE_A_KEY.search(name) is not None and _is_opaque(name)


def masked(text: str) -> str:
    """The text (a path, an id, a message) with a mask for each word that looks like a key."""
    if not is_misplaced_key(text):
        return text
    return _WORD.sub(lambda word: _MASKED if is_misplaced_key(word[0]) else word[0], text)


def quoted(name: str) -> str:
    """An untrusted name for a message: quoted and cut to 80 characters, or only described if it may be a credential."""
    seen = name[: 2 * _QUOTED_MAX]
    if BEGINS_LIKE_A_KEY.search(seen) or _is_opaque(seen):
        return f"of {len(name)} characters (not shown: it might be a key)"
    return repr(name[:_QUOTED_MAX])


def _is_opaque(text: str) -> bool:
    """Whether it has a run of 12 or more characters that mixes letters and digits."""
    return any(not run.isalpha() and not run.isdigit() for run in _RUN.findall(text))
