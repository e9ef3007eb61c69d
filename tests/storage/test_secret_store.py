"""A Secret as a store of logins: what is promised to the engine, on a real API server and on the one in memory; and what
happens when the server does not do what is asked."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.kube.api import KubeApi
from equabot_broker.ports import Clock, StoreFault
from equabot_broker.storage.secret_store import SecretOptions, SecretStores
from tests.fakes.clock import HurriedClock
from tests.fakes.kube_api import MemoryKube, fault
from tests.kubernetes.api import Api, Refused

ENTRY = {"type": "oauth", "provider": "acme", "access": "at-1", "refresh": "rt-1", "expires": 5}
STORE = json.dumps({"version": 1, "profiles": {"acme:me": ENTRY}})
LOGIN = json.dumps({"claudeAiOauth": {"accessToken": "at-c", "refreshToken": "rt-c", "expiresAt": 1.9e12}})
PATIENTLY = SecretOptions(lock_within=120.0)
"""T10: how long a test waits for a lock on the real server. On a busy machine, four brokers that take turns need more than
the ten seconds of the product, and a lock whose giving back came too late ends by itself, after 45."""
PATH = "/api/v1/namespaces/ns/secrets/llm"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/equabot-refresh-llm"


def login(unit: str = "llm", key: str = "auth-profiles.json acme:me", profile_id: str = "acme:me") -> Profile:
    origin = f"Secret ns/{unit} {key}"
    return Profile(id=profile_id, provider="acme", mode=Mode.OAUTH, source="kubernetes", unit=unit, origin=origin)


def secret(**data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in ({"auth-profiles.json": STORE} | data).items()}
    metadata = {"name": "llm", "namespace": "ns", "labels": {"l": "1"}, "annotations": {"team": "a"}, "future": {"x": 1}}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encoded}


def with_note(number: int) -> Callable[[AuthDocument], AuthDocument]:
    """A change like that of a refresh."""
    return lambda document: AuthDocument({
        **document.raw,
        "profiles": {**document.entries, "acme:me": {**document.entries["acme:me"], "access": f"at-{number}"}},
    })  # fmt: skip


def access(document: AuthDocument) -> str:
    return str(document.entries["acme:me"]["access"])


# -- what a store promises, wherever it is ------------------------------------------------------------------------------


class Place:
    """A namespace with the Secret, and brokers that share it."""

    def __init__(self, connect: Callable[[], KubeApi], namespace: str, clock: Clock) -> None:
        self.namespace = namespace
        self._connect = connect
        self._clock = clock
        self.opened: list[SecretStores] = []

    def broker(self) -> SecretStores:
        holder = f"broker-{len(self.opened)}"
        self.opened.append(
            SecretStores(self._connect(), namespace=self.namespace, clock=self._clock, holder=holder, options=PATIENTLY)
        )
        return self.opened[-1]

    def tamper(self, text: str) -> None:
        """Somebody writes another store."""
        raise NotImplementedError

    def read(self) -> dict[str, Any]:
        """The Secret."""
        raise NotImplementedError


class InMemory(Place):
    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.kube.put(PATH, secret(OTHER="v"))
        super().__init__(lambda: self.kube, "ns", SystemClock())

    def tamper(self, text: str) -> None:
        self.kube.objects[PATH]["data"]["auth-profiles.json"] = base64.b64encode(text.encode()).decode()
        self.kube.touch(PATH)

    def read(self) -> dict[str, Any]:
        return self.kube.objects[PATH]


class Real(Place):
    def __init__(self, cluster: Api, namespace: str, kubeconfig: Path) -> None:
        cluster.kubeconfig(kubeconfig, namespace=namespace)
        cluster.secret(
            namespace, "llm", {"auth-profiles.json": STORE, "OTHER": "v"}, labels={"l": "1"}, annotations={"team": "a"}
        )
        self.cluster = cluster
        super().__init__(lambda: KubeApi(kubeconfig=kubeconfig), "", SystemClock())
        self._real = namespace

    def tamper(self, text: str) -> None:
        self.cluster.patch("Secret", "llm", {"stringData": {"auth-profiles.json": text}}, namespace=self._real)

    def read(self) -> dict[str, Any]:
        return self.cluster.get("Secret", "llm", namespace=self._real)


@pytest.fixture(params=["memory", "real"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "memory":
        found: Place = InMemory()
    else:
        cluster, namespace = request.getfixturevalue("cluster"), request.getfixturevalue("namespace")
        found = Real(cluster, namespace, tmp_path / "kubeconfig")
    yield found
    for stores in found.opened:
        await stores.close()


async def test_what_is_written_under_the_lock_is_read_after_it(place: Place) -> None:
    """By another broker; and everything else in the Secret is as it was."""
    before = place.read()
    async with place.broker().locked(login()) as locked:
        assert locked.document.entries == {"acme:me": ENTRY}
        await locked.replace(with_note(2)(locked.document))
        assert await locked.edit(with_note(3)) == locked.document
    async with place.broker().locked(login()) as locked:
        assert access(locked.document) == "at-3"
    after = place.read()
    assert after["data"]["OTHER"] == before["data"]["OTHER"]
    assert after["type"] == before["type"]
    kept = {key: value for key, value in after["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    assert kept == {key: value for key, value in before["metadata"].items() if key not in ("resourceVersion", "managedFields")}


async def test_one_broker_writes_at_a_time(place: Place) -> None:
    """Who comes second finds what the first has left: no write is lost, and none is refused."""
    inside: list[int] = []
    most = 0

    async def count(number: int) -> None:
        nonlocal most
        async with place.broker().locked(login()) as locked:
            inside.append(number)
            most = max(most, len(inside))
            found = int(access(locked.document)[3:])
            await locked.replace(with_note(found + 1)(locked.document))
            inside.remove(number)

    await asyncio.gather(*(count(number) for number in range(4)))
    async with place.broker().locked(login()) as locked:
        assert (most, access(locked.document)) == (1, "at-5")


async def test_write_without_the_lock_is_detected(place: Place) -> None:
    """What would be replaced has changed: nothing is written. An edit begins with what is there."""
    async with place.broker().locked(login()) as locked:
        before = locked.document
        place.tamper(STORE.replace("at-1", "at-100"))
        with pytest.raises(StoreFault, match="changed while it was locked"):
            await locked.replace(with_note(2)(before))
        assert access(await locked.edit(lambda document: with_note(int(access(document)[3:]) + 1)(document))) == "at-101"


async def test_change_of_another_key_does_not_conflict(place: Place) -> None:
    """A label, or another key: the logins are what they were, and so is the decision that was taken on them."""
    async with place.broker().locked(login()) as locked:
        if isinstance(place, InMemory):
            place.read()["metadata"]["labels"]["l"] = "2"
            place.kube.touch(PATH)
        else:
            assert isinstance(place, Real)
            place.cluster.patch("Secret", "llm", {"metadata": {"labels": {"l": "2"}}}, namespace=place._real)
        await locked.replace(with_note(2)(locked.document))
    assert place.read()["metadata"]["labels"] == {"l": "2"}
    assert "at-2" in base64.b64decode(place.read()["data"]["auth-profiles.json"]).decode()


# -- what goes wrong: on the server in memory ---------------------------------------------------------------------------


class World:
    """Brokers on a server that fails as it is told, and a clock that goes on by itself as somebody sleeps."""

    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.kube.put(PATH, secret())
        self.clock = HurriedClock()
        self.stores = self.broker("a")

    def broker(self, holder: str) -> SecretStores:
        return SecretStores(self.kube, namespace="ns", clock=self.clock, holder=holder)

    @property
    def holder(self) -> str | None:
        found = self.kube.objects[LEASE]["spec"].get("holderIdentity")
        return None if found is None else str(found)

    @property
    def writes(self) -> int:
        return self.kube.asked.count(("replace", PATH))

    def stored(self) -> str:
        text = base64.b64decode(self.kube.objects[PATH]["data"]["auth-profiles.json"]).decode()
        return str(json.loads(text)["profiles"]["acme:me"]["access"])


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("lost", [fault("TimedOut"), fault("Conflict", 409), fault("InternalError", 500)])
async def test_lost_response_is_recovered(world: World, lost: Exception) -> None:
    """It was written: it is not written again, and nobody is told that it failed."""
    world.kube.lost["replace"] = []
    async with world.stores.locked(login()) as locked:
        world.kube.lost["replace"] = [lost]  # type: ignore[list-item]
        await locked.replace(with_note(2)(locked.document))
        assert (world.stored(), world.writes) == ("at-2", 1)
        world.kube.lost["replace"] = [lost]  # type: ignore[list-item]
        await locked.edit(with_note(3))
        assert (world.stored(), world.writes) == ("at-3", 2)
    assert world.holder is None


@pytest.mark.parametrize("passing", [fault("TooManyRequests", 429, retry_after=3), fault("Unreachable"), fault("Timeout", 504)])
async def test_temporary_fault_is_retried(world: World, passing: Exception) -> None:
    """With backoff, for as long as the server asks."""
    async with world.stores.locked(login()) as locked:
        for write, number in ((locked.replace, 2), (None, 3)):
            world.kube.faults["replace"] = [passing, passing]  # type: ignore[list-item]
            began = world.clock.steady()
            if write is not None:
                await write(with_note(number)(locked.document))
            else:
                await locked.edit(with_note(number))
            assert world.stored() == f"at-{number}"
            assert world.clock.steady() - began >= (6 if "TooMany" in str(passing) else 0.1)
    assert world.holder is None


async def test_forbidden_write_is_reported_and_releases_the_lock(world: World) -> None:
    """The intent was refused, so nothing has happened: another broker may have the rights that this one lacks."""
    async with world.stores.locked(login()) as locked:
        world.kube.faults["replace"] = [fault("Forbidden", 403)]
        with pytest.raises(StoreFault, match="Secret ns/llm cannot be written: the server said Forbidden"):
            await locked.replace(with_note(2)(locked.document))
    assert (world.holder or "", world.stored()) == ("", "at-1")


async def _fails(world: World) -> None:
    """Tokens that cannot be stored."""
    with suppress(StoreFault):
        async with world.stores.locked(login()) as locked:
            world.kube.down = fault("Unreachable")
            await locked.edit(with_note(2))


async def test_failed_write_of_tokens_keeps_the_lock(world: World) -> None:
    """Nobody else may take for dead who still has it: while the server is away, and for a whole lock's time after it is back.
    The same process has it again at once."""
    other = world.broker("b")
    await _fails(world)
    world.kube.down = None
    assert world.holder == "a"
    with pytest.raises(StoreFault, match="held by a"):
        async with other.locked(login()):
            pass
    async with world.stores.locked(login()) as locked:
        await locked.edit(with_note(2))
    assert (world.holder or "", world.stored()) == ("", "at-2")


async def test_write_of_tokens_is_retried(world: World) -> None:
    """And then told; the engine keeps it."""
    began = world.clock.steady()
    await _fails(world)
    assert 15 < world.clock.steady() - began < 25


async def test_lost_lock_allows_tokens_but_no_intent(world: World) -> None:
    """The one must not be done twice, the other must not be lost."""
    async with world.stores.locked(login()) as locked:
        world.clock.advance(44)
        with pytest.raises(StoreFault, match="held by a"):
            async with world.broker("b").locked(login()):
                pass
        taker = world.broker("c")
        with pytest.raises(StoreFault):
            async with taker.locked(login()):
                pass
        world.clock.advance(46)
        async with taker.locked(login()):
            with pytest.raises(StoreFault, match="taken over by c"):
                await locked.replace(with_note(2)(locked.document))
            await locked.edit(with_note(3))
    assert (world.stored(), world.holder) == ("at-3", None)


async def test_an_intent_is_written_with_all_of_the_locks_time_ahead(world: World) -> None:
    """What follows may take as long as an endpoint does, and nobody renews the lock meanwhile."""
    async with world.stores.locked(login()) as locked:
        world.clock.advance(10)  # the server is slow
        await locked.replace(with_note(2)(locked.document))
        spec = world.kube.objects[LEASE]["spec"]
        assert spec["renewTime"] > spec["acquireTime"]


async def test_without_the_right_to_lock_nothing_is_refreshed(world: World) -> None:
    """Not even read for it."""
    for verb in ("create", "replace"):
        world.kube.faults = {verb: [fault("Forbidden", 403)]}
        with pytest.raises(StoreFault, match="Secret ns/llm cannot be locked for a refresh: the server said Forbidden"):
            async with world.stores.locked(login()):
                raise AssertionError("it was not locked")
        world.kube.put(LEASE, {"metadata": {"name": "equabot-refresh-llm"}})


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (secret() | {"immutable": True}, "is immutable"),
        (secret(**{"auth-profiles.json": "{ sk-ant"}), "auth-profiles.json is not usable"),
        (secret() | {"data": {"auth-profiles.json": "*"}}, "auth-profiles.json is not usable"),
        (secret() | {"data": {"auth-profiles.json": "a"}}, "not a valid Secret"),
        (secret() | {"data": {"auth-profiles.json": 5}}, "not a valid Secret"),
        (secret() | {"data": ["auth-profiles.json"]}, "not a valid Secret"),
        (secret() | {"metadata": {"annotations": ["x"]}}, "not a valid Secret"),
        (secret() | {"metadata": {"annotations": {"equabot.dev/mode": 5}}}, "not a valid Secret"),
    ],
)
async def test_login_that_cannot_be_refreshed_is_not_locked(world: World, thing: dict[str, Any], why: str) -> None:
    """Nothing of the Secret is in the reason."""
    world.kube.put(PATH, thing)
    with pytest.raises(StoreFault, match=why) as raised:
        async with world.stores.locked(login()):
            raise AssertionError("it was locked")
    assert (LEASE in world.kube.objects, "sk-ant" in str(raised.value)) == (False, False)


@pytest.mark.parametrize("answer", [{}, {"kind": "Status"}, {"metadata": None}, {"metadata": {"name": "llm"}}])
async def test_response_of_a_proxy_is_reported(world: World, answer: dict[str, Any]) -> None:
    """It may answer for the Secret, or for the Lease; neither ends the broker."""
    whole = world.kube.objects[PATH]
    for path, why in ((PATH, "not a valid Secret"), (LEASE, "not an object of the Kubernetes API")):
        world.kube.objects[path] = answer
        with pytest.raises(StoreFault, match=why):
            async with world.stores.locked(login()):
                raise AssertionError("it was locked")
        world.kube.objects[PATH] = whole


async def test_deleted_secret_is_reported(world: World) -> None:
    """Before it is locked, after it was, and while something is to be written."""
    async with world.stores.locked(login()) as locked:
        del world.kube.objects[PATH]
        with pytest.raises(StoreFault, match="cannot be written: the server said NotFound"):
            await locked.edit(with_note(2))
    with pytest.raises(StoreFault, match="cannot be locked for a refresh: the server said NotFound"):
        async with world.stores.locked(login()):
            raise AssertionError("it was locked")


async def test_claudes_login_is_there_where_the_annotation_says_so(world: World) -> None:
    """And only for who asks for it; the annotation may have gone since its source told of it."""
    theirs = login(key=".credentials.json", profile_id="anthropic:llm")
    for mode, found in (("oauth", {"acme:me", "anthropic:llm"}), ("token", {"acme:me"})):
        thing = secret(**{".credentials.json": LOGIN})
        thing["metadata"]["annotations"]["equabot.dev/mode"] = mode
        world.kube.put(PATH, thing)
        async with world.stores.locked(theirs) as locked:
            assert locked.document.entries.keys() == found
        async with world.stores.locked(login()) as locked:
            assert locked.document.entries.keys() == {"acme:me"}


async def test_error_in_the_locked_context_is_raised(world: World) -> None:
    """And gives the lock back, as does being cancelled."""
    for error in (LookupError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            async with world.stores.locked(login()):
                raise error
        assert world.holder is None


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # a full Secret is one; it takes a millisecond
async def test_tokens_that_do_not_fit_into_the_secret_are_reported(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """As a real server puts it; the Secret is as it was."""
    cluster.secret(namespace, "llm", {"auth-profiles.json": STORE, "OTHER": "x" * (2**20 - 1000)})
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig", namespace=namespace)
    stores = SecretStores(KubeApi(kubeconfig=kubeconfig), namespace="", clock=SystemClock(), holder="b", options=PATIENTLY)
    async with stores.locked(login()) as locked:
        entry = {**locked.document.entries["acme:me"], "access": "a" * 2000}
        before = locked.document
        with pytest.raises(StoreFault, match=r"cannot be written: .* 1 MiB: move some keys"):
            await locked.edit(lambda _: AuthDocument({**before.raw, "profiles": {"acme:me": entry}}))
        await locked.edit(lambda document: document)
        assert locked.document == before
    await stores.close()


# -- what the rights of an account come to: on a real server -------------------------------------------------------------


def rules(**verbs: list[str]) -> list[dict[str, Any]]:
    """What the documentation asks for, less what is said here."""
    secrets = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["llm"]}
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [
        secrets | {"verbs": verbs.get("secrets", ["get", "update"])},
        leases | {"verbs": verbs.get("create", ["create"])},
        leases | {"resourceNames": ["equabot-refresh-llm"], "verbs": verbs.get("leases", ["get", "update"])},
    ]


async def test_documented_rights_suffice_and_a_missing_one_is_named(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """By verb, resource and name, as a Role is written."""
    cluster.secret(namespace, "llm", {"auth-profiles.json": STORE})
    lacking = {
        "": {},
        "verb get on secrets, resourceNames llm": {"secrets": ["update"]},
        "verb update on secrets, resourceNames llm": {"secrets": ["get"]},
        "verb get on leases, resourceNames equabot-refresh-llm": {"leases": ["update"]},
        "verb create on leases": {"create": ["list"]},
        "verb update on leases, resourceNames equabot-refresh-llm": {"leases": ["get"]},
    }
    for number, (missing, verbs) in enumerate(lacking.items()):
        with suppress(Refused):
            if "create" in missing:
                cluster.delete("Lease", "equabot-refresh-llm", namespace=namespace, version="coordination.k8s.io/v1")
            elif "update on leases" in missing:
                _make_lease(cluster, namespace)
        account = cluster.service_account(namespace, f"broker-{number}", rules=rules(**verbs))
        kubeconfig = cluster.kubeconfig(tmp_path / f"kubeconfig-{number}", user=account.user, namespace=namespace)
        stores = SecretStores(
            KubeApi(kubeconfig=kubeconfig), namespace="", clock=SystemClock(), holder=f"b{number}", options=PATIENTLY
        )
        if missing:
            with pytest.raises(StoreFault, match=f"{missing} with a Role in namespace {namespace}"):
                await _write(stores, number)
        else:
            await _write(stores, number)
        await stores.close()


async def _write(stores: SecretStores, number: int) -> None:
    async with stores.locked(login()) as locked:
        await locked.replace(with_note(number + 2)(locked.document))


def _make_lease(cluster: Api, namespace: str) -> None:
    metadata = {"name": "equabot-refresh-llm", "namespace": namespace}
    cluster.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
