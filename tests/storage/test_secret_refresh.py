"""Refreshes of one login in a Secret by brokers that cannot be sure of each other: cut off, too slow, taken for dead."""

import base64
import json
from typing import Any

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.refresh.redemption import Redemption, RedemptionKind, RedemptionOutcome
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.formats.secret_logins import SecretLogins
from equabot_broker.ports import StoreFault
from equabot_broker.storage.secret_store import LOCKED_FOR, SecretStores
from tests.fakes.clock import HurriedClock
from tests.fakes.kube_api import MemoryKube, fault
from tests.fakes.scripted_endpoint import LOST, UNREACHED, ScriptedEndpoint, granted

NOW = 1_800_000_000
ENTRY = {"type": "oauth", "provider": "acme", "access": "at-1", "refresh": "rt-1", "expires": (NOW + 60) * 1000}
PATH = "/api/v1/namespaces/ns/secrets/llm"
LOGIN = Profile(
    id="acme:me", provider="acme", mode=Mode.OAUTH, source="kubernetes", unit="llm",
    origin="Secret ns/llm auth-profiles.json acme:me", secret=SecretValue("at-1"),
)  # fmt: skip


class World:
    """A Secret, an endpoint by script, and brokers on nodes of their own."""

    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.clock = HurriedClock(now=NOW)
        self.endpoint = ScriptedEndpoint(granted(2))
        store = json.dumps({"version": 1, "profiles": {"acme:me": ENTRY}}).encode()
        data = {"auth-profiles.json": base64.b64encode(store).decode()}
        self.kube.put(PATH, {"metadata": {"name": "llm", "namespace": "ns"}, "data": data})
        self._brokers = 0

    def broker(self) -> Redemption:
        self._brokers += 1
        stores = SecretStores(self.kube, namespace="ns", clock=self.clock, holder=f"broker-{self._brokers}")
        rules = DiscoveryRules(Catalog({"acme": Provider(id="acme", token_url="https://login.acme.example/token")}))
        return Redemption(clock=self.clock, stores=stores, endpoint=self.endpoint, rules=rules)

    def document(self) -> AuthDocument:
        found = self.kube.objects[PATH]
        values = {key: base64.b64decode(text) for key, text in found["data"].items()}
        return SecretLogins(values, found["metadata"].get("annotations", {})).document()

    @property
    def entry(self) -> dict[str, Any]:
        return self.document().entries["acme:me"]

    def go_away(self) -> None:
        """The API server."""
        self.kube.down = fault("Unreachable")

    async def outlive_the_lock(self, broker: Redemption) -> RedemptionOutcome:
        """What the broker makes of it once it has seen nobody alive for long enough."""
        with pytest.raises(StoreFault, match="held by broker-"):
            await broker.redeem(LOGIN)
        self.clock.advance(LOCKED_FOR + 1)
        return await broker.redeem(LOGIN)


@pytest.fixture
def world() -> World:
    return World()


async def test_one_refreshes_and_the_others_adopt(world: World) -> None:
    """The whole way, with the marks where they belong and gone when it is over."""
    seen: list[dict[str, Any]] = []
    world.endpoint.meanwhile = lambda: seen.append(world.entry)
    assert await world.broker().redeem(LOGIN) == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert seen[0]["pendingRefresh"]["digest"] == digest(ENTRY)
    assert (world.entry["access"], world.entry["refresh"]) == ("at-2", "rt-2")
    assert world.kube.objects[PATH]["metadata"]["annotations"].keys() == {"equabot.dev/spent-refresh"}
    assert await world.broker().redeem(LOGIN) == RedemptionOutcome(RedemptionKind.ADOPTED)
    assert world.endpoint.redeemed == ["rt-1"]


async def test_tokens_outlast_a_server_that_is_away(world: World) -> None:
    """They stay with the one who has them, whom nobody takes for dead meanwhile, and are written once the server is back."""
    holder, other = world.broker(), world.broker()
    world.endpoint.meanwhile = world.go_away
    for _ in range(3):
        with pytest.raises(StoreFault):
            await holder.redeem(LOGIN)
        with pytest.raises(StoreFault):
            await other.redeem(LOGIN)
    world.kube.down = None
    with pytest.raises(StoreFault, match="held by broker-1"):
        await other.redeem(LOGIN)
    assert await holder.redeem(LOGIN) == RedemptionOutcome(RedemptionKind.ADOPTED)
    assert (world.entry["access"], world.endpoint.redeemed) == ("at-2", ["rt-1"])
    assert await other.redeem(LOGIN) == RedemptionOutcome(RedemptionKind.ADOPTED)


async def test_shutdown_writes_tokens_and_sends_no_request(world: World) -> None:
    """What is still to be written is no refresh; while it cannot be, it stays."""
    holder = world.broker()
    world.endpoint.meanwhile = world.go_away
    with pytest.raises(StoreFault):
        await holder.redeem(LOGIN)
    await holder.write_pending()
    assert list(holder.unwritten) == [LOGIN]
    world.kube.down = None
    await holder.write_pending()
    assert (list(holder.unwritten), world.entry["access"], world.endpoint.redeemed) == ([], "at-2", ["rt-1"])
    assert await world.broker().redeem(LOGIN) == RedemptionOutcome(RedemptionKind.ADOPTED)


async def test_late_tokens_of_a_paused_broker_are_stored(world: World) -> None:
    """It was cut off for so long that somebody else gave the login up; what it brings is good."""
    holder, other = world.broker(), world.broker()
    world.endpoint.meanwhile = world.go_away
    with pytest.raises(StoreFault):
        await holder.redeem(LOGIN)
    world.kube.down = None
    assert (await world.outlive_the_lock(other)).kind is RedemptionKind.ENDED
    assert world.entry["reauthRequired"]["code"] == "interrupted"
    assert await holder.redeem(LOGIN) == RedemptionOutcome(RedemptionKind.ADOPTED)
    assert "reauthRequired" not in world.entry
    assert (world.entry["access"], world.endpoint.redeemed) == ("at-2", ["rt-1"])


@pytest.mark.parametrize("answer", [UNREACHED, LOST])
async def test_paused_broker_reverts_only_its_own_intent(world: World, answer: Any) -> None:
    """It could not write that its attempt came to nothing; meanwhile there was another one, whose token may be spent."""
    world.endpoint.answers = [answer, granted(2)]
    holder = world.broker()
    world.endpoint.meanwhile = world.go_away
    with pytest.raises(StoreFault):
        await holder.redeem(LOGIN)
    world.kube.down = None
    others = {"digest": digest(ENTRY), "at": NOW * 1000, "by": "another"}
    mark = json.dumps({"acme:me": others})
    world.kube.objects[PATH]["metadata"]["annotations"]["equabot.dev/pending-refresh"] = mark
    world.kube.touch(PATH)
    await holder.redeem(LOGIN)
    assert world.endpoint.redeemed == ["rt-1"]
    mark = world.entry["reauthRequired"]
    assert (mark["code"], mark["by"]) == ("interrupted", "another")


async def test_tokens_that_come_late_with_the_same_refresh_token_do_not_hide_that_it_was_spent(world: World) -> None:
    """T10: the broker that brings them was cut off before they were written; another has sent the token since, and died.
    It is not sent once more."""
    holder = world.broker()
    world.endpoint.answers = [granted(2, refresh_token=None)]
    world.endpoint.meanwhile = world.go_away
    with pytest.raises(StoreFault):
        await holder.redeem(LOGIN)
    world.kube.down = None
    world.endpoint.meanwhile = lambda: None
    mark = json.dumps({"acme:me": {"digest": digest(ENTRY), "at": NOW * 1000, "by": "one that died"}})
    world.kube.objects[PATH]["metadata"]["annotations"]["equabot.dev/pending-refresh"] = mark
    world.kube.touch(PATH)
    world.clock.advance(600)
    assert (await holder.redeem(LOGIN)).kind is RedemptionKind.ENDED
    assert world.endpoint.redeemed == ["rt-1"]
    assert world.entry["reauthRequired"]["code"] == "interrupted"


async def test_an_attempt_that_was_not_sent_after_all_is_taken_back(world: World) -> None:
    """Though somebody has given the login up for it: who comes back knows that the token is good."""
    world.endpoint.answers = [UNREACHED, granted(2)]
    holder, other = world.broker(), world.broker()
    world.endpoint.meanwhile = world.go_away
    with pytest.raises(StoreFault):
        await holder.redeem(LOGIN)
    world.kube.down = None
    world.endpoint.meanwhile = lambda: None
    assert (await world.outlive_the_lock(other)).kind is RedemptionKind.ENDED
    assert await holder.redeem(LOGIN) == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert (world.entry["access"], "reauthRequired" in world.entry) == ("at-2", False)


async def test_two_believed_holders_send_one_request(world: World) -> None:
    """The lock was lost without a word; the intent is written by whoever is first, and the other does not send anything."""
    first, second = world.broker(), world.broker()
    lease = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/equabot-refresh-llm"
    replace = world.kube.replace
    results: list[RedemptionOutcome] = []

    async def overtaken(path: str, body: dict[str, Any], *, timeout: float = 10.0) -> dict[str, Any]:
        if path == PATH and not results:
            results.append(RedemptionOutcome(RedemptionKind.FAILED))
            del world.kube.objects[lease]
            results.append(await second.redeem(LOGIN))
        return await replace(path, body, timeout=timeout)

    world.kube.replace = overtaken  # type: ignore[method-assign]
    with pytest.raises(StoreFault, match="changed while it was locked"):
        await first.redeem(LOGIN)
    assert results[1:] == [RedemptionOutcome(RedemptionKind.REFRESHED)]
    assert world.endpoint.redeemed == ["rt-1"]
    assert world.entry["access"] == "at-2"


async def test_an_older_manifest_does_not_bring_a_spent_token_back_to_life(world: World) -> None:
    """Not even while the new tokens are on their way: they are lost with it, and a person is told."""
    old = dict(world.kube.objects[PATH]["data"])
    await world.broker().redeem(LOGIN)
    world.kube.objects[PATH]["data"] = old
    world.kube.touch(PATH)
    assert await world.broker().redeem(LOGIN) == RedemptionOutcome(RedemptionKind.ENDED)
    assert world.endpoint.redeemed == ["rt-1"]
    assert world.entry["reauthRequired"]["code"] == "superseded"
