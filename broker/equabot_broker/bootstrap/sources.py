"""The sources that a configuration wants: built, or taken over from an earlier configuration where nothing differs for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.bootstrap.stores import agent_stores
from equabot_broker.config.model import Config, SourceSpec
from equabot_broker.domain.policies import MAIN
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.ports import Source
from equabot_broker.sources.declaration import SourceContext
from equabot_broker.sources.workload import Workloads
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint

_EXCHANGE_WITHIN: Final = 10.0
"""Seconds for the exchange of a workload's identity: not long, for it may be tried again at any time."""
_Made = tuple[Source, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources in order of precedence, the names of those that come last in a choice, and the workloads' identities. `made`
    is each source that the configuration lists, with all that it was made of."""

    all: tuple[Source, ...]
    tail: frozenset[str]
    identities: Workloads
    made: tuple[_Made, ...]


def build_sources(config: Config, clock: SystemClock, before: Sources | None = None) -> Sources:
    """Builds them; nothing is read yet. A source of `before` stays, with what it has read, where it is made of the same."""
    context = _context(config, clock)
    made = tuple(_made(spec, config, context, before) for spec in config.sources)
    identities = Workloads(
        config.workloads,
        catalog=config.catalog,
        clock=clock,
        endpoint=HttpTokenEndpoint(within=_EXCHANGE_WITHIN),
        before=None if before is None else before.identities,
    )
    if before is not None and identities.made_of == before.identities.made_of:
        identities = before.identities
    sources = tuple(source for source, _ in made)
    tail = frozenset(
        source.name for spec, (source, _) in zip(config.sources, made, strict=True) if config.kinds[spec.kind].last
    )
    return Sources((identities, *sources) if config.workloads else sources, tail, identities, made)


def _made(spec: SourceSpec, config: Config, context: SourceContext, before: Sources | None) -> _Made:
    of = _made_of(spec, config, context)
    for source, was in () if before is None else before.made:
        if was == of:
            return source, was
    return config.kinds[spec.kind].build(spec.options, context), of


def _made_of(spec: SourceSpec, config: Config, context: SourceContext) -> tuple[Any, ...]:
    """All that decides what such a source says."""
    rules = config.rules
    of_rules = (dict(rules.catalog.providers), dict(rules.bindings), dict(rules.overrides), rules.foreign_logins)
    return spec.kind, dict(spec.options), of_rules, config.kinds[spec.kind].made_of(context)


def _context(config: Config, clock: SystemClock) -> SourceContext:
    stores = agent_stores(config, clock)
    agents: Mapping[str, None] = MappingProxyType(dict.fromkeys((MAIN, *config.policies.agents)))
    return SourceContext(
        rules=config.rules,
        clock=clock,
        stores={agent: stores.of(agent) for agent in agents},
        variables=config.env,
        shell_within=config.shell_env.timeout if config.shell_env.enabled else None,
    )
