"""What a scraper may ask, and under which names."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from equabot_broker.parsing.request_heads import HeadRefused
from equabot_broker.telemetry._scrape_request import read_request

NAMES = frozenset({"broker-7f", "metrics.example.com"})


def head(host: str | None = "127.0.0.1:9464", *, line: str = "GET /metrics HTTP/1.1", more: str = "") -> bytes:
    fields = [line, *([f"Host: {host}"] if host is not None else []), *([more] if more else [])]
    return "\r\n".join(fields).encode("latin-1")


def refusal(request: bytes) -> str:
    with pytest.raises(HeadRefused) as raised:
        read_request(request, names=NAMES)
    return raised.value.status[:3]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "10.1.2.3:9464", "[::1]:9464", "[fd00::7]", "localhost:9464", "LOCALHOST", "app.localhost", "broker",
        "broker.agents.svc:9464", "broker.agents.svc.cluster.local.:9464", "host.docker.internal", "metrics.example.com",
    ],
)  # fmt: skip
def test_an_address_or_a_name_of_ours_is_answered(host: str) -> None:
    """S22: Prometheus scrapes pods by address and services by name."""
    assert read_request(head(host), names=NAMES).body
    assert not read_request(head(host, line="HEAD /metrics?x HTTP/1.1"), names=NAMES).body


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost.evil.example", "svc.evil.example",
        "other.metrics.example.com", "broker-7f.evil.example", "a@127.0.0.1", "127.0.0.1/", "127.0.0.1:9464:1", "[::1", "",
        "..", "127.0.0.1, evil.example", "127.0.0.1 evil.example", "é.svc",
    ],
)  # fmt: skip
def test_a_name_that_the_public_dns_may_have_is_refused(host: str) -> None:
    """S22: a page of that name would read the metrics through a browser on this machine."""
    assert refusal(head(host)) == "421"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head(None), "421"),
        (head(more="host: 127.0.0.1"), "400"),
        (head(more="Host : 127.0.0.1"), "400"),
        (head(more=" folded"), "400"),
        (head(more="X: a\nb"), "400"),
        (head(more="Content-Length: 5"), "400"),
        (head(more="Transfer-Encoding: chunked"), "400"),
        (head(more="X: " + "x" * 8192), "431"),
        (head(line="GET /metrics HTTP/2.0"), "400"),
        (head(line="GET  /metrics HTTP/1.1"), "400"),
        (head(line="get /metrics HTTP/1.1"), "400"),
        (head(line="GET /metrics"), "400"),
        (head(line="GET / HTTP/1.1"), "404"),
        (head(line="GET //metrics HTTP/1.1"), "404"),
        (head(line="GET /metrics/ HTTP/1.1"), "404"),
        (head(line="GET http://127.0.0.1/metrics HTTP/1.1"), "404"),
        (head(line="CONNECT 127.0.0.1:80 HTTP/1.1"), "404"),
        (head(line="POST /metrics HTTP/1.1"), "405"),
        (head(line="OPTIONS /metrics HTTP/1.1"), "405"),
    ],
)
def test_anything_but_a_scrape_is_refused(request_: bytes, status: str) -> None:
    """S18: one method and its HEAD, one path, no body, one host, 8 KiB."""
    assert refusal(request_) == status


def test_an_old_scraper_need_not_name_a_host() -> None:
    """HTTP/1.0 has no Host; a browser always sends one."""
    assert read_request(head(None, line="GET /metrics HTTP/1.0"), names=NAMES).accept == ""
    assert refusal(head("evil.example", line="GET /metrics HTTP/1.0")) == "421"


@given(st.binary())
@example(b"")
@example(b"\r\n")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """S18: by one kind of error, whatever a stranger sends."""
    for request in (data, head() + b"\r\n" + data):
        with suppress(HeadRefused):
            read_request(request, names=NAMES)
