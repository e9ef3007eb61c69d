"""The Kubernetes API as raw JSON, over the asyncio client of the `kubernetes` package. `open` imports that client.

The generated models of the package are not used: they cost memory, and drop fields that they do not know.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from equabot_broker.kube._client import MOUNTED, import_client, load
from equabot_broker.kube._faults import KubeFault, timed_out
from equabot_broker.kube._transport import ApiObject, ApiRequest, Transport

if TYPE_CHECKING:
    import aiohttp

_OPEN_WITHIN: Final = 10.0
_MERGE_PATCH: Final = "application/merge-patch+json"


class KubeApi:
    """A client of one API server, with one account. Durations are in seconds. Methods raise only KubeFault.

    Without a kubeconfig the client uses the service account of the pod. It ignores the variable KUBECONFIG. It reads a
    rotated token again. If the server refuses the token (401), or its certificate is not trusted, the client loads the
    configuration again and repeats the request once. It repeats no other request: the caller decides that.
    """

    def __init__(self, *, kubeconfig: Path | None = None, mounted: Path = MOUNTED) -> None:
        self._kubeconfig = kubeconfig
        self._mounted = mounted
        self._transport: Transport | None = None
        self._namespace = "default"
        self._loading = asyncio.Lock()

    async def open(self) -> None:
        """Loads the configuration, without a request. The other methods do this too. Raises KubeFault (Unconfigured)."""
        await self._opened()

    async def close(self) -> None:
        """Closes the connections. The client can be opened again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    @property
    def namespace(self) -> str:
        """The namespace of the pod, or of the kubeconfig's context. Before `open` it is `default`."""
        return self._namespace

    @property
    def server(self) -> str:
        """The server's URL; empty before `open`."""
        return "" if self._transport is None else self._transport.server

    async def get(self, path: str, *, params: Mapping[str, str] | None = None, timeout: float = 10.0) -> ApiObject:
        """Reads an object or a list."""
        return await self._call(ApiRequest("GET", path, params or {}), timeout)

    async def create(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        """Creates an object and returns it. `path` is the path of its kind."""
        return await self._call(ApiRequest("POST", path, {}, body), timeout)

    async def replace(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        """Replaces an object and returns it. Raises Conflict if the body's `resourceVersion` is not the current one."""
        return await self._call(ApiRequest("PUT", path, {}, body), timeout)

    async def patch(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        """Applies a merge patch (RFC 7396) and returns the object. Raises Conflict like `replace` if the body has a version."""
        return await self._call(ApiRequest("PATCH", path, {}, body, _MERGE_PATCH), timeout)

    async def delete(self, path: str, *, timeout: float = 10.0) -> None:
        """Deletes an object. Raises NotFound if there is no such object."""
        await self._call(ApiRequest("DELETE", path, {}), timeout)

    @asynccontextmanager
    async def watch(self, path: str, params: Mapping[str, str], *, silence: float) -> AsyncIterator[AsyncIterator[ApiObject]]:
        """One stream of events (`{"type": …, "object": …}`). It is open when the context is entered.

        It ends when the server ends it, when the connection breaks, or after `silence` seconds without a byte. The end does
        not show whether the server works. Opening the next stream shows it within ten seconds.
        """
        request = ApiRequest("GET", path, {**params, "watch": "true"})
        transport = await self._opened()
        response = await self._sent(transport, request, within=_OPEN_WITHIN, silence=silence)
        try:
            yield transport.lines(response, request.asked)
        finally:
            response.close()

    async def _call(self, request: ApiRequest, within: float) -> ApiObject:
        transport = await self._opened()
        try:
            async with asyncio.timeout(within):
                response = await self._sent(transport, request, within=within)
                try:
                    return await transport.read(response, request.asked)
                finally:
                    response.release()
        except TimeoutError:
            raise timed_out(request.asked, transport.server, within) from None

    async def _sent(
        self, transport: Transport, request: ApiRequest, *, within: float, silence: float | None = None
    ) -> "aiohttp.ClientResponse":
        token = await transport.token()
        try:
            return await transport.send(request, within=within, silence=silence)
        except KubeFault as fault:
            if fault.status != 401 and fault.reason != "Untrusted":
                raise
        async with self._loading:
            if await transport.token() == token:  # else another task was faster
                configuration, _ = await load(self._kubeconfig, mounted=self._mounted)
                transport.adopt(configuration)
        return await transport.send(request, within=within, silence=silence)

    async def _opened(self) -> Transport:
        async with self._loading:
            if self._transport is None:
                await asyncio.to_thread(import_client)
                configuration, self._namespace = await load(self._kubeconfig, mounted=self._mounted)
                try:
                    self._transport = Transport(configuration)
                except (OSError, ValueError):
                    raise KubeFault(
                        f"the certificates in {self._kubeconfig or self._mounted} cannot be used: check that they are complete"
                        " and in PEM format",
                        reason="Unconfigured",
                    ) from None
            return self._transport


__all__ = ["ApiObject", "KubeApi", "KubeFault"]
