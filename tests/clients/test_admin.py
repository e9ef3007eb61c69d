"""The operator's calls, over a real server that a test scripts. The broker's own answers are walked through in the journeys."""

# ruff: noqa: N802 - methods have the names that the service gives them
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from equabot.broker.v1 import admin_pb2 as pb
from equabot.broker.v1 import broker_pb2
from equabot.broker.v1.admin_pb2_grpc import AdminServicer, add_AdminServicer_to_server
from equabot_client import admin, errors

AT = datetime(2026, 11, 22, 17, 0, tzinfo=UTC)


def suspended(agent: str = "main", reason: str = "odd") -> pb.AgentStatus:
    status = pb.AgentStatus(agent=agent, suspended=True, reason=reason, leases=3, streams=1, configured=True, providers=["*"],
                            profiles=["*"], deliveries=["raw"], max_leases=9)  # fmt: skip
    status.since.FromDatetime(AT)
    return status


class Scripted(AdminServicer):
    """Two pages of leases, two agents, one source."""

    def __init__(self) -> None:
        self.asked: list[pb.ListLeasesRequest] = []

    def ListLeases(self, request: pb.ListLeasesRequest, context: grpc.ServicerContext) -> pb.ListLeasesResponse:
        self.asked.append(request)
        first = not request.page_token
        lease = pb.LeaseSummary(id="one" if first else "two", agent="main", profile="anthropic:env", streaming=first)
        for instant in (lease.issued_at, lease.expires_at, lease.max_expires_at):
            instant.FromDatetime(AT)
        return pb.ListLeasesResponse(leases=[lease], next_page_token="more" if first else "")

    def RevokeLeases(self, request: pb.RevokeLeasesRequest, context: grpc.ServicerContext) -> pb.RevokeLeasesResponse:
        return pb.RevokeLeasesResponse(revoked=3 if request.agent == "coder" else 0)

    def ListAgents(self, request: pb.ListAgentsRequest, context: grpc.ServicerContext) -> pb.ListAgentsResponse:
        return pb.ListAgentsResponse(agents=[pb.AgentStatus(agent="coder", configured=True), suspended()])

    def SuspendAgent(self, request: pb.SuspendAgentRequest, context: grpc.ServicerContext) -> pb.SuspendAgentResponse:
        return pb.SuspendAgentResponse(agent=suspended(request.agent, request.reason), revoked=2)

    def ResumeAgent(self, request: pb.ResumeAgentRequest, context: grpc.ServicerContext) -> pb.ResumeAgentResponse:
        return pb.ResumeAgentResponse(agent=pb.AgentStatus(agent=request.agent), resumed=True)

    def ListAllProfiles(self, request: pb.ListAllProfilesRequest, context: grpc.ServicerContext) -> pb.ListAllProfilesResponse:
        profile = broker_pb2.ProfileStatus(id="anthropic:env", state="ok")
        return pb.ListAllProfilesResponse(
            agents=[pb.AgentProfiles(agent="main", profiles=[profile]), pb.AgentProfiles(agent="coder")]
        )

    def Diagnose(self, request: pb.DiagnoseRequest, context: grpc.ServicerContext) -> pb.DiagnoseResponse:
        read = pb.SourceStatus(name="env", state="synced", profiles=1)
        read.synced_at.FromDatetime(AT)
        full = pb.Finding(severity=pb.Finding.ERROR, subject="audit", message="no space left", remedy="free some")
        later = pb.Finding(severity=17, subject="x", message="y")  # type: ignore[arg-type]
        return pb.DiagnoseResponse(
            sources=[read, pb.SourceStatus(name="dotenv /x", state="pending", fault="unreadable")], findings=[full, later]
        )

    def AcceptAuditLog(self, request: pb.AcceptAuditLogRequest, context: grpc.ServicerContext) -> pb.AcceptAuditLogResponse:
        return pb.AcceptAuditLogResponse(accepted="its anchor is missing")


@pytest.fixture
def script() -> Scripted:
    return Scripted()  # type: ignore[abstract]  # what is not asked here answers UNIMPLEMENTED


@pytest.fixture
def run_dir(script: Scripted) -> Iterator[Path]:
    """A run directory with an admin socket on which the script is played."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_AdminServicer_to_server(script, server)
    with tempfile.TemporaryDirectory(prefix="eqa-") as directory:
        (Path(directory) / "admin").mkdir()
        server.add_insecure_port(f"unix:{directory}/admin/broker.sock")
        server.start()
        yield Path(directory)
        server.stop(None).wait()


@pytest.fixture
def operator(run_dir: Path) -> Iterator[admin.Admin]:
    with admin.connect(str(run_dir / "admin" / "broker.sock")) as connected:
        yield connected


def test_all_pages_of_leases_are_read(operator: admin.Admin, script: Scripted) -> None:
    """A broker gives a thousand at a time."""
    leases = operator.list_leases(agent="main", provider="anthropic")
    assert [(lease.id, lease.streaming, lease.expires_at) for lease in leases] == [("one", True, AT), ("two", False, AT)]
    assert [(asked.agent, asked.provider, asked.page_token) for asked in script.asked] == [
        ("main", "anthropic", ""),
        ("main", "anthropic", "more"),
    ]


def test_revoking_counts(operator: admin.Admin) -> None:
    """So that an operator sees whether anything matched."""
    assert (operator.revoke_leases(agent="coder"), operator.revoke_leases(lease_id="x")) == (3, 0)


def test_agents_come_with_their_suspension_and_policy(operator: admin.Admin) -> None:
    """S11: since when, for one that is suspended."""
    coder, main = operator.list_agents()
    assert (coder.agent, coder.suspended, coder.since, coder.providers) == ("coder", False, None, ())
    assert main == admin.AgentStatus(
        agent="main", suspended=True, since=AT, reason="odd", leases=3, streams=1, configured=True, providers=("*",),
        profiles=("*",), deliveries=("raw",), max_leases=9,
    )  # fmt: skip


def test_an_agent_is_suspended_and_resumed(operator: admin.Admin) -> None:
    """S11: the agent as it is now, and what came of it."""
    agent, revoked = operator.suspend_agent("coder", reason="leaked")
    assert (agent.agent, agent.suspended, agent.reason, revoked) == ("coder", True, "leaked", 2)
    agent, resumed = operator.resume_agent("coder")
    assert (agent.agent, agent.suspended, resumed) == ("coder", False, True)


def test_profiles_come_by_agent(operator: admin.Admin) -> None:
    """Also those of an agent that has none."""
    found = operator.list_profiles()
    assert {agent: [profile.id for profile in profiles] for agent, profiles in found.items()} == {
        "main": ["anthropic:env"],
        "coder": [],
    }


def test_sources_say_how_they_fare(operator: admin.Admin) -> None:
    """One that was never read has no instant."""
    assert operator.sources() == (
        admin.SourceStatus(name="env", state="synced", fault="", synced_at=AT, profiles=1),
        admin.SourceStatus(name="dotenv /x", state="pending", fault="unreadable", synced_at=None, profiles=0),
    )


def test_findings_come_in_words(operator: admin.Admin) -> None:
    """A severity of later days is a warning."""
    assert operator.findings() == (
        admin.Finding(severity="error", subject="audit", message="no space left", remedy="free some"),
        admin.Finding(severity="warning", subject="x", message="y", remedy=""),
    )


def test_accepting_an_audit_log_says_what_was_accepted(operator: admin.Admin) -> None:
    """In the broker's words."""
    assert operator.accept_audit_log() == "its anchor is missing"


def test_the_default_is_the_admin_socket_whatever_an_agents_address_is(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`EQUABOT_BROKER_ADDRESS` is where an agent speaks, and an agent is no operator."""
    monkeypatch.setenv("EQUABOT_RUN_DIR", str(run_dir))
    monkeypatch.setenv("EQUABOT_BROKER_ADDRESS", "unix:/nowhere/main/broker.sock")
    with admin.connect() as connected:
        assert connected.address == f"unix:{run_dir}/admin/broker.sock"
        assert len(connected.list_leases()) == 2


def test_an_agents_socket_knows_none_of_this(tmp_path: Path) -> None:
    """Errors are those of every call."""
    with admin.connect(str(tmp_path / "none.sock")) as connected, pytest.raises(errors.BrokerUnavailable):
        connected.sources()
