"""Checks tokens with the Kubernetes API server (TokenReview), which also knows of deleted pods and accounts.

The broker needs the permission to `create` `tokenreviews` of `authentication.k8s.io`, from a ClusterRole.
"""

import asyncio
from typing import Final

from equabot_broker.domain.errors import IdentityUnchecked, Unidentified
from equabot_broker.identity.account_tokens import AccountToken, account_of
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault

_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_AT_ONCE: Final = 16
"""Tokens of other clusters are checked too, so the number of concurrent requests that strangers can cause is limited."""


class TokenReviews:
    """A `Check` by the API server within `within` seconds, which include the wait for a free place."""

    def __init__(self, api: KubeApi, *, audience: str, within: float = 5.0) -> None:
        self._api = api
        self._within = within
        self._audience = audience
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def account(self, said: AccountToken) -> str:
        """The account that the API server names."""
        try:
            async with asyncio.timeout(self._within), self._room:
                answer = await self._api.create(_PATH, self._asked(said), timeout=self._within)
        except KubeFault as fault:
            unchecked = IdentityUnchecked(
                f"service-account tokens cannot be checked now: {fault}", retry_after=fault.retry_after
            )
        except TimeoutError:
            unchecked = IdentityUnchecked(
                "service-account tokens cannot be checked now: the API server is too slow, or too many calls wait"
            )
        else:
            return self._found(answer)
        raise unchecked

    def _asked(self, said: AccountToken) -> ApiObject:
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": said.token.reveal(), "audiences": [self._audience]},
        }

    def _found(self, answer: ApiObject) -> str:
        status = answer.get("status")
        if not isinstance(status, dict) or status.get("authenticated") is not True:
            raise Unidentified(
                "the cluster does not accept the token: it has expired or was revoked, its pod or service account was"
                " deleted, or it is from another cluster"
            )
        # An API server without support for audiences returns none, and then the token may be one for the API itself.
        audiences = status.get("audiences")
        if not isinstance(audiences, list) or self._audience not in audiences:
            raise Unidentified(f"the cluster does not confirm that the token is for audience {self._audience!r}")
        user = status.get("user")
        account = account_of(str(user.get("username", ""))) if isinstance(user, dict) else None
        if account is None:
            raise Unidentified(
                "the token is not that of a service account: the broker identifies callers by service account only"
            )
        return account
