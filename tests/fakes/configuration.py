"""A configuration whose reloads a test decides."""

from equabot_broker.ports import Reloaded


class FakeConfiguration:
    """Fulfils `ports.Configuration`. `answer` is what comes of a reload, `doubt` what Diagnose is to say."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = Reloaded()
        self.doubt: tuple[str, ...] = ()

    async def reload(self, by: str) -> Reloaded:
        """Counts."""
        self.asked.append(by)
        return self.answer

    async def doubts(self) -> tuple[str, ...]:
        return self.doubt
