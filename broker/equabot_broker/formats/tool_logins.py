"""Logins of other tools: converts their files to profiles. The broker redeems none of their refresh tokens and writes none of
their files: the tool refreshes its login, and the broker follows the file.

If the operator lets the broker refresh a tool's login, a profile store also has it. It is refreshed there and written back to
the tool's file.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override
from equabot_broker.discovery.hygiene import Unclean, clean
from equabot_broker.domain.material import SourceFault, Unit
from equabot_broker.domain.profiles import Profile, split_id
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import COPIED, AuthDocument, entry_of_oauth, entry_of_token, with_entry, without_entry
from equabot_broker.formats.auth_entries import instant
from equabot_broker.parsing.jwt import claims
from equabot_broker.parsing.untrusted_json import Json, Malformed, decode

SIZE_MAX: Final = 256 << 10
"""The maximum number of bytes of such a file."""
_LIFE_OF_A_CODEX_TOKEN: Final = 3600.0
_QWEN_USUAL: Final = "portal.qwen.ai"
_QWEN_HOSTS: Final = (".qwen.ai", ".aliyuncs.com")
_PLAIN_URL: Final = re.compile(r"https://[a-z0-9.-]{1,100}(?:/[A-Za-z0-9._-]{1,60}){0,6}")
_CLAIMED_MAX: Final = 253_402_300_799  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class _Login:
    """The content of a file, not yet checked. `expires_at` is in seconds since the epoch; None if it is not known. `remark` is
    a note for the user, as a phrase after the file's name."""

    access: str
    refresh: str
    expires_at: float | None
    account: str = ""
    email: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool with a login: its profile, how to read its file (from its content and its time of change) and write it (from its
    content, the tokens and their expiry), and how a user fixes it. `file` is in the directory `folder` of the user's home, or
    in the one that the tool's variable names."""

    profile_id: str
    read: Callable[[Mapping[str, object], float], "_Login | str"]
    write: Callable[[Json, str, str, float], Json]
    remedy: str
    folder: str
    file: str
    folder_variable: str = ""


def read_login(
    tool: Tool,
    text: bytes,
    *,
    changed_at: float,
    rules: DiscoveryRules,
    source: str,
    unit: str,
    origin: str,
    profile_id: str = "",
) -> Unit:
    """The unit of the tool's file: its login, or the fault that explains why it has none.

    `profile_id` overrides the tool's default profile id. The unit has no refresh token. Raises Malformed.
    """
    found = tool.read(_contents(text), changed_at)
    if isinstance(found, str):
        return Unit(unit, faults=(SourceFault(origin, f"{origin} {found}: {tool.remedy}"),))
    profile = _profile(tool, found, profile_id or tool.profile_id, rules, source=source, unit=unit, origin=origin)
    return Unit(unit, (profile,), (SourceFault(origin, f"{origin} {found.remark}"),) if found.remark else ())


def _profile(
    tool: Tool, login: _Login, profile_id: str, rules: DiscoveryRules, *, source: str, unit: str, origin: str
) -> Profile:
    provider = rules.catalog.providers[split_id(tool.profile_id)[0]]
    override = rules.overrides.get(profile_id, Override())
    mode = override.mode or (Mode.OAUTH if login.refresh else Mode.TOKEN)
    end = override.end(profile_id, login.expires_at)
    secret, fault = None, ""
    try:
        secret = clean(login.access, provider=provider, mode=mode, catalog=rules.catalog)
    except Unclean as unclean:
        fault = f"{origin} has an access token that {unclean.reason}"
    return Profile(
        id=profile_id,
        provider=provider.id,
        mode=mode,
        source=source,
        unit=unit,
        origin=origin,
        secret=secret,
        fault=fault,
        expires_at=login.expires_at if end is None else end.at,
        declared=end,
        account=login.account,
        email=login.email,
    )


def _contents(text: bytes) -> Json:
    contents = decode(text, largest=SIZE_MAX)
    if not isinstance(contents, dict):
        raise Malformed("it is not a JSON object")
    return contents


def refresh_token(tool: Tool, text: bytes) -> SecretValue | None:
    """The refresh token in a tool's file. Raises Malformed."""
    found = tool.read(_contents(text), 0.0)
    return SecretValue(found.refresh) if isinstance(found, _Login) and found.refresh else None


def login_entry(tool: Tool, text: bytes) -> Json | None:
    """The login in a tool's file as an entry of a store, if it can be refreshed. Raises Malformed."""
    found = tool.read(_contents(text), 0.0)
    if not isinstance(found, _Login) or not found.refresh or found.expires_at is None:
        return None
    return entry_of_oauth(
        split_id(tool.profile_id)[0],
        SecretValue(found.access),
        SecretValue(found.refresh),
        expires_at=found.expires_at,
        account=found.account,
        email=found.email,
    )


def with_login_entry(tool: Tool, text: bytes, entry: Mapping[str, object]) -> bytes:
    """The tool's file with the tokens of such an entry; unchanged if it has them. Raises Malformed."""
    contents = _contents(text)
    found = tool.read(contents, 0.0)
    access, refresh, until = _text(entry, "access"), _text(entry, "refresh"), instant(entry.get("expires"))[0]
    if until is None or (isinstance(found, _Login) and (found.access, found.refresh) == (access, refresh)):
        return text
    return (json.dumps(tool.write(contents, access, refresh, until), indent=2) + "\n").encode()


def with_login(document: AuthDocument, login: Profile, *, refresh: SecretValue | None = None, now: float) -> AuthDocument:
    """The store with a tool's login, if that is valid and newer than the stored one; a plain token never replaces an OAuth
    login. A key under that id stays. The entry names the source of which it is a copy.

    `refresh` is the refresh token, if the broker redeems it.
    """
    if login.secret is None or login.expires_at is None or login.expires_at <= now:
        return document
    before = document.entries.get(login.id)
    if before is not None and not _newer(login, before) and not _completes(login, refresh, before):
        return document
    if login.mode is Mode.OAUTH:
        entry = entry_of_oauth(login.provider, login.secret, refresh, expires_at=login.expires_at)
    else:
        entry = entry_of_token(login.provider, login.secret, expires_at=login.expires_at)
    return with_entry(document, login.id, {**entry, COPIED: login.source})


def without_copy(document: AuthDocument, profile_id: str, source: str) -> AuthDocument:
    """The store without the profile, if its entry is a copy from that source."""
    entry = document.entries.get(profile_id)
    copied = isinstance(entry, dict) and entry.get(COPIED) == source
    return without_entry(document, profile_id) if copied else document


def written_back(tool: Tool, text: bytes, entry: object) -> bytes:
    """The tool's file with the tokens of a store's entry, if those are newer; else unchanged. Nothing else in it changes.
    Raises Malformed."""
    contents = _contents(text)
    found = tool.read(contents, 0.0)
    if not isinstance(found, _Login) or not isinstance(entry, dict) or entry.get("type") != Mode.OAUTH:
        return text
    access, refresh, until = _text(entry, "access"), _text(entry, "refresh"), instant(entry.get("expires"))[0]
    if not access or not refresh or until is None or until <= (found.expires_at or 0.0) or access == found.access:
        return text
    return (json.dumps(tool.write(contents, access, refresh, until), indent=2) + "\n").encode()


def _newer(login: Profile, before: object) -> bool:
    if not isinstance(before, dict) or before.get("type") not in (Mode.TOKEN, Mode.OAUTH):
        return False
    if before["type"] == Mode.OAUTH and login.mode is not Mode.OAUTH:
        return False
    if before["type"] == login.mode and SecretValue(_text(before, "access") or _text(before, "token")) == login.secret:
        return False
    until = instant(before.get("expires"))[0] or 0.0
    later = login.expires_at is not None and login.expires_at > until
    return later or (before["type"] == Mode.TOKEN and login.mode is Mode.OAUTH and login.expires_at == until)


def _completes(login: Profile, refresh: SecretValue | None, before: object) -> bool:
    """Whether it is the same login, whose refresh token the broker did not redeem before."""
    if refresh is None or not isinstance(before, dict) or before.get("type") != Mode.OAUTH or before.get("refresh"):
        return False
    return SecretValue(_text(before, "access")) == login.secret


def _claude(contents: Mapping[str, object], _: float) -> _Login | str:
    login = contents.get("claudeAiOauth")
    if not isinstance(login, dict):
        return "holds no login: there is no object 'claudeAiOauth' in it"
    if not _text(login, "accessToken"):
        return "holds a login without an accessToken, as after a logout"
    expires_at, doubt = instant(login.get("expiresAt"))
    # A long-lived token, as container images write it: it has no refresh token and no known expiry.
    static = login.get("expiresAt") is None and not _text(login, "refreshToken")
    if expires_at is None and not static:
        return f"is ignored, for its expiresAt {doubt or 'is missing'}"
    return _Login(_text(login, "accessToken"), _text(login, "refreshToken"), expires_at)


def _codex(contents: Mapping[str, object], changed_at: float) -> _Login | str:
    tokens = contents.get("tokens")
    if not isinstance(tokens, dict) or not _text(tokens, "access_token"):
        if _text(contents, "OPENAI_API_KEY"):
            return (
                "holds an API key and no login, and is not read for keys: set OPENAI_API_KEY, or store it with"
                " `equabot models auth add --provider openai`; for a login"
            )
        return "holds no login: there is no access_token in an object 'tokens'"
    access = _text(tokens, "access_token")
    return _Login(
        access,
        _text(tokens, "refresh_token"),
        _expiry(claims(access)) or changed_at + _LIFE_OF_A_CODEX_TOKEN,
        account=_text(tokens, "account_id"),
        email=_text(claims(_text(tokens, "id_token")), "email"),
    )


def _qwen(contents: Mapping[str, object], _: float) -> _Login | str:
    if not _text(contents, "access_token"):
        return "holds no login: there is no access_token in it"
    expires_at, doubt = instant(contents.get("expiry_date"))
    if expires_at is None:
        return f"is ignored, for its expiry_date {doubt or 'is missing'}"
    remark = _elsewhere(_text(contents, "resource_url"))
    return _Login(_text(contents, "access_token"), _text(contents, "refresh_token"), expires_at, remark=remark)


def _elsewhere(resource: str) -> str:
    """The note for a login with an unusual address. The broker does not follow it, because a user who can write the file would
    choose where tokens are sent."""
    url = resource if "://" in resource else f"https://{resource}"
    try:
        parts = urlsplit(url)
        host, plain = parts.hostname or "", parts.scheme == "https" and not parts.username and parts.port in (None, 443)
    except ValueError:
        host, plain = "", False
    if not resource or host == _QWEN_USUAL:
        return ""
    if not plain or not host.endswith(_QWEN_HOSTS):
        return "has a resource_url that is not an https address of Qwen: it is not used"
    path = parts.path.rstrip("/")
    base = f"https://{host}{path}" if path.endswith("/v1") else f"https://{host}{path}/v1"
    return f"is a login for another address: set providers.qwen-portal.base_url to {base}" if _PLAIN_URL.fullmatch(base) else ""


def _write_claude(contents: Json, access: str, refresh: str, expires_at: float) -> Json:
    tokens = {"accessToken": access, "refreshToken": refresh, "expiresAt": int(expires_at * 1000)}
    return {**contents, "claudeAiOauth": {**contents["claudeAiOauth"], **tokens}}


def _write_codex(contents: Json, access: str, refresh: str, _: float) -> Json:
    return {**contents, "tokens": {**contents["tokens"], "access_token": access, "refresh_token": refresh}}


def _write_qwen(contents: Json, access: str, refresh: str, expires_at: float) -> Json:
    return {**contents, "access_token": access, "refresh_token": refresh, "expiry_date": int(expires_at * 1000)}


CLAUDE: Final = Tool(
    "anthropic:claude-cli",
    _claude,
    _write_claude,
    "log in with `claude` again, or run `claude setup-token`",
    folder=".claude",
    file=".credentials.json",
    folder_variable="CLAUDE_CONFIG_DIR",
)
CODEX: Final = Tool(
    "openai-codex:codex-cli",
    _codex,
    _write_codex,
    "run `codex login`",
    folder=".codex",
    file="auth.json",
    folder_variable="CODEX_HOME",
)
QWEN: Final = Tool(
    "qwen-portal:qwen-cli", _qwen, _write_qwen, "log in with `qwen` again", folder=".qwen", file="oauth_creds.json"
)
TOOLS: Final[Mapping[str, Tool]] = {"claude_cli": CLAUDE, "codex_cli": CODEX, "qwen_cli": QWEN}
"""The tools, by the kind of source that reads their files."""


def _expiry(said: Mapping[str, object]) -> float | None:
    at = said.get("exp")
    if isinstance(at, str) and at.isascii() and at.isdigit() and len(at) <= 12:
        at = int(at)
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at <= _CLAIMED_MAX else None


def _text(values: Mapping[str, object], name: str) -> str:
    value = values.get(name)
    return value.strip() if isinstance(value, str) else ""
