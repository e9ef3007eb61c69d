"""A vendor that echoes what it is sent: what an agent sees of it, as it is and with `scrub`."""

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fakes.upstream import Answer, Upstream, refused
from tests.gateway.running import HELLO, MESSAGES, OPENAI_KEY, Gateway
from tests.gateway.websocket import WebSocket
from tests.journeys.running import KEY

ECHO = "/openai/echo"
BLANK = "*" * len(KEY)


def echoing(vendor: Upstream) -> dict[str, Any]:
    """A vendor of which everything may be asked, what echoes too."""
    return {"openai": {"base_url": f"{vendor.url}/v1", "requests": ["* /**"]}}


@pytest.fixture(scope="module")
def shared_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """One that does not look into answers."""
    with ExitStack() as ending:
        gateway = Gateway(shared_vendor, providers=echoing(shared_vendor))
        ending.callback(gateway.close)
        yield gateway.start()


@pytest.fixture(scope="module")
def scrubbing(shared_vendor: Upstream) -> Iterator[Gateway]:
    """A gateway that looks into answers."""
    with ExitStack() as ending:
        gateway = Gateway(shared_vendor, gateway={"scrub": True}, providers=echoing(shared_vendor))
        ending.callback(gateway.close)
        yield gateway.start()


@pytest.fixture
def token(scrubbing: Gateway, vendor: Upstream) -> str:
    """For that one, the vendor being as if new."""
    return scrubbing.lease().secret.reveal()


@pytest.mark.parametrize("path", [ECHO, f"{ECHO}?stream=1"])
def test_without_scrubbing_an_echo_shows_the_key(gateway: Gateway, path: str) -> None:
    """The limit that docs/gateway.md names: what a vendor answers is the agent's to read."""
    told = gateway.ask("", path, authorization=f"Bearer {gateway.lease('openai').secret.reveal()}")
    assert told.headers["x-echo"] == OPENAI_KEY
    assert OPENAI_KEY in told.body.decode()


@pytest.mark.parametrize("path", [ECHO, f"{ECHO}?stream=1"])
def test_an_echo_is_blanked_in_headers_and_body(scrubbing: Gateway, vendor: Upstream, path: str) -> None:
    """The vendor cuts it into pieces of three bytes. What else it echoes stays: the rest of the request is no secret."""
    blank = "*" * len(OPENAI_KEY)
    bearer = scrubbing.lease("openai").secret.reveal()
    told = scrubbing.ask("", path, authorization=f"Bearer {bearer}", x_stainless_lang="kept")
    assert (told.status, told.headers["x-echo"]) == (200, blank)
    echoed = json.loads(told.body.decode().partition("data: ")[2] if "stream" in path else told.body)
    assert (echoed["authorization"], echoed["x-stainless-lang"]) == (f"Bearer {blank}", "kept")
    assert vendor.received[-1].secret() == OPENAI_KEY


def test_a_header_that_is_named_like_the_key_is_removed(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """S21: nor is it in what the vendor calls the status."""
    vendor.answers.append(Answer(200, headers={f"X-{KEY}": "1", "x-other": "2"}, body={}))
    told = scrubbing.ask(token)
    assert (told.status, told.headers["x-other"]) == (200, "2")
    assert KEY.lower() not in str(told.headers).lower()


def test_an_error_that_quotes_the_key_is_blanked(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """With its status, and as long as it says."""
    vendor.answers.append(Answer(403, body={"error": f"not allowed with {KEY}"}))
    told = scrubbing.ask(token)
    assert (told.status, told.json()) == (403, {"error": f"not allowed with {BLANK}"})


def test_an_event_is_not_delayed(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """It arrives before the next one is sent."""
    second = threading.Event()
    answer = Answer(headers={"content-type": "text/event-stream"}, chunks=[b"data: one\n\n", second, b"data: two\n\n"])
    vendor.answers.append(answer)
    connection = http.client.HTTPConnection("127.0.0.1", scrubbing.port, timeout=60)
    connection.request("POST", MESSAGES, body=json.dumps(HELLO), headers={"x-api-key": token})
    stream = connection.getresponse()
    assert stream.readline() == b"data: one\n"
    second.set()
    assert stream.read() == b"\ndata: two\n\n"
    connection.close()


def test_answers_are_not_compressed(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """None is asked for; and one that is compressed all the same is not let through, because nothing is found in it."""
    assert scrubbing.ask(token, accept_encoding="gzip, br", range="bytes=0-9").status == 200
    assert not {"accept-encoding", "range"} & vendor.received[-1].headers.keys()
    packed = gzip.compress(json.dumps({"key": KEY}).encode())
    vendor.answers.append(Answer(headers={"content-encoding": "gzip"}, body=packed))
    told = scrubbing.ask(token)
    assert (told.status, told.reason, told.json()["error"]["code"]) == (502, "NOT_SEARCHABLE", "not_searchable")


def test_answers_without_a_body(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """Are answers too."""
    vendor.answers.append(Answer(200, body=b""))
    assert (told := scrubbing.ask(token)).status == 200
    assert told.body == b""
    assert scrubbing.ask(token, "/anthropic/v1/models", method="HEAD").status == 200


def test_a_large_answer_comes_whole(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """Ten megabytes, with the key here and there."""
    text = (b"x" * 9999 + KEY.encode()) * 1000
    vendor.answers.append(Answer(body=text))
    assert scrubbing.ask(token).body == text.replace(KEY.encode(), BLANK.encode())


def test_what_the_vendor_refuses_still_counts(scrubbing: Gateway, vendor: Upstream, token: str) -> None:
    """The broker hears of it as without scrubbing."""
    vendor.answers.append(refused(500))
    before = len(scrubbing.events("used"))
    assert scrubbing.ask(token).status == 500
    scrubbing.wait_answered(before + 1)


def test_a_websocket_is_scrubbed_too(scrubbing: Gateway, vendor: Upstream) -> None:
    """Its frames are an answer like any other, and no more compressed; lengths stay, so they are read as before."""
    openai = scrubbing.lease("openai").secret.reveal()
    asked = {"authorization": f"Bearer {openai}", "sec_websocket_extensions": "permessage-deflate"}
    with WebSocket(scrubbing.port, "/openai/realtime", **asked) as socket:
        assert "sec-websocket-extensions" not in vendor.received[-1].headers
        assert socket.echo(b"hello") == b"hello"
        assert socket.echo(OPENAI_KEY.encode()) == b"*" * len(OPENAI_KEY)
