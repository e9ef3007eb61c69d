"""The agents' API over TCP: where it listens, and the rules that hold between that and the agents who may call."""

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
"""The keys of an agent that say as whom it may call."""


def remote(document: ConfigDocument, path: Callable[[str], Path], report: FaultReport) -> Remote | None:
    """The listeners, and who of their callers is which agent; None where nothing listens. `path` makes paths whole."""
    given = document.listen.agents
    agents = document.agents or {}
    if given is None:
        _refuse_unheard(agents, IDENTITIES, report, remedy=f"nothing listens for it; add {_AGENTS}, or remove it")
        return None
    tokens, certificates = given.service_accounts, given.client_certificates
    if tokens is None and certificates is None:
        if report.sound(_AGENTS):
            report.refuse(_AGENTS, "says not how callers show who they are; add service_accounts or client_certificates")
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
    """The addresses, by their paths below `listen`."""
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
    """Agents by who may call as them."""
    owners: dict[str, str] = {}
    for agent, told in agents.items():
        for name in told.get(key, ()):
            if name in owners:
                report.refuse(
                    f"{under('agents', agent)}.{key}", f"lists one of agent {owners[name]} too; a caller is one agent"
                )
            owners.setdefault(name, agent)
    return MappingProxyType(owners)


def _refuse_contradictions(given: TokensSection, report: FaultReport) -> None:
    at = f"{_AGENTS}.service_accounts"
    if given.validate == "token_review":
        for key in ("keys", "issuer"):
            if getattr(given, key):
                report.refuse(f"{at}.{key}", "goes with validate: published_keys; write that, or remove it")
    elif given.keys and given.kubeconfig:
        report.refuse(f"{at}.kubeconfig", "is not used together with keys, which are read from their file; keep one of both")
    if given.keys and not given.issuer and given.validate == "published_keys":
        report.refuse(f"{at}.keys", "does not say who signs with them; add issuer, as `kubectl get --raw"
                      " /.well-known/openid-configuration` shows it")  # fmt: skip


def _refuse_missing(given: RemoteSection, found: Callers, agents: Mapping[str, Mapping[str, Any]], report: FaultReport) -> None:
    """An address that accepts no caller, and callers without an address."""
    listeners = (
        (IDENTITIES[0], "service_accounts", given.service_accounts, found.accounts),
        (IDENTITIES[1], "client_certificates", given.client_certificates, found.certificates),
    )
    for key, section, listener, owners in listeners:
        if listener is None:
            _refuse_unheard(agents, (key,), report, remedy=f"nothing listens for it; add {_AGENTS}.{section}, or remove it")
        elif not owners and report.sound("agents"):
            report.refuse(f"{_AGENTS}.{section}", f"would accept no caller; add agents.<agent>.{key} to one at least")


def _refuse_unheard(
    agents: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...], report: FaultReport, *, remedy: str
) -> None:
    for path in _given(agents, keys):
        if report.sound(_AGENTS):
            report.refuse(path, remedy)


def _given(agents: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...]) -> Iterator[str]:
    return (f"{under('agents', agent)}.{key}" for agent, told in agents.items() for key in keys if key in told)
