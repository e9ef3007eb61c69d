"""How `models status` judges."""

from pathlib import Path

import pytest

from equabot_broker.cli.status_report import StatusReport, condition, effective
from equabot_broker.config.load import load
from equabot_broker.diagnosis.statuses import ProfileStatus

NOW = 1_795_000_000.0


def report(*profiles: ProfileStatus, home: Path, settings: str = "") -> StatusReport:
    """A report on these profiles, under this configuration."""
    (home / "equabot.yaml").write_text(settings)
    config = load(environ={"EQUABOT_HOME": str(home)}, home=home)
    return StatusReport(config=config, agent="main", profiles=profiles, troubles=(), broker="", now=NOW)


def profile(profile_id: str, state: str = "ok", **fields: object) -> ProfileStatus:
    """A profile as a broker reports it."""
    given = {"mode": "api_key", "source": "env", "usable": state in ("ok", "expiring"), **fields}
    return ProfileStatus(id=profile_id, provider=profile_id.partition(":")[0], state=state, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (["ok"], 0),
        (["expiring"], 2),
        (["expired"], 1),
        (["missing"], 1),
        (["invalid"], 1),
        (["rejected"], 1),
        (["reauth_required"], 1),
        (["ok", "expiring"], 2),
        (["ok", "expired"], 1),
        (["expiring", "rejected"], 1),
        (["ok", "invalid"], 0),
        (["ok", "missing"], 0),
        (["expiring", "invalid"], 2),
        (["invalid", "missing"], 1),
        ([], 1),
    ],
)
def test_check_is_as_bad_as_the_worst_profile(tmp_path: Path, states: list[str], verdict: int) -> None:
    """1 for what does not work, 2 for what soon will not, 0 if all is well; without a credential it is 1. P17: an invalid
    value does not count next to a valid credential."""
    profiles = [profile(f"anthropic:{number}", state) for number, state in enumerate(states)]
    assert report(*profiles, home=tmp_path).verdict() == verdict


def test_what_cannot_be_granted_is_an_alarm_whatever_its_state(tmp_path: Path) -> None:
    """P4: a billing disable of the only key; P9: an order that excludes the only profile."""
    disabled = profile("anthropic:env", usable=False, disabled_until=NOW + 60, disabled_reason="billing")
    excluded = profile("anthropic:env", usable=False, reason="not in the order, which is exclusive")
    for one in (disabled, excluded):
        assert (report(one, home=tmp_path).verdict(), report(one, home=tmp_path).unserved()) == (1, ["anthropic"])
    assert report(disabled, profile("anthropic:dotenv"), home=tmp_path).verdict() == 0


def test_a_cooldown_is_not_an_alarm(tmp_path: Path) -> None:
    """It passes by itself."""
    assert report(profile("anthropic:env", cooldown_until=NOW + 60), home=tmp_path).verdict() == 0


@pytest.mark.parametrize(
    "settings",
    ["required: [anthropic]", "models: {default: anthropic/claude-sonnet-4-5}", "models: {fallbacks: [anthropic/x]}"],
)
def test_what_is_configured_says_which_providers_are_in_use(tmp_path: Path, settings: str) -> None:
    """Then an invalid key of another vendor does not count, and a provider in use without a profile does."""
    stray = profile("groq:env", "invalid")
    fine = report(stray, profile("anthropic:env"), home=tmp_path, settings=settings)
    lacking = report(profile("openai:env"), home=tmp_path, settings=settings)
    assert (fine.in_use, fine.missing(), fine.verdict()) == (["anthropic"], [], 0)
    assert (lacking.in_use, lacking.missing(), lacking.verdict()) == (["anthropic"], ["anthropic"], 1)


def test_a_provider_that_the_agents_policy_excludes_is_not_in_use(tmp_path: Path) -> None:
    """A required provider of one agent does not count for an agent that may not have it."""
    settings = "required: [anthropic, openai]\nagents: {main: {providers: [anthropic]}, other: {providers: [openai]}}\n"
    found = report(profile("anthropic:env"), home=tmp_path, settings=settings)
    assert (found.in_use, found.missing(), found.verdict()) == (["anthropic"], [], 0)


def test_without_configuration_every_provider_with_a_profile_is_in_use(tmp_path: Path) -> None:
    """A person with one key has configured nothing."""
    both = report(profile("openai:env"), profile("anthropic:env", "expired"), home=tmp_path)
    assert (both.in_use, both.verdict()) == (["anthropic", "openai"], 1)


def test_a_profile_that_only_an_order_names_is_missing(tmp_path: Path) -> None:
    """No source holds it, so there is nothing to use."""
    assert report(profile("anthropic:gone", "missing", mode="", source=""), home=tmp_path).missing() == ["anthropic"]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "static"),
        ({"mode": "token"}, "static"),
        ({"mode": "token", "expires_at": NOW + 9e6}, "ok"),
        ({"mode": "oauth"}, "ok"),
        ({"state": "expired", "mode": "token", "expires_at": NOW - 1}, "expired"),
    ],
)
def test_what_never_ends_is_static(fields: dict[str, object], shown: str) -> None:
    """A key that says nothing of its end is not "ok until": it is static."""
    assert condition(profile("anthropic:x", **fields)) == shown  # type: ignore[arg-type]


def test_where_a_credential_comes_from(tmp_path: Path) -> None:
    """The next candidate's place: `env` for the environment and `.env`, else `profiles`; `missing` for none."""
    mounted = profile("anthropic:mounted", source="mounted /run/secrets/equabot")
    dotenv = profile("openai:dotenv", source="dotenv /home/me/.equabot/.env", label="sk-p…wxyz")
    later = profile("anthropic:env", label="sk-a…wxyz")
    seen = report(later, mounted, dotenv, home=tmp_path)
    chosen = report(later, profile("anthropic:mounted", source="mounted /x", next=True), home=tmp_path)
    assert effective(seen, "anthropic") == ("env", "sk-a…wxyz (env)")
    assert effective(seen, "openai") == ("env", "sk-p…wxyz (dotenv /home/me/.equabot/.env)")
    assert effective(chosen, "anthropic") == ("profiles", "anthropic:mounted (mounted /x)")
    assert effective(seen, "groq") == ("missing", "missing")
