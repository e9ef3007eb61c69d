"""`providers.md`: every provider that is known without configuration."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from pages import code, literal, names, page, table

from equabot_broker.domain.provider import HeaderForm, Mode, Provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.providers.forwarding import COMMON

T = TypeVar("T")

ABOUT: Final = """\
The broker knows these providers without configuration. `providers.<provider>` in the
[configuration](configuration.md#providers) changes them and adds others.

The gateway forwards a request only if a rule of its provider allows it. A rule is a method and a path after the base URL;
`{name}` matches one part of a path. What the rules can express is in [The gateway](../gateway.md#which-requests-pass)."""


def write() -> str:
    """The page."""
    known = [PROVIDERS[name] for name in sorted(PROVIDERS)]
    return page(
        "Providers",
        ABOUT,
        table(("provider", "aliases", "base URL", "login", "workload identity", "gateway"), map(_row, known)),
        _common(),
        *map(_section, known),
    )


def _common() -> str:
    headers, query, subprotocols = (names(words.split()) for words in COMMON)
    lines = (f"- headers: {headers}", f"- query parameters: {query}", f"- WebSocket protocols: {subprotocols}")
    return "\n\n".join(("The gateway forwards to every provider:", "\n".join(lines)))


def _row(provider: Provider) -> tuple[str, ...]:
    return (
        f"[`{provider.id}`](#{provider.id})",
        names(provider.aliases),
        literal(provider.base_url),
        _login(provider),
        "yes" if provider.exchange else "",
        "" if provider.gateway_fault else "yes",
    )


def _login(provider: Provider) -> str:
    if not provider.login:
        return ""
    return "browser" if provider.authorize_url else "device"


def _section(provider: Provider) -> str:
    facts = "\n".join(f"- {name}: {value}" for name, value in _facts(provider) if value)
    rules = ["Requests that the gateway forwards:", code(_by_path(provider.requests))] if provider.requests else []
    sockets = (
        ["Paths of WebSockets:", code("\n".join(rule.removeprefix("GET ") for rule in provider.websockets))]
        if provider.websockets
        else []
    )
    none = [] if not provider.gateway_fault else [f"Not in the gateway: {provider.gateway_fault}."]
    return "\n\n".join((f"## {provider.id}", facts, *rules, *sockets, *none))


def _facts(provider: Provider) -> Iterator[tuple[str, str]]:
    yield "aliases", names(provider.aliases)
    yield "base URL", literal(provider.base_url)
    yield "variables, in order of preference", ", ".join(f"`{env.name}` ({env.mode})" for env in provider.env_names)
    yield "variables with several keys", names(provider.list_env_names)
    forms = {mode: provider.header_form(mode) for mode in Mode}
    for form, modes in _inverted(forms, _header).items():
        yield ("header" if len(modes) == len(Mode) else f"header for {_modes(modes)}"), form
    variables = _inverted(provider.sdk_env, literal)
    yield "variables for the SDK", ", ".join(f"{name} ({_modes(modes)})" for name, modes in variables.items())
    yield "further variables for the SDK", names(provider.sdk_env_also)
    yield "variable for the base URL", literal(provider.address_env)
    yield "login", _login(provider)
    if provider.exchange is not None:
        yield "workload identity needs", names(provider.exchange.needs)
        yield "workload identity takes", names(provider.exchange.takes)
    yield "model for `models status --probe`", literal(provider.probe_model)
    yield "headers that the gateway forwards in addition", names(provider.forward_headers)
    yield "query parameters that the gateway forwards in addition", names(provider.query)
    yield "WebSocket protocols that the gateway forwards in addition", names(provider.subprotocols)


def _header(form: HeaderForm) -> str:
    others = [f"{name}: {value}" for name, value in form.extra.items()]
    return names([f"{form.name}: {form.prefix}<secret>", *others, *([f"{form.account}: <account>"] if form.account else [])])


def _inverted(by_mode: Mapping[Mode, T], shown: Callable[[T], str]) -> dict[str, list[Mode]]:
    """What is the same for several modes, once."""
    inverted: dict[str, list[Mode]] = {}
    for mode, value in by_mode.items():
        inverted.setdefault(shown(value), []).append(mode)
    return inverted


def _modes(modes: Sequence[Mode]) -> str:
    return ", ".join(modes)


def _by_path(rules: Iterable[str]) -> str:
    """The rules, with all methods of a path on one line."""
    methods: dict[str, list[str]] = {}
    for rule in rules:
        method, _, path = rule.partition(" ")
        methods.setdefault(path, []).append(method)
    return "\n".join(f"{' '.join(allowed)} {path}" for path, allowed in methods.items())
