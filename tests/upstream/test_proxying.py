"""Which proxy a request goes through."""

import pytest

from equabot_broker.upstream.proxying import proxies

PROXY = "http://proxy.example:3128"
PASSWORD = "http://me:pa55word@proxy.example:3128"


@pytest.mark.parametrize(
    ("environ", "scheme", "variable"),
    [
        ({}, "https", None),
        ({"HTTPS_PROXY": PROXY}, "https", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": PROXY}, "http", None),
        ({"ALL_PROXY": PROXY}, "http", "ALL_PROXY"),
        ({"ALL_PROXY": "socks5://x:1", "HTTPS_PROXY": PROXY}, "https", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://other:1", "https_proxy": PROXY}, "https", "https_proxy"),
        ({"HTTPS_PROXY": PROXY, "https_proxy": ""}, "https", None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": f" {PROXY} "}, "https", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": PASSWORD}, "https", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://[fd00::1]:3128"}, "https", "HTTPS_PROXY"),
    ],
)
def test_the_nearest_variable_counts(environ: dict[str, str], scheme: str, variable: str | None) -> None:
    """P2: lower case first; that of the scheme before ALL_PROXY; an empty one says there is none."""
    found = proxies(environ)
    proxy = found.of(scheme, "api.example.com", None)
    assert (proxy and proxy.variable) == variable
    assert list(found.faults()) == [] or "socks" in environ.get("ALL_PROXY", "")
    assert "pa55word" not in repr(found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks://proxy:1080", "SOCKS"),
        ("socks5://me:pa55word@proxy:1080", "SOCKS"),
        ("SOCKS5H://proxy", "SOCKS"),
        ("socks4a://proxy:1", "SOCKS"),
        ("http://", "not the URL"),
        ("http://[::1", "not the URL"),
        ("http://proxy:port", "not the URL"),
        ("http://proxy:99999", "not the URL"),
        ("http://proxy:0", "not the URL"),
        ("ftp://proxy:1", "not the URL"),
        ("http:// proxy", "not the URL"),
        ("://", "not the URL"),
        ("http://me:pa55word@", "not the URL"),
        ("http://pröxy:1", "not the URL"),
    ],
)
def test_what_cannot_be_a_proxy_is_named_and_not_shown(value: str, said: str) -> None:
    """P2: the variable and the step to take; its value may hold a password."""
    found = proxies({"HTTPS_PROXY": value})
    ((variable, fault),) = found.faults()
    assert variable == "HTTPS_PROXY"
    assert said in fault
    assert len(value) < len("http://x") or value not in fault
    assert "pa55word" not in fault + repr(found)
    proxy = found.of("https", "api.example.com", None)
    assert proxy is not None
    assert proxy.fault == fault


@pytest.mark.parametrize(
    ("entries", "host", "port", "straight"),
    [
        ("*", "api.example.com", None, True),
        ("example.com", "example.com", None, True),
        ("example.com", "api.example.com", None, True),
        ("example.com", "badexample.com", None, False),
        (".example.com", "api.example.com", None, True),
        ("*.example.com", "api.example.com", None, True),
        ("EXAMPLE.com.", "api.example.com", None, True),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", None, False),
        ("example.com:443", "example.com", None, True),
        ("10.0.0.0/8", "10.1.2.3", None, True),
        ("10.0.0.0/8", "11.1.2.3", None, False),
        ("10.1.2.3", "10.1.2.3", None, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("::1", "::1", None, True),
        ("[::1]", "::1", None, True),
        ("[::1]:8443", "::1", 8443, True),
        ("[::1]:8443", "::1", 1, False),
        ("fd00::/8", "fd12::1", None, True),
        ("fd00::/8", "[fd12::1]", None, True),
        ("[fd00::]/8", "fd12::1", None, True),
        ("fe80::/10", "fe80::1%eth0", None, True),
        ("fd00::/8", "fe80::1", None, False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", None, True),
        ("localhost,127.0.0.0/8,::1/128,*.orb.local,[::1]", "x.orb.local", None, True),
        ("a.example b.example", "b.example", None, True),
        ("http://example.com", "example.com", None, True),
        ("1.2.3.4", "x.1.2.3.4", None, False),
        ("2.3.4", "1.2.3.4", None, False),
        ("", "example.com", None, False),
    ],
)
def test_who_is_reached_without_a_proxy(entries: str, host: str, port: int | None, straight: bool) -> None:
    """P2: domains, addresses and networks of both families."""
    found = proxies({"HTTPS_PROXY": PROXY, "NO_PROXY": entries})
    assert (found.of("https", host, port) is None) == straight
    assert list(found.faults()) == []


def test_entries_that_make_no_sense_are_counted_and_ignored() -> None:
    """P2: the sound ones count."""
    found = proxies({"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::/999,exa mple.com,a/b,ü.example"})
    assert found.of("https", "mple.com", None) is None
    ((variable, fault),) = found.faults()
    assert variable == "NO_PROXY"
    assert fault.startswith("3 entries: each is not a domain, address or network")
