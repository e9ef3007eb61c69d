"""Following the objects of one kind: forever; a list and then a watch, until its history has expired; one stream after another.

The ways of the API are those of https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from equabot_broker.kube._faults import ApiQuestion, KubeFault, malformed, refused
from equabot_broker.kube.api import ApiObject, KubeApi

SILENCE: Final = 75.0
"""Seconds without a byte after which a stream is opened again. A server that lives sends a bookmark about once a minute; of one
that hangs, opening tells after ten seconds more."""

_PAGE: Final = 500
_PAGE_SHRINKS: Final = 8
_ENDS_AFTER: Final = 300.0
_BARREN_MAX: Final = 4
"""Streams in a row without anything in them, not even a bookmark, after which it is listed again: a proxy in between may
open them and keep what they should bring."""
_EXPIRED: Final = frozenset({"Expired", "Gone"})


@dataclass(frozen=True, slots=True)
class ObjectsListed:
    """All objects that there are. They are being watched."""

    objects: tuple[ApiObject, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ObjectPut:
    """An object, new or changed."""

    object: ApiObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """An object is gone, or is selected no more."""

    name: str


@dataclass(frozen=True, slots=True)
class WatchLost:
    """It is not known what happens. The next news is `ObjectsListed`, or another `WatchLost`."""

    fault: KubeFault


WatchEvent = ObjectsListed | ObjectPut | ObjectDeleted | WatchLost


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPace:
    """How time passes. `delays` are the seconds between tries, longer each time and with chance in them; `sleep` waits for so
    many; `chance` returns numbers in [0, 1)."""

    delays: Callable[[], Iterator[float]]
    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]


class Watching:
    """The objects at a path that the parameters select.

    `path` and `within` are asked for once the API is open: the latter may name the path of a namespace, to be missed if it is
    not there, for a list is empty also where there is no namespace. `silence` in seconds.
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
        """First `ObjectsListed` or `WatchLost`, then whatever happens, forever. A stream that another follows is no event."""
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
            # Whoever is asked to wait waits a little longer than asked, and never in step with the others.
            await self._pace.sleep(wanted + next(self._pauses))

    async def _until_expired(self) -> AsyncGenerator[WatchEvent, None]:
        """A list, and what changes after it, until nothing comes any more. Raises KubeFault when it cannot be followed, or the
        server remembers no more."""
        await self._api.open()
        objects, version = await self._list()
        listed: ObjectsListed | None = ObjectsListed(objects)
        barren = 0
        while barren < _BARREN_MAX:
            carried = False
            async with self._api.watch(self._path(), self._from(version), silence=self._silence) as stream:
                if listed is not None:
                    yield listed
                    listed = None
                async for raw in stream:
                    event, version = self._read(raw)
                    carried, self._pauses = True, self._pace.delays()
                    if event is not None:
                        yield event
            self._pauses = self._pace.delays()
            barren = 0 if carried else barren + 1
            if 0 < barren < _BARREN_MAX:  # as behind a proxy that closes what it has opened
                await self._pace.sleep(next(self._pace.delays()))

    def _from(self, version: str) -> ApiObject:
        ends = int(_ENDS_AFTER * (1 + self._pace.chance()))
        follow = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(ends)}
        return self._params | follow

    def _read(self, raw: ApiObject) -> tuple[ObjectPut | ObjectDeleted | None, str]:
        """An event of the stream, and the version up to which it leads. Raises KubeFault where it is an error."""
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
                await self._miss(namespace)
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

    async def _miss(self, namespace: str) -> None:
        """Raises KubeFault where the namespace is known not to be there: not everybody may look."""
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
