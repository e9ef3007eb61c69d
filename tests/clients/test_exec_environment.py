"""Which variables a command with brokered leases is not given."""

import pytest

from equabot_broker.cli.local_broker import known_provider
from equabot_broker.domain.provider import EnvName, Mode, Provider
from equabot_broker.providers import PROVIDERS
from equabot_cli.built_in_providers import BUILT_IN
from equabot_cli.exec_environment import screened, without_credentials
from equabot_cli.known_providers import KnownProviders

ANTHROPIC = "sk-ant-api03-" + "k3y" * 30


def kept(**environ: str) -> set[str]:
    return set(screened(environ, BUILT_IN).kept)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_no_variable_of_a_known_provider_is_handed_on(provider: Provider) -> None:
    """S7: names, lists, siblings, those of SDKs, addresses, and those with which an identity is exchanged."""
    names = {env.name for env in provider.env_names} | set(provider.list_env_names) | set(provider.sdk_env.values())
    names |= {f"{name}_2" for name in names if name.endswith("_API_KEY")} | {provider.base_url_env, provider.address_env}
    names |= {f"{name}_FILE" for name in names if name.endswith(("_API_KEY", "_TOKEN"))}
    names |= set(provider.exchange.variables.values()) if provider.exchange else set()
    environ = {name: "anything" for name in names if name}
    assert screened({**environ, "KEPT": "1"}, BUILT_IN).kept == {"KEPT": "1"}
    assert kept(**{name.lower(): value for name, value in environ.items()}) == set()


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_OAUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEYS", "GOOGLE_API_KEY", "HUGGINGFACE_HUB_TOKEN",
        "ANTHROPIC_API_KEY_WORK", "OPENAI_BASE_URL", "ANTHROPIC_IDENTITY_TOKEN_FILE",
    ],
)  # fmt: skip
def test_the_variables_that_were_found_left(name: str) -> None:
    """S7: each of them was seen in the environment of a command with brokered leases."""
    assert screened({name: "x"}, BUILT_IN) == screened({}, BUILT_IN)


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_ADMIN_KEY", "OPENAI_ADMIN_KEY", "OPENAI_API_BASE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AZURE_OPENAI_AD_TOKEN", "GITHUB_PAT", "GH_ENTERPRISE_TOKEN", "MISTRAL_CLIENT_SECRET", "XAI_MANAGEMENT_KEY",
        "HUGGING_FACE_HUB_TOKEN", "XI_API_KEY", "DASHSCOPE_API_KEY", "CODEX_API_KEY", "azure_api_key",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_like_a_providers_is_not_handed_on_and_said(name: str) -> None:
    """S7: it begins as the provider's variables do and has a word for a credential in it, or other tools read it."""
    screen = screened({name: "x", "KEPT": "1"}, BUILT_IN)
    assert (screen.kept, screen.unnamed) == ({"KEPT": "1"}, (name,))


@pytest.mark.parametrize(
    "value",
    [
        ANTHROPIC, f"Bearer {ANTHROPIC}", f'"{ANTHROPIC}"', f"https://example.com/?key={ANTHROPIC}", f"a=1,b={ANTHROPIC}",
        "sk-proj-" + "x" * 40, "sk-or-v1-" + "0" * 40, "gsk_Ab3De5Gh7Jk9Mn1Pq3St5", "AIzaSyA1b2C3d4E5f6G7h8I9",
        "sk-" + "a1b2" * 8, "sk_" + "0a1b" * 12, "ghp_A1b2C3d4E5f6G7h8",
        "hf_aB3dE5gH7jK9mN1pQ3", "sk-ant-oat01-" + "t0k" * 30,
        "sk-None-" + "a1b2" * 10, "sk-cp-" + "a1b2" * 10, f"sk-first-{ANTHROPIC}",
        f"key%3D{ANTHROPIC}", rf"first line\n{ANTHROPIC}",
    ],
)  # fmt: skip
def test_a_value_that_holds_a_providers_key_is_not_handed_on_and_said(value: str) -> None:
    """S7: whatever the variable is called."""
    screen = screened({"MY_VARIABLE": value, "KEPT": "1"}, BUILT_IN)
    assert (screen.kept, screen.unnamed) == ({"KEPT": "1"}, ("MY_VARIABLE",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/opt/github_pat_tools_and_more_tools/bin:/usr/bin"), ("HOME", "/home/me"), ("AWS_SECRET_ACCESS_KEY", "x"),
        ("ANTHROPIC_MODEL", "claude-sonnet-4-5"), ("CLAUDE_CODE_MAX_OUTPUT_TOKENS", "8000"), ("GITHUB_WORKSPACE", "/w"),
        ("HF_HUB_CACHE", "/models/hf_hub_downloads_of_all"), ("OPENAI_LOG", "debug"), ("SSH_AUTH_SOCK", "/run/agent"),
        ("DATABASE_URL", "postgres://me:secret@db/x"), ("LANGUAGE", "en"), ("EDITOR", "vi"),
        ("MY_TASK", "task-ant-collection-of-ants"), ("STRIPE_KEY", "sk_live_51HxA1b2C3d4E5f6G7"),
        ("BRANCH", "sk-fix-the-thing-of-2026"),
    ],
)  # fmt: skip
def test_everything_else_is_handed_on(name: str, value: str) -> None:
    """Settings of a provider, other services, words that begin like a key."""
    assert screened({name: value}, BUILT_IN) == screened({name: value}, KnownProviders([]))


def test_what_leads_to_the_brokers_own_is_not_handed_on() -> None:
    """S7: its home, its configuration, another identity, and what the configuration names as the place of a key."""
    environ = {"EQUABOT_HOME": "/h", "EQUABOT_CONFIG": "/c", "EQUABOT_BROKER_TOKEN_FILE": "/t", "MY_LOGIN": "x", "KEPT": "1"}
    assert screened(environ, BUILT_IN, bound={"MY_LOGIN"}) == screened({"KEPT": "1"}, BUILT_IN)


def test_a_provider_of_the_configuration_counts() -> None:
    """S7: the catalog is the one that is configured."""
    own = Provider(id="acme", env_names=(EnvName("ACME_API_KEY"), EnvName("ACME_LOGIN", Mode.TOKEN)), base_url_env="ACME_URL",
                   key_prefixes=("acme-live-",))  # fmt: skip
    known = KnownProviders([known_provider(own)])
    environ = {
        "ACME_API_KEY": "x",
        "ACME_LOGIN": "x",
        "ACME_URL": "x",
        "ACME_SECRET": "x",
        "MINE": "acme-live-" + "x" * 20,
        "A": "b",
    }
    screen = screened(environ, known)
    assert (screen.kept, screen.unnamed) == ({"A": "b"}, ("ACME_SECRET", "MINE"))


def test_next_to_a_key_only_those_of_its_provider_go() -> None:
    """The command holds a key as it is; what its SDK would use next to it or before it is taken out, and nothing of others."""
    environ = {
        "ANTHROPIC_AUTH_TOKEN": "x", "ANTHROPIC_API_KEYS": "x", "CLAUDE_CODE_OAUTH_TOKEN": "x", "ANTHROPIC_API_KEY_2": "x",
        "ANTHROPIC_IDENTITY_TOKEN_FILE": "x", "ANTHROPIC_BASE_URL": "https://mine", "OPENAI_API_KEY": "y",
    }  # fmt: skip
    left = without_credentials(environ, [known_provider(PROVIDERS["anthropic"])])
    assert left == {"ANTHROPIC_BASE_URL": "https://mine", "OPENAI_API_KEY": "y"}


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_next_to_a_key_none_of_the_providers_other_variables_stays(provider: Provider) -> None:
    """C6, P13: every name under which the vendor's SDKs and other tools look for a credential of it, in any spelling."""
    names = {env.name for env in provider.env_names} | set(provider.sdk_env_names()) | set(provider.other_env)
    environ = dict.fromkeys([*names, *map(str.lower, names), *provider.list_env_names], "left over")
    assert without_credentials({**environ, "KEPT": "1"}, [known_provider(provider)]) == {"KEPT": "1"}


def test_a_long_environment_is_looked_at_in_one_pass() -> None:
    """No value can make the look at it take long: 1 MiB of what begins like keys."""
    assert kept(A="sk-ant-" * 150_000, B="hf_" * 350_000, C="a" * (1 << 20)) >= {"C"}
