"""Makes a `Workload` of each `profiles.<id>.wif`, a profile with a secret from a workload identity, and checks its rules."""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from equabot_broker.config.document import ConfigDocument, ProfileSection
from equabot_broker.config.vendors import Known
from equabot_broker.domain.provider import Exchange, Mode
from equabot_broker.oauth.workload import SOURCE, Workload
from equabot_broker.schema.reading import FaultReport, under
from equabot_broker.schema.values import TOKEN_FILE

_TYPE: Final = "subject_token_type"


def workloads(
    document: ConfigDocument,
    known: Known,
    report: FaultReport,
    *,
    full: Callable[[str], Path],
    environ: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> tuple[Workload, ...]:
    """The workloads without a fault. The faults of the others are added to the report.

    `full` makes a path from the file absolute. `environ` has identities by provider and key. They are used for providers for
    which the file configures no identity.
    """
    configured = tuple(_configured(document, full, known, report))
    silent = environ.keys() - {workload.provider for workload in configured}
    found = (*configured, *(_workload(f"{provider}:{SOURCE}", environ[provider]) for provider in sorted(silent)))
    for provider in dict.fromkeys(workload.provider for workload in found):
        exchange = known.catalog.providers[provider].exchange
        if exchange is not None and not _is_private(exchange.url):
            report.refuse(f"providers.{provider}.token_url", "would send identity tokens without encryption; use https")
    return found


def _configured(document: ConfigDocument, full: Callable[[str], Path], known: Known, report: FaultReport) -> Iterator[Workload]:
    for written, section in document.profiles.items():
        path = under("profiles", ":".join(written))
        if section.wif is None and section.mode is not Mode.WIF:
            continue
        _refuse_contradictions(section, path, report)
        provider = known.catalog.get(written[0])
        given = section.wif
        if provider is None or given is None:
            continue
        if provider.exchange is None:
            vendors = ", ".join(vendor.id for vendor in known.catalog.providers.values() if vendor.exchange)
            report.refuse(f"{path}.wif", f"{provider.id} does not support workload identities; {vendors} do")
            continue
        _refuse_fields(given, provider.id, provider.exchange, f"{path}.wif", report)
        yield _workload(f"{provider.id}:{written[1]}", {**given, TOKEN_FILE: str(full(given[TOKEN_FILE]))})


def _workload(profile: str, given: Mapping[str, str]) -> Workload:
    return Workload(
        profile=profile,
        provider=profile.partition(":")[0],
        token_file=given[TOKEN_FILE],
        fields=MappingProxyType({name: value for name, value in given.items() if name not in (TOKEN_FILE, _TYPE)}),
        token_type=given.get(_TYPE, ""),
    )


def _refuse_contradictions(section: ProfileSection, path: str, report: FaultReport) -> None:
    """Reports other keys of the profile that contradict its workload identity."""
    if section.wif is None and report.sound(path):
        report.refuse(path, "has mode: wif, but no section wif that describes the identity; add it")
    if section.mode not in (None, Mode.WIF):
        report.refuse(f"{path}.mode", f"is {section.mode}, but the section wif needs mode wif; keep one of the two")
    if section.origin is not None:
        report.refuse(f"{path}.from", "cannot be used with wif, because the secret comes from an exchange; remove it")
    if section.expires_at is not None:
        report.refuse(f"{path}.expires_at", "cannot be used with wif, because each exchange returns an end; remove it")


def _refuse_fields(given: Mapping[str, str], vendor: str, exchange: Exchange, path: str, report: FaultReport) -> None:
    usual = (TOKEN_FILE, *exchange.needs, *exchange.takes, *((_TYPE,) if exchange.token_types else ()))
    missing = [name for name in exchange.needs if name not in given and report.sound(f"{path}.{name}")]
    if missing:
        report.refuse(path, f"lacks {' and '.join(missing)}, which {vendor} needs; add it")
    for name in given:
        if name not in usual:
            report.refuse(f"{path}.{name}", f"is not a field of {vendor}; use one of {', '.join(usual)}")
    if _TYPE in given and exchange.token_types and given[_TYPE] not in exchange.token_types:
        types = ", ".join(exchange.token_types)
        report.refuse(f"{path}.{_TYPE}", f"is not a type of token that {vendor} accepts; use one of {types}")


def _is_private(url: str) -> bool:
    """Whether a request to the URL is encrypted, or stays on this machine or in a private network."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = ip_address(host).is_private
    except ValueError:
        near = "." not in host or host.endswith((".localhost", ".svc", ".svc.cluster.local"))
    return near or parts.scheme == "https"
