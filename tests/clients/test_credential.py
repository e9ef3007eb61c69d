"""A credential that stays current, over the real wire."""

import gc
import logging
import queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import pytest

import equabot_client
from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import Broker, Credential, Lease, Outcome, errors
from tests.fakes.broker_servicer import FakeBroker, Refusal

UNIMPLEMENTED = Refusal(grpc.StatusCode.UNIMPLEMENTED)


def other_than(first: Lease, credential: Credential) -> None:
    """Waits for the next lease, which need not come with other material."""
    for _ in range(1000):
        if credential.lease().id != first.id:
            return
        threading.Event().wait(0.005)
    raise AssertionError("no other lease within five seconds")


def test_the_first_use_brings_all_of_a_lease(fake: FakeBroker, broker: Broker) -> None:
    """headers, secret, env and the lease itself, from one stream."""
    credential = broker.credential("anthropic", session="s", ttl=timedelta(minutes=5))
    assert dict(credential.headers()) == {"x-api-key": fake.secret}
    assert credential.secret().reveal() == fake.secret
    assert dict(credential.env()) == {"ANTHROPIC_API_KEY": fake.secret}
    assert credential.lease().id == "lease-1"
    assert fake.calls == ["StreamLease"]
    assert (fake.requests[0].session, fake.requests[0].ttl.ToTimedelta()) == ("s", timedelta(minutes=5))


def test_a_rotation_arrives_by_itself(fake: FakeBroker, broker: Broker) -> None:
    """And everybody who waits for it, or asked to be told, learns of it."""
    told: list[Lease] = []
    credential = broker.credential("anthropic", on_rotate=told.append)
    first = credential.lease()
    fake.rotate("sk-two")
    second = credential.wait_for_change(since=first, timeout=60)
    assert (second.secret.reveal(), second.version) == ("sk-two", 2)
    assert credential.headers()["x-api-key"] == "sk-two"
    assert [lease.secret.reveal() for lease in told] == ["sk-two"]


def test_a_renewal_is_no_rotation(fake: FakeBroker, broker: Broker) -> None:
    """Who waits for a change is not woken by a longer life."""
    told: list[Lease] = []
    credential = broker.credential("anthropic", on_rotate=told.append)
    first = credential.lease()
    fake.push(pb.LeaseEvent.RENEWED)
    with pytest.raises(errors.DeadlineExceeded, match="nothing changed"):
        credential.wait_for_change(since=first, timeout=0.2)
    assert credential.lease().expires_at > first.expires_at
    assert told == []


@pytest.mark.parametrize("delivery", ["raw", "brokered"])
def test_the_end_of_a_lease_is_reported_with_its_reason(fake: FakeBroker, broker: Broker, delivery: str) -> None:
    """C19: once for each lease, in the broker's word; a renewal is no end."""
    fake.delivery = delivery
    ends: queue.Queue[str] = queue.Queue()
    credential = broker.credential("anthropic", on_end=ends.put)
    first = credential.lease()
    fake.push(pb.LeaseEvent.RENEWED)
    fake.push(pb.LeaseEvent.REVOKED, reason="agent_suspended")
    assert ends.get(timeout=60) == "agent_suspended"
    other_than(first, credential)
    assert ends.empty()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal(grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED"), "POLICY_DENIED"),
        (None, "BROKER_UNAVAILABLE"),
    ],
    ids=["refused", "away"],
)
def test_a_token_that_does_not_go_on_is_reported(
    fake: FakeBroker, broker: Broker, refusal: Refusal | None, reason: str
) -> None:
    """C19: after a restart of the broker, which refuses now, or knows the lease no more. Where it goes on nothing is said."""
    fake.delivery = "brokered"
    ends: queue.Queue[str] = queue.Queue()
    credential = broker.credential("anthropic", on_end=ends.put)
    first = credential.lease()
    fake.stop()
    fake.start()
    other_than(first, credential)
    assert ends.empty()
    fake.stop()
    fake.forget_leases()
    if refusal is not None:
        fake.refusals["StreamLease"] = refusal
    fake.start()
    assert ends.get(timeout=60) == reason


def test_a_callback_that_fails_ends_nothing(fake: FakeBroker, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, without the secret."""

    def fail(lease: Lease) -> None:
        raise ZeroDivisionError

    credential = broker.credential("anthropic", on_rotate=fail)
    for secret in ("sk-canary-two", "sk-canary-three"):
        before = credential.lease()
        fake.rotate(secret)
        credential.wait_for_change(since=before, timeout=60)
    fake.push(pb.LeaseEvent.RENEWED)
    assert credential.secret().reveal() == "sk-canary-three"
    with caplog.at_level(logging.ERROR):
        broker.close()
    assert caplog.text.count("on_rotate of anthropic failed") == 2
    assert "canary" not in caplog.text


def test_while_the_broker_is_away_what_was_in_hand_is_served(fake: FakeBroker, broker: Broker) -> None:
    """And when it is back, on the same socket, the credential is current again, with nobody's help."""
    credential = broker.credential("anthropic")
    first = credential.lease()
    fake.stop()
    assert credential.lease() == first
    fake.secret, fake.version = "sk-after", 2
    fake.start()
    assert credential.wait_for_change(since=first, timeout=60).secret.reveal() == "sk-after"


def test_after_the_lease_has_ended_the_absence_of_the_broker_is_told(fake: FakeBroker) -> None:
    """By reason, and until it is back."""
    fake.ttl = timedelta(seconds=1)
    with equabot_client.connect(fake.address, timeout=5) as broker:
        credential = broker.credential("anthropic")
        credential.headers()
        fake.stop()
        with pytest.raises(errors.BrokerUnavailable, match="no broker answers at unix:"):
            _use_until_it_fails(credential)
        fake.start()
        assert credential.secret().reveal() == fake.secret


def _use_until_it_fails(credential: Credential) -> NoReturn:
    while True:
        credential.headers()


def test_a_first_lease_waits_for_a_broker_that_is_starting(fake: FakeBroker, broker: Broker) -> None:
    """Within the timeout: in a pod both start at once."""
    fake.stop()
    credential = broker.credential("anthropic")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(credential.headers)
        fake.start()
        assert waiting.result(60)["x-api-key"] == fake.secret


def test_a_refusal_is_told_at_once_and_forgotten_when_mended(fake: FakeBroker, broker: Broker) -> None:
    """No waiting for what only a person can mend; then the next use just works."""
    fake.refusals["StreamLease"] = Refusal(
        grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_PROFILE", metadata={"a:b": "expired"}
    )
    credential = broker.credential("anthropic")
    for _ in range(3):
        with pytest.raises(errors.NoUsableProfile) as raised:
            credential.headers()
        assert raised.value.candidates == {"a:b": "expired"}
    del fake.refusals["StreamLease"]
    assert credential.headers()["x-api-key"] == fake.secret


def test_a_broker_that_never_answers_is_given_up_in_time(fake: FakeBroker) -> None:
    """The caller gets DeadlineExceeded; the thread goes on trying, and ends when told."""
    fake.silent = {"StreamLease", "AcquireLease"}
    with equabot_client.connect(fake.address, timeout=5) as broker:
        credential = broker.credential("anthropic")
        with pytest.raises(errors.DeadlineExceeded, match=r"did not answer|granted no lease|fell silent"):
            credential.headers()
        fake.silent.clear()
        fake.wait_until(lambda: fake.streams)
        assert credential.headers()["x-api-key"] == fake.secret


def test_where_streams_are_swallowed_a_plain_lease_serves(fake: FakeBroker) -> None:
    """As behind a proxy that buffers: silence on the stream, an answer to the call."""
    fake.silent = {"StreamLease"}
    with equabot_client.connect(fake.address, timeout=10) as broker:
        assert broker.credential("anthropic").headers()["x-api-key"] == fake.secret
    assert fake.calls[:2] == ["StreamLease", "AcquireLease"]


def test_where_streams_are_unknown_the_lease_is_renewed(fake: FakeBroker, broker: Broker) -> None:
    """And brings what changed; and is given back at the end."""
    fake.refusals["StreamLease"] = UNIMPLEMENTED
    fake.ttl = timedelta(seconds=1.5)
    credential = broker.credential("anthropic")
    first = credential.lease()
    fake.rotate("sk-two")
    assert credential.wait_for_change(since=first, timeout=60).secret.reveal() == "sk-two"
    fake.wait_until(lambda: fake.calls.count("RenewLease") >= 3)
    assert fake.calls[:3] == ["StreamLease", "AcquireLease", "RenewLease"]
    credential.close()
    assert fake.revoked == ["lease-1"]


def test_at_the_end_of_a_lease_the_next_begins_before_it(fake: FakeBroker, broker: Broker) -> None:
    """The old stream stays open until the next lease is there, and its token goes on: a process may have it."""
    fake.delivery = "brokered"
    fake.ttl = timedelta(seconds=0.8)
    credential = broker.credential("anthropic")
    first = credential.lease()
    with pytest.raises(errors.DeadlineExceeded):
        credential.wait_for_change(timeout=0.45)  # more than half of it passes
    fake.push(pb.LeaseEvent.EXPIRING, reason="max_ttl")
    fake.wait_until(lambda: len(fake.streams) == 2)
    assert fake.revoked == []
    other_than(first, credential)
    assert credential.lease().secret == first.secret
    assert fake.requests[-1].succeeds == first.id


def test_a_token_goes_on_over_a_restart_of_the_broker(fake: FakeBroker, broker: Broker) -> None:
    """Which knows it only by its digest then, and so says nothing of it: what was told at first stays."""
    fake.delivery = "brokered"
    told: list[Lease] = []
    credential = broker.credential("anthropic", on_rotate=told.append)
    first = credential.lease()
    fake.wait_until(lambda: fake.streams)
    fake.stop()
    fake.start()
    fake.wait_until(lambda: "lease-2" in fake.streams)
    other_than(first, credential)
    assert fake._material(fake._leases["lease-2"]).secret == ""
    assert (credential.secret(), credential.headers(), credential.env()) == (first.secret, first.headers, first.env)
    assert told == []


def test_without_streams_a_token_goes_on_too(fake: FakeBroker, broker: Broker) -> None:
    """From one lease to the next."""
    fake.refusals["StreamLease"] = UNIMPLEMENTED
    fake.delivery, fake.ttl, fake.max_ttl = "brokered", timedelta(seconds=0.3), timedelta(seconds=0.3)
    credential = broker.credential("anthropic")
    first = credential.lease()
    fake.wait_until(lambda: fake.calls.count("AcquireLease") >= 3)
    assert credential.lease().secret == first.secret


@pytest.mark.parametrize("reason", ["max_ttl", "revoked", "shutting_down"])
def test_a_lease_that_was_ended_is_replaced_at_once(fake: FakeBroker, broker: Broker, reason: str) -> None:
    """Whatever ended it, as long as the broker grants another."""
    credential = broker.credential("anthropic")
    credential.headers()
    fake.wait_until(lambda: fake.streams)
    fake.push(pb.LeaseEvent.REVOKED, reason=reason)
    fake.wait_until(lambda: "lease-2" in fake.streams)
    assert credential.headers()["x-api-key"] == fake.secret


def test_a_lease_that_was_taken_away_is_not_served(fake: FakeBroker, broker: Broker) -> None:
    """Although its time was not over."""
    credential = broker.credential("anthropic")
    credential.headers()
    fake.refusals["StreamLease"] = Refusal(grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED")
    fake.push(pb.LeaseEvent.REVOKED, reason="policy")
    fake.wait_until(lambda: fake.calls.count("StreamLease") >= 2)
    with pytest.raises(errors.PolicyDenied):
        credential.headers()


def test_a_report_that_changes_something_returns_with_the_new_material(fake: FakeBroker, broker: Broker) -> None:
    """True means: it is in hand already."""
    credential = broker.credential("anthropic")
    used = credential.lease()
    fake.change_on_report = "sk-spare"
    assert credential.report(Outcome.RATE_LIMIT, retry_after=timedelta(seconds=7)) is True
    assert (credential.secret().reveal(), credential.lease().profile) == ("sk-spare", "anthropic:spare")
    report = next(request for request in fake.requests if isinstance(request, pb.ReportOutcomeRequest))
    assert (report.lease_id, report.outcome, report.version) == (used.id, pb.RATE_LIMIT, 1)
    assert report.retry_after.ToTimedelta() == timedelta(seconds=7)


def test_a_report_that_changes_nothing_says_so(fake: FakeBroker, broker: Broker) -> None:
    """Trying again would be no use."""
    credential = broker.credential("anthropic")
    assert credential.report(Outcome.AUTH) is False


def test_a_report_about_old_material_invites_to_try_with_the_new(fake: FakeBroker, broker: Broker) -> None:
    """It was replaced while the request was under way. Nothing is held against the new one."""
    credential = broker.credential("anthropic")
    used = credential.lease()
    fake.rotate("sk-two")
    credential.wait_for_change(since=used, timeout=60)
    fake.change_on_report = "sk-three"
    assert credential.report(Outcome.AUTH, lease=used) is True
    assert credential.secret().reveal() == "sk-two"


def test_a_report_about_a_lease_that_is_over_is_no_error(fake: FakeBroker, broker: Broker) -> None:
    """The broker forgot it; what is in hand now decides."""
    credential = broker.credential("anthropic")
    credential.headers()
    fake.forget_leases()
    assert credential.report(Outcome.AUTH) is False


def test_without_streams_a_report_brings_the_new_material_too(fake: FakeBroker, broker: Broker) -> None:
    """The lease is renewed at once instead of at two thirds."""
    fake.refusals["StreamLease"] = UNIMPLEMENTED
    credential = broker.credential("anthropic")
    credential.headers()
    fake.change_on_report = "sk-spare"
    assert credential.report(Outcome.AUTH) is True
    assert credential.secret().reveal() == "sk-spare"


def test_closing_gives_the_lease_back_and_ends_the_thread(fake: FakeBroker, broker: Broker) -> None:
    """Any number of times; afterwards every use says that it is closed."""
    with broker.credential("anthropic") as credential:
        credential.headers()
    credential.close()
    fake.wait_until(lambda: fake.revoked == ["lease-1"])
    for use in (credential.headers, credential.lease, credential.wait_for_change, lambda: credential.report(Outcome.OK)):
        with pytest.raises(errors.CredentialClosed):
            use()


def test_closing_releases_those_who_wait(fake: FakeBroker, broker: Broker) -> None:
    """They learn why."""
    credential = broker.credential("anthropic")
    lease = credential.lease()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(credential.wait_for_change, since=lease)
        credential.close()
        with pytest.raises(errors.CredentialClosed):
            waiting.result(60)


def test_a_credential_that_is_dropped_is_closed(fake: FakeBroker, broker: Broker) -> None:
    """No thread and no stream outlives the last reference to it."""
    broker.credential("anthropic").headers()
    gc.collect()
    fake.wait_until(lambda: fake.revoked == ["lease-1"])


def test_many_threads_may_use_it_while_it_rotates(fake: FakeBroker, broker: Broker) -> None:
    """Each always sees one whole lease, never a mixture of two, and one stream serves them all."""
    credential = broker.credential("anthropic")
    wrong: list[Any] = []
    rotated = threading.Event()

    def use() -> None:
        while not rotated.is_set():
            lease = credential.lease()
            secret = f"sk-{lease.version}"
            if not (lease.secret.reveal() == lease.headers["x-api-key"] == lease.env["ANTHROPIC_API_KEY"] == secret):
                wrong.append(lease.version)

    fake.secret = "sk-1"
    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use) for _ in range(4)]
        fake.wait_until(lambda: fake.streams)
        for version in range(2, 20):
            before = credential.lease()
            fake.rotate(f"sk-{version}")
            credential.wait_for_change(since=before, timeout=60)
        rotated.set()
        for user in users:
            user.result(60)
    assert wrong == []
    assert fake.calls == ["StreamLease"]


def _in_a_process_of_its_own(fake: FakeBroker, code: str) -> subprocess.CompletedProcess[str]:
    script = (
        f"import equabot_client, os, sys\nbroker = equabot_client.connect({fake.address!r}, timeout=60)\n"
        + textwrap.dedent(code)
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_an_interpreter_may_exit_with_an_open_credential(fake: FakeBroker) -> None:
    """Without a word, a warning or a wait, and the lease is given back."""
    ran = _in_a_process_of_its_own(fake, "credential = broker.credential('anthropic')\nprint(len(credential.headers()))")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n", "")
    fake.wait_until(lambda: fake.revoked == ["lease-1"])


def test_an_interpreter_may_exit_while_the_broker_is_away(fake: FakeBroker) -> None:
    """The pauses between attempts do not hold it up."""
    fake.stop()
    ran = _in_a_process_of_its_own(
        fake,
        """
        broker._timeout = 0.2
        credential = broker.credential('anthropic')
        try:
            credential.headers()
        except equabot_client.errors.BrokerUnavailable:
            print('away')
        """,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "away\n", "")


@pytest.mark.parametrize("use", [repr, str, lambda it: f"{it}", lambda it: repr(vars(it))])
def test_nothing_of_the_secret_shows(fake: FakeBroker, broker: Broker, use: Callable[[Any], str]) -> None:
    """Before and after there is something in hand."""
    credential = broker.credential("anthropic")
    assert "nothing in hand" in repr(credential)
    credential.headers()
    assert "anthropic:env until" in repr(credential)
    assert "canary" not in use(credential) + use(credential.lease) + use(credential._keeper) + use(broker)
