# ruff: noqa: N802 - methods have the names that the service gives them
"""A broker by script: the real wire, the real gRPC server, and a test that decides what it says."""

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from equabot.broker.v1 import broker_pb2 as pb
from equabot.broker.v1.broker_pb2_grpc import BrokerServicer, add_BrokerServicer_to_server

_WITHIN = 60.0


@dataclass
class Refusal:
    """An error as the broker sends it; without a reason, as a proxy or a stranger would."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "refused by script"
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        if not self.reason:
            return ()
        details = [ErrorInfo(reason=self.reason, domain="equabot.dev", metadata=dict(self.metadata))]
        if self.retry_after is not None:
            delay = Duration()
            delay.FromTimedelta(timedelta(seconds=self.retry_after))
            details.append(RetryInfo(retry_delay=delay))  # type: ignore[arg-type]
        status = Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


class FakeBroker(BrokerServicer):
    """Grants leases on `secret`, to whomever asks. What a test sets takes effect with the next call.

    `refusals` by method are answered instead, for as long as they stand; methods in `silent` never answer. `change_on_report`
    is the secret to rotate to when an outcome other than OK is reported. It can be stopped and started again on its socket;
    brokered leases go on then, of whose tokens it has only digests.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="equabot-"))
        self.address = f"unix:{self.home}/broker.sock"
        self.secret = "sk-ant-api03-first-canary"
        self.profile = "anthropic:env"
        self.delivery = "raw"
        self.base_url = "https://api.anthropic.com"
        self.header_form = "x-api-key: {}"
        self.more_headers: dict[str, str] = {}
        self.version = 1
        self.ttl = timedelta(minutes=15)
        self.max_ttl = timedelta(hours=1)
        self.clock_ahead = timedelta()
        self.refusals: dict[str, Refusal] = {}
        self.silent: set[str] = set()
        self.change_on_report: str | None = None
        self.calls: list[str] = []
        self.requests: list[Any] = []
        self.revoked: list[str] = []
        self.profiles: list[pb.ProfileStatus] = []
        self.streams: dict[str, queue.SimpleQueue[pb.LeaseEvent | None]] = {}
        self.news = threading.Condition()
        self._leases: dict[str, pb.Lease] = {}
        self._tokens: dict[str, str] = {}
        self._count = 0
        self._server: grpc.Server | None = None

    # -- life ------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.home)

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=32))
        add_BrokerServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """As `kill -9` looks from outside: every connection ends, and every streamed lease with it."""
        if self._server is not None:
            stopped, self._server = self._server.stop(grace=0), None
            for events in list(self.streams.values()):
                events.put(None)
            stopped.wait()
            self._tokens.clear()
            if self.delivery == "raw":
                self._leases.clear()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Returns once the condition holds; it is looked at whenever something happens here."""
        with self.news:
            assert self.news.wait_for(condition, timeout=_WITHIN), f"not within {_WITHIN:g} s; calls so far: {self.calls}"

    # -- what a test makes it say ------------------------------------------------------------------------------------------

    def rotate(self, secret: str, *, profile: str | None = None) -> None:
        """New material, pushed to every stream."""
        self.secret, self.version, self.profile = secret, self.version + 1, profile or self.profile
        self.push(pb.LeaseEvent.ROTATED)

    def push(self, kind: pb.LeaseEvent.Kind.ValueType, *, reason: str = "") -> None:
        for lease_id, events in list(self.streams.items()):
            lease = None
            if kind == pb.LeaseEvent.REVOKED:
                self._leases.pop(lease_id, None)
            else:
                renew = kind != pb.LeaseEvent.EXPIRING
                lease = self._renewed(lease_id) if renew else self._material(self._leases[lease_id])
            events.put(pb.LeaseEvent(kind=kind, lease=lease, reason=reason, lease_id=lease_id))
            if kind == pb.LeaseEvent.REVOKED:
                events.put(None)

    def forget_leases(self) -> None:
        self._leases.clear()

    # -- the service ---------------------------------------------------------------------------------------------------------

    def AcquireLease(self, request: pb.AcquireLeaseRequest, context: grpc.ServicerContext) -> pb.Lease:
        self._begin("AcquireLease", request, context)
        return self._grant(request)

    def StreamLease(self, request: pb.AcquireLeaseRequest, context: grpc.ServicerContext) -> Iterator[pb.LeaseEvent]:
        self._begin("StreamLease", request, context)
        lease = self._grant(request)
        events: queue.SimpleQueue[pb.LeaseEvent | None] = queue.SimpleQueue()
        with self.news:
            self.streams[lease.id] = events
            self.news.notify_all()
        context.add_callback(lambda: self._end_stream(lease.id))  # however it ends
        yield pb.LeaseEvent(kind=pb.LeaseEvent.GRANTED, lease=lease, lease_id=lease.id)
        while (event := events.get()) is not None:
            yield event

    def RenewLease(self, request: pb.RenewLeaseRequest, context: grpc.ServicerContext) -> pb.Lease:
        self._begin("RenewLease", request, context)
        self._must_know(request.lease_id, context)
        return self._renewed(request.lease_id)

    def RevokeLease(self, request: pb.RevokeLeaseRequest, context: grpc.ServicerContext) -> pb.RevokeLeaseResponse:
        self._begin("RevokeLease", request, context)
        self._end(request.lease_id)
        return pb.RevokeLeaseResponse()

    def ReportOutcome(self, request: pb.ReportOutcomeRequest, context: grpc.ServicerContext) -> pb.ReportOutcomeResponse:
        self._begin("ReportOutcome", request, context)
        self._must_know(request.lease_id, context)
        if request.version and request.version != self.version:
            return pb.ReportOutcomeResponse(changed=True)
        if request.outcome == pb.OK or self.change_on_report is None:
            return pb.ReportOutcomeResponse(changed=False)
        secret, self.change_on_report = self.change_on_report, None
        self.rotate(secret, profile="anthropic:spare")
        return pb.ReportOutcomeResponse(changed=True)

    def ListProfiles(self, request: pb.ListProfilesRequest, context: grpc.ServicerContext) -> pb.ListProfilesResponse:
        self._begin("ListProfiles", request, context)
        return pb.ListProfilesResponse(profiles=self.profiles)

    def PinProfile(self, request: pb.PinProfileRequest, context: grpc.ServicerContext) -> pb.PinProfileResponse:
        self._begin("PinProfile", request, context)
        return pb.PinProfileResponse()

    def UnpinProfile(self, request: pb.UnpinProfileRequest, context: grpc.ServicerContext) -> pb.UnpinProfileResponse:
        self._begin("UnpinProfile", request, context)
        return pb.UnpinProfileResponse()

    # -- within --------------------------------------------------------------------------------------------------------------

    def _begin(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        with self.news:
            self.calls.append(method)
            self.requests.append(request)
            self.news.notify_all()
        if method in self.silent:
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait(_WITHIN)
        if method in self.refusals:
            self._refuse(self.refusals[method], context)

    def _must_know(self, lease_id: str, context: grpc.ServicerContext) -> None:
        if lease_id not in self._leases:
            self._refuse(Refusal(grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND"), context)

    def _refuse(self, refusal: Refusal, context: grpc.ServicerContext) -> NoReturn:
        with suppress(Exception):  # the client may have gone
            context.set_trailing_metadata(refusal.trailers())
        context.abort(refusal.code, refusal.message)

    def _end_stream(self, lease_id: str) -> None:
        self.streams.pop(lease_id).put(None)
        if self._server is not None or self.delivery == "raw":
            self._end(lease_id)

    def _end(self, lease_id: str) -> None:
        with self.news:
            self._leases.pop(lease_id, None)
            self.revoked.append(lease_id)
            self.news.notify_all()

    def _grant(self, request: pb.AcquireLeaseRequest) -> pb.Lease:
        with self.news:
            self._count += 1
            lease_id = f"lease-{self._count}"
        now = datetime.now(UTC) + self.clock_ahead
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else self.ttl
        if request.succeeds in self._leases:
            del self._leases[request.succeeds]
            self._tokens[lease_id] = self._tokens.get(request.succeeds, "")
        else:
            self._tokens[lease_id] = f"token-of-{lease_id}"
        lease = pb.Lease(id=lease_id, provider="anthropic", mode="api_key", delivery=self.delivery, base_url=self.base_url)
        lease.issued_at.FromDatetime(now)
        lease.expires_at.FromDatetime(now + min(ttl, self.max_ttl))
        lease.max_expires_at.FromDatetime(now + self.max_ttl)
        self._leases[lease_id] = lease
        return self._material(lease)

    def _renewed(self, lease_id: str) -> pb.Lease:
        lease = self._leases[lease_id]
        now = datetime.now(UTC) + self.clock_ahead
        lease.expires_at.FromDatetime(min(now + self.ttl, lease.max_expires_at.ToDatetime(tzinfo=UTC)))
        return self._material(lease)

    def _material(self, lease: pb.Lease) -> pb.Lease:
        secret = self.secret if self.delivery == "raw" else self._tokens.get(lease.id, "")
        name, _, value = self.header_form.partition(": ")
        lease.profile, lease.version, lease.secret = self.profile, self.version, secret
        lease.renewable = lease.expires_at.ToDatetime() < lease.max_expires_at.ToDatetime()
        lease.headers.clear()
        lease.env.clear()
        if secret:
            lease.headers.update({name: value.format(secret), **self.more_headers})
            lease.env.update({"ANTHROPIC_API_KEY": secret})
        copy = pb.Lease()
        copy.CopyFrom(lease)
        return copy
