"""A credential for every client built on `httpx2`, and so for the SDKs that are. Those on `httpx`: `equabot_client.httpx`.

httpx2.Client(auth=EquabotAuth(credential))
"""

from collections.abc import Mapping

import httpx2

from equabot_client._auth import AuthFlow

__all__ = ["EquabotAuth"]


class _Carrying(httpx2.Headers):
    """Headers, and beside them what only the wire gets to see. A copy, as a redirect makes one, does not have the latter."""

    def __init__(self, shown: httpx2.Headers, hidden: Mapping[str, str]) -> None:
        super().__init__(shown)
        self._hidden = httpx2.Headers(hidden)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        return [*super().raw, *self._hidden.raw]

    def __repr__(self) -> str:
        return repr(httpx2.Headers(self))


class EquabotAuth(AuthFlow, httpx2.Auth):
    """Gives requests to the lease's `base_url` its headers in place of the SDK's own, tells the broker of 401, 402, 403, 408,
    429 and 529, and tries once more when the broker answers with other material. A request to any other place is left as it
    is, unless its origin is among `origins`. What the broker refuses is raised as the SDK's own error (`anthropic`, `openai`),
    and as EquabotError with other programs.

    An `httpx2.Client` takes a credential of `equabot_client.connect()`, an `AsyncClient` one of `equabot_client.aio.connect()`.
    """

    carrying = _Carrying
    response = httpx2.Response
