"""The broker by script, over TLS on a TCP port: what it demands of callers, and what they show."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from equabot.broker.v1.broker_pb2_grpc import add_BrokerServicer_to_server
from tests.fakes.broker_servicer import FakeBroker
from tests.kubernetes.certificates import Authority, Pair


class SecuredBroker(FakeBroker):
    """Signed by `authority` for these names. `callers` has to have signed for whoever calls, where it is given.

    `shown` are the tokens that came with calls, in order.
    """

    def __init__(
        self, authority: Authority, *, names: Sequence[str] = ("localhost",), callers: Authority | None = None
    ) -> None:
        super().__init__()
        self._pair: Pair = authority.server(*names)
        self._callers = callers
        self._port = 0
        self.shown: list[str | None] = []

    def start(self) -> None:
        """At the same port again."""
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        add_BrokerServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [(self._pair.key, self._pair.certificate)],
            root_certificates=self._callers.pem if self._callers else None,
            require_client_auth=self._callers is not None,
        )
        self._port = self._server.add_secure_port(f"127.0.0.1:{self._port}", credentials)
        self.address = f"localhost:{self._port}"
        self._server.start()

    def trust(self, authority: Authority) -> None:
        """From now on, and after a restart, that one signs for those who call."""
        self._callers = authority
        self.stop()
        self.start()

    def _begin(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        said: Any = context.invocation_metadata() or ()
        self.shown.append(dict(tuple(pair) for pair in said).get("authorization"))
        super()._begin(method, request, context)
