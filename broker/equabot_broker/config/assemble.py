"""Makes the configuration from the document: defaults, full paths, and the rules between values.

Values that break a rule are added to the report of faults.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.config.document import AuditSection, ConfigDocument, GatewaySection
from equabot_broker.config.model import AuditOptions, Config, ConfiguredProfile, Listen, Models, SourceSpec
from equabot_broker.config.remote import IDENTITIES, remote, remote_addresses
from equabot_broker.config.vendors import Known
from equabot_broker.config.workloads import workloads
from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override, ValueLocation
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import AgentPolicy, Policies
from equabot_broker.domain.profiles import FOREIGN_LOGINS
from equabot_broker.domain.provider import Mode
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.identity.agent_socket import plan
from equabot_broker.schema.reading import FaultReport, under
from equabot_broker.schema.values import Address, shown
from equabot_broker.sources.declaration import DefaultPlaces, SourceKind
from equabot_broker.sources.registry import KINDS

_ANY: Final = "*"
_EVERY_INTERFACE: Final = ("0.0.0.0", "::")  # noqa: S104 - only compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Values from outside the file.

    `run_dir` is from a flag or a variable, and takes precedence over the file. `default_run_dir` is used if nothing sets the
    directory. `listen` are addresses from the environment, over which the file takes precedence. `directories` are those in
    variables of other tools, by variable. `workloads` are the identities that the environment describes, by provider and key.
    `kinds` are the kinds of sources, by name.
    """

    file: Path | None
    user_home: Path
    home: Path
    run_dir: Path | None
    default_run_dir: Path
    listen: Mapping[str, Address] = field(default_factory=lambda: MappingProxyType({}))
    directories: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    workloads: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    kinds: Mapping[str, SourceKind] = field(default_factory=lambda: KINDS)

    @property
    def places(self) -> DefaultPlaces:
        """The directories from which the default paths of sources are made."""
        return DefaultPlaces(home=self.home, user_home=self.user_home, directories=self.directories)

    def path(self, written: str) -> Path:
        """The absolute path. `~` is the user's home directory. A relative path starts in the directory of the file."""
        if written == "~" or written.startswith("~/"):
            return self.user_home / written[2:]
        return (self.file.parent if self.file else Path("/")) / written


def assemble(document: ConfigDocument, around: Surroundings, report: FaultReport) -> Config:
    """The configuration. It may be used only if the report has no faults."""
    known = Known(document.providers, report)
    leases = _leases(document.leases, report)
    run_dir = around.run_dir or (around.path(document.run_dir) if document.run_dir else around.default_run_dir)
    sources = _sources(document, around, report)
    policies = _policies(document, leases, known, report)
    listen = _listen(document, around, report)
    _refuse_sockets(run_dir, policies, listen, around, report)
    return Config(
        file=around.file,
        home=around.home,
        run_dir=run_dir,
        state_path=around.path(document.state_path) if document.state_path else run_dir / "state.db",
        listen=listen,
        remote=remote(document, around.path, report),
        policies=policies,
        required=_required(document, known, report),
        sources=sources,
        kinds=around.kinds,
        catalog=known.catalog,
        rules=_rules(document, around.kinds, sources, known, report),
        order=_order(document, known, report),
        cooldowns=_cooldowns(document, known, report),
        probe=document.auth.probe,
        leases=leases,
        expiry=document.expiry,
        audit=_audit(document.audit, around),
        gateway=_gateway(document.gateway, around),
        models=_models(document.models, known, report),
        profiles=_configured(document, known, report),
        profile_aliases=_aliases(document, known, report),
        workloads=workloads(document, known, report, full=around.path, environ=around.workloads),
        env=document.env.variables,
        shell_env=document.env.shell,
        seal_key_file=around.path(document.seal.key_file) if document.seal.key_file else None,
    )


def _leases(given: LeaseOptions, report: FaultReport) -> LeaseOptions:
    if given.default_ttl <= given.max_ttl:
        return given
    if not report.given("leases.default_ttl"):
        return replace(given, default_ttl=given.max_ttl)
    if report.sound("leases"):
        longest = shown(given.max_ttl)
        report.refuse("leases.default_ttl", f"is longer than leases.max_ttl ({longest}); reduce it, or raise leases.max_ttl")
    return given


def _policies(document: ConfigDocument, leases: LeaseOptions, known: Known, report: FaultReport) -> Policies:
    if document.agents is None:
        alone = AgentPolicy(providers=frozenset({_ANY}), max_ttl=leases.max_ttl)
        return Policies(agents=MappingProxyType({"main": alone}))
    if not document.agents and report.sound("agents"):
        report.refuse("agents", "has no agent, so it refuses every caller; add one, or remove the section to have `main`")
    return Policies(
        agents=MappingProxyType({name: _policy(name, given, leases, known, report) for name, given in document.agents.items()})
    )


def _policy(name: str, given: Mapping[str, Any], leases: LeaseOptions, known: Known, report: FaultReport) -> AgentPolicy:
    """The policy of an agent. Without `providers`, `main` may use all providers, and any other agent none."""
    path = under("agents", name)
    arguments = {"max_ttl": leases.max_ttl, **given}
    for place in ("socket", *IDENTITIES):
        arguments.pop(place, None)
    if arguments["max_ttl"] > leases.max_ttl and report.sound("leases"):
        longest = shown(leases.max_ttl)
        report.refuse(f"{path}.max_ttl", f"is longer than leases.max_ttl ({longest}); reduce it, or raise leases.max_ttl")
    providers = given.get("providers", (_ANY,) if name == "main" else ())
    arguments["providers"] = frozenset(
        p if p == _ANY else known.provider(p, at) for p, at in _located(providers, f"{path}.providers", report)
    )
    if "profiles" in given:
        arguments["profiles"] = frozenset(
            p if p == _ANY else known.profile(p, at) for p, at in _located(given["profiles"], f"{path}.profiles", report)
        )
    return AgentPolicy(**arguments)


def _located(values: tuple[Any, ...], path: str, report: FaultReport) -> Iterator[tuple[Any, str]]:
    """The values of a list with their paths. If the list has a fault, its values have the path of the list: the report
    left values out, so the numbers are not known."""
    exact = report.sound(path)
    for number, value in enumerate(values):
        yield value, f"{path}[{number}]" if exact else path


def _listen(document: ConfigDocument, around: Surroundings, report: FaultReport) -> Listen:
    given, usual = document.listen, Listen()
    addresses = {
        name: getattr(given, name) or around.listen.get(name) or getattr(usual, name)
        for name in ("health", "metrics", "gateway")
    }
    written = {name: address for name in addresses if (address := getattr(given, name))} | remote_addresses(given.agents)
    for (one, first), (other, second) in combinations((addresses | written).items(), 2):
        if _clash(first, second):
            later, earlier = (other, one) if other in written else (one, other)
            taken = second if later == one else first
            report.refuse(f"listen.{later}", f"has the port of listen.{earlier} ({taken}); choose another port")
    agents = {name: around.path(given["socket"]) for name, given in (document.agents or {}).items() if given.get("socket")}
    return Listen(
        **addresses,
        admin=around.path(given.admin) if given.admin else None,
        control=around.path(given.control) if given.control else None,
        agents=MappingProxyType(agents),
    )


def _clash(one: Address, other: Address) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    hosts = {"127.0.0.1" if address.host == "localhost" else address.host for address in (one, other)}
    return len(hosts) == 1 or not hosts.isdisjoint(_EVERY_INTERFACE)


def _refuse_sockets(run_dir: Path, policies: Policies, listen: Listen, around: Surroundings, report: FaultReport) -> None:
    """Reports paths that are too long for a socket or used twice, and directories in which an agent reaches another's
    socket."""
    planned = plan(run_dir, policies.agents, admin=listen.admin, control=listen.control, agent_paths=listen.agents)
    chosen = {f"{under('agents', name)}.socket": path for name, path in listen.agents.items()}
    chosen |= {"listen.admin": listen.admin or Path(), "listen.control": listen.control or Path()}
    for fault in planned.faults():
        path = next((key for key, path in chosen.items() if report.given(key) and str(path) in fault), "run_dir")
        if path == "run_dir" and (around.run_dir or not report.given("run_dir")):
            report.refuse_outside("run directory", fault)
        else:
            report.refuse(path, fault)


def _required(document: ConfigDocument, known: Known, report: FaultReport) -> tuple[str, ...]:
    found = (known.provider(p, at) for p, at in _located(document.required, "required", report))
    return tuple(dict.fromkeys(found))


def _sources(document: ConfigDocument, around: Surroundings, report: FaultReport) -> tuple[SourceSpec, ...]:
    if document.sources is None:
        return tuple(_source(kind, {}, around) for kind in around.kinds.values() if kind.usual)
    found: list[SourceSpec] = []
    names: set[tuple[str, str]] = set()
    for (name, options), path in _located(document.sources, "sources", report):
        spec = _source(around.kinds[name], options, around)
        shown = name, around.kinds[name].shown(spec.options)
        if spec in found:
            report.refuse(path, "is the same as a source above; keep one")
        elif shown in names:
            report.refuse(path, "has the name of a source above; set another `name`")
        names.add(shown)
        found.append(spec)
    return tuple(found)


def _source(kind: SourceKind, given: Mapping[str, Any], around: Surroundings) -> SourceSpec:
    return SourceSpec(kind.name, kind.options(given, around.places, around.path))


def _rules(
    document: ConfigDocument,
    kinds: Mapping[str, SourceKind],
    sources: tuple[SourceSpec, ...],
    known: Known,
    report: FaultReport,
) -> DiscoveryRules:
    used = {spec.kind for spec in sources}
    bindings: dict[ValueLocation, str] = {}
    overrides: dict[str, Override] = {}
    for written, given in document.profiles.items():
        path = under("profiles", ":".join(written))
        profile = known.profile(written, path)
        if profile in overrides:
            report.refuse(path, f"is another spelling of {profile}, which is listed above; keep one")
        overrides[profile] = Override(mode=given.mode, expires_at=given.expires_at)
        if given.origin is None:
            continue
        place = _place(*given.origin)
        if place.kind not in used and report.sound("sources"):
            report.refuse(f"{path}.from", f"there is no source of kind {place.kind}; add it to sources")
        if place in bindings:
            report.refuse(f"{path}.from", f"is already the value of {bindings[place]}; keep one of the two profiles")
        bindings[place] = profile
    # Whether a tool's login is refreshed is a rule about its profile, regardless of the source that has the login.
    ours = {kinds[name].login for name, options in document.sources or () if kinds[name].login and options.get("refresh")}
    return DiscoveryRules(known.catalog, MappingProxyType(bindings), MappingProxyType(overrides), FOREIGN_LOGINS - ours)


def _aliases(document: ConfigDocument, known: Known, report: FaultReport) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for (vendor, name), given in document.profiles.items():
        if given.alias in found:
            path = under("profiles", f"{vendor}:{name}")
            report.refuse(f"{path}.alias", f"is already the alias of {found[given.alias]}; choose another alias")
        elif given.alias:
            found[given.alias] = f"{known.catalog.normalise(vendor) or vendor}:{name}"
    return MappingProxyType(found)


def _place(kind: str, there: str | tuple[str, str]) -> ValueLocation:
    unit, key = ("", there) if isinstance(there, str) else there
    return ValueLocation(kind, unit, key)


def _order(document: ConfigDocument, known: Known, report: FaultReport) -> Mapping[str, tuple[str, ...]]:
    orders: dict[str, tuple[str, ...]] = {}
    for written, listed in document.auth.order.items():
        path = under("auth.order", written)
        provider = known.provider(written, path)
        if provider in orders:
            report.refuse(path, f"is another spelling of {provider}, which is listed above; keep one")
        for (owner, _), at in _located(listed, path, report):
            if known.catalog.normalise(owner) != provider:
                report.refuse(at, f"is not a profile of {provider}; move it to the order of its own provider")
        orders[provider] = tuple(dict.fromkeys(f"{provider}:{name}" for _, name in listed))
    return MappingProxyType(orders)


def _cooldowns(document: ConfigDocument, known: Known, report: FaultReport) -> CooldownOptions:
    given = document.auth.cooldowns
    path = "auth.cooldowns.billing_backoff_by_provider"
    if not report.given(path):
        path = "auth.cooldowns.billingBackoffHoursByProvider"
    backoffs = {known.provider(p, under(path, p)): wait for p, wait in given.billing_backoff_by_provider.items()}
    return replace(given, billing_backoff_by_provider=MappingProxyType(backoffs))


def _configured(document: ConfigDocument, known: Known, report: FaultReport) -> Mapping[str, ConfiguredProfile]:
    found: dict[str, ConfiguredProfile] = {}
    for written, given in document.auth.profiles.items():
        path = under("auth.profiles", ":".join(written))
        profile = known.profile(written, path)
        owner = profile.partition(":")[0]
        if given.provider and known.catalog.normalise(given.provider) != owner:
            report.refuse(f"{path}.provider", f"differs from the provider in the profile's id; write {owner}, or remove it")
        # OpenClaw once wrote `token` for Claude's login. That login may be a token or OAuth, and the broker refreshes it.
        migrated = profile == "anthropic:claude-cli" and given.mode is Mode.TOKEN
        found[profile] = replace(given, provider=owner, mode=Mode.OAUTH if migrated else given.mode)
    return MappingProxyType(found)


def _models(given: Models, known: Known, report: FaultReport) -> Models:
    named = [("models.default", given.default)] if given.default else []
    named += [(path, model) for model, path in _located(given.fallbacks, "models.fallbacks", report)]
    named += [(under("models.aliases", alias), model) for alias, model in given.aliases.items()]
    for path, model in named:
        known.provider(model.partition("/")[0], path)
    return given


def _audit(given: AuditSection, around: Surroundings) -> AuditOptions:
    return AuditOptions(
        path=None if given.path == "-" else around.path(given.path),
        anchor=around.path(given.anchor) if given.anchor else None,
        fail_closed=given.fail_closed,
    )


def _gateway(given: GatewaySection, around: Surroundings) -> GatewayOptions:
    usual = GatewayOptions()
    return GatewayOptions(
        mode=given.mode,
        url=given.url.rstrip("/"),
        # A name without a slash is looked up on PATH.
        envoy=str(around.path(given.envoy)) if "/" in given.envoy else given.envoy,
        ca_file=around.path(given.ca_file) if given.ca_file else usual.ca_file,
        idle_timeout=given.idle_timeout or usual.idle_timeout,
        scrub=given.scrub,
        memory=given.memory or usual.memory,
        max_connections=given.max_connections or usual.max_connections,
    )
