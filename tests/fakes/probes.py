"""Providers that are asked about credentials without a network: they answer what a test has written down."""

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.probing import ProbeResult
from equabot_broker.domain.profiles import Profile


class ScriptedProbes:
    """Fulfils `ports.Probes`: the answers in their order, and the last one forever. Without any it is not known how to
    ask. `asked` are the profiles asked about, and why."""

    def __init__(self, *answers: ProbeResult) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Outcome]] = []

    def possible(self, profile: Profile, about: Outcome) -> bool:
        """Whether there is an answer."""
        return bool(self.answers)

    async def probe(self, profile: Profile, about: Outcome) -> ProbeResult:
        """The next answer."""
        self.asked.append((profile.id, about))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
