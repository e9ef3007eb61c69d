"""Filters by which the broker can cut an active request (ADR 19).

Each keeps a stream to the broker's external processor open as long as the request lasts, without a byte of its body. Envoy
ends such a stream when nothing is left to process. So the filter asks for trailers, which come last or never.

A request with a small body, or with a small and complete answer, is soon over and has no such stream.
"""

from typing import Any, Final

from equabot_broker.envoy._documents import named
from equabot_broker.envoy.waits import HEADERS, NAMESPACE, STATUSES
from equabot_broker.parsing.untrusted_json import Json

AUTHORIZATION: Final = "envoy.filters.http.ext_authz"
"""The namespace whose metadata names the agent of a request."""
TASK: Final = ("equabot-task", "cut")
"""The metadata that distinguishes these streams from those for scrubbing."""
_SMALL_REQUEST: Final = "[0-9]{1,6}"
_SMALL_ANSWER: Final = "[0-9]{1,5}"
"""The condition on `content-length` for a small body: less than a megabyte to the provider, or 100 kB from it."""


def watched_uploads(control: str) -> Json:
    """Watches requests with a large body, or with one of unknown length, from their headers on."""
    body_is_small = _or(_header("Request", ":method", "GET|HEAD"), _header("Request", "content-length", _SMALL_REQUEST))
    return _unless(body_is_small, _processor(control, request_header_mode="SEND", response_header_mode="SKIP"))


def watched_answers(control: str) -> Json:
    """Watches streams, WebSockets and large answers from their headers on. Also sees answers that ask the client to wait."""
    comes_whole = _or(_header("Response", "content-length", _SMALL_ANSWER), _header("Response", ":status", "204|304"))
    asks_for_patience = _header("Response", ":status", STATUSES)
    soon_over = {"and_matcher": {"predicate": [comes_whole, {"not_matcher": asks_for_patience}]}}
    return _unless(soon_over, _processor(control, request_header_mode="SKIP", response_header_mode="SEND"))


def _processor(control: str, **headers: str) -> Json:
    name, value = TASK
    return named(
        "envoy.filters.http.ext_proc",
        "filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": control}, "initial_metadata": [{"key": name, "value": value}]},
        processing_mode={
            **headers,
            "request_body_mode": "NONE",
            "response_body_mode": "NONE",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SEND",
        },
        # The request's headers, which have the credential by now, are not needed here.
        forward_rules={"allowed_headers": {"patterns": [{"exact": name} for name in (":status", *HEADERS)]}},
        metadata_options={
            "forwarding_namespaces": {"untyped": [AUTHORIZATION]},
            "receiving_namespaces": {"untyped": [NAMESPACE]},
        },
        # A restart of the broker cuts no request: ADR 19 has the price.
        failure_mode_allow=True,
        message_timeout="5s",
    )


def _unless(predicate: Json, filter_: Json) -> Json:
    skip = named("skip", "filters.common.matcher.action.v3.SkipFilter")
    run = named("run", "filters.http.composite.v3.ExecuteFilterAction", typed_config=filter_)
    return named(
        "envoy.filters.http.composite",
        "common.matching.v3.ExtensionWithMatcher",
        extension_config=named("composite", "filters.http.composite.v3.Composite"),
        xds_matcher={
            "matcher_list": {"matchers": [{"predicate": predicate, "on_match": {"action": skip}}]},
            "on_no_match": {"action": run},
        },
    )


def _or(*predicates: Json) -> Json:
    return {"or_matcher": {"predicate": list(predicates)}}


def _header(direction: str, name: str, regex: str) -> Json:
    of = {
        "name": name,
        "typed_config": {
            "@type": f"type.googleapis.com/envoy.type.matcher.v3.Http{direction}HeaderMatchInput",
            "header_name": name,
        },
    }
    matches: dict[str, Any] = {"safe_regex": {"google_re2": {}, "regex": regex}}
    return {"single_predicate": {"input": of, "value_match": matches}}
