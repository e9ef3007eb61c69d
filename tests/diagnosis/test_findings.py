"""What an operator should know."""

from dataclasses import replace

from equabot_broker.diagnosis.findings import Finding, Severity, findings
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.credentials import assess
from equabot_broker.domain.material import HeldProfile, Shadowed, SourceFault, SourceState, Unit
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.domain.selection import Candidate
from equabot_broker.domain.suspension import Suspension

NOW = 1_000_000.0


def profile(name: str, secret: str | None = "a", *, expires_at: float | None = None, source: str = "env") -> Profile:
    return Profile(
        id=name, provider="anthropic", mode=Mode.API_KEY, source=source, unit="", origin=f"{source}!{name}",
        secret=None if secret is None else SecretValue(secret), fault="" if secret else "a placeholder", expires_at=expires_at,
    )  # fmt: skip


def candidate(held: Profile, usage: Usage | None = None) -> Candidate:
    usage = usage or Usage()
    in_effect = HeldProfile(held, rank=0, version=1)
    return Candidate(in_effect, assess(in_effect, usage, now=NOW, warn_within=86400.0), usage)


def look(**seen: object) -> list[Finding]:
    nothing = {"sources": (), "candidates": (), "shadowed": (), "unmet": {}, "store_fault": ""}
    return findings(**{**nothing, **seen})  # type: ignore[arg-type]


def test_a_broker_in_order_has_nothing_to_tell() -> None:
    """Synced sources, good keys, equal values twice: no finding."""
    sources = [SourceState("env", synced_at=1.0)]
    twice = [Shadowed(profile("anthropic:a", source="dotenv"), profile("anthropic:a"))]
    assert look(sources=sources, candidates=[candidate(profile("anthropic:a"))], shadowed=twice) == []


def test_the_gravest_come_first() -> None:
    """The store, the required providers, the sources, the profiles, what is hidden; each says what, where, what to do."""
    sources = [
        SourceState("k8s"),
        SourceState("dotenv /x", synced_at=1.0, fault="permission denied: chmod it", units={
            "": Unit("", faults=(SourceFault("/x line 3", "no equals sign"),)),
        }),
    ]  # fmt: skip
    candidates = [
        candidate(profile("anthropic:late", expires_at=NOW - 60)),
        candidate(profile("anthropic:bad", None)),
        candidate(profile("anthropic:fine")),
        candidate(profile("anthropic:poor"), Usage(disabled_until=NOW + 3600, disabled_reason="billing")),
    ]
    hidden = [Shadowed(profile("anthropic:a", "other", source="dotenv"), profile("anthropic:a"))]
    told = look(
        sources=sources, candidates=candidates, shadowed=hidden, unmet={"openai": "there is none"},
        store_fault="the disk is full: make room",
        suspensions={"coder": Suspension(since=1_800_000_000.0)},
    )  # fmt: skip
    assert [(found.severity.name, found.subject, found.message) for found in told] == [
        ("ERROR", "state", "the disk is full: make room"),
        (
            "WARNING",
            "agent coder",
            "suspended since 2027-01-15T08:00:00Z: it gets no lease, and the gateway refuses its requests",
        ),
        ("ERROR", "openai", "the provider is required, and no agent can be granted a usable profile of it: there is none"),
        ("WARNING", "k8s", "it has not been read yet"),
        ("ERROR", "dotenv /x", "permission denied: chmod it"),
        ("WARNING", "/x line 3", "no equals sign"),
        ("WARNING", "anthropic:late", "expired: expired 1m ago (env!anthropic:late)"),
        ("WARNING", "anthropic:bad", "invalid: a placeholder (env!anthropic:bad)"),
        ("WARNING", "anthropic:poor", "disabled (billing) for 1h"),
        ("INFO", "anthropic:a", "env!anthropic:a hides another value in dotenv!anthropic:a"),
    ]
    assert [found.remedy for found in told if found.subject == "anthropic:late"] == ["replace its value in the environment"]


def test_a_login_is_mended_by_logging_in() -> None:
    """With the exact command; while it may still be refreshed, that comes first."""
    login = replace(profile("acme:me", expires_at=NOW - 60), refresh=SecretValue("r"))
    found = look(candidates=[candidate(login), candidate(replace(login, reauth="invalid_grant", agent="coder"))])
    command = "run `equabot models auth login --provider acme"
    assert [finding.remedy for finding in found] == [
        f"it is refreshed by itself; should that go on failing, {command}`",
        f"{command} --agent coder`",
    ]


def test_a_workload_is_mended_where_its_identity_comes_from() -> None:
    """Nobody can replace what it is exchanged for."""
    workload = replace(profile("acme:pod", None), workload=True)
    (found,) = look(candidates=[candidate(workload)])
    assert found.remedy == "the broker exchanges it again: correct the identity token, or the trust settings at the vendor"


def test_ten_thousand_of_a_kind_are_counted() -> None:
    """Nobody reads them all, and an answer has to fit."""
    told = look(candidates=[candidate(profile(f"anthropic:{n}", None)) for n in range(10_000)])
    assert len(told) == 501
    assert told[-1] == Finding(severity=Severity.INFO, subject="findings", message="9500 more are not shown")


def test_a_suspended_agent_is_found_with_the_way_back() -> None:
    """S11: since when, why, and the command that resumes it."""
    (found,) = look(
        candidates=[candidate(profile("anthropic:fine"))],
        suspensions={"main": Suspension(since=1_800_000_000.0, reason="odd requests")},
    )
    assert found == Finding(
        severity=Severity.WARNING,
        subject="agent main",
        message="suspended since 2027-01-15T08:00:00Z (odd requests): it gets no lease, and the gateway refuses its requests",
        remedy="equabot agent resume main",
    )
