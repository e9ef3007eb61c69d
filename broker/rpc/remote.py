"""Callers from elsewhere: over TLS, and every call has to show who makes it. What is served to whom is then as on the sockets.

A call is let in once. A stream lasts as long as its caller is who it was: when what was found out of the caller ends (a token's
minute, a certificate's last day), it is found out anew, and where that fails the stream ends with what failed.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, NoReturn, Protocol

import grpc

from broker.domain.callers import Identified, Shown
from broker.domain.errors import BrokerError, Unidentified
from broker.domain.secret_value import SecretValue
from broker.ports import Clock
from broker.rpc.calls import Call, Handler, Service
from broker.rpc.status import explained
from broker.telemetry.events import CallerRefused, Events

_BEARER: Final = "bearer "


class RemoteCall(Call, Protocol):
    """What is asked of a call that came over a network."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the TLS handshake found out of the other side."""


class Identities(Protocol):
    """Who tells callers from each other."""

    async def identify(self, shown: Shown) -> Identified:
        """The caller who shows this. Raises Unidentified, IdentityUnchecked, PolicyDenied. Answers within seconds."""


class Pair(Protocol):
    """A certificate, its key, and the authority that callers' certificates have to be signed by (empty: they need none)."""

    @property
    def certificate(self) -> str: ...

    @property
    def key(self) -> SecretValue: ...

    @property
    def client_ca(self) -> str: ...


class Certificate(Protocol):
    """Where the pair is kept, which is renewed now and then."""

    def read(self) -> Pair:
        """The pair of now. Raises CannotStart."""

    def renewed(self) -> Pair | None:
        """Another, since one was read last; None for none. Any thread may ask. Never raises."""


class Door:
    """Lets callers in: each to what is there for its agent."""

    def __init__(self, identities: Identities, *, clock: Clock, events: Events) -> None:
        self._identities = identities
        self._clock = clock
        self._events = events

    def service(self, agents: Mapping[str, Service]) -> Service:
        """One service in place of those of the agents, which are of one kind."""
        one = next(iter(agents.values()))
        return Service(one.descriptor, {name: self._handler(name, agents) for name in one.handlers}, name=one.name)

    def _handler(self, name: str, agents: Mapping[str, Service]) -> Handler:
        handlers = {agent: service.handlers[name] for agent, service in agents.items()}
        method = next(iter(agents.values())).descriptor.methods_by_name[name]

        async def once(request: Any, call: Any) -> Any:
            caller = await self._let_in(call)
            return await handlers[caller.agent](request, call)

        async def lasting(request: Any, call: Any) -> None:
            caller = await self._let_in(call)
            await self._while_known(caller, call, handlers[caller.agent](request, call))

        return lasting if method.server_streaming else once

    async def _let_in(self, call: RemoteCall) -> Identified:
        try:
            return await self._identities.identify(_shown(call))
        except BrokerError as refused:
            self._events.emit(CallerRefused(reason=explained(refused).code.name, words=refused.message))
            raise

    async def _while_known(self, caller: Identified, call: RemoteCall, answering: Awaitable[None]) -> None:
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

    async def _watch(self, caller: Identified, call: RemoteCall) -> NoReturn:
        agent = caller.agent
        while True:
            await self._clock.sleep(max(caller.until - self._clock.steady(), 0.0))
            caller = await self._let_in(call)
            if caller.agent != agent:
                raise Unidentified("the caller is another agent than it was: open the stream again")


def credentials(certificate: Certificate) -> grpc.ServerCredentials:
    """TLS with this certificate, which is looked at again at every handshake. Callers must have one of their own where the pair
    says whose. Raises CannotStart."""
    pair = certificate.read()

    def fetch() -> Any:  # in another thread; None leaves things as they are, which the library's types do not know
        found = certificate.renewed()
        return None if found is None else _configuration(found)

    return grpc.dynamic_ssl_server_credentials(_configuration(pair), fetch, require_client_authentication=bool(pair.client_ca))


def _configuration(pair: Pair) -> "grpc.ServerCertificateConfiguration":
    keys = [(pair.key.reveal().encode(), pair.certificate.encode())]
    return grpc.ssl_server_certificate_configuration(keys, root_certificates=pair.client_ca.encode() or None)


def _shown(call: RemoteCall) -> Shown:
    headers = [value for name, value in call.invocation_metadata() or () if name == "authorization"]
    if len(headers) > 1:
        raise Unidentified("the call has several `authorization` headers: send one")
    certificates = list(call.auth_context().get("x509_pem_cert", ()))
    return Shown(
        token=_token(headers[0]) if headers else None,
        certificate=certificates[0].decode("ascii", "replace") if certificates else "",
    )


def _token(header: str | bytes) -> SecretValue:
    text = header if isinstance(header, str) else header.decode("ascii", "replace")
    if not text.lower().startswith(_BEARER):
        raise Unidentified("the `authorization` header is of another kind: send `Bearer` and the token")
    return SecretValue(text[len(_BEARER) :].strip())
