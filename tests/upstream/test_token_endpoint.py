"""Requests to a token endpoint over real HTTP: what is sent, what counts as an answer, and what a failure shows."""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import LARGEST, Blame, RefreshFailure, TokenAnswer, TokenRequest, Tokens, read_answer
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint
from tests.fakes.token_endpoint import TokenEndpoint

LOST = RefreshFailure(Blame.UNCERTAIN, "no_answer", "the token endpoint was asked, and its answer is lost")
ASKED = TokenRequest("http://unset", "json", {"grant_type": "refresh_token", "refresh_token": SecretValue("rt-canary")})


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[TokenEndpoint]:
    with TokenEndpoint(tmp_path / "ledger", slowness=5.0) as serving:
        yield serving


def request(endpoint: TokenEndpoint, refresh: str, *, encoding: str = "json") -> TokenRequest:
    return TokenRequest(
        endpoint.url, encoding, {**ASKED.fields, "refresh_token": SecretValue(refresh), "client_id": "cli & co"}
    )


async def asked(endpoint: TokenEndpoint, refresh: str, **options: float) -> TokenAnswer | RefreshFailure:
    return await HttpTokenEndpoint(**options).ask(request(endpoint, refresh))


@asynccontextmanager
async def answering(*pieces: bytes, hangs: bool = False) -> AsyncIterator[str]:
    """An endpoint that answers these bytes, whatever it is asked, and then hangs up, or does not."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hangs:
                await over.wait()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        done.set()

    done = asyncio.Event()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
        over.set()
        await done.wait()


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "kind"), [("json", "application/json"), ("form", "application/x-www-form-urlencoded")])
async def test_it_is_asked_in_its_encoding(endpoint: TokenEndpoint, encoding: str, kind: str) -> None:
    """And answers with tokens."""
    login = endpoint.login("me")
    answer = await HttpTokenEndpoint().ask(request(endpoint, login["refresh"], encoding=encoding))
    assert isinstance(answer, TokenAnswer)
    assert isinstance(read_answer(answer, now=0.0), Tokens)
    headers, fields = endpoint.received[0]
    assert headers["content-type"] == kind
    assert headers["user-agent"] == "equabot-broker"
    assert fields == {"grant_type": "refresh_token", "refresh_token": login["refresh"], "client_id": "cli & co"}


async def test_requests_share_nothing(endpoint: TokenEndpoint) -> None:
    """Neither a connection, which may be closed just when it is used again, nor a cookie: the logins are different people's."""
    asking = HttpTokenEndpoint()
    for account in ("me", "you"):
        await asking.ask(request(endpoint, endpoint.login(account)["refresh"]))
    assert [headers.get("cookie") for headers, _ in endpoint.received] == [None, None]
    assert len(endpoint.peers) == 2
    assert [entry.verdict for entry in endpoint.ledger() if entry.event == "presented"] == ["redeemed", "redeemed"]


async def test_a_redirect_is_not_followed(endpoint: TokenEndpoint) -> None:
    """A refresh token goes where it is meant to go."""
    endpoint.faults = ["redirect"]
    answer = await asked(endpoint, endpoint.login("me")["refresh"])
    assert isinstance(answer, TokenAnswer)
    assert (answer.status, len(endpoint.received)) == (302, 1)


# -- what is answered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["http_500", "http_502", "http_503", "http_429", "html", "empty", "drip", "garbled"])
async def test_what_answers_is_an_answer(endpoint: TokenEndpoint, fault: str) -> None:
    """However strange; what it means is for the domain to say. It is asked once."""
    endpoint.faults = [fault]
    answer = await asked(endpoint, endpoint.login("me")["refresh"])
    assert isinstance(answer, TokenAnswer)
    assert answer.status == (int(fault[5:]) if fault.startswith("http") else 200)
    assert answer.retry_after == ("1" if fault in ("http_429", "http_503") else "")
    assert len(endpoint.received) == 1


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "truncated", "slow"])
async def test_an_answer_that_is_lost_leaves_it_uncertain(endpoint: TokenEndpoint, fault: str) -> None:
    """Before or after the token was spent: from here the two look the same. It is asked once."""
    endpoint.faults = [fault]
    assert await asked(endpoint, endpoint.login("me")["refresh"], within=0.5) == LOST
    assert len(endpoint.received) == 1


async def test_the_deadline_is_for_all_of_it() -> None:
    """An endpoint that sends a byte now and then does not block the caller."""
    drops = [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", *[b"x"] * 3]
    async with answering(*drops, hangs=True) as url:
        assert await HttpTokenEndpoint(within=0.3).ask(replace(ASKED, url=url)) == LOST  # else it hangs until pytest's timeout


async def test_a_refusal_stands_without_its_body() -> None:
    """The status says that nothing was spent, also when the rest never comes."""
    head = b"HTTP/1.1 503 Unavailable\r\nretry-after: 9\r\ncontent-length: 99\r\n\r\n"
    async with answering(head, b"x", hangs=True) as url:
        assert await HttpTokenEndpoint(within=0.3).ask(replace(ASKED, url=url)) == TokenAnswer(503, b"", "9")
    async with answering(head, b"x") as url:
        assert await HttpTokenEndpoint().ask(replace(ASKED, url=url)) == TokenAnswer(503, b"", "9")


async def test_a_body_without_end_is_cut_off() -> None:
    """The answer cannot fill the memory."""
    flood = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (4 * LARGEST)
    async with answering(flood) as url:
        answer = await HttpTokenEndpoint().ask(replace(ASKED, url=url))
    assert isinstance(answer, TokenAnswer)
    assert len(answer.body) == LARGEST + 1


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02garbage", b"HTTP/1.1 200\r\nno colon\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_what_is_not_http_leaves_it_uncertain(said: bytes) -> None:
    """Something was asked there."""
    async with answering(said) as url:
        assert await HttpTokenEndpoint().ask(replace(ASKED, url=url)) == LOST


# -- what is not reached -----------------------------------------------------------------------------------------------


async def test_a_refused_connection_uses_up_nothing() -> None:
    """It is safe to try again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/token"
        found = await HttpTokenEndpoint().ask(replace(ASKED, url=url))
    assert found == RefreshFailure(Blame.TRANSIENT, "unreachable", "cannot connect to 127.0.0.1")


async def test_who_does_not_pick_up_is_not_waited_for_long() -> None:
    """Nor has anything been sent."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            asking = HttpTokenEndpoint(connect_within=0.2)
            found = await asking.ask(replace(ASKED, url=f"http://127.0.0.1:{address[1]}/token"))
    assert found == RefreshFailure(Blame.TRANSIENT, "unreachable", "cannot connect to 127.0.0.1 within 0.2 s")


@pytest.mark.parametrize("url", ["", "ftp://a.example", "http://", "http://[::1", "http://a:b:c", "https://\0"])
async def test_what_is_not_a_url_is_not_an_endpoint(url: str) -> None:
    """A mistake in the configuration spends nothing and ends nothing."""
    found = await HttpTokenEndpoint().ask(replace(ASKED, url=url))
    assert isinstance(found, RefreshFailure)
    assert found.blame is Blame.TRANSIENT


async def test_an_untrusted_certificate_gets_no_token(tmp_path: Path) -> None:
    """TLS is verified, and nothing is sent before."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path))
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/token"
        found = await HttpTokenEndpoint().ask(replace(ASKED, url=url))
    assert isinstance(found, RefreshFailure)
    assert (found.blame, found.code) == (Blame.TRANSIENT, "untrusted")
    assert heard in ([], [b""])


def _self_signed(directory: Path) -> Path:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


# -- not shown, not loaded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset_after", "truncated", "slow", "html", "invalid_grant"])
async def test_no_part_of_it_is_shown(endpoint: TokenEndpoint, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither what was sent nor what came, in the outcome and in the log, at whatever level."""
    caplog.set_level(0)
    login = endpoint.login("me")
    endpoint.faults = [fault]
    found = await asked(endpoint, login["refresh"], within=0.5)
    meant = found if isinstance(found, RefreshFailure) else read_answer(found, now=0.0)
    told = repr(found) + repr(meant) + caplog.text
    assert login["refresh"] not in told
    assert all(entry.access not in told for entry in endpoint.ledger() if entry.access)


def test_only_who_asks_loads_the_library() -> None:
    """Ten mebibytes, which a broker with nothing to refresh does without."""
    program = (
        "import sys, equabot_broker.bootstrap;"
        "from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint; HttpTokenEndpoint();"
        "print([name for name in ('httpx', 'httpcore', 'h11') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(run.stdout) == []
