"""Agents on other machines: how they are identified."""

from contextlib import AsyncExitStack

from equabot_broker.config.model import Remote, TokenListener
from equabot_broker.domain.errors import CannotStart
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.identity.client_certificate import ClientCertificates
from equabot_broker.identity.published_keys import KeysOfApi, KeysOfFile, KeysUnread, PublishedKeys
from equabot_broker.identity.server_certificate import ServerCertificate
from equabot_broker.identity.service_account import Check, ServiceAccounts
from equabot_broker.identity.token_review import TokenReviews
from equabot_broker.kube.api import KubeApi, KubeFault
from equabot_broker.schema.values import Address


async def remote_listeners(
    remote: Remote, clock: SystemClock, stack: AsyncExitStack
) -> list[tuple[Address, ClientCertificates | ServiceAccounts, ServerCertificate]]:
    """Where agents on other machines are listened to, what identifies them there, and the files of the server's certificate.
    Raises CannotStart."""
    found: list[tuple[Address, ClientCertificates | ServiceAccounts, ServerCertificate]] = []
    if (certificates := remote.client_certificates) is not None:
        files = ServerCertificate(remote.certificate, remote.key, client_ca=certificates.ca, clock=clock)
        found.append((certificates.address, ClientCertificates(remote.callers, clock=clock), files))
    if (tokens := remote.service_accounts) is not None:
        files = ServerCertificate(remote.certificate, remote.key, clock=clock)
        check = await _token_check(tokens, clock, stack)
        accounts = ServiceAccounts(check, remote.callers, clock=clock, audience=tokens.audience)
        found.append((tokens.address, accounts, files))
    return found


async def _token_check(tokens: TokenListener, clock: SystemClock, stack: AsyncExitStack) -> Check:
    try:
        if tokens.keys is not None:
            file = KeysOfFile(tokens.keys, issuer=tokens.issuer)
            await file.read()
            return PublishedKeys(file, clock=clock)
        api = KubeApi(kubeconfig=tokens.kubeconfig)
        await api.open()
    except (KeysUnread, KubeFault) as fault:
        raise CannotStart(f"listen.agents.service_accounts: {fault}") from None
    stack.push_async_callback(api.close)
    if tokens.published:
        return PublishedKeys(KeysOfApi(api, issuer=tokens.issuer), clock=clock)
    return TokenReviews(api, audience=tokens.audience)
