"""The operator's side of a broker: every agent's leases and profiles. Served on the admin socket alone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Self

from google.protobuf.timestamp_pb2 import Timestamp

from equabot.broker.v1 import admin_pb2 as pb
from equabot.broker.v1.admin_pb2_grpc import AdminStub
from equabot.broker.v1.broker_pb2 import ListProfilesResponse
from equabot_client import _convert
from equabot_client._address import resolve
from equabot_client._client import Channel
from equabot_client._convert import Ask
from equabot_client._lease import Profile

_ADMIN: Final = "admin"
_PAGE: Final = 1000
_RELOADS_WITHIN: Final = 45.0
_SEVERITIES: Final = {pb.Finding.INFO: "info", pb.Finding.WARNING: "warning", pb.Finding.ERROR: "error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSummary:
    """A lease without its material, and whose it is. `streaming`: a stream holds it."""

    id: str
    agent: str
    session: str
    provider: str
    profile: str
    delivery: str
    streaming: bool
    issued_at: datetime
    expires_at: datetime
    max_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """One agent: whether and since when it is suspended and why, how many leases it holds (`streams`: by streams), and what its
    policy allows. `configured`: whether the broker's configuration names it; where not, the policy is empty."""

    agent: str
    suspended: bool
    since: datetime | None
    reason: str
    leases: int
    streams: int
    configured: bool
    providers: tuple[str, ...]
    profiles: tuple[str, ...]
    deliveries: tuple[str, ...]
    max_leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """A place where the broker finds credentials. `state`: `synced`, `stale` or `pending`; `fault`: what is wrong there and
    what to do, empty for nothing."""

    name: str
    state: str
    fault: str
    synced_at: datetime | None
    profiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an operator should know: `severity` (`info`, `warning`, `error`), what it is about (a profile id, a
    source, a file), what is the matter, and the step to take."""

    severity: str
    subject: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What came of reading the configuration again. With `faults` or a `refusal` nothing has changed; else `changes`
    say what is different, and `revoked` how many leases ended for it."""

    faults: tuple[str, ...]
    refusal: str
    changes: tuple[str, ...]
    revoked: int


def connect(address: str | None = None, *, timeout: float = 10.0) -> "Admin":
    """The admin API, which is spoken to when it is first asked something.

    `address`: `unix:/path/broker.sock` or a path; default the admin socket in the run directory (`EQUABOT_BROKER_ADDRESS` is
    an agent's). Raises ValueError for what cannot be an address.
    """
    return Admin(_AdminChannel(address, agent=_ADMIN), timeout=timeout)


class Admin:
    """The admin API. Any thread may use it. Every method raises EquabotError, by reason, and answers within the timeout."""

    def __init__(self, channel: Channel, *, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout

    @property
    def address(self) -> str:
        """Where the broker is."""
        return self._channel.target

    def list_leases(self, *, agent: str = "", provider: str = "", profile: str = "") -> list[LeaseSummary]:
        """The living leases that match all that is given, oldest first."""
        found: list[LeaseSummary] = []
        token = ""
        while True:
            request = pb.ListLeasesRequest(agent=agent, provider=provider, profile=profile, page_size=_PAGE, page_token=token)
            page, token = self._channel.ask(Ask("ListLeases", request, _leases), timeout=self._timeout)
            found += page
            if not token:
                return found

    def revoke_leases(self, *, lease_id: str = "", agent: str = "", provider: str = "", profile: str = "") -> int:
        """Ends every lease that matches all that is given, which is at least one thing. Returns how many there were."""
        request = pb.RevokeLeasesRequest(lease_id=lease_id, agent=agent, provider=provider, profile=profile)
        return self._channel.ask(Ask("RevokeLeases", request, _revoked), timeout=self._timeout)

    def clear_profile(self, profile: str, *, version: int = 0) -> tuple[str, ...]:
        """Ends cooldowns, billing disable and rejection of a profile, for every agent: only what was met with that `version` of
        its material, 0 meaning any. Returns what ended: `cooldown`, `disable`, `rejection`."""
        request = pb.ClearCooldownRequest(profile=profile, version=version)
        return self._channel.ask(Ask("ClearCooldown", request, _ended), timeout=self._timeout)

    def list_agents(self) -> list[AgentStatus]:
        """Every configured agent, and every suspended agent that the configuration does not name any more, by name."""
        return self._channel.ask(Ask("ListAgents", pb.ListAgentsRequest(), _agents), timeout=self._timeout)

    def suspend_agent(self, agent: str, *, reason: str = "") -> tuple[AgentStatus, int]:
        """Suspends an agent until it is resumed, across restarts. Returns the agent, and how many of its leases ended. Raises
        StateUnavailable where the agent is suspended but a restart of the broker would forget it."""
        request = pb.SuspendAgentRequest(agent=agent, reason=reason)
        return self._channel.ask(Ask("SuspendAgent", request, _suspended), timeout=self._timeout)

    def resume_agent(self, agent: str) -> tuple[AgentStatus, bool]:
        """Lets a suspended agent act again. Returns the agent, and whether it was suspended. Raises StateUnavailable where the
        agent is resumed but is suspended again after a restart of the broker."""
        return self._channel.ask(Ask("ResumeAgent", pb.ResumeAgentRequest(agent=agent), _resumed), timeout=self._timeout)

    def list_profiles(self, *, agent: str = "", provider: str = "") -> Mapping[str, tuple[Profile, ...]]:
        """The candidates of every agent, or of one, in the order in which it would try them."""
        request = pb.ListAllProfilesRequest(agent=agent, provider=provider)
        return self._channel.ask(Ask("ListAllProfiles", request, _by_agent), timeout=self._timeout)

    def sources(self) -> tuple[SourceStatus, ...]:
        """Every source, and how it fares."""
        return self._channel.ask(Ask("Diagnose", pb.DiagnoseRequest(), _sources), timeout=self._timeout)

    def findings(self) -> tuple[Finding, ...]:
        """Everything that is wrong, or worth knowing, as the running broker sees it."""
        return self._channel.ask(Ask("Diagnose", pb.DiagnoseRequest(), _findings), timeout=self._timeout)

    def accept_audit_log(self) -> str:
        """Accepts that the audit log may not be what a broker wrote: its anchor was lost, or does not fit. Returns what was
        accepted; empty where there was nothing to accept."""
        return self._channel.ask(Ask("AcceptAuditLog", pb.AcceptAuditLogRequest(), _accepted), timeout=self._timeout)

    def reload(self) -> Reload:
        """Makes the broker read its configuration again, and then every source. Returns what came of it, refused or not."""
        return self._channel.ask(Ask("Reload", pb.ReloadRequest(), _reload), timeout=_RELOADS_WITHIN)

    def close(self) -> None:
        """Closes the connection. Idempotent."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.address}>"


class _AdminChannel(Channel):
    @cached_property
    def target(self) -> str:
        environ = {name: value for name, value in os.environ.items() if name != "EQUABOT_BROKER_ADDRESS"}
        return resolve(self._given, agent=_ADMIN, environ=environ)

    @cached_property
    def _stub(self) -> Any:
        return AdminStub(self._channel)


def _leases(message: pb.ListLeasesResponse) -> tuple[list[LeaseSummary], str]:
    return [_summary(lease) for lease in message.leases], message.next_page_token


def _accepted(message: pb.AcceptAuditLogResponse) -> str:
    return message.accepted


def _summary(message: pb.LeaseSummary) -> LeaseSummary:
    return LeaseSummary(
        id=message.id,
        agent=message.agent,
        session=message.session,
        provider=message.provider,
        profile=message.profile,
        delivery=message.delivery,
        streaming=message.streaming,
        issued_at=_instant(message.issued_at),
        expires_at=_instant(message.expires_at),
        max_expires_at=_instant(message.max_expires_at),
    )


def _ended(message: pb.ClearCooldownResponse) -> tuple[str, ...]:
    return tuple(message.ended)


def _revoked(message: pb.RevokeLeasesResponse) -> int:
    return message.revoked


def _agents(message: pb.ListAgentsResponse) -> list[AgentStatus]:
    return [_agent(agent) for agent in message.agents]


def _suspended(message: pb.SuspendAgentResponse) -> tuple[AgentStatus, int]:
    return _agent(message.agent), message.revoked


def _resumed(message: pb.ResumeAgentResponse) -> tuple[AgentStatus, bool]:
    return _agent(message.agent), message.resumed


def _agent(message: pb.AgentStatus) -> AgentStatus:
    return AgentStatus(
        agent=message.agent,
        suspended=message.suspended,
        since=_instant(message.since) if message.HasField("since") else None,
        reason=message.reason,
        leases=message.leases,
        streams=message.streams,
        configured=message.configured,
        providers=tuple(message.providers),
        profiles=tuple(message.profiles),
        deliveries=tuple(message.deliveries),
        max_leases=message.max_leases,
    )


def _reload(message: pb.ReloadResponse) -> Reload:
    return Reload(
        faults=tuple(message.faults), refusal=message.refusal, changes=tuple(message.changes), revoked=message.revoked
    )


def _by_agent(message: pb.ListAllProfilesResponse) -> Mapping[str, tuple[Profile, ...]]:
    return {found.agent: _convert.profiles(ListProfilesResponse(profiles=found.profiles)) for found in message.agents}


def _sources(message: pb.DiagnoseResponse) -> tuple[SourceStatus, ...]:
    return tuple(
        SourceStatus(
            name=source.name,
            state=source.state,
            fault=source.fault,
            synced_at=_instant(source.synced_at) if source.HasField("synced_at") else None,
            profiles=source.profiles,
        )
        for source in message.sources
    )


def _findings(message: pb.DiagnoseResponse) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            severity=_SEVERITIES.get(found.severity, "warning"),
            subject=found.subject,
            message=found.message,
            remedy=found.remedy,
        )
        for found in message.findings
    )


def _instant(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
