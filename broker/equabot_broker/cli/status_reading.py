"""Builds a report on an agent's credentials, from a running broker or else from the sources."""

from argparse import Namespace
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from equabot_cli.connecting import addressed, admin, broker, optional
from equabot_cli.surroundings import now

if TYPE_CHECKING:
    from equabot_broker.bootstrap.survey import Survey
    from equabot_broker.cli.status_report import StatusReport
    from equabot_broker.config.model import Config
    from equabot_broker.diagnosis.statuses import ProfileStatus
    from equabot_client import Profile
    from equabot_client.admin import Finding

_FAULTS_SHOWN = 20
_ANSWERS_WITHIN = 2.0
"""Seconds for each call of `doctor` to a running broker."""


def read_status(args: Namespace, config: "Config", agent: str) -> "StatusReport":
    """The report on an agent's credentials, from a running broker or else from the sources. Raises Failure."""
    return _from_broker(args, config, agent) or _surveyed(config, agent)


def _from_broker(args: Namespace, config: "Config", agent: str) -> "StatusReport | None":
    """The report of a running broker, through the admin socket or else the agent's. None if no broker runs."""
    from equabot_broker.cli.status_report import StatusReport, StatusTrouble  # noqa: PLC0415

    if not addressed(args):
        with admin(args) as operator, optional():
            found = _statuses(operator.list_profiles(agent=agent).get(agent, ()))
            sources = operator.sources()
            troubles = [StatusTrouble(source.name, source.fault) for source in sources if source.fault]
            places = tuple(f"{source.name.partition(' ')[2]} " for source in sources if " " in source.name)
            noted = (one for one in operator.findings() if one.severity == "info" and one.subject.startswith(places))
            troubles += [StatusTrouble(one.subject, _less(one.message, one.subject)) for one in islice(noted, _FAULTS_SHOWN)]
            return StatusReport(
                config=config, agent=agent, profiles=found, troubles=troubles, broker=operator.address, now=now()
            )
    with broker(args) as connected, optional():
        found = _statuses(connected.list_profiles())
        return StatusReport(config=config, agent=agent, profiles=found, troubles=[], broker=connected.address, now=now())
    return None


def read_all(args: Namespace, config: "Config") -> "tuple[Survey, list[StatusReport], tuple[Finding, ...]]":
    """The survey of the sources here, a report for each agent (of the running broker, if any), and the broker's findings.

    A broker that listens and does not answer is the only finding.
    """
    import asyncio  # noqa: PLC0415

    from equabot_broker.bootstrap.survey import survey  # noqa: PLC0415
    from equabot_broker.cli.status_report import StatusReport  # noqa: PLC0415
    from equabot_client.admin import Finding  # noqa: PLC0415
    from equabot_client.errors import DeadlineExceeded  # noqa: PLC0415

    statuses: Mapping[str, list[ProfileStatus]] = {}
    address = ""
    findings: tuple[Finding, ...] = ()
    with admin(args, timeout=_ANSWERS_WITHIN) as operator, optional():
        try:
            found_there = operator.findings()
            statuses = {agent: _statuses(profiles) for agent, profiles in operator.list_profiles().items()}
        except DeadlineExceeded:
            message = f"a broker listens there and does not answer within {_ANSWERS_WITHIN:g} s: doctor read the sources itself"
            remedy = "look at its log, then restart it"
            findings = (Finding(severity="error", subject=operator.address, message=message, remedy=remedy),)
        else:
            address, findings = operator.address, found_there
    found = asyncio.run(survey(config, answered=bool(address)))
    reports = [
        StatusReport(config=config, agent=agent, profiles=profiles, troubles=(), broker=address, now=now())
        for agent, profiles in (statuses if address else found.statuses).items()
    ]
    return found, reports, findings


def _surveyed(config: "Config", agent: str) -> "StatusReport":
    """The report that a broker would give: each source is read once."""
    import asyncio  # noqa: PLC0415

    from equabot_broker.bootstrap.survey import survey  # noqa: PLC0415
    from equabot_broker.cli.status_report import StatusReport, StatusTrouble  # noqa: PLC0415

    found = asyncio.run(survey(config))
    faults = ((source.name, source.faults()[:_FAULTS_SHOWN]) for source in found.sources)
    troubles = [StatusTrouble(name, "; ".join(fault.message for fault in shown)) for name, shown in faults if shown]
    noted = (note for source in found.sources for note in source.notes())
    troubles += [StatusTrouble(note.where, _less(note.message, note.where)) for note in islice(noted, _FAULTS_SHOWN)]
    return StatusReport(
        config=config, agent=agent, profiles=found.statuses.get(agent, []), troubles=troubles, broker="", now=now()
    )


def _less(message: str, where: str) -> str:
    return message.removeprefix(where).lstrip(": ")


def _statuses(profiles: Iterable["Profile"]) -> "list[ProfileStatus]":
    """Converts the client library's profiles to the domain's."""
    from dataclasses import fields  # noqa: PLC0415

    from equabot_broker.diagnosis.statuses import ProfileStatus  # noqa: PLC0415

    names = {field.name for field in fields(ProfileStatus)}
    converted = ({each.name: _epoch(getattr(profile, each.name)) for each in fields(profile)} for profile in profiles)
    return [ProfileStatus(**{name: value for name, value in known.items() if name in names}) for known in converted]


def _epoch(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, Mapping):
        return {name: _epoch(instant) for name, instant in value.items()}
    return 0.0 if value is None else value
