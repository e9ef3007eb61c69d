"""A refreshable login as an entry of a store: which step is next, and what each step leaves in the entry.

Beside the seed system's fields an entry has three of our own. `issuedAt` (ms) is when its access token was given.
`pendingRefresh {digest, at, by}` is written before a refresh token is sent, and taken away with the answer: who finds it,
holding the store's lock, knows that its writer died in between, so that the token may be spent. With `unanswered` in it the
writer lived, and got no answer. `reauthRequired {code, at, digest}` says that the token is refused for good. Both count only
for the refresh token that has the digest: whoever logs in anew, with whatever program, is rid of them.

A lock that ends by time can be lost by one who lives (a process that stood still, a network in two halves). So every attempt
has a name, `by`: whoever was taken for dead, and comes back, undoes nothing but its own; and only a new refresh token, which
ends every doubt about the old one, is written whatever is there.
"""

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
