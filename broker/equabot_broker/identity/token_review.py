"""Asks the Kubernetes API server whether a token is good (TokenReview): it knows of deleted pods and accounts too.

Needs the right to `create` `tokenreviews` of `authentication.k8s.io`, which a ClusterRole has to give.
"""

import asyncio
from typing import Final

from equabot_broker.domain.errors import IdentityUnchecked, Unidentified
from equabot_broker.identity.account_tokens import AccountToken, account_of
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault

_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_AT_ONCE: Final = 16
"""Tokens that are no cluster's are asked about as well: what strangers can make the API server do is bounded."""


class TokenReviews:
    """A `Check` by the API server, which has so many seconds (`within`) to answer, the wait for one's turn included."""

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
                "service-account tokens cannot be checked now: the API server is too slow, or too many wait"
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
                "the cluster does not accept the token: it has expired or was revoked, its pod or service account is gone, or"
                " it is another cluster's"
            )
        # A server that knows nothing of audiences says none, and then the token may be one for the API itself.
        audiences = status.get("audiences")
        if not isinstance(audiences, list) or self._audience not in audiences:
            raise Unidentified(f"the cluster does not confirm that the token is for audience {self._audience!r}")
        user = status.get("user")
        account = account_of(str(user.get("username", ""))) if isinstance(user, dict) else None
        if account is None:
            raise Unidentified("the token is not that of a service account: only those say who is calling here")
        return account
