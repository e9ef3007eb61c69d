"""S26: which addresses the rule lets pass, as Envoy reads it."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.envoy.addresses import public_only

RULES = public_only()["typed_config"]["rules"]


def matches(rule: dict[str, Any], address: str) -> bool:
    """Envoy's `Permission`, of the kinds that occur."""
    [(kind, value)] = rule.items()
    match kind:
        case "or_rules":
            return any(matches(one, address) for one in value["rules"])
        case "and_rules":
            return all(matches(one, address) for one in value["rules"])
        case "not_rule":
            return not matches(value, address)
        case "header":
            return bool(value["string_match"]["exact"] != "CONNECT")
        case "matcher":
            prefix = value["typed_config"]["upstream_ip"]
            network = ip_network(f"{prefix['address_prefix']}/{prefix['prefix_len']}")
            return ip_address(address) in network
    raise AssertionError(kind)


def passes(address: str) -> bool:
    """Whether a vendor may have it."""
    assert RULES["action"] == "ALLOW"
    return any(matches(one, address) for policy in RULES["policies"].values() for one in policy["permissions"])


@pytest.mark.parametrize("address", ["160.79.104.10", "104.18.7.192", "8.8.8.8", "2607:6bc0::10", "2a06:98c1:3100::6812:7c0"])
def test_a_public_address_passes(address: str) -> None:
    """Those of vendors."""
    assert passes(address)


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::a00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "2002::1", "2002:a00:1::1", "2001::1", "2001:0:a00:1::1",
        "2001:db8::1", "2001:20::1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::8.8.8.8", "::", "::1", "fc00::1", "fd00:ec2::254",
        "fe80::1", "fec0::1", "ff02::1", "100::1", "5f00::1", "3fff::1", "4000::1",
        "0.0.0.0", "127.255.255.255", "10.1.2.3", "172.31.0.1", "192.168.0.1", "100.100.100.200", "169.254.169.254",
        "168.63.129.16", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.19.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
def test_a_special_address_does_not_pass(address: str) -> None:
    """S26: private, local, translated, mapped, documentation, multicast, reserved, a platform's."""
    assert not passes(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str))
def test_whatever_passes_is_public(address: str) -> None:
    """S26: as Python's own tables of IANA's registries say."""
    known = ip_address(address)
    if not known.is_global or known.is_multicast or known.is_reserved or known.is_link_local:
        assert not passes(address)
