"""The keys of `providers.<provider>`: facts about a provider."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.domain.provider import HeaderForm, Mode
from equabot_broker.schema import values
from equabot_broker.schema.key_readers import MODE, PROVIDER, TEXT, URL, VARIABLE
from equabot_broker.schema.reading import ConfigKey, Many, Named, Section, Text

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_BUILT_IN: Final = "none, or the built-in list"


def _header_form(*, name: str = "Authorization", prefix: str | None = None, extra: Mapping[str, str] = _NOTHING) -> HeaderForm:
    """`Bearer ` belongs to `Authorization` alone, unless another prefix is given."""
    usual = "Bearer " if name.lower() == "authorization" else ""
    return HeaderForm(name, usual if prefix is None else prefix, extra)


_HEADER: Final = Section(
    _header_form,
    {
        "name": ConfigKey(
            Text(values.header), "The header that carries the secret.", default="Authorization", example="X-Acme-Key"
        ),
        "prefix": ConfigKey(
            Text(values.affix),
            "The text before the secret.",
            default="Bearer and a space for Authorization, else nothing",
            example='"Token "',
        ),
        "extra": ConfigKey(
            Named(values.header, TEXT),
            "Other headers that a request must carry.",
            default="none",
            example='{X-Acme-Version: "2"}',
        ),
    },
)
PROVIDERS: Final = Named(
    values.provider,
    Section(
        dict[str, Any],
        {
            "base_url": ConfigKey(
                URL, "Where requests go. Agents get it with their lease.", default="none", example="https://api.acme.example/v1"
            ),
            "base_url_env": ConfigKey(
                VARIABLE, "The variable in which the vendor's SDK reads the base URL.", default="none", example="ACME_BASE_URL"
            ),
            "token_url": ConfigKey(
                URL,
                "The OAuth token endpoint, also for workload identities.",
                default="none",
                example="https://login.acme.example/oauth/token",
            ),
            "token_encoding": ConfigKey(
                Text(partial(values.word, ("json", "form"))),
                "How the token endpoint takes a request.",
                default="json",
                example="form",
            ),
            "client_id": ConfigKey(TEXT, "The public OAuth client id.", default="none", example="equabot"),
            "authorize_url": ConfigKey(
                URL,
                "The page where a person logs in (authorization code with PKCE).",
                default="none",
                example="https://login.acme.example/oauth/authorize",
            ),
            "device_url": ConfigKey(
                URL,
                "The endpoint where a device login begins, for a vendor that has that instead.",
                default="none",
                example="https://login.acme.example/oauth/device",
            ),
            "redirect_url": ConfigKey(
                URL,
                "Where the browser goes back with the code: a loopback address (port 0: any), or a page that shows the code.",
                default="none",
                example="http://127.0.0.1:0/callback",
            ),
            "scopes": ConfigKey(
                Many(TEXT), "The scopes that a login asks for.", default="none", example="[profile, inference]"
            ),
            "api": ConfigKey(
                Text(partial(values.word, ("messages", "openai", "chat", "gemini"))),
                "The form of a request to a model: Anthropic's, OpenAI's, OpenAI's chat completions alone, or Gemini's.",
                default="none",
                example="chat",
            ),
            "probe_model": ConfigKey(
                TEXT,
                "A small model to try a credential on.",
                default="a configured model of the provider",
                example="acme-small",
            ),
            "aliases": ConfigKey(Many(PROVIDER), "Other spellings of the provider's id.", default="none", example="[acme-ai]"),
            "env": ConfigKey(
                Named(values.variable, MODE),
                "Variables in which a credential is found, in order of preference, and the mode of each.",
                default="none",
                example="{ACME_API_KEY: api_key}",
                argument="env_names",
            ),
            "env_lists": ConfigKey(
                Many(VARIABLE),
                "Variables that hold several keys.",
                default="<P>_API_KEYS for each <P>_API_KEY in env",
                example="[ACME_API_KEYS]",
                argument="list_env_names",
            ),
            "headers": ConfigKey(Named(partial(values.one_of, Mode), _HEADER), "How a request carries the secret, by mode."),
            "sdk_env": ConfigKey(
                Named(partial(values.one_of, Mode), VARIABLE),
                "The variable in which the vendor's SDK reads the secret, by mode.",
                default="the first variable of env for that mode",
                example="{api_key: ACME_API_KEY}",
            ),
            "key_prefixes": ConfigKey(
                Many(TEXT), "What only keys of this provider begin with.", default="none", example="[acme_]"
            ),
            "token_prefixes": ConfigKey(
                Many(TEXT), "What only OAuth tokens of this provider begin with.", default="none", example="[acmet_]"
            ),
            "requests": ConfigKey(
                Many(Text(values.request)),
                "The requests that the gateway forwards. Replaces a built-in list.",
                default=_BUILT_IN,
                example='["POST /chat/completions", "GET /models"]',
            ),
            "websockets": ConfigKey(
                Many(Text(values.websocket)),
                "The paths, among those of `requests`, on which a WebSocket may be opened. Replaces a built-in list.",
                default=_BUILT_IN,
                example="[/v1/realtime]",
            ),
            "forward_headers": ConfigKey(
                Many(Text(values.listed_name)),
                "Headers that the gateway forwards in addition. `*` at the end matches names that begin so.",
                default="none",
                example="[x-acme-*]",
            ),
            "query": ConfigKey(
                Many(Text(values.listed_name)),
                "Query parameters that the gateway forwards in addition. `*` at the end matches names that begin so.",
                default="none",
                example="[region]",
            ),
            "subprotocols": ConfigKey(
                Many(Text(values.header)),
                "WebSocket protocols that a request may name in addition.",
                default="none",
                example="[acme.v1]",
            ),
        },
    ),
)
