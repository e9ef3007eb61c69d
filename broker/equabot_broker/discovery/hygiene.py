"""What a credential looks like once it is clean, and what is refused.

Cleaned is what cannot change the meaning: whitespace and a byte order mark around the value, a pair of quotes, `Bearer `,
`export NAME="…"` and `NAME=…`. What is left must be fit for an HTTP header as it is: visible ASCII, nothing else.
"""

import re
from typing import Final

from equabot_broker.discovery.key_forms import misshapen
from equabot_broker.domain.masking import BEGINS_LIKE_A_KEY
from equabot_broker.domain.provider import Catalog, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue

SIZE_MAX: Final = 64 * 1024
"""Bytes a value may have."""
ENTRIES_MAX: Final = 1_000
"""Keys that a bundle may hold, and profiles that a store may."""
LISTED_MAX: Final = 100
"""Values that a list may have."""

_AROUND: Final = " \t\r\n\u00a0\ufeff"
_LAYERS_MAX: Final = 8
_QUOTES: Final = ("'", '"', "`")
_BEARER: Final = re.compile(r"bearer(?=[ \t]|$)", re.IGNORECASE)
# Without `export`, only an upper-case name before a value that goes on counts: a key may end in the `=` of base64.
_ASSIGNMENT: Final = re.compile(
    r"export[ \t]+[A-Za-z_]\w*[ \t]*= | [A-Z][A-Z0-9_]*=(?=[^=\s]) | [A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+=$", re.ASCII | re.VERBOSE
)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SEPARATORS: Final = re.compile(r"[\s,;]+")

_PLACEHOLDER: Final = re.compile(
    r"""
      (?:[a-z]+[-_ ])*place[-_ ]?holder(?:[-_ ][a-z]+)* | (?:[a-z]+[-_ ])*example[-_ ](?:api[-_ ]?)?(?:key|token|secret)
    | (?:[a-z]+[-_ ])*to[-_ ]be[-_ ][a-z]+
    | change[-_ ]?(?:me|this|it) | replace[-_ ]?(?:me|this|with.*) | fill[-_ ]?(?:me[-_ ]?)?in | to[-_ ]?do | tbd | fixme
    | none | null | nil | undefined | redacted | (?:api|secret|access)[-_ ]?key(?:[-_ ]?here)?
    | (?:insert|put|paste|enter|add)[-_ ](?:api|key|token|secret|your|my|the|here)\b.*
    | (?:[a-z0-9]+[-_ ])*your[-_ ]?.*(?:key|token|secret).*
    | (?:[a-z0-9]+[-_])*(?: x{3,60} | \*{3,} | \.{2,}.* | …+.* )
    | \$\{.* | \$\(.* | \$(?-i:[A-Z_][A-Z0-9_]*) | \{\{.*\}\} | %\w+% | <.*> | \[.*\]
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_PLACEHOLDER_MAX: Final = 200

_WRAPPED: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
_WIDTH_MIN: Final = 20


class Unclean(ValueError):
    """A value that cannot be used. `reason` goes on from the value's name ("is empty") and holds nothing of the value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def clean(text: str | bytes, *, provider: Provider, mode: Mode, catalog: Catalog) -> SecretValue:
    """The credential in the text, ready to be sent. Cleaning what is clean changes nothing.

    Raises Unclean; nothing in it, or chained to it, holds the text.
    """
    value = _unwrap(_decode(text))
    _refuse_unfit(value)
    _refuse_misplaced(value, provider=provider, mode=mode, catalog=catalog)
    if fault := misshapen(value, provider=provider, mode=mode, catalog=catalog):
        raise Unclean(fault)
    return SecretValue(value)


def joined(text: str) -> str:
    """A key that a terminal has wrapped, in one line; any other text as it is, for `clean` to judge.

    It is one where the first line alone begins like a key, and all but the last are equally long.
    """
    lines = [line for line in map(str.strip, text.strip().splitlines()) if line]
    if len(lines) < 2 or not all(map(_WRAPPED.fullmatch, lines)):
        return text
    widths, begun = {len(line) for line in lines[:-1]}, [BEGINS_LIKE_A_KEY.match(line) is not None for line in lines]
    wrapped = len(widths) == 1 and min(widths) >= max(_WIDTH_MIN, len(lines[-1])) and begun[0] and not any(begun[1:])
    return "".join(lines) if wrapped else text


def split_list(text: str | bytes) -> list[str]:
    """The values of a list that spaces, commas and semicolons separate. Raises Unclean for no value, and for too many."""
    parts = [part for part in _SEPARATORS.split(_unwrap(_decode(text))) if part]
    if len(parts) > LISTED_MAX:
        raise Unclean(f"lists more than {LISTED_MAX} keys: spread them over several variables")
    return parts


def _decode(text: str | bytes) -> str:
    # The environment's texts hold bytes that are not UTF-8 as surrogates.
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > SIZE_MAX:
        raise Unclean("is longer than 64 KiB, so it is not a key")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass  # and is not chained: it holds the text
    raise Unclean("is binary, not UTF-8 text")


def _unwrap(value: str) -> str:
    for _ in range(_LAYERS_MAX):
        bare = value.strip(_AROUND)
        if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in _QUOTES:
            bare = bare[1:-1]
        elif wrapping := _ASSIGNMENT.match(bare) or _BEARER.match(bare):
            bare = bare[wrapping.end() :]
        if bare == value:
            return value
        value = bare
    raise Unclean("is wrapped in too many quotes and prefixes")


def _refuse_unfit(value: str) -> None:
    if not value:
        raise Unclean("is empty")
    if len(value) <= _PLACEHOLDER_MAX and _PLACEHOLDER.fullmatch(value):
        raise Unclean("is a placeholder: put the real value there")
    if "\n" in value or "\r" in value:
        raise Unclean("has more than one line: keep the value alone")
    if _CONTROL.search(value):
        raise Unclean("has a control character inside")
    if any(character.isspace() for character in value):
        raise Unclean("has whitespace inside: keep the value alone")
    if not _VISIBLE.fullmatch(value):
        raise Unclean("has characters that are not ASCII, which no header may carry")
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        raise Unclean("has a quote without its partner")


def _refuse_misplaced(value: str, *, provider: Provider, mode: Mode, catalog: Catalog) -> None:
    """A prefix that shows whose a credential is, or of which kind, must not contradict where it was put."""
    known = {**catalog.providers, provider.id: provider}.values()
    prefix = max((p for v in known for p in (*v.key_prefixes, *v.token_prefixes) if value.startswith(p)), key=len, default="")
    if not prefix:
        return
    owners = [v.id for v in known if prefix in v.key_prefixes or prefix in v.token_prefixes]
    if provider.id not in owners:
        raise Unclean(f"is a credential of {_unlike(owners[0], value)}, not of {provider.id}: declare it there")
    is_key, is_token = prefix in provider.key_prefixes, prefix in provider.token_prefixes
    if mode is Mode.API_KEY and not is_key:
        raise Unclean(f"is an OAuth token, not an API key: {_instead(provider, Mode.TOKEN)}")
    # Where a request carries both alike, as with vendors that have keys alone, a key may be kept as a token.
    alike = mode is Mode.TOKEN and provider.header_form(mode) == provider.header_form(Mode.API_KEY)
    if mode is not Mode.API_KEY and not is_token and not alike:
        raise Unclean(f"is an API key, not an OAuth token: {_instead(provider, Mode.API_KEY)}")


def _instead(provider: Provider, mode: Mode) -> str:
    name = next((env.name for env in provider.env_names if env.mode is mode), "")
    return f"put it in {name}, or give its profile mode: {mode}" if name else f"give its profile mode: {mode}"


def _unlike(name: str, value: str) -> str:
    """The name, unless the value begins with a piece of it: no part of a value is repeated, not even a public prefix."""
    return "another provider" if any(name[i : i + 4] in value for i in range(len(name) - 3)) else name
