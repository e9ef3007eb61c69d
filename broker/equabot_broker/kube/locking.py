"""A lock for processes on several nodes: a Lease of `coordination.k8s.io/v1`, acquired and released by compare-and-swap.

A holder is dead when this process has seen its Lease unchanged for the whole duration of the Lease. Clocks of two nodes are
never compared. Leader election in client-go uses the same rule. The rule can be wrong: the holder may have been paused, or
disconnected. The lock therefore reduces concurrent attempts, but does not exclude them. A write that must not happen twice
needs a fence of its own: the `resourceVersion` of the object that is written.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from equabot_broker.kube._faults import ApiQuestion, malformed
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault

_NAME_MAX: Final = 253
_SECONDS_MAX: Final = 600
_DELAYS: Final = (0.1, 2.0)
"""Seconds between two attempts at a lock that another process holds: the first delay, and the longest."""
_RELEASE_WITHIN: Final = 3.0
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


class Time(Protocol):
    """The clock of a lock: `now` is wall-clock time, for display only; `steady` is monotonic."""

    def now(self) -> float: ...

    def steady(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class LeaseLock:
    """One lock of one process. It remembers the Lease that it saw between two attempts.

    `holder` identifies this process. `seconds`, a whole number, is the duration of the Lease: the holder calls `renew` more
    often than that. Two tasks must not use the lock at once. `chance` returns numbers in [0, 1).
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
        # A slower response could prevent the holder from renewing the Lease in time.
        self._within = min(10.0, seconds / 4)

    async def acquire(self, *, within: float, owner: Mapping[str, str] | None = None) -> None:
        """Acquires the lock. If another process holds it, this waits for at most `within` seconds.

        `owner` becomes the owner reference of a new Lease. Raises KubeFault (Locked) after the wait, any other at once.
        """
        end = self._time.steady() + within
        for wait in self._waits():
            if await self._try(owner):
                return
            if self._time.steady() + wait > end:
                raise KubeFault(
                    f"the lease {self.name} in namespace {self._namespace} is held by {self._other or 'another process'}: the"
                    f" broker tries again, and takes it over {self._seconds} s after its last renewal",
                    reason="Locked",
                )
            await self._time.sleep(wait)

    async def renew(self, *, long: bool = False) -> None:
        """Renews the lock if a third of its duration has passed, or a ninth if the next step takes `long`.

        Before that it makes no request. Raises KubeFault: Lost if another process holds the lock, any other if the state of
        the lock is unknown.
        """
        if self._time.steady() - self._taken_at < self._seconds / (9 if long else 3):
            return
        if not await self._try(None):
            self._held = None
            raise KubeFault(
                f"the lease {self.name} in namespace {self._namespace} was taken over by {self._other or 'another process'}:"
                " this process did not renew it in time",
                reason="Lost",
            )

    async def release(self) -> None:
        """Releases the lock. If the request fails, the Lease expires."""
        held, self._held = self._held, None
        if held is None:
            return
        spec = {key: value for key, value in _spec(held).items() if key != "holderIdentity"}
        body = {**held, "spec": spec | {"renewTime": self._micro_time()}}
        try:
            await self._api.replace(f"{self._leases}/{self.name}", body, timeout=_RELEASE_WITHIN)
        except KubeFault:
            return

    def abandon(self) -> None:
        """Does not release the lock: the Lease expires. Until then only this process can acquire it."""
        self._held = None

    async def _try(self, owner: Mapping[str, str] | None) -> bool:
        """Acquires or renews the Lease, and returns whether this process holds it.

        After a fault the holder gets its full duration again: it may have been disconnected as well.
        """
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
        """The Lease. Raises KubeFault if the response is not an object with a version."""
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
        """The Lease with this process as its holder. All other fields stay."""
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
        ceiling, most = _DELAYS
        while True:
            yield ceiling * (0.5 + 0.5 * self._chance())
            ceiling = min(ceiling * 2, most)


def _spec(lease: ApiObject) -> dict[str, Any]:
    found = lease.get("spec")
    return found if isinstance(found, dict) else {}


def lease_name(prefix: str, name: str) -> str:
    """`<prefix>-<name>` as a valid object name (RFC 1123). The end of a name that is too long becomes a digest."""
    whole = f"{prefix}-{name}"
    if len(whole) <= _NAME_MAX:
        return whole
    mark = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{whole[: _NAME_MAX - 17].rstrip('-.')}-{mark}"
