"""Envoy's secret discovery (`envoy.service.secret.v3`): credentials pushed as generic secrets, for Envoys that inject them.

A resource is named `<agent>/<provider>`, whatever profile would serve that agent now, or `profile/<profile id>`. It holds what
stands in the header, prefix and all (what `credential_injector` wants); with `/secret` behind the name, the secret alone.
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
from equabot_broker.telemetry.events import Events, SecretPushed

_log = logging.getLogger("equabot.gateway")

_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_ALONE: Final = "/secret"
_OF_PROFILE: Final = "profile/"
_UNKNOWN: Final = "?"
_TRY_AGAIN_AFTER: Final = 1.0
_NOTHING: Final = "0"
"""The version of a secret that is empty: what it held may be used no more."""


class SecretServicer:
    """Pushes what a resource holds as soon as that changes. Before every source has been read it says nothing: a secret that is
    not there yet is none that is gone."""

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
        """What the control server serves."""
        return Service(
            sds_pb2.DESCRIPTOR.services_by_name["SecretDiscoveryService"],
            {"StreamSecrets": self.stream, "DeltaSecrets": self.delta, "FetchSecrets": self.fetch},
        )

    async def stream(self, requests: AsyncIterator[Any], call: Call) -> None:
        """State of the world: every resource that was asked for, whenever one of them changes."""
        await self._serve(requests, call, _World())

    async def delta(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Incremental: what has changed."""
        await self._serve(requests, call, _Delta())

    async def fetch(self, request: pb.DiscoveryRequest, call: Call) -> pb.DiscoveryResponse:
        """Once. Raises AuditUnavailable."""
        world = _World()
        world.asked(request)
        found = self._found(world.names)
        for name in found:
            self._record(name)
        return world.answer(found, world.news(found), "1")

    async def _serve(self, requests: AsyncIterator[Any], call: Call, talk: "_World | _Delta") -> None:
        async def listen() -> bool:
            async for request in requests:
                if request is None:
                    return False
                talk.asked(request)
                if request.error_detail.code:
                    _log.warning("an Envoy refuses a secret of %s", ", ".join(sorted(talk.names)[:5]))
                self.look_again()
            return True

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen())
            number = 0
            while not listening.done():
                changed = self._changed
                found = self._found(talk.names)
                patience = None
                if self._ingest.settled and talk.due(found):
                    news, patience = self._recorded(talk.news(found))
                    if news or patience is None:
                        number += 1
                        await call.write(talk.answer(found, news, str(number)))
                waiting = group.create_task(changed.wait())
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

    def _recorded(self, news: Mapping[str, tuple[str, Secret]]) -> tuple[dict[str, tuple[str, Secret]], float | None]:
        """What may be pushed of it, and after how many seconds to try the rest again (None: there is none). What is empty gives
        nothing, and needs no record."""
        passing: dict[str, tuple[str, Secret]] = {}
        patience = None
        for name, (version, secret) in news.items():
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

    # -- what a resource holds -----------------------------------------------------------------------------------------

    def _found(self, names: Iterable[str]) -> dict[str, tuple[str, Secret]]:
        """Version and secret by name, of those that there are."""
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
    """A talk in which every answer has everything."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._sent: dict[str, str] = {}
        self._asked_anew = False

    def asked(self, request: pb.DiscoveryRequest) -> None:
        names = frozenset(request.resource_names)
        if request.version_info and not request.response_nonce:
            # It comes back with what another talk has told it, and does not say what that was.
            self._sent = dict.fromkeys(names, _UNKNOWN)
        self._asked_anew = self._asked_anew or names != self.names
        self.names = names
        self._sent = {name: version for name, version in self._sent.items() if name in names}

    def due(self, found: Mapping[str, tuple[str, Secret]]) -> bool:
        return bool(_news(found, self._sent)) or (self._asked_anew and bool(found))

    def news(self, found: Mapping[str, tuple[str, Secret]]) -> dict[str, tuple[str, Secret]]:
        return _news(found, self._sent)

    def answer(
        self, found: Mapping[str, tuple[str, Secret]], news: Mapping[str, tuple[str, Secret]], nonce: str
    ) -> pb.DiscoveryResponse:
        made = pb.DiscoveryResponse(version_info=nonce, type_url=_TYPE, nonce=nonce)
        known = {name: told for name, told in found.items() if self._sent.get(name) == told[0]}
        for _, secret in ({**known, **news}).values():
            made.resources.add().Pack(secret)
        self._sent |= {name: version for name, (version, _) in news.items()}
        self._asked_anew = False
        return made


class _Delta:
    """A talk in which an answer has what is new."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._sent: dict[str, str] = {}

    def asked(self, request: pb.DeltaDiscoveryRequest) -> None:
        gone = frozenset(request.resource_names_unsubscribe)
        self.names = (self.names - gone) | frozenset(request.resource_names_subscribe)
        for name in (*gone, *request.resource_names_subscribe):
            self._sent.pop(name, None)
        self._sent |= {name: version for name, version in request.initial_resource_versions.items() if name in self.names}

    def due(self, found: Mapping[str, tuple[str, Secret]]) -> bool:
        return bool(_news(found, self._sent))

    def news(self, found: Mapping[str, tuple[str, Secret]]) -> dict[str, tuple[str, Secret]]:
        return _news(found, self._sent)

    def answer(
        self, _: Mapping[str, tuple[str, Secret]], news: Mapping[str, tuple[str, Secret]], nonce: str
    ) -> pb.DeltaDiscoveryResponse:
        made = pb.DeltaDiscoveryResponse(type_url=_TYPE, nonce=nonce)
        for name, (version, secret) in news.items():
            made.resources.add(name=name, version=version).resource.Pack(secret)
            self._sent[name] = version
        return made


def _news(found: Mapping[str, tuple[str, Secret]], sent: Mapping[str, str]) -> dict[str, tuple[str, Secret]]:
    """What has to be told. A secret that is gone is told as an empty one: Envoy keeps what is merely not there any more."""
    news = {name: told for name, told in found.items() if sent.get(name) != told[0]}
    gone = (name for name, version in sent.items() if name not in found and version != _NOTHING)
    return news | {name: (_NOTHING, Secret(name=name, generic_secret=_empty())) for name in gone}


def _empty() -> GenericSecret:
    return GenericSecret(secret=DataSource(inline_string=""))
