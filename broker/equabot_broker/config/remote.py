"""The agents' API over TCP: its listeners, and the rules between the listeners and the agents."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.config.document import ConfigDocument, RemoteSection, TokensSection
from equabot_broker.config.model import CertificateListener, Remote, TokenListener
from equabot_broker.domain.callers import Callers
from equabot_broker.schema.reading import FaultReport, under
from equabot_broker.schema.values import Address

_AGENTS: Final = "listen.agents"
IDENTITIES: Final = ("service_accounts", "certificates")
"""The keys of an agent that name its callers."""


def remote(document: ConfigDocument, path: Callable[[str], Path], report: FaultReport) -> Remote | None:
    """The listeners, and the agent of each caller. None if there is no listener. `path` makes absolute paths."""
    given = document.listen.agents
    agents = document.agents or {}
    if given is None:
        _refuse_without_listener(agents, IDENTITIES, report, remedy=f"has no listener; add {_AGENTS}, or remove it")
        return None
    tokens, certificates = given.service_accounts, given.client_certificates
    if tokens is None and certificates is None:
        if report.sound(_AGENTS):
            report.refuse(_AGENTS, "does not define how callers authenticate; add service_accounts or client_certificates")
        return None
    if tokens is not None:
        _refuse_contradictions(tokens, report)
    found = Callers(accounts=_owners(agents, IDENTITIES[0], report), certificates=_owners(agents, IDENTITIES[1], report))
    _refuse_missing(given, found, agents, report)
    return Remote(
        certificate=path(given.certificate),
        key=path(given.key),
        service_accounts=None if tokens is None else _tokens(tokens, path),
        client_certificates=None
        if certificates is None
        else CertificateListener(address=certificates.address, ca=path(certificates.ca)),
        callers=found,
    )


def remote_addresses(given: RemoteSection | None) -> dict[str, Address]:
    """The addresses, by their paths under `listen`."""
    listeners = (
        {} if given is None else {"service_accounts": given.service_accounts, "client_certificates": given.client_certificates}
    )
    return {f"agents.{name}.address": one.address for name, one in listeners.items() if one is not None}


def _tokens(given: TokensSection, path: Callable[[str], Path]) -> TokenListener:
    return TokenListener(
        address=given.address,
        audience=given.audience,
        published=given.validate == "published_keys",
        kubeconfig=path(given.kubeconfig) if given.kubeconfig else None,
        keys=path(given.keys) if given.keys else None,
        issuer=given.issuer,
    )


def _owners(agents: Mapping[str, Mapping[str, Any]], key: str, report: FaultReport) -> Mapping[str, str]:
    """Agents by the name of the caller."""
    owners: dict[str, str] = {}
    for agent, given in agents.items():
        for name in given.get(key, ()):
            if name in owners:
                report.refuse(
                    f"{under('agents', agent)}.{key}",
                    f"has a name that agent {owners[name]} also has; a caller maps to one agent, so remove one",
                )
            owners.setdefault(name, agent)
    return MappingProxyType(owners)


def _refuse_contradictions(given: TokensSection, report: FaultReport) -> None:
    at = f"{_AGENTS}.service_accounts"
    if given.validate == "token_review":
        for key in ("keys", "issuer"):
            if getattr(given, key):
                report.refuse(f"{at}.{key}", "needs validate: published_keys; add that, or remove this key")
    elif given.keys and given.kubeconfig:
        report.refuse(f"{at}.kubeconfig", "cannot be used together with keys; keep one of the two")
    if given.keys and not given.issuer and given.validate == "published_keys":
        report.refuse(
            f"{at}.keys", "needs issuer; add the one that `kubectl get --raw /.well-known/openid-configuration` shows"
        )


def _refuse_missing(given: RemoteSection, found: Callers, agents: Mapping[str, Mapping[str, Any]], report: FaultReport) -> None:
    """Reports listeners that accept no caller, and callers without a listener."""
    listeners = (
        (IDENTITIES[0], "service_accounts", given.service_accounts, found.accounts),
        (IDENTITIES[1], "client_certificates", given.client_certificates, found.certificates),
    )
    for key, section, listener, owners in listeners:
        if listener is None:
            _refuse_without_listener(agents, (key,), report, remedy=f"has no listener; add {_AGENTS}.{section}, or remove it")
        elif not owners and report.sound("agents"):
            report.refuse(f"{_AGENTS}.{section}", f"would accept no caller; add agents.<agent>.{key} for at least one agent")


def _refuse_without_listener(
    agents: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...], report: FaultReport, *, remedy: str
) -> None:
    for path in _given(agents, keys):
        if report.sound(_AGENTS):
            report.refuse(path, remedy)


def _given(agents: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...]) -> Iterator[str]:
    return (f"{under('agents', agent)}.{key}" for agent, given in agents.items() for key in keys if key in given)
