"""The `Admin` service over a real socket."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import SourceUnavailable, Unit, UnitsListed
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.domain.suspension import Suspension
from equabot_broker.ports import Reloaded
from equabot_broker.telemetry.broker_events import Administered
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.fakes.source import FakeSource
from tests.fakes.state import MemoryStateStore
from tests.rpc.conftest import Serve
from tests.rpc.serving import Served, eventually, in_time, refused

SECRET = "sk-ant-api03-not-for-operators"
NOW = 1_800_000_000
AGENTS = {"main": ANYTHING, "other": AgentPolicy(providers=frozenset({"openai"}))}


def engine(**options: Any) -> Engine:
    made = Engine(**{"agents": AGENTS, **options})
    made.hold(profile("anthropic:a", SECRET), profile("anthropic:b", SECRET), profile("openai:a", SECRET))
    return made


async def acquire(served: Served, provider: str, *, agent: str = "main", session: str = "") -> broker_pb2.Lease:
    request = broker_pb2.AcquireLeaseRequest(provider=provider, session=session)
    return await (await served.broker(agent)).AcquireLease(request)


# -- leases ------------------------------------------------------------------------------------------------------------


async def test_the_living_leases_are_listed_without_their_secrets(serve: Serve) -> None:
    """Of every agent, oldest first, streams among them, and by whatever is asked for."""
    async with serve(engine()) as served:
        admin = await served.admin()
        first = await acquire(served, "anthropic", session="talk")
        served.engine.clock.advance(1)
        second = await acquire(served, "openai", agent="other")
        served.engine.clock.advance(1)
        stream: Any = (await served.broker()).StreamLease(broker_pb2.AcquireLeaseRequest(profile="anthropic:b"))
        third = (await stream.read()).lease
        listed = await admin.ListLeases(admin_pb2.ListLeasesRequest())
        assert [(one.id, one.agent, one.session, one.provider, one.streaming) for one in listed.leases] == [
            (first.id, "main", "talk", "anthropic", False),
            (second.id, "other", "", "openai", False),
            (third.id, "main", "", "anthropic", True),
        ]
        assert listed.leases[0].expires_at == first.expires_at
        assert listed.next_page_token == ""
        assert SECRET not in str(listed)
        for wanted, found in (
            ({"agent": "other"}, [second.id]),
            ({"provider": "Anthropic"}, [first.id, third.id]),
            ({"profile": "anthropic:b", "agent": "main"}, [third.id]),
        ):
            request = admin_pb2.ListLeasesRequest(**wanted)  # type: ignore[arg-type]
            assert [one.id for one in (await admin.ListLeases(request)).leases] == found


async def test_pages_neither_lose_nor_repeat_a_lease(serve: Serve) -> None:
    """Also of leases granted in one instant, while some come and go, and move to another profile."""
    async with serve(engine()) as served:
        admin = await served.admin()
        ids = {(await acquire(served, "anthropic")).id for _ in range(25)}
        seen: list[str] = []
        request = admin_pb2.ListLeasesRequest(page_size=10)
        while True:
            page = await admin.ListLeases(request)
            seen += [one.id for one in page.leases]
            if not page.next_page_token:
                break
            assert len(page.leases) == 10
            request.page_token = page.next_page_token
            newest = await acquire(served, "anthropic")
            served.engine.lease_service.revoke("main", seen[0])
            report = broker_pb2.ReportOutcomeRequest(lease_id=seen[-1], outcome=broker_pb2.RATE_LIMIT)
            await (await served.broker()).ReportOutcome(report)
        assert len(seen) == len(set(seen))
        assert ids <= set(seen) | {newest.id}


async def test_a_page_holds_a_thousand_leases_at_most(serve: Serve) -> None:
    """However many are asked for; what comes next is said."""
    async with serve(engine()) as served:
        admin, broker = await served.admin(), await served.broker()
        for _ in range(1001):
            await broker.AcquireLease(broker_pb2.AcquireLeaseRequest(provider="openai"))
        page = await admin.ListLeases(admin_pb2.ListLeasesRequest(page_size=5000))
        rest = await admin.ListLeases(admin_pb2.ListLeasesRequest(page_token=page.next_page_token))
        assert (len(page.leases), len(rest.leases), rest.next_page_token) == (1000, 1, "")


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        ({"agent": "mian"}, "INVALID_ARGUMENT", "the configured agents are main, other; did you mean 'main'?"),
        ({"provider": "antropic"}, "PROVIDER_UNKNOWN", "did you mean 'anthropic'?"),
        (
            {"profile": "anthropic:nope"},
            "PROFILE_NOT_FOUND",
            "profile 'anthropic:nope' does not exist; profiles of this provider: anthropic:a, anthropic:b",
        ),
        ({"profile": "nope"}, "PROVIDER_UNKNOWN", "names no provider: write PROVIDER:NAME"),
        ({"profile": "nope", "provider": "anthropic"}, "PROFILE_NOT_FOUND", "profile 'anthropic:nope' does not exist"),
        ({"agent": SECRET + "0f" * 30}, "INVALID_ARGUMENT", "agent looks like a key"),
    ],
)
@pytest.mark.parametrize("act", ["RevokeLeases", "ListLeases"])
async def test_a_name_that_nothing_has_is_refused(
    serve: Serve, act: str, wanted: dict[str, str], reason: str, words: str
) -> None:
    """F13: no lease of a mistyped name would look like no lease at all."""
    async with serve(engine()) as served:
        request = getattr(admin_pb2, f"{act}Request")(**wanted)
        denied = await refused(getattr(await served.admin(), act)(request))
        assert denied.reason == reason
        assert words in denied.details
        assert "0f0f" not in denied.raw


async def test_leases_are_revoked_by_whatever_they_have_in_common(serve: Serve) -> None:
    """Every one that matches all that was said, and its stream with it; asking for everything is refused."""
    async with serve(engine()) as served:
        admin = await served.admin()
        by_id, others = await acquire(served, "openai"), await acquire(served, "openai", agent="other")
        stream: Any = (await served.broker()).StreamLease(broker_pb2.AcquireLeaseRequest(profile="anthropic:b"))
        await stream.read()
        assert (await refused(admin.RevokeLeases(admin_pb2.RevokeLeasesRequest()))).reason == "INVALID_ARGUMENT"
        for wanted, revoked in (
            ({"lease_id": by_id.id, "agent": "other"}, 0),
            ({"lease_id": by_id.id}, 1),
            ({"lease_id": by_id.id}, 0),
            ({"profile": "anthropic:b"}, 1),
            ({"provider": "openai"}, 1),
        ):
            request = admin_pb2.RevokeLeasesRequest(**wanted)
            assert (await admin.RevokeLeases(request)).revoked == revoked
        event = await stream.read()
        assert (event.kind, event.reason) == (broker_pb2.LeaseEvent.REVOKED, "revoked")
        renew = broker_pb2.RenewLeaseRequest(lease_id=others.id)
        assert (await refused((await served.broker("other")).RenewLease(renew))).reason == "LEASE_NOT_FOUND"


# -- profiles, orders, cooldowns ---------------------------------------------------------------------------------------


async def test_every_agents_candidates_are_listed_as_it_sees_them(serve: Serve) -> None:
    """An agent that may not use the provider asked for is left out."""
    async with serve(engine()) as served:
        admin = await served.admin()
        await served.engine.settle()

        async def seen(**wanted: str) -> dict[str, list[str]]:
            answer = await admin.ListAllProfiles(admin_pb2.ListAllProfilesRequest(**wanted))
            assert SECRET not in str(answer)
            return {one.agent: [status.id for status in one.profiles] for one in answer.agents}

        everything = {"main": ["anthropic:a", "anthropic:b", "openai:a"], "other": ["openai:a"]}
        assert await seen() == everything
        assert await seen(provider="anthropic") == {"main": ["anthropic:a", "anthropic:b"]}
        assert await seen(agent="other") == {"other": ["openai:a"]}


async def test_an_order_is_stored_kept_and_taken_away(serve: Serve) -> None:
    """It is exclusive, and on disk before the caller gets the answer."""
    store = MemoryStateStore()
    async with serve(engine(store=store)) as served:
        admin = await served.admin()
        await served.engine.settle()
        stored = await admin.SetOrder(admin_pb2.SetOrderRequest(agent="main", provider="Anthropic", profiles=["b"]))
        assert stored == admin_pb2.Order(agent="main", provider="anthropic", profiles=["anthropic:b"])
        store.crash()
        assert store.load().orders == {("main", "anthropic"): ("anthropic:b",)}
        assert await admin.GetOrder(admin_pb2.GetOrderRequest(agent="main", provider="anthropic")) == stored
        assert {(await acquire(served, "anthropic")).profile for _ in range(3)} == {"anthropic:b"}
        for _ in range(2):
            cleared = await admin.ClearOrder(admin_pb2.ClearOrderRequest(agent="main", provider="anthropic"))
            assert cleared == admin_pb2.Order(agent="main", provider="anthropic")
        assert {(await acquire(served, "anthropic")).profile for _ in range(3)} == {"anthropic:a", "anthropic:b"}
    assert store.load().orders == {}


async def test_a_cooldown_is_forgotten_on_demand(serve: Serve) -> None:
    """And so are disable, rejection and counters; when it was last used is not."""
    key = ("", "anthropic:a")
    async with serve(engine()) as served:
        admin = await served.admin()
        await served.engine.settle()
        was = Usage(
            last_used=NOW - 5.0, cooldown_until=NOW + 60.0, disabled_until=NOW + 600.0, disabled_reason="billing",
            error_count=3, failure_counts={"billing": 3}, last_failure=NOW - 5.0, rejected="no", rejected_version=1,
        )  # fmt: skip
        served.engine.registry.replace_usage(key, was)
        await admin.ClearCooldown(admin_pb2.ClearCooldownRequest(profile="anthropic:a"))
        assert served.engine.registry.usage(key) == Usage(last_used=NOW - 5.0)
        assert served.engine.store.load().usage[key] == Usage(last_used=NOW - 5.0)


# -- the broker itself -------------------------------------------------------------------------------------------------


async def test_reload_returns_once_every_source_was_read_again(serve: Serve) -> None:
    """With what became of each."""
    sources = (
        FakeSource("env", UnitsListed((Unit("", (profile("openai:a"),)),))),
        FakeSource("dotenv /x", SourceUnavailable("no such file")),
    )
    async with serve(Engine(sources=sources)) as served:
        await served.engine.settle()
        told = (await (await served.admin()).Reload(admin_pb2.ReloadRequest())).sources
        assert [source.rereads for source in sources] == [1, 1]
    assert [(one.name, one.state, one.fault, one.profiles) for one in told] == [
        ("env", "synced", "", 1),
        ("dotenv /x", "pending", "no such file (since 2027-01-15T08:00:00Z)", 0),
    ]
    assert told[0].synced_at.seconds == NOW
    assert told[0].stale_budget == Duration(seconds=600)


@pytest.mark.parametrize("answer", [Reloaded(faults=("a: b", "c: d")), Reloaded(refusal="needs a restart: run_dir")])
async def test_a_configuration_that_is_refused_is_not_an_error_of_the_call(serve: Serve, answer: Reloaded) -> None:
    """C15: the answer says why; the sources are not read again."""
    async with serve(engine()) as served:
        served.configuration.answer, served.configuration.doubt = answer, ("it is older than f",)
        told = await (await served.admin()).Reload(admin_pb2.ReloadRequest())
        assert (tuple(told.faults), told.refusal, served.configuration.asked) == (answer.faults, answer.refusal, ["admin"])
        found = (await (await served.admin()).Diagnose(admin_pb2.DiagnoseRequest())).findings
        assert [(one.message, one.remedy) for one in found if one.subject == "configuration"] == [
            ("it is older than f", "equabot reload")
        ]


async def test_what_a_reload_changed_is_reported(serve: Serve) -> None:
    """C15: and how many leases ended."""
    async with serve(engine()) as served:
        await served.engine.settle()
        served.configuration.answer = Reloaded(changes=("agent a added",), ended=2)
        told = await (await served.admin()).Reload(admin_pb2.ReloadRequest())
        assert (list(told.changes), told.revoked) == (["agent a added"], 2)


async def test_diagnose_reports_what_an_operator_asks_first(serve: Serve) -> None:
    """Sources, what is wrong and what to do, how much is going on, and since when."""
    bad = engine(required=("mistral",))
    bad.hold(profile("anthropic:a", None, fault="a placeholder: put the key there"), profile("openai:a", SECRET))
    async with serve(bad) as served:
        admin = await served.admin()
        await served.engine.settle()
        await acquire(served, "openai")
        stream: Any = (await served.broker()).StreamLease(broker_pb2.AcquireLeaseRequest(provider="openai"))
        await stream.read()
        served.engine.store.broken = "the disk is full: make room"
        await in_time(served.engine, eventually(lambda: served.engine.store.fault != ""))
        told = await admin.Diagnose(admin_pb2.DiagnoseRequest())
    assert (told.leases, told.streams, told.started_at.seconds) == (2, 1, 1_799_999_000)
    assert [source.name for source in told.sources] == ["fake"]
    assert [(one.severity, one.subject) for one in told.findings] == [
        (admin_pb2.Finding.ERROR, "state"),
        (admin_pb2.Finding.ERROR, "mistral"),
        (admin_pb2.Finding.WARNING, "anthropic:a"),
    ]
    assert told.findings[0].message == "the disk is full: make room"
    assert SECRET not in str(told)


@pytest.mark.parametrize(
    ("method", "message", "reason"),
    [
        ("ListLeases", admin_pb2.ListLeasesRequest(page_size=-1), "INVALID_ARGUMENT"),
        ("ListLeases", admin_pb2.ListLeasesRequest(page_token="x"), "INVALID_ARGUMENT"),
        ("ListLeases", admin_pb2.ListLeasesRequest(provider="athropic"), "PROVIDER_UNKNOWN"),
        ("RevokeLeases", admin_pb2.RevokeLeasesRequest(agent="\n"), "INVALID_ARGUMENT"),
        ("ListAllProfiles", admin_pb2.ListAllProfilesRequest(agent="nobody"), "POLICY_DENIED"),
        ("ListAllProfiles", admin_pb2.ListAllProfilesRequest(provider="athropic"), "PROVIDER_UNKNOWN"),
        ("GetOrder", admin_pb2.GetOrderRequest(agent="main"), "INVALID_ARGUMENT"),
        ("GetOrder", admin_pb2.GetOrderRequest(provider="openai"), "INVALID_ARGUMENT"),
        ("GetOrder", admin_pb2.GetOrderRequest(agent="nobody", provider="openai"), "POLICY_DENIED"),
        ("SetOrder", admin_pb2.SetOrderRequest(agent="main", provider="openai"), "INVALID_ARGUMENT"),
        ("SetOrder", admin_pb2.SetOrderRequest(agent="main", provider="openai", profiles=["x"]), "PROFILE_NOT_FOUND"),
        ("SetOrder", admin_pb2.SetOrderRequest(agent="main", provider="openai", profiles=["a:b"]), "PROVIDER_UNKNOWN"),
        (
            "SetOrder",
            admin_pb2.SetOrderRequest(agent="main", provider="openai", profiles=["anthropic:a"]),
            "INVALID_ARGUMENT",
        ),
        ("ClearOrder", admin_pb2.ClearOrderRequest(agent="nobody", provider="openai"), "POLICY_DENIED"),
        ("ClearCooldown", admin_pb2.ClearCooldownRequest(), "INVALID_ARGUMENT"),
        ("ClearCooldown", admin_pb2.ClearCooldownRequest(profile="anthropic:nope"), "PROFILE_NOT_FOUND"),
        ("ClearCooldown", admin_pb2.ClearCooldownRequest(profile="no-id"), "PROVIDER_UNKNOWN"),
    ],
    ids=str,
)
async def test_every_method_refuses_what_it_cannot_do(serve: Serve, method: str, message: Any, reason: str) -> None:
    """With a reason, and with nothing stored or lost."""
    async with serve(engine()) as served:
        await served.engine.settle()
        failed = await refused(getattr(await served.admin(), method)(message))
        assert served.engine.store.load().orders == {}
    assert failed.reason == reason


async def test_diagnose_speaks_of_now(serve: Serve) -> None:
    """Not of the moment at which the credential's state last changed."""
    late = Engine()
    late.hold(profile("anthropic:a", expires_at=NOW - 60.0))
    async with serve(late) as served:
        await late.settle()
        late.clock.advance(3600)
        told = await (await served.admin()).Diagnose(admin_pb2.DiagnoseRequest())
    assert [one.message for one in told.findings] == ["expired: expired 1h1m ago (fake anthropic:a)"]


# -- what is recorded --------------------------------------------------------------------------------------------------


async def test_changes_of_an_operator_are_reported_and_reads_are_not(serve: Serve) -> None:
    """Each act with what it was about, unless it was about nothing there is; one that was refused did nothing."""
    async with serve(engine()) as served:
        admin = await served.admin()
        lease = await acquire(served, "anthropic")
        await admin.ListLeases(admin_pb2.ListLeasesRequest())
        await admin.Diagnose(admin_pb2.DiagnoseRequest())
        await admin.RevokeLeases(admin_pb2.RevokeLeasesRequest(lease_id=lease.id, agent="main"))
        order = admin_pb2.SetOrderRequest(agent="main", provider="anthropic", profiles=["anthropic:b", "anthropic:a"])
        await admin.SetOrder(order)
        await admin.ClearOrder(admin_pb2.ClearOrderRequest(agent="main", provider="anthropic"))
        await admin.ClearCooldown(admin_pb2.ClearCooldownRequest(profile="anthropic:a"))
        await refused(admin.ClearCooldown(admin_pb2.ClearCooldownRequest(profile="anthropic:none")))
        await refused(admin.RevokeLeases(admin_pb2.RevokeLeasesRequest()))
        await refused(admin.RevokeLeases(admin_pb2.RevokeLeasesRequest(agent="s3cret", lease_id="s3cret")))
        await admin.RevokeLeases(admin_pb2.RevokeLeasesRequest(lease_id="s3cret"))
        await admin.Reload(admin_pb2.ReloadRequest())
        about: dict[str, Any] = {"agent": "main", "provider": "anthropic"}
        assert [event for event in served.engine.emitted if isinstance(event, Administered)] == [
            Administered(action="RevokeLeases", agent="main", lease=lease.id, count=1),
            Administered(action="SetOrder", **about, profiles=("anthropic:b", "anthropic:a"), count=2),
            Administered(action="ClearOrder", **about),
            Administered(action="ClearCooldown", profile="anthropic:a", count=1),
            Administered(action="RevokeLeases"),
            Administered(action="Reload"),
        ]


async def test_diagnose_says_that_nothing_can_be_recorded(serve: Serve) -> None:
    """With the words of the audit log, which say what to do."""
    async with serve(engine()) as served:
        served.audit.fault = "cannot write it: free space"
        found = await (await served.admin()).Diagnose(admin_pb2.DiagnoseRequest())
        assert [one.message for one in found.findings if one.subject == "audit"] == ["cannot write it: free space"]


async def test_an_audit_log_in_doubt_is_said_until_it_is_accepted(serve: Serve) -> None:
    """S17: with what to do; accepting again finds nothing."""
    async with serve(engine()) as served:
        served.audit.doubt, served.audit.anchor_write_fault = "the anchor is missing", "the anchor cannot be written"
        admin = await served.admin()
        found = await admin.Diagnose(admin_pb2.DiagnoseRequest())
        assert [one.message for one in found.findings if one.subject == "audit"] == [
            "the anchor is missing",
            "the anchor cannot be written",
        ]
        assert "equabot audit accept" in next(one.remedy for one in found.findings if one.subject == "audit")
        for accepted in ("the anchor is missing", ""):
            assert (await admin.AcceptAuditLog(admin_pb2.AcceptAuditLogRequest())).accepted == accepted
        found = await admin.Diagnose(admin_pb2.DiagnoseRequest())
        assert len([one for one in found.findings if one.subject == "audit"]) == 1


async def test_diagnose_says_that_callers_cannot_be_identified(serve: Serve) -> None:
    """Those over TCP: a refused agent cannot know whether the fault is its own."""
    async with serve(engine()) as served:
        served.identity_fault = "service-account tokens cannot be checked now: grant it create on tokenreviews"
        found = await (await served.admin()).Diagnose(admin_pb2.DiagnoseRequest())
        assert [one.message for one in found.findings if one.subject == "identity"] == [served.identity_fault]


# -- agents ------------------------------------------------------------------------------------------------------------


async def test_agents_are_listed_with_what_they_hold_and_may(serve: Serve) -> None:
    """By name; one that is suspended and configured no more is listed too, for it can be resumed."""
    store = MemoryStateStore()
    store.put_suspension("gone", Suspension(since=NOW, reason="left"))
    store.flush()
    async with serve(engine(store=store)) as served:
        admin = await served.admin()
        await acquire(served, "anthropic")
        stream: Any = (await served.broker()).StreamLease(broker_pb2.AcquireLeaseRequest(provider="openai"))
        await stream.read()
        gone, main, other = (await admin.ListAgents(admin_pb2.ListAgentsRequest())).agents
        stream.cancel()
    assert main == admin_pb2.AgentStatus(
        agent="main", leases=2, streams=1, configured=True, providers=["*"], profiles=["*"], deliveries=["raw", "brokered"],
        max_leases=10_000,
    )  # fmt: skip
    assert (other.agent, other.leases, list(other.providers)) == ("other", 0, ["openai"])
    assert (gone.agent, gone.suspended, gone.since.seconds, gone.reason, gone.configured) == ("gone", True, NOW, "left", False)


async def test_an_agent_is_suspended_and_resumed(serve: Serve) -> None:
    """S11: after the answer every call of the agent is refused, and of no other agent; the operator learns how to undo it."""
    async with serve(engine()) as served:
        admin = await served.admin()
        await acquire(served, "anthropic")
        done = await admin.SuspendAgent(admin_pb2.SuspendAgentRequest(agent="main", reason="odd requests"))
        assert (done.revoked, done.agent.suspended, done.agent.since.seconds, done.agent.leases) == (1, True, NOW, 0)
        denied = await refused(acquire(served, "anthropic"))
        assert (denied.code, denied.reason, denied.domain) == ("PERMISSION_DENIED", "AGENT_SUSPENDED", "equabot.dev")
        assert "odd" not in denied.details
        await acquire(served, "openai", agent="other")
        found = (await admin.Diagnose(admin_pb2.DiagnoseRequest())).findings
        assert [(one.subject, one.remedy) for one in found] == [("agent main", "equabot agent resume main")]
        back = await admin.ResumeAgent(admin_pb2.ResumeAgentRequest(agent="main"))
        assert (back.resumed, back.agent.suspended, back.agent.HasField("since")) == (True, False, False)
        await acquire(served, "anthropic")


async def test_every_call_of_a_suspended_agent_is_refused(serve: Serve) -> None:
    """S11: whatever the service has, one that comes later included; but its health can be probed."""
    async with serve(engine()) as served:
        await (await served.admin()).SuspendAgent(admin_pb2.SuspendAgentRequest(agent="main"))
        channel = await served.channel()
        asked = {"lease_id": "x", "outcome": broker_pb2.OK, "provider": "anthropic", "profile": "anthropic:a", "session": "s"}
        for method in broker_pb2.DESCRIPTOR.services_by_name["Broker"].methods:
            kind = GetMessageClass(method.input_type)
            request = kind(**{name: value for name, value in asked.items() if name in method.input_type.fields_by_name})
            make: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = make(
                f"/equabot.broker.v1.Broker/{method.name}",
                request_serializer=kind.SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )(request)
            denied = await refused(call.read() if method.server_streaming else call)
            assert (method.name, denied.reason) == (method.name, "AGENT_SUSPENDED")
        alive = await (await served.health()).Check(HealthCheckRequest(service="liveness"))
        assert alive.status == HealthCheckResponse.SERVING


async def test_what_cannot_be_stored_is_said(serve: Serve) -> None:
    """S11: with a reason of its own, for it holds all the same."""
    async with serve(engine()) as served:
        store = served.engine.store
        store.broken = "cannot write state.db: disk full"
        admin = await served.admin()
        failed = await refused(admin.SuspendAgent(admin_pb2.SuspendAgentRequest(agent="main")))
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "STATE_UNAVAILABLE")
        assert (await refused(acquire(served, "anthropic"))).reason == "AGENT_SUSPENDED"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"agent": "mian"}, "'mian' is not configured: the configured agents are main, other"),
        ({"agent": ""}, "agent is missing"),
        ({"agent": "main", "reason": "x" * 257}, "reason is longer than 256 characters"),
        ({"agent": "main", "reason": "two\nlines"}, "reason has characters that cannot be printed"),
        ({"agent": "main", "reason": SECRET + "0f" * 30}, "reason looks like a key"),
        ({"agent": "main", "reason": f"it leaked {SECRET}{'0f' * 30} to a paste"}, "reason looks like a key"),
        ({"agent": SECRET + "0f" * 30}, "agent looks like a key"),
    ],
)
async def test_a_suspension_that_makes_no_sense_is_refused_whole(serve: Serve, asked: dict[str, str], words: str) -> None:
    """A reason is shown, logged and stored: it is short, printable, and holds no key."""
    async with serve(engine()) as served:
        denied = await refused((await served.admin()).SuspendAgent(admin_pb2.SuspendAgentRequest(**asked)))
        assert (denied.code, denied.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
        assert words in denied.details
        assert "0f0f" not in denied.raw
        await acquire(served, "anthropic")
