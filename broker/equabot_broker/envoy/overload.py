"""Bounds what Envoy holds for clients: its memory, its connections, and how long a connection may be idle.

Envoy ends no HTTP/1.1 request because of its memory (`reset_high_memory_stream` works for HTTP/2 only). So the number of
requests and the buffer of each are limited, such that all of them fit. The overload manager does the rest: it ends idle
connections sooner the less memory is left, and then accepts no more.
"""

from typing import Any, Final

from equabot_broker.envoy._documents import named
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.parsing.untrusted_json import Json

BUFFERED: Final = 1 << 15
"""Bytes of a request or an answer that Envoy buffers on each side before it stops to read."""
STREAMS: Final = 128
"""Concurrent requests on one connection of HTTP/2."""
WINDOW: Final = 1 << 17
"""Bytes of one answer over HTTP/2 that a vendor may send ahead."""
SILENT_AT_MOST: Final = "5s"
"""Seconds until the first bytes of a new connection."""
IDLE_AT_MOST: Final = "60s"
"""Seconds between two requests of a connection."""

_MIB: Final = 1 << 20
_BESIDE_THE_HEAP: Final = 72 * _MIB
"""Bytes that Envoy uses in addition to its heap: its program and its stacks."""
_BYTES_A_REQUEST: Final = 256 * 1024
"""Bytes that a request may use while the agent does not read its answer, with fragmentation: 190 KiB were measured."""
_RELEASED: Final = 16 * _MIB
_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS: Final = "envoy.resource_monitors.global_downstream_max_connections"


def heap(options: GatewayOptions) -> int:
    """Bytes of heap at which Envoy reaches its memory limit."""
    return options.memory - _BESIDE_THE_HEAP


def requests_at_once(options: GatewayOptions) -> int:
    """The maximum number of active requests to vendors."""
    return heap(options) // _BYTES_A_REQUEST


def overload_manager(options: GatewayOptions) -> Json:
    """`envoy.config.overload.v3.OverloadManager`."""
    return {
        "refresh_interval": "0.1s",
        "resource_monitors": [
            named(_HEAP, "resource_monitors.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=heap(options)),
            named(
                _CONNECTIONS,
                "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=options.max_connections,
            ),
        ],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 16},
        "actions": [
            _action("reduce_timeouts", _scaled(0.70, 0.90), **_timeouts()),
            _action("reset_high_memory_stream", _scaled(0.80, 0.95)),
            _action("disable_http_keepalive", _above(0.85)),
            _action("stop_accepting_requests", _above(0.90)),
        ],
        "loadshed_points": [
            {"name": f"envoy.load_shed_points.{point}", "triggers": [_above(0.95)]}
            for point in ("tcp_listener_accept", "hcm_ondata_creating_codec", "connection_pool_new_connection")
        ],
    }


def memory_allocator_manager(options: GatewayOptions) -> Json:
    """Envoy returns free memory to the system: at once above a quarter of the heap, below it after five minutes."""
    return {
        "bytes_to_release": _RELEASED,
        "memory_release_interval": "1s",
        "soft_memory_limit_bytes": heap(options) // 4,
    }


def listener_limits() -> Json:
    """Closes a connection that sends nothing, before resources are allocated for it."""
    return {
        "per_connection_buffer_limit_bytes": BUFFERED,
        "listener_filters": [
            named("envoy.filters.listener.http_inspector", "filters.listener.http_inspector.v3.HttpInspector")
        ],
        "listener_filters_timeout": SILENT_AT_MOST,
        "continue_on_listener_filters_timeout": False,
    }


def http2() -> Json:
    """`envoy.config.core.v3.Http2ProtocolOptions` for both sides. The window of a connection has room for all its streams, so
    that an answer that an agent does not read blocks no other."""
    return {
        "max_concurrent_streams": STREAMS,
        "initial_stream_window_size": WINDOW,
        "initial_connection_window_size": STREAMS * WINDOW,
    }


def breakers(options: GatewayOptions) -> Json:
    """`envoy.config.cluster.v3.CircuitBreakers` of the clusters for vendors."""
    most = requests_at_once(options)
    return {
        "thresholds": [{"max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": 64}],
    }


def _action(name: str, trigger: Json, **config: Any) -> Json:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger], **config}


def _above(share: float) -> Json:
    return {"name": _HEAP, "threshold": {"value": share}}


def _scaled(first: float, last: float) -> Json:
    return {"name": _HEAP, "scaled": {"scaling_threshold": first, "saturation_threshold": last}}


def _timeouts() -> Json:
    kind = "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig"
    least = {"CONNECTION_IDLE": "1s", "STREAM_IDLE": "30s", "STREAM_FLUSH": "2s"}
    factors = [{"timer": f"HTTP_DOWNSTREAM_{timer}", "min_timeout": within} for timer, within in least.items()]
    return {"typed_config": {"@type": kind, "timer_scale_factors": factors}}
