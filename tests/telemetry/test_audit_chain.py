"""The chain of the audit log: whatever is done to a file by hand is found, and what a crash does is not taken for it."""

import json
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.telemetry.audit_chain import (
    ACCEPTED,
    BEGUN,
    START,
    Anchored,
    AuditDoubt,
    Head,
    Unsound,
    anchor_line,
    digest_of,
    may_be_torn,
    parse_anchor,
    pseudonym,
    seal,
    unseal,
)
from equabot_broker.telemetry.audit_verification import AuditVerification, Summary

AT = "2026-11-22T16:40:00.123456Z"


def chain(*records: dict[str, object], after: Head = START) -> list[bytes]:
    """The records, sealed, behind a first one; without newlines."""
    lines = []
    begun: dict[str, object] = {"kind": BEGUN}
    for record in (begun, *records):
        line, after = seal({"ts": AT, **record}, after=after)
        lines.append(line[:-1])
    return lines


def grants(count: int) -> list[dict[str, object]]:
    return [{"kind": "granted", "session": f"s{number}"} for number in range(count)]


def verified(lines: list[bytes], *, rest: bytes = b"", captured: bool = False, noted: tuple[str, ...] = ()) -> Summary:
    verifying = AuditVerification(captured=captured, noted=noted)
    for line in lines:
        verifying.take(line)
    return verifying.end(rest)


def unsound(lines: list[bytes], *, rest: bytes = b"", captured: bool = False, noted: tuple[str, ...] = ()) -> Unsound:
    with pytest.raises(Unsound) as raised:
        verified(lines, rest=rest, captured=captured, noted=noted)
    return raised.value


def as_lines(content: bytes) -> tuple[list[bytes], bytes]:
    *lines, rest = content.split(b"\n")
    return lines, rest


LOG = chain(*grants(5))
CONTENT = b"\n".join(LOG) + b"\n"


# -- one record --------------------------------------------------------------------------------------------------------


def test_a_record_is_one_line_of_json_whose_hash_anybody_can_compute() -> None:
    """Its own hash is that of the bytes before it; `prev` is the hash of the one before."""
    line, head = seal({"ts": AT, "kind": "granted", "agent": "main"}, after=Head(6, "ab" * 32))
    assert json.loads(line) == {
        "audit": 1, "seq": 7, "ts": AT, "kind": "granted", "agent": "main", "prev": "ab" * 32, "hash": head.hash,
    }  # fmt: skip
    assert line.endswith(b'"}\n')
    assert head == Head(7, sha256(line.partition(b',"hash":')[0]).hexdigest())
    found = unseal(line[:-1])
    assert (found.head, found.before, found.kind, found.at) == (head, Head(6, "ab" * 32), "granted", AT)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3))
def test_whatever_stands_in_a_record_it_is_one_line_of_ascii(free: dict[str, str]) -> None:
    """Line ends, quotes and surrogates of what an agent sends draw no lines of their own."""
    line, head = seal({"ts": AT, "kind": "granted", "free": free}, after=START)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert unseal(line[:-1]).head == head
    assert unseal(line[:-1]).fields["free"] == free


@pytest.mark.parametrize(
    "body",
    [
        "[]", '{"audit":1,"seq":"x"', '{"audit":1,"seq":1', '{"audit":1,"seq":null,"prev":1', '{"audit":1,[',
        '{"audit":1,"seq":1,"prev":"x","kind":"k"', '{"audit":1,"a":' + "[" * 100_000,
    ],
)  # fmt: skip
def test_a_line_that_has_its_hash_and_is_no_record_is_refused(body: str) -> None:
    """Whoever can compute hashes can write anything; it must not break the reader."""
    line = f'{body},"hash":"{sha256(body.encode()).hexdigest()}"}}'.encode()
    with pytest.raises(Unsound):
        unseal(line)


def test_a_lease_is_told_apart_and_not_told() -> None:
    """The same for the same lease under one key; another under another key; nothing of the id in it."""
    name = pseudonym("0193c0ffee", key=b"k" * 32)
    assert name == pseudonym("0193c0ffee", key=b"k" * 32)
    assert len({name, pseudonym("0193c0ffee", key=b"l" * 32), pseudonym("0193c0ffef", key=b"k" * 32)}) == 3
    assert len(name) == 32
    assert "c0ffee" not in name
    assert pseudonym("\ud800", key=b"k")


# -- a sound log -------------------------------------------------------------------------------------------------------


def test_a_sound_log_says_what_it_holds() -> None:
    """How many records, from when to when, and the place to note."""
    assert verified(LOG) == Summary(
        records=6, first=AT, last=AT, after=START, head=unseal(LOG[-1]).head, lost=0, torn=0, doubts=(), accepted=0,
        anchored=None, beyond=0.0,
    )  # fmt: skip


def test_a_file_goes_on_from_the_one_before() -> None:
    """Read together they are one log; read alone, the second says from where it goes on, for whoever has the first."""
    head = unseal(LOG[-1]).head
    second = chain(*grants(2), after=head)
    assert verified([*LOG, *second]).records == 9
    assert verified(second).after == head
    assert unsound([*second, *LOG]).line == 4
    third = chain(after=unseal(second[-1]).head)
    missing = unsound([*LOG, *third])
    assert (missing.line, str(missing)) == (7, "records 7 to 9 are missing before it")


def test_what_was_lost_is_added_up() -> None:
    """A log that says it has gaps is sound, and says so."""
    assert verified(chain({"kind": "resumed", "lost": 3}, {"kind": "resumed", "lost": 4})).lost == 7


def test_starts_without_an_anchor_are_counted() -> None:
    """At those the broker could not see whether something had been cut off. The very first one had nothing to look for."""
    assert verified(chain({"kind": BEGUN, "anchor": False}, {"kind": BEGUN, "anchor": True})).doubts == (AuditDoubt.MISSING,)
    first, _ = seal({"ts": AT, "kind": BEGUN, "anchor": False}, after=START)
    later, _ = seal({"ts": AT, "kind": BEGUN, "anchor": False}, after=unseal(LOG[-1]).head)
    assert (len(verified([first[:-1]]).doubts), len(verified([later[:-1]]).doubts)) == (0, 1)


def test_a_start_in_doubt_is_one_until_it_is_accepted() -> None:
    """S17: whatever the anchor was; the record of an operator settles all doubts before it, and none after it."""
    doubtful = {"kind": BEGUN, "anchor": True, "doubt": "anchor_behind"}
    assert verified(chain(doubtful)).doubts == (AuditDoubt.BEHIND,)
    settled = verified(chain(doubtful, {"kind": BEGUN, "anchor": False, "doubt": "anchor_missing"}, {"kind": ACCEPTED}))
    assert (settled.doubts, settled.accepted) == ((), 2)
    again = verified(chain(doubtful, {"kind": ACCEPTED}, doubtful))
    assert (again.doubts, again.accepted) == ((AuditDoubt.BEHIND,), 1)


# -- the anchor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubt", [None, *AuditDoubt])
def test_an_anchor_is_read_as_it_was_written(doubt: AuditDoubt | None) -> None:
    """Always of one length, so that it is rewritten in place; brokers before wrote no doubt."""
    head = unseal(LOG[-1]).head
    line = anchor_line(Anchored(head, doubt))
    assert len(line) == len(anchor_line(Anchored(START)))
    assert parse_anchor(line) == Anchored(head, doubt)
    assert parse_anchor(b"%020d %b\n" % (head.sequence, head.hash.encode())) == Anchored(head)


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", b"7 abc\n", anchor_line(Anchored(START))[:-1], anchor_line(Anchored(START)).replace(b" -", b" whatever")],
)
def test_what_is_no_anchor_is_none(content: bytes) -> None:
    """S17: it is not taken for one that there is not."""
    with pytest.raises(Unsound):
        parse_anchor(content)


def anchored(lines: list[bytes], anchor: Head) -> Summary:
    verifying = AuditVerification(anchor=anchor)
    for line in lines:
        verifying.take(line)
    return verifying.end()


def test_a_log_is_compared_with_its_anchor() -> None:
    """S17: a cut, another chain, and how far the log goes on behind it."""
    head = unseal(LOG[-1]).head
    assert anchored(LOG, head).anchored == unseal(LOG[-1])
    with pytest.raises(Unsound, match="its anchor holds record 6: records were cut off"):
        anchored(LOG[:-1], head)
    with pytest.raises(Unsound, match="no record has the hash that its anchor holds for record 2"):
        anchored(LOG, Head(2, "0" * 64))
    line, _ = seal({"ts": "2026-11-22T16:41:00.000000Z", "kind": "granted"}, after=head)
    summary = anchored([*LOG, line[:-1]], head)
    assert summary.anchored is not None
    assert (summary.anchored.head, summary.beyond > 0) == (head, True)


@pytest.mark.parametrize("words", [b"ends with", b"stands at"])
def test_a_captured_log_is_checked_against_what_its_broker_noted(words: bytes) -> None:
    """S17: the broker's log has the end of the chain every hour. Captured with the records, it shows a cut. Also as earlier
    versions wrote it."""
    head = unseal(LOG[-1]).head
    note = b'{"message":"the audit log %b record %d, hash %b"}' % (words, head.sequence, head.hash.encode())
    assert verified([*LOG, note], captured=True).records == 6
    why = unsound([*LOG[:-1], note], captured=True)
    assert "its broker noted record 6" in str(why)
    assert verified([note, *chain(after=head)], captured=True).records == 1, "the beginning may be gone"


# -- tampering ---------------------------------------------------------------------------------------------------------


@given(at=st.integers(0, len(CONTENT) - 1), to=st.binary(min_size=1, max_size=1))
def test_any_changed_byte_is_found(at: int, to: bytes) -> None:
    """Wherever it stands, line ends included."""
    changed = CONTENT[:at] + to + CONTENT[at + 1 :]
    if changed == CONTENT:
        assert verified(*_args(changed)).records == 6
        return
    fault = unsound(*_args(changed)[:1], rest=as_lines(changed)[1])
    line = CONTENT[:at].count(b"\n") + 1
    assert line <= fault.line <= line + 1


def _args(content: bytes) -> tuple[list[bytes]]:
    return (as_lines(content)[0],)


@given(at=st.integers(0, len(CONTENT)), what=st.binary(min_size=1, max_size=300))
def test_anything_put_in_is_found(at: int, what: bytes) -> None:
    """Within a line, between lines, before and behind all of them; a copy of what is there too."""
    changed = CONTENT[:at] + what + CONTENT[at:]
    unsound(*_args(changed), rest=as_lines(changed)[1])


@given(at=st.integers(0, len(CONTENT) - 2), size=st.integers(1, len(CONTENT)))
def test_anything_taken_out_is_found_unless_it_is_the_end(at: int, size: int) -> None:
    """Whole records at the end are what a chain cannot know of: a hash that was noted before does."""
    changed = CONTENT[:at] + CONTENT[at + size :]
    lines, rest = as_lines(changed)
    head = unseal(LOG[-1]).head.hash
    if lines and not rest and lines == LOG[: len(lines)]:
        assert verified(lines).records == len(lines)
    else:
        unsound(lines, rest=rest)
    fault = unsound(lines, rest=rest, noted=(head,))
    assert fault.line or "cut" in str(fault) or "no record" in str(fault)


@given(st.permutations(range(6)))
def test_any_other_order_is_found(order: list[int]) -> None:
    """And the first line that is out of its place is named."""
    lines = [LOG[number] for number in order]
    if order == sorted(order):
        assert verified(lines).records == 6
        return
    first = next(place for place, number in enumerate(order) if place != number)
    assert unsound(lines).line == first + 1


@given(number=st.integers(0, 5))
def test_a_record_that_is_repeated_is_found(number: int) -> None:
    """At its second place."""
    assert unsound([*LOG[: number + 1], LOG[number], *LOG[number + 1 :]]).line == number + 2


@pytest.mark.parametrize("number", range(1, 5))
def test_a_record_that_was_written_anew_is_found_by_the_next(number: int) -> None:
    """Who can compute hashes must do so for all that follow; then only a noted hash shows it."""
    forged, head = seal({"ts": AT, "kind": "granted", "session": "forged"}, after=unseal(LOG[number]).before)
    fault = unsound([*LOG[:number], forged[:-1], *LOG[number + 1 :]])
    assert (fault.line, str(fault)) == (number + 2, "it does not continue the record before it: one of the two was replaced")
    whole = [*LOG[:number], forged[:-1], *chain(*grants(3), after=head)]
    assert verified(whole).records > 0
    assert "the log was replaced" in str(unsound(whole, noted=(unseal(LOG[-1]).head.hash,)))


def test_a_log_without_its_beginning_is_not_sound() -> None:
    """What stood before is not there to be judged."""
    fault = unsound(LOG[1:])
    assert (fault.line, str(fault)) == (1, "the records before the first record are missing")
    assert str(unsound([])) == "there is no record in it"


def test_a_noted_hash_may_be_shortened() -> None:
    """As people copy it; what is not there is named."""
    assert verified(LOG, noted=(unseal(LOG[2]).head.hash[:12], unseal(LOG[5]).head.hash)).records == 6
    assert "deadbeef" in str(unsound(LOG, noted=(unseal(LOG[2]).head.hash, "deadbeef")))


def test_what_a_broker_found_missing_stays_a_fault() -> None:
    """It compares the file with its anchor as it starts, and its record of that is part of the chain."""
    fault = unsound(chain({"kind": BEGUN, "expected": {"seq": 9, "hash": "x"}}))
    assert (fault.line, "missing or changed" in str(fault)) == (2, True)


# -- crashes -----------------------------------------------------------------------------------------------------------


@given(cut=st.integers(1, len(LOG[3]) - 1))
def test_a_line_that_a_crash_tore_is_vouched_for_by_the_next_start(cut: int) -> None:
    """Its record tells size and hash of what it found. Without it, or with another torn line, that is a fault."""
    torn = LOG[3][:cut]
    again = chain({"kind": "granted"}, after=unseal(LOG[2]).head)
    again[0] = seal({"ts": AT, "kind": BEGUN, "torn": digest_of(torn)}, after=unseal(LOG[2]).head)[0][:-1]
    again[1] = seal({"ts": AT, "kind": "granted"}, after=unseal(again[0]).head)[0][:-1]
    found = verified([*LOG[:3], torn, *again])
    assert (found.records, found.torn) == (5, 1)
    assert unsound([*LOG[:3], torn + b"x", *again]).line == 4
    assert unsound([*LOG[:3], torn, *chain(after=unseal(LOG[2]).head)]).line == 4
    assert unsound([*LOG[:3], torn, torn, *again]).line == 4
    assert unsound([*LOG[:3], torn]).line == 4
    unfinished = unsound(LOG[:3], rest=torn)
    assert (unfinished.line, "unfinished" in str(unfinished)) == (4, True)


@pytest.mark.parametrize(
    ("line", "torn"),
    [(LOG[1][:5], True), (LOG[1][:40], True), (b"\0" * 99, True), (b"", True), (b"root:x:0:0", False), (b'{"audit":2,', False)],
)
def test_only_what_a_broker_began_to_write_can_be_torn(line: bytes, *, torn: bool) -> None:
    """The end of another program's file is not taken for it."""
    assert may_be_torn(line) is torn


# -- what a container printed ------------------------------------------------------------------------------------------


def prefixed(line: bytes) -> bytes:
    return b"2026-11-22T16:40:00.1Z stdout F " + line


@pytest.mark.parametrize("dress", [lambda line: line, prefixed, lambda line: line + b"\r"])
def test_records_are_found_among_other_lines(dress: Callable[[bytes], bytes]) -> None:
    """With what the runtime puts before them; the others are passed over, and the beginning may be gone."""
    other = b'{"ts":"2026","message":"it says \\"audit\\":1"}'
    lines = [part for line in LOG for part in (other, dress(line), b"")]
    assert verified(lines, captured=True).records == 6
    assert verified(lines[6:], captured=True).after == unseal(LOG[1]).head
    assert unsound([*lines[:6], *lines[9:]], captured=True).line == 8
    assert unsound(lines).line == 1


def test_a_changed_record_is_found_among_other_lines() -> None:
    """No start vouches for it there: nothing can be read back from standard output."""
    assert unsound([*LOG[:2], LOG[2].replace(b"s1", b"s9"), *LOG[3:]], captured=True).line == 3


def test_a_crash_between_a_record_and_its_anchor_is_no_fault_there() -> None:
    """The next start goes on from the record before; in a file, which is read back, it never does."""
    again = chain({"kind": "granted"}, after=unseal(LOG[-1]).before)
    assert verified([*LOG, *again], captured=True).records == 8
    unsound([*LOG, *again])
    unsound([*LOG, *chain(after=unseal(LOG[-2]).before)], captured=True)


def test_a_start_whose_anchor_is_gone_begins_anew_there() -> None:
    """As after a reboot that took the state with it. It is counted: what was cut off before it cannot be seen."""
    anew, head = seal({"ts": AT, "kind": BEGUN, "anchor": False}, after=START)
    lines = [*LOG, anew[:-1], *chain(after=head)]
    assert (verified(lines, captured=True).records, verified(lines, captured=True).doubts) == (8, (AuditDoubt.MISSING,))
    unsound(lines)
