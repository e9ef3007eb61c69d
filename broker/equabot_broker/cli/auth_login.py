"""`equabot models auth login`: logs in with a browser, and stores the login."""

import os
from argparse import Namespace
from asyncio import run as run_async
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from equabot_broker.cli.login_callback import await_code, listen
from equabot_broker.cli.prompting import interactive
from equabot_broker.cli.storing import CommandContext, store_credential
from equabot_broker.domain.provider import Provider
from equabot_broker.formats.auth_document import entry_of_oauth, entry_of_token
from equabot_broker.oauth.authorization import ENTROPY, LOOPBACK, Attempt, AuthorizationRefusal, authorize_url, begin, identity
from equabot_broker.oauth.refreshing import Tokens
from equabot_cli import output
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import environment, now, sleep

_NO_TERMINAL = 2


def run(args: Namespace) -> int:
    """Logs in and stores the login."""
    context = CommandContext.of(args)
    provider = context.provider(args.provider)
    if not provider.login:
        raise Failure(_no_login(context, provider), code=Exit.USAGE)
    wanted = context.profile(args.profile_id, provider) if args.profile_id else ""
    context.must_be_read(provider)
    try:
        tokens = _by_device(provider) if provider.device_url else _by_browser(provider)
    except AuthorizationRefusal as refusal:
        message = f"{refusal}; nothing was stored"
    else:
        return _kept(context, provider, tokens, wanted)
    raise Failure(message)


def _kept(context: CommandContext, provider: Provider, tokens: Tokens, wanted: str) -> int:
    account, email = identity(tokens)
    profile_id = wanted or _named_after(context, provider, email)
    entry: dict[str, Any]
    if tokens.refresh is None:  # the provider reports no end
        entry = entry_of_token(provider.id, tokens.access, expires_at=tokens.expires_at)
    else:
        entry = entry_of_oauth(
            provider.id,
            tokens.access,
            tokens.refresh,
            expires_at=tokens.expires_at,
            client_id=provider.client_id,
            account=account,
            email=email,
        )
    store_credential(context, profile_id, entry)
    return Exit.DONE


def _by_browser(provider: Provider) -> Tokens:
    """Logs in by the authorization-code flow. Raises AuthorizationRefusal and Failure."""
    from equabot_broker.upstream.authorization import redeem  # noqa: PLC0415
    from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint  # noqa: PLC0415

    callback = listen(provider.redirect_url)
    if callback is None and not interactive():
        raise Failure(
            f"the login to {provider.id} needs an interactive terminal (TTY), where you paste the code: run it in a terminal",
            code=_NO_TERMINAL,
        )
    try:
        attempt = begin(os.urandom(ENTROPY), redirect_url=callback.url if callback else provider.redirect_url)
        _show(authorize_url(provider, attempt), "Open this address in a browser, and log in:")
        if callback is None and urlsplit(provider.redirect_url).hostname in LOOPBACK:
            output.say("The browser then shows an address that does not open: copy that address.")
        code = await_code(attempt, callback)
    finally:
        if callback is not None:
            callback.server_close()
    return run_async(redeem(HttpTokenEndpoint(), provider, attempt, code, now=now))


def _by_device(provider: Provider) -> Tokens:
    """Logs in by the device flow. Raises AuthorizationRefusal."""
    from equabot_broker.upstream.authorization import await_device, begin_device  # noqa: PLC0415
    from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint  # noqa: PLC0415

    async def login() -> Tokens:
        endpoint = HttpTokenEndpoint()
        attempt: Attempt = begin(os.urandom(ENTROPY))
        device = await begin_device(endpoint, provider, attempt)
        _show(device.url, f"Open this address in a browser, log in, and confirm the code {device.user_code}:")
        return await await_device(endpoint, provider, attempt, device, now=now, sleep=sleep)

    return run_async(login())


def _show(url: str, instruction: str) -> None:
    """Prints the address, and opens a browser if there is one: on a desktop, or the one that BROWSER names."""
    output.say(instruction)
    output.say(f"\n  {url}\n".strip("\n"))
    known = environment()
    if known.get("BROWSER") or known.get("DISPLAY") or known.get("WAYLAND_DISPLAY"):
        import webbrowser  # noqa: PLC0415

        # Some browsers block until the user closes them.
        Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _named_after(context: CommandContext, provider: Provider, email: str) -> str:
    if email:
        try:
            return context.profile(f"{provider.id}:{email}", provider)
        except Failure:
            pass  # The address has characters that an id cannot have.
    return f"{provider.id}:default"


def _no_login(context: CommandContext, provider: Provider) -> str:
    having = ", ".join(sorted(known.id for known in context.config.catalog.providers.values() if known.login))
    if (provider.authorize_url or provider.device_url) and not provider.client_id:
        return f"the login to {provider.id} needs an OAuth client of your own: set providers.{provider.id}.client_id"
    return f"{provider.id} has no login (these have one: {having}): `equabot models auth add --provider {provider.id}`"
