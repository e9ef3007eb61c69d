"""A token endpoint without a network: it answers what a test has written down."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, TokenAnswer, TokenRequest

LOST = RefreshFailure(Blame.UNCERTAIN, "no_answer", "the token endpoint was asked, and its answer is lost")
UNREACHED = RefreshFailure(Blame.TRANSIENT, "unreachable", "cannot connect to login.acme.example")


def granted(number: int, **fields: Any) -> TokenAnswer:
    """The tokens `at-<number>` and `rt-<number>`, for ten minutes."""
    body = {"access_token": f"at-{number}", "refresh_token": f"rt-{number}", "expires_in": 600, **fields}
    return TokenAnswer(200, json.dumps({k: v for k, v in body.items() if v is not None}).encode())


def refused(status: int, code: str = "", retry_after: str = "") -> TokenAnswer:
    """An OAuth error."""
    return TokenAnswer(status, json.dumps({"error": code}).encode() if code else b"", retry_after)


class ScriptedEndpoint:
    """Fulfils `ports.TokenEndpoint`: the answers in their order, and the last one forever. `redeemed` are the refresh
    tokens it was asked with, `asked` is set by the first of them; `meanwhile` is called before each answer, and none comes
    before `open` is set."""

    def __init__(self, *answers: TokenAnswer | RefreshFailure) -> None:
        self.answers = list(answers)
        self.redeemed: list[str] = []
        self.requests: list[TokenRequest] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def ask(self, request: TokenRequest) -> TokenAnswer | RefreshFailure:
        """The next answer."""
        token = request.fields["refresh_token"]
        assert isinstance(token, SecretValue)
        self.redeemed.append(token.reveal())
        self.requests.append(request)
        self.asked.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.meanwhile()
        await self.open.wait()
        return answer
