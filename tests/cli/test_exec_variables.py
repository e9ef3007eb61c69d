"""Which variables a command is given of its leases."""

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from equabot_broker.cli.local_broker import known_provider
from equabot_broker.domain.credentials import sdk_env, token_env
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.providers import PROVIDERS
from equabot_cli import exec_variables
from equabot_cli.exec_variables import As, is_claude_code, merged, program, sdk
from equabot_cli.exits import Failure
from equabot_cli.known_providers import KnownProvider
from equabot_client import Lease
from equabot_client._secret import Secret, SecretMap

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GATEWAY = "http://127.0.0.1:8787"
TOKEN = "eqb_" + "t" * 43
OPENAI, ANTHROPIC = PROVIDERS["openai"], PROVIDERS["anthropic"]


def lease(provider: Provider, *, mode: Mode = Mode.API_KEY, delivery: str = "brokered", secret: str = TOKEN) -> Lease:
    """As the broker grants it."""
    brokered = delivery == "brokered"
    address = f"{GATEWAY}/{provider.id}" if brokered else provider.base_url
    value = SecretValue(secret)
    form = provider.header_form(mode)
    return Lease(
        id="l1", provider=provider.id, profile=f"{provider.id}:env", mode=mode, delivery=delivery, secret=Secret(secret),
        headers=SecretMap({form.name: form.prefix + secret}),
        env=SecretMap(token_env(provider, value, address) if brokered else sdk_env(provider, mode, value)),
        base_url=address, issued_at=NOW, expires_at=NOW, max_expires_at=NOW, credential_expires_at=None,
        renewable=True, version=1,
    )  # fmt: skip


def known(provider: Provider | None) -> KnownProvider | None:
    """What a command knows of it."""
    return None if provider is None else known_provider(provider)


def variables(granted: Lease, *, provider: Provider | None, sdk: Provider | None, command: Sequence[str]) -> Mapping[str, str]:
    """What the command is given of the lease."""
    return exec_variables.variables(granted, provider=known(provider), sdk=known(sdk), command=command)


def unread(granted: Lease, *, provider: Provider | None, sdk: Provider | None) -> str:
    """The variable that no SDK is known to read."""
    return exec_variables.unread(granted, provider=known(provider), sdk=known(sdk))


@pytest.mark.parametrize("provider", [p for p in PROVIDERS.values() if p.base_url], ids=lambda p: p.id)
def test_every_provider_can_be_given_to_a_command_or_the_refusal_says_how(provider: Provider) -> None:
    """C7: with a token, each of the built-in providers."""
    granted, other = lease(provider), None
    if provider.speaks and not provider.base_url_env:
        with pytest.raises(Failure, match=f"`--as {provider.speaks}`"):
            variables(granted, provider=provider, sdk=None, command=["tool"])
        other = PROVIDERS[provider.speaks]
    given = variables(granted, provider=provider, sdk=other, command=["tool"])
    assert unread(granted, provider=provider, sdk=other) == ("" if provider.base_url_env or other else provider.address_env)
    assert given[next(name for name in given if name.endswith("_BASE_URL"))] == f"{GATEWAY}/{provider.id}"
    assert set(given.values()) == {TOKEN, f"{GATEWAY}/{provider.id}"}


def test_a_compatible_provider_comes_under_the_variables_of_the_sdk() -> None:
    """C7: and under no other, so that nothing goes to the vendor with a token."""
    openrouter = PROVIDERS["openrouter"]
    given = variables(lease(openrouter), provider=openrouter, sdk=OPENAI, command=["tool"])
    assert given == {"OPENAI_API_KEY": TOKEN, "OPENAI_BASE_URL": f"{GATEWAY}/openrouter"}
    given = variables(lease(openrouter), provider=openrouter, sdk=ANTHROPIC, command=["tool"])
    address = f"{GATEWAY}/openrouter"
    assert given == {"ANTHROPIC_API_KEY": TOKEN, "ANTHROPIC_AUTH_TOKEN": TOKEN, "ANTHROPIC_BASE_URL": address}


def test_a_key_itself_comes_with_the_vendors_address() -> None:
    """C7: in the variable that makes the SDK send the vendor's header; Anthropic's SDKs add `/v1` by themselves."""
    raw = lease(PROVIDERS["openrouter"], delivery="raw", secret="sk-or-1")
    given = variables(raw, provider=PROVIDERS["openrouter"], sdk=OPENAI, command=["tool"])
    assert given == {"OPENAI_API_KEY": "sk-or-1", "OPENAI_BASE_URL": "https://openrouter.ai/api/v1"}
    given = variables(raw, provider=PROVIDERS["openrouter"], sdk=ANTHROPIC, command=["tool"])
    assert given == {"ANTHROPIC_AUTH_TOKEN": "sk-or-1", "ANTHROPIC_BASE_URL": "https://openrouter.ai/api"}
    with pytest.raises(Failure, match=r"providers\.litellm\.base_url"):
        variables(lease(PROVIDERS["litellm"], delivery="raw"), provider=None, sdk=OPENAI, command=["tool"])


@pytest.mark.parametrize("mode", [Mode.API_KEY, Mode.TOKEN, Mode.OAUTH, Mode.WIF])
def test_a_tokens_variables_do_not_depend_on_the_mode_behind_it(mode: Mode) -> None:
    """C3, C22: Claude Code gets the one that it does not ask about, any other program both."""
    granted = lease(ANTHROPIC, mode=mode)
    address = {"ANTHROPIC_BASE_URL": f"{GATEWAY}/anthropic"}
    both = {"ANTHROPIC_API_KEY": TOKEN, "ANTHROPIC_AUTH_TOKEN": TOKEN, **address}
    assert variables(granted, provider=ANTHROPIC, sdk=None, command=["python", "agent.py"]) == both
    asked_nothing = {"ANTHROPIC_AUTH_TOKEN": TOKEN, **address}
    assert variables(granted, provider=ANTHROPIC, sdk=None, command=["claude", "-p"]) == asked_nothing
    assert variables(granted, provider=None, sdk=ANTHROPIC, command=["/opt/claude"]) == asked_nothing


@pytest.mark.parametrize("mode", [Mode.TOKEN, Mode.OAUTH])
def test_claude_code_knows_a_claude_login_by_its_own_variable(mode: Mode) -> None:
    """C5: with it, it sends the header without which the vendor refuses such a login."""
    raw = lease(ANTHROPIC, mode=mode, delivery="raw", secret="sk-ant-oat01-x")
    given = variables(raw, provider=ANTHROPIC, sdk=None, command=["claude"])
    assert given == {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-x"}
    key = lease(ANTHROPIC, delivery="raw", secret="sk-ant-api03-x")
    assert variables(key, provider=ANTHROPIC, sdk=None, command=["claude"]) == {"ANTHROPIC_API_KEY": "sk-ant-api03-x"}


def test_one_key_is_given_to_all_sdks_of_the_vendor() -> None:
    """C9: Google's own, and the Vercel AI SDK."""
    google = PROVIDERS["google"]
    given = variables(lease(google, delivery="raw", secret="AIza1"), provider=google, sdk=None, command=["tool"])
    assert given == {"GEMINI_API_KEY": "AIza1", "GOOGLE_GENERATIVE_AI_API_KEY": "AIza1"}


def test_a_codex_login_has_variables() -> None:
    """C12: its names are written into the configuration of Codex."""
    codex = PROVIDERS["openai-codex"]
    given = variables(lease(codex, mode=Mode.OAUTH), provider=codex, sdk=None, command=["codex"])
    assert given == {"OPENAI_CODEX_TOKEN": TOKEN, "OPENAI_CODEX_BASE_URL": f"{GATEWAY}/openai-codex"}


def test_what_the_brokers_configuration_adds_is_taken_as_it_comes() -> None:
    """A provider that is unknown here, with a variable for its address and without."""
    own = Provider(id="acme", sdk_env={Mode.API_KEY: "ACME_KEY"}, base_url_env="ACME_URL")
    given = variables(lease(own), provider=None, sdk=None, command=["tool"])
    assert given == {"ACME_KEY": TOKEN, "ACME_URL": f"{GATEWAY}/acme"}
    with pytest.raises(Failure, match=r"equabot key"):
        variables(lease(Provider(id="acme")), provider=None, sdk=None, command=["tool"])


@pytest.mark.parametrize(
    "command",
    [
        ["claude"], ["/usr/local/bin/claude", "-p", "x"], ["claude.exe"], ["npx", "-y", "@anthropic-ai/claude-code"],
        ["npx", "@anthropic-ai/claude-code@2.1.0"], ["env", "A=b", "claude"], ["timeout", "30", "claude"],
        ["sh", "-c", "claude -p 'hello'"], ["sh", "-c", "exec claude"], ["nice", "-n", "5", "claude"],
    ],
)  # fmt: skip
def test_claude_code_is_known_also_behind_a_launcher(command: list[str]) -> None:
    """C3; and C5: the broker chooses a credential for it."""
    assert is_claude_code(command)
    assert program(command) == "claude"


@pytest.mark.parametrize(
    "command",
    [["python", "claude"], ["aider", "--model", "claude"], ["claude-agent"], ["sh", "-c", "echo 'claude"], ["env"],
     ["git", "x"],      ["sh", "-c", "python agent.py --model claude"], ["npx", "tsx", "claude"]],
)  # fmt: skip
def test_what_only_has_the_word_in_it_is_another_program(command: list[str]) -> None:
    """It is given both variables."""
    assert not is_claude_code(command)
    assert program(command) == command[0]


def test_what_may_be_asked_for() -> None:
    """For every lease, or for one provider's."""
    assert (sdk("openai"), sdk("open-router=anthropic")) == (As("", "openai"), As("open-router", "anthropic"))
    for wrong in ("gemini", "=openai", "openrouter=", "openrouter", ""):
        with pytest.raises(ArgumentTypeError, match="openai or anthropic"):
            sdk(wrong)


def test_two_leases_do_not_share_a_variable() -> None:
    """C7: whichever came last would win."""
    assert merged([("a", {"X": "1"}), ("b", {"Y": "2"})]) == {"X": "1", "Y": "2"}
    with pytest.raises(Failure, match="a and b both set X"):
        merged([("a", {"X": "1"}), ("b", {"X": "1"})])
