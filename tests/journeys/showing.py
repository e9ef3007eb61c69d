"""Everything that a running broker shows, by where: for searches after what it must not show."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
import psutil
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_client._status import TRAILER, error_info
from tests.journeys.running import RunningBroker

HEALTH: Final = "/grpc.health.v1.Health"
BROKER: Final = "/equabot.broker.v1.Broker"
ADMIN: Final = "/equabot.broker.v1.Admin"
TALKATIVE: Final = {
    "PYTHONFAULTHANDLER": "1",
    "PYTHONASYNCIODEBUG": "1",
    "GRPC_VERBOSITY": "debug",
    "GRPC_TRACE": "api,http,channel",
    "EQUABOT_DEBUG": "1",
}
"""What makes a process say as much as it can, beside `-vv`."""

_COMMANDS: Final = (
    ["models", "status"],
    ["models", "status", "--json"],
    ["models", "status", "--plain"],
    ["models", "status", "--check"],
    ["doctor"],
    ["lease", "list"],
    ["lease", "list", "--json"],
    ["config", "check"],
    ["gateway", "config"],
    ["health"],
)
# Many commands, one interpreter to start.
_SEVERAL: Final = """\
import json, os, sys
from equabot_cli.main import main
for environ, *words in json.load(sys.stdin):
    os.environ.update(environ)
    code = main(words)
    print("exit", code, flush=True)
    print("exit", code, file=sys.stderr, flush=True)
    for name in environ:
        del os.environ[name]
"""


def said(broker: RunningBroker, *commands: list[str], **environ: str) -> str:
    """What commands of `equabot` print beside the broker, wherever they print it, and `exit <code>` twice after each."""
    done = subprocess.run(
        [sys.executable, "-c", _SEVERAL],
        env=broker.environ | {"TERM": "dumb"},
        input=json.dumps([[environ, *words] for words in commands]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def channel_to(broker: RunningBroker, agent: str = "main") -> grpc.Channel:
    """A channel to the agent's socket, or the operator's."""
    return grpc.insecure_channel(f"unix:{broker.socket(agent)}")


def ask(
    channel: grpc.Channel, method: str, request: Message | bytes, answer: type[Message], *metadata: tuple[str, str]
) -> tuple[str, str]:
    """The reason, and all that a call comes to but what a lease is there to hand out. Of a stream, what comes first."""
    kind: Any = channel.unary_stream if method.endswith(("/StreamLease", "/Watch")) else channel.unary_unary
    serialize = bytes if isinstance(request, bytes) else type(request).SerializeToString
    call = kind(method, request_serializer=serialize, response_deserializer=answer.FromString)
    try:
        found = call(request, timeout=60, metadata=metadata)
        message: Any = found if isinstance(found, Message) else next(found)
    except grpc.RpcError as refused:
        trailers: Any = refused.trailing_metadata()
        reason, about, _ = error_info(dict(trailers or ()).get(TRAILER, b""), domain="equabot.dev")
        return reason, f"{refused} {about} {trailers}"
    if found is not message:
        found.cancel()
    lease = getattr(message, "lease", message)
    for name in {"secret", "headers", "env"}.intersection(lease.DESCRIPTOR.fields_by_name):
        lease.ClearField(name)
    return "", str(message)


def shown_by(broker: RunningBroker, *given: str) -> dict[str, str | bytes]:
    """All of it: what its `commands` print, what it answers, what it leaves but for what was given to it (`left_by`), and what
    is seen of its processes from outside."""
    shown: dict[str, str | bytes] = {"commands": said(broker, *_COMMANDS, EQUABOT_DEBUG="1")}
    processes = [psutil.Process(broker.pid), *psutil.Process(broker.pid).children(recursive=True)]
    shown |= {f"arguments of {process.pid}": "\0".join(process.cmdline()) for process in processes}
    shown |= {f"environment of {process.pid}": str(process.environ()) for process in processes[1:]}
    return shown | answered_by(broker) | on_the_dashboard(broker) | left_by(broker, *given)


def answered_by(broker: RunningBroker) -> dict[str, str | bytes]:
    """What it answers to agent, operator and probes who ask for nothing secret, and its metrics."""
    shown: dict[str, str | bytes] = {path: broker.scrape(path) for path in ("metrics", "healthz", "status.json")}
    with channel_to(broker) as agent, channel_to(broker, "admin") as operator, grpc.insecure_channel(broker.health) as probe:
        for channel, method, request, answer in (
            (probe, f"{HEALTH}/List", health_pb2.HealthListRequest(), health_pb2.HealthListResponse),
            (agent, f"{BROKER}/ListProfiles", broker_pb2.ListProfilesRequest(), broker_pb2.ListProfilesResponse),
            (operator, f"{ADMIN}/ListAllProfiles", admin_pb2.ListAllProfilesRequest(), admin_pb2.ListAllProfilesResponse),
            (operator, f"{ADMIN}/Diagnose", admin_pb2.DiagnoseRequest(), admin_pb2.DiagnoseResponse),
        ):
            reason, shown[method] = ask(channel, method, request, answer)
            assert reason == "", shown[method]
    return shown


def on_the_dashboard(broker: RunningBroker) -> dict[str, str | bytes]:
    """What `equabot dashboard` answers, prints and has as arguments."""
    with broker.spawn("dashboard", "--no-browser", **TALKATIVE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        logged: list[str] = []
        reader = Thread(target=logged.extend, args=(process.stderr,))
        reader.start()  # gRPC's trace fills the pipe, and then the process waits
        printed = process.stdout.readline()
        link = urlsplit(printed.split()[-1])
        shown: dict[str, str | bytes] = {"arguments of the dashboard": "\0".join(psutil.Process(process.pid).cmdline())}
        for path in ("/", "/icon.svg", "/nothing", "/events"):
            shown[f"dashboard: {path}"] = _answer(link.netloc, path)[1]
        cookie, body = _answer(link.netloc, "/session", {"Equabot-Token": link.fragment})
        headers = {"Cookie": cookie.partition(";")[0], "Equabot-Page-Key": json.loads(body)["key"]}
        events = HTTPConnection(link.netloc, timeout=60)
        events.request("GET", "/events", headers=headers)
        answer = events.getresponse()
        sections = {f"event: {name}".encode() for name in ("status", "broker", "traffic", "audit", "changes")}
        streamed: list[bytes] = []
        while not sections <= {line.strip() for line in streamed} or streamed[-1].strip():
            streamed.append(answer.readline())
            assert streamed[-1], "the stream has ended"
        events.close()
        process.terminate()
        process.wait(60)
        reader.join(60)
        printed += process.stdout.read() + "".join(logged)
        assert process.returncode == 0, printed
    return shown | {"events of the dashboard": b"".join(streamed), "output of the dashboard": printed}


def _answer(address: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[str, bytes]:
    connection = HTTPConnection(address, timeout=60)
    connection.request("GET", path, headers=dict(headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.getheader("Set-Cookie", ""), body


def left_by(broker: RunningBroker, *given: str) -> dict[str, str | bytes]:
    """What it has written: its log, its standard output, every file in its home but those given to it, and its `.env`."""
    return {str(path.relative_to(broker.home)): path.read_bytes() for path in _files(broker.home, {".env", *given})}


def _files(home: Path, given: set[str]) -> Iterator[Path]:
    yield from (path for path in home.rglob("*") if path.is_file() and given.isdisjoint(path.relative_to(home).parts))
