"""Every key of the configuration: its reader, meaning, default and example. The reference page `configuration.md` is generated
from these tables. A key that is not in them is refused."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from equabot_broker.config.credential_keys import AUTH, ENV, environment, profiles, sources
from equabot_broker.config.document import (
    AuditSection,
    ConfigDocument,
    GatewaySection,
    SealSection,
)
from equabot_broker.config.listen_keys import LISTEN
from equabot_broker.config.model import ExpiryOptions, Models
from equabot_broker.config.provider_keys import PROVIDERS
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.envoy.options import LEAST_MEMORY, GatewayMode, GatewayOptions
from equabot_broker.schema import values
from equabot_broker.schema.faults import ValueRefused, quote
from equabot_broker.schema.key_readers import (
    BOOLEAN,
    COUNT,
    DURATION,
    MODEL,
    PATH,
    PROVIDER,
    SOCKET,
    SPAN,
    TEXT,
    URL,
    any_or,
)
from equabot_broker.schema.reading import ConfigKey, ConfigNode, FaultReport, Many, Named, Section, Text
from equabot_broker.schema.tree import NotYaml, parse
from equabot_broker.sources.declaration import SourceKind
from equabot_broker.sources.registry import KINDS

_GATEWAY_DEFAULTS: Final = GatewayOptions()
_POLICY_DEFAULTS: Final = AgentPolicy()


def memory(written: str) -> int:
    """A number of bytes, as Kubernetes writes it: `256Mi`, `1Gi`. At least `128Mi`. Returns bytes."""
    bytes_ = values.size(written)
    if bytes_ < LEAST_MEMORY:
        raise ValueRefused(f"{quote(written)} is less than Envoy needs; write {LEAST_MEMORY >> 20}Mi or more")
    return bytes_


_AGENT: Final = Section(
    dict[str, Any],
    {
        "providers": ConfigKey(
            Many(Text(partial(any_or, values.provider))),
            "The providers whose credentials the agent may have.",
            default="* for main, none for any other agent",
            example="[anthropic, openrouter]",
        ),
        "profiles": ConfigKey(
            Many(Text(partial(any_or, values.profile))),
            "The profiles of these providers that the agent may have.",
            default=", ".join(_POLICY_DEFAULTS.profiles),
            example='["anthropic:prod"]',
        ),
        "deliveries": ConfigKey(
            Many(Text(partial(values.one_of, Delivery)), some=True),
            "The deliveries that the agent may ask for. The first one that is available is its default.",
            default=", ".join(_POLICY_DEFAULTS.deliveries),
            example="[brokered]",
        ),
        "max_ttl": ConfigKey(
            DURATION, "The longest lifetime of a lease, at most `leases.max_ttl`.", default="leases.max_ttl", example="15m"
        ),
        "max_leases": ConfigKey(
            COUNT, "How many leases the agent may hold at once.", default=str(_POLICY_DEFAULTS.max_leases), example="20"
        ),
        "rate": ConfigKey(
            Text(values.rate),
            "The average rate of acquire requests. Renewals have the same limit and are counted separately.",
            default="unlimited",
            example="600/m",
        ),
        "burst": ConfigKey(
            COUNT,
            "With `rate`: how many acquire requests, and how many renewals, may arrive at once.",
            default=str(_POLICY_DEFAULTS.burst),
            example="50",
        ),
        "requests": ConfigKey(
            Many(Text(values.request), some=True),
            "The requests that the agent may send through the gateway, within the list of each provider.",
            default="all that the provider's list allows",
            example='["POST /v1/messages", "GET /v1/models*"]',
        ),
        "max_requests": ConfigKey(
            COUNT,
            "How many requests the agent may have in progress in the gateway at once.",
            default=str(_POLICY_DEFAULTS.max_requests),
            example="64",
        ),
        "socket": ConfigKey(
            SOCKET, "The agent's socket.", default="<run_dir>/<agent>/broker.sock", example="/run/coder/broker.sock"
        ),
        "service_accounts": ConfigKey(
            Many(Text(values.service_account), some=True),
            "The Kubernetes service accounts that may call as this agent over TCP.",
            default="none",
            example="[agents/reviewer]",
        ),
        "certificates": ConfigKey(
            Many(TEXT, some=True),
            "The names in client certificates that may call as this agent over TCP.",
            default="none",
            example='["spiffe://cluster.local/ns/agents/sa/reviewer"]',
        ),
    },
)
_MODELS: Final = Section(
    Models,
    {
        "default": ConfigKey(MODEL, "The model in use. Its provider counts as in use.", example="anthropic/claude-sonnet-4-5"),
        "fallbacks": ConfigKey(
            Many(MODEL), "The models that are used if the default fails.", example="[openrouter/anthropic/claude-sonnet-4-5]"
        ),
        "aliases": ConfigKey(
            Named(values.text, MODEL), "Short names of models.", example="{sonnet: anthropic/claude-sonnet-4-5}"
        ),
    },
)
_LEASES: Final = Section(
    LeaseOptions,
    {
        "default_ttl": ConfigKey(
            DURATION, "The lifetime of a lease, if the request has no TTL. It is at most `max_ttl`.", example="15m"
        ),
        "max_ttl": ConfigKey(DURATION, "The longest lifetime of a lease, including renewals.", example="1h"),
    },
)
_EXPIRY: Final = Section(
    ExpiryOptions,
    {
        "warn_within": ConfigKey(SPAN, "How long before its end a credential is `expiring`.", example="24h"),
        "stale_budget": ConfigKey(
            SPAN, "How long the last good profiles of a source are served while the source cannot be read.", example="10m"
        ),
    },
)
_AUDIT: Final = Section(
    AuditSection,
    {
        "path": ConfigKey(
            PATH,
            "The file of the audit log. No other broker may write to it. `-` is standard output.",
            example="/var/log/equabot/audit.log",
        ),
        "anchor": ConfigKey(
            PATH,
            "The file with the number and the hash of the log's last record. No other broker may write to it.",
            default="audit.head next to state.db",
            example="/var/lib/equabot/audit.head",
        ),
        "fail_closed": ConfigKey(
            BOOLEAN,
            "Whether the broker refuses leases, renewals and gateway requests while the audit log cannot be written or does not"
            " match its anchor.",
            example="true",
        ),
    },
)
_GATEWAY: Final = Section(
    GatewaySection,
    {
        "mode": ConfigKey(
            Text(partial(values.one_of, GatewayMode)),
            "Who runs Envoy. `child`: the broker, as with `serve --gateway`. `sidecar`: another container, with the"
            " configuration that the broker writes to `<run_dir>/gateway/envoy.yaml`.",
            example="child",
        ),
        "url": ConfigKey(
            URL,
            "The address of the gateway, which agents get with a lease.",
            default="http:// and listen.gateway",
            example="http://gateway.internal:8787",
        ),
        "envoy": ConfigKey(
            PATH, "With `child`: the program, as a path or as a name on `PATH`.", example="/usr/local/bin/envoy"
        ),
        "ca_file": ConfigKey(
            PATH,
            "The certificates with which Envoy verifies providers, as a path that Envoy sees.",
            default=str(_GATEWAY_DEFAULTS.ca_file),
            example="/etc/ssl/cert.pem",
        ),
        "idle_timeout": ConfigKey(
            DURATION,
            "How long a request may have no traffic in either direction before the gateway ends it.",
            default=values.shown(_GATEWAY_DEFAULTS.idle_timeout),
            example="5m",
        ),
        "scrub": ConfigKey(
            BOOLEAN,
            "Whether the gateway searches each answer for the secret of its request, and replaces it.",
            example="true",
        ),
        "memory": ConfigKey(
            Text(memory),
            "The limit of Envoy's memory. It decides how many requests can be in progress at once.",
            default=f"{_GATEWAY_DEFAULTS.memory >> 20}Mi",
            example="512Mi",
        ),
        "max_connections": ConfigKey(
            COUNT,
            "How many connections agents may have open to the gateway.",
            default=str(_GATEWAY_DEFAULTS.max_connections),
            example="1024",
        ),
    },
)


def document_keys(kinds: Mapping[str, SourceKind] = KINDS) -> Section[ConfigDocument]:
    """Every key, with these kinds of sources."""
    return Section(
        ConfigDocument,
        {
            "run_dir": ConfigKey(
                PATH,
                "The directory of the sockets. Root or the broker's user must own it and the directories above it.",
                default="the first of /run/equabot, $XDG_RUNTIME_DIR/equabot and $EQUABOT_HOME/run that can be used",
                example="/run/equabot",
            ),
            "state_path": ConfigKey(
                PATH,
                "The file of leases, pins, orders, cooldowns and suspensions. It holds no secret.",
                default="<run_dir>/state.db",
                example="/var/lib/equabot/state.db",
            ),
            "listen": ConfigKey(LISTEN, "Where the broker listens."),
            "agents": ConfigKey(
                Named(values.agent, _AGENT),
                "The agents and their rights. Without this section, `main` is the only agent and may use everything.",
            ),
            "required": ConfigKey(
                Many(PROVIDER),
                "The broker is ready only if an agent can get a lease for each of these providers.",
                example="[anthropic]",
            ),
            "sources": sources(kinds),
            "profiles": profiles(kinds),
            "auth": ConfigKey(AUTH, "Which profile is used, and how long a failure disables a profile."),
            "providers": ConfigKey(PROVIDERS, "Changes to the built-in providers, and further providers."),
            "models": ConfigKey(_MODELS, "The models in use."),
            "leases": ConfigKey(_LEASES, "The lifetime of leases."),
            "expiry": ConfigKey(_EXPIRY, "When the broker warns of an expiry, and how long it serves old values."),
            "audit": ConfigKey(_AUDIT, "The audit log."),
            "gateway": ConfigKey(_GATEWAY, "The gateway, through which agents use brokered leases."),
            "env": ConfigKey(environment, "Values for variables that the broker's environment does not have.", shown=ENV),
            "seal": ConfigKey(
                Section(
                    SealSection,
                    {
                        "key_file": ConfigKey(
                            PATH,
                            "A file with keys of 32 bytes, one per line, in base64 or hexadecimal. The first key encrypts, and"
                            " all keys decrypt. Other users must not have the right to read or change the file.",
                            default="required",
                            example="/run/secrets/equabot-seal/key",
                        )
                    },
                    needs=("key_file",),
                ),
                "Encrypts the profile stores. Without this section they are not encrypted.",
            ),
        },
    )


def read(text: str, report: FaultReport, *, kinds: Mapping[str, SourceKind] = KINDS) -> ConfigDocument:
    """The document in the text. Its faults are added to the report, and the values without a fault are in the document."""
    try:
        place = ConfigNode(parse(text), "", report)
    except NotYaml as unreadable:
        report.refuse("", str(unreadable), line=unreadable.line)
        return ConfigDocument()
    with place.refusing():
        return document_keys(kinds)(place)
    return ConfigDocument()
