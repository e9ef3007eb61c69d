"""Errors of requests to the Kubernetes API. A message says what to do, and contains nothing of a body."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_WORD: Final = re.compile(r"[A-Z][A-Za-z]{1,40}")
_NAMED: Final = "metadata.name="
_WAIT_MAX: Final = 300.0
_REASONS: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    413: "RequestEntityTooLarge", 422: "Invalid", 429: "TooManyRequests", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


class KubeFault(Exception):
    """Why a request to the API server failed.

    `status` is the HTTP status, or 0 without a response. `reason` is the reason of the API (Forbidden, NotFound, Conflict,
    Expired, TooManyRequests…) or one of ours: Unreachable, TimedOut, Untrusted (the server's certificate), Unconfigured,
    Malformed, TooLarge. `str()` says what was requested, what is wrong and what to do. `retry_after` is the delay in seconds
    that the server asks for, at most 300, or None.
    """

    def __init__(self, message: str, *, reason: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class ApiQuestion(NamedTuple):
    """A request in the terms of RBAC. `name` is empty for a list or a new object."""

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""

    @classmethod
    def of(cls, method: str, path: str, params: Mapping[str, str]) -> "ApiQuestion":
        """Derives it from the method, the path and the parameters of a request."""
        parts = [part for part in path.split("/") if part]
        if parts[:1] not in (["api"], ["apis"]):
            return cls(_VERBS.get(method, "get"), f"nonResourceURLs {path}")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if len(parts) > 2 and parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        resource, name, *sub = (*parts, "", "")[: max(len(parts), 2)]
        verb = _VERBS.get(method) or ("get" if name else "watch" if params.get("watch") else "list")
        fields = params.get("fieldSelector", "")
        named = fields.removeprefix(_NAMED) if fields.startswith(_NAMED) else ""
        return cls(verb, "/".join((resource, *sub)), name or named, namespace)

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f' {self.name}' if self.name else ''}{self._there}"

    @property
    def remedy(self) -> str:
        """The RBAC rule to add if the request is forbidden."""
        narrowed = f", resourceNames {self.name}" if self.name else ""
        kind = f"a Role in namespace {self.namespace}" if self.namespace else "a ClusterRole"
        return f"grant its account the verb {self.verb} on {self.resource}{narrowed} with {kind}"

    @property
    def _there(self) -> str:
        return f" in namespace {self.namespace}" if self.namespace else ""


def refused(asked: ApiQuestion, server: str, *, status: int, word: object = None, retry_after: object = None) -> KubeFault:
    """The fault of an error response. `word` and `retry_after` come from the response and are not validated."""
    reason = word if isinstance(word, str) and _WORD.fullmatch(word) else _REASONS.get(status, "InternalError")
    what = {
        401: f"{server} does not accept the credentials of this process: the token has expired or was revoked, or the account"
        " was deleted; check that the account exists and that a current token is mounted",
        403: f"this process may not {asked}: {asked.remedy}",
        404: f"{server} cannot {asked}: "
        + ("the object does not exist; create it, or correct the name" if asked.name else "the API has no such resource"),
        409: f"{server} did not {asked}: another client changed the object, or the object exists already",
        410: f"{server} cannot continue to {asked}: the version that was read is too old; the broker reads again",
        429: f"{server} is too busy to {asked}: the broker tries again later",
    }.get(status)
    if what is None and status >= 500:
        what = f"{server} failed to {asked} ({status} {reason}): see the log of the API server; the broker tries again"
    return KubeFault(
        what or f"{server} refused to {asked} ({status} {reason}): check the selector, or the object",
        status=status,
        reason=reason,
        retry_after=_seconds(retry_after),
    )


def unreachable(asked: ApiQuestion, server: str, why: str) -> KubeFault:
    """There is no connection, or it broke before the response was complete."""
    return KubeFault(
        f"{server} cannot be reached to {asked} ({why}): check that the API server runs, and that the network lets this process"
        " connect to it",
        reason="Unreachable",
    )


def untrusted(asked: ApiQuestion, server: str) -> KubeFault:
    """The configuration does not trust the certificate of the server."""
    return KubeFault(
        f"{server} is not trusted to {asked}: the configured CA did not sign its certificate, or the certificate is for another"
        " name; check the CA bundle of the cluster",
        reason="Untrusted",
    )


def timed_out(asked: ApiQuestion, server: str, within: float) -> KubeFault:
    """The response did not arrive in time."""
    return KubeFault(
        f"{server} did not {asked} within {within:g} s: check whether the API server is overloaded or hangs", reason="TimedOut"
    )


def malformed(asked: ApiQuestion, server: str, *, status: int = 200) -> KubeFault:
    """The response is not an object of the Kubernetes API."""
    return KubeFault(
        f"the response of {server} to {asked} is not an object of the Kubernetes API: check whether a proxy is in between",
        reason="Malformed",
        status=status,
    )


def too_large(asked: ApiQuestion, server: str, limit: int) -> KubeFault:
    """The response is longer than the limit."""
    return KubeFault(
        f"the response of {server} to {asked} is larger than {limit // 2**20} MiB: select fewer or smaller objects",
        reason="TooLarge",
    )


def _seconds(text: Any) -> float | None:
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        return None
    return min(seconds, _WAIT_MAX) if seconds > 0 else None


__all__ = ["ApiQuestion", "KubeFault"]
