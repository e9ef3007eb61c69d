"""What a request pays for its headers."""

import os
import timeit
from statistics import median

import equabot_client
from benchmarks._broker import broker
from benchmarks._row import Row


def rows() -> list[Row]:
    """The cached headers against reading the mounted file, and the environment."""
    with broker() as ours, equabot_client.connect(f"unix:{ours.socket}") as connection:
        credential = connection.credential("anthropic")
        credential.headers()
        cached = _nanoseconds(credential.headers)
        file = _nanoseconds(ours.dotenv.read_text)
        environment = _nanoseconds(lambda: os.environ["PATH"])
        credential.close()
    return [
        Row("credential.headers()", cached / 1000, "µs", 2),
        Row("reading a mounted file / credential.headers()", file / cached, "x", 5, at_least=True),
        Row("os.environ", environment / 1000, "µs"),
    ]


def _nanoseconds(call: object) -> float:
    runs = timeit.repeat(call, number=20_000, repeat=7)  # type: ignore[arg-type]
    return median(runs) / 20_000 * 1e9
