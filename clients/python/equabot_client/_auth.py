"""What a request to a provider needs of a credential, for any HTTP library of httpx's form."""

import json
import logging
import re
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final

from equabot_client import errors
from equabot_client._clock import steady
from equabot_client._lease import Answered, Lease, Outcome
from equabot_client._vendor_errors import as_vendors
from equabot_client.aio.credential import AsyncCredential
from equabot_client.credential import Credential

_log: Final = logging.getLogger("equabot_client")

_CREDENTIAL_HEADERS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where SDKs put keys of their own."""

_LIST_HEADERS: Final = frozenset({"anthropic-beta", "openai-beta"})
"""What the lease says here is added to what the SDK says."""

_OUTCOMES: Final = {
    401: Outcome.AUTH,
    402: Outcome.BILLING,
    403: Outcome.AUTH,
    408: Outcome.TIMEOUT,
    429: Outcome.RATE_LIMIT,
    529: Outcome.RATE_LIMIT,
}
_SPEAK_OF_BILLING: Final = (400, 403)
_BILLING: Final = ("credit balance", "insufficient credits")
_READ: Final = (*_SPEAK_OF_BILLING, 401)
_OF_THE_REQUEST: Final = re.compile(r"\bscopes?\b|insufficient.scope|permission", re.IGNORECASE)
"""How a 401 says that the credential is good, and this request is too much for it."""
_BODY_MOST: Final = 8 << 20
_NAME_MOST: Final = 256


class AuthFlow:
    """One request, or two: the second when the broker has other material after the first was refused.

    The key travels beside the request's headers rather than in them: a redirect to another host, a log of the headers and a
    traceback do not get to see it.
    """

    carrying: ClassVar[Any]
    """The library's Headers, with a second argument for what only the wire sees."""
    response: ClassVar[Any]
    """The library's Response."""

    def __init__(self, credential: Credential | AsyncCredential, *, origins: Iterable[str] = ()) -> None:
        """`origins` (`https://host:port`) are trusted with the key beside that of the lease's `base_url`."""
        self._credential = credential
        self._origins = tuple(origins)
        self._failed: Lease | None = None
        self._warned: set[tuple[str, str, int | None]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self._credential!r}>"

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """For the library's Client."""
        credential, shown = self._credential, request.headers
        if isinstance(credential, AsyncCredential):
            raise TypeError("a Client needs a credential of equabot_client.connect(), an AsyncClient one of .aio.connect()")
        for last in (False, True):
            try:
                lease = credential.lease()
            except errors.EquabotError as error:
                raise as_vendors(error, request, response=self.response) from None
            self._carry(request, shown, lease)
            began = steady()
            response = yield request
            if self._lost_key(response, lease):
                self._carry(response.request, response.request.headers, lease)
                response = yield response.request
            if response.status_code in _READ:
                response.read()
            outcome = self._outcome(response, lease)
            if outcome is None:
                return
            try:
                changed = credential.report(outcome, lease=lease, **_answered(request, response, began))
            except errors.EquabotError as error:
                changed = _unreported(error)
            if last or not changed or not _can_repeat(request):
                return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """For the library's AsyncClient."""
        credential, shown = self._credential, request.headers
        if isinstance(credential, Credential):
            raise TypeError("an AsyncClient needs a credential of equabot_client.aio.connect(), a Client one of .connect()")
        for last in (False, True):
            try:
                lease = await credential.lease()
            except errors.EquabotError as error:
                raise as_vendors(error, request, response=self.response) from None
            self._carry(request, shown, lease)
            began = steady()
            response = yield request
            if self._lost_key(response, lease):
                self._carry(response.request, response.request.headers, lease)
                response = yield response.request
            if response.status_code in _READ:
                await response.aread()
            outcome = self._outcome(response, lease)
            if outcome is None:
                return
            try:
                changed = await credential.report(outcome, lease=lease, **_answered(request, response, began))
            except errors.EquabotError as error:
                changed = _unreported(error)
            if last or not changed or not _can_repeat(request):
                return

    def _carry(self, request: Any, shown: Any, lease: Lease) -> None:
        """Gives the request the lease's headers in place of the SDK's, where it goes to a place that may see them."""
        if not self._is_trusted(request.url, lease):
            self._warn(request.url, lease)
            return
        shown, hidden = type(shown)(shown), {}
        for name in _CREDENTIAL_HEADERS:
            shown.pop(name, None)
        for name, value in lease.headers.items():
            if name.lower() in _LIST_HEADERS:
                said = [word.strip() for word in shown.get(name, "").split(",") if word.strip()]
                shown[name] = ",".join(dict.fromkeys([*said, *value.split(",")]))
            else:
                shown.pop(name, None)
                hidden[name] = value
        request.headers = self.carrying(shown, hidden)

    def _lost_key(self, response: Any, lease: Lease) -> bool:
        """A redirect loses the key. Where it leads to a place that may see it, the request is made again with it."""
        request = response.request
        keyless = not isinstance(request.headers, self.carrying)
        return keyless and response.status_code in (401, 403) and self._is_trusted(request.url, lease)

    def _outcome(self, response: Any, lease: Lease) -> Outcome | None:
        """What to tell the broker: a failure, or the first success after one."""
        if not isinstance(response.request.headers, self.carrying):
            return None  # whoever answered has not seen the key
        status = response.status_code
        if status in _SPEAK_OF_BILLING and any(words in response.text.lower() for words in _BILLING):
            outcome: Outcome | None = Outcome.BILLING
        else:
            outcome = _OUTCOMES.get(status)
        if outcome is not None:
            self._failed = lease
        elif response.is_success and lease.same_material(self._failed):
            outcome, self._failed = Outcome.OK, None
        return outcome

    def _is_trusted(self, url: Any, lease: Lease) -> bool:
        return _origin(url) in (_origin(type(url)(text)) for text in (lease.base_url, *self._origins) if text)

    def _warn(self, url: Any, lease: Lease) -> None:
        origin = _origin(url)
        if origin not in self._warned:
            self._warned.add(origin)
            _log.warning(
                "a request to %s://%s goes without the key: the lease on %s is for %s; to trust it, name it in `origins`",
                *(origin[0], url.netloc.decode("ascii", "replace").rpartition("@")[2]),
                *(lease.profile, lease.base_url or "no fixed address"),
            )


def _answered(request: Any, response: Any, began: float) -> Answered:
    """What a report says of the answer beside its outcome. `began`: the steady instant at which the request was made."""
    status = response.status_code
    return Answered(
        retry_after=retry_after(response.headers),
        model=_model(request),
        elapsed=timedelta(seconds=max(steady() - began, 0.0)),
        about_request=status == 403 or (status == 401 and _OF_THE_REQUEST.search(response.text) is not None),
    )


def _model(request: Any) -> str | None:
    """The model that a request's JSON names, as most vendors have it."""
    if not _can_repeat(request) or not 0 < len(request.content) <= _BODY_MOST:
        return None
    try:
        body = json.loads(request.content)
    except (ValueError, RecursionError):
        return None
    name = body.get("model") if isinstance(body, dict) else None
    return name if isinstance(name, str) and name.isprintable() and len(name) <= _NAME_MOST else None


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """What a provider's answer says of when to come again; None where it says nothing that makes sense."""
    text = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if text[0] is not None:
            wait = timedelta(milliseconds=float(text[0]))
        elif text[1] is not None:
            wait = _until(text[1])
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return max(wait, timedelta())


def _until(text: str) -> timedelta:
    """RFC 9110, 10.2.3: seconds, or a date."""
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)


def _unreported(error: errors.EquabotError) -> bool:
    """The provider's answer matters more to the caller than that the broker was not told of it."""
    _log.debug("an outcome was not reported: %s", error)
    return False


def _can_repeat(request: Any) -> bool:
    """A body that is a stream has gone with the first try: reading it raises a RuntimeError of the library's own."""
    try:
        return request.content is not None
    except RuntimeError:
        return False


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
