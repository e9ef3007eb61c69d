"""The gateway's log as Envoy sends it: what it says of an answer counts, and what makes no sense is skipped."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.config.core.v3.base_pb2 import RequestMethod
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub

from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.envoy.access_log import AccessLogServicer
from equabot_broker.rpc.server import control_server
from equabot_broker.telemetry.events import Event
from equabot_broker.telemetry.gateway_events import GatewayLogSkipped, GatewayUsed
from equabot_broker.telemetry.lease_events import OutcomeReported
from tests.fakes.engine import Engine, profile
from tests.rpc.serving import eventually

A, B = "anthropic:a", "anthropic:b"


@pytest.fixture
def engine() -> Engine:
    made = Engine(deliveries=frozenset(Delivery), order={"anthropic": (A, B)})
    made.put(profile(A, "secret-a"), profile(B, "secret-b"))
    return made


@pytest.fixture
async def stub(engine: Engine, tmp_path: Path) -> AsyncIterator[Any]:
    servicer = AccessLogServicer(gateway_access=engine.gateway_access, events=engine.events, clock=engine.clock)
    server = control_server(tmp_path / "control.sock", [servicer.service()])
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'control.sock'}") as channel:
        yield AccessLogServiceStub(channel)
    await server.stop(None)


def entry(
    engine: Engine, status: int = 200, *, flag: str = "", details: str = "via_upstream", headers: dict[str, str] | None = None,
    seconds: float = 0.5, **fields: Any,
) -> HTTPAccessLogEntry:  # fmt: skip
    """What Envoy says of a request that was let pass with the first profile."""
    lease = engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", delivery="brokered", session="talk")).lease
    found = engine.registry.find("main", A)
    assert found is not None
    made = HTTPAccessLogEntry()
    told = made.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].fields
    names = {
        "agent": "main",
        "session": "talk",
        "lease": lease.id,
        "provider": "anthropic",
        "profile": A,
        "request": "5f",
        "route": "/v1/messages",
    }
    for name, value in (names | {"version": str(found[1].held.version)} | fields).items():
        told[name].string_value = value
    made.common_properties.duration.FromNanoseconds(int(seconds * 1e9))
    if flag:
        setattr(made.common_properties.response_flags, flag, True)
    made.request.request_method = RequestMethod.POST
    made.request.request_body_bytes, made.response.response_body_bytes = 10, 2000
    if status:
        made.response.response_code.value = status
    made.response.response_code_details = details
    made.response.response_headers.update(headers or {})
    return made


def message(*entries: HTTPAccessLogEntry) -> StreamAccessLogsMessage:
    made = StreamAccessLogsMessage()
    made.http_logs.log_entry.extend(entries)
    return made


async def told(stub: Any, *entries: HTTPAccessLogEntry) -> None:
    """As an Envoy that ends afterwards."""
    await stub.StreamAccessLogs(iter([message(*entries)]))


def heard(engine: Engine, kind: type[Event]) -> list[Any]:
    return [event for event in engine.emitted if type(event) is kind]


def cooling(engine: Engine) -> float:
    found = engine.registry.find("main", A)
    assert found is not None
    return max(found[1].standing.cooling_until - engine.clock.now(), 0.0)


async def test_an_answer_is_reported_and_counted(engine: Engine, stub: Any) -> None:
    """Both in full."""
    one = entry(engine, 429, headers={"retry-after": "7"})
    await told(stub, one)
    (lease,) = engine.lease_admin.active()
    assert heard(engine, GatewayUsed) == [
        GatewayUsed(
            agent="main", session="talk", provider="anthropic", profile=A, lease=lease.id, request="5f", method="POST",
            route="/v1/messages", status=429, sent=10, received=2000, seconds=0.5,
        )
    ]  # fmt: skip
    assert [event.outcome for event in heard(engine, OutcomeReported)] == ["rate_limit"]
    assert cooling(engine) == 7.0


async def test_when_a_request_began_is_as_envoy_says(engine: Engine, stub: Any) -> None:
    """However late its answer is reported."""
    began = engine.clock.now()
    good = entry(engine, 200)
    good.common_properties.start_time.FromNanoseconds(int(began * 1e9))
    engine.clock.advance(10)
    await told(stub, entry(engine, 429), good)
    assert cooling(engine) > 0


async def test_an_entry_is_read_while_the_log_continues(engine: Engine, stub: Any) -> None:
    """An Envoy holds one stream open as long as it lives; when that is cut, what came before has counted."""
    call = stub.StreamAccessLogs()
    await call.write(message(entry(engine, 429)))
    await eventually(lambda: cooling(engine) > 0)
    call.cancel()
    await told(stub, entry(engine))
    assert len(heard(engine, GatewayUsed)) == 2


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ({"status": 200}, None),
        ({"status": 101}, None),
        ({"status": 401}, "auth"),
        ({"status": 402}, "billing"),
        (
            {"status": 503, "details": "upstream_reset_before_response_started", "flag": "upstream_connection_failure"},
            "timeout",
        ),
        ({"status": 200, "flag": "upstream_remote_reset"}, "timeout"),
        (
            {"status": 200, "flag": "upstream_connection_termination", "details": "upstream_reset_after_response_started"},
            "timeout",
        ),
        ({"status": 504, "flag": "upstream_request_timeout", "details": "response_timeout"}, "timeout"),
        ({"status": 503, "flag": "dns_resolution_failure", "details": "dns_resolution_failure"}, "timeout"),
        ({"status": 0, "flag": "downstream_connection_termination", "details": "downstream_remote_disconnect"}, None),
        ({"status": 408, "details": "request_overall_timeout"}, None),
        ({"status": 413, "details": "request_payload_too_large"}, None),
        ({"status": 429, "details": "overload"}, None),
        ({"status": 401, "details": ""}, "auth"),
        ({"status": 503, "flag": "upstream_overflow", "details": "upstream_overflow"}, None),
        ({"status": 500}, None),
    ],
)
async def test_what_an_answer_counts_as(engine: Engine, stub: Any, how: dict[str, Any], outcome: str | None) -> None:
    """The vendor's status, or that there was none; not the gateway's own, and not that the agent disconnected. Success is not
    reported twice."""
    await told(stub, entry(engine, **how))
    assert [event.outcome for event in heard(engine, OutcomeReported)] == ([] if outcome is None else [outcome])
    assert heard(engine, GatewayUsed)[0].status == how["status"]


async def test_a_reset_after_the_agent_has_gone_is_the_agents(engine: Engine, stub: Any) -> None:
    """Whatever else Envoy says of it."""
    one = entry(engine, 200, flag="upstream_connection_termination")
    one.common_properties.response_flags.downstream_connection_termination = True
    await told(stub, one)
    assert cooling(engine) == 0


@pytest.mark.parametrize("flag", ["downstream_connection_termination", "downstream_remote_reset"])
@pytest.mark.parametrize(
    ("status", "arrived", "headers", "outcome"),
    [
        (401, True, {}, "auth"),
        (429, True, {"retry-after": "7"}, "rate_limit"),
        (200, True, {}, None),
        (403, True, {"x-equabot-reason": "AGENT_SUSPENDED"}, None),
        (429, False, {"x-equabot-reason": "OVERLOADED"}, None),
        (0, True, {}, None),
    ],
)
async def test_the_vendors_status_counts_although_the_agent_left_before_the_end(
    engine: Engine, stub: Any, flag: str, *, status: int, arrived: bool, headers: dict[str, str], outcome: str | None
) -> None:
    """Otherwise an agent that reads only the head of a refusal would keep the refused key in use for all agents."""
    one = entry(engine, status, flag=flag, details="downstream_remote_disconnect", headers=headers)
    if arrived:
        one.common_properties.time_to_first_upstream_rx_byte.FromMilliseconds(3)
    await told(stub, one)
    assert [event.outcome for event in heard(engine, OutcomeReported)] == ([] if outcome is None else [outcome])


@pytest.mark.parametrize("damage", ["version", "missing", "method"])
async def test_an_entry_that_makes_no_sense_is_skipped(engine: Engine, stub: Any, damage: str) -> None:
    """And counted, and the next one is heard."""
    strange: dict[str, Any] = {"version": "many"} if damage == "version" else {}
    bad = entry(engine, 429, **strange)
    if damage == "missing":
        del bad.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].fields["profile"]
    if damage == "method":
        bad.request.request_method = 99
    await told(stub, bad, entry(engine))
    assert heard(engine, GatewayLogSkipped) == [GatewayLogSkipped()]
    assert [event.status for event in heard(engine, GatewayUsed)] == [200]
    assert cooling(engine) == 0


async def test_a_message_that_is_none_is_skipped(engine: Engine, stub: Any, tmp_path: Path) -> None:
    """And counted. One without entries is nothing, and one of a request that was not let pass neither."""
    refused = HTTPAccessLogEntry()
    refused.response.response_code.value = 401
    await told(stub, refused)
    await told(stub)
    assert heard(engine, GatewayLogSkipped) == []
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'control.sock'}") as channel:
        raw: Any = channel.stream_unary("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")
        await raw(iter([b"\xff\xff", message(entry(engine)).SerializeToString()]))
    assert (len(heard(engine, GatewayLogSkipped)), len(heard(engine, GatewayUsed))) == (1, 1)


async def test_an_answer_on_an_ended_lease_still_counts(engine: Engine, stub: Any) -> None:
    """The profile was refused all the same."""
    one = entry(engine, 429)
    engine.lease_admin.revoke_matching(agent="main")
    await told(stub, one)
    assert cooling(engine) > 0


@pytest.mark.parametrize("fields", [{"profile": "anthropic:gone"}, {"agent": "nobody", "profile": "x"}, {"version": "0"}])
async def test_an_answer_on_a_deleted_profile_changes_nothing(engine: Engine, stub: Any, fields: dict[str, Any]) -> None:
    """It is a use like any other."""
    await told(stub, entry(engine, 401, **fields))
    assert heard(engine, OutcomeReported) == []
    assert len(heard(engine, GatewayUsed)) == 1
