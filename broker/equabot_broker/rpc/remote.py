"""Callers from elsewhere: over TLS, and every call has to show who makes it. What is served to whom is then as on the sockets.

A call is let in once. A stream lasts as long as its caller is who it was: when what was found out of the caller ends (a token's
minute, a certificate's last day), it is found out anew, and where that fails the stream ends with what failed.
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
from equabot_broker.telemetry.events import CallerRefused, Events

_BEARER: Final = "bearer "


class CallerIdentities(Protocol):
    """Who tells callers from each other."""

    async def identify(self, shown: CallerProof) -> Identified:
        """The caller who shows this. Raises Unidentified, IdentityUnchecked, PolicyDenied. Answers within seconds."""


class AuthenticationInterceptor:
    """Lets callers in: each to what is there for its agent."""

    def __init__(self, identities: CallerIdentities, *, clock: Clock, events: Events) -> None:
        self._identities = identities
        self._clock = clock
        self._events = events
        self.identified: Callable[[str], None] = lambda _: None
        self.refused: Callable[[str], None] = lambda _: None
        """Are called with the peer of a call whose caller is known, or is not."""
        self.certificate_of: Callable[[str], str] = lambda _: ""
        """The certificate that a call's peer has shown, as PEM."""
        self._sooner = asyncio.Event()

    def look_again(self) -> None:
        """Who may call as which agent has changed: every open stream is asked about now."""
        self._sooner.set()
        self._sooner = asyncio.Event()

    def service(self, agents: Mapping[str, Service]) -> Service:
        """One service in place of those of the agents, which are of one kind. Agents may come and go in what is given here."""
        one = next(iter(agents.values()))
        return Service(one.descriptor, {name: self._handler(name, agents) for name in one.handlers}, name=one.name)

    def _handler(self, name: str, agents: Mapping[str, Service]) -> Chosen:
        method = next(iter(agents.values())).descriptor.methods_by_name[name]

        async def choose(call: Call) -> Handler:
            caller = await self._let_in(call)
            if (service := agents.get(caller.agent)) is None:
                raise Unidentified("the caller's agent is not configured any more")
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
        """Answers, for as long as the caller is known. Raises what ends that."""
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
                raise Unidentified("the caller is another agent than it was: open the stream again")


def _handler_of(service: Service, name: str) -> Handler:
    return cast("Handler", service.handlers[name])  # an agent's services choose no handlers


def _shown(call: Call, certificate: str) -> CallerProof:
    headers = [value for name, value in call.invocation_metadata() or () if name == "authorization"]
    if len(headers) > 1:
        raise Unidentified("the call has several `authorization` headers: send one")
    return CallerProof(token=_token(headers[0]) if headers else None, certificate=certificate)


def _token(header: str | bytes) -> SecretValue:
    text = header if isinstance(header, str) else header.decode("ascii", "replace")
    if not text.lower().startswith(_BEARER):
        raise Unidentified("the `authorization` header is of another kind: send `Bearer` and the token")
    return SecretValue(text[len(_BEARER) :].strip())
