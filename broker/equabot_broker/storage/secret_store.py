"""Keeps logins in Secrets of Kubernetes, locked by a Lease and written with their `resourceVersion`.

Implements `storage.login_places.Units`. The Lease prevents concurrent refreshes in most cases; with the `resourceVersion`,
one of two concurrent writes always fails. A write changes only the tokens and the annotations of the broker. If the response
to a write is lost, the Secret is read before the write is repeated.
"""

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.formats.annotations import MODE
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.bundles import FILES
from equabot_broker.formats.secret_logins import CLAUDE_LOGIN, SecretLogins
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault
from equabot_broker.kube.locking import LeaseLock, lease_name
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.ports import Clock, LockedStore, StoreFault

LOCKED_FOR: Final = 45
"""The duration of the Lease in seconds: longer than the timeout of a token endpoint."""
LOCK_WITHIN: Final = 10.0
PATIENCE: Final = 20.0
"""Seconds during which a write that must not get lost is repeated."""

_LEASE: Final = "equabot-refresh"
_WAITS: Final = (0.1, 2.0)
_CERTAIN: Final = frozenset({400, 403, 404, 405, 413, 422})
"""Statuses for which nothing was written, and a repeated write fails too."""
_FULL: Final = (413, 422)


@dataclass(frozen=True, slots=True)
class SecretOptions:
    """Timeouts in seconds. `locked_for` is a whole number. `call_within` is the timeout of one request."""

    locked_for: int = LOCKED_FOR
    lock_within: float = LOCK_WITHIN
    patience: float = PATIENCE
    call_within: float = 10.0


class SecretStores:
    """The Secrets of a namespace; if it is empty, of the namespace of the API client. Units are names of Secrets.

    `holder` identifies this process.
    """

    def __init__(
        self, api: KubeApi, *, namespace: str, clock: Clock, holder: str, options: SecretOptions | None = None
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._holder = holder
        self._options = options or SecretOptions()
        self._locks: dict[str, LeaseLock] = {}
        self._mutexes: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def locked(self, login: Profile) -> AsyncIterator[LockedStore]:
        """The logins of the Secret, locked against other brokers while the context lasts. Raises StoreFault.

        If a write failed, the lock is not released but expires. Until then only this process can acquire it: it has the
        tokens that must be written.
        """
        claude = login.id if login.origin.endswith(f" {CLAUDE_LOGIN}") else ""
        async with self._mutexes.setdefault(login.unit, asyncio.Lock()):
            secret = _Secret(self._api, self._namespace, login.unit, claude, self._options.call_within)
            try:
                await self._api.open()
                secret.namespace = self._namespace or self._api.namespace
                await secret.read()
                lock = self._lock(secret)
                await lock.acquire(within=self._options.lock_within, owner=secret.reference)
            except KubeFault as fault:
                raise secret.unusable("locked for a refresh", fault) from None
            locked = _LockedSecret(secret, lock, clock=self._clock, patience=self._options.patience)
            try:
                await locked.read()
                yield locked
            finally:
                if locked.unsure:
                    lock.abandon()
                else:
                    await lock.release()

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    def _lock(self, secret: "_Secret") -> LeaseLock:
        if secret.name not in self._locks:
            self._locks[secret.name] = LeaseLock(
                self._api,
                lease_name(_LEASE, secret.name),
                namespace=secret.namespace,
                holder=self._holder,
                seconds=self._options.locked_for,
                time=self._clock,
                chance=random.random,
            )
        return self._locks[secret.name]


@dataclass(slots=True)
class _Secret:
    """A Secret as it was last read. `claude` is the profile id of Claude's login in it, or empty."""

    api: KubeApi
    namespace: str
    name: str
    claude: str
    within: float
    found: ApiObject = field(default_factory=dict, repr=False)
    logins: SecretLogins = field(default_factory=lambda: SecretLogins({}, {}))
    document: AuthDocument = field(default_factory=AuthDocument)

    @property
    def reference(self) -> Mapping[str, str]:
        """The owner reference to this Secret."""
        return {"apiVersion": "v1", "kind": "Secret", "name": self.name, "uid": self.found["metadata"]["uid"]}

    async def read(self) -> None:
        """Reads the Secret. Raises KubeFault, and StoreFault for a Secret that cannot be updated."""
        self._adopt(await self.api.get(self._path, timeout=self.within))
        if self.found.get("immutable") is True:
            raise StoreFault(
                f"{self} is immutable, so that its logins cannot be refreshed: move them to a Secret without `immutable`"
            )

    async def write(self, document: AuthDocument) -> None:
        """Writes the Secret if it has not changed since it was read.

        Raises KubeFault, and StoreFault for a document that does not fit into it.
        """
        self._adopt(await self.api.replace(self._path, self._with(document), timeout=self.within))

    def unusable(self, done: str, fault: KubeFault) -> StoreFault:
        """The fault of the store. `done` is the participle of the action that failed."""
        full = "; a Secret holds at most 1 MiB: move some keys to another Secret" if fault.status in _FULL else ""
        return StoreFault(f"{self} cannot be {done}: {fault}{full}")

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name}"

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/{self.name}"

    def _adopt(self, found: ApiObject) -> None:
        try:
            _ = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
            values = {key: base64.b64decode(text) for key, text in (found.get("data") or {}).items() if key in FILES}
            annotations = found["metadata"].get("annotations") or {}
            logins = SecretLogins(values, annotations, self.claude if annotations.get(MODE, "").strip() == Mode.OAUTH else "")
            document = logins.document()
        except Malformed as malformed:
            fault = StoreFault(f"{self}: {malformed}")
        except (AttributeError, LookupError, TypeError, ValueError):
            fault = StoreFault(f"{self}: the response of the API server is not a valid Secret")
        else:
            self.found, self.logins, self.document = found, logins, document
            return
        raise fault

    def _with(self, document: AuthDocument) -> ApiObject:
        try:
            logins = self.logins.replaced(document)
        except Malformed as malformed:
            fault = StoreFault(f"{self}: {malformed}")
        else:
            changed = {key: value for key, value in logins.values.items() if value != self.logins.values.get(key)}
            data = {key: base64.b64encode(value).decode() for key, value in changed.items()}
            metadata = {**self.found["metadata"], "annotations": dict(logins.annotations)}
            return {**self.found, "metadata": metadata, "data": {**(self.found.get("data") or {}), **data}}
        raise fault


class _LockedSecret:
    """Implements `ports.LockedStore`. `unsure`: it is not known whether a write succeeded."""

    def __init__(self, secret: _Secret, lock: LeaseLock, *, clock: Clock, patience: float) -> None:
        self._secret = secret
        self._lock = lock
        self._clock = clock
        self._patience = patience
        self.unsure = False

    @property
    def document(self) -> AuthDocument:
        return self._secret.document

    async def read(self) -> None:
        """Reads the Secret. Raises StoreFault."""
        try:
            await self._secret.read()
        except KubeFault as fault:
            raise self._secret.unusable("read", fault) from None

    async def replace(self, document: AuthDocument) -> None:
        """Writes the document if the logins have not changed since they were read. Raises StoreFault."""
        before = self._secret.document

        def wanted() -> AuthDocument:
            if self._secret.document not in (before, document):
                self.unsure = False
                raise StoreFault(f"{self._secret} changed while it was locked: try again")
            return document

        await self._persist(wanted, partial(self._lock.renew, long=True), reread=False)

    async def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        """Reads, changes and writes the document, and returns it.

        This also works if another process wrote the Secret or acquired the lock. Raises StoreFault.
        """
        self.unsure = True
        await self._persist(lambda: change(self._secret.document), self._renew_if_possible, reread=True)
        return self._secret.document

    async def _persist(self, wanted: Callable[[], AuthDocument], renew: Callable[[], Awaitable[None]], *, reread: bool) -> None:
        """Writes the result of `wanted`, with several attempts.

        If the Secret already has this content, an earlier attempt succeeded and only its response was lost.
        """
        end = self._clock.steady() + self._patience
        for delay in delays(base=_WAITS[0], cap=_WAITS[1], rng=random.random):
            try:
                if reread:
                    await self._secret.read()
                reread = True
                document = wanted()
                if document != self._secret.document:
                    await renew()
                    await self._write(document)
            except KubeFault as fault:
                wait = max(delay, fault.retry_after or 0.0)
                if _is_final(fault) or self._clock.steady() + wait > end:
                    raise self._secret.unusable("written", fault) from None
            else:
                self.unsure = False
                return
            await self._clock.sleep(wait)

    async def _write(self, document: AuthDocument) -> None:
        was, self.unsure = self.unsure, True
        try:
            await self._secret.write(document)
        except KubeFault as fault:
            self.unsure = was or not _is_final(fault)
            raise

    async def _renew_if_possible(self) -> None:
        with suppress(KubeFault):
            await self._lock.renew()


def _is_final(fault: KubeFault) -> bool:
    return fault.status in _CERTAIN or fault.reason in ("Lost", "Unconfigured")
