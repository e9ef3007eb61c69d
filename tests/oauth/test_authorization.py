"""A login without I/O: its requests, the accepted answers, and what no message shows."""

import base64
import hashlib
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.authorization import (
    ENTROPY,
    Attempt,
    AuthorizationRefusal,
    Code,
    authorize_url,
    begin,
    code_request,
    device_request,
    identity,
    poll_request,
    read_device,
    read_pending,
    read_query,
    read_returned,
)
from equabot_broker.oauth.refreshing import TokenAnswer, Tokens
from equabot_broker.providers import PROVIDERS

ANTHROPIC = PROVIDERS["anthropic"]
ATTEMPT = begin(bytes(range(64)), redirect_url="http://localhost:1455/auth/callback")
STATE = ATTEMPT.state.reveal()


def test_state_and_verifier_are_of_separate_chance() -> None:
    """One is shown to the browser, the other must not be guessed from it. 32 bytes each, as RFC 7636 wants them written."""
    other = begin(bytes(range(32)) + bytes(32))
    assert other.state == ATTEMPT.state
    assert other.verifier != ATTEMPT.verifier
    for text in (STATE, ATTEMPT.verifier.reveal()):
        assert len(base64.urlsafe_b64decode(text + "=")) == ENTROPY // 2
    digest = hashlib.sha256(ATTEMPT.verifier.reveal().encode()).digest()
    assert ATTEMPT.challenge == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert ATTEMPT.verifier.reveal() not in repr(ATTEMPT)


def test_the_browser_is_sent_with_all_that_the_vendor_wants() -> None:
    """And without the verifier."""
    url = authorize_url(ANTHROPIC, ATTEMPT)
    assert url.startswith("https://claude.ai/oauth/authorize?")
    assert {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()} == {
        "code": "true",
        "response_type": "code",
        "client_id": ANTHROPIC.client_id,
        "redirect_uri": "http://localhost:1455/auth/callback",
        "scope": "org:create_api_key user:profile user:inference",
        "code_challenge": ATTEMPT.challenge,
        "code_challenge_method": "S256",
        "state": STATE,
    }


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"http://localhost:1455/auth/callback?code=c0de&state={STATE}", None),
        (f"  http://localhost:1455/auth/callback?state={STATE}&code=c0de#_=_\n", None),
        (f"?code=c0de&state={STATE}", None),
        (f"code=c0de&state={STATE}", None),
        (f"c0de#{STATE}", ATTEMPT.state),
        ("c0de", None),
    ],
)
def test_a_code_comes_in_many_forms(text: str, state: SecretValue | None) -> None:
    """The state goes back to the vendor only where it came as one with the code."""
    assert read_returned(text, ATTEMPT) == Code(SecretValue("c0de"), state)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither a code"),
        ("two words", "neither a code"),
        ("c" * 9000, "neither a code"),
        ("c0de\x1b[31m", "neither a code"),
        ("cødé", "neither a code"),
        ("c0de#other", "another login"),
        ("http://x/?code=c0de", "another login"),
        (f"http://x/?code=c0de&code=d&state={STATE}", "has no code"),
        (f"http://x/?state={STATE}", "has no code"),
        (f"http://x/?error=access_denied&state={STATE}", "refused the login: access_denied"),
        (f"http://x/?error=<script>c0de&state={STATE}", "refused the login: other_error"),
        ("http://[", "another login"),
    ],
)
def test_what_is_not_the_end_of_this_login_is_refused(text: str, why: str) -> None:
    """Nothing of it is repeated."""
    with pytest.raises(AuthorizationRefusal, match=why) as refused:
        read_returned(text, ATTEMPT)
    assert "c0de" not in str(refused.value)


def test_a_redirect_must_have_the_state() -> None:
    """Any program may call a loopback address."""
    assert read_query(f"code=c0de&state={STATE}", ATTEMPT) == Code(SecretValue("c0de"))
    for query in ("code=c0de", "code=c0de&state=", f"code=c0de&state={STATE}x", ""):
        with pytest.raises(AuthorizationRefusal):
            read_query(query, ATTEMPT)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading(text: str) -> None:
    """It is a code or it is refused."""
    try:
        found = read_returned(text, ATTEMPT)
    except AuthorizationRefusal:
        return
    assert found.code.reveal().isprintable()


def test_what_the_token_endpoint_is_asked() -> None:
    """RFC 6749 4.1.3 and RFC 7636 4.5; in the vendor's own encoding."""
    request = code_request(ANTHROPIC, ATTEMPT, Code(SecretValue("c0de"), ATTEMPT.state))
    assert (request.url, request.encoding) == ("https://platform.claude.com/v1/oauth/token", "json")
    assert request.fields == {
        "grant_type": "authorization_code",
        "client_id": ANTHROPIC.client_id,
        "code": SecretValue("c0de"),
        "redirect_uri": ATTEMPT.redirect_url,
        "code_verifier": ATTEMPT.verifier,
        "state": ATTEMPT.state,
    }
    assert "c0de" not in repr(request)


def answer(status: int, **body: object) -> TokenAnswer:
    return TokenAnswer(status, json.dumps(body).encode())


def test_a_device_login() -> None:
    """RFC 8628: begun, polled, and polled more slowly on request."""
    qwen = PROVIDERS["qwen-portal"]
    attempt = begin(bytes(64))
    begun = device_request(qwen, attempt)
    assert (begun.url, begun.encoding) == ("https://chat.qwen.ai/api/v1/oauth2/device/code", "form")
    assert begun.fields["code_challenge"] == attempt.challenge
    told = answer(200, device_code="d", user_code="U", verification_uri="https://x", expires_in=9e9, interval="soon")
    device = read_device(told)
    assert (device.device_code, device.user_code, device.url) == (SecretValue("d"), "U", "https://x")
    assert (device.lives, device.interval) == (900.0, 5.0)
    asked = poll_request(qwen, attempt, device)
    assert asked.fields["code_verifier"] == attempt.verifier
    assert read_pending(answer(400, error="authorization_pending"), interval=5) == 5
    assert read_pending(answer(400, error="slow_down"), interval=5) == 10
    assert read_pending(answer(429), interval=5) == 10
    assert read_pending(answer(502), interval=5) == 5
    assert read_pending(answer(400, error="expired_token"), interval=5) is None
    assert read_pending(answer(200), interval=5) is None


@pytest.mark.parametrize(
    "told",
    [
        answer(200),
        answer(200, device_code="d", user_code="U"),
        answer(200, device_code=1, user_code="U", verification_uri="https://x"),
        answer(200, device_code="d", user_code="U\x1b", verification_uri="https://x"),
        answer(200, device_code="d", user_code="U", verification_uri="file:///etc/passwd"),
        answer(400, error="invalid_client"),
        TokenAnswer(200, b"<html>"),
    ],
)
def test_no_device_login_is_refused(told: TokenAnswer) -> None:
    """HTML, nothing, an error, what a terminal must not be shown."""
    with pytest.raises(AuthorizationRefusal, match="the provider answered"):
        read_device(told)


def jwt(**said: object) -> SecretValue:
    return SecretValue(f"e30.{base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip('=')}.c2ln")


def test_whose_login_it_is() -> None:
    """From the answer, else from the claims of OpenAI's access token; values that are not text are ignored."""
    said = {"https://api.openai.com/auth": {"chatgpt_account_id": "acct"}, "https://api.openai.com/profile": {"email": "me@x"}}
    tokens = Tokens(jwt(**said), None, 0.0, 1.0)
    assert identity(tokens) == ("acct", "me@x")
    assert identity(replace(tokens, account="a1", email="you@x")) == ("a1", "you@x")
    assert identity(replace(tokens, access=jwt(**{"https://api.openai.com/auth": {"chatgpt_account_id": 1}}))) == ("", "")
    assert identity(replace(tokens, access=SecretValue("opaque"))) == ("", "")


def test_an_attempt_shows_no_secret() -> None:
    """Whatever prints it."""
    assert "hidden" in repr(Attempt(SecretValue("s"), SecretValue("v"), ""))
