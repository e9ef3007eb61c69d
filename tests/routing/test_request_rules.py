"""What may be asked through the gateway: one spelling of a path, and rules that no other spelling gets round."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.routing.request_rules import narrowing, prefixed, route, rule, rules, target_fault


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
        "/v1%2f",
        "/v1/%2Fmessages",
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


@pytest.mark.parametrize(
    "query",
    [
        "_method=DELETE", "a=b&_method=PATCH", "a;_METHOD=x", "%5Fmethod=x", "$httpMethod=DELETE", "%24httpHeaders=x",
        "x-http-method-override=PUT", "X-Method-Override=PUT", "http_method_override=PUT", "method_override",
    ],
)  # fmt: skip
def test_a_query_names_no_other_method(query: str) -> None:
    """S1: some servers would take a request that was let through for another one."""
    assert "another method" in target_fault("/v1/messages", query)


def test_a_query_may_hold_such_a_word() -> None:
    """As a value, or as a part of another name."""
    assert target_fault("/v1/messages", "method=flickr.photos&payment_method=x&q=_method&$filter=x") == ""


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
        (["/*", "!DELETE /*"], "DELETE /v1/files/f", False),
        (["/*", "!DELETE /*"], "POST /v1/files", True),
        (["/*", "!/v1/files"], "GET /v1/files/", False),
        (["/*", "!/v1/files"], "GET /v1/files/f", True),
        (["/*", "!/v1/files"], "GET /v1/files%3Bx=1", False),
        (["/*", "!/v1/files"], "GET /v1%3bx/files%3Fa/", False),
        (["/*", "!/v1/files"], "GET /v1/files%20a", True),
        (["/*", "!POST /v1/files/*:run"], "POST /v1/files/f%3Arun", False),
        (["/*", "!/v1/@admin"], "POST /v1/%40admin/", False),
        (["/*", "!/v1/$keys/*"], "POST /v1/%24KEYS/x", False),
        (["/*", "!/v1/files/{file}"], "GET /v1/files/secrets", False),
        (["/*", "!/v1/files/{file}"], "GET /v1/files/f", False),
        (["/*", "!/v1/files/{file}"], "GET /v1/files/f/content", True),
        (["/v1/*/files/*:run"], "POST /v1/a/files/b/files/c:run:run", True),
        (["/v1/*/files/*:run"], "POST /v1/a/files/b:runs", False),
        (["/**/files**"], "POST /v1/files", True),
        (["* /**"], "PATCH /anything/at/all/", True),
        (["* /v1/messages"], "PUT /v1/messages", True),
        (["POST /v1/messages"], "POST /v1/messages/", False),
        (["GET /v1/files/{file}"], "GET /v1/files/file_01.txt", True),
        (["GET /v1/files/{file}"], "GET /v1/files/ft:gpt-4o:acme::x%20y", True),
        (["GET /v1/files/{file}"], "GET /v1/files/", False),
        (["GET /v1/files/{file}"], "GET /v1/files/f/content", False),
        (["GET /v1/files/{file}"], "GET /v1/files/f%3Adelete", False),
        (["GET /v1/files/{file}"], "GET /v1/files/f%3fx", False),
        (["GET /v1/files/{file}"], "GET /v1/files/" + "f" * 1025, False),
        (["GET /v1/files/{file}"], "GET /v1/files/secrets", False),
        (["GET /v1/files/{file}"], "GET /v1/files/API-Keys", False),
        (["GET /v1/files/{file}"], "GET /v1/files/getSignedUrl", False),
        (["GET /v1/files/{file}"], "GET /v1/files/apiKeys", False),
        (["GET /v1/files/{file}"], "GET /v1/files/monkey-badminton-keye", True),
        (["GET /v1/files/{file}/content"], "GET /v1/files/my-key/content", True),
        (["POST /v1/models/{model}:run"], "POST /v1/models/m:run", True),
        (["POST /v1/models/{model}:run"], "POST /v1/models/m:runs", False),
        (["POST /v1/models/{model}:run"], "POST /v1/models/m%3Arun", True),
        (["POST /v1/models/{model}:run"], "POST /v1/models/m%3arun", True),
        (["POST /v1/models/{model}:run"], "POST /v1/models/m%3Aruns", False),
        (["POST /v1/models/{model}:run"], "POST /v1/models/m%3Ax%3Arun", False),
        (["GET /v1/a-{one}/b{two}"], "GET /v1/a-x/by", True),
        (["GET /v1/{one}/x*"], "GET /v1/a/xyz/b", True),
        ([], "POST /v1/files", False),
        (["!/v1/files"], "POST /v1/messages", False),
    ],
)
def test_a_list_of_rules(written: list[str], asked: str, passes: bool) -> None:
    """One that allows, and none that forbids. S1: a list that allows nothing lets nothing pass."""
    method, path = asked.split(" ")
    assert rules(tuple(map(rule, written))).allow(method, path) is passes


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12))
def test_a_star_stands_for_anything(pattern: str, text: str) -> None:
    """What matches is what would match if every way were tried."""
    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
    assert rules((rule(f"/{pattern}"),)).allow("GET", f"/{text}") is wanted


def test_no_path_keeps_a_rule_busy() -> None:
    """An agent chooses the path, and the broker waits for the answer. Tried in every way this takes ten minutes, beyond
    the timeout; it takes a millisecond."""
    assert rules((rule("/*"), rule("!/*/x*/x*/z"))).allow("GET", "/v1" + "/x" * 8000)
    assert not rules((rule("/{a}/{b}/{c}/{d}:run"),)).allow("GET", "/a" + "/x:ru" * 3200)


@pytest.mark.parametrize(
    ("written", "path", "passes"),
    [
        (["/v1/chat"], "/v1/chat", True),
        (["/chat"], "/v1/chat", True),
        (["/v1/chat"], "/v1/v1/chat", False),
        (["/chat"], "/v1/v1/chat", False),
        (["/v1/models*"], "/v1/v1/models", False),
        (["/v1/models*"], "/v1/models/m", True),
        (["/v1*"], "/v1/models", True),
        (["/v1x/models"], "/v1/v1x/models", True),
        (["* /**"], "/v1/chat", True),
        (["/*", "!/v1/chat"], "/v1/chat", False),
        (["/*", "!/chat"], "/v1/chat", False),
        (["/*", "!/chat"], "/v1/CHAT/", False),
        (["/*", "!/v1/chat"], "/v1/v1/chat", False),
    ],
)
def test_a_rules_path_is_whole_or_behind_the_base_url(written: list[str], path: str, passes: bool) -> None:
    """Of a provider at `/v1`. S1: what an allowing rule has said it is not taken to have left out; what is forbidden is so in
    both readings."""
    assert rules(tuple(map(rule, written)), "/v1").allow("POST", path) is passes


def test_a_narrowing_list_may_forbid_alone() -> None:
    """It takes away from what another list lets pass; with rules that allow, it lets only that pass."""
    assert narrowing(()).allow("POST", "/v1/files")
    assert narrowing(("!DELETE /**",)).allow("POST", "/v1/files")
    assert not narrowing(("!DELETE /**",)).allow("DELETE", "/v1/files")
    assert not narrowing(("POST /v1/messages",)).allow("POST", "/v1/files")
    assert not narrowing(("!/files",), "/v1").allow("POST", "/v1/files")


def test_rules_under_another_path() -> None:
    """A set of rules serves at several roots."""
    assert prefixed("/v1", ("POST /chat", "/x", "!GET /y/{z}")) == ("POST /v1/chat", "/v1/x", "!GET /v1/y/{z}")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("/*", "/*"),
        ("POST  /v1/messages ", "POST /v1/messages"),
        ("!GET /x", "!GET /x"),
        ("!/x", "!/x"),
        ("* /**", "/**"),
        ("!* /x", "!/x"),
        ("GET /v1/files/{file_id}/content", "GET /v1/files/{file_id}/content"),
    ],
)
def test_a_rule_is_read(written: str, read: str) -> None:
    """Spaces do not count."""
    assert rule(written) == read


@pytest.mark.parametrize(
    "written",
    [
        "",
        "POST",
        "v1/messages",
        "post /v1/messages",
        "CONNECT /x",
        "GET /a b",
        "! /x",
        "GET http://x",
        "* *",
        "** /x",
        "*/x",
        "GET|POST /x",
        "/x?y=z",
        "/x#y",
        "//x",
        "/x/../y",
        "/x/./y",
        "/%6Dessages",
        "/a%2fb",
        "/x\\y",
        "/x/{",
        "/x/{}",
        "/x/{A}",
        "/x/{a/b}",
        "/x/a}",
        "/x/{a}{b}",
        "/x/{a}-{b}",
        "/*/{a}",
        "/x/{" + "a" * 33 + "}",
    ],
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


MODELS = ("GET /v1/models/{model}", "GET /v1/files/{file}", "POST /v1beta/models/{model}:generateContent")


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ("GET /v1/models/anthropic%2Fclaude-sonnet", True),
        ("GET /v1/models/meta-llama%2fLlama-3.1-8B", True),
        ("GET /v1/models/accounts%2Ffireworks%2Fmodels%2Fllama", True),
        ("GET /v1/models/my-mistral%2Fx", True),
        ("GET /v1/models/ft:gpt-4o-mini-2024-07-18:my-org::7p4lURel", True),
        ("GET /v1/models/ft:gpt-4o:acme-team:user-facing:abc123", True),
        ("GET /v1/models/ft:gpt-4o:my-org::abc123:ckpt-step-88", True),
        ("GET /v1/models/ft%3Agpt-4o-mini%3Amy-org%3A%3A7p4lURel", True),
        ("GET /v1/models/ft%3agpt-4o%3aacme-team%3auser-facing%3aabc123", True),
        ("POST /v1beta/models/tunedModels%2Fx:generateContent", True),
        ("GET /v1/models/my-org", False),
        ("GET /v1/models/x%2Fapi_keys", False),
        ("GET /v1/models/x%2fkeys", False),
        ("GET /v1/models/keys%2Fx", False),
        ("GET /v1/models/accounts%2Fx%2Ftokens", False),
        ("GET /v1/models/accounts%2Fusers", False),
        ("GET /v1/models/ft:x:my-org::getIamPolicy", False),
        ("GET /v1/models/ft:x:my-org:keys", False),
        ("GET /v1/models/ft%3Ax%3Amy-org%3A%3AgetIamPolicy", False),
        ("GET /v1/models/ft%3Ax%3Amy-org%3Akeys", False),
        ("GET /v1/models/ft%3Ax%3Amy-org%3A%3Aid%2Fkeys", False),
        ("GET /v1/models/ft%3Ax%3Bmy-org%3A%3Aid", False),
        ("GET /v1/files/ft%3Ax%3Amy-org%3A%3Asecrets", False),
        ("GET /v1/models/x:my-org::id", False),
        ("GET /v1/models/x%3Fy", False),
        ("GET /v1/files/x%2Fy", False),
        ("POST /v1beta/models/x%2Fkeys:generateContent", False),
    ],
)
def test_a_models_name_may_hold_what_models_names_hold(asked: str, passes: bool) -> None:
    """C16: vendors' names of models have slashes and organisations in them; what names credentials passes in no piece."""
    method, path = asked.split(" ")
    assert target_fault(path, "") == ""
    assert rules(MODELS).allow(method, path) is passes


@pytest.mark.parametrize(
    "path",
    ["/v1/%2Fx", "/v1/x%2F", "/v1/x%2F%2Fy", "/v1/..%2Fx", "/v1/x%2F..", "/v1/x%2f.%2Fy", "/%2F", "/v1/x%2F../y"],
)
def test_an_encoded_slash_leads_nowhere_else(path: str) -> None:
    """C16: between two names, and not next to another slash or to dots."""
    assert target_fault(path, "") != ""


@pytest.mark.parametrize("path", ["/v1%2Fadmin", "/v1/admin%2Fkeys", "/v1%2fADMIN/x"])
def test_what_is_forbidden_is_so_behind_an_encoded_slash(path: str) -> None:
    """C16: to some servers it is a slash."""
    assert not rules(("/**", "!/v1/admin*")).allow("GET", path)
