"""What cannot be a key, by its form alone: references, cipher texts, addresses, paths, masked copies, stumps.

What is said of any provider is what no program would hand out as a key. What is said of a vendor is less than is known of its
keys, because vendors change them: how short none is, and which characters are in all of them. It counts where the vendor itself
is asked; a server of the operator's own (`base_url`) takes whatever its owner chose.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final

from broker.domain.provider import Catalog, Mode, Provider

_ANY: Final = re.IGNORECASE | re.VERBOSE | re.DOTALL
_REFERENCE: Final = re.compile(
    r"""
      [a-z][a-z0-9+.-]*://.*
    | (?: enc(?:rypted)? | vault | secrets? | secretref | ref(?:\+[a-z0-9]+)? | arn | op | env | file | key(?:ring|chain|vault)
        | ssm | kms | sops | gcp | gsm | aws(?:-?sm)? | akv | azure | bws | infisical | doppler | k8s | cmd | exec | command
      ) :.*
    | enc [\[(] .* | \{cipher\}.* | @microsoft\.keyvault\(.* | ! (?:vault|secret|ref|sub|env) \b.* | \$ansible_vault;.*
    | projects/[^/]+/secrets/.* | AQICAH[A-Za-z0-9+/=]{60,}
    """,
    _ANY,
)
_HOST: Final = re.compile(r"(?:[a-z0-9-]+\.)+(?:com|net|org|ai|io|dev|cloud|local|internal)(?::\d+)?(?:/.*)?")
_PATH: Final = re.compile(
    r"(?:~|\.\.?)/.*|/(?:run|var|etc|home|root|tmp|mnt|opt|srv|usr|app|data|config|secrets?|vault|private|Users)/.*"
    r"|[A-Za-z]:\\.*"
)
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_MASKED: Final = re.compile(r".*(?:\.{3}|\*{2}|[\u2026\u2022\u25cf]).*", re.DOTALL)
_JOINED: Final = re.compile(r"[^.]*\.\..*", re.DOTALL)
_WORD: Final = re.compile(r"true|false|yes|no|on|off|enabled|disabled|n/?a|unset|not[-_]set", re.IGNORECASE)
_TRAILING: Final = re.compile(r".*(?:[;,]|\\[nrt]?)", re.DOTALL)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+\s*")
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/=$#-]*")
"""Every vendor's keys so far, with `$` and `#` to spare."""
_BEGINNING_MIN: Final = 3


def misshapen(value: str, *, provider: Provider, mode: Mode, catalog: Catalog) -> str:
    """Why a text that is clean otherwise is no credential of the provider, going on from its name; empty: it may be one.

    Nothing of the text is in the answer.
    """
    return next(filter(None, (*_of_any(value, catalog), *_of_vendor(value, provider, mode))), "")


def _of_any(value: str, catalog: Catalog) -> Iterator[str]:
    if _REFERENCE.fullmatch(value):
        yield "is a reference or a cipher text, not a key: put there what it stands for"
    if _HOST.fullmatch(value):
        yield "is an address, not a key: put the key there"
    if _PATH.fullmatch(value):
        yield "is a path, not a key: put there what the file holds"
    if _EMAIL.fullmatch(value):
        yield "is an e-mail address, not a key: put the key there"
    if _MASKED.fullmatch(value) or (_JOINED.fullmatch(value) and not value.startswith("eyJ")):
        yield "is a copy that somebody has masked or shortened: put the whole key there"
    if _WORD.fullmatch(value):
        yield "is a word, not a key: put the key there"
    if _TRAILING.fullmatch(value):
        yield "ends in a character that is in no key (`;`, `,` or a backslash): keep the value alone"
    if _holds_key(value, catalog):
        yield "is a key in base64: decode it first"


def _holds_key(value: str, catalog: Catalog) -> bool:
    if not _BASE64.fullmatch(value):
        return False
    bare = value.rstrip("=").translate(_URL_SAFE)
    try:
        text = base64.b64decode(bare + "=" * (-len(bare) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return False
    return _PRINTABLE.fullmatch(text) is not None and text.startswith(tuple(_beginnings(catalog.providers.values())))


def _beginnings(providers: Iterable[Provider]) -> Iterator[str]:
    yield "sk-"
    for provider in providers:
        yield from (begin for begin in (*provider.key_prefixes, *provider.token_prefixes) if len(begin) >= _BEGINNING_MIN)


def _of_vendor(value: str, provider: Provider, mode: Mode) -> Iterator[str]:
    form = provider.form
    if form is None or mode not in (Mode.API_KEY, Mode.TOKEN):  # what a program was given, no person has cut
        return
    if not _KEY.fullmatch(value):
        yield "has a character that is in no key of this provider: keep the key alone"
    begun = (least for begin, least in form.beginnings.items() if value.startswith(begin))
    if len(value) < max(form.shortest, *begun, 0) or any(begin.startswith(value) for begin in form.beginnings):
        yield "is too short to be a key of this provider: copy all of it"
