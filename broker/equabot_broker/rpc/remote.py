"""Authenticates callers on other machines: they connect over TLS, and every call identifies its caller. The services are those
of the sockets.

A call is authenticated once. A stream is checked again when the identity expires (a minute for a token, the last day of a
certificate). If that check fails, the stream ends with its error.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn, Protocol, cast

from equabot_broker.domain.callers import CallerProof, Identified
from equabot_broker.domain.errors import BrokerError, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.timing.clock import pause
from equabot_broker.ports import Clock
from equabot_broker.rpc.calls import Call, Chosen, Handler, Service
from equabot_broker.rpc.status import explained
from equabot_broker.telemetry.broker_events import CallerRefused
from equabot_broker.telemetry.events import Events

_BEARER: Final = "bearer "


class CallerIdentities(Protocol):
    """Identifies callers."""

    async def identify(self, shown: CallerProof) -> Identified:
        """The agent of a caller with these credentials. Raises Unidentified, IdentityUnchecked and PolicyDenied. Answers
        within seconds."""


class AuthenticationInterceptor:
    """Authenticates each call, and passes it to the services of its agent."""

    def __init__(self, identities: CallerIdentities, *, clock: Clock, events: Events) -> None:
        self._identities = identities
        self._clock = clock
        self._events = events
        self.identified: Callable[[str], None] = lambda _: None
        self.refused: Callable[[str], None] = lambda _: None
        """Callbacks with the peer of a call whose caller was identified, or was not."""
        self.certificate_of: Callable[[str], str] = lambda _: ""
        """The client certificate of a call's peer, as PEM."""
        self._sooner = asyncio.Event()

    def look_again(self) -> None:
        """The mapping of callers to agents has changed: every open stream is checked now."""
        self._sooner.set()
        self._sooner = asyncio.Event()

    def service(self, agents: Mapping[str, Service]) -> Service:
        """One service that dispatches to the same service of each agent. The mapping may change at any time."""
        one = next(iter(agents.values()))
        return Service(one.descriptor, {name: self._handler(name, agents) for name in one.handlers}, name=one.name)

    def _handler(self, name: str, agents: Mapping[str, Service]) -> Chosen:
        method = next(iter(agents.values())).descriptor.methods_by_name[name]

        async def choose(call: Call) -> Handler:
            caller = await self._let_in(call)
            if (service := agents.get(caller.agent)) is None:
                raise Unidentified("the caller's agent is no longer configured")
            handle = _handler_of(service, name)
            if not method.server_streaming:
                return handle
            return lambda request, call: self._while_known(caller, call, handle(request, call))

        return Chosen(choose)

    async def _let_in(self, call: Call) -> Identified:
        try:
            caller = await self._identities.identify(_shown(call, self.certificate_of(call.peer())))
        except BrokerError as refused:
            self._events.emit(CallerRefused(reason=explained(refused).code.name, words=refused.message))
            self.refused(call.peer())
            raise
        self.identified(call.peer())
        return caller

    async def _while_known(self, caller: Identified, call: Call, answering: Awaitable[None]) -> None:
        """Answers the call as long as its caller is identified. Raises the error that ends it."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(caller, call))
                await answering
                watching.cancel()
        except BaseExceptionGroup as group_:
            ended = group_.exceptions[0]
        else:
            return
        raise ended

    async def _watch(self, caller: Identified, call: Call) -> NoReturn:
        agent = caller.agent
        while True:
            await pause(self._clock, max(caller.until - self._clock.steady(), 0.0), sooner=self._sooner)
            caller = await self._let_in(call)
            if caller.agent != agent:
                raise Unidentified("the caller now maps to another agent: open the stream again")


def _handler_of(service: Service, name: str) -> Handler:
    return cast("Handler", service.handlers[name])  # an agent's services do not choose handlers by headers


def _shown(call: Call, certificate: str) -> CallerProof:
    headers = [value for name, value in call.invocation_metadata() or () if name == "authorization"]
    if len(headers) > 1:
        raise Unidentified("the call has several `authorization` headers: send one")
    return CallerProof(token=_token(headers[0]) if headers else None, certificate=certificate)


def _token(header: str | bytes) -> SecretValue:
    text = header if isinstance(header, str) else header.decode("ascii", "replace")
    if not text.lower().startswith(_BEARER):
        raise Unidentified("the `authorization` header has another scheme: send `Bearer` and the token")
    return SecretValue(text[len(_BEARER) :].strip())
