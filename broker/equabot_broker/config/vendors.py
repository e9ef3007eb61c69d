"""The built-in facts about providers, with the changes and additions of the configuration."""

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
"""The fields that vendors need or accept with a workload identity."""
TOKEN_TYPES: Final = tuple(dict.fromkeys(kind for known in _EXCHANGES for kind in known.token_types))
"""The types of identity tokens."""


class Known:
    """All providers, and the ids of their profiles. Unknown providers are added to the report."""

    def __init__(self, sections: Mapping[str, Mapping[str, Any]], report: FaultReport) -> None:
        self._report = report
        self.catalog = _merge(sections, report)

    def provider(self, written: str, path: str) -> str:
        """The id of a provider in any spelling. For an unknown provider, the name as written."""
        known = self.catalog.normalise(written)
        if known is None:
            hint = meant(written, self.catalog.providers)
            self._report.refuse(path, f"provider {quote(written)} is unknown{hint or '; describe it under providers'}")
        return known or written

    def profile(self, written: tuple[str, str], path: str) -> str:
        """The profile's id, with the id of its provider."""
        return f"{self.provider(written[0], path)}:{written[1]}"


def _merge(sections: Mapping[str, Mapping[str, Any]], report: FaultReport) -> Catalog:
    merged = dict(PROVIDERS)
    changed: dict[str, str] = {}
    for written, given in sections.items():
        path = under("providers", written)
        known = BUILT_IN.normalise(written) or written
        if known in changed:
            report.refuse(path, f"is another spelling of {known}, which is listed above; keep one")
            continue
        changed[known] = path
        merged[known] = _provider(merged.get(known) or Provider(id=known), given)
        _refuse_forwarded(merged[known], given, path, report)
    _refuse_shared(merged, changed, report)
    return Catalog(merged)


def _provider(known: Provider, given: Mapping[str, Any]) -> Provider:
    """The provider with the given values, which replace the known ones.

    Headers and SDK variables are replaced by mode. Names that the gateway forwards are added. A token endpoint also exchanges
    identities.
    """
    changed = dict(given)
    if "env_names" in given:
        names = tuple(EnvName(name, mode) for name, mode in given["env_names"].items())
        changed["env_names"] = names
        changed.setdefault("list_env_names", list_names(names))
        if not known.sdk_env:
            changed.setdefault("sdk_env", {env.mode: env.name for env in reversed(names)})
    for by_mode in ("headers", "sdk_env"):
        if by_mode in changed:
            before: Mapping[Mode, Any] = getattr(known, by_mode)
            changed[by_mode] = MappingProxyType({**before, **changed[by_mode]})
    if "base_url" in given:
        for rules in ("requests", "websockets"):
            changed.setdefault(rules, _rules_at(given["base_url"], known, getattr(known, rules)))
        changed["form"] = None  # the operator of that server chose the form of its keys
    for added in ("forward_headers", "query", "subprotocols"):
        changed[added] = (*getattr(known, added), *given.get(added, ()))
    if known.exchange is not None and "token_url" in given:
        changed["exchange"] = replace(known.exchange, url=given["token_url"])
    return replace(known, **changed)


def _rules_at(base_url: str, known: Provider, written: tuple[str, ...]) -> tuple[str, ...]:
    """The provider's rules for another address. If that address does not have the base path of the vendor's own, clients may
    send the base path."""
    same = urlsplit(base_url).path.rstrip("/").endswith(known.base_path)
    return written if same else (*written, *prefixed(known.base_path, written))


def _refuse_forwarded(provider: Provider, given: Mapping[str, Any], path: str, report: FaultReport) -> None:
    """Reports listed names that the gateway never forwards, because an operator would expect that it does."""
    places = [form.name for form in provider.headers.values()]
    for number, name in enumerate(given.get("forward_headers", ())):
        if fault := header_fault(name, places):
            report.refuse(f"{path}.forward_headers[{number}]", f"{quote(name)} {fault}; remove it")
    for number, name in enumerate(given.get("query", ())):
        if fault := query_fault(name):
            report.refuse(f"{path}.query[{number}]", f"{quote(name)} {fault}; remove it")


def _refuse_shared(merged: Mapping[str, Provider], changed: Mapping[str, str], report: FaultReport) -> None:
    """Reports names and variables of two providers: one provider could not be named, or one key would serve both."""
    for known, path in changed.items():
        mine = merged[known]
        for other in merged.values():
            if other.id == known or (other.id in changed and other.id < known):
                continue
            names = {mine.id, *mine.aliases} & {other.id, *other.aliases}
            variables = _variables(mine) & _variables(other)
            for taken in sorted(names):
                report.refuse(f"{path}.aliases", f"{quote(taken)} is also a name of {other.id}; choose another name")
            for taken in sorted(variables):
                report.refuse(f"{path}.env", f"{taken} is also a variable of {other.id}; choose another variable")


def _variables(provider: Provider) -> set[str]:
    return {env.name for env in provider.env_names} | set(provider.list_env_names)
