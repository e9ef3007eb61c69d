"""Resident memory: idle, with leases, with streams."""

import time

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks._broker import Broker, broker
from benchmarks._row import Row
from equabot.broker.v1 import broker_pb2, broker_pb2_grpc

LEASES = 10_000
STREAMS = 1_000
CONNECTIONS = 200
"""Below the limit of connections of one agent's processes."""


def rows() -> list[Row]:
    """Each in a broker of its own, so that one's leftovers are not the other's cost."""
    with broker() as ours:
        time.sleep(2)
        idle = ours.resident()
    with broker() as ours:
        before = _warm(ours)
        with grpc.insecure_channel(f"unix:{ours.socket}") as channel:
            stub = broker_pb2_grpc.BrokerStub(channel)
            request = broker_pb2.AcquireLeaseRequest(provider="anthropic", ttl=Duration(seconds=3600))
            for _ in range(LEASES):
                stub.AcquireLease(request, timeout=5)
            leases = (ours.resident() - before) / LEASES
    return [
        Row("resident, idle", idle / 2**20, "MiB", 64),
        Row("resident a lease", leases / 2**10, "KiB", 1),
        Row("resident a stream, one connection", _streams(STREAMS, connections=1) / 2**10, "KiB", 45),
        Row("resident a stream, a connection each", _streams(CONNECTIONS, connections=CONNECTIONS) / 2**10, "KiB"),
    ]


def _streams(streams: int, *, connections: int) -> float:
    with broker() as ours:
        before = _warm(ours)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(f"unix:{ours.socket}", options=options) for _ in range(connections)]
        request = broker_pb2.AcquireLeaseRequest(provider="anthropic")
        calls = [broker_pb2_grpc.BrokerStub(channels[i % connections]).StreamLease(request) for i in range(streams)]
        for call in calls:
            next(iter(call))
        cost = (ours.resident() - before) / streams
        for call in calls:
            call.cancel()
        for channel in channels:
            channel.close()
    return cost


def _warm(ours: Broker) -> int:
    """Resident memory after the first requests have paid for what everybody shares."""
    with grpc.insecure_channel(f"unix:{ours.socket}") as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        for _ in range(200):
            lease = stub.AcquireLease(broker_pb2.AcquireLeaseRequest(provider="anthropic"), timeout=5)
            stub.RevokeLease(broker_pb2.RevokeLeaseRequest(lease_id=lease.id), timeout=5)
    time.sleep(1)
    return ours.resident()
