"""Trying a credential on its provider: the smallest request that a model answers, and what the answer says of the credential.

No I/O: `probe` sends the request.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.provider import Provider

TOKENS: Final = 8
"""The most that a model is asked to answer."""
LARGEST: Final = 64 << 10
"""Bytes of an answer that are read."""

_QUESTION: Final = "Answer with OK."
_VERSION: Final = {"anthropic-version": "2023-06-01"}
_ONLY_CLAUDE_CODE: Final = "only authorized for use with claude code"


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A request. `headers` hold the credential."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(repr=False)
    method: str = "POST"


_BY_STATUS: Final = {
    401: ProbeResult(Verdict.AUTH, "the provider refused it"),
    402: ProbeResult(Verdict.BILLING, "there is no credit left"),
    403: ProbeResult(Verdict.AUTH, "the provider forbids it this request", sure=False),
    408: ProbeResult(Verdict.TIMEOUT, "the provider gave up waiting"),
    429: ProbeResult(Verdict.RATE_LIMIT, "too many requests, or the quota is used up"),
    503: ProbeResult(Verdict.RATE_LIMIT, "the provider is overloaded"),
    504: ProbeResult(Verdict.TIMEOUT, "the provider gave up waiting"),
    529: ProbeResult(Verdict.RATE_LIMIT, "the provider is overloaded"),
}
_OF_THE_REQUEST: Final = re.compile(r"(?<![a-z])scopes?(?![a-z])|permission|privilege")
_OF_ACCESS: Final = re.compile(
    r"not (?:allowed|authorized|entitled|permitted|licensed) (?:to|for)\b|[a-z]_access_denied|restricted (?:api )?key"
    r"|lacks? (?:the )?required|(?:does not|doesn't|do not|don't) have (?:access|the required)"
)
"""How a 401 says that the credential is good, and this request is too much for it. The second says so only where it does not
also speak of a bad credential."""
_OF_THE_KEY: Final = re.compile(r"invalid|incorrect|revoked|expired|malformed")
_BY_TEXT: Final = (
    (("insufficient credits", "credit balance", "insufficient_quota"), _BY_STATUS[402]),
    (("usage limit", "quota", "too many requests", "rate limit"), _BY_STATUS[429]),
    (("invalid api key", "invalid x-api-key", "api key not valid", "expired"), _BY_STATUS[401]),
)
"""For statuses that say nothing of it themselves."""


def request(provider: Provider, *, model: str, base_url: str, headers: Mapping[str, str]) -> ProbeRequest | None:
    """The smallest request to a model; None where it is not known how to make one."""
    base, messages = base_url.rstrip("/"), [{"role": "user", "content": _QUESTION}]
    body: dict[str, Any]
    match provider.api if base and model else "":
        case "messages":
            url, body = f"{base}/v1/messages", {"model": model, "max_tokens": TOKENS, "messages": messages}
            headers = {**_VERSION, **headers}
        case "openai":
            url, body = f"{base}/chat/completions", {"model": model, "max_completion_tokens": TOKENS, "messages": messages}
        case "chat":
            url, body = f"{base}/chat/completions", {"model": model, "max_tokens": TOKENS, "messages": messages}
        case "gemini":
            url = f"{base}/v1beta/models/{quote(model, safe='')}:generateContent"
            body = {"contents": [{"parts": [{"text": _QUESTION}]}], "generationConfig": {"maxOutputTokens": TOKENS}}
        case _:
            return None
    return ProbeRequest(url, json.dumps(body).encode(), headers)


def cheapest(provider: Provider, *, base_url: str, headers: Mapping[str, str]) -> ProbeRequest | None:
    """The request that costs least and distinguishes a refused credential from a good one; None if none is known.

    Many vendors list their models to every caller: the list is asked for only where it needs a credential."""
    base = base_url.rstrip("/")
    small = request(provider, model=provider.probe_model, base_url=base_url, headers=headers)
    match provider.api if small is not None else "":
        case "messages":
            body = {"model": provider.probe_model, "messages": [{"role": "user", "content": _QUESTION}]}
            return ProbeRequest(f"{base}/v1/messages/count_tokens", json.dumps(body).encode(), {**_VERSION, **headers})
        case "openai":
            return ProbeRequest(f"{base}/models", b"", headers, "GET")
        case "gemini":
            return ProbeRequest(f"{base}/v1beta/models?pageSize=1", b"", headers, "GET")
    return small


def judge(status: int, body: bytes) -> ProbeResult:
    """What an answer says of the credential."""
    text = body[:LARGEST].decode("utf-8", "replace").lower()
    if 200 <= status < 300:
        return ProbeResult(Verdict.OK)
    if _ONLY_CLAUDE_CODE in text:
        why = "rejected: it is only authorized for use with Claude Code; use an Anthropic API key instead"
        return ProbeResult(Verdict.AUTH, why, sure=False)
    if status == 401 and _good_key(text):
        return _BY_STATUS[403]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 404 and "model" in text:
        return ProbeResult(Verdict.NO_MODEL, "the provider does not know the model")
    for words, found in _BY_TEXT:
        if any(word in text for word in words):
            return found
    if status in (400, 404, 405, 413, 422):
        return ProbeResult(Verdict.FORMAT, f"the provider does not take the request ({status})")
    return ProbeResult(Verdict.UNKNOWN, f"the provider answered {status}")


def _good_key(text: str) -> bool:
    """Whether a refusal, in lower case, is of what was asked and not of the credential."""
    if _OF_THE_REQUEST.search(text):
        return True
    return _OF_ACCESS.search(text) is not None and _OF_THE_KEY.search(text) is None
