"""Envoy's configuration, made of the providers' facts: static but for the names that it resolves, and without an admin port.

    agent → listener on loopback → host and path known? → ext_authz asks the broker → name resolved → address public? → vendor

Everything that decides about a request is here or in `authorize`; Envoy's defaults are named where they matter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from broker.envoy._documents import Json, header, named, typed
from broker.envoy.local_replies import REASON, local_replies
from broker.envoy.options import GatewayOptions
from broker.envoy.routes import Upstream

PROVIDER: Final = "provider"
"""The context extension in which a check is told what provider its route leads to."""

_CONTROL: Final = "equabot_control"
_LOOPBACK: Final = ("127.0.0.1", "[::1]", "localhost")
_CHECK_WITHIN: Final = "40s"
"""As long as a login may take to be refreshed, and a little more."""
_ATTEMPTS: Final = 32
"""Asked again so often while the broker is away: a restart takes a second, on a busy machine a few; these take about ten."""
_BUFFER: Final = 1 << 18
"""What is read of an answer at once, at most: where it is scrubbed, that is a message to the broker, which takes a megabyte."""
_PRIVATE: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/127", "::ffff:0:0/96", "fc00::/7", "fe80::/10",
    "ff00::/8",
)  # fmt: skip
"""What is no vendor's: this machine, private and link-local networks (IANA's special-purpose registries)."""
_STRIPPED: Final = (
    "x-forwarded-proto", "x-request-id", "x-envoy-expected-rq-timeout-ms", "x-envoy-internal", "x-envoy-external-address",
)  # fmt: skip
"""What Envoy adds to requests: no vendor needs it, and the last one is an agent's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What the configuration is made of. `control` is the broker's socket as Envoy sees it."""

    host: str
    port: int
    control: Path
    upstreams: Sequence[Upstream]
    options: GatewayOptions


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
        "static_resources": {"listeners": [_listener(gateway)], "clusters": _clusters(gateway)},
        "overload_manager": {
            "resource_monitors": [
                named(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=4096,
                )
            ]
        },
    }


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
        http2_protocol_options={"max_concurrent_streams": 1024},
        common_http_protocol_options={"idle_timeout": "3600s", "headers_with_underscores_action": "REJECT_REQUEST"},
        request_headers_timeout="10s",
        stream_idle_timeout=_seconds(gateway.options.idle_timeout),
        max_request_headers_kb=64,
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
        route_config=_routes(gateway),
        http_filters=_filters(gateway),
    )
    return {
        "name": "gateway",
        "address": _address(gateway.host, gateway.port),
        "enable_reuse_port": False,  # a second one on the same port is an error, not half of the connections
        "per_connection_buffer_limit_bytes": _BUFFER,
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
            "grpc_service": {"envoy_grpc": {"cluster_name": _CONTROL}},
            "transport_api_version": "V3",
            **buffer,
        },
        additional_response_headers_to_log=["retry-after", "retry-after-ms"],
    )
    cel = named(
        "envoy.access_loggers.extension_filters.cel",
        "access_loggers.filters.cel.v3.ExpressionFilter",
        expression=expression,
    )
    return log | {"filter": {"extension_filter": cel}}


def _routes(gateway: Gateway) -> Json:
    named = urlsplit(gateway.options.url).hostname
    domains = [*_LOOPBACK, *([] if named is None or named in _LOOPBACK else [named])]
    routes = [route for upstream in gateway.upstreams for route in _upstream_routes(upstream, gateway)]
    return {
        "name": "gateway",
        # A page that makes a name point here (DNS rebinding) is told nothing.
        "ignore_port_in_host_matching": True,
        "request_headers_to_remove": list(_STRIPPED),
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": domains,
                "routes": [
                    *routes,
                    _nothing(
                        404,
                        "PROVIDER_UNKNOWN",
                        "no provider of the gateway is at this path: it begins with /<provider>/",
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
        "typed_per_filter_config": {
            "envoy.filters.http.ext_authz": typed("filters.http.ext_authz.v3.ExtAuthzPerRoute", disabled=True)
        },
    }


def _upstream_routes(upstream: Upstream, gateway: Gateway) -> list[Json]:
    """One for upgrades, which no connection of HTTP/2 is asked for, and one for the rest. Some SDKs add the vendor's own base
    path to an address: said twice, it counts once."""
    upgrade = {"headers": [{"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}]}
    return [
        _upstream_route(upstream, gateway, {"prefix": prefix} | extra, cluster=_cluster_name(upstream, upgrade=bool(extra)))
        for prefix in dict.fromkeys((f"/{upstream.provider}{upstream.path}/", f"/{upstream.provider}/"))
        for extra in (upgrade, {})
    ]


def _upstream_route(upstream: Upstream, gateway: Gateway, match: Json, *, cluster: str) -> Json:
    filters = {
        "envoy.filters.http.ext_authz": typed(
            "filters.http.ext_authz.v3.ExtAuthzPerRoute",
            check_settings={"context_extensions": {PROVIDER: upstream.provider}},
        ),
        "envoy.filters.http.dynamic_forward_proxy": typed(
            "filters.http.dynamic_forward_proxy.v3.PerRouteConfig", host_rewrite_literal=upstream.authority
        ),
    }
    if upstream.private:
        filters["envoy.filters.http.rbac"] = typed("filters.http.rbac.v3.RBACPerRoute")
    return {
        "match": match,
        "route": {
            "cluster": cluster,
            "prefix_rewrite": f"{upstream.path}/",
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
        *([_scrubbing()] if gateway.options.scrub else []),
        named(
            "envoy.filters.http.dynamic_forward_proxy",
            "filters.http.dynamic_forward_proxy.v3.FilterConfig",
            dns_cache_config=_names(),
            save_upstream_address=True,
        ),
        _public_only(),
        named("envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True),
    ]


def _authorization() -> Json:
    return named(
        "envoy.filters.http.ext_authz",
        "filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        grpc_service={
            "envoy_grpc": {"cluster_name": _CONTROL},
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
        grpc_service={"envoy_grpc": {"cluster_name": _CONTROL}, "timeout": "5s"},
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


def _names() -> Json:
    return {"name": "vendors", "dns_lookup_family": "V4_PREFERRED", "max_hosts": 256}


def _public_only() -> Json:
    addresses = [
        {"address_prefix": prefix.partition("/")[0], "prefix_len": int(prefix.partition("/")[2])} for prefix in _PRIVATE
    ]
    matchers = [
        {
            "matcher": named(
                "envoy.rbac.matchers.upstream_ip_port",
                "rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
                upstream_ip=address,
            )
        }
        for address in addresses
    ]
    return named(
        "envoy.filters.http.rbac",
        "filters.http.rbac.v3.RBAC",
        rules={
            "action": "DENY",
            "policies": {"private": {"permissions": [{"or_rules": {"rules": matchers}}], "principals": [{"any": True}]}},
        },
    )


# -- where it goes -----------------------------------------------------------------------------------------------------


def _cluster_name(upstream: Upstream, *, upgrade: bool = False) -> str:
    if not upstream.tls:
        return "vendors_without_tls"
    return "vendors_for_upgrades" if upgrade else "vendors"


def _clusters(gateway: Gateway) -> list[Json]:
    clusters = [_control(gateway.control)]
    names = {_cluster_name(one, upgrade=upgrade) for one in gateway.upstreams for upgrade in (False, True)}
    return clusters + [_vendors(name, gateway.options.ca_file) for name in sorted(names)]


def _control(socket: Path) -> Json:
    return {
        "name": _CONTROL,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _protocol(explicit_http_config={"http2_protocol_options": {}}),
        # Everything that waits for a broker to come back is a retry.
        "circuit_breakers": _breakers(retries=4096),
        "load_assignment": {
            "cluster_name": _CONTROL,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}],
        },
    }


def _vendors(name: str, ca_file: Path) -> Json:
    tls = name != "vendors_without_tls"
    protocols: Json = (
        {"auto_config": {"http2_protocol_options": {}}}
        if name == "vendors"
        else {"explicit_http_config": {"http_protocol_options": {}}}
    )
    # Without TLS it means nothing, but a cluster that resolves names is refused without it.
    protocols["upstream_http_protocol_options"] = {"auto_sni": True, "auto_san_validation": True}
    cluster: Json = {
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": _BUFFER,
        "circuit_breakers": _breakers(),
        "typed_extension_protocol_options": _protocol(**protocols),
        "cluster_type": named(
            "envoy.clusters.dynamic_forward_proxy",
            "clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=_names(),
        ),
    }
    if tls:
        validation = {"trusted_ca": {"filename": str(ca_file)}}
        cluster["transport_socket"] = named(
            "envoy.transport_sockets.tls",
            "transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context={
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": validation,
            },
        )
    return cluster


def _protocol(**config: Any) -> Mapping[str, Json]:
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed("upstreams.http.v3.HttpProtocolOptions", **config)}


def _breakers(*, retries: int = 64) -> Json:
    most = {"max_connections": 1024, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": retries}
    return {"thresholds": [most]}


def _seconds(duration: float) -> str:
    return f"{duration:.3f}s"
