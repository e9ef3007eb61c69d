"""An API server in memory, with what the broker relies on: versions, compare-and-swap, and answers that get lost."""

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault


class MemoryKube(KubeApi):
    """Objects by path. `faults` are those of the next requests, by verb: raised before anything is done, or, in `lost`, after
    it was done. `asked` is what was asked for, as verb and path."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, ApiObject] = {}
        self.faults: dict[str, list[KubeFault]] = {}
        self.lost: dict[str, list[KubeFault]] = {}
        self.asked: list[tuple[str, str]] = []
        self.down: KubeFault | None = None
        self._version = itertools.count(100)

    async def open(self) -> None:
        """There is nothing to load."""

    async def close(self) -> None:
        """Nor to close."""

    async def get(self, path: str, *, params: Mapping[str, str] | None = None, timeout: float = 10.0) -> ApiObject:
        self._begin("get", path)
        return copy.deepcopy(self._found(path))

    async def create(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        self._begin("create", path)
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            raise fault("AlreadyExists", 409)
        self.objects[path] = copy.deepcopy(body)
        self.objects[path]["metadata"]["uid"] = f"uid-{next(self._version)}"
        return self._stored("create", path)

    async def replace(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        self._begin("replace", path)
        found = self._found(path)
        version = body["metadata"].get("resourceVersion")
        if version is not None and version != found["metadata"]["resourceVersion"]:
            raise fault("Conflict", 409)
        self.objects[path] = copy.deepcopy(body)
        return self._stored("replace", path)

    # -- what a person does --------------------------------------------------------------------------------------------

    def put(self, path: str, thing: Mapping[str, Any]) -> None:
        """The object, as it shall be."""
        self.objects[path] = copy.deepcopy(dict(thing))
        self.objects[path].setdefault("metadata", {}).setdefault("uid", f"uid-{next(self._version)}")
        self.touch(path)

    def touch(self, path: str) -> None:
        """It has changed."""
        self.objects[path]["metadata"]["resourceVersion"] = str(next(self._version))

    def _begin(self, verb: str, path: str) -> None:
        self.asked.append((verb, path))
        if self.down is not None:
            raise self.down
        if self.faults.get(verb):
            raise self.faults[verb].pop(0)

    def _found(self, path: str) -> ApiObject:
        if path not in self.objects:
            raise fault("NotFound", 404)
        return self.objects[path]

    def _stored(self, verb: str, path: str) -> ApiObject:
        self.touch(path)
        if self.lost.get(verb):
            raise self.lost[verb].pop(0)
        return copy.deepcopy(self.objects[path])


def fault(reason: str, status: int = 0, *, retry_after: float | None = None) -> KubeFault:
    """A refusal, or with status 0 none at all."""
    return KubeFault(f"the server said {reason}", reason=reason, status=status, retry_after=retry_after)
