"""No secret comes out where it is not handed out on purpose: unique canaries go in on every way there is, well formed and
malformed, and then everything that the broker says, writes and leaves behind is searched for pieces of them."""

import base64
import os
import pty
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_client import EventKind, errors
from tests.journeys.canaries import KEY, MALFORMED, Canaries, World
from tests.journeys.running import EQUABOT, RunningBroker
from tests.journeys.showing import ADMIN, BROKER, HEALTH, ask, channel_to, on_the_dashboard

BAD_CONFIGS: Final = {
    "a key at the top": "anthropic_key: {key}",
    "a key for a key": "{key}: x",
    "no YAML": "providers: [{opaque}",
    "a key alone": "{key}",
    "a provider's key": "providers: {{anthropic: {{api_key: {key}}}}}",
    "a profile's key": "profiles: {{anthropic:prod: {{key: {key}}}}}",
    "a profile named so": "profiles: {{'{key}': {{}}, 'anthropic:{opaque}!': {{}}}}",
    "a key as its own source": "profiles: {{anthropic:prod: {{from: {{env: {key}}}}}}}",
    "a key as a source": "profiles: {{anthropic:prod: {{from: {key}}}}}\nsources: [{opaque}]",
    "a required key": "required: [{key}, {opaque}]",
    "a duration": "leases: {{default_ttl: {opaque}, max_ttl: {key}}}",
    "an instant": "profiles: {{anthropic:prod: {{expires_at: {opaque}}}}}",
    "an address": "listen: {{health: '{key}', metrics: '{opaque}:http'}}",
    "a URL": "providers: {{anthropic: {{base_url: 'https://user:{opaque}@example.com', token_url: '{key}'}}}}",
    "an order": "auth: {{order: {{anthropic: [{key}], '{opaque}': [x]}}}}",
    "an agent": "agents: {{'{opaque}': {{providers: [{key}], deliveries: [{opaque}], rate: {key}}}}}",
    "a model": "models: {{default: {key}, aliases: {{x: {opaque}}}}}",
    "a tag": "run_dir: !{opaque} x",
    "twice": "run_dir: x\nrun_dir: {key}",
    "a list for a text": "run_dir: [{key}]",
    "a workload": "profiles: {{anthropic:x: {{wif: {{token_file: /t, organization_id: {key}, workspace_id: 'a {opaque}'}}}}}}",
    "a selector": "sources: [{{kubernetes: {{selector: '{key}', namespace: {opaque}, names: ['{key}']}}}}]",
    "a kubeconfig": "sources: [{{kubernetes: {{kubeconfig: [{opaque}], {key}: x}}}}]",
    "a Secret's key": "profiles: {{anthropic:x: {{from: {{kubernetes: {{secret: '{key}', key: [{opaque}]}}}}}}}}",
    "a listener": "listen: {{agents: {{certificate: '{key}', key: '{opaque}', service_accounts: {{address: '{key}'}}}}}}",
    "a way to check": "listen: {{agents: {{certificate: a, key: b, service_accounts: {{address: ':1', validate: {key}}}}}}}",
    "an account": "agents: {{main: {{service_accounts: ['{key}'], certificates: [{opaque}, [{key}]]}}}}",
    "a program": "sources: [{{exec: {{command: [{key}, {opaque}], ids: {{'{key}': '{opaque}!', 'openai:x': {key}}}}}}}]",
    "a program's name": "sources: [{{exec: {{name: {key}, timeout: {key}, {opaque}: x}}}}]",
    "a program's variables": "sources: [{{exec: {{pass_env: ['{opaque}!', {key}], output: {opaque}}}}}]",
    "a gateway": "gateway: {{mode: {key}, scrub: {opaque}, url: 'https://x:{opaque}@example.com', envoy: [{key}]}}",
    "a request": "agents: {{main: {{requests: ['{key} {opaque}']}}}}",
    "an audit log": "audit: {{path: [{key}], fail_closed: {opaque}}}",
    "a variable": "env: {{'{key}': x, vars: {{'a b': {opaque}}}}}",
}
COMMANDS: Final = [
    ["{}"],
    ["key", "{}"],
    ["key", "anthropic:{}"],
    ["key", "anthropic", "{}"],
    ["lease", "acquire", "{}"],
    ["lease", "acquire", "anthropic", "--ttl", "{}"],
    ["lease", "acquire", "anthropic", "--session", "{}"],
    ["lease", "acquire", "anthropic", "--delivery", "{}"],
    ["lease", "acquire", "anthropic", "--key={}"],
    ["lease", "renew", "{}"],
    ["lease", "watch", "{}"],
    ["lease", "list", "--agent", "{}"],
    ["health", "{}"],
    ["health", "profile/anthropic:{}"],
    ["health", "--address", "{}"],
    ["models", "status", "--agent", "{}"],
    ["models", "status", "{}"],
    ["exec", "{}", "--", "true"],
    ["exec", "anthropic", "--", "{}"],
    ["exec", "anthropic", "--", "/bin/{}"],
    ["config", "check", "--config", "{}"],
    ["config", "check", "--run-dir", "/proc/{}/" + "x" * 107],
    ["audit", "verify", "{}"],
    ["audit", "verify", "--head", "{}", "/dev/null"],
    ["gateway", "config", "--config", "{}"],
    ["gateway", "{}"],
    ["serve", "--config", "{}"],
    ["serve", "--run-dir", "/proc/{}"],
    ["serve", "--{}"],
]
USUAL: Final = {"provider": "anthropic", "profile": "anthropic:env", "agent": "main", "lease_id": "none", "session": "s"}
UNKNOWABLE: Final = {"session", "model", "profiles", "reason"}
"""Fields that take any name, so that only what has the form of a key can be told from one."""
REASONS: Final = {
    "PROVIDER_UNKNOWN",
    "PROFILE_NOT_FOUND",
    "NO_USABLE_PROFILE",
    "POLICY_DENIED",
    "DELIVERY_NOT_ALLOWED",
    "LEASE_NOT_FOUND",
    "LEASE_LIMIT",
    "RATE_LIMITED",
    "SOURCE_NOT_SYNCED",
    "INVALID_ARGUMENT",
}
"""Those that a request alone can bring about."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.broker.close()


def test_the_search_finds_the_smallest_piece() -> None:
    """As it is, backwards, in base64 and in hexadecimal digits; in bytes as in text. Less is no leak: labels show four."""
    canaries = Canaries()
    secret = canaries.new("here", like=KEY)
    piece = secret[20:28]
    spelt = (f"…{piece}…", piece[::-1], b"\xff" + piece.encode(), secret.encode().hex(), base64.b64encode(secret.encode()))
    for shown in spelt:
        assert canaries.seen_in(shown) == {"here"}
    assert canaries.seen_in(f"{secret[:20]} {piece[:7]} {secret[-4:]}") == set()


def test_an_agent_that_may_hold_no_secret_is_shown_no_character_of_one(world: World) -> None:
    """S12: a label shows eight characters. An agent with brokered leases alone sees no label, on the wire or in a table."""
    address = f"unix:{world.broker.socket('blind')}"
    with channel_to(world.broker, "blind") as agent:
        reason, listed = ask(agent, f"{BROKER}/ListProfiles", broker_pb2.ListProfilesRequest(), broker_pb2.ListProfilesResponse)
    forms = (["models", "status"], ["models", "status", "--json"], ["models", "status", "--plain"])
    printed = world.run(*forms, EQUABOT_BROKER_ADDRESS=address)
    assert (reason, "anthropic:env" in listed, "anthropic:env" in printed) == ("", True, True)
    pieces = [piece for secret in world.live.values() for piece in (f"{secret[:4]}…", f"…{secret[-4:]}")]
    assert [piece for piece in pieces if piece in printed] == []
    assert "label:" not in listed


def test_what_came_in_is_handed_out_and_hides_itself(world: World) -> None:
    """Every canary of a usable profile can be leased, or this module would prove nothing; a lease does not print its own."""
    with world.broker.connect() as broker:
        for profile in world.live.keys() - {"anthropic:old"}:
            lease = broker.acquire(profile, session="one")
            secret = lease.secret.reveal()
            assert secret == world.live[profile]
            assert any(secret in value for value in lease.headers.values())
            assert any(secret in value for value in lease.env.values())
            assert not world.leaks(repr=repr(lease), str=f"{lease} {lease.secret} {lease.headers} {lease.env!r}")
        states = [profile.state for profile in broker.list_profiles()]
    assert {"ok", "expiring", "expired"} <= set(states)
    assert states.count("invalid") >= 2 * (len(MALFORMED) - 3)


@pytest.mark.parametrize(("agent", "file"), [("main", broker_pb2.DESCRIPTOR), ("admin", admin_pb2.DESCRIPTOR)])
def test_no_call_repeats_a_key_that_was_put_into_its_fields(world: World, agent: str, file: FileDescriptor) -> None:
    """Every text field of every method: with a vendor's key, with something opaque, and with what is no text."""
    key, opaque = world.canaries.new("a field", like=KEY), world.canaries.new("a field, opaque")
    said: dict[str, str] = {}
    (service,) = file.services_by_name.values()
    with channel_to(world.broker, agent) as channel:
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            for name in (one.name for one in method.input_type.fields if one.type == FieldDescriptor.TYPE_STRING):
                for hostile in (key, f"anthropic:{key}", *(() if name in UNKNOWABLE else (opaque, f"anthropic:{opaque}"))):
                    _, said[f"{path} {name} {hostile[:13]}"] = ask(channel, path, _asked(request, name, hostile), answer)
            _, said[f"{path} garbage"] = ask(channel, path, b"\n\xff\x01" + key.encode() + b"\xff", answer)
    assert len(said) > 40
    assert not world.leaks(**said)


def _asked(kind: type[Message], name: str, hostile: str) -> Message:
    """A request of usual values, but for one field."""
    values: dict[str, Any] = {}
    for one in kind.DESCRIPTOR.fields:
        if one.type == FieldDescriptor.TYPE_STRING:
            text = hostile if one.name == name else USUAL.get(one.name, "")
            values[one.name] = [text] if one.is_repeated else text
    return kind(**values)


def test_no_refusal_shows_anything_whatever_its_reason(world: World) -> None:
    """Every reason that a request can bring about; the candidates with their reasons included."""
    vendors = {variable.partition("_")[0].lower() for variable, _ in MALFORMED.values()} | {"google", "exa"}
    profiles = ("old", "env-team", "bad-team", "broken", "nobody")
    asked: list[tuple[str, dict[str, str]]] = [
        *(("main", {"provider": vendor}) for vendor in sorted(vendors)),
        *(("main", {"profile": f"anthropic:{name}"}) for name in profiles),
        ("main", {"provider": "anthropic", "delivery": "brokered"}),
        ("main", {}),
        ("single", {"provider": "anthropic"}),
        *((agent, {"provider": "openai"}) for agent in ("single", "single", "slow", "slow")),
    ]
    reasons: set[str] = set()
    said: dict[str, str] = {}
    for number, (agent, request) in enumerate(asked):
        with channel_to(world.broker, agent) as channel:
            for method, answer in (("AcquireLease", broker_pb2.Lease), ("StreamLease", broker_pb2.LeaseEvent)):
                message = broker_pb2.AcquireLeaseRequest(**request)  # type: ignore[arg-type]
                reason, text = ask(channel, f"{BROKER}/{method}", message, answer)
                reasons.add(reason)
                said[f"{number} {method} {agent} {request}"] = text
    with channel_to(world.broker, "main") as channel, channel_to(world.broker, "admin") as operator:
        renew = broker_pb2.RenewLeaseRequest(lease_id="none")
        clear = admin_pb2.ClearCooldownRequest(profile="anthropic:nobody")
        unknown, said["renew"] = ask(channel, f"{BROKER}/RenewLease", renew, broker_pb2.Lease)
        missing, said["clear"] = ask(operator, f"{ADMIN}/ClearCooldown", clear, admin_pb2.ClearCooldownResponse)
    assert {*reasons, unknown, missing} == {"", *REASONS}
    assert not world.leaks(**said)


def test_an_error_of_the_client_shows_nothing(world: World) -> None:
    """Message, metadata and candidates."""
    with world.broker.connect() as broker, pytest.raises(errors.NoUsableProfile) as raised:
        broker.acquire("moonshot")
    assert set(raised.value.candidates) == {"moonshot:env", "moonshot:bad"}
    assert not world.leaks(error=f"{raised.value!r} {raised.value.message} {dict(raised.value.metadata)}")


def test_health_shows_nothing(world: World) -> None:
    """Check, List and Watch, on a socket and on the port of the probes, whatever name is asked about."""
    key = world.canaries.new("a health name", like=KEY)
    names = (key, f"provider/{key}", f"profile/anthropic:{key}", "", "provider/cerebras", "profile/anthropic:old")
    said: dict[str, str] = {}
    with channel_to(world.broker, "main") as agent, grpc.insecure_channel(world.broker.health) as tcp:
        for where, channel in (("socket", agent), ("tcp", tcp)):
            _, said[f"list {where}"] = ask(channel, f"{HEALTH}/List", pb.HealthListRequest(), pb.HealthListResponse)
            for number, name in enumerate(names):
                request = pb.HealthCheckRequest(service=name)
                for method in ("Check", "Watch"):
                    _, text = ask(channel, f"{HEALTH}/{method}", request, pb.HealthCheckResponse)
                    said[f"{method} {where} {number}"] = text
    assert "profile/anthropic:env" in said["list tcp"]
    assert not world.leaks(**said)


def test_reflection_and_diagnosis_show_nothing(world: World) -> None:
    """What the operator's socket tells."""
    key = world.canaries.new("a file's name", like=KEY)
    kind = reflection_pb2.ServerReflectionRequest
    requests = [kind(list_services=""), kind(file_containing_symbol="equabot.broker.v1.Broker"), kind(file_by_filename=key)]
    with channel_to(world.broker, "admin") as channel:
        reflect = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=kind.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answers = list(reflect(iter(requests), timeout=60))
        _, diagnosis = ask(channel, f"{ADMIN}/Diagnose", admin_pb2.DiagnoseRequest(), admin_pb2.DiagnoseResponse)
        _, reloaded = ask(channel, f"{ADMIN}/Reload", admin_pb2.ReloadRequest(), admin_pb2.ReloadResponse)
    for answer in answers:
        answer.ClearField("original_request")  # which repeats what was asked: so has it the protocol
    reflection = "".join(map(str, answers))
    assert "equabot.broker.v1.Admin" in reflection
    assert "mounted/broken/.env line 1 is skipped" in diagnosis
    assert "the provider is required, and no agent can be granted a usable profile of it" in diagnosis
    assert not world.leaks(reflection=reflection, diagnosis=diagnosis, reloaded=reloaded)


def test_metrics_show_nothing(world: World) -> None:
    """Wherever they are asked for."""
    key = world.canaries.new("a path", like=KEY)
    told = world.broker.scrape() + world.broker.scrape("status.json")
    assert 'equabot_credential_state{profile="anthropic:env",provider="anthropic",state="ok"} 1.0' in told
    for path in (key, f"readyz?service=profile/{key}"):
        request = urllib.request.Request(f"http://{world.broker.metrics}/{path}", headers={"Authorization": f"Bearer {key}"})
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=60):
            pass
        with refused.value as answer:
            other = f"{answer.headers} {answer.read().decode()}"
        assert not world.leaks(metrics=told, elsewhere=other)


def test_commands_show_nothing_but_what_they_are_for(world: World) -> None:
    """`models status` in all its forms, beside a broker and without one; leases without `--json`; at a terminal, too."""
    status = [
        ["models", "status", *form] for form in ([], ["--json"], ["--plain"], ["--check"], ["--agent", "single"], ["-vv"])
    ]
    acquire, leases = ["lease", "acquire", "anthropic"], ["lease", "list"]
    as_json = (["doctor", "--json"], ["health", "--json"], ["config", "check", "--json"])
    beside = world.run(*status, acquire, leases, [*leases, "--json"], ["config", "check"], ["health"], *as_json)
    alone = world.run(*status, EQUABOT_RUN_DIR="/nowhere/at/all", **world.broker.credentials)
    terminal = "".join(_at_a_terminal(world.broker, *words) for words in (status[0], acquire, leases))
    for shown in (beside, alone):
        assert "anthropic:env" in shown
        assert "agents/single/agent/auth-profiles.json cannot be used: it breaks off in the middle" in shown
    assert "not running" in alone
    assert "\x1b[" in terminal
    assert not world.leaks(beside=beside, alone=alone, terminal=terminal)


def _at_a_terminal(broker: RunningBroker, *words: str) -> str:
    ours, theirs = pty.openpty()
    environ = broker.environ | {"TERM": "xterm"}
    with subprocess.Popen([*EQUABOT, *words], env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # so says a terminal whose other end is closed
            while piece := os.read(ours, 65536):
                shown += piece
        assert running.wait(60) == 0
    os.close(ours)
    return shown.decode()


def test_arguments_that_are_keys_are_not_repeated(world: World) -> None:
    """A key in the wrong place is still a key; also in the variables that lead to a broker."""
    key = world.canaries.new("an argument", like=KEY)
    said = world.run(*([word.format(key) for word in words] for words in COMMANDS))
    codes = [line for line in said.splitlines() if line.startswith("exit")]
    assert len(codes) == 2 * len(COMMANDS)
    assert "exit 0" not in codes
    variables = ("EQUABOT_BROKER_ADDRESS", "EQUABOT_CONFIG", "EQUABOT_LISTEN_HEALTH")
    led = {name: world.run(["key", "anthropic"], ["serve"], ["health"], **{name: key}) for name in variables}
    assert not world.leaks(arguments=said, **led)


def test_a_key_in_the_configuration_is_refused_and_not_shown(world: World) -> None:
    """Under a name that is none, in a place for something else, in text that is no YAML."""
    paths = []
    for number, (way, text) in enumerate(BAD_CONFIGS.items()):
        key, opaque = world.canaries.new(way, like=KEY), world.canaries.new(f"{way}, opaque")
        paths.append(world.broker.home / f"bad-{number}.yaml")
        paths[-1].write_text(text.format(key=key, opaque=opaque))
    said = world.run(*(["config", "check", "--config", str(path)] for path in paths))
    assert said.count("exit 64") == 2 * len(BAD_CONFIGS)
    assert not world.leaks(said=said)


def test_no_process_has_a_secret_in_its_arguments(world: World) -> None:
    """Neither the broker, nor `exec`, nor what it runs, whose environment alone holds the lease."""
    wait = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    with world.broker.spawn("exec", "anthropic:env", "--", sys.executable, "-c", wait) as running:
        assert running.stdout is not None
        child = int(running.stdout.readline())
        environ = Path(f"/proc/{child}/environ").read_bytes()
        parent = _read(Path(f"/proc/{running.pid}/environ"))
        tasks = Path(f"/proc/{world.broker.pid}/task").glob("*/comm")
        shown = {str(path): _read(path) for path in (*Path("/proc").glob("[0-9]*/cmdline"), *tasks)}
        running.send_signal(signal.SIGTERM)
    assert world.live["anthropic:env"].encode() in environ
    assert f"/proc/{child}/cmdline" in shown
    assert not world.leaks(parent=parent, **shown)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or hides it from its own user
        return b""


def test_a_source_that_breaks_while_it_is_followed_shows_nothing(world: World) -> None:
    """A line that assigns nothing, then binary garbage; the stream that is open is served on, and follows when it is mended."""
    new = world.canaries.new("a new value", like="gsk_{}")
    text = world.broker.dotenv.read_text()
    with world.broker.connect() as broker:
        events = broker.stream("groq:dotenv")
        assert next(events).kind is EventKind.GRANTED
        world.broker.write_dotenv(f"{text}\nGROQ_API_KEY {new}\n")
        world.broker.wait_output("models", "status", until=lambda shown: f"{world.broker.dotenv} line 6 is skipped" in shown)
        world.broker.write_dotenv("\0" * len(text) + text + new)
        world.broker.wait_output("models", "status", until=lambda shown: f"{world.broker.dotenv} is binary" in shown)
        world.broker.write_dotenv(f"{text}\nGROQ_API_KEY={new}\n")
        rotated = next(events)
        assert rotated.lease is not None
        assert rotated.lease.secret.reveal() == new
        assert not world.leaks(event=repr(rotated))


def test_the_dashboard_shows_nothing(world: World) -> None:
    """Not the page, not a refusal, not the stream of a session, not the arguments of its process."""
    shown = on_the_dashboard(world.broker)
    assert "anthropic:env" in str(shown["events of the dashboard"])
    assert not world.leaks(**shown)


def test_what_is_stored_holds_nothing(world: World) -> None:
    """`state.db` with its log, and whatever else the broker has written anywhere in its home."""
    given = {world.broker.home / name for name in ("mounted", ".env", "equabot.yaml", "unread", ".claude", "agents")}
    files = [path for path in world.broker.home.rglob("*") if path.is_file() and not path.name.startswith("bad-")]
    written = {path.name: path.read_bytes() for path in files if not given & {path, *path.parents}}
    assert written.keys() >= {"state.db", "state.db-wal", "broker.lock", "log"}
    assert b"groq:dotenv" in written["state.db"] + written["state.db-wal"]
    assert not world.leaks(**written)


def test_a_crash_leaves_nothing_behind(world: World) -> None:
    """SIGABRT, with the fault handler on: it tells where, and never with what; and no core file is written."""
    limits = Path(f"/proc/{world.broker.pid}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size")] == ["0"]
    assert world.broker.end(signal.SIGABRT) == -signal.SIGABRT
    log = world.broker.log()
    assert "Fatal Python error: Aborted" in log
    assert '"level":"debug"' in log
    assert not world.leaks(log=log, state=(world.broker.run_dir / "state.db-wal").read_bytes())
