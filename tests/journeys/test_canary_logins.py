"""Logins show nothing: endpoints that quote what they were sent, garbage for an answer, refusals, broken refreshes."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, cast

import pytest
from google.protobuf.message import Message

from equabot.broker.v1 import broker_pb2
from tests.fakes.token_endpoint import TokenEndpoint
from tests.journeys.canaries import Canaries
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import RunningBroker
from tests.journeys.showing import BROKER, TALKATIVE, ask, channel_to, said, shown_by

FAILING: Final = ("http_500", "http_502", "http_429", "html", "empty", "redirect", "reset_before")
LOST: Final = ("truncated", "garbled")
REFUSED: Final = ("invalid_grant", "refresh_token_reused", "unknown", "other_account")
SERVING: Final = ("expires_in_text", "no_refresh")
STORE: Final = "auth-profiles.json"
STORES: Final = (STORE, f".{STORE}.new")
"""The store, and what takes its place in a moment."""
_WAYS: Final[dict[str, type[Message]]] = {"AcquireLease": broker_pb2.Lease, "StreamLease": broker_pb2.LeaseEvent}


class Vendors:
    """A vendor for every fault, called as the fault is, each with a login whose access token has ended."""

    def __init__(self, names: tuple[str, ...], directory: Path, stack: ExitStack) -> None:
        self.canaries = Canaries()
        self._endpoints: dict[str, TokenEndpoint] = {}
        for name in names:
            fault = {} if name == "unknown" else {name: 1.0}
            self._endpoints[name] = stack.enter_context(TokenEndpoint(directory / name, odds=fault, slowness=30.0))

    def config(self) -> str:
        providers = {
            _provider(name): {
                "base_url": "https://vendor.example",
                "token_url": endpoint.url,
                "client_id": "cli",
            }
            for name, endpoint in self._endpoints.items()
        }
        return json.dumps({"providers": providers, "sources": ["profile_store"]})

    def store(self) -> str:
        profiles = {f"{_provider(name)}:me": self._login(name) for name in self._endpoints}
        return json.dumps({"version": 1, "profiles": profiles})

    def leaks(self, shown: dict[str, str | bytes]) -> dict[str, set[str]]:
        """Of all tokens that there have been."""
        for name, endpoint in self._endpoints.items():
            for entry in endpoint.ledger():
                for token in filter(None, (entry.token, entry.access, entry.successor)):
                    self.canaries.add(f"a token of {name}", token.rpartition("-")[2])
        return self.canaries.leaks(shown)

    def asked(self, name: str) -> bool:
        return any(entry.event == "presented" for entry in self._endpoints[name].ledger())

    def _login(self, name: str) -> dict[str, Any]:
        tokens = self._endpoints[name].login("me", life=-60.0)
        if name == "unknown":
            tokens["refresh"] = self.canaries.new("an unknown token")
        return {"type": "oauth", "provider": _provider(name), **tokens}


def _provider(fault: str) -> str:
    return fault.replace("_", "-")


MakeWorld = Callable[..., tuple[RunningBroker, Vendors]]


@pytest.fixture
def make_world(make_broker: MakeBroker, tmp_path: Path) -> Iterator[MakeWorld]:
    """A broker that has a login of each of these, and is not started yet; and the vendors."""
    with ExitStack() as stack:

        def make(*names: str) -> tuple[RunningBroker, Vendors]:
            vendors = Vendors(names, tmp_path, stack)
            broker = make_broker(config=vendors.config())
            store = stored(broker)
            store.parent.mkdir(parents=True)
            store.write_text(vendors.store())
            broker.environ |= TALKATIVE
            return broker, vendors

        yield make


def stored(broker: RunningBroker) -> Path:
    return broker.home / "agents" / "main" / "agent" / STORE


def refusals(broker: RunningBroker, names: tuple[str, ...]) -> tuple[set[str], dict[str, str | bytes]]:
    """The reasons that acquiring is refused for, by call and stream, and all that is said with them. Who asks for a login that
    cannot be refreshed now waits for it: so all ask at once."""
    asked = [(name, method, answer) for name in names for method, answer in _WAYS.items()]
    with channel_to(broker) as channel, ThreadPoolExecutor(len(asked)) as pool:
        calls = {
            f"{method} {name}": pool.submit(
                ask, channel, f"{BROKER}/{method}", broker_pb2.AcquireLeaseRequest(provider=_provider(name)), answer
            )
            for name, method, answer in asked
        }
        done = {what: call.result() for what, call in calls.items()}
    return {reason for reason, _ in done.values()}, {what: text for what, (_, text) in done.items()}


def test_no_token_is_shown_whatever_its_endpoint_does(make_world: MakeWorld) -> None:
    """REFRESH_FAILED and REAUTH_REQUIRED, to the agent and to everybody else; then by `doctor --fix`, which refreshes as well.
    What is stored of it is in the store alone."""
    broker, vendors = make_world(*FAILING, *LOST, *REFUSED, *SERVING)
    broker.start("-vv")
    reasons, told = refusals(broker, FAILING)
    assert reasons == {"REFRESH_FAILED"}
    _, more = refusals(broker, LOST)
    told |= more
    broker.wait_output("models", "status", "--plain", until=lambda told: told.count("\treauth_required\t") >= len(REFUSED))
    reasons, more = refusals(broker, REFUSED)
    assert reasons == {"REAUTH_REQUIRED"}
    assert "invalid_grant" in str(more["AcquireLease unknown"])
    reasons, _ = refusals(broker, SERVING)
    assert reasons == {""}
    shown = told | more | shown_by(broker, *STORES)
    assert b'"level":"debug"' in cast("bytes", shown["log"])
    broker.stop()
    shown["doctor --fix"] = said(broker, ["doctor", "--fix"], ["models", "status"], EQUABOT_DEBUG="1")
    assert "could not be fixed" in shown["doctor --fix"]
    assert vendors.leaks(shown) == {}
    assert vendors.canaries.seen_in(stored(broker).read_text()), "what is searched for is what there is"


def test_a_refresh_that_was_broken_off_leaves_no_token_behind(make_world: MakeWorld) -> None:
    """But where it was kept: the intent, which is what the next broker goes by, names it by its digest."""
    broker, vendors = make_world("slow")
    broker.start("-vv")
    broker.wait_for(lambda: vendors.asked("slow"))
    broker.kill()
    broker.start("-vv", service="liveness")
    reasons, told = refusals(broker, ("slow",))
    assert reasons == {"REAUTH_REQUIRED"}
    shown = told | shown_by(broker, *STORES)
    [entry] = json.loads(stored(broker).read_text())["profiles"].values()
    shown["intent"] = str([value for value in entry.values() if isinstance(value, dict)])
    assert "digest" in shown["intent"]
    assert vendors.leaks(shown) == {}
