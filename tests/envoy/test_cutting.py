"""Active requests, as Envoy reports them to its external processor: cut when their agent is suspended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub

from equabot_broker.bootstrap.subscriptions import subscribe
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.envoy.cutting import Cutting
from equabot_broker.envoy.cutting_filters import AUTHORIZATION, TASK
from equabot_broker.envoy.processing import ProcessingServicer
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.rpc.serving import eventually, said


@pytest.fixture
def engine() -> Engine:
    made = Engine(agents={"main": ANYTHING, "coder": ANYTHING}, deliveries=frozenset(Delivery))
    made.put(profile("anthropic:a"), profile("anthropic:b"))
    return made


@pytest.fixture
def made(engine: Engine) -> Cutting:
    made = Cutting(
        catalog=engine.catalog, suspensions=engine.suspensions, gateway_leases=engine.gateway_leases, registry=engine.registry,
        clock=engine.clock, per_agent=3, in_all=4,
    )  # fmt: skip
    subscribe(engine, cutting=made)
    return made


@pytest.fixture
async def stub(made: Cutting, tmp_path: Path) -> AsyncIterator[Any]:
    """To the control socket of a broker that does not scrub."""
    server = grpc.aio.server(handlers=[ProcessingServicer(cutting=made, scrubbing=None).service()])
    server.add_insecure_port(f"unix:{tmp_path / 'control.sock'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'control.sock'}") as channel:
        yield ExternalProcessorStub(channel)
    await server.stop(None)


def message(agent: str = "", part: str = "response_headers", *, of: Lease | None = None) -> pb.ProcessingRequest:
    """Headers, or trailers, with what the authorization has said of the request."""
    request = pb.ProcessingRequest()
    getattr(request, part).SetInParent()
    if agent:
        fields = request.metadata_context.filter_metadata[AUTHORIZATION].fields
        fields["agent"].string_value, fields["provider"].string_value = agent, "anthropic"
        if of is not None:
            fields["token"].string_value, fields["profile"].string_value = of.token.hex(), of.profile
    return request


async def begun(stub: Any, agent: str, part: str = "response_headers", *, of: Lease | None = None) -> Any:
    """A stream of a request that goes on."""
    call = stub.Process(metadata=[TASK])
    await call.write(message(agent, part, of=of))
    assert (await call.read()).WhichOneof("response") == part
    return call


async def cut(call: Any) -> tuple[int, str, str]:
    """The status and reason with which the request ends, and Envoy's word for it; then the stream is over."""
    told = (await call.read()).immediate_response
    reasons = [one.header.raw_value.decode() for one in told.headers.set_headers if one.header.key == "x-equabot-reason"]
    assert await call.read() is grpc.aio.EOF
    return told.status.code, "".join(reasons), told.details


@pytest.mark.parametrize("part", ["request_headers", "response_headers"])
async def test_what_is_under_way_is_cut_with_its_agent(engine: Engine, stub: Any, part: str) -> None:
    """S11: all of that agent's, at once, and nothing of another's."""
    mine = [await begun(stub, "main", part) for _ in range(3)]
    other = await begun(stub, "coder", part)
    await engine.suspension_control.suspend("main")
    assert [await cut(call) for call in mine] == [(403, "AGENT_SUSPENDED", "agent_suspended")] * 3
    await other.write(message(part="response_trailers"))
    assert (await other.read()).HasField("response_trailers")


async def test_what_begins_after_the_suspension_is_cut_at_once(engine: Engine, stub: Any) -> None:
    """S11: it was let pass before; after resuming nothing is cut."""
    await engine.suspension_control.suspend("main")
    call = stub.Process(metadata=[TASK])
    await call.write(message("main"))
    assert (await cut(call))[:2] == (403, "AGENT_SUSPENDED")
    await engine.suspension_control.resume("main")
    await begun(stub, "main")


async def test_one_that_was_suspended_and_resumed_at_once_is_cut_all_the_same(engine: Engine, stub: Any) -> None:
    """S11: its lease has ended."""
    call = await begun(stub, "main")
    await engine.suspension_control.suspend("main")
    await engine.suspension_control.resume("main")
    assert (await cut(call))[:2] == (403, "AGENT_SUSPENDED")


def leased(engine: Engine, agent: str = "main", **asked: Any) -> Lease:
    """A brokered lease."""
    request = LeaseRequest(**{"provider": "anthropic", "delivery": "brokered", "ttl": 60.0, **asked})
    return engine.lease_service.acquire(agent, request).lease


async def goes_on(call: Any) -> bool:
    """Whether Envoy, asking about trailers, is answered."""
    await call.write(message(part="response_trailers"))
    return bool((await call.read()).HasField("response_trailers"))


async def test_what_is_under_way_is_cut_with_its_lease(engine: Engine, stub: Any) -> None:
    """C8: revoked by the agent or by an operator; what another lease of the same agent has under way goes on."""
    first, second, other = leased(engine), leased(engine), leased(engine)
    calls = [await begun(stub, "main", of=lease) for lease in (first, second, other)]
    engine.lease_service.revoke("main", first.id)
    assert await cut(calls[0]) == (401, "LEASE_NOT_FOUND", "lease_ended")
    engine.lease_admin.revoke_matching(lease_id=second.id)
    assert await cut(calls[1]) == (401, "LEASE_NOT_FOUND", "lease_ended")
    assert await goes_on(calls[2])


async def test_what_is_under_way_is_cut_at_the_leases_end(engine: Engine, stub: Any) -> None:
    """C8: one that was renewed goes on."""
    short, renewed = leased(engine), leased(engine)
    calls = [await begun(stub, "main", of=lease) for lease in (short, renewed)]
    engine.clock.advance(40.0)
    engine.lease_service.renew("main", renewed.id)
    engine.clock.advance(21.0)
    engine.lease_table.tick()
    assert await cut(calls[0]) == (401, "LEASE_EXPIRED", "lease_ended")
    assert await goes_on(calls[1])


async def test_what_is_under_way_goes_on_with_the_token(engine: Engine, stub: Any) -> None:
    """C8: a lease that another succeeds does not cut; the successor's end does."""
    first = leased(engine)
    call = await begun(stub, "main", of=first)
    second = leased(engine, succeeds=first.id)
    assert second.token == first.token
    assert await goes_on(call)
    engine.lease_service.revoke("main", second.id)
    assert (await cut(call))[1] == "LEASE_NOT_FOUND"


async def test_what_is_under_way_is_cut_with_its_profile(engine: Engine, stub: Any) -> None:
    """C8: the credential of a deleted profile serves nothing any more, though the lease goes over to another; what it would go
    over to is not cut."""
    lease = leased(engine)
    calls = [await begun(stub, "main", of=replace(lease, profile=profile)) for profile in ("anthropic:a", "anthropic:b")]
    engine.put(profile("anthropic:b"))
    assert await cut(calls[0]) == (403, "PROFILE_NOT_FOUND", "lease_ended")
    assert await goes_on(calls[1])
    late = stub.Process(metadata=[TASK])
    await late.write(message("main", of=replace(lease, profile="anthropic:a")))
    assert (await cut(late))[1] == "PROFILE_NOT_FOUND"


async def test_an_answer_that_begins_after_the_leases_end_is_withheld(engine: Engine, stub: Any) -> None:
    """C8: the request was let pass before."""
    lease = leased(engine)
    engine.lease_service.revoke("main", lease.id)
    call = stub.Process(metadata=[TASK])
    await call.write(message("main", of=lease))
    assert (await cut(call))[:2] == (401, "LEASE_NOT_FOUND")


async def test_nothing_is_kept_of_what_has_ended(made: Cutting, stub: Any) -> None:
    """However it ends: Envoy closes the stream, or breaks it off."""
    closed, broken = [await begun(stub, "main") for _ in range(2)]
    await closed.done_writing()
    assert await closed.read() is grpc.aio.EOF
    broken.cancel()
    await eventually(lambda: made._count == 0 and made._open == {})


async def test_what_an_agent_can_make_it_keep_is_bounded(stub: Any) -> None:
    """Beyond that an answer is withheld, for it could not be cut; another agent's is not."""
    first = [await begun(stub, "main") for _ in range(3)]
    call = stub.Process(metadata=[TASK])
    await call.write(message("main"))
    assert await cut(call) == (503, "OVERLOADED", "too_many_answers")
    await begun(stub, "coder")
    call = stub.Process(metadata=[TASK])
    await call.write(message("coder"))
    assert (await cut(call))[:2] == (503, "OVERLOADED")
    await first[0].done_writing()
    assert await first[0].read() is grpc.aio.EOF
    await begun(stub, "coder")


async def test_a_request_of_no_agent_is_let_be(stub: Any) -> None:
    """What the gateway answers itself was not authorized."""
    call = stub.Process(metadata=[TASK])
    await call.write(message())
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_what_makes_no_sense_is_refused(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By status, and without an incident: a message of another kind, none, and a stream for scrubbing where that is off."""
    for metadata, sent in (([TASK], [message("main", "response_body")]), ([TASK], []), ([], [message("main")])):
        call = stub.Process(metadata=metadata)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the refusal may come before the message is sent
            for one in sent:
                await call.write(one)
            await call.done_writing()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said(caplog) == []
