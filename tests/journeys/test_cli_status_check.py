"""`models status --check` over every mode and state, with a broker and, once that has ended, without one.

Every cell is an agent of its own, whose store holds one profile in that state.
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pytest

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import fingerprint
from equabot_client import Outcome
from tests.journeys.running import RunningBroker

NOW: Final = time.time()
SOON, LATER, GONE = NOW + 6 * 3600, NOW + 90 * 86400, NOW - 3600
KEY: Final = "sk-ant-api03-" + "m4tr1x" * 15
TOKEN: Final = "sk-ant-oat01-" + "m4tr1x" * 15
REFRESH: Final = "sk-ant-ort01-" + "m4tr1x" * 15


class Cell(NamedTuple):
    """A profile's entry (None: only an order names it), when it ends by configuration, and what is to be told of it."""

    name: str
    entry: dict[str, Any] | None
    state: str
    code: int
    ends: float | None = None


def key(**fields: Any) -> dict[str, Any]:
    return {"type": "api_key", "provider": "anthropic", "key": KEY, **fields}


def token(ends: float | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "token", "provider": "anthropic", "token": TOKEN, **_expires(ends), **fields}


def oauth(ends: float | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "oauth", "provider": "anthropic", "access": TOKEN, **_expires(ends), **fields}


def _expires(ends: float | None) -> dict[str, int]:
    return {} if ends is None else {"expires": int(ends * 1000)}


REFUSED: Final = {
    "refresh": REFRESH,
    "reauthRequired": {"code": "invalid_grant", "at": 1, "digest": fingerprint(SecretValue(REFRESH))},
}
CELLS: Final = [
    Cell("key-static", key(), "static", 0),
    Cell("key-ok", key(), "ok", 0, ends=LATER),
    Cell("key-expiring", key(), "expiring", 2, ends=SOON),
    Cell("key-expired", key(), "expired", 1, ends=GONE),
    Cell("key-invalid", key(key="changeme"), "invalid", 1),
    Cell("key-rejected", key(), "rejected", 1),
    Cell("token-static", token(), "static", 0),
    Cell("token-ok", token(LATER), "ok", 0),
    Cell("token-expiring", token(SOON), "expiring", 2),
    Cell("token-expired", token(GONE), "expired", 1),
    Cell("token-invalid", token(token="${TOKEN}"), "invalid", 1),
    Cell("token-rejected", token(LATER), "rejected", 1),
    Cell("oauth-ok", oauth(LATER), "ok", 0),
    Cell("oauth-refreshable", oauth(NOW + 2 * 3600, refresh=REFRESH), "ok", 0),
    Cell("oauth-expiring", oauth(SOON), "expiring", 2),
    Cell("oauth-expired", oauth(GONE), "expired", 1),
    Cell("oauth-invalid", oauth(LATER, access="a b"), "invalid", 1),
    Cell("oauth-rejected", oauth(LATER), "rejected", 1),
    Cell("oauth-reauth", oauth(GONE, **REFUSED), "reauth_required", 1),
    Cell("oauth-reauth-serving", oauth(LATER, **REFUSED), "reauth_required", 1),
    Cell("missing", None, "missing", 1),
    Cell("nothing", None, "", 1),
]


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """A broker with an agent a cell; the rejections have been reported."""
    agents = "".join(f"  {cell.name}: {{providers: [anthropic]}}\n" for cell in CELLS)
    ends = "".join(f"  anthropic:{cell.name}: {{expires_at: {_rfc3339(cell.ends)}}}\n" for cell in CELLS if cell.ends)
    made = RunningBroker(credentials={}, dotenv="", config=f"agents:\n{agents}profiles:\n{ends}sources: [profile_store]\n")
    for cell in CELLS:
        if cell.name != "nothing":
            _write(made, cell)
    made.start(service="liveness")
    for cell in CELLS:
        if cell.state == "rejected":
            with made.connect(cell.name) as client:
                client.report(client.acquire("anthropic"), Outcome.AUTH)
    yield made
    made.close()


def _write(broker: RunningBroker, cell: Cell) -> None:
    path = broker.home / "agents" / cell.name / "agent" / "auth-profiles.json"
    path.parent.mkdir(parents=True, mode=0o700)
    content: dict[str, Any] = {"version": 1, "profiles": {}}
    if cell.entry is None:
        content["order"] = {"anthropic": ["anthropic:missing"]}
    else:
        content["profiles"][f"anthropic:{cell.name}"] = cell.entry
    path.write_text(json.dumps(content))
    path.chmod(0o600)


def _rfc3339(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check(broker: RunningBroker, cell: Cell) -> tuple[str, int, str]:
    done = broker.run("models", "status", "--check", "--json", "--agent", cell.name)
    profiles = json.loads(done.stdout)["auth"]["oauth"]["profiles"]
    return profiles[0]["status"] if profiles else "", done.returncode, done.stderr


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_beside_a_broker(broker: RunningBroker, cell: Cell) -> None:
    """1 for what does not serve or soon will not without a person, 2 for what ends within a day, 0 for the rest."""
    assert _check(broker, cell) == (cell.state, cell.code, "")


def test_without_one(broker: RunningBroker) -> None:
    """The same of every cell, also of what only the broker had been told."""
    assert broker.stop() == 0
    found = {cell.name: _check(broker, cell) for cell in CELLS}
    assert found == {cell.name: (cell.state, cell.code, "") for cell in CELLS}
