"""`models status` at a terminal: a summary, then the providers with the worst first, each problem with its remedy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from equabot_broker.cli.status_report import StatusReport, label, severity
from equabot_broker.cli.status_views import marks
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.remedies import how_to_add, how_to_recover
from equabot_cli import output
from equabot_cli.fitting import short_path, terminal_width
from equabot_cli.output import Cell, Style

_READY: Final = "ready"
_WAITING: Final = "waiting"
"""Valid, but in a cooldown or disabled for a time."""
_STYLES: Final = {_READY: Style.GOOD, State.EXPIRING.value: Style.WARN, _WAITING: Style.WARN}
_ORDER: Final = (_READY, State.EXPIRING.value, _WAITING)
_HEADER: Final = ("PROFILE", "STATE", "ENDS", "", "SECRET", "SOURCE")
_WIDE: Final = 72
"""The width from which the masked secret has a column."""
_KINDS: Final = {"profile_store": "store", "env": "environment"}
_GOOD: Final = 1
"""The severity of `ok`. A `static` profile keeps its place among those that are `ok`."""


def show_screen(report: StatusReport) -> None:
    """Prints the report for a person."""
    show_summary(f"Agent {report.agent}", report.profiles, report.now)
    output.paragraph(_broker(report), rest="  ")
    if report.config.models.default:
        models = (report.config.models.default, *report.config.models.fallbacks)
        output.paragraph(f"Models: {', then '.join(models)}", rest="  ")
    show_profiles(report.profiles, report.now, report.agent)
    _show_missing(report)
    if report.troubles:
        output.say()
        output.heading("Sources")
    for trouble in report.troubles:
        output.line([Cell(short_path(trouble.where), Style.WARN)], indent=2)
        for message in trouble.message.split("; "):
            output.paragraph(short_path(message), first="    ", rest="    ")


def show_summary(title: str, profiles: Sequence[ProfileStatus], now: float) -> None:
    """Prints how many profiles are in each state: `Agent main: 3 ready, 1 expiring, 1 expired`."""
    counts = Counter(shown_state(profile, now) for profile in profiles if profile.mode or profile.state != State.MISSING)
    known = sorted(counts, key=lambda state: (_ORDER.index(state) if state in _ORDER else len(_ORDER), state))
    cells = [Cell(f"{counts[state]} {state}", _STYLES.get(state, Style.BAD)) for state in known]
    line, used = [Cell(title, Style.STRONG), Cell(": ")], len(title) + 2
    for cell in cells or [Cell("no credential was found", Style.BAD)]:
        if used + len(cell.text) + 1 > terminal_width():
            output.line(line)
            line, used = [Cell("  ")], 2
        line += [cell, Cell(", ")]
        used += len(cell.text) + 2
    output.line(line[:-1])


def shown_state(profile: ProfileStatus, now: float) -> str:
    """The state of a profile in one word for a person."""
    if profile.state != State.OK:
        return profile.state
    return _WAITING if max(profile.cooldown_until, profile.disabled_until) > now else _READY


def show_profiles(profiles: Sequence[ProfileStatus], now: float, agent: str) -> None:
    """Prints a row for each profile, by provider, the worst first. Below a bad one are the reason and the remedy."""
    if not profiles:
        return
    output.say()
    columns = [name for name in _HEADER if name != "SECRET" or terminal_width() >= _WIDE]
    rows = {profile.id: [_row(profile, now)[name] for name in columns] for profile in profiles}
    widths = output.column_widths([columns, *rows.values()])
    output.aligned([Cell(name, Style.FAINT) for name in columns], widths)
    for profile in _worst_first(profiles):
        output.aligned(rows[profile.id], widths)
        if waits := marks(profile, now):
            output.paragraph(waits, first="  ", rest="  ")
        if profile.state != State.OK:
            _show_help(profile, agent)


def _worst_first(profiles: Sequence[ProfileStatus]) -> list[ProfileStatus]:
    """The profiles by provider. The provider with the worst one is first, and in each provider its worst one."""
    worst: dict[str, int] = {}
    for profile in profiles:
        worst[profile.provider] = max(severity(profile), worst.get(profile.provider, 0))
    return sorted(profiles, key=lambda one: (-worst[one.provider], one.provider, -max(severity(one), _GOOD)))


def _row(profile: ProfileStatus, now: float) -> Mapping[str, Cell | str]:
    state = shown_state(profile, now)
    kind, _, place = profile.source.partition(" ")
    where = _KINDS.get(kind, kind) if not place else short_path(place)
    return {
        "PROFILE": profile.id,
        "STATE": Cell(state, _STYLES.get(state, Style.BAD)),
        "ENDS": output.relative(profile.expires_at, now) if profile.expires_at else "-",
        "": "next" if profile.next else "",
        "SECRET": label(profile),
        "SOURCE": Cell(where, Style.FAINT),
    }


def _show_help(profile: ProfileStatus, agent: str) -> None:
    """Prints the reason where the state does not say it, and what to do."""
    dated = profile.state in (State.EXPIRING, State.EXPIRED)
    reason = profile.reason.removeprefix(f"{profile.state}: ")
    if reason and reason != profile.state and not dated:
        output.paragraph(short_path(reason), first="  ", rest="  ")
    if profile.state == State.EXPIRING and profile.mode in (Mode.OAUTH, Mode.WIF):
        return
    other = "" if agent == MAIN else agent
    remedy = how_to_recover(profile.id, state=profile.state, mode=profile.mode, source=profile.source, agent=other)
    how, *also = short_path(remedy).split("; ")
    output.paragraph(how, first="  → ", rest="    ")
    for text in also:
        output.paragraph(text, first="    ", rest="    ")


def _show_missing(report: StatusReport) -> None:
    lacking = report.missing() or ([] if report.in_use else ["any provider"])
    if not lacking:
        return
    output.say()
    output.heading("Missing")
    for provider in lacking:
        remedy = how_to_add(report.config.catalog.get(provider), report.config.places)
        output.paragraph(short_path(f"{provider}: {remedy}"), first="  ", rest="    ")


def _broker(report: StatusReport) -> str:
    if report.broker:
        return f"Broker: {short_path(report.broker.removeprefix('unix:'))}"
    return "Broker: not running. `equabot serve` starts one; these states were read from the sources."
