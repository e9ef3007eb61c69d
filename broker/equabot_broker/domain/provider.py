"""The types of the facts about vendors. The facts themselves are data in `providers`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from equabot_broker.domain.secret_value import SecretValue

_SEGMENT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Mode(StrEnum):
    """The kind of a credential. The first three are stored; `WIF` is derived from a workload identity."""

    API_KEY = "api_key"
    TOKEN = "token"
    OAUTH = "oauth"
    WIF = "wif"


@dataclass(frozen=True, slots=True)
class EnvName:
    """An environment variable for a credential, and the kind of the credential."""

    name: str
    mode: Mode = Mode.API_KEY


@dataclass(frozen=True, slots=True)
class HeaderForm:
    """How a request carries a credential: the name of the header, the prefix of the secret, and further fixed headers.

    `account` is the header for the account of a login, if the vendor needs one.
    """

    name: str = "Authorization"
    prefix: str = "Bearer "
    extra: Mapping[str, str] = field(default_factory=dict)
    account: str = ""


BEARER = HeaderForm()

_END = re.compile(r"_(?:API_KEY|OAUTH_TOKEN|AUTH_TOKEN|ACCESS_TOKEN|TOKEN|KEY)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMarks:
    """How a client program is recognised: by its `commands`, by prefixes of its user agent (`agents`), and by prefixes of
    values in list headers (`words`). All are in lower case. Any program can send these headers: they help to select a
    credential, but are not a protection."""

    commands: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def fit(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers comes from the program."""
        if headers.get("user-agent", "").lower().startswith(self.agents):
            return True
        return any(
            word.strip().lower().startswith(begins)
            for name, begins in self.words.items()
            for word in headers.get(name, "").split(",")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """How a vendor exchanges the identity token of a workload for its own token.

    `token` is the field of the identity token. The operator configures every field in `needs`, and may configure those in
    `takes`. `token_types` are the types of identity tokens that the vendor distinguishes, the default first. `encoding` is
    `json` or `form`. `headers` are sent with the request. `variables` are the environment variables of the vendor's SDK for
    these fields and for the file of the token.
    """

    url: str
    grant_type: str
    token: str
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    token_types: tuple[str, ...] = ()
    encoding: str = "json"
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyForm:
    """The minimum length of a vendor's keys and tokens: `shortest`, or a length by prefix in `beginnings`.

    The lengths are below those that the vendor issues today, so that no valid key is refused.
    """

    shortest: int = 8
    beginnings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A vendor.

    `env_names` are in order of preference: the first one with a usable value becomes the profile.
    `list_env_names` hold several keys, separated by space, comma or semicolon; a name `<P>_API_KEY` also has
    siblings `<P>_API_KEY_<suffix>`.
    `headers` and `sdk_env` map a mode to the header of the secret and to the variable of the vendor's SDK. A mode without an
    entry uses that of `api_key`. `sdk_env_also` are variables of other SDKs for the same API key, which the broker sets too.
    `other_env` are variables of further tools, which the broker neither sets nor reads.
    `key_prefixes` are prefixes of the vendor's keys: they show that a key belongs to another vendor. `token_prefixes` are
    those of OAuth access and setup tokens. `form` is the minimum length of both, or None for a server of the operator.
    A person logs in at `authorize_url` and returns to `redirect_url` with a code: a loopback address (port 0 for any port), or
    a page of the vendor that shows the code. Or the person confirms a device login, which starts at `device_url`.
    `api` is the format of a request to a model (`messages`, `openai`, `chat`, `gemini`), `probe_model` a small model for
    probes; empty if unknown. `exchange` is set if the vendor trusts workload identities.
    `requests` are the rules for requests through the gateway (`routing.request_rules`), with paths relative to `base_url`. A
    provider without an allowing rule has no brokered leases. `websockets` are rules for paths in `requests` on which a
    WebSocket may be opened.
    `accounts` are the headers (in lower case) in which a request names an account: the vendor refuses a wrong account like a
    bad credential.
    `exclusive` maps the prefix of a credential to the one client program from which the vendor accepts it. `clients` says how
    each of these programs is recognised.
    `forward_headers`, `query` and `subprotocols` are the headers, query parameters and WebSocket protocols that are forwarded
    to the vendor, in addition to those of every provider (`routing.forwarding`).
    """

    id: str
    aliases: tuple[str, ...] = ()
    env_names: tuple[EnvName, ...] = ()
    list_env_names: tuple[str, ...] = ()
    headers: Mapping[Mode, HeaderForm] = field(default_factory=lambda: MappingProxyType({}))
    sdk_env: Mapping[Mode, str] = field(default_factory=lambda: MappingProxyType({}))
    sdk_env_also: tuple[str, ...] = ()
    other_env: tuple[str, ...] = ()
    base_url: str = ""
    base_url_env: str = ""
    key_prefixes: tuple[str, ...] = ()
    token_prefixes: tuple[str, ...] = ()
    form: KeyForm | None = None
    token_url: str = ""
    token_encoding: str = "json"
    client_id: str = ""
    authorize_url: str = ""
    authorize_extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    device_url: str = ""
    redirect_url: str = ""
    scopes: tuple[str, ...] = ()
    api: str = ""
    probe_model: str = ""
    requests: tuple[str, ...] = ()
    websockets: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    forward_headers: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] = ()
    exchange: Exchange | None = None
    exclusive: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    clients: Mapping[str, ClientMarks] = field(default_factory=lambda: MappingProxyType({}))

    def client(self, name: str) -> str:
        """The client program with that name or command, or empty if the vendor treats it like all others."""
        return next((client for client, marks in self.clients.items() if name in (client, *marks.commands)), "")

    def only_client(self, secret: SecretValue | None) -> str:
        """The one client program from which the vendor accepts this credential, or empty for all programs."""
        if secret is None:
            return ""
        return next((client for prefix, client in self.exclusive.items() if secret.begins_with(prefix)), "")

    def client_of(self, headers: Mapping[str, str]) -> str:
        """The client program of a request, recognised by its headers (names in lower case), or empty."""
        return next((client for client, marks in self.clients.items() if marks.fit(headers)), "")

    @property
    def login(self) -> bool:
        """Whether a person can log in."""
        return bool(self.token_url and self.client_id and (self.authorize_url or self.device_url))

    @property
    def base_path(self) -> str:
        """The path of `base_url` without a slash at its end: the prefix of every path at the provider."""
        return urlsplit(self.base_url).path.rstrip("/")

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in paths of the gateway, the id first."""
        return tuple(dict.fromkeys((self.id, *(alias for alias in self.aliases if _SEGMENT.fullmatch(alias)))))

    @property
    def gateway_fault(self) -> str:
        """Why the gateway does not serve this provider, and what to do; empty if it does."""
        setting = f"providers.{self.id}"
        if not self.base_url:
            return f"provider {self.id!r} has no address: set {setting}.base_url"
        if allows_any(self.requests):
            return ""
        lacks = "lists only requests that the gateway refuses" if self.requests else "does not list the allowed requests"
        return (
            f"{setting}.requests {lacks}: list them, for example"
            ' ["POST /v1/chat/completions", "GET /v1/models"], or ["* /**"] for all requests'
        )

    def header_form(self, mode: Mode) -> HeaderForm:
        """The header form for a credential of this mode."""
        return self.headers.get(mode) or self.headers.get(Mode.API_KEY) or BEARER

    def sdk_env_name(self, mode: Mode) -> str:
        """The variable of the vendor's SDK for a credential of this mode, or empty."""
        return self.sdk_env.get(mode) or self.sdk_env.get(Mode.API_KEY) or ""

    def sdk_env_names(self, mode: Mode | None = None) -> tuple[str, ...]:
        """The variables of all SDKs for a credential of this mode, or of any mode for None."""
        modes = tuple(Mode) if mode is None else (mode,)
        also = self.sdk_env_also if mode in (None, Mode.API_KEY) else ()
        return tuple(dict.fromkeys(filter(None, (*map(self.sdk_env_name, modes), *also))))

    @property
    def address_env(self) -> str:
        """The variable for the address of the gateway: that of the vendor's SDK, or one derived from the provider's name."""
        first = next((env.name for env in self.env_names), "")
        stem = _END.sub("", first.upper()) or re.sub(r"[^A-Z0-9]+", "_", self.id.upper())
        return self.base_url_env or f"{stem}_BASE_URL"

    @property
    def speaks(self) -> str:
        """The provider whose SDKs work with this one: `openai`, `anthropic`, or empty."""
        return {"messages": "anthropic", "openai": "openai", "chat": "openai"}.get(self.api, "")


def allows_any(written: Iterable[str]) -> bool:
    """Whether a list of rules allows anything: it has a rule without `!`."""
    return any(not one.startswith("!") for one in written)


class Catalog:
    """All known providers, by id and alias."""

    __slots__ = ("_by_name", "providers")

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.providers = MappingProxyType(dict(providers))
        self._by_name = {name: p.id for p in providers.values() for name in (p.id, *p.aliases)}

    def normalise(self, name: str) -> str | None:
        """The provider's id for an id or alias in any case, or None."""
        return self._by_name.get(name) or self._by_name.get(name.strip().lower())

    def names(self) -> Iterable[str]:
        """The ids and aliases of all providers."""
        return self._by_name.keys()

    def get(self, name: str) -> Provider | None:
        """The provider for an id or alias in any case, or None."""
        known = self.normalise(name)
        return self.providers[known] if known is not None else None
