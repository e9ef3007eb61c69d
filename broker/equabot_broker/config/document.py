"""The document: the values in the file, before defaults and full paths. `keys` has the keys, `assemble` the rules between
values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.config.model import ConfiguredProfile, ExpiryOptions, Models, ShellEnv
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.schema import values

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensSection:
    """The listener for callers with a service-account token, and how tokens are checked."""

    address: values.Address
    audience: str = "equabot"
    validate: str = "token_review"
    kubeconfig: str = ""
    keys: str = ""
    issuer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatesSection:
    """The listener for callers with a client certificate, and the authority of these certificates."""

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
    """Addresses, and paths of the broker's own sockets. `agents` None: the agents' API is not served over TCP."""

    health: values.Address | None = None
    metrics: values.Address | None = None
    gateway: values.Address | None = None
    admin: str = ""
    control: str = ""
    agents: RemoteSection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSection:
    """One section of `profiles`. `origin` is the kind of the source and the place in it. `wif` has the fields of the workload
    identity, by key."""

    origin: tuple[str, Any] | None = None
    mode: Mode | None = None
    expires_at: float | None = None
    alias: str = ""
    wif: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSection:
    """The section `auth`. `profiles` are by provider and name as written, `order` by provider."""

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
    """The file with the keys that seal the profile stores. Empty: the stores are not sealed."""

    key_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSection:
    """Values for variables that the environment does not have, and whether a login shell is asked for more."""

    variables: Mapping[str, SecretValue] = field(default_factory=lambda: NOTHING)
    shell: ShellEnv = field(default_factory=ShellEnv)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDocument:
    """The whole file. `agents` and `sources` are None if the file does not have them. The values of an agent and of a provider
    are by argument of the class that is made from them."""

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
