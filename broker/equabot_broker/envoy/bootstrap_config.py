"""Generates Envoy's configuration from the catalog of providers. It is static except for resolved names, and has no admin
port.

agent → listener on loopback → host and path known? → ext_authz asks the broker → name resolved → address public? → vendor

Everything that decides about a request is here or in `authorize`. Defaults of Envoy that matter are written out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from equabot_broker.envoy import overload
from equabot_broker.envoy._documents import header, named, typed
from equabot_broker.envoy.addresses import exempt, public_only
from equabot_broker.envoy.clusters import CONTROL, cluster_name, clusters, names
from equabot_broker.envoy.cutting_filters import watched_answers, watched_uploads
from equabot_broker.envoy.local_replies import REASON, local_replies
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.envoy.routes import Upstream
from equabot_broker.parsing.untrusted_json import Json
from equabot_broker.routing.forwarding import STRIPPED

PROVIDER: Final = "provider"
"""The context extension with the provider of a check's route."""
PATHS: Final = "paths"
PATHS_OF_BROKER: Final = "broker"
"""The extension that marks a route which leaves the path to the broker. An Envoy with a custom configuration changes
paths itself, and so does one with the configuration of an older broker."""

ADDRESS: Final = "address"
"""The extension with the address of a check's route. During a reload it can differ from the configured address for a
moment."""
ROUTES: Final = "gateway"

_LOOPBACK: Final = ("127.0.0.1", "[::1]", "localhost")
_CHECK_WITHIN: Final = "40s"
"""The time that a refresh of a login may take, with a margin."""
_ATTEMPTS: Final = 48
"""The number of retries while the broker is away. A restart takes one to a few seconds, and up to thirteen after a second
crash under the kubelet. These retries take about fifteen seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The input of the configuration. `control` is the broker's socket as Envoy sees it. `routes` is the file from which Envoy
    reads its routes whenever it is replaced. None: the routes are part of the bootstrap, and do not change."""

    host: str
    port: int
    control: Path
    upstreams: Sequence[Upstream]
    options: GatewayOptions
    routes: Path | None = None


def gateway_url(options: GatewayOptions, *, host: str, port: int) -> str:
    """The address that agents use, without a slash at its end."""
    if options.url:
        return options.url
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not listened on
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def bootstrap_config(gateway: Gateway) -> Json:
    """Envoy's bootstrap (`envoy.config.bootstrap.v3.Bootstrap`) as a document."""
    return {
        "node": {"id": "equabot-gateway", "cluster": "equabot"},
        "static_resources": {
            "listeners": [_listener(gateway)],
            "clusters": clusters(gateway.control, gateway.upstreams, gateway.options, every=gateway.routes is not None),
        },
        "overload_manager": overload.overload_manager(gateway.options),
        "memory_allocator_manager": overload.memory_allocator_manager(gateway.options),
    }


def routes_config(gateway: Gateway) -> Json:
    """The file with Envoy's routes (`envoy.service.discovery.v3.DiscoveryResponse`) as a document."""
    kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    return {"resources": [{"@type": kind, **_routes(gateway)}]}


def as_yaml(config: Json) -> str:
    """The document as JSON that Envoy reads from a file."""
    import yaml  # noqa: PLC0415  (1.5 MiB that a broker without a gateway need not load)

    text: str = yaml.safe_dump(config, sort_keys=False, width=128)
    return text


# -- listeners -------------------------------------------------------------------------------------------------------


def _listener(gateway: Gateway) -> Json:
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        codec_type="AUTO",
        http_protocol_options={"allow_absolute_url": False},
        http2_protocol_options=overload.http2(),
        # The broker decides about each header by its name, and also for servers that read `_` as `-`.
        common_http_protocol_options={"idle_timeout": overload.IDLE_AT_MOST, "headers_with_underscores_action": "ALLOW"},
        request_headers_timeout="10s",
        stream_idle_timeout=_seconds(gateway.options.idle_timeout),
        max_request_headers_kb=16,
        # The broker refuses unusual paths, so Envoy must pass them on unchanged.
        normalize_path=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        use_remote_address=True,
        skip_xff_append=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        access_log=_access_logs(),
        local_reply_config=local_replies(),
        **_routing(gateway),
        http_filters=_filters(gateway),
    )
    return {
        "name": "gateway",
        "address": _address(gateway.host, gateway.port),
        "enable_reuse_port": False,  # with it, a second Envoy on the port would get half of the connections
        **overload.listener_limits(),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _access_logs() -> list[Json]:
    """Errors, on which the next request may depend, are reported at once. Successes are reported in batches: a message for
    each would cost the broker more than the check."""
    failed = "response.code >= 400 || response.flags != 0"
    return [
        _access_log(failed, buffer_size_bytes=0),
        _access_log(f"!({failed})", buffer_size_bytes=1 << 14, buffer_flush_interval="0.05s"),
    ]


def _access_log(expression: str, **buffer: Any) -> Json:
    log = named(
        "envoy.access_loggers.http_grpc",
        "access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        common_config={
            "log_name": "gateway",
            "grpc_service": {"envoy_grpc": {"cluster_name": CONTROL}},
            "transport_api_version": "V3",
            **buffer,
        },
        additional_response_headers_to_log=["retry-after", "retry-after-ms", REASON],
    )
    cel = named(
        "envoy.access_loggers.extension_filters.cel",
        "access_loggers.filters.cel.v3.ExpressionFilter",
        expression=expression,
    )
    return log | {"filter": {"extension_filter": cel}}


def _routing(gateway: Gateway) -> Json:
    if gateway.routes is None:
        return {"route_config": _routes(gateway)}
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(gateway.routes)}}
    return {"rds": {"route_config_name": ROUTES, "config_source": source}}


def _routes(gateway: Gateway) -> Json:
    named = urlsplit(gateway.options.url).hostname
    domains = [*_LOOPBACK, *([] if named is None or named in _LOOPBACK else [named])]
    routes = [route for upstream in gateway.upstreams for route in _upstream_routes(upstream, gateway)]
    return {
        "name": ROUTES,
        # A page that makes a name point here (DNS rebinding) learns nothing.
        "ignore_port_in_host_matching": True,
        "request_headers_to_remove": list(STRIPPED),
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": domains,
                "routes": [
                    *routes,
                    _nothing(
                        404,
                        "PROVIDER_UNKNOWN",
                        "this path has no provider of the gateway: it begins with /<provider>/, of a provider that"
                        " has providers.<provider>.requests or a built-in list",
                    ),
                ],
            },
            {
                "name": "elsewhere",
                "domains": ["*"],
                "routes": [_nothing(403, "HOST_REFUSED", "this host is not a name of the gateway: see gateway.url")],
            },
        ],
    }


def _nothing(status: int, reason: str, message: str) -> Json:
    kind = "not_found_error" if status == 404 else "permission_error"
    body = json.dumps({"type": "error", "error": {"type": kind, "code": reason.lower(), "message": message}})
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [header("content-type", "application/json"), header(REASON, reason)],
        "typed_per_filter_config": _unasked(),
    }


def _unasked() -> Json:
    """The settings of a route that answers by itself."""
    disabled = typed("filters.http.ext_authz.v3.ExtAuthzPerRoute", disabled=True)
    return {"envoy.filters.http.ext_authz": disabled, **exempt()}


def _upstream_routes(upstream: Upstream, gateway: Gateway) -> list[Json]:
    """Three routes: one for upgrades, which exist over HTTP/1.1 only, one for other requests, and one that answers clients
    that check at their start whether the host exists."""
    upgrade = {"headers": [{"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}]}
    base = urlsplit(upstream.address).path.rstrip("/")
    there = dict.fromkeys(f"/{name}{behind}{slash}" for name in upstream.names for behind in ("", base) for slash in ("", "/"))
    routes = list(map(_there, there))
    for name in upstream.names:
        for extra in (upgrade, {}):
            match = {"prefix": f"/{name}/"} | extra
            routes.append(_upstream_route(upstream, gateway, match, cluster=cluster_name(upstream, upgrade=bool(extra))))
    return routes


def _there(path: str) -> Json:
    head = {"name": ":method", "string_match": {"exact": "HEAD"}}
    return {
        "match": {"path": path, "headers": [head]},
        "direct_response": {"status": 200},
        "typed_per_filter_config": _unasked(),
    }


def _upstream_route(upstream: Upstream, gateway: Gateway, match: Json, *, cluster: str) -> Json:
    filters = {
        "envoy.filters.http.ext_authz": typed(
            "filters.http.ext_authz.v3.ExtAuthzPerRoute",
            check_settings={
                "context_extensions": {
                    PROVIDER: upstream.provider,
                    PATHS: PATHS_OF_BROKER,
                    ADDRESS: upstream.address,
                }
            },
        ),
        "envoy.filters.http.dynamic_forward_proxy": typed(
            "filters.http.dynamic_forward_proxy.v3.PerRouteConfig", host_rewrite_literal=upstream.authority
        ),
    }
    if upstream.private:
        filters |= exempt()
    return {
        "match": match,
        "route": {
            "cluster": cluster,  # the path as the broker has approved it
            "timeout": "0s",  # a long generation may take any time, as long as data arrives
            "idle_timeout": _seconds(gateway.options.idle_timeout),
            # Retries only requests that the vendor has not seen. The SDK itself retries after an answer.
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
        "typed_per_filter_config": filters,
    }


# -- filters ---------------------------------------------------------------------------------------------------------


def _filters(gateway: Gateway) -> list[Json]:
    return [
        _authorization(),
        watched_uploads(CONTROL),
        *([_scrubbing()] if gateway.options.scrub else []),
        watched_answers(CONTROL),
        named(
            "envoy.filters.http.dynamic_forward_proxy",
            "filters.http.dynamic_forward_proxy.v3.FilterConfig",
            dns_cache_config=names(),
            save_upstream_address=True,
        ),
        public_only(),
        named("envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True),
    ]


def _authorization() -> Json:
    return named(
        "envoy.filters.http.ext_authz",
        "filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        grpc_service={
            "envoy_grpc": {"cluster_name": CONTROL},
            "timeout": _CHECK_WITHIN,
            "retry_policy": {
                "retry_on": "unavailable,cancelled,connect-failure,reset,refused-stream",
                "num_retries": _ATTEMPTS,
                "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.7s"},
            },
        },
        failure_mode_allow=False,
        status_on_error={"code": "ServiceUnavailable"},
    )


def _scrubbing() -> Json:
    return named(
        "envoy.filters.http.ext_proc",
        "filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": CONTROL}, "timeout": "5s"},
        processing_mode={
            "request_header_mode": "SEND",
            "response_header_mode": "SEND",
            "request_body_mode": "NONE",
            "response_body_mode": "FULL_DUPLEX_STREAMED",
            "response_trailer_mode": "SEND",
        },
        failure_mode_allow=False,
        message_timeout="5s",
    )


def _seconds(duration: float) -> str:
    return f"{duration:.3f}s"
