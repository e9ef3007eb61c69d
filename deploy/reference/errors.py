"""`errors.md`: why the broker and the gateway refuse a request, and what to do."""

from collections.abc import Iterator
from inspect import getdoc
from typing import Final

from pages import literal, page, table

from equabot_broker.domain.errors import BrokerError
from equabot_broker.envoy.local_replies import REASON
from equabot_broker.envoy.refusals import GATEWAY_REASONS, STATUSES
from equabot_broker.rpc.status import DOMAIN, TRAILER, code_of

ABOUT: Final = f"""\
A gRPC call that is refused has a status code and the trailer `{TRAILER}`. The trailer is a `google.rpc.Status` with a
`google.rpc.ErrorInfo`. Its `domain` is `{DOMAIN}`, its `reason` is a word of the first table, and its `metadata` has short
texts by name. A refusal that ends by itself also has a `google.rpc.RetryInfo`.

A request that the gateway refuses has an HTTP status, and the reason in the header `{REASON}`. Its body has the form of the
provider's own errors. `retry-after` says how many seconds to wait, and `x-should-retry: false` that waiting does not help.

A reason is retryable if the same request can succeed later, without a change of the request or of the configuration. The HTTP
status is that of the gateway.
No error holds a secret or a part of one."""
GATEWAY: Final = (
    "## Reasons of the gateway alone\n\nEnvoy also answers `INVALID_ARGUMENT`, with a status from 400 to 431, to requests that"
    " it cannot read."
)


def write() -> str:
    """The page."""
    kinds = [kind for kind in _below(BrokerError) if not _of_gateway(kind)]
    narrow = [kind for kind in _below(BrokerError) if _of_gateway(kind)]
    return page(
        "Errors and reasons",
        ABOUT,
        "## Reasons",
        table(("reason", "gRPC code", "HTTP status", "retryable", "meaning", "what to do"), map(_row, kinds)),
        GATEWAY,
        table(("reason", "HTTP status", "meaning", "what to do"), sorted([*_gateway(), *map(_narrow, narrow)])),
    )


def _below(kind: type[BrokerError]) -> Iterator[type[BrokerError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)


def _texts(kind: type[BrokerError]) -> tuple[str, str]:
    means, _, remedy = (getdoc(kind) or "").partition("\n\n")
    if not remedy:
        raise SystemExit(f"{kind.__qualname__}: its docstring needs a second paragraph that says what to do")
    return means, remedy


def _row(kind: type[BrokerError]) -> tuple[str, ...]:
    again = "yes" if kind.retryable else "no"
    return (literal(kind.reason), literal(code_of(kind).name), _status(kind), again, *_texts(kind))


def _narrow(kind: type[BrokerError]) -> tuple[str, ...]:
    return (literal(kind.reason), _status(kind), *_texts(kind))


def _gateway() -> Iterator[tuple[str, ...]]:
    return ((literal(reason), str(of.status), of.means, of.remedy) for reason, of in GATEWAY_REASONS.items())


def _status(kind: type[BrokerError]) -> str:
    """The gateway answers no calls over TCP, which have the narrower kinds."""
    return str(STATUSES.get(kind, 403)) if BrokerError in kind.__bases__ or _of_gateway(kind) else ""


def _of_gateway(kind: type[BrokerError]) -> bool:
    return "Only the gateway" in _texts(kind)[0]
