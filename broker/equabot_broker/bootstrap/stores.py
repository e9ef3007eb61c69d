"""The stores of logins: built, kept equal with other tools' files, moved from older ones."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from secrets import token_hex
from socket import gethostname

from equabot_broker.config.model import Config, SourceSpec
from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.errors import CannotStart
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import Profile
from equabot_broker.engine.refresh.redemption import Redemption
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.tool_logins import CLAUDE, TOOLS, Tool
from equabot_broker.kube.api import KubeApi
from equabot_broker.ports import Clock, StoreFault
from equabot_broker.sources.kubernetes import kubernetes_options
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.login_places import LoginPlaces
from equabot_broker.storage.login_sync import forget_copy, sync_login
from equabot_broker.storage.migrations import Migration, migrate
from equabot_broker.storage.sealing import Seal
from equabot_broker.storage.secret_store import SecretStores
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint

_log = logging.getLogger("equabot.stores")


def agent_stores(config: Config, clock: Clock | None = None) -> AgentStores:
    """The agents' profile stores, sealed where the configuration says so. Nothing is read yet."""
    return AgentStores(config.home, clock=clock or SystemClock(), seal=_seal(config))


def prepare_seal(config: Config) -> None:
    """Seals the stores that are not sealed as they should be. What is wrong with a store, its source reports. Blocking. Raises
    CannotStart where others can read or change the key."""
    seal = _seal(config)
    if seal is None:
        return
    try:
        seal.check()
    except StoreFault as fault:
        raise CannotStart(f"seal.key_file: {fault}") from None
    if unusable := seal_fault(config):
        _log.error("seal.key_file: %s; until then no sealed store is read, and none is written", unusable)
    stores = agent_stores(config)
    for agent in dict.fromkeys((MAIN, *config.policies.agents)):
        store = stores.of(agent)
        if os.path.exists(store.path):  # noqa: PTH110  (which raises nothing for a closed directory)
            with suppress(StoreFault):
                store.edit(lambda document: document)


def seal_fault(config: Config) -> str:
    """Why the stores cannot be sealed or read with the configured key, and what to do. Empty: they can, or are not sealed."""
    seal = _seal(config)
    if seal is None:
        return ""
    try:
        seal.keys()
    except StoreFault as fault:
        return str(fault)
    return ""


def _seal(config: Config) -> Seal | None:
    return None if config.seal_key_file is None else Seal(config.seal_key_file, record=config.home / "seals.json")


def login_places(config: Config, stores: AgentStores, clock: Clock) -> LoginPlaces:
    """Where logins are refreshed: in the agents' stores, and in the Secrets of each source of that kind. To be closed."""
    return LoginPlaces(stores, secret_stores(config, clock))


def secret_stores(config: Config, clock: Clock, *, lacking: Callable[[str], bool] = lambda _: True) -> dict[str, SecretStores]:
    """The Secrets of each source of that kind, of those sources that are `lacking`. To be closed."""
    chosen = [kubernetes_options(spec.options) for spec in config.sources if spec.kind == "kubernetes"]
    holder = f"{gethostname()}_{token_hex(8)}"
    return {
        options.shown: SecretStores(
            KubeApi(kubeconfig=options.kubeconfig), namespace=options.namespace, clock=clock, holder=holder
        )
        for options in chosen
        if lacking(options.shown)
    }


def mirrors(config: Config, clock: Clock) -> dict[str, Callable[[], bool]]:
    """How the logins of tools are kept equal in the tool's file and the store of `main`: a login that is gone from the file
    goes from the store, and one that the broker is to refresh is in both."""
    store = agent_stores(config, clock).of(MAIN)
    return {
        TOOLS[spec.kind].profile_id: partial(_even, TOOLS[spec.kind], spec, store, rules=config.rules, clock=clock)
        for spec in config.sources
        if spec.kind in TOOLS
    }


def _even(tool: Tool, spec: SourceSpec, store: AuthProfiles, *, rules: DiscoveryRules, clock: Clock) -> bool:
    file, source = spec.options["path"], source_name(spec)
    if forget_copy(tool, file, source, store, rules=rules):
        return True
    ours = tool.profile_id not in rules.foreign_logins
    return ours and sync_login(tool, file, source, store, rules=rules, clock=clock)


def source_name(spec: SourceSpec) -> str:
    """What the source of a tool's login is called."""
    return f"{spec.kind} {spec.options['path']}"


def sync_claude_login(config: Config) -> bool:
    """Copies the login of Claude's program into the store of `main`, where it is newer, and returns whether it was. Copies
    nothing if its file is not a source. Raises StoreFault."""
    store, clock = agent_stores(config).of(MAIN), SystemClock()
    return any(
        sync_login(CLAUDE, spec.options["path"], source_name(spec), store, rules=config.rules, clock=clock)
        for spec in config.sources
        if spec.kind == "claude_cli"
    )


def forget_copies(config: Config) -> list[str]:
    """Removes from the store of `main` each copy of a tool's login that is gone, and returns their ids. Raises StoreFault."""
    store = agent_stores(config).of(MAIN)
    tools = [spec for spec in config.sources if spec.kind in TOOLS]
    return [
        TOOLS[spec.kind].profile_id
        for spec in tools
        if forget_copy(TOOLS[spec.kind], spec.options["path"], source_name(spec), store, rules=config.rules)
    ]


async def refresh_login(config: Config, agent: str, profile: Profile) -> tuple[bool, str]:
    """Refreshes a login of an agent ("": the shared one) as a running broker would. Returns whether it failed, and what became
    of it. Raises StoreFault."""
    clock = SystemClock()
    stores = login_places(config, agent_stores(config, clock), clock)
    redemption = Redemption(clock=clock, stores=stores, endpoint=HttpTokenEndpoint(), rules=config.rules)
    try:
        outcome = await redemption.redeem(replace(profile, agent=agent))
    finally:
        await stores.close()
    return outcome.failure is not None, outcome.failure.reason if outcome.failure else outcome.kind.value


def migrate_stores(config: Config) -> list[Migration]:
    """Moves the credentials of older files into the profile stores, each once, and returns what became of each. Blocking."""
    return migrate(agent_stores(config), config.home, catalog=config.catalog)
