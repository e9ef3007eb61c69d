"""Watches the objects of one kind: a list, then one stream after another until the history has expired, then a list again.

See https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from equabot_broker.kube._faults import ApiQuestion, KubeFault, malformed, refused
from equabot_broker.kube.api import ApiObject, KubeApi

SILENCE: Final = 75.0
"""Seconds without a byte after which a stream is opened again. A working server sends a bookmark about once a minute. If the
server hangs, the next stream fails ten seconds later."""

_PAGE: Final = 500
_PAGE_SHRINKS: Final = 8
_ENDS_AFTER: Final = 300.0
_EMPTY_STREAMS_MAX: Final = 4
"""Streams in a row without an event or a bookmark, after which the objects are listed again. A proxy in between may open
streams and hold back their content."""
_EXPIRED: Final = frozenset({"Expired", "Gone"})


@dataclass(frozen=True, slots=True)
class ObjectsListed:
    """All objects. The watch has started."""

    objects: tuple[ApiObject, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ObjectPut:
    """An object was created or changed."""

    object: ApiObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """An object was deleted, or the parameters no longer select it."""

    name: str


@dataclass(frozen=True, slots=True)
class WatchLost:
    """Changes are unknown from now on. The next event is `ObjectsListed` or another `WatchLost`."""

    fault: KubeFault


WatchEvent = ObjectsListed | ObjectPut | ObjectDeleted | WatchLost


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPace:
    """Time and chance. `delays` yields seconds between attempts, growing and with jitter; `sleep` waits for seconds;
    `chance` returns numbers in [0, 1)."""

    delays: Callable[[], Iterator[float]]
    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]


class Watching:
    """The objects at a path that the parameters select.

    `path` and `within` are called when the API is open. `within` may return the path of a namespace. If the namespace does
    not exist, the watch is lost: the API returns an empty list for it. `silence` is in seconds.
    """

    def __init__(
        self,
        api: KubeApi,
        path: Callable[[], str],
        *,
        params: Mapping[str, str],
        pace: WatchPace,
        within: Callable[[], str] = str,
        silence: float = SILENCE,
    ) -> None:
        self._api = api
        self._path = path
        self._params = dict(params)
        self._pace = pace
        self._within = within
        self._silence = silence
        self._page = _PAGE
        self._pauses = pace.delays()

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """First `ObjectsListed` or `WatchLost`, then every change, forever. The end of a stream is not an event."""
        begun = True
        while True:
            wanted = 0.0
            try:
                async with aclosing(self._until_expired()) as events:
                    async for event in events:
                        begun = True
                        yield event
            except KubeFault as fault:
                if not (begun and _is_expired(fault)):
                    yield WatchLost(fault)
                begun, wanted = False, fault.retry_after or 0.0
            # The jitter comes on top of the wait that the server asked for, so that clients do not return all at once.
            await self._pace.sleep(wanted + next(self._pauses))

    async def _until_expired(self) -> AsyncGenerator[WatchEvent, None]:
        """A list and the changes after it, until streams stay empty.

        Raises KubeFault if the watch fails or its history has expired.
        """
        await self._api.open()
        objects, version = await self._list()
        listed: ObjectsListed | None = ObjectsListed(objects)
        empty_streams = 0
        while empty_streams < _EMPTY_STREAMS_MAX:
            had_event = False
            async with self._api.watch(self._path(), self._from(version), silence=self._silence) as stream:
                if listed is not None:
                    yield listed
                    listed = None
                async for raw in stream:
                    event, version = self._read(raw)
                    had_event, self._pauses = True, self._pace.delays()
                    if event is not None:
                        yield event
            self._pauses = self._pace.delays()
            empty_streams = 0 if had_event else empty_streams + 1
            if 0 < empty_streams < _EMPTY_STREAMS_MAX:  # a proxy may close each stream at once
                await self._pace.sleep(next(self._pace.delays()))

    def _from(self, version: str) -> ApiObject:
        ends = int(_ENDS_AFTER * (1 + self._pace.chance()))
        follow = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(ends)}
        return self._params | follow

    def _read(self, raw: ApiObject) -> tuple[ObjectPut | ObjectDeleted | None, str]:
        """An event of the stream, and the version after it. Raises KubeFault for an error event."""
        match raw:
            case {"type": "ERROR", "object": {"code": int(code), **told}}:
                raise refused(self._asked("watch"), self._api.server, status=code, word=told.get("reason"))
            case {"type": kind, "object": {"metadata": {"resourceVersion": str(version), **metadata}} as thing}:
                name = metadata.get("name")
                if kind == "BOOKMARK":
                    return None, version
                if kind in ("ADDED", "MODIFIED") and isinstance(name, str):
                    return ObjectPut(thing), version
                if kind == "DELETED" and isinstance(name, str):
                    return ObjectDeleted(name), version
        raise malformed(self._asked("watch"), self._api.server)

    async def _list(self) -> tuple[tuple[ApiObject, ...], str]:
        while True:
            try:
                objects, version = await self._pages()
            except KubeFault as fault:
                if fault.reason != "TooLarge" or self._page == 1:
                    raise
                self._page = max(self._page // _PAGE_SHRINKS, 1)
                continue
            if not objects and (namespace := self._within()):
                await self._check_exists(namespace)
            return objects, version

    async def _pages(self) -> tuple[tuple[ApiObject, ...], str]:
        objects: list[ApiObject] = []
        more: dict[str, str] = {}
        while True:
            page = await self._api.get(self._path(), params={**self._params, "limit": str(self._page), **more})
            match page:
                case {"metadata": {"resourceVersion": str(version), **metadata}, "items": list(items)} if all(
                    map(_named, items)
                ):
                    objects += items
                case _:
                    raise malformed(self._asked("list"), self._api.server)
            if not (rest := metadata.get("continue")):
                return tuple(objects), version
            more = {"continue": str(rest)}

    async def _check_exists(self, namespace: str) -> None:
        """Raises KubeFault if the namespace does not exist. Without permission to read it, nothing is raised."""
        try:
            await self._api.get(namespace)
        except KubeFault as fault:
            if fault.status == 404:
                raise

    def _asked(self, verb: str) -> ApiQuestion:
        return ApiQuestion.of("GET", self._path(), self._params)._replace(verb=verb)


def _is_expired(fault: KubeFault) -> bool:
    return fault.status == 410 or fault.reason in _EXPIRED


def _named(thing: Any) -> bool:
    match thing:
        case {"metadata": {"name": str()}}:
            return True
    return False
