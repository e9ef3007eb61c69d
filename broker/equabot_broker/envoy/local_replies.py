"""Answers that come from Envoy itself, not from the vendor or the broker: a body that all SDKs can read, and the reason in a
header."""

from typing import Final

from equabot_broker.envoy._documents import header, named
from equabot_broker.parsing.untrusted_json import Json

REASON: Final = "x-equabot-reason"
"""The header with the reason of a refusal, one of the contract's words."""
NOT_SEARCHABLE: Final = "not_searchable"
"""The detail in Envoy's log for an answer that cannot be searched for the credential."""
SUSPENDED: Final = "agent_suspended"
ENDED: Final = "lease_ended"
TOO_MANY: Final = "too_many_answers"
"""The details for a request that was cut because of a suspension or with its lease, and for one that came while too many were
active."""

_WAITS: Final = {"BROKER_UNAVAILABLE": "5", "OVERLOADED": "1", "UPSTREAM_UNREACHABLE": "1"}
"""Seconds after which a retry makes sense, by reason."""


def local_replies() -> Json:
    """The rules for Envoy's own answers. Answers of the broker and of the configuration stay unchanged."""
    replies: tuple[tuple[Json, str, str, str], ...] = (
        (
            _details("== 'ext_authz_error'"),
            "overloaded_error",
            "BROKER_UNAVAILABLE",
            "the broker does not answer, and the gateway lets nothing pass without it: try again",
        ),
        (
            _details("startsWith('rbac_access_denied')"),
            "permission_error",
            "PRIVATE_ADDRESS",
            "the provider's name resolves to a private address: to allow that, set providers.<provider>.base_url",
        ),
        (
            _status("EQ", 408),
            "invalid_request_error",
            "INVALID_ARGUMENT",
            "the request was not complete in time (%RESPONSE_CODE_DETAILS%)",
        ),
        (_flags("UT,SI"), "timeout_error", "UPSTREAM_TIMEOUT", "the provider did not answer in time"),
        (_flags("UO"), "overloaded_error", "OVERLOADED", "too many requests are active in the gateway"),
        (
            _flags("UF,UH,UC,UR,URX,DF,UPE"),
            "api_error",
            "UPSTREAM_UNREACHABLE",
            "the provider was not reached, or closed the connection (%RESPONSE_CODE_DETAILS%)",
        ),
        (
            _status("GE", 400),
            "invalid_request_error",
            "INVALID_ARGUMENT",
            "the gateway does not accept this request (%RESPONSE_CODE_DETAILS%)",
        ),
    )
    ours = ("ext_authz_denied", "direct_response", NOT_SEARCHABLE, SUSPENDED, ENDED, TOO_MANY)
    unchanged = {"filter": _details(f"in {list(ours)}")}
    return {"mappers": [unchanged, *(_reply(*one) for one in replies)]}


def _reply(matched: Json, kind: str, reason: str, message: str) -> Json:
    headers = {REASON: reason} | ({"retry-after": _WAITS[reason]} if reason in _WAITS else {})
    return {
        "filter": matched,
        "headers_to_add": [header(name, value) for name, value in headers.items()],
        "body_format_override": {
            "json_format": {"type": "error", "error": {"type": kind, "code": reason.lower(), "message": message}}
        },
    }


def _details(holds: str) -> Json:
    """A condition on Envoy's own response code details."""
    dot = "" if holds.startswith(("=", "in ")) else "."
    return {
        "extension_filter": named(
            "envoy.access_loggers.extension_filters.cel",
            "access_loggers.filters.cel.v3.ExpressionFilter",
            expression=f"response.code_details{dot or ' '}{holds}",
        )
    }


def _flags(flags: str) -> Json:
    return {"response_flag_filter": {"flags": flags.split(",")}}


def _status(compared: str, status: int) -> Json:
    return {"status_code_filter": {"comparison": {"op": compared, "value": {"default_value": status, "runtime_key": "none"}}}}
