"""The usage of a profile in a store, in milliseconds as in OpenClaw."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import ModelCooldown, Usage
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_usage import as_stored, merged, restored, usage_of, with_usage

THEIRS = {
    "lastUsed": 1_769_000_000_123,
    "cooldownUntil": 1_769_000_060_000,
    "disabledUntil": 1_769_018_000_000,
    "disabledReason": "billing",
    "errorCount": 2,
    "failureCounts": {"rate_limit": 1, "billing": 1},
    "lastFailureAt": 1_769_000_000_456,
}


def test_the_seeds_fields_are_read_and_written_alike() -> None:
    """Milliseconds there, seconds here."""
    usage = usage_of(AuthDocument({"usageStats": {"openai:x": THEIRS}}), "openai:x")
    assert usage == Usage(
        last_used=1_769_000_000.123,
        cooldown_until=1_769_000_060.0,
        disabled_until=1_769_018_000.0,
        disabled_reason="billing",
        error_count=2,
        failure_counts={"rate_limit": 1, "billing": 1},
        last_failure=1_769_000_000.456,
    )
    assert with_usage(AuthDocument(), {"openai:x": usage}).raw["usageStats"] == {"openai:x": THEIRS}


def test_what_is_not_known_stays_and_what_ended_goes() -> None:
    """A success takes the cooldown out of the file."""
    document = AuthDocument({"usageStats": {"openai:x": THEIRS | {"tier": "pro"}, "openai:y": {"lastUsed": 5}, "odd": 7}})
    written = with_usage(document, {"openai:x": Usage(last_used=1_769_000_100.0), "odd": Usage()})
    assert written.raw["usageStats"] == {
        "openai:x": {"lastUsed": 1_769_000_100_000, "tier": "pro"},
        "openai:y": {"lastUsed": 5},
        "odd": {},
    }


def test_a_cooldown_of_one_model_is_read_and_written_as_openclaw_does() -> None:
    """P18: `cooldownModel` says that it is of that model alone; what the reason was stays while the cooldown is the same."""
    theirs = {"cooldownUntil": 1_769_000_060_000, "cooldownModel": "opus", "lastFailureAt": 1_769_000_000_000}
    document = AuthDocument({"usageStats": {"openai:x": theirs | {"cooldownReason": "rate_limit"}}})
    usage = usage_of(document, "openai:x")
    cooling = ModelCooldown(1_769_000_060.0, 1, 1_769_000_000.0)
    assert usage == Usage(models={"opus": cooling}, last_failure=1_769_000_000.0)
    used = with_usage(document, {"openai:x": replace(usage, last_used=1_769_000_001.0)})
    assert used.raw["usageStats"]["openai:x"] == theirs | {"cooldownReason": "rate_limit", "lastUsed": 1_769_000_001_000}
    whole = replace(usage, models={}, cooldown_until=1_769_000_090.0)
    assert with_usage(document, {"openai:x": whole}).raw["usageStats"]["openai:x"] == {
        "cooldownUntil": 1_769_000_090_000, "lastFailureAt": 1_769_000_000_000,
    }  # fmt: skip


def test_a_store_has_room_for_one_cooldown() -> None:
    """P18: that of the whole profile where it began last, else the one that ends last; the broker still knows the others."""
    models = {"a": ModelCooldown(90.0, 2, 30.0), "b": ModelCooldown(60.0, 1, 50.0)}
    ours = Usage(models=models, version=4)
    stored = as_stored(ours)
    assert stored == Usage(models={"a": ModelCooldown(90.0, 1, 30.0)}, last_failure=30.0)
    assert as_stored(stored) == stored
    assert as_stored(replace(ours, cooldown_until=80.0)).models == {}
    known = restored(stored, known=None, ours=ours)
    assert (set(known.models), known.version) == ({"a", "b"}, 4)
    assert set(restored(Usage(), known=stored, ours=ours).models) == {"b"}


@pytest.mark.parametrize(
    "stats",
    [None, 5, [], {"lastUsed": "yesterday"}, {"lastUsed": True}, {"lastUsed": -1}, {"cooldownUntil": 1e300},
     {"errorCount": -3}, {"errorCount": 2.5}, {"failureCounts": []}, {"disabledReason": "\x1b[2J"}, {"disabledReason": 4}],
)  # fmt: skip
def test_what_makes_no_sense_counts_as_never(stats: object) -> None:
    """A profile is not locked away for it."""
    assert usage_of(AuthDocument({"usageStats": {"openai:x": stats}}), "openai:x") == Usage()


def test_failure_counts_are_bounded() -> None:
    """Counters are exponents of a backoff elsewhere."""
    stats = {"errorCount": 10**400, "failureCounts": {"auth": True, "billing": 10**9, "x" * 99: 1}}
    usage = usage_of(AuthDocument({"usageStats": {"openai:x": stats}}), "openai:x")
    assert (usage.error_count, dict(usage.failure_counts)) == (10**6, {"auth": 0, "billing": 10**6, "x" * 40: 1})


INSTANTS = st.just(0.0) | st.floats(1e6, 4e9)


@given(
    usage=st.builds(
        Usage, last_used=INSTANTS, cooldown_until=INSTANTS, disabled_until=INSTANTS, last_failure=INSTANTS,
        error_count=st.integers(0, 99), failure_counts=st.dictionaries(st.sampled_from(["auth", "billing"]), st.integers(1, 9)),
        rejected=st.sampled_from(["", "refused"]), rejected_version=st.integers(0, 9),
    )
)  # fmt: skip
def test_what_is_stored_comes_back_to_the_millisecond(usage: Usage) -> None:
    """And is stable: what came back is stored as itself. A rejection is not in the file."""
    stored = as_stored(usage)
    assert as_stored(stored) == stored
    assert abs(stored.last_used - usage.last_used) < 0.001
    assert abs(stored.cooldown_until - usage.cooldown_until) < 0.001
    assert (stored.rejected, stored.error_count, stored.failure_counts) == ("", usage.error_count, usage.failure_counts)


FRESH, USED = Usage(last_used=10.0), Usage(last_used=20.0)
FAILED = Usage(last_used=20.0, last_failure=20.0, cooldown_until=80.0, error_count=1, failure_counts={"auth": 1})
LATER = Usage(last_used=30.0, last_failure=30.0, cooldown_until=330.0, error_count=2, failure_counts={"auth": 2})


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "result"),
    [
        (FRESH, FRESH, FRESH, FRESH),
        (FRESH, USED, FAILED, FAILED),
        (FRESH, FAILED, USED, FAILED),
        (FRESH, FAILED, LATER, LATER),
        (FRESH, LATER, FAILED, LATER),
        (FAILED, Usage(last_used=40.0), FAILED, Usage(last_used=40.0)),
        (FAILED, FAILED, Usage(last_used=40.0), Usage(last_used=40.0)),
        (FAILED, Usage(last_used=40.0), LATER, Usage(
            last_used=40.0, last_failure=30.0, cooldown_until=330.0, error_count=2, failure_counts={"auth": 2})),
    ],
)  # fmt: skip
def test_two_that_remember_are_merged(base: Usage, ours: Usage, theirs: Usage, result: Usage) -> None:
    """A use does not undo a failure that the other program recorded; an end of failures counts unless the other saw a new
    one."""
    assert merged(base, ours=ours, theirs=theirs) == result


@given(base=st.sampled_from([FRESH, USED, FAILED, LATER]), one=st.sampled_from([FRESH, USED, FAILED, LATER]))
def test_who_learned_nothing_changes_nothing(base: Usage, one: Usage) -> None:
    """Whichever of the two that is."""
    merged_ones = [merged(base, ours=one, theirs=base), merged(base, ours=base, theirs=one)]
    assert [(m.last_failure, m.cooldown_until) for m in merged_ones] == [(one.last_failure, one.cooldown_until)] * 2
