"""One refresh under the lock of a real store: what is sent, what the file says at each step, and what is never done twice."""

import asyncio
import fcntl
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.refresh.redemption import Redemption, RedemptionKind, RedemptionOutcome
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.oauth.refreshing import RefreshFailure, TokenAnswer
from equabot_broker.ports import LockedStore, StoreFault
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.storage.login_places import LoginPlaces
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_endpoint import LOST, UNREACHED, ScriptedEndpoint, granted, refused

NOW = 1_800_000_000
ACME = Provider(
    id="acme", aliases=("ac.me",), token_url="https://login.acme.example/token", token_encoding="form", client_id="acme-cli"
)
ENTRY: dict[str, Any] = {
    "type": "oauth",
    "provider": "acme",
    "access": "at-1",
    "refresh": "rt-1",
    "expires": (NOW + 60) * 1000,
    "accountId": "me",
    "theirs": 1,
}


def login(access: str | None = "at-1", agent: str = "") -> Profile:
    """The login as its source has delivered it."""
    secret = None if access is None else SecretValue(access)
    return Profile(id="acme:me", provider="acme", mode=Mode.OAUTH, source="s", unit="u", origin="o", secret=secret, agent=agent)


class World:
    """A store on the disk, an endpoint by script, and as many processes as a test wants."""

    def __init__(self, home: Path) -> None:
        self.clock = FakeClock(now=NOW)
        self.endpoint = ScriptedEndpoint(granted(2))
        self.stores = AgentStores(home, clock=self.clock)
        self.path = home / "agents" / "main" / "agent" / "auth-profiles.json"
        self.path.parent.mkdir(parents=True)
        self.write(ENTRY)

    def process(self) -> Redemption:
        """Another one, with a memory of its own."""
        rules = DiscoveryRules(Catalog({"acme": ACME}))
        return Redemption(clock=self.clock, stores=LoginPlaces(self.stores), endpoint=self.endpoint, rules=rules)

    async def redeem(
        self, *, seen: str | None = "at-1", forced: bool = False, process: Redemption | None = None
    ) -> RedemptionOutcome:
        """A refresh, by another process each time unless said otherwise."""
        return await (process or self.process()).redeem(login(seen), forced=forced)

    def write(self, entry: dict[str, Any], name: str = "acme:me") -> None:
        self.path.write_text(json.dumps({"version": 1, "kept": True, "profiles": {name: entry, "x:y": {"type": "z"}}}))
        self.path.chmod(0o600)

    def read(self, name: str = "acme:me") -> dict[str, Any]:
        found = json.loads(self.path.read_text())
        assert found["kept"] is True
        assert found["profiles"]["x:y"] == {"type": "z"}
        entry = found["profiles"][name]
        assert isinstance(entry, dict)
        return entry


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- what is done ------------------------------------------------------------------------------------------------------


async def test_new_tokens_take_the_place_of_the_old(world: World) -> None:
    """Everything else in the file stays; the endpoint is asked once, in the provider's words."""
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.REFRESHED)
    times = {"expires": (NOW + 600) * 1000, "issuedAt": NOW * 1000}
    assert world.read() == ENTRY | {"access": "at-2", "refresh": "rt-2"} | times
    (asked,) = world.endpoint.requests
    assert (asked.url, asked.encoding, asked.fields["client_id"]) == (ACME.token_url, "form", "acme-cli")
    assert world.endpoint.redeemed == ["rt-1"]


async def test_a_reload_in_the_middle_loses_no_token(world: World) -> None:
    """C15: though the new configuration knows the provider no more, what the endpoint gives is written."""
    process = world.process()
    world.endpoint.meanwhile = lambda: process.apply(DiscoveryRules(Catalog({})))
    assert await world.redeem(process=process) == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert (world.read()["access"], world.read()["refresh"]) == ("at-2", "rt-2")
    assert process.unwritten == ()


async def test_the_logins_own_client_redeems_it(world: World) -> None:
    """Another program's login belongs to that program's client."""
    world.write(ENTRY | {"clientId": "theirs"})
    await world.redeem()
    assert world.endpoint.requests[0].fields["client_id"] == "theirs"


async def test_an_entry_under_another_spelling_is_found(world: World) -> None:
    """And keeps its name."""
    world.write(ENTRY | {"provider": "ac.me"}, "ac.me:me")
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert world.read("ac.me:me")["access"] == "at-2"


async def test_an_agents_own_login_is_in_its_own_store(world: World, tmp_path: Path) -> None:
    """`main`'s is another one."""
    await world.stores.edit(
        "coder", lambda _: AuthDocument({"version": 1, "profiles": {"acme:me": ENTRY | {"refresh": "rt-c"}}})
    )
    assert await world.process().redeem(login(agent="coder")) == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert world.endpoint.redeemed == ["rt-c"]
    assert world.read() == ENTRY


async def test_the_intent_is_on_the_disk_before_anything_is_sent(world: World) -> None:
    """And nothing of the token in it."""
    found: list[dict[str, Any]] = []
    world.endpoint.meanwhile = lambda: found.append(world.read())
    await world.redeem()
    mark = found[0]["pendingRefresh"]
    assert found == [ENTRY | {"pendingRefresh": {"digest": digest(ENTRY), "at": NOW * 1000, "by": mark["by"]}}]
    assert "rt-1" not in json.dumps(mark)


async def test_store_is_locked_during_the_refresh(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock holds over the call."""
    refused, lock = threading.Event(), fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        try:
            lock(descriptor, operation)
        except BlockingIOError:
            refused.set()
            raise

    monkeypatch.setattr(fcntl, "flock", flock)
    world.endpoint.open.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(world.redeem())
        second = group.create_task(world.redeem())
        await world.endpoint.asked.wait()
        assert await asyncio.to_thread(refused.wait, 60)
        assert (len(world.endpoint.redeemed), second.done()) == (1, False)
        world.endpoint.open.set()
    assert {first.result().kind, second.result().kind} == {RedemptionKind.REFRESHED, RedemptionKind.ADOPTED}
    assert world.endpoint.redeemed == ["rt-1"]


async def test_tokens_of_another_process_are_adopted(world: World) -> None:
    """Nothing is sent."""
    await world.redeem()
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.ADOPTED)
    assert await world.redeem(forced=True) == RedemptionOutcome(RedemptionKind.ADOPTED)
    assert world.endpoint.redeemed == ["rt-1"]


async def test_removed_login_is_not_refreshed(world: World) -> None:
    """A token in its place, no entry, no file."""
    world.write({"type": "token", "provider": "acme", "token": "t"})
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.GONE)
    world.write(ENTRY, "acme:other")
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.GONE)
    world.path.unlink()
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.GONE)
    assert world.endpoint.redeemed == []


async def test_token_lifetime_counts_from_the_request(world: World) -> None:
    """However long the answer took: rather too early than too late."""
    world.endpoint.meanwhile = lambda: world.clock.advance(25)
    await world.redeem()
    assert world.read()["expires"] == (NOW + 600) * 1000


# -- what fails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [refused(503, retry_after="7"), refused(429), UNREACHED, refused(404)])
async def test_temporary_failure_keeps_the_login(world: World, answer: TokenAnswer | RefreshFailure) -> None:
    """Byte for byte, and ready for the next try."""
    world.endpoint.answers = [answer, granted(2)]
    found = await world.redeem()
    assert found.kind is RedemptionKind.FAILED
    assert world.read() == ENTRY
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.REFRESHED)


@pytest.mark.parametrize("code", ["invalid_grant", "refresh_token_reused", "token_revoked"])
async def test_refusal_is_stored_and_not_repeated(world: World, code: str) -> None:
    """By nobody, until a person has logged in."""
    world.endpoint.answers = [refused(400, code)]
    found = await world.redeem()
    assert (found.kind, found.failure and found.failure.code) == (RedemptionKind.ENDED, code)
    mark = {"code": code, "at": NOW * 1000, "digest": digest(ENTRY)}
    assert world.read() == ENTRY | {"reauthRequired": mark}
    assert await world.redeem(forced=True) == RedemptionOutcome(RedemptionKind.ENDED)
    assert world.endpoint.redeemed == ["rt-1"]
    world.write(world.read() | {"access": "at-8", "refresh": "rt-8"})
    world.endpoint.answers = [granted(9)]
    assert await world.redeem(seen="at-8") == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert "reauthRequired" not in world.read()


async def test_tokens_of_another_account_are_refused(world: World) -> None:
    """They would make somebody's requests in somebody else's name; and the old token is spent."""
    world.endpoint.answers = [granted(2, account_id="somebody-else")]
    found = await world.redeem()
    assert (found.kind, found.failure and found.failure.code) == (RedemptionKind.ENDED, "different_account")
    assert world.read()["access"] == "at-1"
    assert "at-2" not in world.path.read_text()
    assert await world.redeem(forced=True) == RedemptionOutcome(RedemptionKind.ENDED)


@pytest.mark.parametrize("token", ["rt-1", None])
async def test_a_refresh_token_may_stay_the_same(world: World, token: str | None) -> None:
    """Where the endpoint says so it is redeemed again, for it is not spent."""
    world.endpoint.answers = [granted(2, refresh_token=token), granted(3)]
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert world.read()["refresh"] == "rt-1"
    world.clock.advance(599)
    assert await world.redeem(seen="at-2") == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert world.endpoint.redeemed == ["rt-1", "rt-1"]


async def test_without_an_answer_the_token_waits_for_the_end_of_the_other(world: World) -> None:
    """In every process: while the access token is good, it could be lost. Then the token is tried once more."""
    world.endpoint.answers = [LOST, granted(2)]
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.FAILED, LOST)
    mark = {"digest": digest(ENTRY), "at": NOW * 1000, "unanswered": True}
    assert world.read() == ENTRY | {"pendingRefresh": mark | {"by": world.read()["pendingRefresh"]["by"]}}
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.HELD)
    assert world.endpoint.redeemed == ["rt-1"]
    world.clock.advance(60)
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert "pendingRefresh" not in world.read()


# -- who dies ----------------------------------------------------------------------------------------------------------


async def test_refresh_of_a_dead_process_is_not_repeated(world: World) -> None:
    """Its token may be spent: that is said, and what is left of the access token is used."""
    world.write(ENTRY | {"pendingRefresh": {"digest": digest(ENTRY), "at": NOW * 1000}})
    for forced in (False, True):
        found = await world.redeem(forced=forced)
        assert (found.kind, found.failure is None) == (RedemptionKind.ENDED, forced)
        mark = {"code": "interrupted", "at": NOW * 1000, "digest": digest(ENTRY)}
        assert world.read() == ENTRY | {"reauthRequired": mark}
    assert world.endpoint.redeemed == []


async def test_cancelled_refresh_is_marked_as_uncertain(world: World) -> None:
    """A living process that is told to stop in the middle has not died; it says so as soon as it can."""
    process = world.process()
    world.endpoint.open.clear()
    refreshing = asyncio.ensure_future(world.redeem(process=process))
    await world.endpoint.asked.wait()
    refreshing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refreshing
    assert await world.redeem(process=process) == RedemptionOutcome(RedemptionKind.HELD)
    assert world.read()["pendingRefresh"]["unanswered"] is True


# -- where the disk fails ----------------------------------------------------------------------------------------------


async def test_failed_intent_sends_no_request(world: World) -> None:
    """A token that could not be stored would be lost."""
    world.path.write_text("{")
    with pytest.raises(StoreFault):
        await world.redeem()
    assert (world.endpoint.redeemed, world.path.read_text()) == ([], "{")


class FailsHalfWay(AgentStores):
    """Says of its first write that it failed, once it is done."""

    failed = False

    @asynccontextmanager
    async def locked(self, agent: str) -> AsyncIterator[LockedStore]:
        async with super().locked(agent) as store:
            yield _HalfWay(self, store)


class _HalfWay:
    def __init__(self, stores: FailsHalfWay, store: LockedStore) -> None:
        self._stores = stores
        self._store = store
        self.edit = store.edit

    @property
    def document(self) -> AuthDocument:
        return self._store.document

    async def replace(self, document: AuthDocument) -> None:
        await self._store.replace(document)
        if not self._stores.failed:
            self._stores.failed = True
            raise StoreFault("it cannot be written")


async def test_an_intent_whose_writing_failed_is_not_taken_for_a_dead_process(world: World, tmp_path: Path) -> None:
    """It may be in the file all the same; this process knows that it sent nothing."""
    world.stores = FailsHalfWay(tmp_path, clock=world.clock)
    process = world.process()
    with pytest.raises(StoreFault):
        await world.redeem(process=process)
    assert "pendingRefresh" in world.read()
    assert await world.redeem(process=process) == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert world.endpoint.redeemed == ["rt-1"]


async def test_tokens_that_cannot_be_stored_are_kept_until_they_can(world: World) -> None:
    """The next try of the same process stores them, and asks nobody."""
    process = world.process()
    whole: list[str] = []

    def broken() -> None:
        whole.append(world.path.read_text())
        world.path.write_text("{ broken")

    world.endpoint.meanwhile = broken
    with pytest.raises(StoreFault):
        await world.redeem(process=process)
    with pytest.raises(StoreFault):
        await world.redeem(process=process)
    world.path.write_text(whole[0])
    assert await world.redeem(process=process) == RedemptionOutcome(RedemptionKind.ADOPTED)
    assert (world.read()["access"], world.read()["refresh"]) == ("at-2", "rt-2")
    assert world.endpoint.redeemed == ["rt-1"]


async def test_newer_login_is_not_overwritten(world: World) -> None:
    """A program that ignores locks wrote another login while the endpoint was asked."""
    anew = ENTRY | {"access": "at-new", "refresh": "rt-new"}
    world.endpoint.meanwhile = lambda: world.write(anew)
    await world.redeem()
    assert world.read() == anew


async def test_concurrent_change_of_the_store_is_kept(world: World) -> None:
    """Nor do the tokens that came get lost."""

    def note() -> None:
        world.write(world.read() | {"theirs": 2})

    world.endpoint.meanwhile = note
    assert await world.redeem() == RedemptionOutcome(RedemptionKind.REFRESHED)
    assert (world.read()["theirs"], world.read()["access"]) == (2, "at-2")
