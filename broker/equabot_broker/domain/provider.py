"""What there is to know of a vendor. The facts themselves are data, in `providers`."""

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
    """How a credential is meant to be used. The first three are stored, `WIF` is derived from a workload's identity."""

    API_KEY = "api_key"
    TOKEN = "token"
    OAUTH = "oauth"
    WIF = "wif"


@dataclass(frozen=True, slots=True)
class EnvName:
    """An environment variable in which people keep a credential, and what it then is."""

    name: str
    mode: Mode = Mode.API_KEY


@dataclass(frozen=True, slots=True)
class HeaderForm:
    """How a request carries a credential: the header's name, what stands before the secret, and fixed headers beside it.
    `account` is the header for the account that a login belongs to, where the vendor wants to know it."""

    name: str = "Authorization"
    prefix: str = "Bearer "
    extra: Mapping[str, str] = field(default_factory=dict)
    account: str = ""


BEARER = HeaderForm()

_END = re.compile(r"_(?:API_KEY|OAUTH_TOKEN|AUTH_TOKEN|ACCESS_TOKEN|TOKEN|KEY)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMarks:
    """How a client program is recognised: by its `commands`; by how its user agent begins (`agents`); by how a value in a
    header begins that holds a list (`words`). All in lower case. Any program can send these headers: they help to choose a
    credential, and protect nothing."""

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
    """How a vendor exchanges a workload's identity token for one of its own.

    `token` is the field in which the identity token is sent. The operator has to give every field in `needs`, and may give
    those in `takes`. `token_types` are the kinds of identity token that the vendor tells apart, the usual one first; a vendor
    that does not ask has none. `encoding` is `json` or `form`; `headers` go with the request. `variables` are those in which
    the vendor's own SDK looks for fields, and for the token's file.
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
    """What every key of a vendor has, and every token that a person is given: at least `shortest` characters, or those in
    `beginnings` where it begins so. Less than the vendor issues today: a form that is too strict loses good keys."""

    shortest: int = 8
    beginnings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A vendor.

    `env_names` are in order of preference: the first that holds a usable value makes the profile.
    `list_env_names` hold several keys at once, split on space, comma and semicolon; a name `<P>_API_KEY` also has
    siblings `<P>_API_KEY_<suffix>`.
    `headers` and `sdk_env` say by mode how a request carries the secret and which variable the vendor's SDK reads;
    a mode that is not listed is used like `api_key`. `sdk_env_also` are variables in which other SDKs read the same API key,
    `other_env` those in which further tools keep credentials of this vendor. The broker gives the first and reads neither.
    `key_prefixes` start every key of this vendor that is long enough to tell (used to recognise a key that belongs to
    another vendor); `token_prefixes` start OAuth access and setup tokens. `form` is what is known of the form of
    both; None where an operator's own server decides.
    A person logs in at `authorize_url` and comes back to `redirect_url` with a code (a loopback address, port 0 for any; or a
    page of the vendor that shows the code), or confirms a device login that begins at `device_url`.
    `api` is the form of a request to a model (`messages`, `openai`, `chat`, `gemini`), `probe_model` a small model to try a
    credential on; empty where none is known. `exchange` is there where the vendor trusts workloads' identities. `requests` are
    the rules of what may be asked through the gateway (`routing.request_rules`), paths as they come after `base_url`; a
    provider without a rule that allows something is not brokered.
    `websockets` are rules for those of the paths in `requests` on which a WebSocket may be opened.
    `accounts` are the headers (in lower case) in which a request names an account: one that the credential does not belong to
    is refused as if the credential were bad.
    `exclusive` names, by the prefix of a credential, the one client program from which the vendor takes such a credential;
    `clients` says by which headers of a request each of these programs is recognised.
    `forward_headers`, `query` and `subprotocols` are the names of headers, query parameters and WebSocket protocols that go on
    to the vendor, besides those that every provider may be sent (`routing.forwarding`).
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
        """The client program of that name, or with that command, where the vendor treats it differently from other programs;
        empty for all others."""
        return next((client for client, marks in self.clients.items() if name in (client, *marks.commands)), "")

    def only_client(self, secret: SecretValue | None) -> str:
        """The one client program from which the vendor takes this credential; empty: it takes it from any program."""
        if secret is None:
            return ""
        return next((client for prefix, client in self.exclusive.items() if secret.begins_with(prefix)), "")

    def client_of(self, headers: Mapping[str, str]) -> str:
        """The client program that a request comes from, by its headers (names in lower case); empty: not known."""
        return next((client for client, marks in self.clients.items() if marks.fit(headers)), "")

    @property
    def login(self) -> bool:
        """Whether a person can log in."""
        return bool(self.token_url and self.client_id and (self.authorize_url or self.device_url))

    @property
    def base_path(self) -> str:
        """The path of `base_url`, without a slash at its end: what comes before every path at the provider."""
        return urlsplit(self.base_url).path.rstrip("/")

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in the gateway's paths, the usual one first."""
        return tuple(dict.fromkeys((self.id, *(alias for alias in self.aliases if _SEGMENT.fullmatch(alias)))))

    @property
    def gateway_fault(self) -> str:
        """Why the gateway does not serve this provider, with what to do, for a person; empty: it does. Leases, the gateway's
        routes and the commands all ask this."""
        setting = f"providers.{self.id}"
        if not self.base_url:
            return f"provider {self.id!r} has no address: set {setting}.base_url"
        if allows_any(self.requests):
            return ""
        lacks = "only says what the gateway refuses" if self.requests else "does not say what the gateway lets through"
        return (
            f"{setting}.requests {lacks}: list it, for example"
            ' ["POST /v1/chat/completions", "GET /v1/models"], or ["* /**"] for everything'
        )

    def header_form(self, mode: Mode) -> HeaderForm:
        """How a request carries a credential of this mode."""
        return self.headers.get(mode) or self.headers.get(Mode.API_KEY) or BEARER

    def sdk_env_name(self, mode: Mode) -> str:
        """The variable in which the vendor's SDK expects a credential of this mode; empty where none is known."""
        return self.sdk_env.get(mode) or self.sdk_env.get(Mode.API_KEY) or ""

    def sdk_env_names(self, mode: Mode | None = None) -> tuple[str, ...]:
        """All variables in which SDKs expect a credential of this mode; without a mode, of any: a lease token may be in all."""
        modes = tuple(Mode) if mode is None else (mode,)
        also = self.sdk_env_also if mode in (None, Mode.API_KEY) else ()
        return tuple(dict.fromkeys(filter(None, (*map(self.sdk_env_name, modes), *also))))

    @property
    def address_env(self) -> str:
        """The variable for the gateway's address: the one that the vendor's SDK reads. Where none is known, one of the usual
        form, which a program has to read by itself."""
        first = next((env.name for env in self.env_names), "")
        stem = _END.sub("", first.upper()) or re.sub(r"[^A-Z0-9]+", "_", self.id.upper())
        return self.base_url_env or f"{stem}_BASE_URL"

    @property
    def speaks(self) -> str:
        """The provider whose SDKs can be pointed at this one: `openai`, `anthropic`, or empty."""
        return {"messages": "anthropic", "openai": "openai", "chat": "openai"}.get(self.api, "")


def allows_any(written: Iterable[str]) -> bool:
    """Whether a list of rules lets anything pass: it has one without `!`."""
    return any(not one.startswith("!") for one in written)


class Catalog:
    """All known providers, by id and by every other spelling."""

    __slots__ = ("_by_name", "providers")

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.providers = MappingProxyType(dict(providers))
        self._by_name = {name: p.id for p in providers.values() for name in (p.id, *p.aliases)}

    def normalise(self, name: str) -> str | None:
        """The provider's id for any spelling of it, or None."""
        return self._by_name.get(name) or self._by_name.get(name.strip().lower())

    def names(self) -> Iterable[str]:
        """Every spelling of every provider's id."""
        return self._by_name.keys()

    def get(self, name: str) -> Provider | None:
        """The provider for any spelling of its id, or None."""
        known = self.normalise(name)
        return self.providers[known] if known is not None else None
