"""Workload identity: what is an identity token, what is sent for it, what an answer means."""

import base64
import json
from typing import Any

import pytest

from equabot_broker.domain.provider import Exchange
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, TokenAnswer, TokenRequest, Tokens
from equabot_broker.oauth.workload import SIZE_MAX, Identity, Unfit, Workload, exchange_request, read_exchange, read_identity

NOW = 1_800_000_000.0
FILE = "/var/run/secrets/tokens/acme"
REFUSED = TokenAnswer(401, b'{"error": "invalid_grant", "error_description": "rejected: eyJcanary"}')


def part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def jwt(**claims: Any) -> str:
    return f"{part({'alg': 'RS256'})}.{part({'sub': 'me', **claims})}.c2ln"


def workload(**told: Any) -> Workload:
    return Workload(**{"profile": "acme:pod", "provider": "acme", "token_file": FILE, "fields": {"rule": "r-1"}, **told})


def exchange(**told: Any) -> Exchange:
    return Exchange(
        **{"url": "https://acme.example/token", "grant_type": "g", "token": "assertion", "needs": ("rule",), **told}
    )


IDENTITY = Identity(SecretValue(jwt()), NOW + 60)


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["{}", "{}\n", "\n\t {} \r\n"])
def test_a_token_is_read_with_its_end(around: str) -> None:
    """The program that writes the file may end it with a newline."""
    assert read_identity(around.format(jwt(exp=NOW)).encode()) == Identity(SecretValue(jwt(exp=NOW)), NOW)


@pytest.mark.parametrize("exp", [None, "soon", -1, 0, 10**12, 1e400, float("nan"), [1], {}])
def test_an_end_that_makes_no_sense_is_not_an_end(exp: object) -> None:
    """It is the vendor's to refuse."""
    assert read_identity(jwt(exp=exp).encode()).expires_at is None


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"sk-ant-api03-canary", "has no JWT"),
        (b"canary.canary.canary", "has no JWT"),
        (f"{part({'alg': 'none'})}.{part([1])}.x".encode(), "has no JWT"),
        (f"{part({})}.{part({'sub': 'canary'})}.x".encode(), "has no JWT"),
        (f"{part({'alg': 'none'})}.{part({'sub': 'canary'})}.".encode(), "has no JWT"),
        (jwt().encode() + b"\nX-Header: canary", "has no JWT"),
        (jwt().encode() + b".canary", "has no JWT"),
        (b"-----BEGIN RSA PRIVATE KEY-----\ncanary", "has no JWT"),
        (b"\xff\xfe" + jwt().encode("utf-16-le"), "has no JWT"),
        (b"W1tb" * 1900 + b"." + b"W1tb" * 1900 + b".x", "has no JWT"),
        (b"a" * (SIZE_MAX + 1), "is larger than 16 KiB"),
    ],
)
def test_what_is_not_a_token_is_not_sent(raw: bytes, why: str) -> None:
    """It may be anything, even a private key; no part of it is shown."""
    with pytest.raises(Unfit, match=why) as refused:
        read_identity(raw)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


# -- the request -------------------------------------------------------------------------------------------------------


def test_an_assertion_has_the_fields_of_the_vendor() -> None:
    """RFC 7523: no type of token is sent where the vendor does not ask for one."""
    asked = exchange_request(exchange(headers={"beta": "1"}), workload(token_type="jwt"), IDENTITY)
    fields: dict[str, str | SecretValue] = {"grant_type": "g", "assertion": IDENTITY.token, "rule": "r-1"}
    assert asked == TokenRequest("https://acme.example/token", "json", fields, {"beta": "1"})


@pytest.mark.parametrize(("told", "sent"), [("", "jwt"), ("jwt", "jwt"), ("id_token", "id_token")])
def test_a_subject_token_goes_with_its_type(told: str, sent: str) -> None:
    """RFC 8693: the usual one, where none is configured."""
    asked = exchange_request(
        exchange(token="subject_token", token_types=("jwt", "id_token"), encoding="form"), workload(token_type=told), IDENTITY
    )
    assert asked.fields["subject_token_type"] == f"urn:ietf:params:oauth:token-type:{sent}"
    assert (asked.fields["subject_token"], asked.encoding) == (IDENTITY.token, "form")


# -- the answer --------------------------------------------------------------------------------------------------------


def test_what_was_given_lives_from_the_answer_on() -> None:
    """A refresh token in it is ignored: the identity is exchanged again."""
    answer = TokenAnswer(200, b'{"access_token": "at", "expires_in": 600}')
    given = read_exchange(answer, IDENTITY, token_file=FILE, now=NOW)
    assert given == Tokens(SecretValue("at"), None, NOW, NOW + 600)


@pytest.mark.parametrize(
    "answer",
    [
        REFUSED,
        TokenAnswer(200, b""),
        TokenAnswer(200, b'{"access_token": "two words"}'),
        TokenAnswer(503, b""),
        RefreshFailure(Blame.UNCERTAIN, "no_answer", "its answer is lost"),
        RefreshFailure(Blame.TRANSIENT, "unreachable", "cannot connect"),
    ],
)
def test_after_every_failure_there_is_another_try(answer: TokenAnswer | RefreshFailure) -> None:
    """Nothing was used up, and the vendor's settings can be corrected without a login."""
    failed = read_exchange(answer, IDENTITY, token_file=FILE, now=NOW)
    assert isinstance(failed, RefreshFailure)
    assert failed.blame is Blame.TRANSIENT


def test_a_refusal_says_where_to_look() -> None:
    """In our own words: an endpoint may echo what it was sent."""
    failed = read_exchange(REFUSED, IDENTITY, token_file=FILE, now=NOW)
    assert isinstance(failed, RefreshFailure)
    advice = "check that the vendor trusts the identity token's issuer, subject and audience"
    assert failed.reason == f"the token endpoint answered 401 invalid_grant: {advice}"


@pytest.mark.parametrize("answer", [REFUSED, TokenAnswer(500, b"")])
def test_an_identity_that_has_ended_is_reported(answer: TokenAnswer) -> None:
    """It was sent all the same: this machine's clock may be the one that is wrong."""
    failed = read_exchange(answer, Identity(IDENTITY.token, NOW - 3700), token_file=FILE, now=NOW)
    assert isinstance(failed, RefreshFailure)
    assert failed.reason.endswith(f"; the identity token in {FILE} expired 1h1m ago: check the program that writes that file")


def test_how_long_to_wait_is_the_endpoints_to_say() -> None:
    """`Retry-After` outlives the translation."""
    failed = read_exchange(TokenAnswer(429, b"", "7"), IDENTITY, token_file=FILE, now=NOW)
    assert isinstance(failed, RefreshFailure)
    assert failed.retry_after == 7.0
