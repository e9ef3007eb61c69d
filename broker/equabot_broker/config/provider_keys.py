"""The keys of `providers.<provider>`, the facts about a provider."""

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
    """The header form. Without `prefix`, `Authorization` has the prefix `Bearer `, and other headers have no prefix."""
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
                URL,
                "The address of the API. Agents get it with their lease.",
                default="none",
                example="https://api.acme.example/v1",
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
                "The format of a request to the token endpoint.",
                default="json",
                example="form",
            ),
            "client_id": ConfigKey(TEXT, "The public OAuth client id.", default="none", example="equabot"),
            "authorize_url": ConfigKey(
                URL,
                "The page on which a person logs in (authorization code flow with PKCE).",
                default="none",
                example="https://login.acme.example/oauth/authorize",
            ),
            "device_url": ConfigKey(
                URL,
                "The device authorization endpoint (RFC 8628), for a vendor that uses it instead of `authorize_url`.",
                default="none",
                example="https://login.acme.example/oauth/device",
            ),
            "redirect_url": ConfigKey(
                URL,
                "Where the vendor sends the browser with the code: a loopback address (port 0: any free port), or a page that"
                " shows the code.",
                default="none",
                example="http://127.0.0.1:0/callback",
            ),
            "scopes": ConfigKey(
                Many(TEXT), "The scopes that a login requests.", default="none", example="[profile, inference]"
            ),
            "api": ConfigKey(
                Text(partial(values.word, ("messages", "openai", "chat", "gemini"))),
                "The API of the models: Anthropic's, OpenAI's, only OpenAI's chat completions, or Gemini's.",
                default="none",
                example="chat",
            ),
            "probe_model": ConfigKey(
                TEXT,
                "A small model for tests of a credential.",
                default="a configured model of the provider",
                example="acme-small",
            ),
            "aliases": ConfigKey(Many(PROVIDER), "Other spellings of the provider's id.", default="none", example="[acme-ai]"),
            "env": ConfigKey(
                Named(values.variable, MODE),
                "Variables that may hold a credential, in order of preference, with the mode of each.",
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
                Many(TEXT), "Prefixes that only keys of this provider have.", default="none", example="[acme_]"
            ),
            "token_prefixes": ConfigKey(
                Many(TEXT), "Prefixes that only OAuth tokens of this provider have.", default="none", example="[acmet_]"
            ),
            "requests": ConfigKey(
                Many(Text(values.request)),
                "The requests that the gateway forwards. The list replaces a built-in one.",
                default=_BUILT_IN,
                example='["POST /chat/completions", "GET /models"]',
            ),
            "websockets": ConfigKey(
                Many(Text(values.websocket)),
                "The paths of `requests` on which a WebSocket may be opened. The list replaces a built-in one.",
                default=_BUILT_IN,
                example="[/v1/realtime]",
            ),
            "forward_headers": ConfigKey(
                Many(Text(values.listed_name)),
                "Additional headers that the gateway forwards. `*` at the end matches all names that begin so.",
                default="none",
                example="[x-acme-*]",
            ),
            "query": ConfigKey(
                Many(Text(values.listed_name)),
                "Additional query parameters that the gateway forwards. `*` at the end matches all names that begin so.",
                default="none",
                example="[region]",
            ),
            "subprotocols": ConfigKey(
                Many(Text(values.header)),
                "Additional WebSocket protocols that a request may name.",
                default="none",
                example="[acme.v1]",
            ),
        },
    ),
)
