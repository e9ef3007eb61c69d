"""Every command names the same remedy for the same credential, whatever its state and wherever it is kept."""

from dataclasses import replace
from itertools import product

import pytest

from equabot_broker.cli.doctor_logins import remedy
from equabot_broker.diagnosis.findings import findings
from equabot_broker.diagnosis.statuses import describe
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import assess, remedy_of
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile, State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.remedies import how_to_replace
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.domain.selection import Candidate

NOW = 1_800_000_000.0
SOURCES = (
    "env", "dotenv /x/.env", "profile_store", "mounted /run/secrets/equabot", "kubernetes default",
    "claude_cli /h/.claude/.credentials.json", "codex_cli /h/.codex/auth.json", "qwen_cli /h/.qwen/oauth_creds.json",
)  # fmt: skip
NAMES = ("work", "claude-cli", "codex-cli", "qwen-cli")
MODES = (Mode.API_KEY, Mode.TOKEN, Mode.OAUTH)
REFUSED = Usage(rejected="the provider refused it (401)", rejected_version=1, rejected_until=NOW + 60)


@pytest.mark.parametrize("state", [State.EXPIRED, State.REJECTED])
@pytest.mark.parametrize("agent", ["", "coder"])
def test_errors_status_doctor_and_findings_name_one_remedy(state: State, agent: str) -> None:
    """F13: for each source, mode and name; the words of the refusal itself advise nothing."""
    for source, mode, name in product(SOURCES, MODES, NAMES):
        profile = Profile(
            id=f"anthropic:{name}", provider="anthropic", mode=mode, source=source, unit="", origin=f"{source}!it",
            secret=SecretValue("s"), agent=agent, expires_at=NOW - 60 if state is State.EXPIRED else None,
        )  # fmt: skip
        held = HeldProfile(profile, rank=0, version=1)
        usage = REFUSED if state is State.REJECTED else Usage()
        standing = assess(held, usage, now=NOW, warn_within=0.0)
        assert standing.state is state
        told = remedy_of(profile, standing)
        candidate = Candidate(held, standing, usage)
        status = describe(
            candidate, reason=f"{standing.reason}; {told}", is_next=False, usable=False, pinned=False, base_url="", now=NOW
        )
        (found,) = findings(sources=(), candidates=[candidate], shadowed=(), unmet={}, store_fault="")
        assert found.remedy == told == remedy(status, agent), (source, mode, name)
        how = how_to_replace(profile.id, mode=mode, source=source, agent=agent, expired=state is State.EXPIRED)
        assert told.startswith(how)
        assert ("equabot profile clear" in told) is (state is State.REJECTED)
        assert "replace" not in standing.reason


def test_a_refused_credential_that_is_tried_again_keeps_its_remedy() -> None:
    """F13: the next request may try it, and a person may replace it."""
    profile = Profile(
        id="anthropic:env",
        provider="anthropic",
        mode=Mode.API_KEY,
        source="env",
        unit="",
        origin="env",
        secret=SecretValue("s"),
    )
    standing = assess(
        HeldProfile(profile, rank=0, version=1), replace(REFUSED, rejected_until=NOW - 1), now=NOW, warn_within=0.0
    )
    assert standing.trial
    assert remedy_of(profile, standing).startswith("replace its value in the environment; if the provider was wrong")
