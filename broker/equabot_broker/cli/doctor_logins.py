"""Problems with credentials (missing, expiring, refused, hidden, due for a refresh), and what the running broker reports."""

from argparse import Namespace
from asyncio import run as run_async
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from equabot_broker.cli.problems import FIX, Problem, problem
from equabot_broker.cli.status_reading import read_all
from equabot_broker.cli.status_report import StatusReport
from equabot_broker.cli.storing import faults
from equabot_broker.diagnosis.findings import Severity, choice, hides, of_suspensions
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.material import SourceFault
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.remedies import how_to_add, how_to_recover
from equabot_broker.domain.selection import UNORDERED
from equabot_broker.oauth.refreshing import refresh_at
from equabot_cli.absence import access_denied
from equabot_cli.exits import Failure
from equabot_cli.surroundings import now

if TYPE_CHECKING:
    from equabot_broker.bootstrap.survey import Survey
    from equabot_broker.config.model import Config
    from equabot_client.admin import Finding

_BAD: Final = (State.EXPIRED, State.REJECTED, State.REAUTH_REQUIRED, State.INVALID)


def logins(args: Namespace, config: "Config") -> Iterator[Problem]:
    """The problems with the credentials of every agent."""
    here, reports, findings = read_all(args, config)
    running = bool(findings) or any(report.broker for report in reports)
    if not running:
        message, _, do = access_denied(config.listen.admin or config.run_dir / "admin" / "broker.sock").partition(": ")
        message = message or "no broker answers: doctor read the sources itself"
        yield problem(Severity.INFO, config.run_dir, message, do or "equabot serve")
        yield from (Problem(found) for found in of_suspensions(here.suspensions))
    yield from _sources(here, findings)
    yield from _brokers(findings, here, reports)
    yield from _unapplied_ends(here)
    due = {} if running else dict(_due(config, here))
    reported: set[tuple[str, str]] = set()
    for report in reports:
        yield from _missing(report)
        for profile in report.profiles:
            held = here.material.held.get((report.agent, profile.id))
            owner = report.agent if held is not None and report.agent != MAIN else ""
            if (owner, profile.id) in reported:
                continue
            reported.add((owner, profile.id))
            if (owner, profile.id) in due:
                yield due.pop((owner, profile.id))
            else:
                yield from _profile(report, profile, owner)
    yield from _shadows(here)
    yield from _left_over(config, here)


def _missing(report: StatusReport) -> Iterator[Problem]:
    if not report.in_use:
        if report.agent == MAIN:
            yield problem(Severity.ERROR, "credentials", "there is no credential", how_to_add(None, report.config.places))
        return
    for provider in report.unserved():
        subject = provider if report.agent == MAIN else f"{provider} (agent {report.agent})"
        how = how_to_add(report.config.catalog.get(provider), report.config.places)
        if provider in report.missing():
            yield problem(Severity.ERROR, subject, "is in use, and has no credential", how)
        elif all(profile.state in (State.OK, State.EXPIRING, State.MISSING) for profile in report.of(provider)):
            why = "; ".join(f"{profile.id}: {profile.reason}" for profile in report.of(provider)[:5])
            message = f"is in use, and none of its credentials can be granted ({why})"
            yield problem(Severity.ERROR, subject, message, _way_back(report, provider))


def _way_back(report: StatusReport, provider: str) -> str:
    """The command that makes an existing credential grantable; empty if each credential's reason names its own remedy."""
    if any(profile.reason == UNORDERED for profile in report.of(provider)):
        return _forget_order(report, provider)
    return ""


def _forget_order(report: StatusReport, provider: str) -> str:
    of_agent = f" --agent {report.agent}" if report.agent != MAIN else ""
    return f"equabot models auth order clear --provider {provider}{of_agent}, or correct auth.order"


def _profile(report: StatusReport, profile: ProfileStatus, owner: str) -> Iterator[Problem]:
    subject = f"{profile.id} (agent {owner})" if owner else profile.id
    used = profile.provider in report.in_use
    state = State(profile.state)
    if state in _BAD:
        severity = Severity.ERROR if used else Severity.WARNING
        if state is State.INVALID and report.served(profile.provider):
            severity = Severity.INFO
        reason = profile.reason if profile.reason.startswith(state.value) else f"{state.value}: {profile.reason}".rstrip(": ")
        how = remedy(profile, owner)
        yield problem(severity, subject, reason.removesuffix(f"; {how}"), how)
    elif state is State.EXPIRING:
        yield problem(Severity.WARNING, subject, profile.reason or "expiring", remedy(profile, owner))
    elif state is State.MISSING and not profile.mode:
        message = "is in an order, but no source has it"
        yield problem(Severity.WARNING, subject, message, _forget_order(report, profile.provider))
    elif state is State.MISSING:
        do = remedy(profile, owner) if profile.mode == Mode.WIF else "restore its source"
        alarm = used and not report.served(profile.provider)
        yield problem(Severity.ERROR if alarm else Severity.WARNING, subject, profile.reason, do)
    elif profile.disabled_until > report.now or profile.cooldown_until > report.now:
        yield problem(Severity.INFO, subject, profile.reason)


def remedy(profile: ProfileStatus, owner: str) -> str:
    """How to replace the profile's credential where it is kept, and how to clear a wrong rejection."""
    return how_to_recover(profile.id, state=profile.state, mode=profile.mode, source=profile.source, agent=owner)


def _sources(here: "Survey", findings: "Sequence[Finding]") -> Iterator[Problem]:
    """The findings of the sources read here. A running broker also knows since when."""
    for source in here.sources:
        for fault in source.faults():
            whole = fault.where == source.name
            message = next((found.message for found in findings if _same(found, fault)), fault.message)
            yield problem(Severity.ERROR if whole else Severity.WARNING, fault.where, message)
        for note in source.notes():
            yield problem(Severity.INFO, note.where, note.message)


def _unapplied_ends(here: "Survey") -> Iterator[Problem]:
    """Ends that are not applied, because they were set for other values."""
    for (agent, profile_id), held in here.material.held.items():
        if held.profile.doubt:
            yield problem(Severity.WARNING, f"{profile_id} (agent {agent})" if agent else profile_id, held.profile.doubt)


def _same(found: "Finding", fault: SourceFault) -> bool:
    return found.subject == fault.where and found.message.startswith(fault.message)


def _brokers(findings: "Sequence[Finding]", here: "Survey", reports: Sequence[StatusReport]) -> Iterator[Problem]:
    """The running broker's findings that nothing here repeats: on its state, audit log and callers, on sources whose state
    differs there, and on profiles. A slow source may not have been read here."""
    wrong = [fault for source in here.sources for fault in (*source.faults(), *source.notes())]
    sources = {fault.where for fault in wrong} | {one.name for one in here.sources}
    unserved = {provider for report in reports for provider in report.unserved()}
    reasons = {(profile.id, profile.reason) for report in reports for profile in report.profiles}
    profiles = {profile_id for profile_id, _ in reasons}
    states = {state.value for state in State}
    seen = {held.profile.doubt for held in here.material.held.values()} | {hides(shadow) for shadow in here.shadowed}
    for found in findings:
        reported = found.message.partition(":")[0] in states or (found.subject, found.message) in reasons
        if found.subject in unserved or (found.subject in profiles and (reported or found.message in seen)):
            continue
        if not any(_same(found, fault) for fault in wrong):
            subject = f"{found.subject} (reported by the broker)" if found.subject in sources else found.subject
            yield problem(Severity(found.severity), subject, found.message, found.remedy)


def _shadows(here: "Survey") -> Iterator[Problem]:
    for shadow in here.shadowed:
        if shadow.profile.secret != shadow.by.secret and not shadow.older:
            yield problem(Severity.WARNING, shadow.profile.id, hides(shadow), choice(shadow))


def _left_over(config: "Config", here: "Survey") -> Iterator[Problem]:
    def forget() -> str:
        from equabot_broker.bootstrap.stores import forget_copies  # noqa: PLC0415

        with faults():
            gone = forget_copies(config)
        return f"removed {', '.join(gone) or 'no copy'} from the store of {MAIN}"

    for copy in here.material.left_over:
        message = f"is a copy of a login that no longer exists ({copy.copied_from}), so it is not used ({copy.origin})"
        yield problem(Severity.INFO, copy.id, message, FIX if " " in copy.copied_from else "remove it from the store",
                      fix=forget if " " in copy.copied_from else None)  # fmt: skip


def _due(config: "Config", here: "Survey") -> Iterator[tuple[tuple[str, str], Problem]]:
    """Logins that a running broker would refresh now, by owner and profile id. The owner is empty for a login of all
    agents."""
    for (agent, profile_id), held in here.material.held.items():
        profile = held.profile
        if profile.refresh is None or profile.expires_at is None or profile.reauth:
            continue
        if now() >= refresh_at(issued_at=profile.issued_at, expires_at=profile.expires_at, chance=0.0):
            over = profile.expires_at <= now()
            message = "its access token has expired; it is refreshed on use" if over else "it is due for a refresh"
            severity = Severity.WARNING if over else Severity.INFO
            yield (agent, profile_id), problem(severity, profile_id, message, FIX, fix=_refresh(config, agent, profile))


def _refresh(config: "Config", agent: str, profile: Profile) -> Callable[[], str]:
    def refresh() -> str:
        from equabot_broker.bootstrap.stores import refresh_login  # noqa: PLC0415

        with faults():
            failure, reported = run_async(refresh_login(config, agent, profile))
        if failure:
            raise Failure(reported)
        return f"{profile.id}: {reported}"

    return refresh
