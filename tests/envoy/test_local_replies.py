"""What Envoy says itself. That Envoy takes it, and says it, is in test_bootstrap_config.py and tests/gateway."""

from typing import Any

import pytest

from equabot_broker.envoy.local_replies import NOT_SEARCHABLE, REASON, local_replies

FIRST, *MAPPERS = local_replies()["mappers"]


def test_what_was_said_already_stays_as_it_is() -> None:
    """By the broker, or by a route: the first mapper that fits is the only one."""
    assert FIRST.keys() == {"filter"}
    expression = FIRST["filter"]["extension_filter"]["typed_config"]["expression"]
    assert all(f"'{word}'" in expression for word in ("ext_authz_denied", "direct_response", NOT_SEARCHABLE))


@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: str(mapper["headers_to_add"][0]["header"]["value"]))
def test_every_other_reply_has_its_reason_in_header_and_body(mapper: dict[str, Any]) -> None:
    """In a body of the form that Anthropic's and OpenAI's packages read alike."""
    header, *more = mapper["headers_to_add"]
    assert all(one["header"]["key"] == "retry-after" and int(one["header"]["value"]) > 0 for one in more)
    assert header["header"]["key"] == REASON
    body = mapper["body_format_override"]["json_format"]
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "code", "message"}
    assert body["error"]["code"] == header["header"]["value"].lower()


def test_what_may_pass_soon_says_when_to_come_again() -> None:
    """P21: each of Envoy's own 503."""
    waits = {one["headers_to_add"][0]["header"]["value"]: len(one["headers_to_add"]) == 2 for one in MAPPERS}
    assert {reason for reason, waiting in waits.items() if waiting} == {
        "BROKER_UNAVAILABLE",
        "OVERLOADED",
        "UPSTREAM_UNREACHABLE",
    }


def test_nothing_that_is_refused_is_left_without_words() -> None:
    """The last one fits every status from 400."""
    comparison = MAPPERS[-1]["filter"]["status_code_filter"]["comparison"]
    assert (comparison["op"], comparison["value"]["default_value"]) == ("GE", 400)
