"""The connection to a broker, blocking and awaitable. It opens at the first call.

Whoever calls owns the retries: gRPC's own are off, and a channel whose connection failed tries again within 100 ms, so
that a broker that comes back on the same socket is noticed at once. Nothing but EquabotError is raised here.
"""

import asyncio
import os
import threading
from functools import cached_property
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from equabot_client import _convert, errors
from equabot_client._address import resolve
from equabot_client._convert import Ask
from equabot_client._lease import LeaseEvent, LeaseRequest

T = TypeVar("T")

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),  # the backoff of somebody else's channel is not ours
    ("grpc.primary_user_agent", "equabot-client"),
)


class _Connection:
    """What both connections share: where it goes, whose it is, whether it is closed."""

    def __init__(self, address: str | None, *, agent: str) -> None:
        self._given, self._agent = address, agent
        self._closed = False
        if address or os.environ.get("EQUABOT_BROKER_ADDRESS"):
            _ = self.target  # what is wrong with it is said at once

    @cached_property
    def target(self) -> str:
        """Where the broker is. Settled at the first call, because a default depends on which sockets there are."""
        return resolve(self._given, agent=self._agent, environ=os.environ)

    @cached_property
    def _pid(self) -> int:
        return os.getpid()

    @property
    def _mine(self) -> bool:
        return self._pid == os.getpid()

    def _check(self) -> None:
        if not self._mine:
            raise errors.Forked(
                "this broker was connected to before os.fork(), which gRPC does not survive: call connect() in the child"
            )
        if self._closed:
            raise errors.CredentialClosed("this broker was closed: call connect() again")


class Stream:
    """The events of one streamed lease."""

    def __init__(self, call: Any, target: str) -> None:
        self._call, self._target = call, target

    def read(self) -> LeaseEvent | None:
        """The next event, None after the last. Waits without a limit of its own: `cancel` ends the wait."""
        try:
            return _convert.event(next(self._call))
        except StopIteration:
            return None
        except grpc.RpcError as raised:
            raise _convert.error(raised, self._target) from None

    def read_first(self, *, timeout: float) -> LeaseEvent | None:
        """As `read`, within so many seconds."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.cancel()

        alarm = threading.Timer(timeout, give_up)
        alarm.start()
        try:
            return self.read()
        except errors.BrokerUnavailable:
            if not late.is_set():
                raise
            raise errors.DeadlineExceeded(f"the broker at {self._target} did not answer within {timeout:g} s") from None
        finally:
            alarm.cancel()

    def cancel(self) -> None:
        """Ends the stream, and with it its lease. From any thread, any number of times."""
        self._call.cancel()


class Channel(_Connection):
    """A blocking connection, for any number of threads."""

    @cached_property
    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.target, options=_OPTIONS)

    @cached_property
    def _stub(self) -> BrokerStub:
        return BrokerStub(self._channel)

    def ask(self, ask: Ask[T], *, timeout: float) -> T:
        """The answer, within so many seconds."""
        self._check()
        try:
            return ask.read(getattr(self._stub, ask.method)(ask.request, timeout=timeout))
        except grpc.RpcError as raised:
            raise _convert.error(raised, self.target) from None
        except ValueError:  # so says a channel that was closed meanwhile
            self._check()
            raise

    def stream(self, request: LeaseRequest) -> Stream:
        """Begins a stream. Nothing is waited for: a failure shows at the first read."""
        self._check()
        try:
            return Stream(self._stub.StreamLease(_convert.acquire_request(request)), self.target)
        except ValueError:
            self._check()
            raise

    def close(self) -> None:
        """Ends every call and the connection. Idempotent."""
        self._closed = True
        if self._mine and "_channel" in self.__dict__:
            self._channel.close()


class AsyncStream:
    """The events of one streamed lease."""

    def __init__(self, call: Any, target: str) -> None:
        self._call, self._target = call, target

    async def read(self, *, timeout: float | None = None) -> LeaseEvent | None:
        """The next event, None after the last. Where it does not come in time the stream is cancelled: DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout):
                message = await self._call.read()
            return None if message is grpc.aio.EOF else _convert.event(message)
        except TimeoutError:
            raise errors.DeadlineExceeded(f"the broker at {self._target} said nothing for {timeout:g} s") from None
        except grpc.RpcError as raised:
            raise _convert.error(raised, self._target) from None

    def cancel(self) -> None:
        """Ends the stream, and with it its lease. Any number of times."""
        self._call.cancel()


class AsyncChannel(_Connection):
    """An awaitable connection. It belongs to the event loop of its first call."""

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.target, options=_OPTIONS)

    @cached_property
    def _stub(self) -> BrokerStub:
        return BrokerStub(self._channel)

    async def ask(self, ask: Ask[T], *, timeout: float) -> T:
        """The answer, within so many seconds."""
        self._check()
        try:
            return ask.read(await getattr(self._stub, ask.method)(ask.request, timeout=timeout))
        except grpc.RpcError as raised:
            raise _convert.error(raised, self.target) from None
        except grpc.aio.UsageError:
            self._check()
            raise

    def stream(self, request: LeaseRequest) -> AsyncStream:
        """Begins a stream. Nothing is waited for: a failure shows at the first read."""
        self._check()
        return AsyncStream(self._stub.StreamLease(_convert.acquire_request(request)), self.target)

    async def close(self) -> None:
        """Ends every call and the connection. Idempotent."""
        self._closed = True
        if self._mine and "_channel" in self.__dict__:
            await self._channel.close()
