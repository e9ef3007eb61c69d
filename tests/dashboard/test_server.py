"""The dashboard's server among strangers: other users of the host, and pages in the same browser."""

import asyncio
import re
import select
import socket
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from equabot_broker.dashboard import server as server_module
from equabot_broker.dashboard.access import PageAccess
from equabot_broker.dashboard.board import VIEWERS, Board
from equabot_broker.dashboard.document import read_document
from equabot_broker.dashboard.server import CONNECTIONS, DashboardServer
from equabot_broker.domain.errors import CannotStart
from tests.dashboard.conftest import Pair, Served

OPENED = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


async def test_the_token_opens_one_session(served: Served) -> None:
    """It is worthless afterwards, also to the one who used it."""
    session = await served.open()
    assert (await served.ask("/session", Equabot_Token=served.access.token)).status == 403
    reader, _ = await served.stream(session)
    served.board.publish("status", {"ok": True})
    assert await reader.readuntil(b"\n\n") == b'event: status\ndata: {"ok": true}\n\n'


async def test_a_wrong_token_neither_opens_nor_spends(served: Served) -> None:
    for token in ("", "x", served.access.token[:-1], served.access.token + "x", "é"):
        assert (await served.ask("/session", Equabot_Token=token)).status == 403
    assert (await served.ask("/session", "HEAD", Equabot_Token=served.access.token)).status == 404
    assert (await served.ask(f"/session?token={served.access.token}")).status == 403
    await served.open()


async def test_events_need_the_cookie_and_the_key(served: Served) -> None:
    """Browsers send the cookie to every port of the host, and so perhaps to another user's server: it alone is not enough."""
    assert (await served.ask("/events")).status == 401
    session = await served.open()
    for name in session:
        assert (await served.ask("/events", **{name: session[name]})).status == 401
        assert (await served.ask("/events", **session | {name: session[name] + "x"})).status == 401
    assert (await served.ask("/events?key=" + session["Equabot_Page_Key"], Cookie=session["Cookie"])).status == 401
    await served.stream(session | {"Cookie": f"other=1; {session['Cookie']}; more"})


async def test_the_cookie_is_for_this_site_and_no_script(served: Served) -> None:
    answer = await served.ask("/session", Equabot_Token=served.access.token)
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert name.startswith(f"equabot-dashboard-{served.server.port}=")
    assert served.access.token not in answer.headers["set-cookie"] + answer.body.decode()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:{port}", "0.0.0.0:{port}", "",
     "127.0.0.1.evil.example:{port}", "127.0.0.1:{port}.", "a@127.0.0.1:{port}", "127.0.0.1:{port}, evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/session", "/events", "/nothing"])
async def test_another_host_is_refused(served: Served, host: str, path: str) -> None:
    """DNS rebinding: a name of a stranger that leads here."""
    session = await served.open()
    answer = await served.ask(path, **session | {"Host": host.format(port=served.server.port)})
    assert answer.status == 421


async def test_localhost_is_a_name_of_this_server(served: Served) -> None:
    assert (await served.ask("/", Host=f"LocalHost:{served.server.port}")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "unheard-of"},
        OPENED | {"Sec_Fetch_Dest": "iframe"},
        OPENED | {"Sec_Fetch_Dest": "object"},
        OPENED | {"Sec_Fetch_Mode": "no-cors"},
    ],
)
async def test_another_site_is_refused(served: Served, headers: dict[str, str]) -> None:
    session = await served.open()
    filled = {name: value.format(port=served.server.port) for name, value in headers.items()}
    for path in ("/", "/icon.svg", "/session", "/events"):
        answer = await served.ask(path, **session | filled)
        assert answer.status == 403, path
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_only_the_document_is_opened_from_elsewhere(served: Served) -> None:
    """A link leads to it: it has no data. Whatever has data is asked for by the page alone."""
    session = await served.open()
    assert (await served.ask("/", **OPENED)).status == 200
    for path in ("/session", "/events"):
        assert (await served.ask(path, **session | OPENED)).status == 403
    assert (await served.ask("/", Origin=f"http://{served.host}", Sec_Fetch_Site="same-origin")).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "X"])
async def test_methods_are_get_and_head(served: Served, method: str) -> None:
    for path in ("/", "/session", "/events"):
        answer = await served.ask(path, method)
        assert (answer.status, "access-control-allow-origin" in answer.headers) == (405, False)


async def test_head_has_no_body(served: Served) -> None:
    whole, head = await served.ask("/"), await served.ask("/", "HEAD")
    assert (head.body, head.headers) == (b"", whole.headers)
    assert (await served.ask("/nothing", "HEAD")).body == b""


@pytest.mark.parametrize("path", ["/", "/icon.svg", "/nothing", "/session", "/events", "/metrics", "/../page.js"])
async def test_every_answer_is_closed_to_others(served: Served, path: str) -> None:
    """Also refusals."""
    headers = (await served.ask(path)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'",) * 3
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy["script-src"])
    assert "unsafe" not in headers["content-security-policy"]


def test_the_document_fetches_nothing_and_parses_nothing() -> None:
    """No address of another host, and none of the ways in which a text becomes markup or code."""
    html = read_document().html.decode()
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\bon\w+=|style=\"", html)
    assert html.count("<script>") == html.count("</script>") == html.count("<style>") == 1


async def test_a_request_has_a_size_and_no_body(served: Served) -> None:
    reader, _ = await served.connect(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000)
    assert (await reader.read(-1)).startswith(b"HTTP/1.1 431 ")
    for header in ("Content-Length: 5", "Transfer-Encoding: chunked", "Host: again", " folded"):
        reader, _ = await served.connect(served.request("/").replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode()))
        assert (await reader.read(-1)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_request_has_a_deadline(served: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_REQUEST_WITHIN", 0.01)
    reader, _ = await served.connect(sent)
    with suppress(ConnectionResetError):
        async with asyncio.timeout(60):
            assert await reader.read(-1) == b""


async def test_a_reader_that_does_not_read_is_left(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is larger than what the kernel takes for it."""
    served.server._documents["/"] = b"x" * (16 << 20)
    monkeypatch.setattr(server_module, "_ANSWER_WITHIN", 0.2)
    with socket.create_connection(("127.0.0.1", served.server.port)) as slow:
        slow.sendall(served.request("/"))
        reset = select.poll()
        reset.register(slow, select.POLLHUP | select.POLLERR)
        assert await asyncio.to_thread(reset.poll, 20_000)


async def _ended(pair: Pair) -> None:
    with suppress(ConnectionResetError):
        async with asyncio.timeout(60):
            while await pair[0].read(1 << 16):
                pass


async def test_a_flood_ends_itself_and_no_stream(served: Served) -> None:
    """Another user of the host can connect. The stream of the session lasts, and the page is served."""
    session = await served.open()
    reader, _ = await served.stream(session)
    silent = [await served.connect() for _ in range(CONNECTIONS + 20)]
    assert (await served.ask("/")).status == 200
    await asyncio.gather(*map(_ended, silent[:20]))
    served.board.publish("status", {"ok": True})
    assert await reader.readuntil(b"\n\n") == b'event: status\ndata: {"ok": true}\n\n'


async def test_streams_are_few_and_the_newest_stay(served: Served) -> None:
    session = await served.open()
    streams = [await served.stream(session) for _ in range(VIEWERS + 2)]
    await asyncio.gather(*map(_ended, streams[:2]))
    served.board.publish("status", {"ok": False})
    for reader, _ in streams[2:]:
        assert await reader.readuntil(b"\n\n")


async def test_a_viewer_that_does_not_read_is_left(served: Served) -> None:
    session = await served.open()
    pair = await served.stream(session)
    for number in range(16):
        served.board.publish("audit", {"number": number, "texts": ["words " * 2000] * 80})
        await asyncio.sleep(0)
    await _ended(pair)
    assert not served.board.watched


async def test_a_stream_takes_no_second_request(served: Served) -> None:
    pair = await served.stream(await served.open())
    pair[1].write(served.request("/"))
    await _ended(pair)


async def test_what_looks_like_a_key_is_masked(served: Served) -> None:
    """A name that an operator gave is shown as it is, but for keys in the wrong place."""
    reader, _ = await served.stream(await served.open())
    key = "sk-ant-api03-" + "x1" * 20
    served.board.publish("broker", {"a": ["<script>alert(1)</script>", {key: key}]})
    event = await reader.readuntil(b"\n\n")
    assert b"<script>alert(1)</script>" in event
    assert b"x1x1" not in event


async def test_a_section_is_sent_when_it_changes(served: Served) -> None:
    reader, _ = await served.stream(await served.open())
    for value in (1, 1, 2):
        served.board.publish("traffic", {"now": value})
    assert await reader.readuntil(b"\n\n") == b'event: traffic\ndata: {"now": 1}\n\n'
    assert await reader.readuntil(b"\n\n") == b'event: traffic\ndata: {"now": 2}\n\n'


async def test_it_listens_on_loopback_alone(served: Served) -> None:
    assert served.server._socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(CannotStart, match=f"127.0.0.1:{served.server.port}: Address already in use. Choose another --port"):
        DashboardServer(port=served.server.port, access=served.access, board=served.board, document=read_document())
    with pytest.raises(CannotStart, match="no such port"):
        DashboardServer(port=70_000, access=served.access, board=served.board, document=read_document())


@pytest.fixture(scope="module")
def unserved() -> DashboardServer:
    made = DashboardServer(port=0, access=PageAccess(), board=Board(redact=str), document=read_document())
    made._socket.close()
    return made


@given(data=st.binary(), before=st.booleans())
@example(data=b"", before=False)
@example(data=b"Cookie: \xff=\xfe", before=True)
@example(data=b"Equabot-Token: \xff", before=True)
def test_any_bytes_are_answered_or_refused(unserved: DashboardServer, data: bytes, before: bool) -> None:
    """Without the token no bytes open a stream."""
    head = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % unserved.port if before else b""
    answer, streams = unserved.answer(head + data)
    assert (answer.startswith(b"HTTP/1.1 "), streams) == (True, False)
