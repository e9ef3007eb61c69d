"""What a token endpoint is asked, what its answers mean, and when it is asked."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from equabot_broker.domain.backoff import seconds_to_wait
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import (
    AHEAD,
    LARGEST,
    Blame,
    RefreshFailure,
    TokenAnswer,
    Tokens,
    life,
    read_answer,
    refresh_at,
    refresh_request,
    same_identity,
)

NOW = 1_800_000_000.0
GIVEN = {"access_token": "at-new", "refresh_token": "rt-new", "expires_in": 600}
ACME = Provider(id="acme", token_url="https://login.acme.example/token", token_encoding="form", client_id="acme-cli")

ID_TOKEN = f"x.{base64.urlsafe_b64encode(json.dumps({'email': 'i@d.t'}).encode()).decode().rstrip('=')}.y"


def meant(status: int, body: object, retry_after: str = "") -> Tokens | RefreshFailure:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(TokenAnswer(status, raw, retry_after), now=NOW)


def tokens(body: dict[str, Any]) -> Tokens:
    found = meant(200, body)
    assert isinstance(found, Tokens), found
    return found


def failure(status: int, body: object = b"", retry_after: str = "") -> RefreshFailure:
    found = meant(status, body, retry_after)
    assert isinstance(found, RefreshFailure), found
    return found


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_the_request_redeems_the_refresh_token() -> None:
    """RFC 6749, section 6. The client is the login's own, else the provider's."""
    asked = refresh_request(ACME, SecretValue("rt-1"))
    assert (asked.url, asked.encoding) == (ACME.token_url, "form")
    assert asked.fields == {"grant_type": "refresh_token", "refresh_token": SecretValue("rt-1"), "client_id": "acme-cli"}
    assert refresh_request(ACME, SecretValue("rt-1"), client_id="other").fields["client_id"] == "other"
    assert "client_id" not in refresh_request(replace(ACME, client_id=""), SecretValue("rt-1")).fields
    assert "rt-1" not in repr(asked)


# -- what is answered --------------------------------------------------------------------------------------------------


def test_an_answer_gives_tokens() -> None:
    """Both, and until when."""
    expected = Tokens(SecretValue("at-new"), SecretValue("rt-new"), NOW, NOW + 600)
    assert meant(200, GIVEN) == expected
    assert meant(201, GIVEN) == expected


def test_without_a_new_refresh_token_the_old_one_stays_good() -> None:
    """RFC 6749, section 6."""
    for absent in ({}, {"refresh_token": None}, {"refresh_token": ""}):
        assert tokens({"access_token": "at-new", **absent}).refresh is None


@pytest.mark.parametrize(
    ("fields", "account", "email"),
    [
        ({}, "", ""),
        ({"account_id": "u1", "email": "a@b.c"}, "u1", "a@b.c"),
        ({"account": {"uuid": "u2", "email_address": "a@b.c"}}, "u2", "a@b.c"),
        ({"account": {"id": "u3"}}, "u3", ""),
        ({"account": "u4", "account_id": 5}, "", ""),
        ({"id_token": ID_TOKEN}, "", "i@d.t"),
        ({"id_token": "x.!!!.y"}, "", ""),
        ({"id_token": "x.é.y"}, "", ""),
        ({"id_token": 7}, "", ""),
    ],
)
def test_whose_tokens_they_are(fields: dict[str, Any], account: str, email: str) -> None:
    """As far as the answer says so, in one of the ways in which vendors do."""
    found = tokens(GIVEN | fields)
    assert (found.account, found.email) == (account, email)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome to the hotel's network</html>",
        b"[]",
        b"null",
        b'{"access_token": ',
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"access_token": ""},
        {"access_token": None},
        {"access_token": 7},
        {"access_token": "at\r\nSet-Cookie: a"},
        {"access_token": "at new"},
        {"access_token": "at-\u00e9"},
        {"access_token": "a" * (65 << 10)},
        {"access_token": "at-new", "refresh_token": 7},
        {"access_token": "at-new", "refresh_token": "rt\nnew"},
    ],
)
def test_a_good_status_without_good_tokens_leaves_it_uncertain(body: object) -> None:
    """The old refresh token may be spent, and what came for it is of no use."""
    assert failure(200, body) == RefreshFailure(
        Blame.UNCERTAIN, "unusable_answer", "the token endpoint answered without usable tokens"
    )


def test_more_than_is_read_is_not_an_answer() -> None:
    """However well it begins."""
    body = json.dumps(GIVEN).encode()
    assert failure(200, body + b" " * LARGEST).blame is Blame.UNCERTAIN


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": "invalid_grant", "error_description": "Refresh token not found or invalid"}, "invalid_grant"),
        (400, {"error": "invalid_request", "error_description": "Refresh token expired or invalid."}, "invalid_request"),  # P19
        (400, {"error": "invalid_request", "error_description": "Invalid refresh token"}, "invalid_request"),
        (200, {"error": "invalid_grant"}, "invalid_grant"),
        (401, {"error": {"code": "refresh_token_reused", "type": "invalid_request_error"}}, "refresh_token_reused"),
        (401, {"error": {"code": "refresh_token_expired"}}, "refresh_token_expired"),
        (400, {"error": "token_revoked"}, "token_revoked"),
        (403, {"error": "access_denied"}, "access_denied"),
        (401, {"error": "invalid_client"}, "invalid_client"),
        (401, {"error": {"type": "authentication_error"}}, "authentication_error"),
        (401, {"error": "account_on_fire"}, "other_error"),
    ],
)
def test_a_refusal_is_for_good(status: int, body: object, code: str) -> None:
    """A person must log in again."""
    assert failure(status, body) == RefreshFailure(Blame.PERMANENT, code, f"the token endpoint answered {status} {code}")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, b"", "http_500"),
        (500, {"error": "invalid_grant"}, "invalid_grant"),
        (502, b"<html>Bad Gateway</html>", "http_502"),
        (503, {"error": "temporarily_unavailable"}, "temporarily_unavailable"),
        (504, b"", "http_504"),
        (529, {"error": {"type": "overloaded_error"}}, "overloaded_error"),
        (429, {"error": "invalid_grant"}, "invalid_grant"),
        (429, b"", "http_429"),
        (408, b"", "http_408"),
        (400, {"error": "slow_down"}, "slow_down"),
        (401, {"error": "rate_limit_exceeded"}, "rate_limit_exceeded"),
        (400, {"error": "invalid_request"}, "invalid_request"),
        (403, b"<html>Checking your browser</html>", "http_403"),
        (404, b"", "http_404"),
        (302, b"", "http_302"),
    ],
)
def test_what_passes_is_tried_again(status: int, body: object, code: str) -> None:
    """The endpoint has trouble, or it is not the endpoint: neither says anything about the login."""
    found = failure(status, body)
    assert (found.blame, found.code) == (Blame.TRANSIENT, code)


def test_an_endpoint_says_when_to_come_again() -> None:
    """In seconds, or with a date."""
    assert failure(429, retry_after="7").retry_after == 7.0
    assert failure(503, retry_after=" 0 ").retry_after == 0.0
    assert failure(503).retry_after is None


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("120", 120.0),
        ("99999", 3600.0),
        ("1" * 5000, None),
        ("1.5", 1.5),
        ("90.", 90.0),
        ("30, 45", 45.0),
        ("30,", None),
        (".5", None),
        ("1e3", None),
        ("nan", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 2038 07:00:00 GMT", 3600.0),
        ("Fri, 99 Jan 2027 99:00:00 GMT", None),
    ],
)
def test_retry_after(text: str, wait: float | None) -> None:
    """RFC 9110, section 10.2.3; never longer than an hour."""
    assert seconds_to_wait(text, now=NOW) == wait


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode), st.integers(100, 599), st.text(max_size=40))
def test_anything_can_be_answered(body: bytes, status: int, retry_after: str) -> None:
    """And is understood as tokens or as a failure."""
    assert isinstance(read_answer(TokenAnswer(status, body, retry_after), now=NOW), Tokens | RefreshFailure)


@pytest.mark.parametrize("where", ["error", "code", "description"])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_nothing_of_an_answer_is_repeated(where: str, status: int) -> None:
    """An endpoint may echo what it was sent, in any field."""
    secret = "sk-ant-ort01-canary_refresh_token"
    bodies = {"error": {"error": secret}, "code": {"error": {"code": secret}}, "description": {"error_description": secret}}
    found = failure(status, bodies[where], retry_after=secret)
    assert "canary" not in repr(found)
    assert "canary" not in repr(TokenAnswer(status, json.dumps(bodies[where]).encode()))


# -- when it is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (600, 600.0), (0.5, 0.5), ("600", 600.0), (" 600 ", 600.0), (0, 3600.0), ("0", 3600.0), (-1, 3600.0), ("-1", 3600.0),
        ("600.5", 3600.0), ("soon", 3600.0), ("1" * 5000, 3600.0), (None, 3600.0), (True, 3600.0), ([], 3600.0),
        (1e300, 3600.0), (float("nan"), 3600.0), ("٣", 3600.0),
    ],
)  # fmt: skip
def test_how_long_an_access_token_lives(said: object, seconds: float) -> None:
    """What says nothing sensible is taken for an hour: a token that ends sooner is noticed when it is refused."""
    assert life(said) == seconds


@given(st.floats(1, 10**9), st.floats(0, 0.999))
@example(86_400.0, 0.0)
def test_it_is_refreshed_before_its_end(lived: float, chance: float) -> None:
    """Five minutes, or a third of a shorter life, and by chance a little sooner; never before more than half of it is over."""
    at = refresh_at(issued_at=NOW, expires_at=NOW + lived, chance=chance)
    lead = min(AHEAD, lived / 3)
    assert NOW + lived * 0.5 <= at
    assert NOW + lived - lead * 1.2 - 1e-3 <= at <= NOW + lived - lead + 1e-3


def test_of_unknown_age_it_is_refreshed_five_minutes_before() -> None:
    """So is one that was issued after its end."""
    for issued_at in (None, NOW + 1000):
        assert refresh_at(issued_at=issued_at, expires_at=NOW + 1000, chance=0.0) == NOW + 1000 - AHEAD


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (("", ""), ("", ""), True),
        (("u1", ""), ("", "a@b.c"), True),
        (("u1", "a@b.c"), ("u1", "A@b.c"), True),
        (("u1", "a@b.c"), ("u2", "a@b.c"), False),
        (("u1", "a@b.c"), ("u1", "d@e.f"), False),
        (("", "a@b.c"), ("u2", "d@e.f"), False),
    ],
)
def test_whether_it_is_the_same_login(ours: tuple[str, str], theirs: tuple[str, str], same: bool) -> None:
    """What both sides know must agree."""
    assert same_identity(*ours, other_account=theirs[0], other_email=theirs[1]) is same
