"""The TypeScript client's connections: whose socket it trusts, TLS and tokens, and brokers behind a proxy."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from equabot_client import errors
from equabot_client._ownership import Ownership
from tests.fakes.broker_servicer import FakeBroker, Refusal
from tests.fakes.secured_broker import SecuredBroker
from tests.fakes.upstream import Upstream
from tests.kubernetes.certificates import Authority
from tests.languages import typescript
from tests.tiers import nodes

STRANGER = 4242


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The client is built once for all tests here."""
    typescript.build()


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as started:
        yield started


def listening(path: Path, *, uid: int = -1, mode: int = 0o660) -> Path:
    """A socket of a user."""
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(str(path))
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def directory(path: Path, mode: int, *, uid: int = -1) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def sockets(place: Path) -> Iterator[Path]:
    """Sockets of every kind of owner, in directories of every kind."""
    for mode in (0o700, 0o750, 0o755, 0o775, 0o777, 0o1777):
        yield listening(directory(place / f"own-{mode:o}", mode) / "b")
    above = directory(place / "above", 0o777)
    yield listening(directory(above / "dir", 0o700) / "b")
    yield listening(directory(place / "broker", 0o755, uid=STRANGER) / "b", uid=STRANGER)
    yield listening(directory(place / "broker-open", 0o755, uid=STRANGER) / "b", uid=STRANGER, mode=0o666)
    sticky = directory(place / "sticky", 0o1777)
    yield listening(sticky / "strangers", uid=STRANGER)
    yield listening(directory(sticky / "dir", 0o755, uid=STRANGER) / "b", uid=STRANGER)
    own = listening(directory(place / "linked", 0o755) / "b")
    (sticky / "link").symlink_to(own)
    yield sticky / "link"
    (sticky / "strangers-link").symlink_to(own)
    os.chown(sticky / "strangers-link", STRANGER, STRANGER, follow_symlinks=False)
    yield sticky / "strangers-link"
    yield place / "missing"


def reason(path: Path, named: int | None) -> str:
    try:
        Ownership(path, named=named).check()
    except errors.EquabotError as error:
        return error.reason
    return ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files of another user")
@pytest.mark.parametrize("named", [None, STRANGER])
def test_it_trusts_the_sockets_that_the_python_client_trusts(place: Path, named: int | None) -> None:
    """The two judge each socket alike, and some of each judgement are among them."""
    paths = list(sockets(place))
    judged = typescript.evaluate(
        f"""const {{ Ownership }} = require("./dist/ownership.js");
        const named = {json.dumps(named)} ?? undefined;
        const judge = (path) => {{
            try {{ new Ownership(path, named).check(); return "" }} catch (error) {{ return error.reason }}
        }};
        return {json.dumps([str(path) for path in paths])}.map(judge);"""
    )
    expected = {path.relative_to(place): reason(path, named) for path in paths}
    assert dict(zip(expected, judged, strict=True)) == expected
    assert {"BROKER_NOT_TRUSTED", "BROKER_UNAVAILABLE", ""} == set(judged)


def test_over_tcp_every_call_shows_the_token_of_now(tmp_path: Path) -> None:
    """TLS with the named authority; a token file is read again for each call."""
    authority, token = Authority("authority"), tmp_path / "token"
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    token.write_text("first.token.canary\n")
    with SecuredBroker(authority) as secured:
        environ = {
            "EQUABOT_BROKER_ADDRESS": secured.address,
            "EQUABOT_BROKER_CA_FILE": str(tmp_path / "ca.crt"),
            "EQUABOT_BROKER_TOKEN_FILE": str(token),
        }
        same = typescript.evaluate(
            f"""const broker = client.connect();
            const first = await broker.acquire("anthropic");
            require("node:fs").writeFileSync({json.dumps(str(token))}, "second.token.canary");
            await broker.acquire("anthropic");
            await broker.close();
            return first.secret.reveal() === {json.dumps(secured.secret)};""",
            environ,
        )
        assert same
        assert secured.shown == ["Bearer first.token.canary", "Bearer second.token.canary"]
        (tmp_path / "ca.crt").write_bytes(Authority("another").pem)
        told = typescript.evaluate(
            'return client.connect({ timeoutMs: 5000 }).acquire("anthropic").catch((error) => [error.reason, error.message])',
            environ,
        )
    assert told[0] == "BROKER_UNAVAILABLE"
    assert "its certificate is not trusted" in told[1]


def test_where_streams_do_not_pass_the_lease_is_renewed_without(fake: FakeBroker) -> None:
    """A proxy that refuses the stream costs the client nothing but the push."""
    fake.refusals["StreamLease"] = Refusal(grpc.StatusCode.UNIMPLEMENTED, message="no streams here")
    secret = typescript.evaluate(
        f"""const broker = client.connect({json.dumps(fake.address)});
        const secret = (await broker.credential("anthropic").secret()).reveal();
        await broker.close();
        return secret;"""
    )
    assert secret == fake.secret
    fake.wait_until(lambda: "RevokeLease" in fake.calls)


def test_a_refusal_has_candidates_and_wait(fake: FakeBroker) -> None:
    """Also one with a reason that this client does not know."""
    candidates = {"anthropic:env": "in cooldown", "anthropic:work": "expired"}
    for name in ("NO_USABLE_PROFILE", "OF_A_NEWER_BROKER"):
        code = grpc.StatusCode.FAILED_PRECONDITION
        fake.refusals["AcquireLease"] = Refusal(code, name, "none can serve", candidates, retry_after=1.5)
        told = typescript.evaluate(
            f"""return client.connect({json.dumps(fake.address)}).acquire("anthropic").catch((error) =>
                [error.reason, error.message, error.retryable, error.retryAfterMs, error.metadata])"""
        )
        assert told == [name, "none can serve", True, 1500, candidates]


@pytest.mark.parametrize("body", ['"{}"', 'new Blob(["{}"]).stream()'])
def test_a_refused_request_is_repeated_once_with_another_credential(fake: FakeBroker, body: str) -> None:
    """The caller sees the second answer. A body that is a stream has gone with the first request."""
    first, fake.change_on_report = fake.secret, "sk-spare-canary"
    with Upstream() as upstream:
        fake.base_url, upstream.accepted = upstream.url, {"sk-spare-canary"}
        statuses = typescript.evaluate(
            f"""const broker = client.connect({json.dumps(fake.address)});
            const credential = broker.credential("anthropic");
            const ask = async (body) => {{
                const request = {{ method: "POST", body, duplex: "half", headers: {{ "x-api-key": "mine" }} }};
                return (await credential.fetch(await credential.baseUrl() + "/v1/messages", request)).status;
            }};
            const statuses = [await ask({body}), await ask("{{}}")];
            await broker.close();
            return statuses;"""
        )
        keys = [request.secret() for request in upstream.received]
    if "stream" in body:
        assert (statuses, keys) == ([401, 200], [first, "sk-spare-canary"])
    else:
        assert (statuses, keys) == ([200, 200], [first, "sk-spare-canary", "sk-spare-canary"])
    assert fake.calls.count("ReportOutcome") == 1


def test_a_token_that_does_not_go_on_is_reported(fake: FakeBroker) -> None:
    """A process that was given the token at its start learns that it is over, once."""
    fake.delivery = "brokered"
    told = typescript.evaluate(
        f"""const broker = client.connect({json.dumps(fake.address)});
        const {{ Ending }} = require("./dist/ending.js");
        const told = [], ending = new Ending((reason) => told.push(reason));
        const one = await broker.acquire("anthropic"), other = await broker.acquire("anthropic");
        await broker.close();
        ending.held(one, undefined);
        ending.held(one, one);
        ending.read(undefined);
        ending.held(other, one);
        ending.failed(new client.EquabotError("AGENT_SUSPENDED", "no"), other);
        ending.ended("revoked");
        return [told, one.secret.equals(other.secret)];"""
    )
    assert told == [["BROKER_UNAVAILABLE", "AGENT_SUSPENDED"], False]


@pytest.mark.parametrize("method", ["AcquireLease", "StreamLease"])
def test_a_broker_that_never_answers_is_given_up(fake: FakeBroker, method: str) -> None:
    """Every call and every first event has its deadline."""
    fake.silent.update({method, "AcquireLease"})
    call = "acquire" if method == "AcquireLease" else "credential"
    told = typescript.evaluate(
        f"""const broker = client.connect({{ address: {json.dumps(fake.address)}, timeoutMs: 300 }});
        const asked = "{call}" === "acquire" ? broker.acquire("anthropic") : broker.credential("anthropic").headers();
        return asked.catch((error) => error.reason);"""
    )
    assert told == "DEADLINE_EXCEEDED"


def test_a_token_goes_on_after_a_restart_of_the_broker(fake: FakeBroker) -> None:
    """The broker has digests only: the client keeps the token that it was given first, and asks for it to go on."""
    fake.delivery, fake.base_url = "brokered", "http://127.0.0.1:8787/anthropic"
    told = typescript.evaluate(
        f"""const broker = client.connect({json.dumps(fake.address)});
        const lease = await broker.acquire("anthropic", {{ delivery: "brokered" }});
        const renewed = await broker.renew(lease);
        const same = renewed.headers["x-api-key"] === lease.headers["x-api-key"];
        return [lease.delivery, renewed.secret.equals(lease.secret), same];"""
    )
    assert told == ["brokered", True, True]


def test_the_package_has_what_a_user_installs(tmp_path: Path) -> None:
    """`npm pack` makes a package that loads by `import` and `require`, with its types, license and page."""
    npm = shutil.which("npm")
    assert npm is not None
    pack = [npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", str(tmp_path)]
    subprocess.run(pack, cwd=typescript.CLIENT, check=True, capture_output=True, timeout=120)
    (packed,) = tmp_path.glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    names = {str(path.relative_to(tmp_path / "package")) for path in (tmp_path / "package").rglob("*") if path.is_file()}
    assert {"LICENSE", "README.md", "package.json", "dist/index.mjs", "dist/index.d.mts", "dist/index.d.ts"} <= names
    assert not [name for name in names if name.startswith(("src/", "test/", "node_modules/"))]
    modules = tmp_path / "node_modules"
    (modules / "@equabot").mkdir(parents=True)
    (tmp_path / "package").rename(modules / "@equabot" / "client")
    for name in ("@grpc", "@bufbuild", "@js-sdsl"):
        (modules / name).symlink_to(typescript.CLIENT / "node_modules" / name)
    program = 'import("@equabot/client").then((one) => console.log(one.connect === require("@equabot/client").connect))'
    for version in typescript.VERSIONS:
        node = nodes() / f"node-{version}"
        ran = subprocess.run([node, "-e", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (ran.stdout, ran.stderr) == ("true\n", "")
