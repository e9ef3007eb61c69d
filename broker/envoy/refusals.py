"""Requests that are not let pass: which status, in the form of the vendor's own errors, so that its SDK tells them as it tells
those. The contract's word for why stands in a header, beside what a person is told."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from envoy.service.auth.v3 import external_auth_pb2 as pb

from broker.domain import errors
from broker.envoy.local_replies import REASON

_UNAUTHENTICATED: Final = 16
_PERMISSION_DENIED: Final = 7
_STATUSES: Final[Mapping[type[errors.BrokerError], int]] = {
    errors.LeaseNotFound: 401,
    errors.LeaseExpired: 401,
    errors.ProviderUnknown: 404,
    errors.RateLimited: 429,
    errors.NoUsableProfile: 503,
    errors.RefreshFailed: 503,
    errors.SourceNotSynced: 503,
    errors.AuditUnavailable: 503,
    errors.ShuttingDown: 503,
}
"""The others are 403: asked again, they would be answered the same."""
_WORDS: Final = {
    "messages": {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        503: "overloaded_error",
    },
    "gemini": {
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
    },
    "": {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        503: "server_error",
    },
}
"""How vendors name what they refuse, by the form of their API."""


class Refused(Exception):
    """Why a request is not let pass: an HTTP status, a word for machines and a sentence for a person.

    `agent` is whose request it is, where that is known without a lease.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None, agent: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.agent = agent


def refusal_of(error: errors.BrokerError) -> Refused:
    """What the engine refused."""
    return Refused(
        _STATUSES.get(type(error), 403),
        error.reason,
        error.message,
        retry_after=error.retry_after,
        agent=error.metadata.get("agent", ""),
    )


def denied(refused: Refused, api: str) -> pb.CheckResponse:
    """The answer to the check, and to whoever asked."""
    response = pb.CheckResponse()
    response.status.code = _UNAUTHENTICATED if refused.status == 401 else _PERMISSION_DENIED
    answer = response.denied_response
    answer.status.code = refused.status
    answer.body = json.dumps(body(refused, api), ensure_ascii=True)
    told = {"content-type": "application/json", REASON: refused.reason}
    if refused.retry_after is not None:
        told["retry-after"] = str(max(math.ceil(refused.retry_after), 1))
    for name, value in told.items():
        header = answer.headers.add().header
        header.key, header.value = name, value
    return response


def body(refused: Refused, api: str) -> dict[str, Any]:
    """The error as an SDK of that form of API reads it."""
    words = _WORDS.get(api, _WORDS[""])
    word = words.get(refused.status, words[403])
    match api:
        case "messages":
            return {"type": "error", "error": {"type": word, "message": refused.message}}
        case "gemini":
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refused.reason, "domain": "equabot.dev"}
            return {"error": {"code": refused.status, "message": refused.message, "status": word, "details": [info]}}
    code = refused.reason.lower()
    return {"error": {"message": refused.message, "type": word, "param": None, "code": code}}
