"""What a broker answers its operator, as sections of the page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from equabot_broker.parsing.untrusted_json import Json
from equabot_client import Profile
from equabot_client.admin import AgentStatus, Finding, LeaseSummary, SourceStatus

LIMIT: Final = 300
"""Profiles, leases and findings that are shown; the rest is counted."""
_LONGEST: Final = 500
WORST_FIRST: Final = ("reauth_required", "rejected", "expired", "missing", "invalid", "cooldown", "expiring", "ok", "static")
_SEVERITIES: Final = ("error", "warning", "info")


class BrokerSilent(Exception):
    """Why the broker's answer is not there, in a sentence with the step to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerReading:
    """All that the admin API answers."""

    profiles: Mapping[str, Sequence[Profile]]
    agents: Sequence[AgentStatus]
    leases: Sequence[LeaseSummary]
    sources: Sequence[SourceStatus]
    findings: Sequence[Finding]


ReadBroker = Callable[[], BrokerReading]
"""Blocks until the broker has answered. Raises BrokerSilent."""


def view(reading: BrokerReading, *, now: float) -> Json:
    """The answer for the page: instants in seconds since the epoch, credentials worst first."""
    profiles = sorted(_profiles(reading.profiles, now=now), key=_rank)
    findings = sorted(reading.findings, key=lambda one: _SEVERITIES.index(one.severity))
    return {
        "profiles": profiles[:LIMIT],
        "profileCount": len(profiles),
        "agents": [_agent(agent) for agent in reading.agents[:LIMIT]],
        "agentCount": len(reading.agents),
        "leases": [_lease(lease) for lease in reading.leases[:LIMIT]],
        "leaseCount": len(reading.leases),
        "sources": [
            {
                "name": source.name,
                "state": source.state,
                "fault": source.fault[:_LONGEST],
                "profiles": source.profiles,
                "syncedAt": _seconds(source.synced_at),
            }
            for source in reading.sources[:LIMIT]
        ],
        "findings": [
            {
                "severity": one.severity,
                "subject": one.subject[:_LONGEST],
                "message": one.message[:_LONGEST],
                "remedy": one.remedy[:_LONGEST],
            }
            for one in findings[:LIMIT]
        ],
        "findingCount": len(findings),
    }


def _profiles(by_agent: Mapping[str, Sequence[Profile]], *, now: float) -> Iterable[Json]:
    """One entry for all agents that see the same credential. `withheld` says why some of them are not granted one that others
    are."""
    merged: dict[tuple[object, ...], Json] = {}
    for agent, profiles in by_agent.items():
        for one in profiles:
            shown = _profile(one, now=now)
            entry = merged.setdefault(
                tuple(map(str, shown.values())),
                {**shown, "reason": one.reason[:_LONGEST], "agents": [], "next": [], "withheld": []},
            )
            entry["agents"].append(agent)
            if one.next:
                entry["next"].append(agent)
            if one.usable:
                entry["reason"] = one.reason[:_LONGEST]
            elif one.state in ("ok", "expiring"):
                entry["withheld"].append({"agent": agent, "reason": one.reason[:_LONGEST]})
    return merged.values()


def _profile(one: Profile, *, now: float) -> Json:
    blocked = max((until for until in (one.cooldown_until, one.disabled_until) if until), default=None)
    condition = one.state
    if condition in ("ok", "expiring") and blocked is not None and blocked.timestamp() > now:
        condition = "cooldown"
    elif condition == "ok" and one.expires_at is None:
        condition = "static"
    return {
        "id": one.id,
        "provider": one.provider,
        "mode": one.mode,
        "source": one.source[:_LONGEST],
        "state": one.state,
        "condition": condition,
        "expiresAt": _seconds(one.expires_at),
        "cooldownUntil": _seconds(one.cooldown_until),
        "disabledUntil": _seconds(one.disabled_until),
        "disabledReason": one.disabled_reason[:_LONGEST],
        "retryAt": _seconds(one.retry_at),
        "version": one.version,
    }


def _rank(entry: Json) -> tuple[int, float, str]:
    condition = entry["condition"]
    place = WORST_FIRST.index(condition) if condition in WORST_FIRST else 0
    return place, entry["expiresAt"] or float("inf"), entry["id"]


def _agent(agent: AgentStatus) -> Json:
    return {
        "agent": agent.agent,
        "suspended": agent.suspended,
        "since": _seconds(agent.since),
        "reason": agent.reason,
        "leases": agent.leases,
        "streams": agent.streams,
        "maxLeases": agent.max_leases,
        "configured": agent.configured,
        "providers": list(agent.providers),
        "deliveries": list(agent.deliveries),
    }


def _lease(lease: LeaseSummary) -> Json:
    return {
        "agent": lease.agent,
        "session": lease.session[:_LONGEST],
        "profile": lease.profile,
        "delivery": lease.delivery,
        "streaming": lease.streaming,
        "issuedAt": _seconds(lease.issued_at),
        "expiresAt": _seconds(lease.expires_at),
        "maxExpiresAt": _seconds(lease.max_expires_at),
    }


def _seconds(instant: datetime | None) -> float | None:
    return None if instant is None else round(instant.timestamp(), 3)
