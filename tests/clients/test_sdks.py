"""The vendors' own packages, as the README tells to use them, against a provider on loopback."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import grpc
import openai
import pytest

from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import Broker, connect
from equabot_client.aio import AsyncBroker
from equabot_client.httpx2 import EquabotAuth
from tests.fakes.broker_servicer import FakeBroker, Refusal
from tests.fakes.upstream import Answer, Upstream

MESSAGE: dict[str, Any] = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def claude(fake: FakeBroker, broker: Broker, upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    fake.base_url = upstream.url
    credential = broker.credential("anthropic")
    http = anthropic.DefaultHttpxClient(auth=EquabotAuth(credential))
    with anthropic.Anthropic(api_key="equabot", base_url=credential.lease().base_url, http_client=http) as client:
        yield client


@pytest.fixture
async def aio_claude(fake: FakeBroker, aio_broker: AsyncBroker, upstream: Upstream) -> AsyncIterator[anthropic.AsyncAnthropic]:
    fake.base_url = upstream.url
    credential = aio_broker.credential("anthropic")
    base_url = (await credential.lease()).base_url
    http = anthropic.DefaultAsyncHttpxClient(auth=EquabotAuth(credential))
    async with anthropic.AsyncAnthropic(api_key="equabot", base_url=base_url, http_client=http) as client:
        yield client


@pytest.fixture
def gpt(fake: FakeBroker, broker: Broker, upstream: Upstream) -> Iterator[openai.OpenAI]:
    fake.base_url = f"{upstream.url}/v1"
    fake.header_form = "Authorization: Bearer {}"
    credential = broker.credential("openai")
    http = openai.DefaultHttpxClient(auth=EquabotAuth(credential))
    with openai.OpenAI(api_key="equabot", base_url=credential.lease().base_url, http_client=http) as client:
        yield client


def _outcomes(fake: FakeBroker) -> list[int]:
    return [request.outcome for request in fake.requests if isinstance(request, pb.ReportOutcomeRequest)]


def test_anthropic_sends_the_leased_key(fake: FakeBroker, upstream: Upstream, claude: anthropic.Anthropic) -> None:
    """And not the placeholder that it was given."""
    assert claude.messages.create(**MESSAGE).content[0].to_dict()["text"] == "hello"
    assert upstream.received[0].path == "/v1/messages"
    assert upstream.received[0].keys() == {"x-api-key": fake.secret}


def test_anthropic_follows_a_rotation(fake: FakeBroker, upstream: Upstream, claude: anthropic.Anthropic) -> None:
    """From a key to an OAuth token, which is carried in another header, without a new client."""
    upstream.accepted = {fake.secret, "sk-ant-oat01-token"}
    claude.messages.create(**MESSAGE)
    fake.header_form, fake.more_headers = "Authorization: Bearer {}", {"anthropic-beta": "oauth-2025-04-20"}
    upstream.accepted = {"sk-ant-oat01-token"}
    fake.rotate("sk-ant-oat01-token")
    claude.messages.create(**MESSAGE)
    assert upstream.received[-1].keys() == {"authorization": "Bearer sk-ant-oat01-token"}
    assert upstream.received[-1].headers["anthropic-beta"] == "oauth-2025-04-20"


def test_anthropic_streams(fake: FakeBroker, upstream: Upstream, claude: anthropic.Anthropic) -> None:
    """Server-sent events pass through; the answer is not read ahead."""
    with claude.messages.stream(**MESSAGE) as stream:
        assert list(stream.text_stream) == ["hel", "lo"]
    assert upstream.received[0].keys() == {"x-api-key": fake.secret}


def test_anthropic_survives_a_key_that_was_refused(fake: FakeBroker, upstream: Upstream, claude: anthropic.Anthropic) -> None:
    """The SDK does not retry a 401. The credential does, with what the broker has instead, streamed or not."""
    upstream.accepted = {"sk-spare"}
    fake.change_on_report = "sk-spare"
    with claude.messages.stream(**MESSAGE) as stream:
        assert "".join(stream.text_stream) == "hello"
    assert [received.keys()["x-api-key"] for received in upstream.received] == ["sk-ant-api03-first-canary", "sk-spare"]
    assert _outcomes(fake) == [pb.AUTH]


def test_anthropic_raises_its_own_error_where_nothing_helps(
    fake: FakeBroker, upstream: Upstream, claude: anthropic.Anthropic
) -> None:
    """The agent handles what it always did; the broker knows."""
    upstream.accepted = set()
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        claude.messages.create(**MESSAGE)
    assert _outcomes(fake) == [pb.AUTH]


async def test_anthropic_async_fails_over(fake: FakeBroker, upstream: Upstream, aio_claude: anthropic.AsyncAnthropic) -> None:
    """On a 429 with a `retry-after` that nobody has to wait for."""
    upstream.answers = [Answer(429, {"retry-after": "600"})]
    fake.change_on_report = "sk-spare"
    assert (await aio_claude.messages.create(**MESSAGE)).id == "msg_1"
    async with aio_claude.messages.stream(**MESSAGE) as stream:
        assert [text async for text in stream.text_stream] == ["hel", "lo"]
    assert [received.keys()["x-api-key"] for received in upstream.received[1:]] == ["sk-spare", "sk-spare"]
    assert _outcomes(fake) == [pb.RATE_LIMIT]


def test_openai_sends_the_leased_key_and_fails_over(fake: FakeBroker, upstream: Upstream, gpt: openai.OpenAI) -> None:
    """Plain and streamed."""
    assert gpt.chat.completions.create(**COMPLETION).choices[0].message.content == "hello"
    assert upstream.received[0].keys() == {"authorization": f"Bearer {fake.secret}"}
    upstream.answers = [Answer(402)]
    fake.change_on_report = "sk-spare"
    chunks = list(gpt.chat.completions.create(**COMPLETION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello"
    assert upstream.received[-1].keys() == {"authorization": "Bearer sk-spare"}
    assert _outcomes(fake) == [pb.BILLING]


async def test_openai_async_sends_the_leased_key(fake: FakeBroker, aio_broker: AsyncBroker, upstream: Upstream) -> None:
    """With a credential of the event loop."""
    fake.base_url, fake.header_form = f"{upstream.url}/v1", "Authorization: Bearer {}"
    auth = EquabotAuth(aio_broker.credential("openai"))
    http = openai.DefaultAsyncHttpxClient(auth=auth)
    async with openai.AsyncOpenAI(api_key="equabot", base_url=fake.base_url, http_client=http) as gpt:
        await gpt.chat.completions.create(**COMPLETION)
    assert upstream.received[0].keys() == {"authorization": f"Bearer {fake.secret}"}


def test_openai_takes_a_function_for_a_key(fake: FakeBroker, broker: Broker, upstream: Upstream) -> None:
    """The way without an HTTP client: always current, though nothing is reported."""
    credential = broker.credential("openai")
    with openai.OpenAI(api_key=lambda: credential.secret().reveal(), base_url=f"{upstream.url}/v1") as gpt:
        gpt.chat.completions.create(**COMPLETION)
        before = credential.lease()
        fake.rotate("sk-two")
        credential.wait_for_change(since=before, timeout=60)
        gpt.chat.completions.create(**COMPLETION)
    assert [received.headers["authorization"] for received in upstream.received] == [
        "Bearer sk-ant-api03-first-canary",
        "Bearer sk-two",
    ]


REFUSALS = [
    (Refusal(grpc.StatusCode.NOT_FOUND, "PROVIDER_UNKNOWN", "unknown provider 'x'"), "NotFoundError"),
    (Refusal(grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED", "agent 'main' may not use x"), "PermissionDeniedError"),
    (Refusal(grpc.StatusCode.PERMISSION_DENIED, "AGENT_SUSPENDED", "agent 'main' is suspended"), "PermissionDeniedError"),
    (Refusal(grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_PROFILE", "no credential for x"), "AuthenticationError"),
    (Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "a session has no spaces"), "BadRequestError"),
]


@pytest.mark.parametrize(("refusal", "name"), REFUSALS, ids=lambda it: it if isinstance(it, str) else it.reason)
def test_a_refusal_of_the_broker_is_the_sdks_own_error(
    fake: FakeBroker, broker: Broker, upstream: Upstream, refusal: Refusal, name: str
) -> None:
    """F20: with the broker's text, without a chain, after one try, and without a request to the vendor."""
    fake.refusals["StreamLease"] = refusal
    auth = EquabotAuth(broker.credential("anthropic"))
    claude = anthropic.Anthropic(api_key="x", base_url=upstream.url, http_client=anthropic.DefaultHttpxClient(auth=auth))
    gpt = openai.OpenAI(api_key="x", base_url=upstream.url, http_client=openai.DefaultHttpxClient(auth=auth))
    with claude, gpt:
        for sdk, ask in (
            (anthropic, lambda: claude.messages.create(**MESSAGE)),
            (openai, lambda: gpt.chat.completions.create(**COMPLETION)),
        ):
            asked = fake.calls.count("StreamLease")
            with pytest.raises(getattr(sdk, name), match=refusal.message) as raised:
                ask()
            assert raised.value.__cause__ is None
            assert raised.value.response.json()["error"]["code"] == refusal.reason
            assert fake.calls.count("StreamLease") <= asked + 1
    assert upstream.received == []


async def test_an_async_client_gets_the_sdks_own_error_too(
    fake: FakeBroker, aio_broker: AsyncBroker, upstream: Upstream
) -> None:
    """F20."""
    fake.refusals["StreamLease"] = REFUSALS[1][0]
    http = openai.DefaultAsyncHttpxClient(auth=EquabotAuth(aio_broker.credential("openai")))
    async with openai.AsyncOpenAI(api_key="x", base_url=upstream.url, http_client=http) as gpt:
        with pytest.raises(openai.PermissionDeniedError, match="may not use x"):
            await gpt.chat.completions.create(**COMPLETION)


def test_without_a_broker_the_sdk_says_so(fake: FakeBroker, upstream: Upstream) -> None:
    """F21: one sentence with the remedy."""
    fake.stop()
    with connect(fake.address, timeout=1) as broker:
        auth = EquabotAuth(broker.credential("anthropic"))
        http = openai.DefaultHttpxClient(auth=auth)
        with (
            openai.OpenAI(api_key="x", base_url=upstream.url, http_client=http) as gpt,
            pytest.raises(openai.APIConnectionError, match=r"no broker answers at .* is one running") as raised,
        ):
            gpt.chat.completions.create(**COMPLETION)
        assert raised.value.__cause__ is None
