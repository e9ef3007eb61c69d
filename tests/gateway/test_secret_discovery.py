"""An Envoy that somebody runs already, with `credential_injector` and a secret from the broker: docs/gateway.md shows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.running import Gateway, Told
from tests.journeys.running import KEY, OTHER_KEY
from tests.ports import free_port

_TYPE: Final = "type.googleapis.com/envoy.extensions"


def config(gateway: Gateway, port: int, *, secret: str, header: str) -> dict[str, Any]:
    """A listener that puts what the broker calls by that name into the header of every request, and nothing else of ours."""
    source = {
        "name": secret,
        "sds_config": {
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "equabot"}}],
            },
        },
    }
    injector = {
        "@type": f"{_TYPE}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {
            "name": "envoy.http.injected_credentials.generic",
            "typed_config": {
                "@type": f"{_TYPE}.http.injected_credentials.generic.v3.Generic",
                "credential": source,
                "header": header,
            },
        },
    }
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mesh",
        "route_config": {
            "virtual_hosts": [
                {"name": "vendor", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "vendor"}}]}
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}},
        ],
    }
    options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    control = {"pipe": {"path": str(gateway.run_dir / "gateway" / "control.sock")}}
    vendor = {"socket_address": {"address": "127.0.0.1", "port_value": gateway.vendor.port}}
    return {
        "node": {"id": "mesh", "cluster": "mesh"},
        "static_resources": {
            "listeners": [
                {
                    "name": "mesh",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
                    ],
                }
            ],
            "clusters": [
                _cluster("equabot", control, typed_extension_protocol_options=options),
                _cluster("vendor", vendor),
            ],
        },
    }


def _cluster(name: str, address: dict[str, Any], **more: Any) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **more}


class Mesh(Gateway):
    """What asks it asks an Envoy that is not the broker's. Its own gateway is there for the control socket alone."""

    @contextmanager
    def running(self, *, secret: str, header: str) -> Iterator[None]:
        self.port = free_port()
        file = self.home / "mesh.json"
        file.write_text(json.dumps(config(self, self.port, secret=secret, header=header)))
        with self.envoy(file):
            yield

    def injected(self) -> Told:
        """A request without any credential."""
        return self.ask("", "/v1/messages")


@pytest.fixture
def mesh(vendor: Upstream) -> Iterator[Mesh]:
    """Beside a broker with one key."""
    made = Mesh(vendor, mode="sidecar", dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    try:
        yield made.start()
    finally:
        made.close()


def test_a_rotation_reaches_the_wire_and_so_does_an_end(mesh: Mesh, vendor: Upstream) -> None:
    """What changes in `.env` is what the next request carries. What is deleted there is carried no more."""
    with mesh.running(secret="main/anthropic", header="x-api-key"):
        assert mesh.injected().status == 200
        assert [request.keys() for request in vendor.received] == [{"x-api-key": KEY}]
        mesh.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        mesh.wait_for(lambda: mesh.injected().status == 200 and vendor.received[-1].secret() == OTHER_KEY)
        mesh.write_dotenv("")
        mesh.wait_for(lambda: mesh.injected().status == 401)
        vendor.received.clear()
        assert mesh.injected().status == 401
        assert vendor.received == []
        mesh.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
        mesh.wait_for(lambda: mesh.injected().status == 200)
        assert {request.secret() for request in vendor.received} == {KEY}


def test_it_goes_on_while_the_broker_is_away(mesh: Mesh, vendor: Upstream) -> None:
    """Envoy keeps what it was given, and hears of what has changed when the broker is back."""
    with mesh.running(secret="profile/anthropic:dotenv", header="x-api-key"):
        assert mesh.injected().status == 200
        mesh.kill()
        assert mesh.injected().status == 200
        mesh.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        mesh.start()
        mesh.wait_for(lambda: mesh.injected().status == 200 and vendor.received[-1].secret() == OTHER_KEY)
        mesh.kill()
        mesh.write_dotenv("")
        mesh.start()
        mesh.wait_for(lambda: mesh.injected().status == 401)


def test_a_token_comes_with_its_scheme(mesh: Mesh, vendor: Upstream) -> None:
    """In `authorization`, as a vendor wants it."""
    token = "sk-ant-oat01-" + "mesh0" * 20
    mesh.write_dotenv(f"ANTHROPIC_AUTH_TOKEN={token}\n")
    with mesh.running(secret="main/anthropic", header="authorization"):
        mesh.wait_for(
            lambda: mesh.injected().status == 200 and vendor.received[-1].headers["authorization"] == f"Bearer {token}"
        )


def test_envoys_log_holds_no_key(mesh: Mesh) -> None:
    """Nor does anything else that is written."""
    with mesh.running(secret="main/anthropic", header="x-api-key"):
        assert mesh.injected().status == 200
    assert [name for name, text in mesh.written().items() if KEY.encode() in text] == []
