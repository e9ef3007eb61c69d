"""The configuration: the sum of the rooms' options, checked and ready. Durations are in seconds, instants since the epoch."""

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
    """TCP addresses, and the Unix sockets that do not lie where they would by default.

    `admin` and `control` are None for `<run_dir>/admin/broker.sock` and `<run_dir>/gateway/control.sock`; `agents` holds
    those that are not `<run_dir>/<agent>/broker.sock`.
    """

    health: Address = _HEALTH
    metrics: Address = _METRICS
    gateway: Address = _GATEWAY
    admin: Path | None = None
    control: Path | None = None
    agents: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenListener:
    """Where callers show tokens of service accounts for `audience`. Those are checked by the API server, unless `published`:
    then against the keys that it publishes, or those in the file `keys`. `kubeconfig` None: the pod's own service account;
    `issuer` empty: the one that the API server names."""

    address: Address
    audience: str = "equabot"
    published: bool = False
    kubeconfig: Path | None = None
    keys: Path | None = None
    issuer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateListener:
    """Where callers show certificates that the authority in the file `ca` has signed."""

    address: Address
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The agents' API over TCP, with the broker's own certificate and key (PEM files); and which agents its callers are."""

    certificate: Path
    key: Path
    service_accounts: TokenListener | None = None
    client_certificates: CertificateListener | None = None
    callers: Callers = field(default_factory=Callers)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source to build: its kind in the registry, and its options there, paths in full."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryOptions:
    """How long before its end a credential is `expiring`, and how long the last good values of a source that is down are
    served."""

    warn_within: float = 24 * 3600.0
    stale_budget: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """Where the audit log goes, None being standard output; where its anchor is, None being next to the state; and whether
    nothing is granted while it cannot be written, or is in doubt."""

    path: Path | None = None
    anchor: Path | None = None
    fail_closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Which models are in use, as `provider/model`; `aliases` by short name."""

    default: str = ""
    fallbacks: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredProfile:
    """What `auth.profiles` says of a profile."""

    provider: str = ""
    mode: Mode | None = None
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellEnv:
    """Whether a login shell is asked for variables that are missing, and for how long (seconds)."""

    enabled: bool = False
    timeout: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a broker needs to know. `file` is what was read, None when there was nothing to read.

    `order` is by provider id and exclusive; `required` holds provider ids; `profiles` are by profile id, `profile_aliases`
    profile ids by alias. `kinds` are the kinds of sources, by name. `workloads` are the identities that are exchanged.
    `seal_key_file` has the keys that seal the profile stores; None: they are not sealed. `revision` is the SHA-256 of what was
    read, in hexadecimal, to compare with what the file holds later; empty without a file.
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
        """Where the audit log's anchor is."""
        return self.audit.anchor or self.state_path.with_name("audit.head")

    @property
    def places(self) -> Places:
        """Where credentials come from, as a remedy names it."""
        dotenv = next((str(spec.options["path"]) for spec in self.sources if spec.kind == "dotenv"), ".env")
        mounted = tuple(str(spec.options["path"]) for spec in self.sources if spec.kind == "mounted")
        cluster = [spec.options for spec in self.sources if spec.kind == "kubernetes"]
        names = tuple(name for options in cluster for name in options.get("names", ()))
        chosen = (options.get("selector") or ("" if options.get("names") else LABEL) for options in cluster)
        kinds = tuple(spec.kind for spec in self.sources)
        return Places(kinds, dotenv, mounted, names, tuple(filter(None, chosen)))
