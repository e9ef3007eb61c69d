"""The destinations of Envoy's requests: the broker, and vendors by name. Filters remove headers that a vendor may not send to
an agent, and trailers of requests."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from equabot_broker.envoy import overload
from equabot_broker.envoy._documents import named, typed
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.envoy.routes import Upstream
from equabot_broker.parsing.untrusted_json import Json

CONTROL: Final = "equabot_control"
"""The name of the broker's cluster."""
_OURS: Final = ("x-equabot-", "x-envoy-")
"""Response headers that only the gateway itself may set."""
_COOKIES: Final = ("set-cookie", "set-cookie2")
"""Response headers with credentials of the vendor: the gateway is one host, so an HTTP client would send one vendor's
credential to the next vendor."""


_NAMES: Final = ("vendors", "vendors_for_upgrades", "vendors_without_tls")


def cluster_name(upstream: Upstream, *, upgrade: bool = False) -> str:
    """The cluster for a vendor: upgrades need a connection of HTTP/1.1."""
    if not upstream.tls:
        return "vendors_without_tls"
    return "vendors_for_upgrades" if upgrade else "vendors"


def clusters(control: Path, upstreams: Iterable[Upstream], options: GatewayOptions, *, every: bool = False) -> list[Json]:
    """The clusters that the upstreams need, or `every` cluster that any upstream may need, as documents."""
    used = {cluster_name(one, upgrade=upgrade) for one in upstreams for upgrade in (False, True)}
    used |= set(_NAMES) if every else set()
    return [_control(control), *(_vendors(name, options) for name in sorted(used))]


def names() -> Json:
    """The DNS cache that the filter and the clusters share."""
    return {"name": "vendors", "dns_lookup_family": "V4_PREFERRED", "max_hosts": 256}


def _control(socket: Path) -> Json:
    return {
        "name": CONTROL,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _protocol(explicit_http_config={"http2_protocol_options": {}}),
        # All that waits for the broker to come back is a retry.
        "circuit_breakers": {
            "thresholds": [{"max_connections": 1024, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 4096}]
        },
        "load_assignment": {
            "cluster_name": CONTROL,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}],
        },
    }


def _vendors(name: str, options: GatewayOptions) -> Json:
    tls = name != "vendors_without_tls"
    protocols: Json = (
        {"auto_config": {"http2_protocol_options": overload.http2()}}
        if name == "vendors"
        else {"explicit_http_config": {"http_protocol_options": {}}}
    )
    protocols["http_filters"] = _filters()
    # It has no effect without TLS, but Envoy refuses a cluster that resolves names without it.
    protocols["upstream_http_protocol_options"] = {"auto_sni": True, "auto_san_validation": True}
    cluster: Json = {
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": overload.BUFFERED,
        "circuit_breakers": overload.breakers(options),
        "typed_extension_protocol_options": _protocol(**protocols),
        "cluster_type": named(
            "envoy.clusters.dynamic_forward_proxy",
            "clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=names(),
        ),
    }
    if tls:
        validation = {"trusted_ca": {"filename": str(options.ca_file)}}
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


def _filters() -> list[Json]:
    """Applies to answers of vendors only: answers of the gateway itself do not pass this filter."""
    ours = [{"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}} for prefix in _OURS]
    cookies = [{"remove": name} for name in _COOKIES]
    every = [{"remove_on_match": {"key_matcher": {"safe_regex": {"regex": ".*"}}}}]
    mutations = {
        "response_mutations": [*ours, *cookies],
        "response_trailers_mutations": [*ours, *cookies],
        "request_trailers_mutations": every,
    }
    return [
        named("envoy.filters.http.header_mutation", "filters.http.header_mutation.v3.HeaderMutation", mutations=mutations),
        named("envoy.filters.http.upstream_codec", "filters.http.upstream_codec.v3.UpstreamCodec"),
    ]
