"""A broker that dies, is stopped, or is started on what another one left: agents notice nothing but the log."""

import json
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2 as pb

import equabot_client.admin
from equabot_client import EventKind, errors
from equabot_client.httpx2 import EquabotAuth
from tests.fakes.upstream import Upstream
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
ROUNDS = 5


def test_leases_hold_over_kill_9_as_they_were(make_broker: MakeBroker) -> None:
    """Id, session, instants, material and its version: renewed by the same id, never past where it was to end."""
    running = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", credentials={"OPENAI_API_KEY": "sk-proj-other"}).start()
    with running.connect() as broker:
        granted = [
            broker.acquire(provider, session=f"s{number}", ttl=timedelta(minutes=1 + number))
            for number in range(10)
            for provider in ("anthropic", "openai:env")
        ]
        broker.revoke(granted.pop())
        before = running.run("lease", "list", "--json").stdout
        running.kill()
        running.start()
        assert json.loads(running.run("lease", "list", "--json").stdout) == json.loads(before)
        for lease in granted:
            renewed = broker.renew(lease)
            assert (renewed.id, renewed.profile, renewed.version) == (lease.id, lease.profile, lease.version)
            assert renewed.same_material(lease)
            assert renewed.expires_at >= lease.expires_at
            assert abs(renewed.max_expires_at - lease.max_expires_at) < timedelta(seconds=1)


def test_a_lease_that_was_just_granted_is_not_lost(make_broker: MakeBroker) -> None:
    """Whoever has the answer may rely on it, though the broker be killed in the same moment."""
    running = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    for _ in range(ROUNDS):
        with running.connect() as broker:
            lease = broker.acquire("anthropic")
            running.kill()
            running.start()
            assert broker.renew(lease).id == lease.id


def test_an_agent_at_work_notices_no_restart(make_broker: MakeBroker) -> None:
    """Every request reaches the provider with a key that it takes, while the broker is killed, stopped and started again and
    the key is rotated behind its back."""
    with Upstream() as upstream:
        running = make_broker(
            dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=f"providers: {{anthropic: {{base_url: '{upstream.url}'}}}}\n"
        ).start()
        upstream.accepted = {KEY, OTHER_KEY}
        over = threading.Event()

        def work() -> list[int]:
            with (
                running.connect() as broker,
                broker.credential("anthropic") as credential,
                httpx2.Client(auth=EquabotAuth(credential), base_url=upstream.url) as client,
            ):
                answers = []
                while not over.wait(0.002):
                    answers.append(client.post("/v1/messages", json={}).status_code)
                return answers

        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(work) for _ in range(4)]
            try:
                running.wait_for(lambda: len(upstream.received) > 20)
                for end, key in ((running.kill, OTHER_KEY), (running.stop, KEY), (running.kill, OTHER_KEY)):
                    end()
                    running.write_dotenv(f"ANTHROPIC_API_KEY={key}\n")
                    running.start()
                    seen = len(upstream.received)
                    running.wait_for(lambda key=key, seen=seen: _uses(upstream, key, seen))  # type: ignore[misc]
                # Each worker hears of it by itself: one of them may be a request behind.
                running.wait_for(lambda: all(r.keys() == {"x-api-key": OTHER_KEY} for r in upstream.received[-50:]))
            finally:
                over.set()
            answers = [answer for worker in workers for answer in worker.result(60)]
    assert len(answers) == len(upstream.received)
    assert set(answers) == {200}


def _uses(upstream: Upstream, key: str, seen: int) -> bool:
    return sum(received.keys() == {"x-api-key": key} for received in upstream.received[seen:]) > 20


def test_sigterm_tells_health_first_and_then_every_stream(running_broker: RunningBroker) -> None:
    """NOT_SERVING reaches a watcher before its connection ends; streams hear why they end; the exit code is 0; leases stay."""
    watched: list[list[int]] = []
    with (
        grpc.insecure_channel(running_broker.health) as channel,
        running_broker.connect() as broker,
    ):
        watches: list[Any] = [
            channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=pb.HealthCheckRequest.SerializeToString,
                response_deserializer=pb.HealthCheckResponse.FromString,
            )(pb.HealthCheckRequest(service=service))
            for service in ("", "provider/anthropic", "liveness")
        ]
        assert [next(watch).status for watch in watches] == [SERVING] * 3
        lease = broker.acquire("anthropic")
        events = broker.stream("anthropic")
        assert next(events).kind is EventKind.GRANTED
        assert running_broker.stop() == 0
        ended = next(events)
        assert (ended.kind, ended.reason) == (EventKind.REVOKED, "shutting_down")
        for watch in watches:
            watched.append([])
            with pytest.raises(grpc.RpcError):
                watched[-1].extend(answer.status for answer in watch)
        with pytest.raises(errors.BrokerUnavailable):
            broker.acquire("anthropic")
        assert watched == [[NOT_SERVING], [NOT_SERVING], []]
    assert not running_broker.socket().exists()
    running_broker.start()
    with running_broker.connect() as broker:
        assert broker.renew(lease).id == lease.id


def test_what_a_dead_broker_left_is_taken_over(running_broker: RunningBroker) -> None:
    """Its sockets are still there, and nobody answers on them."""
    for _ in range(2):
        running_broker.kill()
        assert running_broker.socket().is_socket()
        assert running_broker.socket("admin").is_socket()
        assert running_broker.run("key", "anthropic").returncode == 3
        running_broker.start()
        assert running_broker.run("key", "anthropic").stdout == f"{KEY}\n"
        assert oct(running_broker.socket().stat().st_mode)[-3:] == "660"
        assert oct(running_broker.socket("admin").stat().st_mode)[-3:] == "600"
    assert running_broker.log().count(f"removed a stale socket: {running_broker.socket()}") == 2


def test_the_state_of_a_newer_broker_is_refused_and_left_alone(running_broker: RunningBroker) -> None:
    """1, and one line that says what to do; the newer broker finds everything as it was."""
    state = running_broker.run_dir / "state.db"
    with running_broker.connect() as broker:
        lease = broker.acquire("anthropic")
        assert running_broker.stop() == 0
        with closing(sqlite3.connect(state)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute("PRAGMA user_version = 99")
        before = state.read_bytes()
        refused = running_broker.run("serve")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert f"a newer broker wrote {state} (state version 99; this broker supports {version})" in refused.stderr
        assert "or move the file away" in refused.stderr
        assert state.read_bytes() == before
        with closing(sqlite3.connect(state)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        running_broker.start()
        assert broker.renew(lease).id == lease.id


def test_a_broker_that_is_told_twice_ends_once(running_broker: RunningBroker) -> None:
    """An impatient supervisor sends another SIGTERM; a second SIGINT is no worse."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        running_broker.send(number)
    assert running_broker.wait_ended() == 0
    assert "Traceback" not in running_broker.log()


def test_an_operators_revocation_is_not_undone_by_a_crash(running_broker: RunningBroker) -> None:
    """What was ended before the broker was killed does not live again."""
    with running_broker.connect() as broker:
        lease = broker.acquire("anthropic")
        with equabot_client.admin.connect(str(running_broker.socket("admin"))) as operator:
            assert operator.revoke_leases(lease_id=lease.id) == 1
        running_broker.kill()
        running_broker.start()
        with pytest.raises(errors.LeaseNotFound):
            broker.renew(lease)
