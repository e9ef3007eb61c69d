"""HTTP clients in hostile environments: what a variable breaks is said by its name, and goes when it is corrected."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from equabot_broker.domain.probing import Verdict
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, TokenAnswer, TokenRequest
from equabot_broker.upstream.clients import outside_faults, trust
from equabot_broker.upstream.probe import probe
from equabot_broker.upstream.probe_requests import ProbeRequest
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint

ASKED = TokenRequest("http://unset", "json", {"grant_type": "refresh_token", "refresh_token": SecretValue("rt-canary")})
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
ODD = {
    "an IPv6 network": {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "localhost,127.0.0.0/8,::1/128,fd00::/8,*.orb.local"},
    "an IPv6 address": {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1,[::1]"},
    "a SOCKS proxy that is not needed": {"ALL_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": "127.0.0.1"},
    "a malformed proxy of another scheme": {"HTTPS_PROXY": "http://[::1"},
    "a malformed entry": {"NO_PROXY": "a b/c,[,%%,fd00::/999"},
}
BROKEN = {
    "SOCKS": ({"ALL_PROXY": "socks://127.0.0.1:1080"}, "ALL_PROXY names a SOCKS proxy"),
    "SOCKS 5": ({"HTTP_PROXY": "socks5://me:pa55word@127.0.0.1:1080"}, "HTTP_PROXY names a SOCKS proxy"),
    "no URL": ({"HTTP_PROXY": "http://[::1"}, "HTTP_PROXY is not the URL of a proxy"),
    "no port": ({"http_proxy": "http://proxy:pa55word"}, "http_proxy is not the URL of a proxy"),
    "no file": ({"SSL_CERT_FILE": "{tmp}/none.pem"}, "SSL_CERT_FILE names {tmp}/none.pem, which does not exist"),
    "an empty file": ({"SSL_CERT_FILE": "{tmp}/empty.pem"}, "which holds no certificate in PEM form"),
    "no certificate": ({"SSL_CERT_FILE": "{tmp}/text.pem"}, "which holds no certificate in PEM form"),
    "a directory": ({"SSL_CERT_FILE": "{tmp}"}, "is a directory, not a file"),
    "a file as directory": ({"SSL_CERT_DIR": "{tmp}/text.pem"}, "which is not a readable directory"),
}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No variable of proxies or certificates is set; the files of `BROKEN` are there."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    (tmp_path / "empty.pem").touch()
    (tmp_path / "text.pem").write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    return monkeypatch


@asynccontextmanager
async def vendor() -> AsyncIterator[str]:
    """Answers everything with `{}`; on loopback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("what", ODD)
async def test_an_unused_invalid_variable_is_not_a_fault(environ: pytest.MonkeyPatch, what: str) -> None:
    """P2: the request goes where the variables say, of which httpx would not have made a client."""
    for name, value in ODD[what].items():
        environ.setenv(name, value)
    async with vendor() as url:
        assert isinstance(await HttpTokenEndpoint().ask(replace(ASKED, url=url)), TokenAnswer)
        found = await probe({"one": ProbeRequest(url, b"", {}, "GET")})
    assert found["one"].verdict is not Verdict.UNKNOWN


@pytest.mark.parametrize("what", BROKEN)
async def test_what_a_request_needs_and_cannot_have_is_said(environ: pytest.MonkeyPatch, tmp_path: Path, what: str) -> None:
    """P2: the variable, why, and what to do, and no password. Nothing was sent, so it is tried again; a probe knows nothing."""
    variables, said = BROKEN[what]
    for name, value in variables.items():
        environ.setenv(name, value.format(tmp=tmp_path))
    said = said.format(tmp=tmp_path)
    endpoint = HttpTokenEndpoint()
    async with vendor() as url:
        failed = await endpoint.ask(replace(ASKED, url=url))
        assert isinstance(failed, RefreshFailure)
        assert (failed.blame, failed.code) == (Blame.TRANSIENT, "environment")
        found = await probe({"one": ProbeRequest(url, b"", {}, "GET")})
        assert found["one"].verdict is Verdict.UNKNOWN
        shown = [str(fault) for fault in outside_faults()]
        for text in (failed.reason, found["one"].reason, *shown):
            assert said in text
            assert "pa55word" not in text
        if "SSL_CERT_FILE" in variables and what != "a directory":
            (tmp_path / Path(variables["SSL_CERT_FILE"]).name).write_text(certifi.contents())
            assert isinstance(await endpoint.ask(replace(ASKED, url=url)), TokenAnswer), "it works again by itself"


def test_only_the_named_authorities_are_trusted(tmp_path: Path) -> None:
    """P2: a bundle with words in it is read; where none is named, the usual ones count."""
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes("# größer\n".encode("latin-1") + Path(certifi.where()).read_bytes())
    assert trust({"SSL_CERT_FILE": str(bundle)}).cert_store_stats()["x509_ca"] > 50
    assert trust({}).cert_store_stats()["x509_ca"] > 50
    for environ in ({"SSL_CERT_FILE": str(bundle)}, {"SSL_CERT_DIR": str(tmp_path)}, {}):
        made = trust(environ)
        assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert trust({"SSL_CERT_DIR": str(tmp_path)}).cert_store_stats()["x509"] == 0
