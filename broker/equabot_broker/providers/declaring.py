"""How a built-in provider is declared: `vendor` fills in what most providers have in common."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from equabot_broker.domain.provider import BEARER, ClientMarks, EnvName, Exchange, HeaderForm, KeyForm, Mode, Provider
from equabot_broker.providers import websockets

_TOKEN_WORDS: Final = ("OAUTH_TOKEN", "AUTH_TOKEN")
CLAUDE_CODE: Final = "claude-code"


class LoginForm(NamedTuple):
    """How a user logs in: at `authorize`, which redirects to `redirect` with a code, or with the device flow at `device`."""

    scopes: str
    authorize: str = ""
    redirect: str = ""
    device: str = ""
    extra: Mapping[str, str] = MappingProxyType({})


def list_names(env_names: tuple[EnvName, ...]) -> tuple[str, ...]:
    """The variables with several keys: `<P>_API_KEYS` for each `<P>_API_KEY`."""
    return tuple(f"{env.name}S" for env in env_names if env.name.endswith("_API_KEY"))


def _form(prefixes: tuple[str, ...], beginnings: Mapping[str, int]) -> KeyForm:
    return KeyForm(beginnings=MappingProxyType({prefix: len(prefix) + 4 for prefix in prefixes} | dict(beginnings)))


def vendor(
    id: str,  # noqa: A002  (the name of the field)
    env: str,
    base_url: str = "",
    *,
    base_url_env: str = "",
    also: tuple[str, ...] = (),
    header: HeaderForm = BEARER,
    token_header: HeaderForm | None = None,
    sdk_env: str = "",
    sdk_token_env: str = "",
    sdk_env_also: str = "",
    other_env: str = "",
    prefixes: tuple[str, ...] = (),
    token_prefixes: tuple[str, ...] = (),
    beginnings: Mapping[str, int] = MappingProxyType({}),
    own_keys: bool = False,
    oauth: tuple[str, str, str] = ("", "json", ""),
    login: LoginForm = LoginForm(""),  # noqa: B008  (a tuple)
    model: str = "",
    api: str = "",
    requests: tuple[str, ...] = (),
    accounts: tuple[str, ...] = (),
    exchange: Exchange | None = None,
    exclusive: Mapping[str, str] = MappingProxyType({}),
) -> Provider:
    """Declares a provider.

    `env` has the variables in order of preference. `oauth` is the token endpoint, its encoding and the public client id.
    `model` is a small model to test a credential, in the form `api` (default: that of the chat API).
    `requests` are the allowed requests through the gateway. `accounts` are the headers in which a request names an account.
    `sdk_env_also` and `other_env` are variables, as in `Provider`. `exclusive` maps a prefix of credentials to the only client
    program from which the vendor accepts them. `beginnings` maps a prefix of keys to the minimum length of such a key; the
    default is four characters more than a known prefix. `own_keys`: the operator of the provider chooses the keys.
    """
    names = tuple(
        EnvName(name, Mode.TOKEN if any(word in name for word in _TOKEN_WORDS) else Mode.API_KEY) for name in env.split()
    )
    keys = (name.name for name in names if name.mode is Mode.API_KEY)
    headers, variables = {Mode.API_KEY: header}, {Mode.API_KEY: sdk_env or next(keys, "")}
    for mode in (Mode.TOKEN, Mode.OAUTH, Mode.WIF):
        headers[mode] = token_header or header
        variables[mode] = sdk_token_env or variables[Mode.API_KEY]
    token_url, token_encoding, client_id = oauth
    return Provider(
        id=id,
        aliases=also,
        env_names=names,
        list_env_names=list_names(names),
        headers=MappingProxyType(headers),
        sdk_env=MappingProxyType({mode: name for mode, name in variables.items() if name}),
        sdk_env_also=tuple(sdk_env_also.split()),
        other_env=tuple(other_env.split()),
        base_url=base_url,
        base_url_env=base_url_env,
        key_prefixes=prefixes,
        token_prefixes=token_prefixes,
        form=None if own_keys else _form((*prefixes, *token_prefixes), beginnings),
        token_url=token_url,
        token_encoding=token_encoding,
        client_id=client_id,
        authorize_url=login.authorize,
        authorize_extra=login.extra,
        device_url=login.device,
        redirect_url=login.redirect,
        scopes=tuple(login.scopes.split()),
        api=api or ("chat" if model else ""),
        probe_model=model,
        requests=requests,
        websockets=websockets.BY_PROVIDER.get(id, ()),
        accounts=accounts,
        exchange=exchange,
        exclusive=exclusive,
        clients=MappingProxyType({client: _CLIENTS[client] for client in exclusive.values()}),
    )


_CLIENTS: Final = MappingProxyType(
    {
        # The vendor's program has three marks; programs that act in its name send the second and the third.
        CLAUDE_CODE: ClientMarks(
            commands=("claude",),
            agents=("claude-cli/", "claude-code/"),
            words=MappingProxyType({"anthropic-beta": ("claude-code-",), "x-app": ("cli",)}),
        )
    }
)
