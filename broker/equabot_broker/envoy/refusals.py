"""Refused requests: the status, and a body in the form of the vendor's own errors, so that the vendor's SDK can report it.
Headers have the reason of the contract and whether a retry can help."""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from envoy.service.auth.v3 import external_auth_pb2 as pb

from equabot_broker.domain import errors
from equabot_broker.envoy.local_replies import REASON


class GatewayReason(NamedTuple):
    """A reason that only the gateway gives: its HTTP status, its meaning and its remedy."""

    status: int
    means: str
    remedy: str


_UNAUTHENTICATED: Final = 16
_PERMISSION_DENIED: Final = 7
STATUSES: Final[Mapping[type[errors.BrokerError], int]] = {
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
"""The status of other reasons is 403: a retry would get the same answer."""
GATEWAY_REASONS: Final[Mapping[str, GatewayReason]] = MappingProxyType(
    {
        "TOKEN_MISSING": GatewayReason(
            401, "No header holds a lease token.", "Send the lease token in the header of the provider's key."
        ),
        "TOKEN_IN_QUERY": GatewayReason(
            401,
            "The query holds a token or a key, or has a parameter that is named like one.",
            "Send the lease token in a header.",
        ),
        "TWO_CREDENTIALS": GatewayReason(401, "Two headers have different credentials.", "Send the lease token alone."),
        "KEY_REFUSED": GatewayReason(
            401,
            "A header or a WebSocket protocol has a credential that is not the lease token, for example the provider's key.",
            "Send the lease token alone.",
        ),
        "BROWSER_REFUSED": GatewayReason(
            403, "A page in a browser made the request.", "Send requests from a program: the gateway serves no pages."
        ),
        "HOST_REFUSED": GatewayReason(
            403,
            "The request's host is not a name of the gateway.",
            "Use the base URL of the lease, or set `gateway.url` in the configuration.",
        ),
        "FORWARDED_REFUSED": GatewayReason(
            403, "A proxy sent the request.", "Connect the agent to the gateway without another proxy."
        ),
        "PRIVATE_ADDRESS": GatewayReason(
            403,
            "The provider's host name leads to this machine or to a private network.",
            "If that is wanted, set `providers.<provider>.base_url`. Else look at the name server.",
        ),
        "RELOADING": GatewayReason(503, "The gateway takes over another address of the provider.", "Ask again in a second."),
        "OVERLOADED": GatewayReason(
            503, "Too many requests are active in the gateway.", "Ask again in a second, or raise `gateway.memory`."
        ),
        "BROKER_UNAVAILABLE": GatewayReason(
            503,
            "The broker does not answer the gateway, and nothing passes without the broker.",
            "Ask again in five seconds. If it lasts, see whether the broker runs.",
        ),
        "UPSTREAM_UNREACHABLE": GatewayReason(
            503,
            "The provider was not reached, could not prove its identity, or closed the connection.",
            "Ask again in a second. If it lasts, see that the gateway reaches the provider.",
        ),
        "UPSTREAM_TIMEOUT": GatewayReason(
            504,
            "The provider sent nothing for `gateway.idle_timeout`.",
            "Ask again, or raise `gateway.idle_timeout`.",
        ),
        "NOT_SEARCHABLE": GatewayReason(
            502,
            "`gateway.scrub` is on, and the answer is compressed although the request did not ask for that.",
            "Ask the provider for plain answers, or turn `gateway.scrub` off.",
        ),
    }
)
"""The reasons that only the gateway gives, in addition to those of `domain.errors`."""
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
"""The names of vendors' errors, by the form of their API."""

_FETCHED_AGAIN: Final = frozenset({errors.LeaseNotFound.reason, errors.LeaseExpired.reason})
"""Statuses after which a client retries once: a command of the client may get a new token (`apiKeyHelper`)."""
_PATIENCE: Final = 60.0
"""The maximum number of seconds in `retry-after`. Some clients sleep for a longer time in silence."""


class RequestRefused(Exception):
    """The reason why a request is refused: an HTTP status, a word for programs and a sentence for users.

    `agent` is the agent of the request, if it is known without a lease.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None, agent: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.agent = agent

    @property
    def final(self) -> bool:
        """Whether a client that repeats the request soon and unchanged is refused again."""
        if self.retry_after is not None:
            return self.retry_after > _PATIENCE
        if self.status == 503:
            return self.reason == errors.NoUsableProfile.reason
        return self.status != 429 and self.reason not in _FETCHED_AGAIN


def refusal_of(error: errors.BrokerError) -> RequestRefused:
    """The refusal for an error of the engine."""
    return RequestRefused(
        STATUSES.get(type(error), 403),
        error.reason,
        error.message,
        retry_after=error.wait,
        agent=error.metadata.get("agent", ""),
    )


def denied(refused: RequestRefused, api: str) -> pb.CheckResponse:
    """The answer to the check, with the body for the agent."""
    response = pb.CheckResponse()
    response.status.code = _UNAUTHENTICATED if refused.status == 401 else _PERMISSION_DENIED
    answer = response.denied_response
    answer.status.code = refused.status
    answer.body = json.dumps(body(refused, api), ensure_ascii=True)
    for name, value in refusal_headers(refused).items():
        header = answer.headers.add().header
        header.key, header.value = name, value
    return response


def refusal_headers(refused: RequestRefused) -> dict[str, str]:
    """The headers of the answer. Claude Code and the SDKs of Anthropic and OpenAI obey `x-should-retry`."""
    headers = {"content-type": "application/json", REASON: refused.reason}
    if refused.retry_after is not None:
        headers["retry-after"] = str(_whole(refused.retry_after))
    if refused.final:
        headers["x-should-retry"] = "false"
    return headers


def body(refused: RequestRefused, api: str) -> dict[str, Any]:
    """The body of the error in the form that an SDK of that API reads."""
    words = _WORDS.get(api, _WORDS[""])
    word = words.get(refused.status, words[403])
    message = refused.message
    if refused.retry_after is not None:
        message += f"; try again in {_shown(_whole(refused.retry_after))}"
    match api:
        case "messages":
            # Claude Code retries after "overloaded_error", whatever the headers say.
            kind = "api_error" if refused.final and refused.status == 503 else word
            return {"type": "error", "error": {"type": kind, "message": message}}
        case "gemini":
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refused.reason, "domain": "equabot.dev"}]
            if refused.retry_after is not None:
                wait = f"{_whole(refused.retry_after)}s"
                details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait})
            return {"error": {"code": refused.status, "message": message, "status": word, "details": details}}
    return {"error": {"message": message, "type": word, "param": None, "code": refused.reason.lower()}}


def _whole(seconds: float) -> int:
    return max(math.ceil(seconds), 1)


def _shown(seconds: int) -> str:
    """A duration for users: `42 s`, `1 h 2 min`."""
    if seconds < 120:
        return f"{seconds} s"
    minutes = math.ceil(seconds / 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
