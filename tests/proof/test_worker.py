"""What a process of the proof writes down of its requests."""

import asyncio
import random
import signal
import socket
from pathlib import Path

import pytest

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import TokenRequest
from tests.proof.run import read_lines
from tests.proof.worker import Doom, Endpoint

HEAD = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n"
ANSWERS = {"no byte": b"", "half a head": HEAD[:30], "a head": HEAD, "half a body": HEAD + b'{"error"'}


@pytest.mark.parametrize("written", ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_request_gave_up_whose_answer_did_not_arrive_as_a_whole(tmp_path: Path, written: bytes) -> None:
    """T10: the endpoint's ledger says `answered`, and the process knows no more than the status."""
    dispositions = [signal.getsignal(number) for number in signal.valid_signals()]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        endpoint = Endpoint(Doom("", 0, print), random.Random(0), gave_up=tmp_path / "gave-up", within=0.5)
        asking = asyncio.create_task(endpoint.ask(TokenRequest(url, "json", {"refresh_token": SecretValue("rt")})))
        connection, _ = await asyncio.to_thread(server.accept)
        with connection:
            connection.sendall(written)
            await asking
    assert len(read_lines(tmp_path / "gave-up")) == 1
    assert [signal.getsignal(number) for number in signal.valid_signals()] == dispositions
