"""Refreshes one login, so that no refresh token is sent twice and no new token is lost.

    lock the store → read it → write the intent → ask the endpoint → write the result → unlock

A process may die after any of these steps. While it holds the lock, no other process refreshes the login. The marks in the
entry show the next process how far the refresh got (`formats.refresh_marks`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from secrets import token_hex
from typing import NamedTuple

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.relogin import INTERRUPTED
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_entries import entry_ids, store_unit
from equabot_broker.formats.refresh_marks import (
    Entry,
    digest,
    pending,
    with_doubt,
    with_intent,
    with_interruption,
    with_refusal,
    with_tokens,
    without_intent,
)
from equabot_broker.oauth.refresh_steps import Pending, Step, decide
from equabot_broker.oauth.refreshing import (
    Blame,
    RefreshFailure,
    TokenAnswer,
    TokenRequest,
    Tokens,
    read_answer,
    refresh_request,
    same_identity,
)
from equabot_broker.parsing.untrusted_json import Json
from equabot_broker.ports import Clock, LockedStore, LoginStore, StoreFault, TokenEndpoint
from equabot_broker.telemetry.incidents import incident

Change = Callable[[Entry], Json]

_INTERRUPTED = RefreshFailure(
    Blame.PERMANENT, INTERRUPTED, "an earlier refresh was interrupted: its refresh token may be spent"
)
_OTHER_ACCOUNT = RefreshFailure(Blame.PERMANENT, "different_account", "the token endpoint returned tokens of another account")


class RedemptionKind(Enum):
    """How a refresh ended."""

    REFRESHED = "new tokens are in the store"
    ADOPTED = "the store already had new tokens"
    GONE = "the login does not exist any more"
    HELD = "an earlier refresh got no answer: the next one waits for the end of the access token"
    FAILED = "the refresh failed and will be repeated"
    ENDED = "a person must log in again, as the store says"


@dataclass(frozen=True, slots=True)
class RedemptionOutcome:
    """How a refresh ended. `failure` is set if it FAILED, and if this refresh found that the login ENDED."""

    kind: RedemptionKind
    failure: RefreshFailure | None = None


class _Place(NamedTuple):
    """A login and its place. The same login in another place has its own tokens."""

    source: str
    unit: str
    agent: str
    id: str

    @classmethod
    def of(cls, login: Profile) -> "_Place":
        return cls(login.source, login.unit, login.agent, login.id)


class _PendingWrite(NamedTuple):
    """A pending write of a refresh: the login, the digest of the sent refresh token, the change, and the discovery rules."""

    login: Profile
    sent: str
    change: Change
    rules: DiscoveryRules


@dataclass(frozen=True, slots=True)
class _Login:
    """A login in the store: the name of its entry, the entry, and its profile."""

    name: str
    entry: Json
    profile: Profile


class Redemption:
    """Refreshes logins in their stores. The caller runs at most one refresh of a login at a time."""

    def __init__(self, *, clock: Clock, stores: LoginStore, endpoint: TokenEndpoint, rules: DiscoveryRules) -> None:
        self._clock = clock
        self._stores = stores
        self._endpoint = endpoint
        self._rules = rules
        self._unwritten: dict[_Place, _PendingWrite] = {}

    def apply(self, rules: DiscoveryRules) -> None:
        """Another configuration is in effect. A running refresh keeps the rules with which it began."""
        self._rules = rules

    @property
    def unwritten(self) -> tuple[Profile, ...]:
        """The logins with a pending write."""
        return tuple(write.login for write in self._unwritten.values())

    def is_unwritten(self, login: Profile) -> bool:
        """Whether a write for this login is pending."""
        return _Place.of(login) in self._unwritten

    async def write_pending(self) -> None:
        """Tries all pending writes again. It sends no request to a token endpoint."""
        async with asyncio.TaskGroup() as group:
            for login in self.unwritten:
                group.create_task(self._write(login))

    async def _write(self, login: Profile) -> None:
        with suppress(StoreFault):
            try:
                async with self._stores.locked(login) as store:
                    if (write := self._unwritten.get(_Place.of(login))) is not None:
                        await self._write_result(store, write)
            except StoreFault:
                raise
            except Exception as error:  # noqa: BLE001 - a port: the write stays pending
                incident("profile_store", login.id, error)

    async def redeem(self, seen: Profile, *, forced: bool = False) -> RedemptionOutcome:
        """Replaces the access token of a login. `seen` is the login as its source delivered it. `forced`: before it is due.

        Raises StoreFault if the store cannot be locked, read or written. Tokens that could not be written are kept in memory;
        the next call for the login writes them.
        """
        async with self._stores.locked(seen) as store:
            if (write := self._unwritten.get(_Place.of(seen))) is not None:
                await self._write_result(store, write)
            login = self._find(seen, store.document)
            profile, mark = (None, Pending.NOTHING) if login is None else (login.profile, pending(login.entry))
            step = decide(profile, mark, seen=seen.secret, forced=forced, now=self._clock.now())
            if login is None or step is Step.GONE:
                return RedemptionOutcome(RedemptionKind.GONE)
            return await self._perform(step, seen, store, login)

    async def _perform(self, step: Step, seen: Profile, store: LockedStore, login: _Login) -> RedemptionOutcome:
        match step:
            case Step.ADOPT:
                return RedemptionOutcome(RedemptionKind.ADOPTED)
            case Step.HOLD:
                return RedemptionOutcome(RedemptionKind.HELD)
            case Step.REFUSED:
                return RedemptionOutcome(RedemptionKind.ENDED)
            case Step.INTERRUPT:
                interrupted = partial(with_interruption, found=login.entry, now=self._clock.now())
                await self._write_result(store, _PendingWrite(seen, digest(login.entry), interrupted, self._rules))
                return RedemptionOutcome(RedemptionKind.ENDED, _INTERRUPTED)
            case _:
                return await self._redeem(seen, store, login)

    async def _redeem(self, seen: Profile, store: LockedStore, login: _Login) -> RedemptionOutcome:
        profile = login.profile
        if profile.refresh is None:
            raise ValueError("a login without a refresh token cannot be redeemed")
        request = refresh_request(self._rules.catalog.providers[profile.provider], profile.refresh, client_id=profile.client_id)
        now, by = self._clock.now(), token_hex(8)
        write = _PendingWrite(seen, digest(login.entry), partial(without_intent, by=by), self._rules)
        self._unwritten[_Place.of(seen)] = write  # in case the write of the intent fails part way
        await store.replace(_with_entry(store.document, login.name, with_intent(login.entry, by=by, now=now)))
        # In case this call is cancelled while it waits for the answer.
        self._unwritten[_Place.of(seen)] = write._replace(change=partial(with_doubt, by=by, now=now))
        answer = await self._ask(request)
        result = answer if isinstance(answer, RefreshFailure) else read_answer(answer, now=now)
        if isinstance(result, Tokens) and not _is_of(profile, result):
            result = _OTHER_ACCOUNT
        await self._write_result(store, write._replace(change=self._change(result, by)))
        if isinstance(result, Tokens):
            return RedemptionOutcome(RedemptionKind.REFRESHED)
        return RedemptionOutcome(RedemptionKind.ENDED if result.blame is Blame.PERMANENT else RedemptionKind.FAILED, result)

    async def _ask(self, request: TokenRequest) -> TokenAnswer | RefreshFailure:
        try:
            return await self._endpoint.ask(request)
        except Exception as error:  # noqa: BLE001 - a port: the endpoint may have processed the request
            why = f"the request was sent, but its answer is lost: {incident('token_endpoint', request.url, error)}"
            return RefreshFailure(Blame.UNCERTAIN, "no_answer", why)

    def _change(self, result: Tokens | RefreshFailure, by: str) -> Change:
        """The change of the entry for an answer."""
        if isinstance(result, Tokens):
            return partial(with_tokens, tokens=result, by=by)
        match result.blame:
            case Blame.PERMANENT:
                return partial(with_refusal, code=result.code, now=self._clock.now())
            case Blame.UNCERTAIN:
                return partial(with_doubt, by=by, now=self._clock.now())
            case Blame.TRANSIENT:
                return partial(without_intent, by=by)

    async def _write_result(self, store: LockedStore, write: _PendingWrite) -> None:
        """Writes the result, even if another program has changed the store. It stays pending until it is written."""
        place = _Place.of(write.login)
        self._unwritten[place] = write
        await store.edit(partial(self._changed, write=write))
        del self._unwritten[place]

    def _changed(self, document: AuthDocument, write: _PendingWrite) -> AuthDocument:
        """Changes the login's entry if it still has the refresh token with that digest: a person may have logged in again."""
        name = entry_ids(document, write.rules.catalog).get(write.login.id)
        if name is None or digest(document.entries[name]) != write.sent:
            return document
        return _with_entry(document, name, write.change(document.entries[name]))

    def _find(self, seen: Profile, document: AuthDocument) -> _Login | None:
        unit = store_unit(document, rules=self._rules, source="", name="", origin="", owner=seen.agent or MAIN)
        profile = next((profile for profile in unit.profiles if profile.id == seen.id), None)
        if profile is None:
            return None
        name = entry_ids(document, self._rules.catalog)[seen.id]
        return _Login(name, document.entries[name], profile)


def _is_of(profile: Profile, tokens: Tokens) -> bool:
    return same_identity(profile.account, profile.email, other_account=tokens.account, other_email=tokens.email)


def _with_entry(document: AuthDocument, name: str, entry: Json) -> AuthDocument:
    return AuthDocument({**document.raw, "profiles": {**document.entries, name: entry}})
