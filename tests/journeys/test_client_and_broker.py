"""An agent's credential and a real broker, each in a process of its own."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NoReturn

import httpx2
import pytest

import equabot_client.admin
import equabot_client.aio
from equabot_client import Credential, EventKind, Outcome, errors
from equabot_client.httpx2 import EquabotAuth
from tests.fakes.upstream import Upstream
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker


def _becomes(credential: Credential, secret: str) -> None:
    lease = credential.lease()
    while lease.secret.reveal() != secret:
        lease = credential.wait_for_change(since=lease, timeout=60)


def _use_until_it_fails(credential: Credential) -> NoReturn:
    while True:
        credential.headers()


def test_a_rotation_in_the_env_file_reaches_an_open_credential(running_broker: RunningBroker) -> None:
    """Pushed, and followed back and forth; one stream serves all the time."""
    with running_broker.connect() as broker, broker.credential("anthropic") as credential:
        assert dict(credential.headers()) == {"x-api-key": KEY}
        first = credential.lease()
        for key in (OTHER_KEY, KEY, OTHER_KEY):
            running_broker.write_dotenv(f"ANTHROPIC_API_KEY={key}\n")
            _becomes(credential, key)
        assert credential.lease().id == first.id
        assert credential.lease().version > first.version


def test_a_broker_that_is_killed_and_started_again_is_not_noticed(running_broker: RunningBroker) -> None:
    """`headers()` goes on in every thread, and follows what changed meanwhile as soon as the broker is back."""
    with running_broker.connect() as broker, broker.credential("anthropic") as credential:
        first = credential.lease()
        over = threading.Event()

        def use() -> int:
            uses = 0
            while not over.wait(0.001):
                assert credential.headers()["x-api-key"] in (KEY, OTHER_KEY)
                uses += 1
            return uses

        with ThreadPoolExecutor(4) as pool:
            users = [pool.submit(use) for _ in range(4)]
            try:
                running_broker.kill()
                running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
                assert credential.lease() == first
                running_broker.start()
                _becomes(credential, OTHER_KEY)
            finally:
                over.set()
            assert all(user.result(60) > 0 for user in users)
        assert credential.lease().id != first.id


def test_a_broker_that_is_stopped_in_good_order_is_not_noticed_either(running_broker: RunningBroker) -> None:
    """The stream is told that the broker shuts down; the lease in hand is served on."""
    with running_broker.connect() as broker, broker.credential("anthropic") as credential:
        first = credential.lease()
        assert running_broker.stop() == 0
        assert credential.lease() == first
        running_broker.start()
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        _becomes(credential, OTHER_KEY)


async def test_an_event_loop_lives_through_the_same(running_broker: RunningBroker) -> None:
    """Rotation, kill, restart."""
    address = str(running_broker.socket())
    async with equabot_client.aio.connect(address) as broker, broker.credential("anthropic") as credential:
        first = await credential.lease()
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        second = await credential.wait_for_change(since=first, timeout=60)
        assert second.secret.reveal() == OTHER_KEY
        await asyncio.to_thread(running_broker.kill)
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
        assert await credential.lease() == second
        await asyncio.to_thread(running_broker.start)
        assert (await credential.wait_for_change(since=second, timeout=60)).secret.reveal() == KEY


def test_a_key_that_vanishes_is_served_no_longer_and_one_that_comes_is(running_broker: RunningBroker) -> None:
    """With the broker's own reason in between."""
    with running_broker.connect() as broker, broker.credential("anthropic") as credential:
        first = credential.lease()
        running_broker.write_dotenv("# nothing here\n")
        with pytest.raises(errors.NoUsableProfile) as raised:
            _use_until_it_fails(credential)
        assert raised.value.retryable
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        assert credential.wait_for_change(since=first, timeout=60).secret.reveal() == OTHER_KEY


def test_a_lease_that_reaches_its_end_is_followed_by_another(make_broker: MakeBroker) -> None:
    """Without a moment at which there is none."""
    running = make_broker(
        dotenv=f"ANTHROPIC_API_KEY={KEY}\n",
        config="agents: {main: {providers: ['*'], max_ttl: 2s}}\nleases: {default_ttl: 1s, max_ttl: 2s}\n",
    ).start()
    with running.connect() as broker, broker.credential("anthropic") as credential:
        seen = {credential.lease().id}
        unhurried = threading.Event()
        while len(seen) < 2:
            lease = credential.lease()
            assert lease.secret.reveal() == KEY
            seen.add(lease.id)
            unhurried.wait(0.001)


def test_leaving_gives_every_lease_back(running_broker: RunningBroker) -> None:
    """Streamed and plain."""
    with equabot_client.admin.connect(str(running_broker.socket("admin"))) as operator:
        with running_broker.connect() as broker:
            credential = broker.credential("anthropic", session="s")
            streamed = credential.lease()
            with broker.lease("anthropic:dotenv", ttl=timedelta(minutes=1)) as plain:
                assert {lease.id for lease in operator.list_leases()} == {streamed.id, plain.id}
            assert {lease.id for lease in operator.list_leases()} == {streamed.id}
        deadline, unhurried = time.monotonic() + 60, threading.Event()
        while operator.list_leases():
            assert time.monotonic() < deadline
            unhurried.wait(0.01)


def test_a_lease_that_the_operator_revokes_is_replaced(running_broker: RunningBroker) -> None:
    """The agent keeps its right; what was revoked is another lease's."""
    address = str(running_broker.socket("admin"))
    with running_broker.connect() as broker, broker.credential("anthropic") as credential:
        first = credential.lease()
        with equabot_client.admin.connect(address) as operator:
            assert operator.revoke_leases(lease_id=first.id) == 1
        deadline, unhurried = time.monotonic() + 60, threading.Event()
        while credential.lease().id == first.id:
            assert time.monotonic() < deadline
            unhurried.wait(0.01)
        assert credential.secret() == first.secret


def test_events_of_a_stream_come_as_the_broker_sends_them(running_broker: RunningBroker) -> None:
    """GRANTED first, ROTATED at a rotation."""
    with running_broker.connect() as broker:
        events = broker.stream("anthropic")
        assert next(events).kind is EventKind.GRANTED
        running_broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        rotated = next(events)
        assert rotated.kind is EventKind.ROTATED
        assert rotated.lease is not None
        assert rotated.lease.secret.reveal() == OTHER_KEY


def test_refusals_come_with_their_reasons(running_broker: RunningBroker) -> None:
    """As the contract names them."""
    with running_broker.connect() as broker:
        for kind, ask in (
            (errors.ProviderUnknown, lambda: broker.acquire("no-such-provider")),
            (errors.ProfileNotFound, lambda: broker.acquire("anthropic:nobody")),
            (errors.NoUsableProfile, lambda: broker.acquire("openai")),
            (errors.InvalidArgument, lambda: broker.acquire("anthropic", ttl=timedelta(0))),
            (errors.DeliveryNotAllowed, lambda: broker.acquire("anthropic", delivery="carrier pigeon")),
            (errors.LeaseNotFound, lambda: broker.renew("no-such-lease")),
        ):
            with pytest.raises(kind):
                ask()
        broker.revoke("no-such-lease")


def test_a_refused_key_is_replaced_by_the_next_profile(make_broker: MakeBroker) -> None:
    """A 401 from the provider, seen by the HTTP client, moves the lease; the caller never sees it."""
    with Upstream() as upstream:
        running = make_broker(
            dotenv=f"ANTHROPIC_API_KEY={KEY}\n",
            credentials={"ANTHROPIC_API_KEY": OTHER_KEY},
            config=f"providers: {{anthropic: {{base_url: '{upstream.url}'}}}}\n",
        ).start()
        with running.connect() as broker, broker.credential("anthropic") as credential:
            first = credential.lease()
            upstream.accepted = {OTHER_KEY if first.secret.reveal() == KEY else KEY}
            with httpx2.Client(auth=EquabotAuth(credential), base_url=first.base_url) as client:
                assert client.post("/v1/messages", json={}).status_code == 200
            assert credential.lease().profile != first.profile
            assert [received.keys()["x-api-key"] for received in upstream.received] == [
                first.secret.reveal(),
                credential.secret().reveal(),
            ]
            states = {profile.id: profile.state for profile in broker.list_profiles("anthropic")}
            assert states[first.profile] == "rejected"
            assert credential.report(Outcome.OK) is False
