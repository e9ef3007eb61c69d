"""What Envoy says itself, where neither the vendor nor the broker does: in a form that all SDKs read, and why in a header."""

from typing import Final

from equabot_broker.domain.untrusted_json import Json
from equabot_broker.envoy._documents import header, named

REASON: Final = "x-equabot-reason"
"""The header in which a refusal says why, in one of the contract's words."""
NOT_SEARCHABLE: Final = "not_searchable"
"""How Envoy's log calls an answer that cannot be searched for the credential."""
SUSPENDED: Final = "agent_suspended"
ENDED: Final = "lease_ended"
TOO_MANY: Final = "too_many_answers"
"""How it calls a request that was cut for its agent's suspension or with its lease, and one that came while too many are under
way."""

_WAITS: Final = {"BROKER_UNAVAILABLE": "5", "OVERLOADED": "1", "UPSTREAM_UNREACHABLE": "1"}
"""Seconds after which it makes sense to ask again, by reason."""


def local_replies() -> Json:
    """What becomes of them; what the broker said, or the configuration says, stays as it is."""
    told: tuple[tuple[Json, str, str, str], ...] = (
        (
            _details("== 'ext_authz_error'"),
            "overloaded_error",
            "BROKER_UNAVAILABLE",
            "the broker does not answer: nothing passes without it",
        ),
        (
            _details("startsWith('rbac_access_denied')"),
            "permission_error",
            "PRIVATE_ADDRESS",
            "the provider's name leads to a private address: who wants that sets providers.<provider>.base_url",
        ),
        (
            _status("EQ", 408),
            "invalid_request_error",
            "INVALID_ARGUMENT",
            "the request did not come whole in time (%RESPONSE_CODE_DETAILS%)",
        ),
        (_flags("UT,SI"), "timeout_error", "UPSTREAM_TIMEOUT", "the provider did not answer in time"),
        (_flags("UO"), "overloaded_error", "OVERLOADED", "too many requests are under way in the gateway"),
        (
            _flags("UF,UH,UC,UR,URX,DF,UPE"),
            "api_error",
            "UPSTREAM_UNREACHABLE",
            "the provider was not reached, or broke off (%RESPONSE_CODE_DETAILS%)",
        ),
        (
            _status("GE", 400),
            "invalid_request_error",
            "INVALID_ARGUMENT",
            "the gateway does not take this request (%RESPONSE_CODE_DETAILS%)",
        ),
    )
    ours = ("ext_authz_denied", "direct_response", NOT_SEARCHABLE, SUSPENDED, ENDED, TOO_MANY)
    said = {"filter": _details(f"in {list(ours)}")}
    return {"mappers": [said, *(_reply(*one) for one in told)]}


def _reply(matched: Json, kind: str, reason: str, message: str) -> Json:
    said = {REASON: reason} | ({"retry-after": _WAITS[reason]} if reason in _WAITS else {})
    return {
        "filter": matched,
        "headers_to_add": [header(name, value) for name, value in said.items()],
        "body_format_override": {
            "json_format": {"type": "error", "error": {"type": kind, "code": reason.lower(), "message": message}}
        },
    }


def _details(holds: str) -> Json:
    """Where Envoy's own word for what happened is such a one."""
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
