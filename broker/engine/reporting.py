"""What providers answer, whoever tells it, and what that makes of a profile."""

from broker.domain.cooldowns import CooldownOptions, Outcome, Usage, failed, rejected, succeeded
from broker.domain.material import Held
from broker.engine.refreshing import Refreshing
from broker.engine.standing import Standings
from broker.ports import Clock


class Reporting:
    """Takes note: cooldowns, disables, rejections, and logins that are to be refreshed for it."""

    def __init__(self, *, clock: Clock, standings: Standings, refreshing: Refreshing, cooldowns: CooldownOptions) -> None:
        self._clock = clock
        self._standings = standings
        self._refreshing = refreshing
        self._cooldowns = cooldowns

    def note(
        self,
        held: Held,
        outcome: Outcome,
        *,
        retry_after: float | None = None,
        began: float | None = None,
        sure: bool = True,
    ) -> None:
        """A request with this material, which is what its profile holds now, was answered.

        `began` is when (seconds since the epoch) the request was made, where that is known: of many that are under way at
        once the first failure counts, and what the others add to it is no news. `sure` says of AUTH whether it is the
        credential that was refused; else it may have been the request, and costs no more than a cooldown.
        """
        key = (held.profile.agent, held.profile.id)
        usage = self._standings.remembered(key)
        if outcome is Outcome.FORMAT or (outcome is not Outcome.AUTH and _is_no_news(usage, began)):
            return
        if outcome is Outcome.OK:
            self._refreshing.proved(key, held.version)
            if not usage.last_failure and not usage.rejected:
                return  # nearly always: nothing is held against it that would have to be forgotten
        now = self._clock.now()
        usage = self._standings.usage(key)
        if outcome is Outcome.OK:
            self._standings.replace_usage(key, succeeded(usage, now=now))
        elif outcome is Outcome.AUTH and self._refreshing.force(key, held.version):
            return
        elif outcome is Outcome.AUTH and sure:
            why = "the provider refused it (401): replace the credential"
            self._standings.replace_usage(key, rejected(usage, why, version=held.version, now=now))
        elif not _is_no_news(usage, began):
            noted = failed(
                usage,
                outcome,
                provider=held.profile.provider,
                now=now,
                options=self._cooldowns,
                retry_after=retry_after,
            )
            self._standings.replace_usage(key, noted)


def _is_no_news(usage: Usage, began: float | None) -> bool:
    return began is not None and began < usage.last_failure
