"""Bad input, to a running broker: a clear error, nothing lost that was good, and what is mended is followed again."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

import equabot_client.admin
from equabot.broker.v1 import broker_pb2
from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from equabot_client import Broker, errors, health
from equabot_client.admin import Admin
from tests.fakes.hostile import GARBAGE, DeafClient
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import EQUABOT, KEY, OTHER_KEY, RunningBroker

MOUNTED = "sources: [{mounted: {path: mounted}}, {dotenv: {path: .env}}, env]\n"


def operator_of(running: RunningBroker) -> Admin:
    return equabot_client.admin.connect(str(running.socket("admin")))


def wait_fault(running: RunningBroker, kind: str, told: str) -> None:
    """Until the operator is told so of the source; with nothing to tell, until it is well."""
    with operator_of(running) as operator:

        def as_told() -> bool:
            (fault,) = (source.fault for source in operator.sources() if source.name.startswith(kind))
            return told in fault if told else not fault

        running.wait_for(as_told)


def resident(running: RunningBroker) -> float:
    return psutil.Process(running.pid).memory_info().rss / 2**20


# --- files ------------------------------------------------------------------------------------------------------------


def _text(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


BROKEN_DOTENV: dict[str, tuple[Callable[[Path], object], str]] = {
    "no assignment": (_text(b"\n\nthis is no assignment\n"), ".env has no assignment: line 3 is skipped"),
    "garbage": (_text(bytes(range(256)) * 4), ".env is binary, not text"),
    "ten megabytes": (_text(b"ANTHROPIC_API_KEY=" + b"x" * 10_000_000), ".env is larger than 128 KiB"),
    "a directory": (Path.mkdir, ".env is a directory"),
    "a pipe": (os.mkfifo, ".env is not a regular file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), ".env is not a regular file"),
    "a loop": (lambda path: path.symlink_to(path), ".env cannot be read (Too many levels of symbolic links)"),
}


@pytest.fixture(scope="module")
def followed() -> Iterator[RunningBroker]:
    """A broker whose `.env` is a link, so that anything can take its place at once; and a mounted directory."""
    running = RunningBroker(credentials={}, dotenv="", config=MOUNTED)
    (running.home / "good").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    (running.home / "mounted" / "team").mkdir(parents=True)
    (running.home / "mounted" / "team" / "OPENAI_API_KEY").write_text("sk-proj-team")
    _lead(running.dotenv, running.home / "good")
    yield running.start()
    running.close()


def _lead(link: Path, target: Path) -> None:
    link.with_name("next").symlink_to(target)
    link.with_name("next").replace(link)


@pytest.mark.parametrize("way", BROKEN_DOTENV)
def test_a_dotenv_that_cannot_be_read_is_named_and_changes_nothing(followed: RunningBroker, way: str) -> None:
    """With the line's number, never the line. What it held is served on; mended, it is followed at once."""
    make, told = BROKEN_DOTENV[way]
    broken = followed.home / f"broken-{way}"
    make(broken)
    with followed.connect() as broker, broker.credential("anthropic") as credential:
        first = credential.lease()
        assert first.secret.reveal() == KEY
        _lead(followed.dotenv, broken)
        wait_fault(followed, "dotenv", told)
        assert broker.acquire("anthropic").secret.reveal() == KEY
        assert credential.lease() == first
        (followed.home / "better").write_text(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        _lead(followed.dotenv, followed.home / "better")
        assert credential.wait_for_change(since=first, timeout=60).secret.reveal() == OTHER_KEY
        _lead(followed.dotenv, followed.home / "good")
        wait_fault(followed, "dotenv", "")
        assert broker.list_profiles("anthropic")[0].state == "ok"
    assert "this is no assignment" not in followed.log()
    assert all(profile.provider != "openai" or profile.id == "openai:team" for profile in _profiles(followed))


def _profiles(running: RunningBroker) -> tuple[Any, ...]:
    with running.connect() as broker:
        return broker.list_profiles()


def _state(broker: Broker, profile_id: str) -> str:
    return next((profile.state for profile in broker.list_profiles() if profile.id == profile_id), "")


def test_a_mounted_value_of_ten_megabytes_is_no_key(followed: RunningBroker) -> None:
    """Its profile is invalid and says why, everything else is served; the broker does not swallow it."""
    before = resident(followed)
    path = followed.home / "mounted" / "team" / "GROQ_API_KEY"
    path.write_bytes(b"x" * 10_000_000)
    with followed.connect() as broker:
        followed.wait_for(lambda: _state(broker, "groq:team") == "invalid")
        with pytest.raises(errors.NoUsableProfile, match="GROQ_API_KEY is longer than 64 KiB"):
            broker.acquire("groq")
        assert broker.acquire("openai").secret.reveal() == "sk-proj-team"
        path.unlink()
        followed.wait_for(lambda: not _state(broker, "groq:team"))
    assert resident(followed) < before + 20


def test_links_in_a_circle_fail_their_unit_and_no_other(followed: RunningBroker) -> None:
    """A key, and a whole directory; what the unit held is served on."""
    mounted = followed.home / "mounted"
    (mounted / "around").symlink_to(mounted / "around")
    (mounted / "team" / "GROQ_API_KEY").symlink_to("GROQ_API_KEY")
    wait_fault(followed, "mounted", "team/GROQ_API_KEY cannot be read (Too many levels of symbolic links): its links lead in a")
    with followed.connect() as broker:
        assert broker.acquire("openai").profile == "openai:team"
    (mounted / "around").unlink()
    (mounted / "team" / "GROQ_API_KEY").unlink()
    wait_fault(followed, "mounted", "")


def test_a_directory_that_disappears_and_comes_back_is_followed(followed: RunningBroker) -> None:
    """Meanwhile what it held is served, and the operator is told; what it holds when it is back counts."""
    mounted, away = followed.home / "mounted", followed.home / "away"
    with followed.connect() as broker, broker.credential("openai") as credential:
        first = credential.lease()
        mounted.rename(away)
        wait_fault(followed, "mounted", f"{mounted} has disappeared: mount or create it again")
        assert credential.lease() == first
        assert broker.acquire("openai").secret.reveal() == "sk-proj-team"
        (away / "team" / "OPENAI_API_KEY").write_text("sk-proj-other")
        away.rename(mounted)
        assert credential.wait_for_change(since=first, timeout=60).secret.reveal() == "sk-proj-other"
        wait_fault(followed, "mounted", "")


def test_ten_thousand_files_are_ten_thousand_profiles(followed: RunningBroker) -> None:
    """Read, served, listed, and forgotten again."""
    many = followed.home / "many"
    many.mkdir()
    keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000)]
    for number, key in enumerate(keys):
        (many / f"MISTRAL_API_KEY_{number:05}").write_text(key)
    many.rename(followed.home / "mounted" / "many")
    with followed.connect() as broker:
        followed.wait_healthy("profile/mistral:many-09999", within=60)
        assert broker.acquire("mistral:many-01234").secret.reveal() == keys[1234]
        assert len(broker.list_profiles("mistral")) == 10_000
        shutil.rmtree(followed.home / "mounted" / "many")
        followed.wait_healthy("provider/mistral", serving=False, within=60)
        assert not broker.list_profiles("mistral")
        assert broker.acquire("anthropic").profile == "anthropic:dotenv"


# --- the state --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB of its own."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", tmp_path], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_full_disk_under_the_state_stops_nothing(make_broker: MakeBroker, small_disk: Path) -> None:
    """Leases are granted on, and it is said: in the log, in metrics, to the operator. With space again they are stored."""
    running = make_broker(
        dotenv=f"ANTHROPIC_API_KEY={KEY}\n",
        config=f"state_path: {small_disk}/state.db\nagents: {{main: {{max_leases: 5000}}}}\n",
    ).start()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with running.connect() as broker:
        granted = [broker.acquire("anthropic")]
        while "equabot_state_store_fault 0.0" in running.scrape():
            granted.append(broker.acquire("anthropic"))
        granted += [broker.acquire("anthropic") for _ in range(50)]
        assert "free space on its volume" in running.log()
        ballast.unlink()
        while "equabot_state_store_fault 1.0" in running.scrape():
            granted.append(broker.acquire("anthropic"))
        # A revocation is stored before it is answered, and with it all that was granted in the milliseconds before.
        broker.revoke(broker.acquire("anthropic"))
        running.kill()
        running.start()
        for lease in granted:
            assert broker.renew(lease).id == lease.id


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def _torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    path.with_name("state.db-wal").unlink(missing_ok=True)


@pytest.mark.parametrize("spoil", [_garbage, _torn])
def test_a_corrupt_state_is_moved_aside_and_begun_anew(running_broker: RunningBroker, spoil: Callable[[Path], object]) -> None:
    """It is said, and kept for whoever wants to look; its leases have ended, everything else works."""
    state = running_broker.run_dir / "state.db"
    with running_broker.connect() as broker:
        lease = broker.acquire("anthropic")
        assert running_broker.stop() == 0
        spoil(state)
        spoilt = state.read_bytes()
        running_broker.start()
        with pytest.raises(errors.LeaseNotFound):
            broker.renew(lease)
        again = broker.acquire("anthropic")
        (aside,) = (path for path in state.parent.glob("state.db.corrupt-*") if not path.name.endswith(("-wal", "-shm")))
        assert aside.read_bytes() == spoilt
        assert f"moved to {aside.name} and created again; its leases end" in running_broker.log()
        running_broker.kill()
        running_broker.start()
        assert broker.renew(again).id == again.id


def test_several_brokers_at_once_on_one_run_directory_are_one(make_broker: MakeBroker) -> None:
    """The first has it; the others exit with 1 and one line that names it, and leave it unharmed."""
    running = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    ports = {"EQUABOT_LISTEN_HEALTH": "127.0.0.1:0", "EQUABOT_LISTEN_METRICS": "127.0.0.1:0"}
    started = [
        subprocess.Popen([*EQUABOT, "serve"], env=running.environ | ports, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        running.wait_for(lambda: sum(one.poll() is not None for one in started) == 3)
        (first,) = (one for one in started if one.poll() is None)
        for one in started:
            if one is not first:
                assert one.stderr is not None
                message = f"another broker (pid {first.pid}) runs on {running.run_dir}: stop it, or start this one with"
                assert (one.returncode, one.stderr.read()) == (1, f"equabot: {message} another --run-dir\n")
        running.wait_for(running.socket().exists)
        with running.connect() as broker, broker.credential("anthropic") as credential:
            lease = credential.lease()
            assert running.run("serve").returncode == 1
            assert credential.lease() == lease
            assert broker.acquire("anthropic").secret.reveal() == KEY
    finally:
        for one in started:
            one.kill()
            one.communicate()


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", ["0s", "-5m", "15", "soon", "4000d"])
def test_a_ttl_that_is_none_is_refused_before_it_is_asked_for(shared_broker: RunningBroker, ttl: str) -> None:
    """64, saying how to write one."""
    done = shared_broker.run("lease", "acquire", "anthropic", f"--ttl={ttl}")
    assert done.returncode == 64
    assert "--ttl" in done.stderr


def test_ttls_that_make_no_sense(shared_broker: RunningBroker) -> None:
    """Zero and less are refused; ten years are as long as the policy allows; a request without any has the default."""
    with shared_broker.connect() as broker:
        for ttl in (timedelta(0), timedelta(seconds=-1), timedelta(days=-3650)):
            with pytest.raises(errors.InvalidArgument, match="ttl"):
                broker.acquire("anthropic", ttl=ttl)
        with broker.lease("anthropic", ttl=timedelta(days=3650)) as lease:
            assert lease.expires_at == lease.max_expires_at
            assert lease.expires_at - lease.issued_at <= timedelta(hours=1, seconds=1)
            with pytest.raises(errors.InvalidArgument, match="ttl"):
                broker.renew(lease, ttl=timedelta(seconds=-1))
            assert broker.renew(lease, ttl=timedelta(days=3650)).expires_at <= lease.max_expires_at + timedelta(seconds=1)


def test_names_that_make_no_sense(shared_broker: RunningBroker) -> None:
    """An unknown provider, nothing at all, far too much, what is no text: refused by reason, in few words."""
    long = "x" * 100_000
    with shared_broker.connect() as broker:
        for reason, ask in (
            ("PROVIDER_UNKNOWN", lambda: broker.acquire("antropic")),
            ("INVALID_ARGUMENT", lambda: broker.acquire("")),
            ("INVALID_ARGUMENT", lambda: broker.acquire(long)),
            ("INVALID_ARGUMENT", lambda: broker.acquire(f"anthropic:{long}")),
            ("INVALID_ARGUMENT", lambda: broker.acquire("anthropic", session=long)),
            ("INVALID_ARGUMENT", lambda: broker.acquire("anthropic", session="a\0b")),
            ("INVALID_ARGUMENT", lambda: broker.acquire("anthropic", model="\x1b[2J")),
            ("INVALID_ARGUMENT", lambda: broker.renew(long)),
            ("INVALID_ARGUMENT", lambda: broker.list_profiles("\u202e")),
            ("INVALID_ARGUMENT", lambda: broker.pin("", "anthropic", profile="dotenv")),
        ):
            with pytest.raises(errors.EquabotError) as raised:
                ask()
            assert raised.value.reason == reason
            assert len(raised.value.message) < 300
    assert shared_broker.run("lease", "acquire", "antropic").returncode == 1


def test_messages_that_make_no_sense(shared_broker: RunningBroker) -> None:
    """Text that is no UTF-8, a broken message, one of ten megabytes, a method that does not exist."""
    with grpc.insecure_channel(f"unix:{shared_broker.socket()}") as channel:

        def code(method: str, request: bytes) -> grpc.StatusCode:
            call: Any = channel.unary_unary(f"/equabot.broker.v1.Broker/{method}")
            with pytest.raises(grpc.RpcError) as raised:
                call(request, timeout=60)
            found: grpc.StatusCode = raised.value.code()
            return found

        assert code("AcquireLease", b"\n\x04\xff\xfe\xfd\xfc") is grpc.StatusCode.INVALID_ARGUMENT
        assert code("AcquireLease", b"\n\x7fshort") is grpc.StatusCode.INVALID_ARGUMENT
        assert code("AcquireLease", b"") is grpc.StatusCode.INVALID_ARGUMENT
        assert code("AcquireLease", b"\n\x80\x80\xe0\x04" + b"x" * 10_000_000) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert code("NoSuchMethod", b"") is grpc.StatusCode.UNIMPLEMENTED
        assert BrokerStub(channel).ListProfiles(broker_pb2.ListProfilesRequest(), timeout=60).profiles


# --- connections ------------------------------------------------------------------------------------------------------


def _connected(address: str) -> socket.socket:
    if address.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.connect(address)
        return found
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def _send(address: str, what: bytes) -> None:
    """Sends it and waits a little for what is answered; that it is refused is fine."""
    with _connected(address) as connection:
        connection.settimeout(0.05)
        try:
            connection.sendall(what)
            while connection.recv(65536):
                pass
        except OSError:
            return


def test_garbage_on_any_socket_harms_nobody(shared_broker: RunningBroker) -> None:
    """HTTP/1, TLS, noise, broken frames; on the agent's socket, the operator's, and the ports of health and metrics; and
    connections that say nothing. Others are answered meanwhile and afterwards, and the log is not filled with it."""
    broker = shared_broker
    places = [str(broker.socket()), str(broker.socket("admin")), broker.health, broker.metrics]
    lines = len(broker.log().splitlines())
    descriptors = psutil.Process(broker.pid).num_fds()
    silent = [_connected(place) for place in places for _ in range(50)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(_send, *zip(*((place, what) for place in places for what in GARBAGE.values()), strict=True)))
    with broker.connect() as client, operator_of(broker) as operator:
        with client.lease("anthropic") as lease:
            assert lease.secret.reveal() == KEY
        assert operator.sources()
    assert health.check("liveness", address=broker.health) is True
    assert "equabot_build_info" in broker.scrape()
    for connection in silent:
        connection.close()
    broker.wait_for(lambda: psutil.Process(broker.pid).num_fds() <= descriptors + 5)
    said = [json.loads(line) for line in broker.log().splitlines()[lines:] if line.startswith("{")]
    assert not [line for line in said if line["level"] in ("error", "critical")]
    assert len(broker.log().splitlines()) - lines < 20


def test_a_client_that_never_reads_loses_its_leases_and_costs_next_to_nothing(make_broker: MakeBroker) -> None:
    """What it was granted is over when its time is over, for nobody has read of it; what happens meanwhile is not kept for it.
    Others follow every rotation, and its going is no news."""
    running = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config="leases: {default_ttl: 2s}\n").start()
    with operator_of(running) as operator, running.connect() as client, client.credential("anthropic") as credential:
        lease = credential.lease()
        with DeafClient(running.socket(), streams=50, provider="anthropic"):
            running.wait_for(lambda: len(operator.list_leases()) == 51)
            before = resident(running)
            for key in (OTHER_KEY, KEY) * 50:
                running.write_dotenv(f"ANTHROPIC_API_KEY={key}\n")
                lease = credential.wait_for_change(since=lease, timeout=60)
                assert lease.secret.reveal() == key
            running.wait_for(lambda: len(operator.list_leases()) == 1)
            assert resident(running) < before + 10
        assert credential.lease().id == lease.id
        assert client.acquire("anthropic").secret.reveal() == KEY
    assert '"level":"error"' not in running.log()


HOLDER = """
import asyncio, sys
import grpc.aio
from equabot.broker.v1 import broker_pb2
from equabot.broker.v1.broker_pb2_grpc import BrokerStub

async def main():
    options = [("grpc.use_local_subchannel_pool", 1)]
    stubs = [BrokerStub(grpc.aio.insecure_channel(sys.argv[1], options=options)) for _ in range(20)]
    calls = [stub.StreamLease(broker_pb2.AcquireLeaseRequest(provider="anthropic")) for stub in stubs for _ in range(50)]
    for call in calls:
        await call.read()
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_thousand_streams_dropped_at_once_leave_nothing_behind(make_broker: MakeBroker) -> None:
    """Their process is killed: their leases, connections and metrics go; the broker answers others all the while."""
    running = make_broker(
        dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config="agents: {main: {max_leases: 1000}, other: {providers: [anthropic]}}\n"
    ).start()
    descriptors = psutil.Process(running.pid).num_fds()
    with running.connect("other") as other, operator_of(running) as operator:
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, f"unix:{running.socket()}"], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert 'equabot_streams_active{agent="main"} 1000.0' in running.scrape()
            with pytest.raises(errors.LeaseLimit), running.connect() as client:
                client.acquire("anthropic")
            holder.kill()
        assert other.acquire("anthropic").secret.reveal() == KEY
        running.wait_for(lambda: len(operator.list_leases()) == 1)
    assert 'equabot_streams_active{agent="main"}' not in running.scrape()
    running.wait_for(lambda: psutil.Process(running.pid).num_fds() <= descriptors + 5)
    with running.connect() as client:
        assert client.acquire("anthropic").secret.reveal() == KEY
    assert '"level":"error"' not in running.log()


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_an_hour_either_way_ends_credentials_and_no_lease(make_broker: MakeBroker) -> None:
    """Credentials end by the wall clock, leases by the time that has passed. Set back, what had expired serves again."""
    running = make_broker(
        credentials={"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": "sk-proj-lasting"},
        config=f"profiles: {{anthropic:env: {{expires_at: {_in(timedelta(minutes=30))}}}}}\n",
    )
    running.command = (sys.executable, "-m", "tests.journeys.jumping")
    running.start()
    with running.connect() as broker, broker.credential("openai") as credential:
        held, streamed, soon = broker.acquire("openai"), credential.lease(), timedelta(milliseconds=100)
        assert broker.acquire("anthropic").credential_expires_at is not None
        running.send(signal.SIGUSR1)
        broker.acquire("openai", ttl=soon)  # the clock is looked at every few seconds, and whenever a lease ends
        running.wait_healthy("provider/anthropic", serving=False)
        with pytest.raises(errors.NoUsableProfile, match=r"expired (29|30)m"):
            broker.acquire("anthropic")
        assert broker.renew(held).id == held.id
        running.wait_for(lambda: running.log().count("clock jumped") == 1)
        running.send(signal.SIGUSR2)
        broker.acquire("openai", ttl=soon)
        running.wait_healthy("provider/anthropic")
        assert broker.acquire("anthropic").secret.reveal() == KEY
        assert broker.renew(held).id == held.id
        assert credential.lease().id == streamed.id
    told = [json.loads(line) for line in running.log().splitlines() if "clock jumped" in line]
    assert [round(line["seconds"], -1) for line in told] == [3600, -3600]


def _in(span: timedelta) -> str:
    return (datetime.now(UTC) + span).strftime("%Y-%m-%dT%H:%M:%SZ")
