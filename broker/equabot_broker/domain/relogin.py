"""How a person logs in again after a login can no longer be refreshed."""

from typing import Final

from equabot_broker.domain.profiles import Profile

INTERRUPTED: Final = "interrupted"
"""The code of a login whose refresh was interrupted, so that its refresh token may be spent."""
SUPERSEDED: Final = "superseded"
"""The code of a login that was restored with a refresh token that was used or replaced before."""

_OTHERS: Final = {"claude-cli": "claude setup-token", "codex-cli": "codex login", "qwen-cli": "qwen"}
"""The profile names of logins of other tools, and the command that logs in there."""


def login_command(profile_id: str, agent: str = "") -> str:
    """The command that logs in again."""
    provider, _, name = profile_id.partition(":")
    of_agent = f" --agent {agent}" if agent else ""
    return _OTHERS.get(name) or f"equabot models auth login --provider {provider}{of_agent}"


def how_to_log_in(profile: Profile) -> str:
    """How a person logs in again, and where the new login goes."""
    command = login_command(profile.id, profile.agent)
    if profile.source.partition(" ")[0] != "kubernetes":
        return f"run `{command}`"
    if profile.origin.endswith(".credentials.json"):
        command = "claude"
    return f"run `{command}` on your machine, and put the login that it stores into {profile.origin}"
