"""A lock among processes on many nodes: a Lease of `coordination.k8s.io/v1`, taken and given back by compare-and-swap.

Whether its holder has died is judged without comparing clocks of two nodes, as client-go's leader election does: a Lease that
*we* have seen unchanged for as long as it was taken for has no living holder. Such a judgement can be wrong: a process may have
stood still, or been cut off. So a lock like this keeps others from trying at the same time, and is no proof that nobody does;
what must not happen twice has to be fenced where it is written, by that object's own `resourceVersion`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from equabot_broker.kube._faults import ApiQuestion, malformed
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault

_NAME_MAX: Final = 253
_SECONDS_MAX: Final = 600
_LOOKS: Final = (0.1, 2.0)
"""Seconds between two looks at a lock that somebody else holds: at first, and at most."""
_LETTING_GO: Final = 3.0
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


class Time(Protocol):
    """What a lock needs of a clock: `now` by the wall, for people to read; `steady` never jumps."""

    def now(self) -> float: ...

    def steady(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class LeaseLock:
    """One lock, for one process that goes on using it: what it has seen of the Lease counts for the next attempt as well.

    `holder` is this process and no other. `seconds` (whole ones) is for how long it is taken; whoever holds it calls `keep`
    oftener than that. Not for two tasks at once. `chance` gives numbers in [0, 1).
    """

    def __init__(
        self, api: KubeApi, name: str, *, namespace: str, holder: str, seconds: int, time: Time, chance: Callable[[], float]
    ) -> None:
        self.name = name
        self._api = api
        self._namespace = namespace
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._holder = holder
        self._seconds = seconds
        self._time = time
        self._chance = chance
        self._held: ApiObject | None = None
        self._taken_at = 0.0
        self._other = ""
        self._seen = ""
        self._seen_at = 0.0
        # A server that is slower than that may keep its holder from renewing it.
        self._within = min(10.0, seconds / 4)

    async def take(self, *, within: float, owner: Mapping[str, str] | None = None) -> None:
        """Takes it, waiting so many seconds where somebody has it. `owner` is the object with which a new Lease shall go.

        Raises KubeFault (Locked) after that, and any other at once.
        """
        end = self._time.steady() + within
        for wait in self._waits():
            if await self._try(owner):
                return
            if self._time.steady() + wait > end:
                raise KubeFault(
                    f"the lease {self.name} in namespace {self._namespace} is held by {self._other or 'another process'}: it is"
                    f" tried again, and taken over {self._seconds} s after a sign of life",
                    reason="Locked",
                )
            await self._time.sleep(wait)

    async def keep(self, *, long: bool = False) -> None:
        """Makes sure that it is still held. Costs nothing within a third of the time it was taken for; within a ninth, where
        what follows takes `long`, and nobody asks meanwhile. Raises KubeFault: Lost where somebody else has it, any other where
        that cannot be told."""
        if self._time.steady() - self._taken_at < self._seconds / (9 if long else 3):
            return
        if not await self._try(None):
            self._held = None
            raise KubeFault(
                f"the lease {self.name} in namespace {self._namespace} was taken over by {self._other or 'another process'},"
                " for this process gave no sign of life",
                reason="Lost",
            )

    async def give_back(self) -> None:
        """Lets the next one have it. What cannot be given back ends by itself."""
        held, self._held = self._held, None
        if held is None:
            return
        spec = {key: value for key, value in _spec(held).items() if key != "holderIdentity"}
        body = {**held, "spec": spec | {"renewTime": self._micro_time()}}
        try:
            await self._api.replace(f"{self._leases}/{self.name}", body, timeout=_LETTING_GO)
        except KubeFault:
            return

    def leave(self) -> None:
        """Lets it end by itself: until then nobody else has it, and this process may take it again."""
        self._held = None

    async def _try(self, owner: Mapping[str, str] | None) -> bool:
        """Whether it is ours now. A fault says nothing about its holder, who may have been cut off as well: from then on it has
        all the time again."""
        began = self._time.steady()
        try:
            found = await self._find()
            if found is not None and not self._free(found):
                return False
            writing = (
                self._api.create(self._leases, self._body(self._new(owner)), timeout=self._within)
                if found is None
                else self._api.replace(f"{self._leases}/{self.name}", self._body(found), timeout=self._within)
            )
            self._held = self._lease(await writing)
        except KubeFault as fault:
            if fault.status == _CONFLICT:
                return False
            self._seen = ""
            raise
        self._taken_at = began
        return True

    async def _find(self) -> ApiObject | None:
        try:
            return self._lease(await self._api.get(f"{self._leases}/{self.name}", timeout=self._within))
        except KubeFault as fault:
            if fault.status != _NOT_FOUND:
                raise
            return None

    def _lease(self, found: ApiObject) -> ApiObject:
        """The Lease. Raises KubeFault where something else answers in the server's place."""
        match found:
            case {"metadata": {"resourceVersion": str()}}:
                return found
        raise malformed(ApiQuestion("get", "leases", self.name, self._namespace), self._api.server)

    def _free(self, found: ApiObject) -> bool:
        spec = _spec(found)
        holder, version = spec.get("holderIdentity") or "", found["metadata"]["resourceVersion"]
        if holder in ("", self._holder):
            return True
        now = self._time.steady()
        if version != self._seen:
            self._other, self._seen, self._seen_at = str(holder)[:100], version, now
        promised = spec.get("leaseDurationSeconds")
        lasts = promised if isinstance(promised, int) and 0 < promised <= _SECONDS_MAX else self._seconds
        return now - self._seen_at > lasts

    def _new(self, owner: Mapping[str, str] | None) -> ApiObject:
        metadata: ApiObject = {"name": self.name, "namespace": self._namespace}
        metadata["labels"] = {"app.kubernetes.io/managed-by": "equabot-broker"}
        if owner is not None:
            metadata["ownerReferences"] = [dict(owner)]
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}

    def _body(self, found: ApiObject) -> ApiObject:
        """The Lease, taken by us. Everything else in it stays."""
        spec, at = _spec(found), self._micro_time()
        ours = spec.get("holderIdentity") == self._holder
        moved = spec.get("leaseTransitions")
        taken = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._seconds,
            "acquireTime": spec.get("acquireTime", at) if ours else at,
            "renewTime": at,
            "leaseTransitions": (moved if isinstance(moved, int) else -1) + (not ours),
        }
        return {**found, "spec": {**spec, **taken}}

    def _micro_time(self) -> str:
        return datetime.fromtimestamp(self._time.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _waits(self) -> Iterator[float]:
        ceiling, most = _LOOKS
        while True:
            yield ceiling * (0.5 + 0.5 * self._chance())
            ceiling = min(ceiling * 2, most)


def _spec(lease: ApiObject) -> dict[str, Any]:
    found = lease.get("spec")
    return found if isinstance(found, dict) else {}


def lease_name(prefix: str, name: str) -> str:
    """`<prefix>-<name>` as an object may be called: a long one ends in a digest in place of its tail (RFC 1123)."""
    whole = f"{prefix}-{name}"
    if len(whole) <= _NAME_MAX:
        return whole
    mark = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{whole[: _NAME_MAX - 17].rstrip('-.')}-{mark}"
