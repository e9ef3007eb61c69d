"""Provider facts → where the gateway sends what it lets pass."""

from dataclasses import replace

import pytest

from equabot_broker.domain.provider import Provider
from equabot_broker.envoy.routes import Upstream, upstreams
from equabot_broker.providers.catalog import PROVIDERS

VENDORS = {known.id: known.base_url for known in PROVIDERS.values()}


def test_every_vendor_with_an_address_has_a_route() -> None:
    """Each to its own host over TLS, and none to a private network."""
    made = upstreams(PROVIDERS.values(), vendor_urls=VENDORS)
    assert [one.provider for one in made] == sorted(known.id for known in PROVIDERS.values() if known.base_url)
    assert all(known.requests for known in PROVIDERS.values())
    assert all(one.tls and not one.private for one in made)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.acme.example/v1/", Upstream("acme", "api.acme.example", 443, tls=True, names=("acme",), private=True)),
        ("http://10.0.0.7:8000", Upstream("acme", "10.0.0.7", 8000, tls=False, names=("acme",), private=True)),
        ("http://[fd00::1]/x", Upstream("acme", "fd00::1", 80, tls=False, names=("acme",), private=True)),
    ],
)
def test_an_address_is_taken_apart(url: str, expected: Upstream) -> None:
    """Scheme, host, port and path; one that the configuration gave may be private."""
    assert upstreams([Provider(id="acme", base_url=url, requests=("/**",))], vendor_urls=VENDORS) == (expected,)


@pytest.mark.parametrize("url", ["", "ftp://api.acme.example", "https://"])
def test_what_is_not_an_address_has_no_route(url: str) -> None:
    """A provider whose address depends on the customer is not in the gateway."""
    assert upstreams([Provider(id="acme", base_url=url, requests=("/**",))], vendor_urls=VENDORS) == ()


@pytest.mark.parametrize("requests", [(), ("!/admin*",)])
def test_a_provider_without_a_list_of_requests_has_no_route(requests: tuple[str, ...]) -> None:
    """S1: it is not in the gateway, as no lease for it is brokered."""
    acme = Provider(id="acme", base_url="https://api.acme.example", requests=requests)
    assert upstreams([acme], vendor_urls=VENDORS) == ()


def test_a_vendor_at_its_own_address_stays_public_whatever_else_was_configured() -> None:
    """Only another address makes the difference."""
    renamed = replace(PROVIDERS["openai"], client_id="ours")
    assert upstreams([renamed], vendor_urls=VENDORS) == (
        Upstream("openai", "api.openai.com", 443, tls=True, names=("openai",)),
    )


def test_the_authority_names_a_port_only_where_it_is_another() -> None:
    """As browsers and SDKs write `Host`."""
    usual = Upstream("acme", "acme.example", 443, tls=True)
    assert usual.authority == "acme.example"
    assert replace(usual, port=8443).authority == "acme.example:8443"
    assert replace(usual, port=443, tls=False).authority == "acme.example:443"
    assert replace(usual, host="fd00::1").authority == "[fd00::1]"
