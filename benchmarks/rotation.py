"""From the swap of a file to the new secret in the client."""

import time
from pathlib import Path

import equabot_client
from benchmarks._broker import KEY, broker
from benchmarks._row import Row

ROUNDS = 200


def rows() -> list[Row]:
    """Atomic replacements of `.env`, followed by a credential object in another process."""
    with broker() as ours, equabot_client.connect(f"unix:{ours.socket}") as connection:
        credential = connection.credential("anthropic")
        credential.headers()
        times = sorted(_rotate(ours.dotenv, credential, index) for index in range(ROUNDS))
        credential.close()
    return [
        Row("rotation, file to client, p50", times[ROUNDS // 2] * 1000, "ms"),
        Row("rotation, file to client, p99", times[int(ROUNDS * 0.99)] * 1000, "ms", 50),
    ]


def _rotate(path: Path, credential: "equabot_client.Credential", index: int) -> float:
    secret = f"{KEY}{index:04}"
    fresh = path.with_suffix(".new")
    fresh.write_text(f"ANTHROPIC_API_KEY={secret}\n")
    began = time.perf_counter()
    fresh.replace(path)
    while credential.headers()["x-api-key"] != secret:
        if time.perf_counter() - began > 5:
            raise RuntimeError("the rotation never arrived")
        time.sleep(0.0002)
    return time.perf_counter() - began
