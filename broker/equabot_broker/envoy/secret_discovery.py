"""Envoy's secret discovery (`envoy.service.secret.v3`): pushes credentials as generic secrets to an Envoy that injects them.

A resource is named `<agent>/<provider>`, for the profile that would serve that agent now, or `profile/<profile id>`. It has
the value of the header with its prefix, for `credential_injector`. With the suffix `/secret` it has the secret alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import DataSource
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import GenericSecret, Secret
from envoy.service.discovery.v3 import discovery_pb2 as pb
from envoy.service.secret.v3 import sds_pb2

from equabot_broker.domain.errors import AuditUnavailable, BrokerError, InvalidArgument
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.selection import Candidate
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.gateway_events import SecretPushed

_log = logging.getLogger("equabot.gateway")

_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_ALONE: Final = "/secret"
_OF_PROFILE: Final = "profile/"
_UNKNOWN: Final = "?"
_TRY_AGAIN_AFTER: Final = 1.0
_NOTHING: Final = "0"
"""The version of an empty secret: its former value must no longer be used."""


class SecretServicer:
    """Pushes the value of a resource as soon as it changes. Until all sources have been read it pushes nothing: a secret that
    is not read yet is not deleted."""

    def __init__(
        self, *, resolver: Resolver, registry: ProfileRegistry, ingest: Ingest, suspensions: Suspensions, events: Events
    ) -> None:
        self._resolver = resolver
        self._registry = registry
        self._ingest = ingest
        self._suspensions = suspensions
        self._events = events
        self._changed = asyncio.Event()

    def service(self) -> Service:
        """The handlers for the control server."""
        return Service(
            sds_pb2.DESCRIPTOR.services_by_name["SecretDiscoveryService"],
            {"StreamSecrets": self.stream, "DeltaSecrets": self.delta, "FetchSecrets": self.fetch},
        )

    async def stream(self, requests: AsyncIterator[Any], call: Call) -> None:
        """State of the world: sends all subscribed resources whenever one changes."""
        await self._serve(requests, call, _World())

    async def delta(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Incremental: sends the changed resources."""
        await self._serve(requests, call, _Delta())

    async def fetch(self, request: pb.DiscoveryRequest, call: Call) -> pb.DiscoveryResponse:
        """Answers once. Raises AuditUnavailable."""
        world = _World()
        world.subscribe(request)
        found = self._found(world.names)
        for name in found:
            self._record(name)
        return world.answer(found, world.changed(found), "1")

    async def _serve(self, requests: AsyncIterator[Any], call: Call, stream: "_World | _Delta") -> None:
        async def listen() -> bool:
            async for request in requests:
                if request is None:
                    return False
                stream.subscribe(request)
                if request.error_detail.code:
                    _log.warning("an Envoy refuses a secret of %s", ", ".join(sorted(stream.names)[:5]))
                self.look_again()
            return True

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen())
            number = 0
            while not listening.done():
                wakeup = self._changed
                found = self._found(stream.names)
                patience = None
                if self._ingest.attempted and stream.due(found):
                    changes, patience = self._recorded(stream.changed(found))
                    if changes or patience is None:
                        number += 1
                        await call.write(stream.answer(found, changes, str(number)))
                waiting = group.create_task(wakeup.wait())
                await asyncio.wait({listening, waiting}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        if not listening.result():
            raise InvalidArgument("the request is not a message of this method")

    def agent_changed(self, agent: str) -> None:
        """A listener of the suspensions."""
        self.look_again()

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry."""
        self.look_again()

    def look_again(self) -> None:
        """A listener of the sources, and of all that decides what a resource holds: pushes what has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _recorded(self, changed: Mapping[str, tuple[str, Secret]]) -> tuple[dict[str, tuple[str, Secret]], float | None]:
        """The resources that may be pushed, and the seconds until the rest is tried again (None: there is no rest). An empty
        secret gives nothing, so it needs no record."""
        passing: dict[str, tuple[str, Secret]] = {}
        patience = None
        for name, (version, secret) in changed.items():
            try:
                if version != _NOTHING:
                    self._record(name)
            except AuditUnavailable as unavailable:
                patience = unavailable.retry_after or _TRY_AGAIN_AFTER
                continue
            passing[name] = version, secret
        return passing, patience

    def _record(self, name: str) -> None:
        candidate = self._candidate(name.removesuffix(_ALONE))
        if candidate is not None:
            profile = candidate.held.profile
            self._events.emit(SecretPushed(resource=name, provider=profile.provider, profile=profile.id))

    # -- values of resources -------------------------------------------------------------------------------------------

    def _found(self, names: Iterable[str]) -> dict[str, tuple[str, Secret]]:
        """The version and the secret of each existing resource, by name."""
        return {name: found for name in names if (found := self._resource(name)) is not None}

    def _resource(self, name: str) -> tuple[str, Secret] | None:
        where = name.removesuffix(_ALONE)
        candidate = self._candidate(where)
        if candidate is None:
            return None
        profile = candidate.held.profile
        if profile.secret is None or not candidate.standing.usable:
            return None
        prefix = "" if where != name else self._resolver.catalog.providers[profile.provider].header_form(profile.mode).prefix
        content = GenericSecret(secret=DataSource(inline_string=prefix + profile.secret.reveal()))
        return str(candidate.held.version), Secret(name=name, generic_secret=content)

    def _candidate(self, where: str) -> Candidate | None:
        try:
            if where.startswith(_OF_PROFILE):
                found = self._registry.find(MAIN, where.removeprefix(_OF_PROFILE))
                return None if found is None else found[1]
            agent, _, provider = where.partition("/")
            self._suspensions.check(agent)
            return self._resolver.plan(agent, self._resolver.resolve_names(provider, "")[0]).first()
        except BrokerError:
            return None


class _World:
    """A state-of-the-world stream, in which each answer has all resources."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._sent: dict[str, str] = {}
        self._resubscribed = False

    def subscribe(self, request: pb.DiscoveryRequest) -> None:
        names = frozenset(request.resource_names)
        if request.version_info and not request.response_nonce:
            # A reconnected Envoy has the resources of an earlier stream, and does not name them.
            self._sent = dict.fromkeys(names, _UNKNOWN)
        self._resubscribed = self._resubscribed or names != self.names
        self.names = names
        self._sent = {name: version for name, version in self._sent.items() if name in names}

    def due(self, found: Mapping[str, tuple[str, Secret]]) -> bool:
        return bool(_news(found, self._sent)) or (self._resubscribed and bool(found))

    def changed(self, found: Mapping[str, tuple[str, Secret]]) -> dict[str, tuple[str, Secret]]:
        return _news(found, self._sent)

    def answer(
        self, found: Mapping[str, tuple[str, Secret]], changed: Mapping[str, tuple[str, Secret]], nonce: str
    ) -> pb.DiscoveryResponse:
        made = pb.DiscoveryResponse(version_info=nonce, type_url=_TYPE, nonce=nonce)
        known = {name: current for name, current in found.items() if self._sent.get(name) == current[0]}
        for _, secret in ({**known, **changed}).values():
            made.resources.add().Pack(secret)
        self._sent |= {name: version for name, (version, _) in changed.items()}
        self._resubscribed = False
        return made


class _Delta:
    """An incremental stream, in which an answer has the changes."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._sent: dict[str, str] = {}

    def subscribe(self, request: pb.DeltaDiscoveryRequest) -> None:
        gone = frozenset(request.resource_names_unsubscribe)
        self.names = (self.names - gone) | frozenset(request.resource_names_subscribe)
        for name in (*gone, *request.resource_names_subscribe):
            self._sent.pop(name, None)
        self._sent |= {name: version for name, version in request.initial_resource_versions.items() if name in self.names}

    def due(self, found: Mapping[str, tuple[str, Secret]]) -> bool:
        return bool(_news(found, self._sent))

    def changed(self, found: Mapping[str, tuple[str, Secret]]) -> dict[str, tuple[str, Secret]]:
        return _news(found, self._sent)

    def answer(
        self, _: Mapping[str, tuple[str, Secret]], changed: Mapping[str, tuple[str, Secret]], nonce: str
    ) -> pb.DeltaDiscoveryResponse:
        made = pb.DeltaDiscoveryResponse(type_url=_TYPE, nonce=nonce)
        for name, (version, secret) in changed.items():
            made.resources.add(name=name, version=version).resource.Pack(secret)
            self._sent[name] = version
        return made


def _news(found: Mapping[str, tuple[str, Secret]], sent: Mapping[str, str]) -> dict[str, tuple[str, Secret]]:
    """The resources to send. A deleted secret is sent as an empty one: Envoy keeps a resource that is merely absent."""
    changed = {name: current for name, current in found.items() if sent.get(name) != current[0]}
    gone = (name for name, version in sent.items() if name not in found and version != _NOTHING)
    return changed | {name: (_NOTHING, Secret(name=name, generic_secret=_empty())) for name in gone}


def _empty() -> GenericSecret:
    return GenericSecret(secret=DataSource(inline_string=""))
