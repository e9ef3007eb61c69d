"""Converts the engine's answers to messages. Secrets leave the broker here. Protobuf prints the fields of a message, so no
message is ever logged."""

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_broker.diagnosis.findings import Finding, Severity
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.credentials import headers, sdk_env, token_env, token_headers
from equabot_broker.domain.errors import DeliveryNotAllowed, NoUsableProfile
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import HeldProfile, SourceState
from equabot_broker.domain.policies import NO_GATEWAY, AgentPolicy
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.suspension import Suspension
from equabot_broker.engine.leases.messages import Grant
from equabot_broker.engine.leases.streams import Notice
from equabot_broker.engine.profiles.registry import Key

_TEMPLATES_KEPT: Final = 1024
_LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999, the latest instant on the wire."""
_SEVERITIES: Final = {
    Severity.INFO: admin_pb2.Finding.INFO,
    Severity.WARNING: admin_pb2.Finding.WARNING,
    Severity.ERROR: admin_pb2.Finding.ERROR,
}


class LeaseMessages:
    """Makes `Lease` and `LeaseEvent` messages.

    Leases on the same material share one template. `forget` must be called for every change of material, so that no secret
    stays here after the broker has dropped it. `vendor_urls` are the addresses that the vendors' own SDKs use, by provider id:
    only another address needs an environment variable. `gateway_url` is the address for brokered requests, without a slash at
    its end.
    """

    def __init__(self, vendor_urls: Mapping[str, str], *, gateway_url: str = "") -> None:
        self._vendor_urls = vendor_urls
        self._gateway_url = gateway_url
        self._templates: dict[Key, tuple[HeldProfile, Provider, broker_pb2.Lease]] = {}

    def forget(self, keys: Iterable[Key]) -> None:
        """Drops the templates of these profiles."""
        for key in keys:
            self._templates.pop(key, None)

    def lease(self, granted: Grant) -> broker_pb2.Lease:
        """The whole lease, with its secret. Raises NoUsableProfile, DeliveryNotAllowed."""
        message = broker_pb2.Lease()
        self._fill(message, granted)
        return message

    def event(self, notice: Notice) -> broker_pb2.LeaseEvent:
        """The event, with the present lease unless it has ended."""
        message = broker_pb2.LeaseEvent(
            kind=broker_pb2.LeaseEvent.Kind.Value(notice.kind.value), reason=notice.reason, lease_id=notice.lease_id
        )
        if notice.grant is not None:
            self._fill(message.lease, notice.grant)
        return message

    def _fill(self, message: broker_pb2.Lease, granted: Grant) -> None:
        lease, offset = granted.lease, granted.offset
        if lease.brokered:
            self._fill_brokered(message, granted)
        else:
            message.CopyFrom(self._template(granted))
        message.id = lease.id
        message.renewable = granted.renewable
        message.notice = granted.notice
        _stamp(message.issued_at, lease.issued_at + offset)
        _stamp(message.expires_at, lease.expires_at + offset)
        _stamp(message.max_expires_at, lease.max_expires_at + offset)

    def _fill_brokered(self, message: broker_pb2.Lease, granted: Grant) -> None:
        """Puts the token in place of the credential, and the gateway in place of the vendor. The gateway adds what else the
        vendor needs."""
        if not self._gateway_url:
            raise DeliveryNotAllowed(f"delivery 'brokered' is not available: {NO_GATEWAY}")
        profile, provider = granted.held.profile, granted.provider
        message.provider = profile.provider
        message.profile = profile.id
        message.mode = profile.mode.value
        message.delivery = granted.lease.delivery.value
        message.base_url = f"{self._gateway_url}/{provider.id}"
        message.version = granted.held.version
        if granted.token is not None:
            message.secret = granted.token.reveal()
            message.headers.update(token_headers(provider, granted.token))
            message.env.update(token_env(provider, granted.token, message.base_url))

    def _template(self, granted: Grant) -> broker_pb2.Lease:
        profile = granted.held.profile
        key = (profile.agent, profile.id)
        known = self._templates.get(key)
        if known is not None and known[0] is granted.held and known[1] is granted.provider:
            return known[2]
        made = self._make(granted)
        while len(self._templates) >= _TEMPLATES_KEPT:
            del self._templates[next(iter(self._templates))]
        self._templates[key] = (granted.held, granted.provider, made)
        return made

    def _make(self, granted: Grant) -> broker_pb2.Lease:
        held, profile, provider = granted.held, granted.held.profile, granted.provider
        if profile.secret is None:
            raise NoUsableProfile(f"profile {profile.id!r} cannot be used: {profile.fault}")
        other_url = provider.base_url if provider.base_url != self._vendor_urls.get(provider.id) else ""
        message = broker_pb2.Lease(
            provider=profile.provider,
            profile=profile.id,
            mode=profile.mode.value,
            delivery=granted.lease.delivery.value,
            secret=profile.secret.reveal(),
            headers=headers(provider, profile, profile.secret),
            env=sdk_env(provider, profile.mode, profile.secret, other_url),
            base_url=provider.base_url,
            version=held.version,
        )
        if profile.expires_at is not None:
            _stamp(message.credential_expires_at, profile.expires_at)
        return message


def profile_status(status: ProfileStatus) -> broker_pb2.ProfileStatus:
    """The public fields of a profile."""
    message = broker_pb2.ProfileStatus(
        id=_plain(status.id),
        provider=status.provider,
        mode=status.mode,
        source=_plain(status.source),
        state=status.state,
        reason=_plain(status.reason),
        next=status.next,
        usable=status.usable,
        pinned=status.pinned,
        label=_plain(status.label),
        disabled_reason=status.disabled_reason,
        base_url=_plain(status.base_url),
        version=status.version,
    )
    for stamp in ("expires_at", "cooldown_until", "disabled_until", "last_used_at", "retry_at"):
        instant = getattr(status, stamp)
        if instant:
            _stamp(getattr(message, stamp), instant)
    for model, until in status.model_cooldowns.items():
        _stamp(message.model_cooldowns[_plain(model)], until)
    return message


def lease_summary(lease: Lease, *, offset: float) -> admin_pb2.LeaseSummary:
    """A lease without its material. `offset` converts its instants to the wall clock."""
    message = admin_pb2.LeaseSummary(
        id=lease.id,
        agent=lease.agent,
        session=lease.session,
        provider=lease.provider,
        profile=_plain(lease.profile),
        delivery=lease.delivery.value,
        streaming=lease.streaming,
    )
    _stamp(message.issued_at, lease.issued_at + offset)
    _stamp(message.expires_at, lease.expires_at + offset)
    _stamp(message.max_expires_at, lease.max_expires_at + offset)
    return message


def agent_status(
    agent: str, policy: AgentPolicy | None, suspension: Suspension | None, *, leases: int, streams: int
) -> admin_pb2.AgentStatus:
    """An agent with the number of its leases; `streams` counts those on streams. Without a policy the agent is not
    configured."""
    message = admin_pb2.AgentStatus(
        agent=agent,
        suspended=suspension is not None,
        leases=leases,
        streams=streams,
        configured=policy is not None,
    )
    if suspension is not None:
        message.reason = suspension.reason
        _stamp(message.since, suspension.since)
    if policy is not None:
        message.providers.extend(sorted(policy.providers))
        message.profiles.extend(map(_plain, sorted(policy.profiles)))
        message.deliveries.extend(delivery.value for delivery in policy.deliveries)
        message.max_leases = policy.max_leases
    return message


def source_status(state: SourceState, *, stale_budget: float) -> admin_pb2.SourceStatus:
    """The state of a source, and how recent it is."""
    whole = int(stale_budget)
    message = admin_pb2.SourceStatus(
        name=_plain(state.name),
        state="pending" if state.synced_at is None else "stale" if state.fault or state.stale_units else "synced",
        fault=_plain("; ".join(map(str, state.faults()[:20]))),
        profiles=sum(len(unit.profiles) for unit in state.units.values()),
        stale_budget=Duration(seconds=whole, nanos=int((stale_budget - whole) * 1e9)),
    )
    if state.synced_at is not None:
        _stamp(message.synced_at, state.synced_at)
    return message


def finding(found: Finding) -> admin_pb2.Finding:
    """A finding for the operator."""
    return admin_pb2.Finding(
        severity=_SEVERITIES[found.severity],
        subject=_plain(found.subject),
        message=_plain(found.message),
        remedy=_plain(found.remedy),
    )


def timestamp(instant: float) -> Timestamp:
    """A timestamp from seconds since the epoch."""
    message = Timestamp()
    _stamp(message, instant)
    return message


def _stamp(message: Timestamp, instant: float) -> None:
    if instant >= _LAST_SECOND:
        message.seconds = _LAST_SECOND
        return
    whole = int(instant)
    message.seconds = whole
    message.nanos = int((instant - whole) * 1e9)


def _plain(text: str) -> str:
    """File names may be invalid UTF-8; strings on the wire must be valid."""
    return text if text.isascii() else text.encode(errors="replace").decode()
