"""The addresses that a vendor's name may resolve to: public ones only. An unknown range is refused."""

from typing import Final

from equabot_broker.envoy._documents import named, typed
from equabot_broker.parsing.untrusted_json import Json

_PUBLIC: Final = ("0.0.0.0/0", "2000::/3")
"""The ranges with public addresses. IPv6 ranges that are mapped, translated (64:ff9b::/96, 64:ff9b:1::/48), local or
unassigned are not among them."""
_SPECIAL: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)  # fmt: skip
"""Special ranges inside those (IANA's registries of special-purpose addresses, RFC 6890): private, link-local, Teredo, 6to4.
168.63.129.16 is Azure's platform, although its address looks public."""


def public_only() -> Json:
    """A filter that refuses a request whose vendor has another address, or no known one. CONNECT has no route and no vendor,
    so the next filter answers it."""
    special = {"or_rules": {"rules": [_upstream(prefix) for prefix in _SPECIAL]}}
    public = {"or_rules": {"rules": [_upstream(prefix) for prefix in _PUBLIC]}}
    allowed = {"and_rules": {"rules": [public, {"not_rule": special}]}}
    tunnel = {"header": {"name": ":method", "string_match": {"exact": "CONNECT"}}}
    policies = {"public": _policy(allowed), "tunnel": _policy(tunnel)}
    return named("envoy.filters.http.rbac", "filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies})


def exempt() -> Json:
    """The filter's configuration for a route without a vendor, or with an address that the operator gave."""
    return {"envoy.filters.http.rbac": typed("filters.http.rbac.v3.RBACPerRoute")}


def _policy(permission: Json) -> Json:
    return {"permissions": [permission], "principals": [{"any": True}]}


def _upstream(prefix: str) -> Json:
    address, _, length = prefix.partition("/")
    return {
        "matcher": named(
            "envoy.rbac.matchers.upstream_ip_port",
            "rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
            upstream_ip={"address_prefix": address, "prefix_len": int(length)},
        )
    }
