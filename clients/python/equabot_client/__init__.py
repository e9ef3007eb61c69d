"""Client of the Equabot credential broker.

    broker = equabot_client.connect()
    credential = broker.credential("anthropic")
    headers = credential.headers()          # always current

The same for event loops is `equabot_client.aio`; for HTTP clients and SDKs see `equabot_client.httpx` and
`equabot_client.httpx2`; what can go wrong is `equabot_client.errors`.
"""

import equabot_client._fork  # noqa: F401 - first: gRPC decides at its import how it takes a fork
from equabot_client import errors
from equabot_client._lease import EventKind, Lease, LeaseEvent, Outcome, Profile, Wanted
from equabot_client._secret import Secret, SecretMap
from equabot_client._security import Security
from equabot_client.broker import Broker, connect
from equabot_client.credential import Credential
from equabot_client.errors import EquabotError

__all__ = [
    "Broker",
    "Credential",
    "EquabotError",
    "EventKind",
    "Lease",
    "LeaseEvent",
    "Outcome",
    "Profile",
    "Secret",
    "SecretMap",
    "Security",
    "Wanted",
    "connect",
    "errors",
]
