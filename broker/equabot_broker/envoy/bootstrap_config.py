"""Envoy's configuration, made of the providers' facts: static but for the names that it resolves, and without an admin port.

    agent → listener on loopback → host and path known? → ext_authz asks the broker → name resolved → address public? → vendor

Everything that decides about a request is here or in `authorize`; Envoy's defaults are named where they matter.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from equabot_broker.domain.forwarding import STRIPPED
from equabot_broker.domain.untrusted_json import Json
from equabot_broker.envoy import overload
from equabot_broker.envoy._documents import header, named, typed
from equabot_broker.envoy.addresses import exempt, public_only
from equabot_broker.envoy.clusters import CONTROL, cluster_name, clusters, names
from equabot_broker.envoy.cutting_filters import watched_answers, watched_uploads
from equabot_broker.envoy.local_replies import REASON, local_replies
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.envoy.routes import Upstream

PROVIDER: Final = "provider"
"""The context extension in which a check is told what provider its route leads to."""
PATHS: Final = "paths"
PATHS_OF_BROKER: Final = "broker"
"""The extension by which a check knows that its route leaves the path to the broker. An Envoy with a configuration of its own
changes paths itself, and so does one that runs with what an older broker has written."""

ADDRESS: Final = "address"
"""The one in which a check is told where its route leads: for a moment of a reload that may not be where it is to lead."""
ROUTES: Final = "gateway"

_LOOPBACK: Final = ("127.0.0.1", "[::1]", "localhost")
_CHECK_WITHIN: Final = "40s"
"""As long as a login may take to be refreshed, and a little more."""
_ATTEMPTS: Final = 48
"""Asked again so often while the broker is away: a restart takes a second, on a busy machine a few, a kubelet's after a second
crash up to thirteen; these take about fifteen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What the configuration is made of. `control` is the broker's socket as Envoy sees it. `routes` is the file that Envoy
    reads its routes from whenever it is replaced; None: they are part of the bootstrap, and stay as they are."""

    host: str
    port: int
    control: Path
    upstreams: Sequence[Upstream]
    options: GatewayOptions
    routes: Path | None = None


def gateway_url(options: GatewayOptions, *, host: str, port: int) -> str:
    """The address that agents are told, without a slash at its end."""
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
    """The document as Envoy reads it from a file."""
    import yaml  # noqa: PLC0415  (1.5 MiB that a broker without a gateway need not load)

    text: str = yaml.safe_dump(config, sort_keys=False, width=128)
    return text


# -- what listens ------------------------------------------------------------------------------------------------------


def _listener(gateway: Gateway) -> Json:
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        codec_type="AUTO",
        http_protocol_options={"allow_absolute_url": False},
        http2_protocol_options=overload.http2(),
        # The broker decides about each header by its name, also where a server might read `_` as `-`.
        common_http_protocol_options={"idle_timeout": overload.IDLE_AT_MOST, "headers_with_underscores_action": "ALLOW"},
        request_headers_timeout="10s",
        stream_idle_timeout=_seconds(gateway.options.idle_timeout),
        max_request_headers_kb=16,
        # What is odd in a path is refused by the broker, which is why it has to see it as it is.
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
        "enable_reuse_port": False,  # a second one on the same port is an error, not half of the connections
        **overload.listener_limits(),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _access_logs() -> list[Json]:
    """What the next request may depend on is told at once. That all went well is told together with what else does within a
    moment: a message each would cost the broker more than the check."""
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
        # A page that makes a name point here (DNS rebinding) is told nothing.
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
                        "no provider of the gateway is at this path: it begins with /<provider>/, of a provider that has"
                        " providers.<provider>.requests or a built-in list",
                    ),
                ],
            },
            {
                "name": "elsewhere",
                "domains": ["*"],
                "routes": [_nothing(403, "HOST_REFUSED", "this gateway is not called by that host: see gateway.url")],
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
    """What a route has that answers by itself."""
    disabled = typed("filters.http.ext_authz.v3.ExtAuthzPerRoute", disabled=True)
    return {"envoy.filters.http.ext_authz": disabled, **exempt()}


def _upstream_routes(upstream: Upstream, gateway: Gateway) -> list[Json]:
    """One for upgrades, which no connection of HTTP/2 is asked for, and one for the rest; and one that answers who only looks
    whether something is there, as some clients do at their start."""
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
            "cluster": cluster,  # the path is the one that the broker has decided about
            "timeout": "0s",  # a long generation takes as long as it takes, while something comes
            "idle_timeout": _seconds(gateway.options.idle_timeout),
            # Only what the vendor has not seen. What it answered is the SDK's to try again.
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
        "typed_per_filter_config": filters,
    }


# -- what a request passes ---------------------------------------------------------------------------------------------


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
