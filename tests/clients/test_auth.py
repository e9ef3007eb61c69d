"""HTTP clients with a credential: a real broker's wire on one side, a real HTTP server on the other."""

import asyncio
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import equabot_client.httpx
import equabot_client.httpx2
from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import Broker, Credential
from equabot_client._auth import retry_after
from equabot_client.aio import AsyncBroker
from tests.fakes.broker_servicer import FakeBroker
from tests.fakes.upstream import Answer, Upstream

LIBRARIES = [(httpx, equabot_client.httpx.EquabotAuth), (httpx2, equabot_client.httpx2.EquabotAuth)]
SDK_HEADERS = {"x-api-key": "placeholder", "Authorization": "Bearer placeholder", "api-key": "p", "x-goog-api-key": "p"}


@pytest.fixture(params=LIBRARIES, ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def credential(broker: Broker) -> Credential:
    return broker.credential("anthropic")


@pytest.fixture
def post(library: Any, fake: FakeBroker, credential: Credential, upstream: Upstream) -> Iterator[Callable[..., Any]]:
    """Posts to the provider with a credential, following redirects as the SDKs do."""
    module, auth = library
    fake.base_url = upstream.url
    with module.Client(auth=auth(credential), base_url=upstream.url, follow_redirects=True, headers=SDK_HEADERS) as client:
        yield lambda path="/v1/messages", **arguments: client.post(path, **({"json": {}} | arguments))


def _reports(fake: FakeBroker) -> list[pb.ReportOutcomeRequest]:
    return [request for request in fake.requests if isinstance(request, pb.ReportOutcomeRequest)]


def test_a_request_carries_the_lease_and_nothing_of_the_sdk(
    fake: FakeBroker, credential: Credential, upstream: Upstream, post: Any
) -> None:
    """Whatever header the SDK has put a placeholder in, and whichever the lease needs now."""
    assert post().status_code == 200
    assert upstream.received[0].keys() == {"x-api-key": fake.secret}
    fake.header_form = "Authorization: Bearer {}"
    before = credential.lease()
    fake.rotate("sk-ant-oat01-two")
    credential.wait_for_change(since=before, timeout=60)
    post()
    assert upstream.received[1].keys() == {"authorization": "Bearer sk-ant-oat01-two"}


def test_a_list_in_a_header_is_added_to(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """The lease needs one beta, the SDK another."""
    fake.more_headers = {"anthropic-beta": "oauth-2025-04-20"}
    post(headers={"anthropic-beta": "files-api-2025-04-14, oauth-2025-04-20"})
    post()
    said = [received.headers["anthropic-beta"] for received in upstream.received]
    assert said == ["files-api-2025-04-14,oauth-2025-04-20", "oauth-2025-04-20"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(401, pb.AUTH), (403, pb.AUTH), (402, pb.BILLING), (429, pb.RATE_LIMIT), (529, pb.RATE_LIMIT), (408, pb.TIMEOUT)],
)
def test_a_refusal_is_reported_and_tried_once_more_with_other_material(
    fake: FakeBroker, upstream: Upstream, post: Any, status: int, outcome: pb.Outcome.ValueType
) -> None:
    """The caller sees only the second answer."""
    upstream.answers = [Answer(status, {"retry-after": "7"})]
    fake.change_on_report = "sk-spare"
    assert post().status_code == 200
    assert [received.keys()["x-api-key"] for received in upstream.received] == ["sk-ant-api03-first-canary", "sk-spare"]
    (report,) = _reports(fake)
    assert (report.outcome, report.version, report.retry_after.ToTimedelta()) == (outcome, 1, timedelta(seconds=7))


def test_a_refusal_that_changes_nothing_is_the_callers(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """Reported, and not tried again."""
    upstream.answers = [Answer(429, {"retry-after-ms": "1500"})]
    assert post().status_code == 429
    assert [report.retry_after.ToTimedelta() for report in _reports(fake)] == [timedelta(seconds=1.5)]
    assert len(upstream.received) == 1


def test_there_is_no_third_try(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """The second refusal is reported too, and is the answer, even if there would be yet another credential."""
    upstream.answers = [Answer(401), Answer(401)]
    fake.change_on_report = "sk-spare"
    assert post().status_code == 401
    assert [report.version for report in _reports(fake)] == [1, 2]
    assert len(upstream.received) == 2


@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
def test_what_is_not_about_the_credential_is_not_reported(fake: FakeBroker, upstream: Upstream, post: Any, status: int) -> None:
    """Another credential would not help."""
    upstream.answers = [Answer(status, body={"error": {"message": "max_tokens: required"}})]
    assert post().status_code == status
    assert _reports(fake) == []


def test_a_400_that_speaks_of_credit_is_about_billing(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """So says Anthropic instead of 402; the caller can still read the body."""
    upstream.answers = [Answer(400, body={"error": {"message": "Your credit balance is too low"}})]
    assert post().json()["error"]["message"] == "Your credit balance is too low"
    assert [report.outcome for report in _reports(fake)] == [pb.BILLING]


def test_the_first_success_after_a_failure_is_reported(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """It ends the cooldown; the ones after it are not worth a call."""
    upstream.answers = [Answer(429)]
    assert [post().status_code for _ in range(4)] == [429, 200, 200, 200]
    assert [report.outcome for report in _reports(fake)] == [pb.RATE_LIMIT, pb.OK]


def test_a_broker_that_is_away_does_not_spoil_the_answer(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """What the provider said matters more than that nobody heard of it."""
    assert post().status_code == 200
    fake.stop()
    upstream.answers = [Answer(401)]
    assert post().status_code == 401


def test_a_body_that_can_be_read_once_is_sent_once(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """A second try would send half of it, or fail in the library."""
    upstream.answers = [Answer(401)]
    fake.change_on_report = "sk-spare"
    body = (part for part in [b"{", b"}"])
    assert post(json=None, content=body, headers={"content-length": "2"}).status_code == 401
    assert len(upstream.received) == 1


def test_another_host_gets_no_key(fake: FakeBroker, upstream: Upstream, post: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The request goes as the SDK made it, and a warning says once why it will be refused."""
    with Upstream() as elsewhere:
        for _ in range(2):
            post(f"{elsewhere.url}/v1/messages", headers={"x-api-key": "own"})
        assert elsewhere.received[0].headers["x-api-key"] == "own"
        assert fake.secret not in str([received.headers for received in elsewhere.received])
        assert caplog.text.count("goes without the key") == 1
        assert elsewhere.url in caplog.text


def test_another_host_that_is_trusted_gets_it(
    library: Any, fake: FakeBroker, broker: Broker, upstream: Upstream, post: Any
) -> None:
    """By its origin; also where a provider has no fixed address."""
    module, auth = library
    fake.base_url = ""
    with module.Client(auth=auth(broker.credential("anthropic"), origins=[f"{upstream.url}/some/path"])) as client:
        client.post(f"{upstream.url}/v1/messages", json={})
    assert upstream.received[0].keys() == {"x-api-key": fake.secret}


def test_a_redirect_elsewhere_carries_no_key(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """Neither the lease's nor a report of what that host thinks of it."""
    with Upstream() as elsewhere:
        elsewhere.answers = [Answer(401)]
        upstream.answers = [Answer(307, {"location": f"{elsewhere.url}/v1/messages"})]
        assert post().status_code == 401
        assert elsewhere.received[0].keys() == {}
        assert fake.secret not in str(elsewhere.received)
    assert _reports(fake) == []


def test_a_redirect_within_the_provider_keeps_the_key(fake: FakeBroker, upstream: Upstream, post: Any) -> None:
    """It is asked once without, and then again with it."""
    upstream.accepted = {fake.secret}
    upstream.answers = [Answer(308, {"location": "/v1/messages?beta=true"})]
    assert post().status_code == 200
    assert upstream.received[-1].path == "/v1/messages?beta=true"
    assert upstream.received[-1].keys() == {"x-api-key": fake.secret}
    assert _reports(fake) == []


def test_nothing_of_the_secret_shows(library: Any, fake: FakeBroker, broker: Broker, upstream: Upstream) -> None:
    """Not in the auth, not in the request that was sent, and not in our frames of a traceback with locals."""
    module, auth = library
    fake.base_url = upstream.url
    it = auth(broker.credential("anthropic"))
    with module.Client(auth=it, base_url=upstream.url) as client:
        request = client.post("/v1/messages", json={}).request
        assert upstream.received[0].keys() == {"x-api-key": fake.secret}
        assert "canary" not in f"{it!r} {vars(it)} {request!r} {request.headers!r} {dict(request.headers)}"
    flow = it.sync_auth_flow(module.Request("POST", f"{upstream.url}/v1/messages"))
    next(flow)
    with pytest.raises(module.ConnectError) as raised:
        flow.throw(module.ConnectError("refused"))
    told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    ours = [frame for frame in told.stack if "equabot_client" in frame.filename]
    assert ours
    assert "canary" not in str([frame.locals for frame in ours])


async def test_an_async_client_does_the_same(
    library: Any, fake: FakeBroker, aio_broker: AsyncBroker, upstream: Upstream
) -> None:
    """Headers, report, second try; redirects; and many at once."""
    module, auth = library
    fake.base_url = upstream.url
    async with module.AsyncClient(
        auth=auth(aio_broker.credential("anthropic")), base_url=upstream.url, follow_redirects=True
    ) as client:
        upstream.answers = [Answer(429)]
        fake.change_on_report = "sk-spare"
        assert (await client.post("/v1/messages", json={})).status_code == 200
        assert [received.keys()["x-api-key"] for received in upstream.received] == ["sk-ant-api03-first-canary", "sk-spare"]
        upstream.accepted = {"sk-spare"}
        upstream.answers = [Answer(308, {"location": "/v1/messages?beta=true"})]
        assert (await client.post("/v1/messages", json={})).status_code == 200
        upstream.answers = [Answer(400, body={"error": {"message": "Insufficient credits"}})]
        assert (await client.post("/v1/messages", json={})).status_code == 400
        answers = await asyncio.gather(*(client.post("/v1/messages", json={}) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
    assert [report.outcome for report in _reports(fake)][:2] == [pb.RATE_LIMIT, pb.BILLING]


async def test_a_credential_of_the_other_kind_is_refused(
    library: tuple[ModuleType, Any], broker: Broker, aio_broker: AsyncBroker
) -> None:
    """With a word on which to take."""
    module, auth = library
    with (
        module.Client(auth=auth(aio_broker.credential("anthropic"))) as client,
        pytest.raises(TypeError, match=r"a Client needs a credential of equabot_client\.connect"),
    ):
        client.get("http://127.0.0.1:1/")
    async with module.AsyncClient(auth=auth(broker.credential("anthropic"))) as client:
        with pytest.raises(TypeError, match=r"an AsyncClient needs a credential of equabot_client\.aio\.connect"):
            await client.get("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e300"}, None),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], wait: float | None) -> None:
    """Seconds, milliseconds, a date; what makes no sense is nothing, and the past is now."""
    assert retry_after(headers) == (None if wait is None else timedelta(seconds=wait))


def test_a_date_in_retry_after_is_counted_from_now() -> None:
    """RFC 9110, 10.2.3."""
    wait = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)})
    assert wait is not None
    assert timedelta(seconds=110) < wait <= timedelta(seconds=120)


@pytest.mark.parametrize(
    ("answer", "about"),
    [
        ((401, "Missing scopes: api.model.read"), True),
        ((403, "no access to this model"), True),
        ((401, "invalid x-api-key"), False),
        ((429, "slow down"), False),
    ],
)
def test_a_report_says_which_request_it_is_of(
    fake: FakeBroker, upstream: Upstream, post: Any, answer: tuple[int, str], about: bool
) -> None:
    """C1, P3, P18: the model that was asked, how long ago, and whether that request was refused and not the credential."""
    upstream.answers = [Answer(answer[0], body={"error": {"message": answer[1]}})]
    assert post(json={"model": "opus"}).status_code == answer[0]
    (report,) = _reports(fake)
    assert (report.model, report.about_request) == ("opus", about)
    assert report.HasField("elapsed")
    assert timedelta() <= report.elapsed.ToTimedelta() < timedelta(minutes=5)


@pytest.mark.parametrize("content", [b"[" * 50, b'{"model": 5}', b'{"model": "a\\u0000b"}', b"", b"[1]"])
def test_a_body_that_names_no_model_is_reported_without(
    fake: FakeBroker, upstream: Upstream, post: Any, content: bytes
) -> None:
    """P18: whatever it is."""
    upstream.answers = [Answer(429)]
    post(json=None, content=content)
    assert [report.model for report in _reports(fake)] == [""]
