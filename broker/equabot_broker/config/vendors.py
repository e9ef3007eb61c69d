"""The built-in facts about providers, with what the configuration changes and adds."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from equabot_broker.domain.known_names import meant
from equabot_broker.domain.provider import Catalog, EnvName, Mode, Provider
from equabot_broker.providers import BUILT_IN, PROVIDERS, list_names
from equabot_broker.routing.forwarding import header_fault, query_fault
from equabot_broker.routing.request_rules import prefixed
from equabot_broker.schema.faults import quote
from equabot_broker.schema.reading import FaultReport, under

_EXCHANGES: Final = tuple(provider.exchange for provider in PROVIDERS.values() if provider.exchange)
EXCHANGE_FIELDS: Final = tuple(dict.fromkeys(name for known in _EXCHANGES for name in (*known.needs, *known.takes)))
"""The fields that vendors want with a workload's identity."""
TOKEN_TYPES: Final = tuple(dict.fromkeys(kind for known in _EXCHANGES for kind in known.token_types))
"""Kinds of identity tokens."""


class Known:
    """The providers that there are, and the ids of their profiles. What it does not know goes to the report."""

    def __init__(self, sections: Mapping[str, Mapping[str, Any]], report: FaultReport) -> None:
        self._report = report
        self.catalog = _merge(sections, report)

    def provider(self, written: str, path: str) -> str:
        """The id of a provider in any spelling; what was written when there is none of that name."""
        known = self.catalog.normalise(written)
        if known is None:
            hint = meant(written, self.catalog.providers)
            self._report.refuse(path, f"no provider {quote(written)} is known{hint or '; describe it under providers'}")
        return known or written

    def profile(self, written: tuple[str, str], path: str) -> str:
        """A profile's id, under its provider's own name."""
        return f"{self.provider(written[0], path)}:{written[1]}"


def _merge(sections: Mapping[str, Mapping[str, Any]], report: FaultReport) -> Catalog:
    merged = dict(PROVIDERS)
    changed: dict[str, str] = {}
    for written, given in sections.items():
        path = under("providers", written)
        known = BUILT_IN.normalise(written) or written
        if known in changed:
            report.refuse(path, f"is another spelling of {known}, which is above; keep one")
            continue
        changed[known] = path
        merged[known] = _provider(merged.get(known) or Provider(id=known), given)
        _refuse_forwarded(merged[known], given, path, report)
    _refuse_shared(merged, changed, report)
    return Catalog(merged)


def _provider(known: Provider, given: Mapping[str, Any]) -> Provider:
    """What is given replaces what was known; headers and SDK variables by mode. Names of what may be sent are added to those
    that were known. A token endpoint is also the one that exchanges identities."""
    told = dict(given)
    if "env_names" in given:
        names = tuple(EnvName(name, mode) for name, mode in given["env_names"].items())
        told["env_names"] = names
        told.setdefault("list_env_names", list_names(names))
        if not known.sdk_env:
            told.setdefault("sdk_env", {env.mode: env.name for env in reversed(names)})
    for by_mode in ("headers", "sdk_env"):
        if by_mode in told:
            before: Mapping[Mode, Any] = getattr(known, by_mode)
            told[by_mode] = MappingProxyType({**before, **told[by_mode]})
    if "base_url" in given:
        for rules in ("requests", "websockets"):
            told.setdefault(rules, _rules_at(given["base_url"], known, getattr(known, rules)))
        told["form"] = None  # a server of the operator's own takes whatever its owner chose
    for added in ("forward_headers", "query", "subprotocols"):
        told[added] = (*getattr(known, added), *given.get(added, ()))
    if known.exchange is not None and "token_url" in given:
        told["exchange"] = replace(known.exchange, url=given["token_url"])
    return replace(known, **told)


def _rules_at(base_url: str, known: Provider, written: tuple[str, ...]) -> tuple[str, ...]:
    """The provider's rules at another address. Where that has not the base path of the vendor's own, clients may say it."""
    same = urlsplit(base_url).path.rstrip("/").endswith(known.base_path)
    return written if same else (*written, *prefixed(known.base_path, written))


def _refuse_forwarded(provider: Provider, given: Mapping[str, Any], path: str, report: FaultReport) -> None:
    """What is listed to go on to the provider and never does: a line without effect would be believed."""
    places = [form.name for form in provider.headers.values()]
    for number, name in enumerate(given.get("forward_headers", ())):
        if fault := header_fault(name, places):
            report.refuse(f"{path}.forward_headers[{number}]", f"{quote(name)} {fault}; leave it out")
    for number, name in enumerate(given.get("query", ())):
        if fault := query_fault(name):
            report.refuse(f"{path}.query[{number}]", f"{quote(name)} {fault}; leave it out")


def _refuse_shared(merged: Mapping[str, Provider], changed: Mapping[str, str], report: FaultReport) -> None:
    """A spelling or a variable that two providers claim would make one of them unreachable, or both out of one key."""
    for known, path in changed.items():
        mine = merged[known]
        for other in merged.values():
            if other.id == known or (other.id in changed and other.id < known):
                continue
            names = {mine.id, *mine.aliases} & {other.id, *other.aliases}
            variables = _variables(mine) & _variables(other)
            for taken in sorted(names):
                report.refuse(f"{path}.aliases", f"{quote(taken)} is also a name of {other.id}; each name has one provider")
            for taken in sorted(variables):
                report.refuse(f"{path}.env", f"{taken} is also a variable of {other.id}; each has one provider")


def _variables(provider: Provider) -> set[str]:
    return {env.name for env in provider.env_names} | set(provider.list_env_names)
