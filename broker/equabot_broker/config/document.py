"""The configuration as it is written: one table a section, and the values that the file gives.

What the tables do not list is refused. Rules that hold between values are in `assemble`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

from equabot_broker.config import values
from equabot_broker.config.model import ConfiguredProfile, ExpiryOptions, Models, ShellEnv
from equabot_broker.config.reading import ConfigNode, FaultReport, Many, Named, OneOf, Section, Text, under
from equabot_broker.config.tree import NotYaml, parse
from equabot_broker.config.vendors import EXCHANGE_FIELDS, TOKEN_TYPES
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.provider import HeaderForm, Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.formats.tool_logins import TOOLS

T = TypeVar("T")
NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensSection:
    """Where and how tokens of service accounts are taken."""

    address: values.Address
    audience: str = "equabot"
    validate: str = "token_review"
    kubeconfig: str = ""
    keys: str = ""
    issuer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatesSection:
    """Where and of which authority certificates are taken."""

    address: values.Address
    ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSection:
    """The agents' API over TCP."""

    certificate: str
    key: str
    service_accounts: TokensSection | None = None
    client_certificates: CertificatesSection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSection:
    """Addresses and, for the broker's own sockets, paths. `agents` None: not over TCP."""

    health: values.Address | None = None
    metrics: values.Address | None = None
    gateway: values.Address | None = None
    admin: str = ""
    control: str = ""
    agents: RemoteSection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSection:
    """What the operator says of a profile. `origin` is the kind of its source and the place there; `wif` what a workload's
    identity needs, by key."""

    origin: tuple[str, Any] | None = None
    mode: Mode | None = None
    expires_at: float | None = None
    alias: str = ""
    wif: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSection:
    """`profiles` by (provider, name) as written, `order` by provider."""

    order: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=lambda: NOTHING)
    cooldowns: CooldownOptions = field(default_factory=CooldownOptions)
    probe: bool = True
    profiles: Mapping[tuple[str, str], ConfiguredProfile] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSection:
    """`path` is `-` for standard output."""

    path: str = "-"
    anchor: str = ""
    fail_closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySection:
    """As `GatewayOptions`, with a path as it was written; None where nothing was."""

    mode: GatewayMode = GatewayMode.OFF
    url: str = ""
    envoy: str = "envoy"
    ca_file: str = ""
    idle_timeout: float | None = None
    scrub: bool = False
    memory: int | None = None
    max_connections: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealSection:
    """How the profile stores are sealed; with nothing said, not at all."""

    key_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSection:
    """Variables that stand in for the environment's, and whether a login shell is asked for more."""

    variables: Mapping[str, SecretValue] = field(default_factory=lambda: NOTHING)
    shell: ShellEnv = field(default_factory=ShellEnv)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDocument:
    """The whole file. `agents` and `sources` are None where it says nothing of them; an agent's and a provider's values are
    by argument of the class that they make."""

    run_dir: str = ""
    state_path: str = ""
    listen: ListenSection = field(default_factory=ListenSection)
    agents: Mapping[str, dict[str, Any]] | None = None
    required: tuple[str, ...] = ()
    sources: tuple[tuple[str, Mapping[str, Any]], ...] | None = None
    profiles: Mapping[tuple[str, str], ProfileSection] = field(default_factory=lambda: NOTHING)
    auth: AuthSection = field(default_factory=AuthSection)
    providers: Mapping[str, dict[str, Any]] = field(default_factory=lambda: NOTHING)
    models: Models = field(default_factory=Models)
    leases: LeaseOptions = field(default_factory=LeaseOptions)
    expiry: ExpiryOptions = field(default_factory=ExpiryOptions)
    audit: AuditSection = field(default_factory=AuditSection)
    gateway: GatewaySection = field(default_factory=GatewaySection)
    env: EnvSection = field(default_factory=EnvSection)
    seal: SealSection = field(default_factory=SealSection)


def read(text: str, report: FaultReport) -> ConfigDocument:
    """The document in the text; what is wrong with it goes to the report, and the rest is read all the same."""
    try:
        place = ConfigNode(parse(text), "", report)
    except NotYaml as unreadable:
        report.refuse("", str(unreadable), line=unreadable.line)
        return ConfigDocument()
    with place.refusing():
        return DOCUMENT(place)
    return ConfigDocument()


def _wild(parse: Callable[[str], T]) -> Callable[[str], T | str]:
    """`*`, or what else it may be."""
    return lambda written: written if written == "*" else parse(written)


def _env(place: ConfigNode) -> EnvSection:
    """The seed's `env` section: variables as keys or under `vars`, beside `shellEnv`."""
    given: dict[str, Any] = {"variables": NOTHING}
    variables: dict[str, SecretValue] = {}
    for key, child in place.pairs():
        with child.refusing():
            if key in _ENV.keys:
                argument, reader = _ENV.keys[key]
                given[argument] = reader(child)
            else:
                variables[values.variable(key)] = SecretValue(child.text())
    for name in sorted(variables.keys() & given["variables"].keys()):
        place.report.refuse(under(place.path, name), "is under vars as well; keep one")
    return EnvSection(**{**given, "variables": MappingProxyType({**given["variables"], **variables})})


def _header_form(*, name: str = "Authorization", prefix: str | None = None, extra: Mapping[str, str] = NOTHING) -> HeaderForm:
    """`Bearer ` belongs to `Authorization` alone, unless another prefix is given."""
    usual = "Bearer " if name.lower() == "authorization" else ""
    return HeaderForm(name, usual if prefix is None else prefix, extra)


_TEXT: Final = Text(values.text)
_PATH: Final = Text(values.path)
_SOCKET: Final = Text(values.socket)
_URL: Final = Text(values.url)
_DURATION: Final = Text(values.duration)
_ADDRESS: Final = Text(values.address)
_MODEL: Final = Text(values.model)
_VARIABLE: Final = Text(values.variable)
_KUBE_NAME: Final = Text(values.kube_name)
_HOURS: Final = Text(values.hours)
_MODE: Final = Text(partial(values.one_of, Mode))

_REMOTE: Final = Section(
    RemoteSection,
    {
        "certificate": _PATH,
        "key": _PATH,
        "service_accounts": Section(
            TokensSection,
            {
                "address": _ADDRESS,
                "audience": _TEXT,
                "validate": Text(partial(values.word, ("token_review", "published_keys"))),
                "kubeconfig": _PATH,
                "keys": _PATH,
                "issuer": _TEXT,
            },
            needs=("address",),
        ),
        "client_certificates": Section(CertificatesSection, {"address": _ADDRESS, "ca": _PATH}, needs=("address", "ca")),
    },
    needs=("certificate", "key"),
)
_LISTEN: Final = Section(
    ListenSection,
    {
        "health": _ADDRESS,
        "metrics": _ADDRESS,
        "gateway": _ADDRESS,
        "admin": _SOCKET,
        "control": _SOCKET,
        "agents": _REMOTE,
    },
)
_AGENT: Final = Section(
    dict[str, Any],
    {
        "providers": Many(Text(_wild(values.provider))),
        "profiles": Many(Text(_wild(values.profile))),
        "deliveries": Many(Text(partial(values.one_of, Delivery)), some=True),
        "max_ttl": _DURATION,
        "max_leases": Text(values.count),
        "rate": Text(values.rate),
        "burst": Text(values.count),
        "requests": Many(Text(values.request), some=True),
        "max_requests": Text(values.count),
        "socket": _SOCKET,
        "service_accounts": Many(Text(values.service_account), some=True),
        "certificates": Many(_TEXT, some=True),
    },
)
_SOURCE: Final = OneOf(
    {
        "env": Section(dict[str, Any], {}),
        "dotenv": Section(dict[str, Any], {"path": _PATH}),
        "mounted": Section(dict[str, Any], {"path": _PATH}),
        "profile_store": Section(dict[str, Any], {}),
        **{tool: Section(dict[str, Any], {"path": _PATH, "refresh": Text(values.boolean)}) for tool in TOOLS},
        "kubernetes": Section(
            dict[str, Any],
            {
                "selector": _TEXT,
                "namespace": _KUBE_NAME,
                "names": Many(_KUBE_NAME, some=True),
                "kubeconfig": _PATH,
            },
        ),
    }
)
_FROM: Final = OneOf(
    {
        "env": _VARIABLE,
        "dotenv": _VARIABLE,
        "mounted": Section(dict[str, Any], {"dir": _TEXT, "key": _TEXT}, needs=("key",)),
        "kubernetes": Section(dict[str, Any], {"secret": _KUBE_NAME, "key": _TEXT}, needs=("secret", "key")),
    }
)
_WIF: Final = Section(
    dict[str, str],
    {
        "token_file": _PATH,
        "subject_token_type": Text(partial(values.word, TOKEN_TYPES)),
        **dict.fromkeys(EXCHANGE_FIELDS, Text(values.identifier)),
    },
    needs=("token_file",),
)
_PROFILE: Final = Section(
    ProfileSection,
    {"from": ("origin", _FROM), "mode": _MODE, "expires_at": Text(values.instant), "alias": _TEXT, "wif": _WIF},
)
_COOLDOWNS: Final = Section(
    CooldownOptions,
    {
        "billing_backoff": _DURATION,
        "billing_backoff_by_provider": Named(values.provider, _DURATION),
        "billing_max": _DURATION,
        "failure_window": _DURATION,
        "retry_after_max": _DURATION,
        "billingBackoffHours": ("billing_backoff", _HOURS),
        "billingBackoffHoursByProvider": ("billing_backoff_by_provider", Named(values.provider, _HOURS)),
        "billingMaxHours": ("billing_max", _HOURS),
        "failureWindowHours": ("failure_window", _HOURS),
    },
)
_AUTH: Final = Section(
    AuthSection,
    {
        "order": Named(values.provider, Many(Text(values.profile), some=True)),
        "cooldowns": _COOLDOWNS,
        "probe": Text(values.boolean),
        "profiles": Named(
            values.profile,
            Section(ConfiguredProfile, {"provider": Text(values.provider), "mode": _MODE, "email": _TEXT}),
        ),
    },
)
_PROVIDER: Final = Section(
    dict[str, Any],
    {
        "base_url": _URL,
        "base_url_env": _VARIABLE,
        "token_url": _URL,
        "token_encoding": Text(partial(values.word, ("json", "form"))),
        "client_id": _TEXT,
        "authorize_url": _URL,
        "device_url": _URL,
        "redirect_url": _URL,
        "scopes": Many(_TEXT),
        "api": Text(partial(values.word, ("messages", "openai", "chat", "gemini"))),
        "probe_model": _TEXT,
        "aliases": Many(Text(values.provider)),
        "env": ("env_names", Named(values.variable, _MODE)),
        "env_lists": ("list_env_names", Many(_VARIABLE)),
        "headers": Named(
            partial(values.one_of, Mode),
            Section(
                _header_form,
                {
                    "name": Text(values.header),
                    "prefix": Text(values.affix),
                    "extra": Named(values.header, _TEXT),
                },
            ),
        ),
        "sdk_env": Named(partial(values.one_of, Mode), _VARIABLE),
        "key_prefixes": Many(_TEXT),
        "token_prefixes": Many(_TEXT),
        "requests": Many(Text(values.request)),
        "websockets": Many(Text(values.websocket)),
        "forward_headers": Many(Text(values.listed_name)),
        "query": Many(Text(values.listed_name)),
        "subprotocols": Many(Text(values.header)),
    },
)
_ENV: Final = Section(
    dict[str, Any],
    {
        "vars": ("variables", Named(values.variable, Text(SecretValue))),
        "shellEnv": (
            "shell",
            Section(
                ShellEnv,
                {
                    "enabled": Text(values.boolean),
                    "timeout": _DURATION,
                    "timeoutMs": ("timeout", Text(values.milliseconds)),
                },
            ),
        ),
    },
)
DOCUMENT: Final = Section(
    ConfigDocument,
    {
        "run_dir": _PATH,
        "state_path": _PATH,
        "listen": _LISTEN,
        "agents": Named(values.agent, _AGENT),
        "required": Many(Text(values.provider)),
        "sources": Many(_SOURCE, some=True),
        "profiles": Named(values.profile, _PROFILE),
        "auth": _AUTH,
        "providers": Named(values.provider, _PROVIDER),
        "models": Section(
            Models,
            {"default": _MODEL, "fallbacks": Many(_MODEL), "aliases": Named(values.text, _MODEL)},
        ),
        "leases": Section(LeaseOptions, {"default_ttl": _DURATION, "max_ttl": _DURATION}),
        "expiry": Section(ExpiryOptions, {"warn_within": Text(values.span), "stale_budget": Text(values.span)}),
        "audit": Section(AuditSection, {"path": _PATH, "anchor": _PATH, "fail_closed": Text(values.boolean)}),
        "gateway": Section(
            GatewaySection,
            {
                "mode": Text(partial(values.one_of, GatewayMode)),
                "url": _URL,
                "envoy": _PATH,
                "ca_file": _PATH,
                "idle_timeout": _DURATION,
                "scrub": Text(values.boolean),
                "memory": Text(values.memory),
                "max_connections": Text(values.count),
            },
        ),
        "env": _env,
        "seal": Section(SealSection, {"key_file": _PATH}, needs=("key_file",)),
    },
)
"""Every key there is."""
