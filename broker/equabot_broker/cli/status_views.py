"""The output of `models status`: a JSON document, lines for scripts, or sections for users."""

from collections.abc import Sequence
from typing import Any

from equabot_broker.cli.status_report import StatusReport, condition, effective, from_environment, label, severity
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.instants import rfc3339
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.remedies import how_to_add
from equabot_cli import output
from equabot_cli.output import Cell, Style


def document(report: StatusReport) -> dict[str, Any]:
    """The report as JSON. Instants are RFC 3339, and unknown values are null."""
    config = report.config
    return {
        "configPath": str(config.file or config.home / "equabot.yaml"),
        "agentDir": str(report.agent_dir),
        "defaultModel": config.models.default or None,
        "fallbacks": list(config.models.fallbacks),
        "auth": {
            "storePath": str(report.store),
            "shellEnvFallback": {"enabled": config.shell_env.enabled, "appliedKeys": []},
            "missingProvidersInUse": report.missing(),
            "providers": [_provider(report, provider) for provider in report.providers()],
            "unusableProfiles": [entry for profile in report.profiles for entry in _unusable(profile, report.now)],
            "oauth": {
                "warnAfterMs": round(config.expiry.warn_within * 1000),
                "profiles": [_profile(profile, report.now) for profile in report.profiles],
                "providers": [_provider_health(report, provider) for provider in report.providers()],
            },
        },
    }


def _provider(report: StatusReport, provider: str) -> dict[str, Any]:
    kind, detail = effective(report, provider)
    held = [profile for profile in report.of(provider) if profile.state != State.MISSING]
    entry: dict[str, Any] = {
        "provider": provider,
        "effective": {"kind": kind, "detail": detail},
        "profiles": {
            "count": len(held),
            "oauth": sum(profile.mode == Mode.OAUTH for profile in held),
            "token": sum(profile.mode == Mode.TOKEN for profile in held),
            "apiKey": sum(profile.mode == Mode.API_KEY for profile in held),
            "labels": [f"{p.id}={label(p)} {marks(p, report.now)}".rstrip() for p in held],
        },
    }
    variable = next((profile for profile in held if from_environment(profile)), None)
    if variable is not None:
        entry["env"] = {"value": label(variable), "source": variable.source}
    return entry


def _unusable(profile: ProfileStatus, now: float) -> list[dict[str, Any]]:
    ends: list[tuple[str, float, dict[str, str]]] = [
        ("cooldown", profile.cooldown_until, {}),
        *(("cooldown", until, {"model": model}) for model, until in sorted(profile.model_cooldowns.items())),
        ("disabled", profile.disabled_until, {"reason": profile.disabled_reason} if profile.disabled_reason else {}),
        ("rejected", profile.retry_at if profile.state == State.REJECTED else 0.0, {}),
    ]
    return [
        {"profileId": profile.id, "provider": profile.provider, "kind": kind, **more}
        | {"until": rfc3339(until), "remainingMs": round((until - now) * 1000)}
        for kind, until, more in ends
        if until > now
    ]


def _ends(expires_at: float, now: float) -> dict[str, Any]:
    if not expires_at:
        return {"expiresAt": None, "remainingMs": None}
    return {"expiresAt": rfc3339(expires_at), "remainingMs": round((expires_at - now) * 1000)}


def _profile(profile: ProfileStatus, now: float) -> dict[str, Any]:
    return {
        "profileId": profile.id,
        "provider": profile.provider,
        "type": profile.mode,
        "status": condition(profile),
        **_ends(profile.expires_at, now),
        "source": profile.source,
        "label": label(profile),
        "reason": profile.reason,
        "next": profile.next,
    }


def _provider_health(report: StatusReport, provider: str) -> dict[str, Any]:
    """The state of a provider: that of its worst profile, with the end of the one that ends first."""
    profiles = report.of(provider)
    worst = max(profiles, key=severity, default=None)
    return {
        "provider": provider,
        "status": State.MISSING.value if worst is None else condition(worst),
        **_ends(min((p.expires_at for p in profiles if p.expires_at), default=0.0), report.now),
        "profiles": [profile.id for profile in profiles],
    }


def show(report: StatusReport) -> None:
    """Prints the report in sections."""
    config = report.config
    output.table([
        (Cell("Agent", Style.STRONG), report.agent),
        (Cell("Default model", Style.STRONG), config.models.default or "not configured"),
        (Cell("Fallbacks", Style.STRONG), ", ".join(config.models.fallbacks) or "none"),
        (Cell("Profile store", Style.STRONG), str(report.store)),
        (Cell("Shell environment", Style.STRONG), "on" if config.shell_env.enabled else "off"),
        (Cell("Broker", Style.STRONG), report.broker or "not running; the command read the sources itself"),
    ])  # fmt: skip
    _section("Providers", [_provider_row(report, provider) for provider in report.providers()])
    _section("Missing auth", [(provider, _remedy(report, provider)) for provider in _lacking(report)])
    _section("OAuth/token status", [_profile_row(profile, report.now) for profile in report.profiles])
    _section("Sources", [(Cell(trouble.where, Style.WARN), trouble.message) for trouble in report.troubles])


def show_plain(report: StatusReport) -> None:
    """Prints one line per profile with tabs between the columns. A provider in use without a profile also has a line."""
    rows = [(p.id, condition(p), _when(p, report.now) or "-", p.source) for p in report.profiles]
    rows += [(f"{provider}:", State.MISSING.value, "-", "-") for provider in report.missing() if not report.of(provider)]
    for row in rows:
        output.columns(row)


def _section(title: str, rows: Sequence[Sequence[Cell | str]]) -> None:
    if rows:
        output.say()
        output.heading(title)
        output.table(rows, indent=2)


def _provider_row(report: StatusReport, provider: str) -> Sequence[Cell | str]:
    kind, detail = effective(report, provider)
    held = [profile for profile in report.of(provider) if profile.state != State.MISSING]
    modes = {mode: sum(profile.mode == mode for profile in held) for mode in Mode}
    counts = ", ".join(f"{count} {mode}" for mode, count in modes.items() if count)
    if kind == "missing":
        return provider, Cell("missing", Style.BAD)
    return provider, f"{kind}: {detail}", counts


def _lacking(report: StatusReport) -> list[str]:
    return report.missing() or ([] if report.in_use else ["any provider"])


def _remedy(report: StatusReport, provider: str) -> str:
    config = report.config
    for profile in report.of(provider):
        if profile.mode == Mode.WIF:
            return f"no credential, because {profile.id} could not get one: {profile.reason}"
    return f"no credential: {how_to_add(config.catalog.get(provider), config.places)}"


def _profile_row(profile: ProfileStatus, now: float) -> Sequence[Cell | str]:
    said = [_when(profile, now), marks(profile, now)]
    if profile.mode == Mode.WIF and profile.reason:
        said = [profile.reason]
    elif profile.state not in (profile.reason, State.EXPIRING, State.EXPIRED) and not (profile.state == State.OK and said[1]):
        said.append(profile.reason)
    where = f"({profile.source})" if profile.source else ""
    mark = Cell("next", Style.FAINT) if profile.next else ""
    return profile.id, output.state_cell(condition(profile)), " ".join(filter(None, said)), where, mark


def _when(profile: ProfileStatus, now: float) -> str:
    if not profile.expires_at:
        return ""
    gone = profile.expires_at <= now
    return f"{'expired' if gone else 'expires'} {output.relative(profile.expires_at, now)}"


def marks(profile: ProfileStatus, now: float) -> str:
    """`[cooldown 5m]`, `[cooldown:opus 5m]`, `[disabled:billing 4h]`."""
    marks = []
    if profile.cooldown_until > now:
        marks.append(f"[cooldown {output.span(profile.cooldown_until - now)}]")
    for model, until in sorted(profile.model_cooldowns.items()):
        if until > now:
            marks.append(f"[cooldown:{model} {output.span(until - now)}]")
    if profile.disabled_until > now:
        marks.append(f"[disabled:{profile.disabled_reason or 'billing'} {output.span(profile.disabled_until - now)}]")
    if profile.state == State.REJECTED and profile.retry_at > now:
        marks.append(f"[tried again in {output.span(profile.retry_at - now)}]")
    return " ".join(marks)
