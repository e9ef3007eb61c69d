"""The connection to a broker, blocking and awaitable. It opens at the first call.

Whoever calls owns the retries: gRPC's own are off, and a channel whose connection failed tries again within 100 ms, so
that a broker that comes back on the same socket is noticed at once. Nothing but EquabotError is raised here.
"""

import asyncio
import os
import threading
from contextlib import suppress
from functools import cached_property
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from equabot_client import _convert, _fork, errors
from equabot_client._address import is_socket, resolve, socket_path
from equabot_client._convert import Ask
from equabot_client._lease import LeaseEvent, LeaseRequest
from equabot_client._ownership import Ownership, named_user
from equabot_client._security import Files, Stamp

T = TypeVar("T")
_NOTHING: Final[Any] = b""
_WAKES_WITHIN: Final = 1.0

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),  # the backoff of somebody else's channel is not ours
    ("grpc.primary_user_agent", "equabot-client"),
)


class _Connection:
    """What both connections share: where it goes, whose it is, whether it is closed; and over TCP, the files behind it."""

    def __init__(self, address: str | None, *, agent: str, files: Files | None = None) -> None:
        self._given, self._agent = address, agent
        self._files = files or Files()
        self._user = named_user(os.environ)
        self._stamp: Stamp | None = None
        self._older: list[Any] = []
        self._changing = threading.Lock()
        self._closed = False
        _fork.register(self)
        if address or os.environ.get("EQUABOT_BROKER_ADDRESS"):
            _ = self.target  # what is wrong with it is said at once

    @cached_property
    def target(self) -> str:
        """Where the broker is. Settled at the first call, because a default depends on which sockets there are."""
        return resolve(self._given, agent=self._agent, environ=os.environ, identified=self._files.identify)

    @cached_property
    def _ownership(self) -> Ownership | None:
        return Ownership(socket_path(self.target), named=self._user) if is_socket(self.target) else None

    @cached_property
    def _secured(self) -> bool:
        return bool(self._files) and not is_socket(self.target)

    def _opened(self, insecure: Any, secure: Any) -> Any:
        if not self._secured:
            return insecure(self.target, options=_OPTIONS)
        stamp = self._files.stamp()
        channel = secure(self.target, self._files.credentials(), options=_OPTIONS)
        self._stamp = stamp
        return channel

    def _renewed(self) -> list[Any]:
        """Where a certificate was renewed the next call opens another connection. Calls of now go on on that of before. Returns
        older ones, for the caller to close."""
        if self._stamp is not None and self._files.stamp() != self._stamp:
            with self._changing:
                if self._files.stamp() != self._stamp:
                    self._stamp = None
                    self.__dict__.pop("_stub", None)
                    before, self._older = self._older, self._in_use()
                    return before
        return []

    def _in_use(self) -> list[Any]:
        """Takes away the connection of now, where there is one."""
        return [self.__dict__.pop("_channel")] if "_channel" in self.__dict__ else []

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...] | None:
        return self._files.metadata() if self._secured else None

    def before_fork(self) -> None:
        """Nothing to do where no thread reads."""

    def after_fork(self) -> list[Any]:
        """The child opens a connection of its own. Returns those of the parent."""
        parents = [*self._older, *self._in_use(), self.__dict__.pop("_stub", None)]
        self._changing, self._stamp, self._older = threading.Lock(), None, []
        return parents

    def _check(self) -> None:
        if self._closed:
            raise errors.CredentialClosed("this broker was closed: call connect() again")
        _check_event_loop()
        if self._ownership is not None:
            self._ownership.check()


def _check_event_loop() -> None:
    """gRPC's thread for event loops is inside gRPC at every moment, so its handlers of a fork are skipped once that thread
    runs. In a child a call might wait without end. Raises Forked."""
    if _event_loops not in ([], [os.getpid()]):
        raise errors.Forked(
            "equabot_client.aio was used before os.fork(), after which gRPC cannot be used in the child: fork before the"
            " first use of equabot_client.aio, or start the process with the method spawn"
        )


_event_loops: Final[list[int]] = []
"""The process in which a connection for an event loop was opened first. gRPC's thread for it does not survive a fork."""


class Stream:
    """The events of one streamed lease."""

    def __init__(self, call: Any, target: str) -> None:
        self._call, self._target = call, target

    def read(self) -> LeaseEvent | None:
        """The next event, None after the last. Waits without a limit of its own: `cancel` ends the wait."""
        try:
            with _fork.calling():
                message = next(self._call)
            return _convert.event(message)
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
        with _fork.calling():
            self._call.cancel()


class Channel(_Connection):
    """A blocking connection, for any number of threads."""

    _streams = False
    _woken: Any = None

    @cached_property
    def _channel(self) -> grpc.Channel:
        channel: grpc.Channel = self._opened(grpc.insecure_channel, grpc.secure_channel)
        _fork.watch()
        return channel

    @cached_property
    def _stub(self) -> BrokerStub:
        return BrokerStub(self._channel)

    def ask(self, ask: Ask[T], *, timeout: float) -> T:
        """The answer, within so many seconds."""
        self._ready()
        try:
            with _fork.calling():
                answer = getattr(self._stub, ask.method)(ask.request, timeout=timeout, metadata=self._metadata)
            return ask.read(answer)
        except grpc.RpcError as raised:
            raise _convert.error(raised, self.target) from None
        except ValueError:  # so says a channel that was closed meanwhile
            self._check()
            raise

    def stream(self, request: LeaseRequest) -> Stream:
        """Begins a stream. Nothing is waited for: a failure shows at the first read."""
        self._ready()
        self._streams = True
        try:
            with _fork.calling():
                call = self._stub.StreamLease(_convert.acquire_request(request), metadata=self._metadata)
            return Stream(call, self.target)
        except ValueError:
            self._check()
            raise

    def close(self) -> None:
        """Ends every call and the connection. Idempotent."""
        self._closed = True
        for channel in (*self._older, *self._in_use()):
            channel.close()

    def before_fork(self) -> None:
        """Wakes the thread that reads this connection: a call whose time is over is an event for it, and sends nothing. Twice,
        because after one fork gRPC takes the thread for one that waits until it runs again."""
        if self._streams and "_channel" in self.__dict__:
            with suppress(ValueError, grpc.FutureTimeoutError):  # closed by another thread, or not awake
                self._wake().exception(timeout=_WAKES_WITHIN)
                self._woken = self._wake()

    def _wake(self) -> Any:
        return self._channel.unary_unary("/equabot.client/Wake").future(_NOTHING, timeout=0)

    def after_fork(self) -> list[Any]:
        woken, self._woken, self._streams = self._woken, None, False
        return [*super().after_fork(), woken]

    def _ready(self) -> None:
        self._check()
        for channel in self._renewed():
            channel.close()


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
        if not _event_loops:
            _event_loops.append(os.getpid())
        channel: grpc.aio.Channel = self._opened(grpc.aio.insecure_channel, grpc.aio.secure_channel)
        return channel

    @cached_property
    def _stub(self) -> BrokerStub:
        return BrokerStub(self._channel)

    async def ask(self, ask: Ask[T], *, timeout: float) -> T:
        """The answer, within so many seconds."""
        await self._ready()
        try:
            return ask.read(await getattr(self._stub, ask.method)(ask.request, timeout=timeout, metadata=self._metadata))
        except grpc.RpcError as raised:
            raise _convert.error(raised, self.target) from None
        except grpc.aio.UsageError:
            self._check()
            raise

    async def stream(self, request: LeaseRequest) -> AsyncStream:
        """Begins a stream. Nothing is waited for: a failure shows at the first read."""
        await self._ready()
        return AsyncStream(self._stub.StreamLease(_convert.acquire_request(request), metadata=self._metadata), self.target)

    async def close(self) -> None:
        """Ends every call and the connection. Idempotent."""
        self._closed = True
        for channel in (*self._older, *self._in_use()):
            await channel.close()

    async def _ready(self) -> None:
        self._check()
        for channel in self._renewed():
            await channel.close()
