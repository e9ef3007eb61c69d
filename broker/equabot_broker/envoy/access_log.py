"""Envoy's access log service (`envoy.service.accesslog.v3`): reports the answers of vendors. Other modules decide what an
answer counts as."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import RequestMethod
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2 as pb

from equabot_broker.domain.answers import ProviderAnswer, wait
from equabot_broker.engine.leases.gateway_access import GatewayAccess, RequestNames
from equabot_broker.envoy.authorize import ACCOUNT, MODEL
from equabot_broker.envoy.local_replies import REASON
from equabot_broker.envoy.waits import NAMESPACE
from equabot_broker.ports import Clock
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.gateway_events import GatewayLogSkipped

_AUTHORIZATION: Final = "envoy.filters.http.ext_authz"
_FROM_THE_VENDOR: Final = frozenset({"", "via_upstream"})
_NAMES: Final = ("agent", "session", "lease", "provider", "profile", "route")
_METHODS: Final = {number: name for name, number in RequestMethod.items()} | {RequestMethod.METHOD_UNSPECIFIED: ""}
_FAILURES: Final = (
    "no_healthy_upstream",
    "upstream_request_timeout",
    "local_reset",
    "upstream_remote_reset",
    "upstream_connection_failure",
    "upstream_connection_termination",
    "upstream_retry_limit_exceeded",
    "upstream_max_stream_duration_reached",
    "upstream_protocol_error",
    "dns_resolution_failure",
)
"""Envoy's flags for a vendor that was not reached, that broke off, or that timed out."""
_GONE: Final = ("downstream_connection_termination", "downstream_remote_reset")
"""Envoy's flag for an agent that disconnected, which ends everything else."""


class AccessLogServicer:
    """Receives each answer when it has ended. An entry that cannot be read is skipped and counted."""

    def __init__(self, *, gateway_access: GatewayAccess, events: Events, clock: Clock) -> None:
        self._gateway_access = gateway_access
        self._events = events
        self._clock = clock
        self._streams = 0

    def service(self) -> Service:
        """The handlers for the control server."""
        return Service(pb.DESCRIPTOR.services_by_name["AccessLogService"], {"StreamAccessLogs": self.stream})

    async def stream(self, messages: AsyncIterator[Any], call: Call) -> pb.StreamAccessLogsResponse:
        """Reads the log of one Envoy, as long as that Envoy runs."""
        self._streams += 1
        try:
            async for message in messages:
                if message is None:
                    self._events.emit(GatewayLogSkipped())
                    continue
                for entry in message.http_logs.log_entry:
                    self._hear(entry)
        finally:
            self._streams -= 1
            if not self._streams:
                self._gateway_access.disconnected()
        return pb.StreamAccessLogsResponse()

    def _hear(self, entry: accesslog_pb2.HTTPAccessLogEntry) -> None:
        metadata = entry.common_properties.metadata.filter_metadata
        if _AUTHORIZATION not in metadata:
            return  # the request was refused, and the refusal was reported when it happened
        try:
            used = _used(entry, metadata[_AUTHORIZATION].fields)
        except (KeyError, ValueError):
            self._events.emit(GatewayLogSkipped())
            return
        self._gateway_access.answered(used, _answer(entry, now=self._clock.now()))


def _used(entry: accesslog_pb2.HTTPAccessLogEntry, fields: Mapping[str, Any]) -> RequestNames:
    """The metadata that the authorization attached to the request. Raises KeyError and ValueError."""
    metadata = {name: value.string_value for name, value in fields.items()}
    return RequestNames(
        **{name: metadata[name] for name in _NAMES},
        request=metadata.get("request", ""),
        model=metadata.get(MODEL, ""),
        version=int(metadata["version"]),
        method=_METHODS[entry.request.request_method],
        account=ACCOUNT in metadata,
        client=metadata.get("client", ""),
    )


def _answer(entry: accesslog_pb2.HTTPAccessLogEntry, *, now: float) -> ProviderAnswer:
    common, request, response = entry.common_properties, entry.request, entry.response
    lasted = common.duration if common.HasField("duration") else common.time_to_last_downstream_tx_byte
    return ProviderAnswer(
        status=response.response_code.value,
        ours=not _is_the_vendors(common, response),
        failed=_failed(common),
        retry_after=wait(_vendor_headers(common) or response.response_headers, now=now),
        began=common.start_time.seconds + common.start_time.nanos / 1e9,
        seconds=max(lasted.seconds + lasted.nanos / 1e9, 0.0),
        sent=request.request_body_bytes,
        received=response.response_body_bytes,
    )


def _vendor_headers(common: accesslog_pb2.AccessLogCommon) -> Mapping[str, str]:
    """The vendor's own headers, if the agent got other ones."""
    metadata = common.metadata.filter_metadata
    return {name: value.string_value for name, value in metadata[NAMESPACE].fields.items()} if NAMESPACE in metadata else {}


def _is_the_vendors(common: accesslog_pb2.AccessLogCommon, response: accesslog_pb2.HTTPResponseProperties) -> bool:
    """Whether the status is the vendor's. Where the agent disconnected before the answer's end, Envoy's details name only that.
    The vendor's head had arrived by then if a byte of it had, and if the gateway did not replace it with a reply of its own."""
    if response.response_code_details in _FROM_THE_VENDOR:
        return True
    arrived = common.HasField("time_to_first_upstream_rx_byte") and REASON not in response.response_headers
    return arrived and _agent_is_gone(common)


def _agent_is_gone(common: accesslog_pb2.AccessLogCommon) -> bool:
    return common.HasField("response_flags") and any(getattr(common.response_flags, flag) for flag in _GONE)


def _failed(common: accesslog_pb2.AccessLogCommon) -> bool:
    if not common.HasField("response_flags") or _agent_is_gone(common):
        return False
    flags = common.response_flags
    # A timeout while the agent still sends its request is not the vendor's fault.
    waited = flags.stream_idle_timeout and common.HasField("time_to_last_rx_byte")
    return waited or any(getattr(flags, flag) for flag in _FAILURES)
