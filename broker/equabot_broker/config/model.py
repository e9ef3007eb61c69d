"""The checked configuration, with the options of every package. Durations are in seconds, instants in seconds since 1970."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.callers import Callers
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import Policies
from equabot_broker.domain.provider import Catalog, Mode
from equabot_broker.domain.remedies import LABEL, Places
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.oauth.workload import Workload
from equabot_broker.schema.values import Address
from equabot_broker.sources.declaration import SourceKind
from equabot_broker.sources.registry import KINDS

_HEALTH: Final = Address("127.0.0.1", 8686)
_METRICS: Final = Address("127.0.0.1", 9464)
_GATEWAY: Final = Address("127.0.0.1", 8787)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """TCP addresses, and the Unix sockets with a path of their own.

    `admin` and `control` are None for `<run_dir>/admin/broker.sock` and `<run_dir>/gateway/control.sock`. `agents` has the
    sockets that are not `<run_dir>/<agent>/broker.sock`.
    """

    health: Address = _HEALTH
    metrics: Address = _METRICS
    gateway: Address = _GATEWAY
    admin: Path | None = None
    control: Path | None = None
    agents: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenListener:
    """The listener for callers with a service-account token for `audience`.

    The API server checks the tokens. With `published`, the broker checks their signature with the keys that the API server
    publishes, or with those in the file `keys`. `kubeconfig` None: the pod's own service account. `issuer` empty: the issuer
    that the API server names.
    """

    address: Address
    audience: str = "equabot"
    published: bool = False
    kubeconfig: Path | None = None
    keys: Path | None = None
    issuer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateListener:
    """The listener for callers with a certificate that the authority in the file `ca` has signed."""

    address: Address
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The agents' API over TCP, with the broker's certificate and key (PEM files). `callers` maps its callers to agents."""

    certificate: Path
    key: Path
    service_accounts: TokenListener | None = None
    client_certificates: CertificateListener | None = None
    callers: Callers = field(default_factory=Callers)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source to build: the name of its kind, and its options with absolute paths."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryOptions:
    """`warn_within`: how long before its end a credential is `expiring`. `stale_budget`: how long the last good values of an
    unavailable source are served. Both are in seconds."""

    warn_within: float = 24 * 3600.0
    stale_budget: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """`path` None: standard output. `anchor` None: next to the state. `fail_closed`: the broker grants nothing while the log
    cannot be written or does not match its anchor."""

    path: Path | None = None
    anchor: Path | None = None
    fail_closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The models in use, as `provider/model`. `aliases` are by short name."""

    default: str = ""
    fallbacks: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredProfile:
    """One section of `auth.profiles`."""

    provider: str = ""
    mode: Mode | None = None
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellEnv:
    """Whether a login shell is asked for missing variables, and how long it may take (seconds)."""

    enabled: bool = False
    timeout: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a broker. `file` is the file that was read, None if there is no file.

    `order` is by provider id, and a profile that is not in it is not used. `required` has provider ids. `profiles` are by
    profile id, and `profile_aliases` has profile ids by alias. `kinds` are the kinds of sources, by name. `workloads` are the
    identities that are exchanged. `seal_key_file` has the keys that seal the profile stores; None: the stores are not sealed.
    `revision` is the SHA-256 of the file's content in hexadecimal, to compare with later content; empty without a file.
    """

    file: Path | None
    home: Path
    run_dir: Path
    state_path: Path
    listen: Listen = field(default_factory=Listen)
    remote: Remote | None = None
    policies: Policies = field(default_factory=Policies)
    required: tuple[str, ...] = ()
    sources: tuple[SourceSpec, ...] = ()
    kinds: Mapping[str, SourceKind] = field(default_factory=lambda: KINDS)
    catalog: Catalog
    rules: DiscoveryRules
    order: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    cooldowns: CooldownOptions = field(default_factory=CooldownOptions)
    probe: bool = True
    leases: LeaseOptions = field(default_factory=LeaseOptions)
    expiry: ExpiryOptions = field(default_factory=ExpiryOptions)
    audit: AuditOptions = field(default_factory=AuditOptions)
    gateway: GatewayOptions = field(default_factory=GatewayOptions)
    models: Models = field(default_factory=Models)
    profiles: Mapping[str, ConfiguredProfile] = field(default_factory=lambda: MappingProxyType({}))
    profile_aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    workloads: tuple[Workload, ...] = ()
    env: Mapping[str, SecretValue] = field(default_factory=lambda: MappingProxyType({}))
    shell_env: ShellEnv = field(default_factory=ShellEnv)
    seal_key_file: Path | None = None
    revision: str = ""

    @property
    def anchor_path(self) -> Path:
        """The file of the audit log's anchor."""
        return self.audit.anchor or self.state_path.with_name("audit.head")

    @property
    def places(self) -> Places:
        """The places of credentials, as a remedy names them."""
        dotenv = next((str(spec.options["path"]) for spec in self.sources if spec.kind == "dotenv"), ".env")
        mounted = tuple(str(spec.options["path"]) for spec in self.sources if spec.kind == "mounted")
        cluster = [spec.options for spec in self.sources if spec.kind == "kubernetes"]
        names = tuple(name for options in cluster for name in options.get("names", ()))
        chosen = (options.get("selector") or ("" if options.get("names") else LABEL) for options in cluster)
        kinds = tuple(spec.kind for spec in self.sources)
        return Places(kinds, dotenv, mounted, names, tuple(filter(None, chosen)))
