"""TLS before a vendor, with ALPN: an Envoy of the test's own, which tells the vendor in headers what it saw."""

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.fakes.upstream import Upstream
from tests.kubernetes.certificates import Pair
from tests.ports import free_port
from tests.tiers import program

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_SEEN: Final = {"x-seen-protocol": "%PROTOCOL%", "x-seen-name": "%REQUESTED_SERVER_NAME%"}


@contextmanager
def tls_front(vendor: Upstream, folder: Path, pair: Pair, *, alpn: tuple[str, ...] = ("h2", "http/1.1")) -> Iterator[int]:
    """Its port, while it listens. The vendor is told `x-seen-protocol` and `x-seen-name` (what the client asked for by SNI)."""
    port = free_port()
    file = folder / "front.json"
    (folder / "front.pem").write_bytes(pair.certificate)
    (folder / "front.key").write_bytes(pair.key)
    file.write_text(json.dumps(_config(vendor, folder, port, alpn)))
    command = [str(program("envoy")), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    with (folder / "front.log").open("wb") as log:
        process = subprocess.Popen(command, env={}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, (folder / "front.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait(60)


def _config(vendor: Upstream, folder: Path, port: int, alpn: tuple[str, ...]) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "generate_request_id": False,
        "route_config": {
            "request_headers_to_add": [{"header": {"key": name, "value": value}} for name, value in _SEEN.items()],
            "virtual_hosts": [
                {
                    "name": "vendor",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "vendor", "timeout": "0s"}}],
                }
            ],
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}
        ],
    }
    tls = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": list(alpn),
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(folder / "front.pem")},
                    "private_key": {"filename": str(folder / "front.key")},
                }
            ],
        },
    }
    listener = {
        "name": "front",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "listener_filters": [
            {
                "name": "tls_inspector",
                "typed_config": {"@type": f"{_TYPE}.filters.listener.tls_inspector.v3.TlsInspector"},
            }
        ],
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ],
    }
    there = {"socket_address": {"address": "127.0.0.1", "port_value": vendor.port}}
    options = {
        "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
    }
    cluster = {
        "name": "vendor",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "vendor",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": there}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError):
        connection.connect()
        connection.close()
        return True
    return False
