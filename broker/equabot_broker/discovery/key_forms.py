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

from equabot_broker.domain.provider import Catalog, Mode, Provider

_ANY: Final = re.IGNORECASE | re.VERBOSE | re.DOTALL
_REFERENCE: Final = re.compile(
    r"""
      [a-z][a-z0-9+.-]*://.*
    | (?: enc(?:rypted)? | vault | secrets? | secretref | ref(?:\+[a-z0-9]+)? | arn | op | env | file | key(?:ring|chain|vault)
        | ssm | kms | sops | gcp | gsm | aws(?:-?sm)? | akv | azure | bws | infisical | doppler | k8s | cmd | exec | command
      ) :.*
    | enc [\[(] .* | \{cipher\}.* | @microsoft\.keyvault\(.* | ! (?:vault|secret|ref|sub|env) \b.* | \$ansible_vault;.*
    | projects/[^/]+/secrets/.* | (?:secrets?|kv[0-9]?)/.+ | AQICAH[A-Za-z0-9+/=]{60,}
    | (?: (?:one|1)password | bitwarden | bw | lpass | keeper | gopass | akeyless | conjur | chamber | berglas | hashivault | kv
        | sm | secretsmanager ) :.*
    # A variable of a program, and one of the environment by its bare name.
    | (?: process\.env | import\.meta\.env | os\.(?:environ|getenv) | env | secrets | vars ) [.\[(/].*
    | (?-i: [A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:KEY|KEYS|TOKEN|SECRET) )
    # Fernet, OpenSSL, Sealed Secrets and age say at their beginning what they are.
    | (?-i: gAAAAA[A-Za-z0-9_-]{60,}={0,2} | U2FsdGVkX1[A-Za-z0-9+/]{20,}={0,2} | Ag[A-D][A-Za-z0-9+/]{300,}={0,2}
        | age1[a-z0-9]{40,} | AGE-SECRET-KEY-1.* )
    """,
    _ANY,
)
_HOST: Final = re.compile(r"(?:[a-z0-9-]+\.)+(?:com|net|org|ai|io|dev|cloud|local|internal)(?::\d+)?(?:/.*)?")
_PATH: Final = re.compile(
    r"(?:~|\.\.?)/.*|/(?:run|var|etc|home|root|tmp|mnt|opt|srv|usr|app|data|config|secrets?|vault|private|Users)/.*"
    r"|[A-Za-z]:\\.*|[\w./-]*\.(?:key|txt|pem|json|ya?ml|env|secret|gpg|age|asc|enc)"
)
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_MASKED: Final = re.compile(r".*(?:\.{3}|\*{2}|[\u2026\u2022\u25cf]).*", re.DOTALL)
_JOINED: Final = re.compile(r"[^.]*\.\..*", re.DOTALL)
_WORD: Final = re.compile(r"true|false|yes|no|on|off|enabled|disabled|n/?a|unset|not[-_]set", re.IGNORECASE)
_TRAILING: Final = re.compile(r".*(?:[;,]|\\[nrt]?)", re.DOTALL)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+\s*")
_KEY: Final = re.compile(r"(?!--[a-z]|__.*__\Z)[A-Za-z0-9_-][A-Za-z0-9._~+/=$#-]*")
"""Every vendor's keys so far, with `$` and `#` to spare."""
_REFRESH: Final = re.compile(r"(?:sk-ant-ort|rt\.[0-9]|1//0).*", re.DOTALL)
_FOREIGN: Final = re.compile(
    r"A[KS]IA[A-Z0-9]{16}|(?:xox[a-z]-|xapp-|[rs]k_(?:live|test)_|npm_|pypi-|glpat-|ssh-).*", re.DOTALL
)
"""Credentials that other services than a model's vendor hand out."""
_BETWEEN: Final = re.compile(r"[-_.#~]+")
_STANDS_IN: Final = re.compile(
    "dummy|fake|sample|examples?|place-?holder|redacted|change(?:me)?|replace(?:me)?|insert|here|hidden|noauth|needed|required|unused"
)
"""Words by which a text says that it is not a key."""
_NEXT_TO_IT: Final = re.compile("sk|api|apikey|keys?|token|secret|my|your|the|a|no|not|is|me|this|it|with|please|goes|test|x+")
_BEGINNING_MIN: Final = 3


def misshapen(value: str, *, provider: Provider, mode: Mode, catalog: Catalog) -> str:
    """Why a clean text is not a credential of the provider, as the rest of a sentence after its name; empty if it may be one.

    Nothing of the text is in the answer.
    """
    return next(filter(None, (*_of_any(value, catalog), *_of_vendor(value, provider, mode))), "")


def _of_any(value: str, catalog: Catalog) -> Iterator[str]:
    if _REFERENCE.fullmatch(value):
        yield "is a reference or a cipher text, not a key: put the key itself there"
    if _HOST.fullmatch(value):
        yield "is an address, not a key: put the key there"
    if _PATH.fullmatch(value):
        yield "is a path, not a key: put there what the file holds"
    if _EMAIL.fullmatch(value):
        yield "is an e-mail address, not a key: put the key there"
    if _MASKED.fullmatch(value) or (_JOINED.fullmatch(value) and not value.startswith("eyJ")):
        yield "is a copy that was masked or shortened: put the whole key there"
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
    if form is not None and _REFRESH.fullmatch(value):
        yield "is a refresh token, with which no request can be made: put an access token or a key there"
    if form is None or mode not in (Mode.API_KEY, Mode.TOKEN):  # what a program was given, no person has cut
        return
    if _FOREIGN.fullmatch(value):
        yield "is a credential of another service: put the key of this provider there"
    if not _KEY.fullmatch(value):
        yield "has a character that is in no key of this provider: keep the key alone"
    begun = (least for begin, least in form.beginnings.items() if value.startswith(begin))
    if len(value) < max(form.shortest, *begun, 0) or any(begin.startswith(value) for begin in form.beginnings):
        yield "is too short to be a key of this provider: copy all of it"
    if _stands_in(value, (*form.beginnings, "sk-")):
        yield "is a placeholder: put the real value there"


def _stands_in(value: str, beginnings: Iterable[str]) -> bool:
    """Whether nothing follows a key's beginning, or words alone, of which one says that they are no key."""
    begin = max((begin for begin in beginnings if value.startswith(begin)), key=len, default="")
    words = [word for word in _BETWEEN.split(value[len(begin) :].lower()) if word]
    said = [word for word in words if _STANDS_IN.fullmatch(word)]
    return not words or (bool(said) and all(word in said or _NEXT_TO_IT.fullmatch(word) for word in words))
