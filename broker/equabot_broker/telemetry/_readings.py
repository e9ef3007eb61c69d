"""The state of the broker at one instant, for the metrics and the status page. A field declares the metrics that show it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.telemetry._audit_anchor import ANCHOR_FAULTS
from equabot_broker.telemetry.metric_declarations import ReadMetric

_NONE: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialGauge:
    """One profile. `expires_at` is in seconds since the epoch. `agent` is empty for a profile of all agents."""

    profile: str
    provider: str
    state: str
    expires_at: float | None = None
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGauge:
    """One source. `sync_age` is the seconds since it was last read in full; None: it never was. `stale`: the source or a part
    of it cannot be read now."""

    source: str
    sync_age: float | None
    stale: bool


def _shown(*metrics: ReadMetric, default: Any) -> Any:
    """A field of `Snapshot` that these metrics show."""
    return field(default_factory=lambda: default, metadata={"metrics": metrics})


def _shows(name: str, help_: str, *labels: str, default: Any) -> Any:
    """A field of `Snapshot` that one metric shows unchanged."""
    return _shown(ReadMetric(name, help_, labels), default=default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the metrics of the broker's state show. The keys of a mapping are the values of the metric's labels."""

    credentials: Sequence[CredentialGauge] = _shown(
        ReadMetric(
            "equabot_credential_expiry_timestamp_seconds",
            "When the credential expires, in seconds since the Unix epoch; absent for a credential without an expiry.",
            ("profile", "provider", "agent"),
            # Ids are unique within an agent, and among the profiles of all agents, which have no label `agent`.
            lambda all_: {(one.profile, one.provider, one.agent): one.expires_at for one in all_ if one.expires_at is not None},
        ),
        ReadMetric(
            "equabot_credential_state",
            "The value 1 for the current state of the credential; other states have no sample.",
            ("profile", "provider", "state", "agent"),
            lambda all_: {(one.profile, one.provider, one.state, one.agent): 1 for one in all_},
        ),
        default=(),
    )
    sources: Sequence[SourceGauge] = _shown(
        ReadMetric(
            "equabot_source_sync_age_seconds",
            "Seconds since the broker last read the source in full; absent until the first time.",
            ("source",),
            lambda all_: {one.source: one.sync_age for one in all_ if one.sync_age is not None},
        ),
        ReadMetric(
            "equabot_source_stale",
            "Whether the broker cannot read the source or a part of it: 1 if so, else 0.",
            ("source",),
            lambda all_: {one.source: one.stale for one in all_},
        ),
        default=(),
    )
    leases: Mapping[tuple[str, str], int] = _shows(
        "equabot_leases_active", "How many leases are active.", "agent", "provider", default=_NONE
    )
    streams: Mapping[str, int] = _shows("equabot_streams_active", "How many streams are open.", "agent", default=_NONE)
    suspended: Mapping[str, bool] = _shows(
        "equabot_agent_suspended", "Whether an operator has suspended the agent: 1 if so, else 0.", "agent", default=_NONE
    )
    store_fault: bool = _shows(
        "equabot_state_store_fault", "Whether the broker cannot store its state: 1 if so, else 0.", default=False
    )
    audit_fault: bool = _shows(
        "equabot_audit_fault", "Whether the broker cannot write the audit log: 1 if so, else 0.", default=False
    )
    anchor_faults: frozenset[str] = _shown(
        ReadMetric(
            "equabot_audit_anchor_fault",
            "Whether the anchor does not confirm the audit log, for the reason in the label: 1 if so, else 0.",
            ("reason",),
            lambda faults: {reason: reason in faults for reason in ANCHOR_FAULTS},
        ),
        default=frozenset(),
    )
    audit_lost: int = _shows("equabot_audit_lost_total", "Counts audit records that were lost.", default=0)
    audit_sequence: int = _shows(
        "equabot_audit_sequence", "The sequence number of the last record in the audit log; it never decreases.", default=0
    )
    config_reload_ok: bool = _shows(
        "equabot_config_last_reload_successful",
        "Whether the broker applied the configuration that it read last: 1 if so, 0 if it refused the configuration.",
        default=True,
    )
    config_reloaded_at: float = _shows(
        "equabot_config_last_reload_success_timestamp_seconds",
        "When the broker read the configuration in effect, in seconds since the Unix epoch.",
        default=0.0,
    )

    def readings(self) -> Iterator[tuple[ReadMetric, object]]:
        """Each metric, with the state that it shows."""
        for one in fields(self):
            for metric in one.metadata["metrics"]:
                yield metric, getattr(self, one.name)
