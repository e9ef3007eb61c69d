"""Checks tokens against the cluster's published signing keys.

It calls the API server for keys only, not for each token. It cannot see that an account or a pod was deleted, so a token is
valid until it expires. The key determines the algorithm; a token only selects a key.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from equabot_broker.domain.errors import IdentityUnchecked, Unidentified
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.identity._signing_keys import Verify, usable
from equabot_broker.identity.account_tokens import AccountToken
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault
from equabot_broker.ports import Clock

_log: Final = logging.getLogger(__name__)

_DISCOVERY: Final = "/.well-known/openid-configuration"
_KEYS: Final = "/openid/v1/jwks"
_ANSWERS_WITHIN: Final = 3.0
_AGAIN_AFTER: Final = 300.0
"""Seconds after which the keys are read again, so that a withdrawn key ends."""
_SOONEST: Final = 5.0
"""Seconds between two reads, however many tokens name unknown keys."""
_KEPT_FOR: Final = 3600.0
"""Seconds for which the last keys are used while they cannot be read again."""
_LARGEST: Final = 256 << 10


class KeysUnread(Exception):
    """The keys cannot be read: what was asked, what is wrong, what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The issuer of tokens, and its JSON Web Key Set."""

    issuer: str
    keys: Mapping[str, Any]


class Publisher(Protocol):
    """The place where a cluster's keys are published."""

    async def read(self) -> Published:
        """The present keys. Answers within seconds. Raises KeysUnread."""


class PublishedKeys:
    """A `Check` by signature, issuer and times. It reads nothing before the first token."""

    def __init__(self, publisher: Publisher, *, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._reading = asyncio.Lock()
        self._issuer = ""
        self._keys: Mapping[tuple[str, str], Verify] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._fault = ""

    async def account(self, said: AccountToken) -> str:
        """The account in the token, after the signature shows that the cluster issued the token."""
        wanted = (said.key_id, said.algorithm)
        if self._is_due(wanted):
            async with self._reading:
                if self._is_due(wanted):
                    await self._read()
        self._check_age()
        verify = self._keys.get(wanted)
        if verify is None:
            if self._fault:
                raise self._unchecked()
            raise Unidentified(
                "the token is signed with an unknown key: it is from another cluster, or older than the cluster's present keys"
            )
        if said.issuer != self._issuer or not verify(*said.signed()):
            raise Unidentified("this cluster did not issue the token: send a token of this cluster")
        said.check_times(self._clock.now())
        return said.account

    def _is_due(self, wanted: tuple[str, str]) -> bool:
        now = self._clock.steady()
        if self._tried_at is not None and now < self._tried_at + _SOONEST:
            return False
        return self._read_at is None or now >= self._read_at + _AGAIN_AFTER or wanted not in self._keys

    async def _read(self) -> None:
        try:
            found = await self._publisher.read()
        except KeysUnread as unread:
            if str(unread) != self._fault:
                _log.warning("the keys that sign service-account tokens cannot be read: %s", unread)
            self._fault = str(unread)
        else:
            self._issuer, self._keys, self._fault = found.issuer, usable(found.keys), ""
            self._read_at = self._clock.steady()
        self._tried_at = self._clock.steady()

    def _check_age(self) -> None:
        if self._read_at is None or self._clock.steady() >= self._read_at + _AGAIN_AFTER + _KEPT_FOR:
            raise self._unchecked()

    def _unchecked(self) -> IdentityUnchecked:
        return IdentityUnchecked(f"service-account tokens cannot be checked now: {self._fault}", retry_after=_SOONEST)


class KeysOfApi:
    """The keys that an API server publishes (RBAC: ClusterRole `system:service-account-issuer-discovery`, which every service
    account has by default). `issuer` overrides the issuer that it names."""

    def __init__(self, api: KubeApi, *, issuer: str = "") -> None:
        self._api = api
        self._issuer = issuer

    async def read(self) -> Published:
        """The keys, by two calls, or by one if the issuer is known."""
        issuer = self._issuer or (await self._read(_DISCOVERY)).get("issuer")
        keys = await self._read(_KEYS)
        if not isinstance(issuer, str) or not issuer:
            raise KeysUnread(f"the API server names no issuer at {_DISCOVERY}: configure it")
        return Published(issuer=issuer, keys=keys)

    async def _read(self, path: str) -> ApiObject:
        try:
            return await self._api.get(path, timeout=_ANSWERS_WITHIN)
        except KubeFault as fault:
            unread = KeysUnread(f"{path}: {fault}")
        raise unread


class KeysOfFile:
    """Keys in a file, in the form of `kubectl get --raw /openid/v1/jwks`."""

    def __init__(self, path: Path, *, issuer: str) -> None:
        self._path = path
        self._issuer = issuer

    async def read(self) -> Published:
        """The present content of the file."""
        try:
            keys = json.loads(await asyncio.to_thread(read_whole, self._path, limit=_LARGEST))
        except FileNotFoundError:
            raise KeysUnread(f"{self._path} does not exist: mount it, or correct keys_file") from None
        except Unreadable as unreadable:
            raise KeysUnread(str(unreadable)) from None
        except (ValueError, RecursionError):
            keys = None
        if not isinstance(keys, dict):
            raise KeysUnread(f"{self._path} is not a JSON Web Key Set: write the output of `kubectl get --raw {_KEYS}`")
        return Published(issuer=self._issuer, keys=keys)
