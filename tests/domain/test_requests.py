"""What may be asked through the gateway: one spelling of a path, and rules that no other spelling gets round."""

import re
import time
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.requests import route, rule, rules, target_fault


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/messages",
        "/v1/messages/",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "/v1/files/file_01.txt",
        "/v1/...",
        "/v1/a..b/.well-known",
        "/v1/models/a%20b%3Ac",
        "/v1/voices/%C3%A9",
        "/openai/deployments/gpt(4)/chat",
    ],
)
def test_a_path_in_its_plain_form_is_taken(path: str) -> None:
    """As SDKs make them; only what has to be is encoded."""
    assert target_fault(path, "beta=true&x=%2F..%2f") == ""


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "v1/messages",
        "http://elsewhere/v1/messages",
        "//elsewhere/v1/messages",
        "/v1//messages",
        "/v1/messages//",
        "/v1/../admin",
        "/v1/..",
        "/./v1",
        "/v1/.",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/.%2e/admin",
        "/v1%2fmessages",
        "/v1%2Fmessages",
        "/v1%5cmessages",
        "/v1\\messages",
        "/v1/%252e%252e/admin",
        "/v1/%25",
        "/v1/%6Dessages",
        "/v1/%zz",
        "/v1/%",
        "/v1/%4",
        "/v1/%00",
        "/v1/%0a",
        "/v1/%7f",
        "/v1/a b",
        "/v1/\x00",
        "/v1/a\r\nhost: elsewhere",
        "/v1/é",
        "/v1/..;/admin",
        "/v1/messages#fragment",
        "/v1/messages?x",
        "/" + "a" * 9000,
    ],
)
def test_any_other_spelling_is_refused(path: str) -> None:
    """What would mean another path to whoever decodes, normalises or splits it once more."""
    assert target_fault(path, "")


@pytest.mark.parametrize("query", ["a b", "a\n", "é", "a#b", "a\x7f", "a" * 9000])
def test_a_query_is_in_its_plain_form_too(query: str) -> None:
    """Nothing in it ends a line or the query."""
    assert target_fault("/v1/messages", query)


@given(st.text("abc/.%2eEfF5cC\\;:0", max_size=24))
def test_what_is_taken_stays_the_same_path_when_it_is_decoded(text: str) -> None:
    """However often a server decodes: no more segments, none of them with a meaning of its own."""
    path = "/" + text
    if target_fault(path, ""):
        return
    decoded = unquote(unquote(path))
    assert decoded.count("/") == path.count("/")
    assert not {".", ".."} & set(decoded.split("/"))
    assert "\\" not in decoded


@pytest.mark.parametrize(
    ("written", "asked", "passes"),
    [
        (["/*"], "DELETE /anything/at/all", True),
        (["POST /v1/messages"], "POST /v1/messages", True),
        (["POST /v1/messages"], "GET /v1/messages", False),
        (["POST /v1/messages"], "POST /v1/messages/batches", False),
        (["POST /v1/messages"], "POST /v1/Messages", False),
        (["GET /v1/models*"], "GET /v1/models/claude", True),
        (["GET /v1/models*"], "HEAD /v1/models", True),
        (["HEAD /v1/models"], "GET /v1/models", True),
        (["/v1/a.c"], "GET /v1/abc", False),
        (["/openai/deployments/*/chat/completions"], "POST /openai/deployments/x/chat/completions", True),
        (["GET /a", "POST /b"], "POST /b", True),
        (["/*", "!/organization*"], "GET /organization/admin_api_keys", False),
        (["/*", "!/organization*"], "GET /ORGANIZATION/x", False),
        (["/*", "!/organization*"], "GET /chat", True),
        (["!DELETE /*"], "DELETE /v1/files/f", False),
        (["!DELETE /*"], "POST /v1/files", True),
        (["!/v1/files"], "GET /v1/files/", False),
        (["!/v1/files"], "GET /v1/files/f", True),
        (["/v1/*/files/*:run"], "POST /v1/a/files/b/files/c:run:run", True),
        (["/v1/*/files/*:run"], "POST /v1/a/files/b:runs", False),
        (["/**/files**"], "POST /v1/files", True),
        ([], "POST /v1/files", True),
    ],
)
def test_a_list_of_rules(written: list[str], asked: str, passes: bool) -> None:
    """One that allows, if there is any, and none that forbids."""
    method, path = asked.split(" ")
    assert rules(tuple(map(rule, written))).allow(method, path) is passes


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12))
def test_a_star_stands_for_anything(pattern: str, text: str) -> None:
    """What matches is what would match if every way were tried."""
    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
    assert rules((rule(f"/{pattern}"),)).allow("GET", f"/{text}") is wanted


def test_no_path_keeps_a_rule_busy() -> None:
    """An agent chooses the path, and the broker does nothing else meanwhile. Tried in every way, this one takes a minute and a
    half, and a millisecond so."""
    began = time.process_time()
    assert rules((rule("!/*/x*/x*/z"),)).allow("GET", "/v1" + "/x" * 4000)
    assert time.process_time() - began < 5


def test_a_path_may_be_told_in_two_ways() -> None:
    """With what stands before it at the vendor, and without: to allow one suffices, to forbid too."""
    both = ("/chat/completions", "/v1/chat/completions")
    assert rules(("POST /v1/chat/completions",)).allow("POST", *both)
    assert rules(("POST /chat/completions",)).allow("POST", *both)
    assert not rules(("/*", "!/v1/chat/*")).allow("POST", *both)


@pytest.mark.parametrize(
    ("written", "read"),
    [("/*", "/*"), ("POST  /v1/messages ", "POST /v1/messages"), ("!GET /x", "!GET /x"), ("!/x", "!/x")],
)
def test_a_rule_is_read(written: str, read: str) -> None:
    """Spaces do not count."""
    assert rule(written) == read


@pytest.mark.parametrize(
    "written", ["", "POST", "v1/messages", "post /v1/messages", "CONNECT /x", "GET /a b", "! /x", "GET http://x"]
)
def test_what_is_no_rule_is_said_to_be_none(written: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match="POST /v1/messages"):
        rule(written)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/files/file_011CNha8iCJcU1wXNR6q4V8w", "/v1/files/*"),
        ("/v1/messages/batches/msgbatch_01/results", "/v1/messages/batches/*/results"),
        ("/v1beta/models/gemini-2.5-flash:generateContent", "/v1beta/models/*:generateContent"),
        ("/v1/models/claude-opus-4-1", "/v1/models/*"),
        ("/", "/"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…"),
        ("/" + "x" * 100, "/*"),
    ],
)
def test_a_route_is_what_requests_of_a_kind_share(path: str, told: str) -> None:
    """No name of a file, a model or a person is left in it."""
    assert route(path) == told
