"""What the broker refuses, as the error class of the vendor's SDK that makes the request.

An SDK reports an exception of another kind as a lost connection, after it has tried again. Its own classes pass unchanged.
"""

import sys
from types import ModuleType
from typing import Any, Final

from equabot_client import errors

_STATUS: Final = {
    errors.InvalidArgument: 400,
    errors.NoUsableProfile: 401,
    errors.ReauthRequired: 401,
    errors.RefreshFailed: 401,
    errors.PolicyDenied: 403,
    errors.DeliveryNotAllowed: 403,
    errors.AgentSuspended: 403,
    errors.BrokerNotTrusted: 403,
    errors.ProviderUnknown: 404,
    errors.ProfileNotFound: 404,
    errors.LeaseLimit: 429,
    errors.RateLimited: 429,
}
"""The status with which a vendor would refuse for such a reason. A reason without one is a failure on the way to the broker."""

_CLASSES: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
}
_TRY_AGAIN: Final = (429,)


def as_vendors(error: errors.EquabotError, request: Any, *, response: Any) -> Exception:
    """The error for who made the request: that of the SDK, with the broker's text, else the error itself. `response` is the
    class of the HTTP library."""
    sdk = _sdk(request.headers)
    if sdk is None:
        return error
    status = _STATUS.get(type(error))
    if status is None:
        lost: Exception = sdk.APIConnectionError(message=error.message, request=request)
        return lost
    detail = {"type": error.reason.lower(), "code": error.reason, "message": error.message}
    headers = {"x-should-retry": "true" if status in _TRY_AGAIN else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    body = {"type": "error", "error": detail}
    answer = response(status, headers=headers, json=body, request=request)
    refused: Exception = getattr(sdk, _CLASSES[status])(
        error.message, response=answer, body=body if sdk.__name__ == "anthropic" else detail
    )
    return refused


def _sdk(headers: Any) -> ModuleType | None:
    """The module of the SDK whose request this is. It names itself, or sends what only it sends."""
    agent = headers.get("user-agent", "").lower()
    if "anthropic" in agent or "anthropic-version" in headers:
        return sys.modules.get("anthropic")
    if "openai" in agent or headers.get("x-stainless-lang") == "python":
        return sys.modules.get("openai")
    return None
