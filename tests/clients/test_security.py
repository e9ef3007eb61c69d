"""A broker in another pod: TLS and never without, a token that is read anew for every call, certificates that are renewed."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import equabot_client
from equabot_client import aio, errors
from equabot_client._security import Files
from tests.fakes.broker_servicer import FakeBroker
from tests.fakes.secured_broker import SecuredBroker
from tests.kubernetes.certificates import Authority, Pair

TOKEN = "first.token.canary"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("authority")


@pytest.fixture
def ca_file(tmp_path: Path, authority: Authority) -> str:
    return write(tmp_path / "ca.crt", authority.pem)


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    return write(tmp_path / "token", TOKEN + "\n")


@pytest.fixture
def secured(authority: Authority) -> Iterator[SecuredBroker]:
    with SecuredBroker(authority) as started:
        yield started


def write(path: Path, text: str | bytes) -> str:
    """As a kubelet replaces a file: at once."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    new.replace(path)
    return str(path)


def certified(directory: Path, ca_file: str, pair: Pair) -> equabot_client.Security:
    return {
        "ca_file": ca_file,
        "client_certificate": write(directory / "client.crt", pair.certificate),
        "client_key": write(directory / "client.key", pair.key),
    }


def test_every_call_shows_the_token_of_now(secured: SecuredBroker, ca_file: str, token_file: str) -> None:
    """A projected token is replaced while the agent lives, and nobody has to open anything again."""
    with equabot_client.connect(secured.address, ca_file=ca_file, token_file=token_file, timeout=5) as broker:
        broker.acquire("anthropic")
        write(Path(token_file), "second.token.canary")
        broker.list_profiles()
        next(broker.stream("anthropic"))
    assert secured.shown == [f"Bearer {TOKEN}", "Bearer second.token.canary", "Bearer second.token.canary"]


async def test_an_event_loop_shows_it_too(secured: SecuredBroker, ca_file: str, token_file: str) -> None:
    """The same on `aio`, also for a credential that keeps itself fresh."""
    async with aio.connect(f"dns:///{secured.address}", ca_file=ca_file, token_file=token_file, timeout=5) as broker:
        await broker.acquire("anthropic")
        lease = await broker.credential("anthropic").lease()
        assert lease.secret.reveal() == secured.secret
    assert set(secured.shown) == {f"Bearer {TOKEN}"}


def test_the_environment_says_all_of_it(
    secured: SecuredBroker, ca_file: str, token_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a pod's manifest is all there is to write, and the command line works in it."""
    monkeypatch.setenv("EQUABOT_BROKER_ADDRESS", secured.address)
    monkeypatch.setenv("EQUABOT_BROKER_CA_FILE", ca_file)
    monkeypatch.setenv("EQUABOT_BROKER_TOKEN_FILE", token_file)
    with equabot_client.connect(timeout=5) as broker:
        broker.acquire("anthropic")
    assert secured.shown == [f"Bearer {TOKEN}"]


def test_a_token_that_cannot_be_read_is_said_and_not_a_call_made(secured: SecuredBroker, ca_file: str, tmp_path: Path) -> None:
    """Which file, and what to do; once it is there the next call finds it."""
    missing = tmp_path / "later"
    with equabot_client.connect(secured.address, ca_file=ca_file, token_file=str(missing), timeout=5) as broker:
        with pytest.raises(errors.FileUnreadable, match=f"{missing} cannot be read"):
            broker.acquire("anthropic")
        write(missing, " \n")
        with pytest.raises(errors.FileUnreadable, match="holds no token"):
            broker.acquire("anthropic")
        write(missing, "a token\nof two lines")
        with pytest.raises(errors.FileUnreadable, match="holds no token"):
            broker.acquire("anthropic")
        assert secured.calls == []
        write(missing, TOKEN)
        broker.acquire("anthropic")


@pytest.mark.parametrize(
    ("names", "signed"), [(("elsewhere.example",), True), (("localhost",), False)], ids=["another name", "another authority"]
)
def test_a_broker_that_is_not_trusted_gets_no_token(
    authority: Authority, ca_file: str, token_file: str, names: tuple[str, ...], signed: bool
) -> None:
    """Its certificate names this host, and the authority in `ca_file` has signed it; what to look at is said."""
    with SecuredBroker(authority if signed else Authority("impostor"), names=names) as impostor:
        security: equabot_client.Security = {"ca_file": ca_file, "token_file": token_file}
        untrusted = pytest.raises(errors.BrokerUnavailable, match=r"its certificate is not trusted\. Does ca_file hold")
        with equabot_client.connect(impostor.address, timeout=5, **security) as broker, untrusted:
            broker.acquire("anthropic")
        assert impostor.shown == []


def test_whoever_listens_there_hears_a_handshake_first(token_file: str) -> None:
    """Nothing is said without encryption, also where nobody would answer in kind."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with equabot_client.connect(address, token_file=token_file, timeout=1) as broker, pytest.raises(errors.EquabotError):
            broker.acquire("anthropic")
        heard, _ = listening.accept()
        with heard:
            heard.settimeout(5)
            said = heard.recv(65536)
    assert said[:2] == b"\x16\x03", "the record of a TLS handshake (RFC 8446, 5.1)"
    assert TOKEN.encode() not in said


def test_where_nobody_listens_the_error_says_what_to_look_at(ca_file: str, token_file: str) -> None:
    """Another than for a socket."""
    away = pytest.raises(errors.BrokerUnavailable, match="is one running there, may this pod reach it")
    with equabot_client.connect("localhost:1", ca_file=ca_file, token_file=token_file, timeout=5) as broker, away:
        broker.acquire("anthropic")


def test_a_certificate_opens_a_connection(authority: Authority, ca_file: str, tmp_path: Path) -> None:
    """In a token's place; without one, with another authority's or with one that has ended, there is no connection."""
    ended = datetime.now(UTC) - timedelta(minutes=1)
    with SecuredBroker(authority, callers=authority) as secured:
        for pair in (authority.caller("me", ends=ended), Authority("another").caller("me")):
            refused = pytest.raises(errors.BrokerUnavailable, match="does it want a client certificate")
            files = certified(tmp_path, ca_file, pair)
            with equabot_client.connect(secured.address, timeout=5, **files) as broker, refused:
                broker.acquire("anthropic")
        pair = authority.caller("me")
        with equabot_client.connect(secured.address, timeout=5, **certified(tmp_path, ca_file, pair)) as broker:
            broker.acquire("anthropic")
        assert secured.shown == [None]


async def test_a_renewed_certificate_is_taken_up(authority: Authority, ca_file: str, tmp_path: Path) -> None:
    """The next call goes over a connection with the new one, in a thread and in an event loop; what is open stays open."""
    other = Authority("the next authority")
    with SecuredBroker(authority, callers=authority) as secured:
        files = certified(tmp_path, ca_file, authority.caller("me"))
        async with aio.connect(secured.address, timeout=5, **files) as awaited:
            with equabot_client.connect(secured.address, timeout=5, **files) as broker:
                broker.acquire("anthropic")
                await awaited.acquire("anthropic")
                secured.trust(other)
                with pytest.raises(errors.BrokerUnavailable):
                    broker.acquire("anthropic")
                for _ in range(3):  # the connections of before are closed in their turn
                    certified(tmp_path, ca_file, other.caller("me"))
                    broker.acquire("anthropic")
                    await awaited.acquire("anthropic")


async def test_renewals_leave_no_connections_behind(authority: Authority, ca_file: str, tmp_path: Path) -> None:
    """Also of an agent that only ever opens streams, as a credential does: there is that of now, and the one before."""
    with SecuredBroker(authority, callers=authority) as secured:
        files = certified(tmp_path, ca_file, authority.caller("me"))
        with equabot_client.connect(secured.address, timeout=5, **files) as broker:
            for _ in range(5):
                certified(tmp_path, ca_file, authority.caller("me"))
                next(iter(broker.stream("anthropic")))
            assert few_connections(secured)
        async with aio.connect(secured.address, timeout=5, **files) as awaited:
            for _ in range(5):
                certified(tmp_path, ca_file, authority.caller("me"))
                await anext(aiter(awaited.stream("anthropic")))
            assert few_connections(secured)


def few_connections(secured: SecuredBroker) -> bool:
    """Whether, soon, this process has no more than two connections to the broker."""
    port, end = int(secured.address.rpartition(":")[2]), time.monotonic() + 5
    while connections(port) > 2 and time.monotonic() < end:
        time.sleep(0.01)
    return connections(port) <= 2


def connections(port: int) -> int:
    """How many there are to a port of this machine."""
    tables = [Path(f"/proc/self/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    fields = [line.split() for table in tables for line in table]
    return sum(remote.endswith(f":{port:04X}") and state == "01" for _, _, remote, state, *_ in fields)


@pytest.mark.parametrize("address", ["broker.example:8443", "10.0.0.1:8443", "dns:///broker:8443", "[fd00::1]:8443"])
def test_tcp_without_a_token_or_certificate_is_refused(address: str, ca_file: str) -> None:
    """Nobody could tell who calls; and without encryption no other host is spoken to."""
    nobody: tuple[equabot_client.Security, ...] = ({}, {"ca_file": ca_file})
    for security in nobody:
        with pytest.raises(ValueError, match=r"Give token_file .* without encryption only a loopback address is"):
            equabot_client.connect(address, **security)


def test_a_certificate_without_its_key_is_refused(ca_file: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match="belong together"):
        equabot_client.connect("broker:8443", client_certificate=ca_file)


def test_what_is_no_pem_is_said_by_its_file(tmp_path: Path, token_file: str) -> None:
    """And nothing of it is shown: it may be a key in the wrong place."""
    wrong = write(tmp_path / "ca.crt", "sk-ant-canary")
    with equabot_client.connect("localhost:1", ca_file=wrong, token_file=token_file) as broker:
        with pytest.raises(errors.FileUnreadable, match=r"ca.crt is not in PEM form: it holds no certificate$"):
            broker.acquire("anthropic")
        with pytest.raises(errors.FileUnreadable):
            next(broker.stream("anthropic"))


def test_a_socket_needs_none_of_it(fake: FakeBroker, tmp_path: Path) -> None:
    """With a token in the environment for some other broker, a socket's is spoken to as ever."""
    with equabot_client.connect(fake.address, token_file=str(tmp_path / "missing"), timeout=5) as broker:
        broker.acquire("anthropic")


def test_nothing_shows_the_token(token_file: str) -> None:
    """Neither the files' own text nor a broker's."""
    files = Files.of({"token_file": token_file}, {})
    assert TOKEN not in repr(files)
    with equabot_client.connect("localhost:1", token_file=token_file) as broker:
        assert TOKEN not in repr(broker)
