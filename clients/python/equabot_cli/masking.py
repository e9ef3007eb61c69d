"""Keeps credentials out of the output of commands: a user may type one as an argument by mistake.

The broker masks its log with the same expression; a test compares the two.
"""

import re
from typing import Final

MASK: Final = "[redacted]"
_LONGEST: Final = 16_384
_SHOWN_MAX: Final = 40
_KEY_BEGINNINGS: Final = (
    r"[prs]k[-_]|gsk_|hf_|xai-|nvapi-|pplx-|r8_|tvly-|csk-|vck_|cpk_|syn_|fc-|dop_v1_|gl[a-z]{2,4}-|eqb_|gh[a-z]_|github_pat_"
    r"|xox[a-z]-|xapp-|npm_|pypi-|lin_api_|ntn_|sntry[a-z]_|shp[a-z]{2}_|AKIA|ASIA|AIza|ya29\.|eyJ"
)
SHAPES: Final = re.compile(
    rf"""
      \b(?:sk|rk|pk)-[A-Za-z0-9_-]{{8,}}                              # Anthropic, OpenAI, OpenRouter, DeepSeek…
    | \b(?:gsk|hf|xai|nvapi|pplx|r8|tvly|fc|csk|vck|dop_v1|glpat)[_-][A-Za-z0-9_-]{{16,}}
    | \beqb_[A-Za-z0-9_-]{{16,}}                                       # a lease token
    | (?<![A-Za-z0-9])(?i:{_KEY_BEGINNINGS})(?=[A-Za-z_.-]*[0-9])[A-Za-z0-9_.-]{{12,}}  # as in names
    | \beyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}(?:\.[A-Za-z0-9_-]*)?  # JWT
    | ((?i:\bbearer[ ]{{1,4}}))[A-Za-z0-9+/_.~=-]{{8,}}
    | ((?i:(?:key|token|secret|passw(?:or)?d|credential|authorization)["']?[ ]{{0,4}}[=:][ ]{{0,4}}["']?))
      (?=[A-Za-z+/_.~=-]{{0,64}}[0-9])[A-Za-z0-9+/_.~=-]{{16,}}
    """,
    re.VERBOSE,
)
_WORDS: Final = re.compile(r"[\s=:;,'\"]+")
_OPAQUE: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_+=-]{16,}")
_COMMON_PREFIXES: Final = ("sk-", "sk_", "pk-", "ghp_", "gho_", "github_pat_", "xox", "hf_", "eyJ", "Bearer", "bearer")


def masked(text: str) -> str:
    """At most 16 Ki characters of the text, with a mask in place of each word that looks like a credential."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text) - _LONGEST} more characters)"
    return SHAPES.sub(lambda found: f"{found[1] or ''}{found[2] or ''}{MASK}", text)


def looks_secret(text: str) -> bool:
    """Whether the text may be a credential, so that no message may quote it. In doubt it is one."""
    from equabot_cli.built_in_providers import BUILT_IN  # noqa: PLC0415

    if len(text) > _SHOWN_MAX:
        return True
    prefixes = (*_COMMON_PREFIXES, *(prefix for provider in BUILT_IN for prefix in provider.prefixes))
    return any(word.startswith(prefixes) or _OPAQUE.fullmatch(word) for word in _WORDS.split(text))
