"""What parts outside the engine are notified of. The subscriptions inside the engine are in `engine.wiring`."""

from typing import TYPE_CHECKING

from equabot_broker.engine.wiring import Engine
from equabot_broker.rpc.convert import LeaseMessages
from equabot_broker.telemetry.audit_log import AuditLog

if TYPE_CHECKING:  # the messages of Envoy are loaded only by a broker that has a gateway
    from equabot_broker.envoy.cutting import Cutting
    from equabot_broker.envoy.secret_discovery import SecretServicer


def subscribe(
    engine: Engine,
    *,
    messages: LeaseMessages | None = None,
    audit: AuditLog | None = None,
    cutting: "Cutting | None" = None,
    secrets: "SecretServicer | None" = None,
) -> None:
    """Subscribes those that are given. To be called before any of them is asked something."""
    if messages is not None:
        engine.registry.listeners.append(messages.forget)
    if audit is not None:
        audit.changed = engine.readiness.look_again
    if cutting is not None:
        engine.suspensions.listeners.append(cutting.agent_changed)
        engine.lease_table.endings.append(cutting.lease_ended)
        engine.registry.listeners.append(cutting.profiles_changed)
    if secrets is not None:
        engine.suspensions.listeners.append(secrets.agent_changed)
        engine.registry.listeners.append(secrets.profiles_changed)
        engine.ingest.listeners.append(secrets.look_again)
