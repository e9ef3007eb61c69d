"""Envoy's configuration: Envoy accepts it, and it has the required parts."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.envoy.bootstrap_config import Gateway, as_yaml, bootstrap_config, gateway_url
from equabot_broker.envoy.options import GatewayOptions
from equabot_broker.envoy.routes import Upstream, upstreams
from equabot_broker.providers.catalog import PROVIDERS
from tests.tiers import program, require

GATEWAY = Gateway(
    host="127.0.0.1",
    port=8787,
    control=Path("/run/equabot/gateway/control.sock"),
    upstreams=upstreams(PROVIDERS.values(), vendor_urls={known.id: known.base_url for known in PROVIDERS.values()}),
    options=GatewayOptions(),
)
PRIVATE = Upstream("local", "10.0.0.7", 8000, tls=False, names=("local",), private=True)


@pytest.mark.parametrize(
    "gateway",
    [
        pytest.param(GATEWAY, id="every vendor"),
        pytest.param(replace(GATEWAY, upstreams=()), id="no vendor"),
        pytest.param(replace(GATEWAY, upstreams=(PRIVATE,), host="::1"), id="a private upstream without TLS, IPv6"),
        pytest.param(replace(GATEWAY, options=GatewayOptions(scrub=True, url="http://gateway:8787")), id="scrubbing"),
    ],
)
def test_envoy_accepts_it(gateway: Gateway, tmp_path: Path) -> None:
    """The real one, without a warning: a deprecated field is a fault to come."""
    require("envoy")
    file = tmp_path / "envoy.yaml"
    file.write_text(as_yaml(bootstrap_config(gateway)))
    told = subprocess.run(
        [str(program("envoy")), "--mode", "validate", "-c", str(file), "-l", "warning"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout.strip()) == (0, f"configuration '{file}' OK"), told.stderr
    assert "eprecated" not in told.stderr


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in the document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def routes(gateway: Gateway) -> list[dict[str, Any]]:
    """Those that lead to a vendor."""
    return [node for node in walk(bootstrap_config(gateway)) if "route" in node and "match" in node]


def test_nothing_but_the_gateway_listens() -> None:
    """No admin port: it would show, and change, everything."""
    made = bootstrap_config(GATEWAY)
    assert "admin" not in made
    assert [listener["address"]["socket_address"] for listener in made["static_resources"]["listeners"]] == [
        {"address": "127.0.0.1", "port_value": 8787}
    ]


def test_every_route_is_checked_for_its_own_provider_and_rewritten_to_its_host() -> None:
    """A token is good for one provider: the check gets the provider of the route."""
    for route in routes(GATEWAY):
        named = route["match"]["prefix"].split("/")[1]
        [provider] = [one.provider for one in GATEWAY.upstreams if named in one.names]
        filters = route["typed_per_filter_config"]
        checked = filters["envoy.filters.http.ext_authz"]
        [upstream] = [one for one in GATEWAY.upstreams if one.provider == provider]
        context = {"provider": provider, "paths": "broker", "address": upstream.address}
        assert checked["check_settings"] == {"context_extensions": context}
        assert upstream.address == PROVIDERS[provider].base_url
        assert "disabled" not in checked
        assert filters["envoy.filters.http.dynamic_forward_proxy"]["host_rewrite_literal"] == upstream.authority
        assert not {"prefix_rewrite", "regex_rewrite", "path_rewrite_policy"} & route["route"].keys()
        assert "envoy.filters.http.rbac" not in filters


def test_a_check_that_fails_lets_nothing_pass() -> None:
    """Without the broker there is no credential, and no path around it."""
    modes = {
        node["@type"].rpartition(".")[2]: node["failure_mode_allow"]
        for node in walk(bootstrap_config(GATEWAY))
        if "failure_mode_allow" in node
    }
    # Through the other one requests are cut that were let pass: its loss breaks off none (ADR 19).
    assert modes == {"ExtAuthz": False, "ExternalProcessor": True}


def test_what_is_watched_is_shown_nothing_of_the_request() -> None:
    """S11: by then its headers hold the credential, which cutting it does not need."""
    watching = [node for node in walk(bootstrap_config(GATEWAY)) if node.get("@type", "").endswith("ExternalProcessor")]
    assert len(watching) == 2
    for processor in watching:
        shown = [one["exact"] for one in processor["forward_rules"]["allowed_headers"]["patterns"]]
        assert shown == [":status", "retry-after", "retry-after-ms"]
        modes = processor["processing_mode"]
        assert {modes["request_body_mode"], modes["response_body_mode"]} == {"NONE"}


def test_only_a_private_upstream_is_exempt_from_the_rule_against_private_addresses() -> None:
    """And only on its own route."""
    both = replace(GATEWAY, upstreams=(PRIVATE, *GATEWAY.upstreams))
    exempt = {
        route["match"]["prefix"] for route in routes(both) if "envoy.filters.http.rbac" in route["typed_per_filter_config"]
    }
    assert exempt == {"/local/"}


def test_vendors_are_verified() -> None:
    """Their certificate, against the configured authorities and for the name that was asked for."""
    made = bootstrap_config(replace(GATEWAY, options=GatewayOptions(ca_file=Path("/ca.pem"))))
    clusters = [cluster for cluster in made["static_resources"]["clusters"] if cluster["name"].startswith("vendors")]
    assert len(clusters) == 2
    for cluster in clusters:
        context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        assert context["validation_context"] == {"trusted_ca": {"filename": "/ca.pem"}}
        [options] = cluster["typed_extension_protocol_options"].values()
        assert options["upstream_http_protocol_options"] == {"auto_sni": True, "auto_san_validation": True}


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("", "127.0.0.1", "http://127.0.0.1:8787"),
        ("", "0.0.0.0", "http://127.0.0.1:8787"),
        ("", "::", "http://[::1]:8787"),
        ("http://gateway:9", "127.0.0.1", "http://gateway:9"),
    ],
)
def test_agents_get_an_address_that_they_can_reach(url: str, host: str, expected: str) -> None:
    """Whatever it listens on, unless the configuration names one."""
    assert gateway_url(GatewayOptions(url=url), host=host, port=8787) == expected


def test_a_check_outlasts_a_kubelets_second_restart() -> None:
    """K6: Envoy asks again for about 15 seconds. Its pauses are random, on average half of the longest one."""
    (policy,) = [
        node["envoy_grpc"] and node["retry_policy"]
        for node in walk(bootstrap_config(GATEWAY))
        if "retry_policy" in node and "envoy_grpc" in node
    ]
    longest = float(policy["retry_back_off"]["max_interval"].removesuffix("s"))
    assert 14 <= policy["num_retries"] * longest / 2 <= 20
