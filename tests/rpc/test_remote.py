"""Agents of other machines: real TLS on loopback, the real engine behind it, and who calls decided for each call."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2

from equabot.broker.v1 import broker_pb2 as pb
from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from equabot_broker.domain.callers import CallerProof, Callers, Identified
from equabot_broker.domain.errors import BrokerError, IdentityUnchecked, PolicyDenied, Unidentified
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.identity.client_certificate import ClientCertificates
from equabot_broker.identity.server_certificate import ServerCertificate
from equabot_broker.rpc.remote import AuthenticationInterceptor, CallerIdentities
from equabot_broker.rpc.server import CannotListen, remote_server
from equabot_broker.rpc.servicer import BrokerServicer
from equabot_broker.telemetry.broker_events import CallerRefused
from tests.fakes.clock import FakeClock
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.kubernetes.certificates import Authority, Pair
from tests.rpc.conftest import Serve
from tests.rpc.serving import Served, eventually, in_time, refused, said

AUTHORITY = Authority("authority")
SERVER = AUTHORITY.server("localhost", "127.0.0.1")
ANTHROPIC = pb.AcquireLeaseRequest(provider="anthropic")


class Tokens:
    """A token is valid while it is listed here, and then for `lasts` seconds."""

    def __init__(self, clock: FakeClock) -> None:
        self.agents: dict[str, str | BrokerError] = {"token-of-main": "main", "token-of-coder": "coder"}
        self.lasts = 60.0
        self.asked = 0
        self._clock = clock

    async def identify(self, shown: CallerProof) -> Identified:
        self.asked += 1
        if shown.token is None:
            raise Unidentified("shows nothing")
        agent = self.agents.get(shown.token.reveal(), Unidentified("is not good"))
        if isinstance(agent, BrokerError):
            raise agent
        return Identified(agent=agent, until=self._clock.steady() + self.lasts)


class Remote:
    """A broker that serves on TCP; `tokens` says who is who."""

    def __init__(self, served: Served, port: int, stack: AsyncExitStack, directory: Path) -> None:
        self.served = served
        self.engine = served.engine
        self.tokens = Tokens(served.engine.clock)
        self.door: AuthenticationInterceptor | None = None
        self.port = port
        self.directory = directory
        self._stack = stack

    async def channel(self, pair: Pair | None = None, *, trusting: Authority = AUTHORITY) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(trusting.pem, *((pair.key, pair.certificate) if pair else ()))
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = grpc.aio.secure_channel(f"localhost:{self.port}", credentials, options=options)
        return await self._stack.enter_async_context(channel)

    async def broker(self, pair: Pair | None = None, *, trusting: Authority = AUTHORITY) -> Any:
        return BrokerStub(await self.channel(pair, trusting=trusting))


def bearing(token: str, *, kind: str = "Bearer") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"{kind} {token}"),)


MAIN, CODER = bearing("token-of-main"), bearing("token-of-coder")


def write(directory: Path, pair: Pair, ca: bytes = AUTHORITY.pem) -> None:
    for name, text in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", ca)):
        (directory / f"{name}.new").write_bytes(text)
        (directory / f"{name}.new").replace(directory / name)


def two_agents() -> Engine:
    coder = AgentPolicy(providers=frozenset({"openai"}), max_leases=2)
    clock = FakeClock(now=datetime.now(UTC).timestamp())  # that of the certificates
    engine = Engine(agents={"main": ANYTHING, "coder": coder}, clock=clock)
    engine.hold(profile("anthropic:a"), profile("openai:a"))
    return engine


@asynccontextmanager
async def remote(
    serve: Serve, directory: Path, *, engine: Engine | None = None, callers: Callers | None = None
) -> AsyncIterator[Remote]:
    """Served for tokens or, given `callers`, for certificates."""
    write(directory, SERVER)
    async with serve(engine or two_agents()) as served, AsyncExitStack() as stack:
        engine = served.engine
        servicers = {
            agent: BrokerServicer(
                agent, lease_service=engine.lease_service, resolver=engine.resolver,
                profile_statuses=engine.profile_statuses, ingest=engine.ingest,
                refresh_scheduler=engine.refresh_scheduler, suspensions=engine.suspensions,
                messages=served.messages, observe=served.acquires.append,
            )
            for agent in engine.policies.agents
        }  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        made = Remote(served, port, stack, directory)
        identities: CallerIdentities = made.tokens if callers is None else ClientCertificates(callers, clock=engine.clock)
        files = ServerCertificate(
            directory / "tls.crt", directory / "tls.key", clock=engine.clock,
            client_ca=None if callers is None else directory / "ca.crt",
        )  # fmt: skip
        made.door = door = AuthenticationInterceptor(identities, clock=engine.clock, events=engine.events)
        server = remote_server(
            ("127.0.0.1", port), {agent: one.service() for agent, one in servicers.items()}, engine.readiness,
            door=door, certificate=files,
            leases=100, behind=directory / "agents",
        )  # fmt: skip
        await server.start()
        stack.push_async_callback(server.stop, None)
        yield made


async def test_each_call_is_of_the_agent_whose_token_it_shows(serve: Serve, tmp_path: Path) -> None:
    """On one connection too; what one agent holds another knows nothing of, and its policy is its own."""
    async with remote(serve, tmp_path) as made:
        broker = await made.broker()
        lease = await broker.AcquireLease(ANTHROPIC, metadata=MAIN)
        denied = await refused(broker.AcquireLease(ANTHROPIC, metadata=CODER))
        assert (denied.code, denied.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
        renew = pb.RenewLeaseRequest(lease_id=lease.id)
        assert (await refused(broker.RenewLease(renew, metadata=CODER))).reason == "LEASE_NOT_FOUND"
        await broker.RenewLease(renew, metadata=MAIN)


async def test_a_suspended_agent_is_refused_over_the_network_too(serve: Serve, tmp_path: Path) -> None:
    """S11: an agent is one agent, however it calls; its streams end, another's call on the same connection passes."""
    async with remote(serve, tmp_path) as made:
        broker = await made.broker()
        stream: Any = broker.StreamLease(ANTHROPIC, metadata=MAIN)
        await stream.read()
        await made.engine.suspension_control.suspend("main")
        assert (await stream.read()).reason == "agent_suspended"
        assert (await refused(broker.AcquireLease(ANTHROPIC, metadata=MAIN))).reason == "AGENT_SUSPENDED"
        assert (await refused(broker.ListProfiles(pb.ListProfilesRequest(), metadata=MAIN))).reason == "AGENT_SUSPENDED"
        await broker.AcquireLease(pb.AcquireLeaseRequest(provider="openai"), metadata=CODER)


async def test_a_caller_that_a_reload_took_the_agent_from_loses_its_stream(serve: Serve, tmp_path: Path) -> None:
    """C15: at once, however long its token or certificate was good for; the other caller's stream stays."""
    async with remote(serve, tmp_path) as made:
        broker, openai = await made.broker(), pb.AcquireLeaseRequest(provider="openai")
        gone: Any = broker.StreamLease(ANTHROPIC, metadata=MAIN)
        stays: Any = broker.StreamLease(openai, metadata=CODER)
        await gone.read()
        await stays.read()
        made.tokens.agents["token-of-main"] = PolicyDenied("does not map to an agent")
        assert made.door is not None
        made.door.look_again()
        assert (await refused(gone.read())).reason == "POLICY_DENIED"
        made.engine.suspensions.check("coder")
        assert [lease.agent for lease in made.engine.lease_admin.active()] == ["coder"]


async def test_quotas_are_those_of_the_sockets(serve: Serve, tmp_path: Path) -> None:
    """An agent is one agent, however it calls: leases count together."""
    openai = pb.AcquireLeaseRequest(provider="openai")
    async with remote(serve, tmp_path) as made:
        await (await made.served.broker("coder")).AcquireLease(openai)
        broker = await made.broker()
        await broker.AcquireLease(openai, metadata=CODER)
        assert (await refused(broker.AcquireLease(openai, metadata=CODER))).reason == "LEASE_LIMIT"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ((), "shows nothing"),
        (bearing("another"), "is not good"),
        (bearing("token-of-main", kind="Basic"), "has another scheme: send `Bearer` and the token"),
        ((("authorization", "token-of-main"),), "has another scheme"),
        (MAIN + CODER, "several `authorization` headers: send one"),
        (bearing(""), "is not good"),
    ],
)
async def test_who_does_not_show_who_it_is_is_refused(
    serve: Serve, tmp_path: Path, metadata: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every service and every kind of call, also health and reflection; the operator's events show it."""
    async with remote(serve, tmp_path) as made:
        channel: Any = await made.channel()
        broker, health = await made.broker(), HealthStub(channel)
        reflection = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        calls: tuple[Any, ...] = (
            broker.AcquireLease(ANTHROPIC, metadata=metadata),
            broker.StreamLease(ANTHROPIC, metadata=metadata).read(),
            broker.ListProfiles(pb.ListProfilesRequest(), metadata=metadata),
            health.Check(health_pb2.HealthCheckRequest(), metadata=metadata),
            health.Watch(health_pb2.HealthCheckRequest(), metadata=metadata).read(),
            # T10: no message is sent. gRPC's asyncio client shows a refusal that comes while it writes one as INTERNAL: that is
            # what it makes of the failed write, in place of the status that it has.
            reflection(metadata=metadata).read(),
        )
        for call in calls:
            denied = await refused(call)
            assert (denied.code, denied.reason, denied.domain) == ("UNAUTHENTICATED", "POLICY_DENIED", "equabot.dev")
            assert words in denied.details
        told = [event for event in made.engine.emitted if isinstance(event, CallerRefused)]
        assert len(told) == len(calls)
        assert {event.reason for event in told} == {"UNAUTHENTICATED"}
        assert "token-of-" not in repr(told) + denied.raw
    assert said(caplog) == []


async def test_every_stranger_is_counted(serve: Serve, tmp_path: Path) -> None:
    """One event each, for the metrics; what is kept of them is summed (`telemetry.folding`)."""
    async with remote(serve, tmp_path) as made:
        broker = await made.broker()
        for _ in range(100):
            await refused(broker.ListProfiles(pb.ListProfilesRequest()))
        told = [event for event in made.engine.emitted if isinstance(event, CallerRefused)]
    assert len(told) == 100
    assert CallerRefused.summed


async def test_who_is_let_in_is_served_all_that_a_socket_serves(serve: Serve, tmp_path: Path) -> None:
    """Health and reflection next to the API; the operator's API is not there."""
    async with remote(serve, tmp_path) as made:
        channel: Any = await made.channel()
        assert (await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), metadata=MAIN)).status
        reflection = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        listed = await reflection([reflection_pb2.ServerReflectionRequest(list_services="")], metadata=MAIN).read()
        assert "equabot.broker.v1.Broker" in {found.name for found in listed.list_services_response.service}
        admin = channel.unary_unary("/equabot.broker.v1.Admin/Diagnose")
        assert (await refused(admin(b"", metadata=MAIN))).code == "UNIMPLEMENTED"


async def test_while_callers_cannot_be_identified_none_is_accepted(serve: Serve, tmp_path: Path) -> None:
    """A refusal that says to come again, and when."""
    async with remote(serve, tmp_path) as made:
        made.tokens.agents["token-of-main"] = IdentityUnchecked("the API server is away", retry_after=2.0)
        denied = await refused((await made.broker()).AcquireLease(ANTHROPIC, metadata=MAIN))
        assert (denied.code, denied.reason, denied.retry_after) == ("UNAVAILABLE", "SOURCE_NOT_SYNCED", 2.0)


async def test_a_known_caller_that_is_not_a_agent_is_denied(serve: Serve, tmp_path: Path) -> None:
    """Not UNAUTHENTICATED: another token would not help."""
    async with remote(serve, tmp_path) as made:
        made.tokens.agents["token-of-main"] = PolicyDenied("does not map to an agent")
        denied = await refused((await made.broker()).AcquireLease(ANTHROPIC, metadata=MAIN))
        assert (denied.code, denied.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")


async def test_a_stream_lasts_while_its_caller_is_known(serve: Serve, tmp_path: Path) -> None:
    """It is asked again as often as what is known ends, and goes on."""
    async with remote(serve, tmp_path) as made:
        stream = (await made.broker()).StreamLease(ANTHROPIC, metadata=MAIN)
        granted = await stream.read()
        assert granted.kind == pb.LeaseEvent.GRANTED
        asked = made.tokens.asked
        await in_time(made.engine, stream.read())  # renewed
        await made.engine.clock.elapse(120)
        await eventually(lambda: made.tokens.asked >= asked + 2)
        made.engine.hold(profile("anthropic:a", "rotated"))
        while (event := await in_time(made.engine, stream.read())).kind != pb.LeaseEvent.ROTATED:
            assert event.kind == pb.LeaseEvent.RENEWED
        assert event.lease.secret == "rotated"
        stream.cancel()


@pytest.mark.parametrize(
    ("becomes", "code", "words"),
    [
        (Unidentified("revoked"), "UNAUTHENTICATED", "revoked"),
        (IdentityUnchecked("away"), "UNAVAILABLE", "away"),
        (PolicyDenied("no agent any more"), "PERMISSION_DENIED", "no agent any more"),
        ("coder", "UNAUTHENTICATED", "now maps to another agent"),
    ],
)
async def test_a_stream_ends_with_what_was_known_of_its_caller(
    serve: Serve, tmp_path: Path, becomes: str | BrokerError, code: str, words: str
) -> None:
    """Within what its token was good for; its lease ends with it, and nothing is left running."""
    async with remote(serve, tmp_path) as made:
        stream = (await made.broker()).StreamLease(ANTHROPIC, metadata=MAIN)
        granted = await stream.read()
        made.tokens.agents["token-of-main"] = becomes

        async def ended() -> None:
            while await stream.read():
                pass

        failed = await in_time(made.engine, refused(ended()))
        assert failed.code == code
        assert words in failed.details
        await eventually(lambda: not list(made.engine.lease_admin.active()))
        made.tokens.agents["token-of-main"] = "main"
        assert (
            await refused((await made.broker()).RenewLease(pb.RenewLeaseRequest(lease_id=granted.lease.id), metadata=MAIN))
        ).code


async def test_a_caller_that_leaves_leaves_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    """The check of its stream ends with it."""
    async with remote(serve, tmp_path) as made:
        stream = (await made.broker()).StreamLease(ANTHROPIC, metadata=MAIN)
        await stream.read()
        await made.engine.clock.elapse(60)
        await eventually(lambda: made.tokens.asked == 2)
        stream.cancel()
        await eventually(lambda: not list(made.engine.lease_admin.active()))
        await made.engine.clock.elapse(300)
        assert made.tokens.asked == 2


async def test_an_error_of_the_engine_ends_a_stream_as_on_a_socket(serve: Serve, tmp_path: Path) -> None:
    """With its own reason, and not as a group of one."""
    async with remote(serve, tmp_path) as made:
        failed = await refused(
            (await made.broker()).StreamLease(pb.AcquireLeaseRequest(provider="nobody"), metadata=MAIN).read()
        )
        assert (failed.code, failed.reason) == ("NOT_FOUND", "PROVIDER_UNKNOWN")


# --- certificates -----------------------------------------------------------------------------------------------------

CALLERS = Callers(certificates={"spiffe://test/main": "main", "coder": "coder"})


async def test_a_certificate_says_which_agent_calls(serve: Serve, tmp_path: Path) -> None:
    """By the names in it; an additional token changes nothing."""
    async with remote(serve, tmp_path, callers=CALLERS) as made:
        main = await made.broker(AUTHORITY.caller("coder", "spiffe://test/main"))
        await main.AcquireLease(ANTHROPIC, metadata=CODER)
        coder = await made.broker(AUTHORITY.caller("coder"))
        assert (await refused(coder.AcquireLease(ANTHROPIC, metadata=MAIN))).reason == "POLICY_DENIED"
        stranger = await made.broker(AUTHORITY.caller("stranger"))
        assert (await refused(stranger.AcquireLease(ANTHROPIC))).code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "pair",
    [None, Authority("another").caller("coder"), AUTHORITY.caller("coder", ends=datetime.now(UTC) - timedelta(minutes=1))],
    ids=["none", "another authority's", "one that has ended"],
)
async def test_without_a_good_certificate_there_is_no_connection(serve: Serve, tmp_path: Path, pair: Pair | None) -> None:
    """The handshake fails; nothing of ours is reached."""
    async with remote(serve, tmp_path, callers=CALLERS) as made:
        failed = await refused((await made.broker(pair)).AcquireLease(ANTHROPIC, timeout=5))
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "")
        assert not [event for event in made.engine.emitted if isinstance(event, CallerRefused)]


async def test_a_stream_ends_with_its_certificate(serve: Serve, tmp_path: Path) -> None:
    """However long ago the handshake was."""
    engine = two_agents()
    ends = datetime.now(UTC) + timedelta(days=1)
    engine.clock.jump_wall(ends.timestamp() - 300 - engine.clock.now())
    async with remote(serve, tmp_path, engine=engine, callers=CALLERS) as made:
        stream = (await made.broker(AUTHORITY.caller("x", "spiffe://test/main", ends=ends))).StreamLease(ANTHROPIC)
        assert (await stream.read()).kind == pb.LeaseEvent.GRANTED

        async def ended() -> None:
            while await stream.read():
                pass

        failed = await in_time(engine, refused(ended()))
        assert (failed.code, failed.details) == (
            "UNAUTHENTICATED",
            "the client certificate of this connection has expired: open another connection with the renewed one",
        )  # fmt: skip


# --- the transport ----------------------------------------------------------------------------------------------------


async def test_nothing_is_served_without_encryption(serve: Serve, tmp_path: Path) -> None:
    """Not even a refusal: a client without TLS gets no answer."""
    async with remote(serve, tmp_path) as made:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{made.port}") as channel:
            failed = await refused(BrokerStub(channel).AcquireLease(ANTHROPIC, metadata=MAIN, timeout=5))
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "")
        assert made.tokens.asked == 0


async def test_the_versions_of_tls_that_are_of_today_are_spoken(serve: Serve, tmp_path: Path) -> None:
    """1.3 where the other side can, and 1.2."""
    async with remote(serve, tmp_path) as made:

        def version(newest: ssl.TLSVersion) -> str | None:
            trust = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
            trust.set_alpn_protocols(["h2"])
            trust.minimum_version, trust.maximum_version = min(newest, ssl.TLSVersion.TLSv1_2), newest
            raw = socket.create_connection(("127.0.0.1", made.port), timeout=5)
            with trust.wrap_socket(raw, server_hostname="localhost") as secured:
                return secured.version()

        assert await asyncio.to_thread(version, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert await asyncio.to_thread(version, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


async def test_a_renewed_certificate_is_served_to_who_comes_next(serve: Serve, tmp_path: Path) -> None:
    """Connections of before go on; one of no use changes nothing."""
    other = Authority("the next authority")
    async with remote(serve, tmp_path) as made:
        before = await made.broker()
        await before.AcquireLease(ANTHROPIC, metadata=MAIN)
        write(tmp_path, other.server("localhost"))
        after = await made.broker(trusting=other)
        await after.AcquireLease(ANTHROPIC, metadata=MAIN)
        await before.AcquireLease(ANTHROPIC, metadata=MAIN)
        (tmp_path / "tls.crt").write_text("of no use")
        still = await made.broker(trusting=other)
        await still.AcquireLease(ANTHROPIC, metadata=MAIN)
        old = await made.broker()
        assert (await refused(old.AcquireLease(ANTHROPIC, metadata=MAIN, timeout=5))).code == "UNAVAILABLE"


async def test_callers_of_another_authority_are_let_in_once_it_is_theirs(serve: Serve, tmp_path: Path) -> None:
    """The authority is renewed like the rest."""
    other = Authority("the next authority")
    async with remote(serve, tmp_path, callers=CALLERS) as made:
        pair = other.caller("coder")
        openai = pb.AcquireLeaseRequest(provider="openai")
        assert (await refused((await made.broker(pair)).AcquireLease(openai, timeout=5))).code == "UNAVAILABLE"
        write(tmp_path, SERVER, other.pem)
        await (await made.broker(pair)).AcquireLease(openai, timeout=5)


async def test_an_address_that_is_taken_is_said(serve: Serve, tmp_path: Path) -> None:
    """As for every other listener."""
    async with remote(serve, tmp_path) as made:
        engine = made.engine
        files = ServerCertificate(tmp_path / "tls.crt", tmp_path / "tls.key", clock=engine.clock)
        door = AuthenticationInterceptor(made.tokens, clock=engine.clock, events=engine.events)
        servicer = BrokerServicer(
            "main", lease_service=engine.lease_service, resolver=engine.resolver,
                profile_statuses=engine.profile_statuses, ingest=engine.ingest,
            refresh_scheduler=engine.refresh_scheduler, suspensions=engine.suspensions, messages=made.served.messages,
            observe=made.served.acquires.append,
        )  # fmt: skip
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{made.port}"):
            remote_server(
                ("127.0.0.1", made.port), {"main": servicer.service()}, engine.readiness, door=door, certificate=files,
                leases=100, behind=tmp_path / "other",
            )  # fmt: skip
