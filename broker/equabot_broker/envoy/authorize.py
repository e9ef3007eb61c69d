"""Envoy's external authorization (`envoy.service.auth.v3`): decides for each request whether it may pass, and with which
credential. The secret leaves the broker in the answer to Envoy, and nowhere else."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.auth.v3 import external_auth_pb2 as pb

from equabot_broker.domain.credentials import carried
from equabot_broker.domain.errors import BrokerError
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.provider import Catalog, Provider
from equabot_broker.engine.leases.gateway_access import GatewayAccess, PermittedRequest
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.envoy.bootstrap_config import ADDRESS, PATHS, PATHS_OF_BROKER, PROVIDER
from equabot_broker.envoy.inspection import InspectedRequest, Inspection, behind
from equabot_broker.envoy.refusals import RequestRefused, denied, refusal_of
from equabot_broker.routing.request_rules import METHODS, route, target_fault
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.gateway_events import GatewayRefused

ACCOUNT: Final = "account"
"""The metadata field that reports to the access log that a request named an account."""
MODEL: Final = "model"
"""The metadata field with the model that a request is for, if it is known."""
_UPGRADES: Final = ("upgrade", ":protocol")
"""The headers that ask for another protocol: in HTTP/1.1, and in HTTP/2 (RFC 8441). Envoy accepts only `websocket`."""
_WITHIN: Final = 35.0
"""The maximum number of seconds that a request waits for a login to be refreshed, or for the sources, within Envoy's
deadline."""
_OF_THE_DEADLINE: Final = 0.9
"""The part of Envoy's deadline after which the answer is that a login is not refreshed yet."""
_REPLACE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


class AuthorizationServicer:
    """Answers Envoy's checks. `names` are the hosts by which agents call the gateway, in addition to those of this machine."""

    def __init__(
        self, *, gateway_access: GatewayAccess, ingest: Ingest, catalog: Catalog, events: Events, names: Iterable[str] = ()
    ) -> None:
        self._gateway_access = gateway_access
        self._ingest = ingest
        self._events = events
        self._names = tuple(names)
        self._inspection = Inspection(catalog, self._names)

    def apply(self, catalog: Catalog) -> None:
        """Applies a new configuration to the next request."""
        self._inspection = Inspection(catalog, self._names)

    def service(self) -> Service:
        """The handlers for the control server."""
        return Service(pb.DESCRIPTOR.services_by_name["Authorization"], {"Check": self.check})

    async def check(self, request: pb.CheckRequest, call: Call) -> pb.CheckResponse:
        """Lets the request pass with the credential in place of its token, or refuses it in the form of the vendor's
        errors."""
        http = request.attributes.request.http
        headers: Mapping[str, str] = http.headers
        provider: Provider | None = None
        lease: Lease | None = None
        try:
            route_of = request.attributes.context_extensions
            provider = self._inspection.provider(http.path, route_of.get(PROVIDER, ""))
            _check_route(provider, route_of.get(ADDRESS, ""))
            inspected = self._inspection.inspect(provider, http.path, http.host, headers)
            lease = self._gateway_access.bearer(inspected.token)
            if not self._ingest.attempted:
                await self._wait_for_sources(call)
                lease = self._gateway_access.bearer(inspected.token)  # the lease may have ended while the request waited
            within = partial(_patience, call)
            joined = route_of.get(PATHS, "") == PATHS_OF_BROKER
            use = await self._gateway_access.use(
                lease,
                provider,
                method=http.method,
                path=inspected.path,
                within=within,
                check=http.id,
                joined=joined,
                client=provider.client_of(headers),
                websocket=any(headers.get(name) for name in _UPGRADES),
            )
            return _passed(use, headers, inspected, joined=joined)
        except RequestRefused as error:
            refused = error
        except BrokerError as error:
            refused = refusal_of(error)
        self._record_refusal(refused, http, provider, lease)
        return denied(refused, "" if provider is None else provider.api)

    async def _wait_for_sources(self, call: Call) -> None:
        """Waits for the sources: after a restart, a lease might otherwise look as if its profile were deleted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_patience(call)):
                await self._ingest.wait_attempted()

    def _record_refusal(self, refused: RequestRefused, http: Any, provider: Provider | None, lease: Lease | None) -> None:
        path = http.path.partition("?")[0]
        self._events.emit(
            GatewayRefused(
                agent=refused.agent if lease is None else lease.agent,
                provider="" if provider is None else provider.id,
                lease="" if lease is None else lease.id,
                method=http.method if http.method in METHODS else "",
                route="" if provider is None or target_fault(path, "") else route(behind(path)),
                status=refused.status,
                reason=refused.reason,
            )
        )


def _check_route(provider: Provider, address: str) -> None:
    """A credential goes only to the configured address, even before Envoy has taken over new routes. Raises RequestRefused."""
    if address not in ("", provider.base_url):
        raise RequestRefused(
            503,
            "RELOADING",
            "the gateway is changing to another address of this provider: try again in a moment",
            retry_after=1.0,
        )


def _passed(
    use: PermittedRequest, headers: Mapping[str, str], inspected: InspectedRequest, *, joined: bool
) -> pb.CheckResponse:
    lease, held, profile = use.lease, use.held, use.held.profile
    form = use.provider.header_form(profile.mode)
    response = pb.CheckResponse()
    passed = response.ok_response
    made = carried(form, profile, use.secret, headers)
    target = f"{use.path}?{inspected.query}" if inspected.query else use.path
    for name, value in (({":path": target} if joined else {}) | made).items():
        option = passed.headers.add()
        option.header.key, option.header.value, option.append_action = name, value, _REPLACE
    set_here = {name.lower() for name in made}  # Envoy removes headers last.
    passed.headers_to_remove.extend(name for name in inspected.removed if name not in set_here)
    fields = response.dynamic_metadata.fields
    for name, value in (
        ("agent", lease.agent),
        ("session", lease.session),
        ("lease", lease.id),
        ("token", lease.token.hex()),
        ("provider", lease.provider),
        ("profile", lease.profile),
        ("version", str(held.version)),
        ("request", use.request),
        ("route", use.route),
    ):
        fields[name].string_value = value
    if use.model:
        fields[MODEL].string_value = use.model
    if use.client:
        fields["client"].string_value = use.client
    if any(name in headers for name in use.provider.accounts):
        fields[ACCOUNT].bool_value = True
    return response


def _patience(call: Call) -> float:
    left = call.time_remaining()
    return _WITHIN if left is None else min(_WITHIN, left * _OF_THE_DEADLINE)
