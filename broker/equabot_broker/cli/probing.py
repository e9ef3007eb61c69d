"""`equabot models status --probe`: tests every credential of an agent with one small call to its provider.

A failure sets no cooldown. A success ends the cooldown, the disable and the rejection of the profile. Credentials of the
sources here are tested directly. For the others, and for logins that only a broker can refresh, the command takes a lease of
the running broker and revokes it.
"""

from argparse import Namespace
from asyncio import run as run_async
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equabot_broker.cli.profiles import clear_profile
from equabot_broker.cli.status_report import StatusReport
from equabot_broker.domain.credentials import headers
from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.upstream.probe_requests import ProbeRequest, request
from equabot_cli import output
from equabot_cli.connecting import addressed, broker
from equabot_cli.exits import Failure
from equabot_cli.output import Cell, Style

if TYPE_CHECKING:
    from equabot_broker.config.model import Config
    from equabot_broker.diagnosis.statuses import ProfileStatus
    from equabot_broker.domain.profiles import Profile
    from equabot_client import Broker

_STYLES = {Verdict.OK: Style.GOOD, Verdict.RATE_LIMIT: Style.WARN, Verdict.TIMEOUT: Style.WARN, Verdict.NO_MODEL: Style.FAINT}
_NO_MODEL = ProbeResult(Verdict.NO_MODEL, "no small model is known: set models.default, or probe_model of the provider")


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of one profile. `model` is the model that was asked."""

    profile: str
    provider: str
    model: str
    found: ProbeResult


def probe_all(args: Namespace, report: StatusReport) -> list[Probed]:
    """Tests every profile of the report."""
    from equabot_broker.bootstrap.survey import survey  # noqa: PLC0415
    from equabot_broker.upstream.probe import probe  # noqa: PLC0415

    here = run_async(survey(report.config))
    found: dict[str, ProbeResult] = {}
    requests: dict[str, ProbeRequest] = {}
    with _running_broker(args, report) as connected:
        for status in report.profiles:
            if not status.mode and status.state == State.MISSING:
                continue  # it exists in an order only
            known = here.profile(report.agent, status.id)
            made = _request(report.config, status, known, connected)
            if isinstance(made, ProbeResult):
                found[status.id] = made
            else:
                requests[status.id] = made
    found |= run_async(probe(requests))
    for status in report.profiles:
        if status.id in found and found[status.id].verdict is Verdict.OK and is_held_back(status, report.now):
            found[status.id] = _clear(args, status, running=bool(report.broker))
    return [
        Probed(status.id, status.provider, _model(report.config, status.provider), found[status.id])
        for status in report.profiles
        if status.id in found
    ]


def is_held_back(status: "ProfileStatus", now: float) -> bool:
    """Whether a cooldown, a disable or a rejection keeps the profile from being used."""
    ends = (status.cooldown_until, status.disabled_until, *status.model_cooldowns.values())
    return status.state == State.REJECTED or any(end > now for end in ends)


def _clear(args: Namespace, status: "ProfileStatus", *, running: bool) -> ProbeResult:
    """Clears the profile, because the provider accepts this version of its credential."""
    if running and addressed(args):
        return ProbeResult(
            Verdict.OK, f"`equabot profile clear {status.id}` by an operator ends its cooldown, disable and rejection"
        )
    try:
        ended, _ = clear_profile(args, status.id, version=status.version)
    except Failure as failure:
        return ProbeResult(Verdict.OK, f"its cooldown, disable or rejection continues: {failure.message}")
    return ProbeResult(Verdict.OK, f"{' and '.join(ended)} ended" if ended else "")


def document(probed: Sequence[Probed]) -> list[dict[str, Any]]:
    """The results as JSON."""
    return [
        {
            "profileId": one.profile,
            "provider": one.provider,
            "model": one.model or None,
            "status": one.found.verdict.value,
            "reason": one.found.reason or None,
        }
        for one in probed
    ]


def show(probed: Sequence[Probed]) -> None:
    """Prints the results as a table."""
    output.say()
    output.heading("Probes")
    rows = [(one.profile, Cell(one.found.verdict, _STYLES.get(one.found.verdict, Style.BAD)), one.model, one.found.reason)
            for one in probed]  # fmt: skip
    output.table(rows, indent=2)


def show_plain(probed: Sequence[Probed]) -> None:
    """Prints one line per profile, after the lines of the report."""
    for one in probed:
        output.columns(("probe", one.profile, one.found.verdict.value, one.found.reason))


@contextmanager
def _running_broker(args: Namespace, report: StatusReport) -> Iterator["Broker | None"]:
    """The running broker, if there is one."""
    if not report.broker:
        yield None
        return
    with broker(args) as found:
        yield found


def _request(
    config: "Config", status: "ProfileStatus", known: "Profile | None", connected: "Broker | None"
) -> ProbeRequest | ProbeResult:
    provider = config.catalog.providers.get(status.provider)
    model = _model(config, status.provider)
    if provider is None or not provider.api or not model:
        return _NO_MODEL
    stale = known is not None and known.refresh is not None and status.state in (State.EXPIRED, State.MISSING)
    if known is not None and known.secret is not None and not stale:
        carried: Mapping[str, str] = headers(provider, known, known.secret)
        return request(provider, model=model, base_url=provider.base_url, headers=carried) or _NO_MODEL
    if connected is None:
        return ProbeResult(Verdict.UNKNOWN, f"not tried: {status.reason or status.state}")
    return _leased(provider, status.id, model, connected)


def _leased(provider: Provider, profile: str, model: str, connected: "Broker") -> ProbeRequest | ProbeResult:
    from equabot_client.errors import EquabotError  # noqa: PLC0415

    try:
        with connected.lease(profile, delivery="raw") as lease:
            base_url = lease.base_url or provider.base_url
            return request(provider, model=model, base_url=base_url, headers=dict(lease.headers)) or _NO_MODEL
    except EquabotError as refused:
        return ProbeResult(Verdict.UNKNOWN, f"not tried: the broker grants no lease on it ({refused.reason})")


def _model(config: "Config", provider: str) -> str:
    """The model to ask: the configured `probe_model`, else one that is in use, else a small model of the provider."""
    own = config.catalog.providers.get(provider)
    usual = PROVIDERS[provider].probe_model if provider in PROVIDERS else ""
    if own is None or own.probe_model != usual:
        return own.probe_model if own else ""
    models = config.models
    used = (model.partition("/") for model in (models.default, *models.fallbacks, *models.aliases.values()) if model)
    return next((name for vendor, _, name in used if config.catalog.normalise(vendor) == provider), usual)


def refused(probed: Sequence[Probed], report: StatusReport) -> bool:
    """Whether a provider in use refused a credential."""
    return any(one.found.verdict is Verdict.AUTH and one.provider in report.in_use for one in probed)
