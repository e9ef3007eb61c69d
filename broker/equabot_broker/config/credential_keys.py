"""The keys of the configuration that are about credentials: sources, profiles, their order, and variables."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.config.document import AuthSection, EnvSection, ProfileSection
from equabot_broker.config.model import ConfiguredProfile, ShellEnv
from equabot_broker.config.vendors import EXCHANGE_FIELDS, TOKEN_TYPES
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.schema import values
from equabot_broker.schema.key_readers import BOOLEAN, DURATION, HOURS, MODE, PATH, PROFILE, PROVIDER, TEXT
from equabot_broker.schema.reading import ConfigKey, ConfigNode, Many, Named, OneOf, Section, Text, under
from equabot_broker.sources.declaration import SourceKind

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


def sources(kinds: Mapping[str, SourceKind]) -> ConfigKey[Any]:
    """The key `sources`, with these kinds."""
    return ConfigKey(
        Many(OneOf({name: kind.section for name, kind in kinds.items()}), some=True),
        "Where credentials come from. If two sources have the same profile, the first source is used.",
        default=", ".join(name for name, kind in kinds.items() if kind.usual),
        example="[{mounted: {path: /run/secrets/team}}, env]",
    )


_WIF: Final = Section(
    dict[str, str],
    {
        "token_file": ConfigKey(
            PATH,
            "The file with the workload's identity token. It is read for each exchange.",
            default="required",
            example="/run/secrets/workload/anthropic/token",
        ),
        "subject_token_type": ConfigKey(
            Text(partial(values.word, TOKEN_TYPES)), "The kind of the token, at OpenAI.", default="jwt", example="id_token"
        ),
        **{
            name: ConfigKey(
                Text(values.identifier),
                f"The provider's {name.removesuffix('_id').replace('_', ' ')}, by its id. The reference of"
                " providers says which fields a provider needs.",
                default="none",
                example="abc_01",
            )
            for name in EXCHANGE_FIELDS
        },
    },
    needs=("token_file",),
)


def profiles(kinds: Mapping[str, SourceKind]) -> ConfigKey[Any]:
    """The key `profiles`. `from` may name a value in a source of these kinds."""
    places = {name: kind.location for name, kind in kinds.items() if kind.location is not None}
    return ConfigKey(
        Named(
            values.profile,
            Section(
                ProfileSection,
                {
                    "from": ConfigKey(
                        OneOf(places),
                        "Where the profile's value is. Without it, profiles are found by name.",
                        argument="origin",
                    ),
                    "mode": ConfigKey(MODE, "What the credential is.", default="by the variable's name", example="api_key"),
                    "expires_at": ConfigKey(
                        Text(values.instant),
                        "When the credential expires. It applies to the present value, and not to a later one.",
                        default="the end in the credential itself",
                        example="2027-01-01T00:00:00Z",
                    ),
                    "alias": ConfigKey(
                        TEXT, "A short name. The broker checks and keeps it, and does not use it.", example="prod"
                    ),
                    "wif": ConfigKey(_WIF, "The workload identity that is exchanged for the credential."),
                },
            ),
        ),
        "Facts about profiles that the credentials do not contain.",
    )


_COOLDOWNS: Final = Section(
    CooldownOptions,
    {
        "billing_backoff": ConfigKey(
            DURATION,
            "How long a repeated billing failure disables a profile. The time doubles with each further failure.",
            example="5h",
        ),
        "billing_backoff_by_provider": ConfigKey(
            Named(values.provider, DURATION),
            "The same for one provider.",
            default="billing_backoff",
            example="{openrouter: 1h}",
        ),
        "billing_max": ConfigKey(DURATION, "The longest time for which a billing failure disables a profile.", example="24h"),
        "failure_window": ConfigKey(
            DURATION, "After this time without a failure, failures are counted from zero again.", example="24h"
        ),
        "retry_after_max": ConfigKey(
            DURATION, "The longest wait that a provider's `retry-after` can cause. A longer one is shortened.", example="24h"
        ),
        "billingBackoffHours": ConfigKey(
            HOURS, "`billing_backoff` as OpenClaw writes it.", default="none", example="5", argument="billing_backoff"
        ),
        "billingBackoffHoursByProvider": ConfigKey(
            Named(values.provider, HOURS),
            "`billing_backoff_by_provider` as OpenClaw writes it.",
            default="none",
            example="{openai: 2.5}",
            argument="billing_backoff_by_provider",
        ),
        "billingMaxHours": ConfigKey(
            HOURS, "`billing_max` as OpenClaw writes it.", default="none", example="24", argument="billing_max"
        ),
        "failureWindowHours": ConfigKey(
            HOURS, "`failure_window` as OpenClaw writes it.", default="none", example="24", argument="failure_window"
        ),
    },
)
AUTH: Final = Section(
    AuthSection,
    {
        "order": ConfigKey(
            Named(values.provider, Many(PROFILE, some=True)),
            "The profiles that are tried, in this order. Other profiles of the provider are not used.",
            default="by mode, the least recently used first",
            example='{anthropic: ["anthropic:prod", "anthropic:env"]}',
        ),
        "cooldowns": ConfigKey(_COOLDOWNS, "How long failures disable a profile."),
        "probe": ConfigKey(
            BOOLEAN, "Whether the broker may send a provider a small request to check a credential.", example="false"
        ),
        "profiles": ConfigKey(
            Named(
                values.profile,
                Section(
                    ConfiguredProfile,
                    {
                        "provider": ConfigKey(PROVIDER, "The provider, which must agree with the id.", example="anthropic"),
                        "mode": ConfigKey(
                            MODE,
                            "The mode, as OpenClaw writes it. The broker checks and keeps it.",
                            default="none",
                            example="oauth",
                        ),
                        "email": ConfigKey(
                            TEXT, "The account's email address. The broker checks and keeps it.", example="me@example.com"
                        ),
                    },
                ),
            ),
            "Profiles as OpenClaw's configuration lists them.",
        ),
    },
)
ENV: Final = Section(
    dict[str, Any],
    {
        "vars": ConfigKey(
            Named(values.variable, Text(SecretValue)),
            "Values for variables that the environment does not have. `env.<variable>` is the same.",
            default="none",
            example="{ACME_REGION: eu}",
            argument="variables",
        ),
        "shellEnv": ConfigKey(
            Section(
                ShellEnv,
                {
                    "enabled": ConfigKey(
                        BOOLEAN,
                        "Whether the broker runs a login shell to read variables that hold credentials.",
                        example="true",
                    ),
                    "timeout": ConfigKey(DURATION, "How long the broker waits for the shell.", example="15s"),
                    "timeoutMs": ConfigKey(
                        Text(values.milliseconds),
                        "`timeout` as OpenClaw writes it.",
                        default="none",
                        example="15000",
                        argument="timeout",
                    ),
                },
            ),
            "Variables of a login shell.",
            argument="shell",
        ),
    },
)


def environment(place: ConfigNode) -> EnvSection:
    """The `env` section, as OpenClaw writes it: variables as keys or under `vars`, next to `shellEnv`."""
    given: dict[str, Any] = {"variables": _NOTHING}
    variables: dict[str, SecretValue] = {}
    for key, child in place.pairs():
        with child.refusing():
            if key in ENV.keys:
                argument, reader = ENV.keys[key]
                given[argument] = reader(child)
            else:
                variables[values.variable(key)] = SecretValue(child.text())
    for name in sorted(variables.keys() & given["variables"].keys()):
        place.report.refuse(under(place.path, name), "is also under vars; keep one")
    return EnvSection(**{**given, "variables": MappingProxyType({**given["variables"], **variables})})
