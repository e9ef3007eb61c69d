"""Callers who show the token of a Kubernetes service account.

A token that held holds for a minute, or to its own end where that comes first: so one that was revoked ends soon, and the
cluster is not asked about every call. One that did not is refused for a few seconds without asking. Calls that show the same
token wait for one check. What is kept of a token is a keyed digest.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakValueDictionary

from equabot_broker.domain.callers import CallerProof, Callers, Identified
from equabot_broker.domain.errors import BrokerError, IdentityUnchecked, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.account_tokens import AccountToken, read_token
from equabot_broker.ports import Clock

_log: Final = logging.getLogger(__name__)

HELD: Final = 60.0
"""Seconds for which a token that was found good is not asked about again."""
_REFUSED: Final = 5.0
_UNCHECKED: Final = 1.0
"""Seconds after a failed check before the next: those who wait are told together, and not one by one."""
_SHORTEST: Final = 1.0
_KEPT: Final = 4096


class Check(Protocol):
    """Who says whether a token is good: the API server, or the keys with which the cluster signs."""

    async def account(self, said: AccountToken) -> str:
        """`namespace/name` of the service account. Raises Unidentified for a token that is not good, IdentityUnchecked where
        that cannot be found out now. Answers within a few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What became of a token, until a steady instant: its service account, or a refusal."""

    account: str
    refusal: BrokerError | None
    until: float


class ServiceAccounts:
    """Who is calling, by the tokens that they show."""

    def __init__(self, check: Check, callers: Callers, *, clock: Clock, audience: str) -> None:
        self._check = check
        self._callers = callers
        self._clock = clock
        self._audience = audience
        self._fault = ""
        self._key = secrets.token_bytes(32)
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    @property
    def fault(self) -> str:
        """Why the last token that was to be checked could not be, and what to do. Empty: it could."""
        return self._fault

    def apply(self, callers: Callers) -> None:
        """The configuration is another, from the next call on."""
        self._callers = callers

    async def identify(self, shown: CallerProof) -> Identified:
        """The caller who shows this. Raises Unidentified, IdentityUnchecked, and PolicyDenied for one who is no agent."""
        if shown.token is None:
            raise Unidentified(
                f"the call shows no token: send that of a service account, for audience {self._audience!r}, as"
                " `authorization: Bearer …`"
            )
        verdict = await self._verdict(shown.token)
        if verdict.refusal is not None:
            # Not the error of before: that one would carry the traces of everybody who has met it.
            raise type(verdict.refusal)(verdict.refusal.message, retry_after=verdict.refusal.retry_after)
        return Identified(agent=self._callers.of_account(verdict.account), until=verdict.until)

    async def _verdict(self, token: SecretValue) -> _Verdict:
        key = token.digest(self._key)
        verdict = self._known(key)
        if verdict is None:
            said = read_token(token)
            said.check_audience(self._audience)
            turn = self._turns.setdefault(key, asyncio.Lock())
            async with turn:
                verdict = self._known(key) or await self._ask(said)
                self._keep(key, verdict)
        return verdict

    def _known(self, key: bytes) -> _Verdict | None:
        verdict = self._verdicts.get(key)
        return verdict if verdict is not None and self._clock.steady() < verdict.until else None

    async def _ask(self, said: AccountToken) -> _Verdict:
        refusal: BrokerError | None = None
        account, lasts = "", _REFUSED
        try:
            account = await self._check.account(said)
        except Unidentified as refused:
            refusal = refused
        except IdentityUnchecked as unchecked:
            refusal, lasts = unchecked, _UNCHECKED
            self._tell(unchecked.message)
        else:
            self._tell("")
            # Whoever said that it is good may have a clock that is behind ours.
            lasts = min(HELD, max(said.expires_at - self._clock.now(), _SHORTEST))
        return _Verdict(account=account, refusal=refusal and refusal.with_traceback(None), until=self._clock.steady() + lasts)

    def _tell(self, fault: str) -> None:
        """Says in the log when checks begin to fail, in other words, and that they work again."""
        if fault and fault != self._fault:
            _log.warning("%s", fault)
        elif self._fault and not fault:
            _log.info("service-account tokens are checked again")
        self._fault = fault

    def _keep(self, key: bytes, verdict: _Verdict) -> None:
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > _KEPT:
            self._verdicts.popitem(last=False)
