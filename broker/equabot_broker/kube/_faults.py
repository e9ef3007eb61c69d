"""What can go wrong with a request to the Kubernetes API, in words that say what to do. They hold nothing of a body."""

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
    """Why the API server did not do it.

    `status` is that of HTTP, 0 where there is no answer. `reason` is the API's own word (Forbidden, NotFound, Conflict,
    Expired, TooManyRequests…), or ours: Unreachable, TimedOut, Untrusted (its certificate), Unconfigured, Malformed, TooLarge.
    `str()` says what was asked, what is wrong and what to do. `retry_after`: for how many seconds the server wants to be left
    alone, at most 300; None where it says nothing.
    """

    def __init__(self, message: str, *, reason: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class ApiQuestion(NamedTuple):
    """What a request asks of the API, in the words of its access rules. `name` is empty for all of a kind, or for a new one."""

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""

    @classmethod
    def of(cls, method: str, path: str, params: Mapping[str, str]) -> "ApiQuestion":
        """The same from a request's method, path and parameters."""
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
        """The rule that is missing where it is forbidden."""
        narrowed = f", resourceNames {self.name}" if self.name else ""
        kind = f"a Role in namespace {self.namespace}" if self.namespace else "a ClusterRole"
        return f"grant its account the verb {self.verb} on {self.resource}{narrowed} by {kind}"

    @property
    def _there(self) -> str:
        return f" in namespace {self.namespace}" if self.namespace else ""


def refused(asked: ApiQuestion, server: str, *, status: int, word: object = None, retry_after: object = None) -> KubeFault:
    """The fault that an answer tells. `word` and `retry_after` are as it gives them: they may be anything."""
    reason = word if isinstance(word, str) and _WORD.fullmatch(word) else _REASONS.get(status, "InternalError")
    what = {
        401: f"{server} does not accept the credentials of this process: its token has expired or was revoked, or its account"
        " is gone; see that the account exists and that a fresh token is mounted",
        403: f"this process may not {asked}: {asked.remedy}",
        404: f"{server} cannot {asked}: "
        + ("it is not there; create it, or correct the name" if asked.name else "it knows no such resource"),
        409: f"{server} did not {asked}: it was changed since then, or exists already",
        410: f"{server} cannot go on to {asked}: what was read before is too old; it is to be read again",
        429: f"{server} has too much to do to {asked}: it is asked again later",
    }.get(status)
    if what is None and status >= 500:
        what = f"{server} failed to {asked} ({status} {reason}): see its log; it is asked again"
    return KubeFault(
        what
        or f"{server} refused to {asked} ({status} {reason}): see whether the selector, or the object, is as the API wants it",
        status=status,
        reason=reason,
        retry_after=_seconds(retry_after),
    )


def unreachable(asked: ApiQuestion, server: str, why: str) -> KubeFault:
    """There is no connection, or it broke before the answer was there."""
    return KubeFault(
        f"{server} cannot be reached to {asked} ({why}): see that the API server runs, and that the network lets this process"
        " connect to it",
        reason="Unreachable",
    )


def untrusted(asked: ApiQuestion, server: str) -> KubeFault:
    """The server's certificate is not one of those that the configuration trusts."""
    return KubeFault(
        f"{server} cannot be trusted to {asked}: its certificate is not signed by the authority of the configuration, or is for"
        " another name; see the cluster's CA bundle",
        reason="Untrusted",
    )


def timed_out(asked: ApiQuestion, server: str, within: float) -> KubeFault:
    """No answer came in time."""
    return KubeFault(
        f"{server} did not {asked} within {within:g} s: see whether the API server is overloaded or hangs", reason="TimedOut"
    )


def malformed(asked: ApiQuestion, server: str, *, status: int = 200) -> KubeFault:
    """What came is not what this API says."""
    return KubeFault(
        f"{server} answered to {asked} with what is no object of the Kubernetes API: see whether a proxy is between",
        reason="Malformed",
        status=status,
    )


def too_large(asked: ApiQuestion, server: str, limit: int) -> KubeFault:
    """More came than is ever read."""
    return KubeFault(
        f"{server} answered to {asked} with more than {limit // 2**20} MiB: select fewer or smaller objects", reason="TooLarge"
    )


def _seconds(text: Any) -> float | None:
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        return None
    return min(seconds, _WAIT_MAX) if seconds > 0 else None


__all__ = ["ApiQuestion", "KubeFault"]
