"""The usage of profiles in a store, shared with OpenClaw: `usageStats`, in milliseconds.

A store has room for one cooldown: of the whole profile, or of the model in `cooldownModel`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from equabot_broker.domain.cooldowns import ModelCooldown, Usage
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.parsing.untrusted_json import Json

_INSTANT_MAX: Final = 253_402_300_799_000  # the end of the year 9999
_COUNT_MAX: Final = 1_000_000
_FIELDS: Final = frozenset(
    {
        "lastUsed", "cooldownUntil", "cooldownModel", "disabledUntil", "disabledReason", "errorCount", "failureCounts",
        "lastFailureAt",
    }
)  # fmt: skip
_COOLDOWN: Final = ("cooldownUntil", "cooldownModel")
_MODEL_MOST: Final = 256


def usage_of(document: AuthDocument, entry_id: str) -> Usage:
    """The usage of an entry. Malformed parts count as absent."""
    stats = (document.raw.get("usageStats") or {}).get(entry_id)
    if not isinstance(stats, dict):
        return Usage()
    counts, why = stats.get("failureCounts"), stats.get("disabledReason")
    until, model = _seconds(stats, "cooldownUntil"), _model(stats.get("cooldownModel"))
    of_model = {model: ModelCooldown(until, last_failure=_seconds(stats, "lastFailureAt"))} if model and until else {}
    return Usage(
        last_used=_seconds(stats, "lastUsed"),
        cooldown_until=0.0 if of_model else until,
        models=of_model,
        disabled_until=_seconds(stats, "disabledUntil"),
        disabled_reason=why[:40] if isinstance(why, str) and why.isprintable() else "",
        error_count=_count(stats.get("errorCount")),
        failure_counts={name[:40]: _count(n) for name, n in counts.items()} if isinstance(counts, dict) else {},
        last_failure=_seconds(stats, "lastFailureAt"),
    )


def with_usage(document: AuthDocument, changed: Mapping[str, Usage]) -> AuthDocument:
    """The store with the usage of these entries; their other fields stay."""
    stats = {**(document.raw.get("usageStats") or {})}
    for entry_id, usage in changed.items():
        before = stats.get(entry_id)
        written, known = dict(_written(usage)), before if isinstance(before, dict) else {}
        kept = {name: value for name, value in known.items() if name not in _FIELDS}
        if any(written.get(name) != known.get(name) for name in _COOLDOWN):
            kept.pop("cooldownReason", None)  # it belonged to another cooldown
        stats[entry_id] = written | kept
    return AuthDocument({**document.raw, "usageStats": stats})


def as_stored(usage: Usage) -> Usage:
    """The usage as a store returns it: in milliseconds, without what a store cannot hold."""
    return usage_of(with_usage(AuthDocument(), {"": usage}), "")


def merged(base: Usage, *, ours: Usage, theirs: Usage) -> Usage:
    """Merges the changes of two programs since a common state. The program that recorded a failure or its end wins; of two
    failures, the later one. The later use wins."""
    failing = theirs
    if _failures(theirs) == _failures(base) or (_failures(ours) != _failures(base) and ours.last_failure > theirs.last_failure):
        failing = ours
    return replace(failing, last_used=max(ours.last_used, theirs.last_used))


def restored(stored: Usage, *, known: Usage | None, ours: Usage) -> Usage:
    """The usage of a store, where `known` is its former usage, with the broker's values for what a store cannot hold."""
    reported = frozenset() if known is None else known.models.keys()
    models = {name: cooling for name, cooling in ours.models.items() if name not in reported}
    return replace(
        stored,
        rejected=ours.rejected,
        rejected_version=ours.rejected_version,
        rejected_until=ours.rejected_until,
        rejections=ours.rejections,
        models={**models, **stored.models},
        version=ours.version,
    )


def _failures(usage: Usage) -> Usage:
    return replace(usage, last_used=0.0)


def _written(usage: Usage) -> Iterator[tuple[str, object]]:
    model, cooling = _shown(usage)
    for name, seconds in (
        ("lastUsed", usage.last_used),
        ("cooldownUntil", usage.cooldown_until if cooling is None else cooling.until),
        ("disabledUntil", usage.disabled_until),
        ("lastFailureAt", max(usage.last_failure, 0.0 if cooling is None else cooling.last_failure)),
    ):
        if seconds > 0:
            yield name, round(seconds * 1000)
    if cooling is not None:
        yield "cooldownModel", model
    if usage.disabled_until:
        yield "disabledReason", usage.disabled_reason
    if usage.error_count:
        yield "errorCount", usage.error_count
    if usage.failure_counts:
        yield "failureCounts", dict(usage.failure_counts)


def _shown(usage: Usage) -> tuple[str, ModelCooldown | None]:
    """The model whose cooldown the store gets: the one that ends last, unless a cooldown of the whole profile began later."""
    if not usage.models:
        return "", None
    model, cooling = max(usage.models.items(), key=lambda item: (item[1].until, item[0]))
    whole = usage.cooldown_until > max(met.last_failure for met in usage.models.values())
    return ("", None) if whole or cooling.until <= 0 else (model, cooling)


def _model(value: object) -> str:
    """A model's name, if it is valid."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= _MODEL_MOST else ""


def _seconds(stats: Json, name: str) -> float:
    value = stats.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _INSTANT_MAX:
        return 0.0
    return value / 1000


def _count(value: object) -> int:
    return min(value, _COUNT_MAX) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
