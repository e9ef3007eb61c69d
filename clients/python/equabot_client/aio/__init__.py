"""The same client for event loops: `broker = equabot_client.aio.connect()`."""

from equabot_client.aio.broker import AsyncBroker, connect
from equabot_client.aio.credential import AsyncCredential

__all__ = ["AsyncBroker", "AsyncCredential", "connect"]
