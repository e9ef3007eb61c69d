"""The keys of `listen`: where the broker listens."""

from functools import partial
from typing import Final

from equabot_broker.config.document import CertificatesSection, ListenSection, RemoteSection, TokensSection
from equabot_broker.config.model import Listen
from equabot_broker.schema import values
from equabot_broker.schema.key_readers import ADDRESS, PATH, SOCKET, TEXT
from equabot_broker.schema.reading import ConfigKey, Section, Text

_LISTEN_DEFAULTS: Final = Listen()
_TOKENS: Final = Section(
    TokensSection,
    {
        "address": ConfigKey(
            ADDRESS,
            "The address for callers with a service-account token, in the metadata `authorization: Bearer …`.",
            default="required",
            example="0.0.0.0:8443",
        ),
        "audience": ConfigKey(TEXT, "The audience that a token must have.", example="equabot"),
        "validate": ConfigKey(
            Text(partial(values.word, ("token_review", "published_keys"))),
            "How a token is checked. `token_review`: by the API server; tokens of deleted pods and accounts are refused within"
            " a minute. `published_keys`: by its signature; deleted pods and accounts are not noticed.",
            example="published_keys",
        ),
        "kubeconfig": ConfigKey(
            PATH,
            "The kubeconfig with which the broker reaches the API server.",
            default="the pod's own service account",
            example="/etc/equabot/kubeconfig",
        ),
        "keys": ConfigKey(
            PATH,
            "With `published_keys`: a file with the cluster's keys, for a broker that does not reach the API server.",
            default="the keys that the API server publishes",
            example="/etc/equabot/jwks.json",
        ),
        "issuer": ConfigKey(
            TEXT,
            "With `published_keys`: the issuer of the tokens. Required together with `keys`.",
            default="the issuer that the API server names",
            example="https://kubernetes.default.svc.cluster.local",
        ),
    },
    needs=("address",),
)
_CERTIFICATES: Final = Section(
    CertificatesSection,
    {
        "address": ConfigKey(
            ADDRESS,
            "The address for callers with a client certificate.",
            default="required",
            example="0.0.0.0:8444",
        ),
        "ca": ConfigKey(
            PATH,
            "The certificates (PEM) of the authority that signs client certificates.",
            default="required",
            example="/run/secrets/equabot-tls/ca.crt",
        ),
    },
    needs=("address", "ca"),
)
_REMOTE: Final = Section(
    RemoteSection,
    {
        "certificate": ConfigKey(
            PATH,
            "The broker's certificate chain (PEM). It must contain the host name that agents use. A renewed file is used from"
            " the next connection on.",
            default="required",
            example="/run/secrets/equabot-tls/tls.crt",
        ),
        "key": ConfigKey(
            PATH,
            "The certificate's private key, not encrypted.",
            default="required",
            example="/run/secrets/equabot-tls/tls.key",
        ),
        "service_accounts": ConfigKey(_TOKENS, "Callers authenticate with a token of a Kubernetes service account."),
        "client_certificates": ConfigKey(_CERTIFICATES, "Callers authenticate with a client certificate."),
    },
    needs=("certificate", "key"),
)
LISTEN: Final = Section(
    ListenSection,
    {
        "health": ConfigKey(
            ADDRESS,
            "The address of the health service, `grpc.health.v1`.",
            default=str(_LISTEN_DEFAULTS.health),
            example="0.0.0.0:8686",
        ),
        "metrics": ConfigKey(
            ADDRESS,
            "The address of the metrics, at the path `/metrics`.",
            default=str(_LISTEN_DEFAULTS.metrics),
            example="0.0.0.0:9464",
        ),
        "gateway": ConfigKey(
            ADDRESS,
            "The address of the gateway, if one runs.",
            default=str(_LISTEN_DEFAULTS.gateway),
            example="127.0.0.1:8787",
        ),
        "admin": ConfigKey(
            SOCKET,
            "The operators' socket.",
            default="<run_dir>/admin/broker.sock",
            example="unix:/run/equabot-admin/broker.sock",
        ),
        "control": ConfigKey(
            SOCKET,
            "The socket for Envoy.",
            default="<run_dir>/gateway/control.sock",
            example="unix:/run/equabot-gateway/control.sock",
        ),
        "agents": ConfigKey(_REMOTE, "The agents' API over TCP, with TLS. Without this section the broker does not serve it."),
    },
)
