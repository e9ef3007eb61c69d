"""How a person logs in again, where a login cannot be refreshed any more."""

from typing import Final

from equabot_broker.domain.profiles import Profile

INTERRUPTED: Final = "interrupted"
"""The code of a login whose refresh nobody lived to finish."""
SUPERSEDED: Final = "superseded"
"""The code of a login whose refresh token was exchanged or given up before, and has been put back."""

_OTHERS: Final = {"claude-cli": "claude setup-token", "codex-cli": "codex login", "qwen-cli": "qwen"}
"""Names of logins that are made by other tools, and the command with which those log in."""


def login_command(profile_id: str, agent: str = "") -> str:
    """The command with which a person logs in again."""
    provider, _, name = profile_id.partition(":")
    of_agent = f" --agent {agent}" if agent else ""
    return _OTHERS.get(name) or f"equabot models auth login --provider {provider}{of_agent}"


def how_to_log_in(profile: Profile) -> str:
    """What a person does to bring a new login to where the profile's is kept."""
    command = login_command(profile.id, profile.agent)
    if profile.source.partition(" ")[0] != "kubernetes":
        return f"run `{command}`"
    if profile.origin.endswith(".credentials.json"):
        command = "claude"
    return f"run `{command}` on a machine of yours, and put the login that it stores into {profile.origin}"


# -- what an entry says ------------------------------------------------------------------------------------------------


# -- what each step leaves ---------------------------------------------------------------------------------------------
