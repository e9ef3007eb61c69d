"""Advice: the same from every command, and of places that the broker reads."""

import pytest

from equabot_broker.domain.provider import EnvName, Mode, Provider
from equabot_broker.domain.remedies import ANYWHERE, Places, how_to_add, how_to_replace

ACME = Provider(id="acme", env_names=(EnvName("ACME_TOKEN", Mode.TOKEN), EnvName("ACME_API_KEY"), EnvName("ACME_KEY")))
BARE = Provider(id="bare")
ADD = "run `equabot models auth add --provider acme`"
SECRET = "kubectl create secret generic"
STORE = "equabot models auth"


@pytest.mark.parametrize(
    ("provider", "places", "said"),
    [
        (ACME, ANYWHERE, f"set ACME_API_KEY in the environment or in .env, or {ADD}"),
        (ACME, Places(("profile_store", "dotenv"), "/home/me/.env"), f"set ACME_API_KEY in /home/me/.env, or {ADD}"),
        (ACME, Places(("env",)), "set ACME_API_KEY in the environment"),
        (ACME, Places(("profile_store",)), ADD),
        (ACME, Places(("kubernetes", "kubernetes")), "put ACME_API_KEY into one of the sources (kubernetes)"),
        (ACME, Places(("mounted",), mounted=("/run/s",)), "write it to the file /run/s/ACME_API_KEY"),
        (ACME, Places(("kubernetes",), secrets=("llm",)), f"run `{SECRET} llm --from-file=ACME_API_KEY=KEY_FILE`"),
        (
            ACME,
            Places(("kubernetes",), labels=("a=b",)),
            "put ACME_API_KEY into a Secret and run `kubectl label secret NAME a=b`",
        ),
        (ACME, Places(()), "put ACME_API_KEY into one of the sources (none is configured)"),
        (BARE, ANYWHERE, "run `equabot models auth add --provider bare`"),
        (BARE, Places(("env",)), "put a credential into one of the sources (env)"),
        (None, ANYWHERE, "set ANTHROPIC_API_KEY in the environment or in .env, or run `equabot onboard`"),
    ],
)
def test_a_first_credential_goes_where_the_broker_looks(provider: Provider | None, places: Places, said: str) -> None:
    """F13, K3: a remedy names no place that no source reads, and one variable: the key's."""
    assert how_to_add(provider, places) == said


@pytest.mark.parametrize(
    ("profile", "mode", "source", "agent", "said"),
    [
        ("acme:env", Mode.API_KEY, "env", "", "replace its value in the environment"),
        ("acme:dotenv", Mode.API_KEY, "dotenv /x/.env", "", "replace its value in /x/.env"),
        ("acme:m", Mode.OAUTH, "mounted /run/s", "", "replace it in mounted /run/s"),
        (
            "acme:k",
            Mode.API_KEY,
            "profile_store",
            "",
            f"{STORE} add --method api-key --provider acme --profile-id acme:k",
        ),
        (
            "acme:t",
            Mode.TOKEN,
            "profile_store",
            "b",
            f"{STORE} paste-token --provider acme --profile-id acme:t --agent b",
        ),
        ("acme:o", Mode.OAUTH, "profile_store", "b", "equabot models auth login --provider acme --agent b"),
    ],
)
def test_a_new_credential_goes_where_the_old_one_is(profile: str, mode: Mode, source: str, agent: str, said: str) -> None:
    """The command, or the place."""
    assert how_to_replace(profile, mode=mode, source=source, agent=agent) == said
