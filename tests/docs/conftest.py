"""The brokers of the journeys, for documents that are executed."""

from tests.journeys.conftest import make_broker, running_broker, shared_broker

__all__ = ["make_broker", "running_broker", "shared_broker"]
