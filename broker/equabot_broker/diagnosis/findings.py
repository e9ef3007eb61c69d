"""What an operator should know: faults of sources, credentials that need an operator, providers without a usable credential."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from itertools import chain, islice
from types import MappingProxyType

from equabot_broker.domain.material import Shadowed, SourceState
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.relogin import how_to_log_in
from equabot_broker.domain.remedies import how_to_recover
from equabot_broker.domain.selection import Candidate
from equabot_broker.domain.suspension import Suspension

_SHOWN = 500
CREDENTIALS = "credentials"
"""What a finding is about that is about all of them."""
_NO_SUSPENSIONS: Mapping[str, Suspension] = MappingProxyType({})


class Severity(Enum):
    """How much it matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing: what it is about (a profile id, a source, a file), what is the matter, and the step to take."""

    severity: Severity
    subject: str
    message: str
    remedy: str = ""


def findings(
    *,
    sources: Iterable[SourceState],
    candidates: Iterable[Candidate],
    shadowed: Iterable[Shadowed],
    unmet: Mapping[str, str],
    store_fault: str,
    audit_fault: str = "",
    audit_doubt: str = "",
    anchor_fault: str = "",
    identity_fault: str = "",
    suspensions: Mapping[str, Suspension] = _NO_SUSPENSIONS,
    configuration: Iterable[str] = (),
    add: Callable[[str], str] = lambda _: "add a credential",
) -> list[Finding]:
    """Everything worth knowing, the gravest kinds first; after 500 of them, how many more there are. `add` says how a provider
    gets a first credential; "" is any provider."""
    candidates = tuple(candidates)
    found = chain(
        _of_faults(state=store_fault, audit=audit_fault, identity=identity_fault),
        of_suspensions(suspensions),
        _of_configuration(configuration),
        _of_audit(audit_doubt, anchor_fault),
        _of_providers(unmet, add),
        () if candidates or unmet else (none_at_all(add("")),),
        _of_sources(sources),
        _of_profiles(candidates),
        _of_shadows(shadowed),
    )
    shown = list(islice(found, _SHOWN))
    rest = sum(1 for _ in found)
    if rest:
        shown.append(Finding(severity=Severity.INFO, subject="findings", message=f"{rest} more are not shown"))
    return shown


def _of_faults(**faults: str) -> Iterator[Finding]:
    for subject, fault in faults.items():
        if fault:
            yield Finding(severity=Severity.ERROR, subject=subject, message=fault)


def of_suspensions(suspensions: Mapping[str, Suspension]) -> Iterator[Finding]:
    """Which agents are suspended, by name, each with the command that resumes it."""
    for agent, suspension in sorted(suspensions.items()):
        since = datetime.fromtimestamp(suspension.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        why = f" ({suspension.reason})" if suspension.reason else ""
        yield Finding(
            severity=Severity.WARNING,
            subject=f"agent {agent}",
            message=f"suspended since {since}{why}: it gets no lease, and the gateway refuses its requests",
            remedy=f"equabot agent resume {agent}",
        )


def _of_configuration(doubts: Iterable[str]) -> Iterator[Finding]:
    for doubt in doubts:
        yield Finding(severity=Severity.WARNING, subject="configuration", message=doubt, remedy="equabot reload")


def _of_audit(doubt: str, anchor_fault: str) -> Iterator[Finding]:
    if doubt:
        remedy = (
            "compare the log with a hash that was noted elsewhere, then `equabot audit accept`; if the anchor's place does not"
            " outlive a restart, set audit.anchor to one that does"
        )
        yield Finding(severity=Severity.ERROR, subject="audit", message=doubt, remedy=remedy)
    if anchor_fault:
        remedy = "free space on its volume, or set audit.anchor to a place that can be written"
        yield Finding(severity=Severity.ERROR, subject="audit", message=anchor_fault, remedy=remedy)


def _of_providers(unmet: Mapping[str, str], add: Callable[[str], str]) -> Iterator[Finding]:
    for provider, why in unmet.items():
        yield Finding(
            severity=Severity.ERROR,
            subject=provider,
            message=f"the provider is required, and no agent can be granted a usable profile of it: {why}",
            remedy=f"{add(provider)}; or let an agent use it, or take the provider out of `required`",
        )


def none_at_all(remedy: str) -> Finding:
    """That no source holds a credential, where none is required."""
    return Finding(severity=Severity.ERROR, subject=CREDENTIALS, message="no credential was found", remedy=remedy)


def _of_sources(sources: Iterable[SourceState]) -> Iterator[Finding]:
    for source in sources:
        if not source.attempted:
            yield Finding(severity=Severity.WARNING, subject=source.name, message="it has not been read yet")
        for fault in source.faults():
            severity = Severity.ERROR if fault.where == source.name else Severity.WARNING
            yield Finding(severity=severity, subject=fault.where, message=str(fault))
        for note in source.notes():
            yield Finding(severity=Severity.INFO, subject=note.where, message=note.message)


def _of_profiles(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    for candidate in candidates:
        state = candidate.standing.state
        if state is not State.OK:
            yield Finding(
                severity=Severity.WARNING,
                subject=candidate.id,
                message=f"{state.value}: {candidate.standing.reason} ({candidate.held.profile.origin})",
                remedy=_remedy(candidate.held.profile, state),
            )
        elif not candidate.standing.usable:
            yield Finding(severity=Severity.WARNING, subject=candidate.id, message=candidate.standing.reason)
        elif candidate.held.profile.doubt:
            yield Finding(severity=Severity.WARNING, subject=candidate.id, message=candidate.held.profile.doubt)


def _remedy(profile: Profile, state: State) -> str:
    again = how_to_log_in(profile)
    if state is State.REAUTH_REQUIRED:
        return again
    if profile.refresh is not None and state in (State.EXPIRING, State.EXPIRED):
        return f"it is refreshed by itself; should that go on failing, {again}"
    if state is State.MISSING and not profile.workload:
        return "bring its source back"
    mode = Mode.WIF if profile.workload else profile.mode
    kept = how_to_recover(profile.id, state=state, mode=mode, source=profile.source, agent=profile.agent)
    end = f", then correct or remove {profile.declared.where}" if state is State.EXPIRED and profile.declared else ""
    return f"{kept}{end}"


def _of_shadows(shadowed: Iterable[Shadowed]) -> Iterator[Finding]:
    for shadow in shadowed:
        if shadow.profile.secret != shadow.by.secret and not shadow.older:
            severity = Severity.WARNING if shadow.contested else Severity.INFO
            yield Finding(severity=severity, subject=shadow.profile.id, message=hides(shadow), remedy=choice(shadow))


def hides(shadow: Shadowed) -> str:
    """What hides what."""
    why = ", because it has the name of the id or held the id first" if shadow.contested else ""
    return f"{shadow.by.origin} hides another value in {shadow.profile.origin}{why}"


def choice(shadow: Shadowed) -> str:
    """How a person says which one is meant."""
    if shadow.contested:
        return f"rename or remove one of them, or name the right place in profiles.{shadow.profile.id}.from"
    return "remove the one that is not meant, or change the order of `sources`"
