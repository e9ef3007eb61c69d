"""Identifies callers by the tokens of Kubernetes service accounts.

An accepted token is valid for a minute, or until its own expiry if that is sooner. So a revoked token ends soon, and the
cluster is not asked about every call. A refused token is refused for some seconds without another check. Calls with the same
token share one check. The broker keeps only a keyed digest of a token.
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
"""Seconds for which an accepted token is not checked again."""
_REFUSED: Final = 5.0
_UNCHECKED: Final = 1.0
"""Seconds after a failed check before the next: waiting calls fail together, and not one by one."""
_SHORTEST: Final = 1.0
_KEPT: Final = 4096


class Check(Protocol):
    """The check of a token: by the API server, or by the cluster's signing keys."""

    async def account(self, said: AccountToken) -> str:
        """`namespace/name` of the service account. Raises Unidentified for a token that is not valid, and IdentityUnchecked if
        the check is not possible now. Answers within a few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """The result of a check until a steady instant: the service account, or a refusal."""

    account: str
    refusal: BrokerError | None
    until: float


class ServiceAccounts:
    """Identifies callers by their tokens."""

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
        """The reason why the last check failed, and what to do; empty if it succeeded."""
        return self._fault

    def apply(self, callers: Callers) -> None:
        """Applies a new configuration to the next call."""
        self._callers = callers

    async def identify(self, shown: CallerProof) -> Identified:
        """The caller with this token. Raises Unidentified, IdentityUnchecked, and PolicyDenied for a caller that maps to no
        agent."""
        if shown.token is None:
            raise Unidentified(
                f"the call has no token: send that of a service account, for audience {self._audience!r}, as"
                " `authorization: Bearer …`"
            )
        verdict = await self._verdict(shown.token)
        if verdict.refusal is not None:
            # A new error each time: a shared one would collect the tracebacks of all callers.
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
            self._log_change(unchecked.message)
        else:
            self._log_change("")
            # The clock of the checking system may be behind.
            lasts = min(HELD, max(said.expires_at - self._clock.now(), _SHORTEST))
        return _Verdict(account=account, refusal=refusal and refusal.with_traceback(None), until=self._clock.steady() + lasts)

    def _log_change(self, fault: str) -> None:
        """Logs when checks begin to fail, when the reason changes, and when they succeed again."""
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
