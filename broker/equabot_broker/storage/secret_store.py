"""Secrets of Kubernetes as stores of logins: locked by a Lease, written with their `resourceVersion`. Fulfils
`storage.login_places.Units`.

The Lease keeps brokers from trying at the same time; the `resourceVersion` makes sure that of two which do, one fails. Nothing
in the Secret changes but the tokens and our annotations, and a write whose answer was lost is looked for before it is repeated.
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
"""Seconds for which a Secret is locked at a time: longer than a token endpoint may take to answer."""
LOCK_WITHIN: Final = 10.0
PATIENCE: Final = 20.0
"""Seconds for which a write is tried again that must not get lost."""

_LEASE: Final = "equabot-refresh"
_WAITS: Final = (0.1, 2.0)
_CERTAIN: Final = frozenset({400, 403, 404, 405, 413, 422})
"""Answers after which a write has not happened, and will not if it is repeated."""


_FULL: Final = (413, 422)


@dataclass(frozen=True, slots=True)
class SecretOptions:
    """How long things may take, in seconds; `locked_for` in whole ones. `call_within` is for one request."""

    locked_for: int = LOCKED_FOR
    lock_within: float = LOCK_WITHIN
    patience: float = PATIENCE
    call_within: float = 10.0


class SecretStores:
    """The Secrets of a namespace (empty: that of the API's configuration). Units are their names. `holder` names this process
    and no other."""

    def __init__(
        self, api: KubeApi, *, namespace: str, clock: Clock, holder: str, options: SecretOptions | None = None
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._holder = holder
        self._options = options or SecretOptions()
        self._locks: dict[str, LeaseLock] = {}
        self._doors: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def locked(self, login: Profile) -> AsyncIterator[LockedStore]:
        """The Secret's logins, which no other broker refreshes while the context lasts. Raises StoreFault.

        A lock under which something could not be written is not given back: until it ends only this process may have it, which
        knows what is to be written.
        """
        claude = login.id if login.origin.endswith(f" {CLAUDE_LOGIN}") else ""
        async with self._doors.setdefault(login.unit, asyncio.Lock()):
            secret = _Secret(self._api, self._namespace, login.unit, claude, self._options.call_within)
            try:
                await self._api.open()
                secret.namespace = self._namespace or self._api.namespace
                await secret.read()
                lock = self._lock(secret)
                await lock.take(within=self._options.lock_within, owner=secret.reference)
            except KubeFault as fault:
                raise secret.unusable("locked for a refresh", fault) from None
            held = _Held(secret, lock, clock=self._clock, patience=self._options.patience)
            try:
                await held.read()
                yield held
            finally:
                if held.unsure:
                    lock.leave()
                else:
                    await lock.give_back()

    async def close(self) -> None:
        """Ends its connections."""
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
    """A Secret as it was read last. `claude` is what Claude's login in it is called, where that is asked for."""

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
        """What an object says that shall go with it."""
        return {"apiVersion": "v1", "kind": "Secret", "name": self.name, "uid": self.found["metadata"]["uid"]}

    async def read(self) -> None:
        """Raises KubeFault, and StoreFault for a Secret whose logins cannot be kept fresh."""
        self._hold(await self.api.get(self._path, timeout=self.within))
        if self.found.get("immutable") is True:
            raise StoreFault(
                f"{self} is immutable, so that the logins in it cannot be refreshed: put them into a Secret without `immutable`"
            )

    async def write(self, document: AuthDocument) -> None:
        """Writes it, if nobody else has since it was read. Raises KubeFault, and StoreFault for what it cannot hold."""
        self._hold(await self.api.replace(self._path, self._with(document), timeout=self.within))

    def unusable(self, done: str, fault: KubeFault) -> StoreFault:
        """The fault of a store."""
        full = "; a Secret has room for 1 MiB: move some of it into another" if fault.status in _FULL else ""
        return StoreFault(f"{self} cannot be {done}: {fault}{full}")

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name}"

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/{self.name}"

    def _hold(self, found: ApiObject) -> None:
        try:
            _ = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
            values = {key: base64.b64decode(text) for key, text in (found.get("data") or {}).items() if key in FILES}
            annotations = found["metadata"].get("annotations") or {}
            logins = SecretLogins(values, annotations, self.claude if annotations.get(MODE, "").strip() == Mode.OAUTH else "")
            document = logins.document()
        except Malformed as malformed:
            fault = StoreFault(f"{self}: {malformed}")
        except (AttributeError, LookupError, TypeError, ValueError):
            fault = StoreFault(f"{self}: what the API server gives is not as Kubernetes keeps it")
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


class _Held:
    """Fulfils `ports.LockedStore`. `unsure`: something may have been written, or not."""

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
        """Reads it. Raises StoreFault."""
        try:
            await self._secret.read()
        except KubeFault as fault:
            raise self._secret.unusable("read", fault) from None

    async def replace(self, document: AuthDocument) -> None:
        """Writes it, if nobody has changed the logins since they were read. Raises StoreFault."""
        before = self._secret.document

        def wanted() -> AuthDocument:
            if self._secret.document not in (before, document):
                self.unsure = False
                raise StoreFault(f"{self._secret} was changed while it was locked: try again")
            return document

        await self._persist(wanted, partial(self._lock.keep, long=True), reread=False)

    async def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        """Reads it again, changes it, writes it, and returns it: whoever writes meanwhile, and whoever has the lock by now.
        Raises StoreFault."""
        self.unsure = True
        await self._persist(lambda: change(self._secret.document), self._keep_if_possible, reread=True)
        return self._secret.document

    async def _persist(self, wanted: Callable[[], AuthDocument], keep: Callable[[], Awaitable[None]], *, reread: bool) -> None:
        """Writes what is wanted of what is there. Whoever reads what it wanted to write has written it: that is how an answer
        is found that was lost on its way."""
        end = self._clock.steady() + self._patience
        for delay in delays(base=_WAITS[0], cap=_WAITS[1], rng=random.random):
            try:
                if reread:
                    await self._secret.read()
                reread = True
                document = wanted()
                if document != self._secret.document:
                    await keep()
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

    async def _keep_if_possible(self) -> None:
        with suppress(KubeFault):
            await self._lock.keep()


def _is_final(fault: KubeFault) -> bool:
    return fault.status in _CERTAIN or fault.reason in ("Lost", "Unconfigured")
