"""Credentials tried over real HTTP."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.providers import PROVIDERS
from equabot_broker.upstream.probe import AT_ONCE, WITHIN, HttpProbes, probe
from equabot_broker.upstream.probe_requests import ProbeRequest
from tests.fakes.upstream import Answer, Upstream


def asked(url: str, path: str = "/v1/messages") -> ProbeRequest:
    return ProbeRequest(f"{url}{path}", b"{}", {"x-api-key": "s3cret"})


async def test_every_request_is_answered_under_its_name() -> None:
    """One call each, with the credential that it carries."""
    with Upstream() as upstream:
        upstream.answers = [Answer(401)]
        first = await probe({"a": asked(upstream.url)})
        assert first["a"].verdict is Verdict.AUTH
        found = await probe({name: asked(upstream.url) for name in "bcd"})
        assert dict(found) == {name: ProbeResult(Verdict.OK) for name in "bcd"}
        assert [received.headers["x-api-key"] for received in upstream.received] == ["s3cret"] * 4
        assert upstream.received[0].headers["user-agent"] == "equabot-broker"


@contextmanager
def slow(release: threading.Event, seen: list[int], both: threading.Event) -> Iterator[str]:
    """A provider that answers on command. `seen` is the number of active requests as each one came, `both` that two were
    active."""
    inside = 0
    guard = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal inside
            with guard:
                inside += 1
                seen.append(inside)
            if inside == AT_ONCE:
                both.set()
            release.wait(60)
            with guard:
                inside -= 1
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server has
            """Tests look at `seen` instead."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        release.set()
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_provider_that_does_not_answer_is_a_timeout() -> None:
    """Eight seconds each, unless a test has less."""
    assert WITHIN == 8.0
    with slow(threading.Event(), [], threading.Event()) as url:
        found = await probe({"a": asked(url)}, within=0.1)
    assert found == {"a": ProbeResult(Verdict.TIMEOUT, "no answer within 0.1 s")}


async def test_two_are_asked_at_a_time() -> None:
    """However many there are."""
    assert AT_ONCE == 2
    release, seen, both = threading.Event(), list[int](), threading.Event()
    with slow(release, seen, both) as url:
        running = asyncio.ensure_future(probe({str(number): asked(url) for number in range(6)}))
        assert await asyncio.to_thread(both.wait, 10)
        release.set()
        assert all(found.verdict is Verdict.OK for found in (await running).values())
    assert len(seen) == 6
    assert max(seen) == 2


async def test_a_provider_that_is_away_is_unknown() -> None:
    """No part of the request is shown; a redirect is not followed with the credential."""
    found = await probe({"a": asked("http://127.0.0.1:1"), "b": asked("no-url"), "c": asked("http://[")})
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys("abc", Verdict.UNKNOWN)
    assert "s3cret" not in str(found)
    with Upstream() as upstream:
        upstream.answers = [Answer(307, headers={"location": f"{upstream.url}/elsewhere"})]
        assert (await probe({"a": asked(upstream.url)}))["a"].verdict is Verdict.UNKNOWN
        assert len(upstream.received) == 1


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """The relevant part of the answer is at its beginning."""
    with Upstream() as upstream:
        upstream.answers = [Answer(401, body=b"x" * (8 << 20))]
        assert (await probe({"a": asked(upstream.url)}))["a"].verdict is Verdict.AUTH


async def test_the_broker_asks_about_a_profile_with_the_request_that_fits() -> None:
    """S4, S5: whether a credential is refused is free to find out; whether there is credit takes a model's answer. What is not
    known how to ask is not asked."""
    key = Profile(
        id="anthropic:a", provider="anthropic", mode=Mode.API_KEY, source="s", unit="u", origin="o",
        secret=SecretValue("s3cret"),
    )  # fmt: skip
    with Upstream() as upstream:
        vendor = replace(PROVIDERS["anthropic"], base_url=upstream.url)
        probes = HttpProbes(Catalog({"anthropic": vendor}))
        upstream.answers = [Answer(401), Answer(402)]
        assert (await probes.probe(key, Outcome.AUTH)).verdict is Verdict.AUTH
        assert (await probes.probe(key, Outcome.BILLING)).verdict is Verdict.BILLING
        assert [received.path for received in upstream.received] == ["/v1/messages/count_tokens", "/v1/messages"]
        assert {received.secret() for received in upstream.received} == {"s3cret"}
        unknown = (replace(key, provider="nobody"), replace(key, secret=None, fault="malformed"))
        assert [probes.possible(one, Outcome.AUTH) for one in (key, *unknown)] == [True, False, False]
        assert (await probes.probe(unknown[0], Outcome.AUTH)).verdict is Verdict.NO_MODEL
        assert not HttpProbes(Catalog({"anthropic": vendor}), allowed=False).possible(key, Outcome.AUTH)
        assert len(upstream.received) == 2


async def test_a_key_that_may_not_list_models_is_tried_on_a_small_one() -> None:
    """C1: a 401 that speaks of scopes is about the list; what a model answers decides."""
    scopes = {"error": {"message": "Missing scopes: api.model.read"}}
    for answers, verdict in (
        ([Answer(401, body=scopes)], Verdict.OK),
        ([Answer(401, body=scopes), Answer(401)], Verdict.AUTH),
    ):
        with Upstream() as upstream:
            openai = replace(PROVIDERS["openai"], base_url=upstream.url)
            key = Profile(
                id="openai:a", provider="openai", mode=Mode.API_KEY, source="s", unit="u", origin="o",
                secret=SecretValue("sk-a"),
            )  # fmt: skip
            upstream.answers = answers
            found = await HttpProbes(Catalog({"openai": openai})).probe(key, Outcome.AUTH)
            assert found.verdict is verdict
            assert [(received.method, received.path) for received in upstream.received] == [
                ("GET", "/models"), ("POST", "/chat/completions"),
            ]  # fmt: skip
