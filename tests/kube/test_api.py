"""Requests to a scripted API server over real sockets: what is sent, and in which words everything fails."""

import asyncio
import re
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from equabot_broker.kube.api import KubeApi, KubeFault
from tests.fakes.api_server import ApiServer, Stream, answer, api_server, drop, event, hang, refusal, secret
from tests.kubernetes.certificates import Authority

SECRETS = "/api/v1/namespaces/apps/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/apps/leases"
CANARY = "sk-ant-api03-CANARYcanary0123456789"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with api_server(tmp_path) as made:
        yield made


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[KubeApi]:
    made = KubeApi(kubeconfig=server.kubeconfig)
    yield made
    await made.close()


async def fault(api: KubeApi, path: str = SECRETS, **options: float) -> KubeFault:
    with pytest.raises(KubeFault) as raised:
        await api.get(path, **options)  # type: ignore[arg-type]
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return raised.value


async def test_every_verb_is_one_request(server: ApiServer, api: KubeApi) -> None:
    """Raw JSON there and back; fields that no model knows are kept."""
    server.otherwise = {
        verb: answer({"metadata": {}, "verb": verb}) for verb in ("get", "list", "create", "update", "patch", "delete")
    }
    body = {"metadata": {"name": "x", "unknown": [1]}}
    assert (await api.get(f"{SECRETS}/x"))["verb"] == "get"
    assert (await api.get(SECRETS, params={"labelSelector": "a/b=c,d!=e f", "continue": "a+b/="}))["verb"] == "list"
    assert (await api.create(LEASES, body))["verb"] == "create"
    assert (await api.replace(f"{LEASES}/x", body))["verb"] == "update"
    assert (await api.patch(f"{LEASES}/x", body))["verb"] == "patch"
    await api.delete(f"{LEASES}/x")
    assert server.verbs() == ["get", "list", "create", "update", "patch", "delete"]
    assert server.asked[1].params == {"labelSelector": "a/b=c,d!=e f", "continue": "a+b/="}
    assert [asked.body for asked in server.asked[2:5]] == [body] * 3
    assert server.asked[4].headers["Content-Type"] == "application/merge-patch+json"
    assert api.namespace == "apps"
    assert api.server == server.url


@pytest.mark.parametrize(
    ("status", "reason", "path", "message"),
    [
        (
            403,
            "Forbidden",
            SECRETS,
            "may not list secrets in namespace apps: grant its account the verb list on secrets with a Role",
        ),
        (403, "Forbidden", f"{SECRETS}/x", "the verb get on secrets, resourceNames x with a Role in namespace apps"),
        (403, "Forbidden", "/api/v1/nodes", "may not list nodes: grant its account the verb list on nodes with a ClusterRole"),
        (401, "Unauthorized", SECRETS, "does not accept the credentials of this process: the token has expired or was revoked"),
        (404, "NotFound", f"{SECRETS}/x", "cannot get secrets x in namespace apps: the object does not exist; create it"),
        (404, "NotFound", SECRETS, "cannot list secrets in namespace apps: the API has no such resource"),
        (409, "AlreadyExists", SECRETS, "another client changed the object, or the object exists already"),
        (410, "Expired", SECRETS, "the broker reads again"),
        (429, "TooManyRequests", SECRETS, "too busy"),
        (500, "InternalError", SECRETS, "failed to list secrets in namespace apps (500 InternalError)"),
        (503, "ServiceUnavailable", SECRETS, "(503 ServiceUnavailable)"),
        (400, "BadRequest", SECRETS, "refused to list secrets in namespace apps (400 BadRequest): check the selector"),
        (422, "Invalid", SECRETS, "(422 Invalid): check the selector, or the object"),
    ],
)
async def test_a_refusal_says_what_to_do(
    server: ApiServer, api: KubeApi, *, status: int, reason: str, path: str, message: str
) -> None:
    """In our words: the API's message may quote what it was sent."""
    server.otherwise = dict.fromkeys(("get", "list"), refusal(status, reason, message=CANARY))
    raised = await fault(api, path)
    assert (raised.status, raised.reason) == (status, reason)
    assert message in str(raised)
    assert CANARY not in repr(raised)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"<html>" + CANARY.encode(), 503, "ServiceUnavailable"),
        (b"[" * 100_000, 500, "InternalError"),
        ({"kind": "Status", "reason": CANARY}, 418, "InternalError"),
        ({"kind": "Status", "reason": ["Forbidden"]}, 403, "Forbidden"),
        (b"", 502, "InternalError"),
        (b"not json " + CANARY.encode(), 200, "Malformed"),
        (b"[]", 200, "Malformed"),
        (b"x" * (17 * 2**20), 200, "TooLarge"),
    ],
)
async def test_response_of_a_proxy_is_not_repeated(
    server: ApiServer, api: KubeApi, body: object, status: int, reason: str
) -> None:
    """A proxy's page, nonsense, far too much: nothing of it is repeated, and nothing but a KubeFault is raised."""
    server.otherwise["list"] = answer(body, status=status)
    raised = await fault(api)
    assert raised.reason == reason
    assert CANARY not in repr(raised)


@pytest.mark.parametrize(
    ("header", "wait"), [("7", 7.0), ("0", None), ("-3", None), ("99999", 300.0), ("Wed, 21 Oct 2015 07:28:00 GMT", None)]
)
async def test_retry_after_is_bounded(server: ApiServer, api: KubeApi, header: str, wait: float | None) -> None:
    """For a sensible time."""
    server.otherwise["list"] = refusal(429, "TooManyRequests", headers={"Retry-After": header})
    assert (await fault(api)).retry_after == wait


async def test_every_request_has_a_deadline(server: ApiServer, api: KubeApi) -> None:
    """Whether nothing comes, or the body never ends."""

    async def trickle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.01)
        return response

    server.queue("list", hang, trickle, drop)
    server.queue("update", drop)
    for _ in range(2):
        raised = await fault(api, timeout=0.2)
        assert (raised.status, raised.reason) == (0, "TimedOut")
        assert "did not list secrets in namespace apps within 0.2 s" in str(raised)
    assert (await fault(api)).reason == "Unreachable"
    with pytest.raises(KubeFault, match=r"cannot be reached to update secrets x"):
        await api.replace(f"{SECRETS}/x", {})
    assert server.verbs() == ["list", "list", "list", "update"]


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    """It says so at once, and works when it is there again."""
    async with api_server(tmp_path) as server:
        api = KubeApi(kubeconfig=server.configure())
    raised = await fault(api)
    assert (raised.status, raised.reason) == (0, "Unreachable")
    assert f"{server.url} cannot be reached to list secrets in namespace apps (Connection refused): check that" in str(raised)
    await api.close()


async def test_a_watch_is_open_when_it_is_entered(server: ApiServer, api: KubeApi) -> None:
    """Its events come as they happen, however they are cut into packets; it ends when the server ends it."""
    stream = Stream()
    server.queue("watch", stream)
    async with api.watch(SECRETS, {"resourceVersion": "5"}, silence=10) as events:
        assert server.asked[-1].params == {"resourceVersion": "5", "watch": "true"}
        stream.say(event("ADDED", secret("a")), event("ADDED", secret("b")))
        stream.write(b'{"type": "MODI')
        got = [await anext(events), await anext(events)]
        stream.write(b'FIED", "object": {}}\n\n{"type": "DELETED"}\n{"never": "whole"')
        stream.end()
        got += [each async for each in events]
    assert [each["type"] for each in got] == ["ADDED", "ADDED", "MODIFIED", "DELETED"]


async def test_a_silent_stream_ends(server: ApiServer, api: KubeApi) -> None:
    """After so many seconds; so does one whose connection breaks."""
    server.queue("watch", Stream())
    async with api.watch(SECRETS, {}, silence=0.1) as events:
        assert [each async for each in events] == []


async def test_line_without_an_event_is_malformed(server: ApiServer, api: KubeApi) -> None:
    """And so is a line without end."""
    for raw, reason in ((b"nonsense\n", "Malformed"), (b"x" * 9 * 2**20, "TooLarge")):
        stream = Stream()
        server.queue("watch", stream)
        stream.write(raw)
        async with api.watch(SECRETS, {}, silence=10) as events:
            with pytest.raises(KubeFault) as raised:
                await anext(events)
            assert raised.value.reason == reason


async def test_refused_watch_raises_the_refusal(server: ApiServer, api: KubeApi) -> None:
    """Its verb is `watch`, and of one object where it is of one."""
    server.otherwise["watch"] = refusal(403, "Forbidden")
    with pytest.raises(KubeFault, match="verb watch on secrets, resourceNames x with a Role in namespace apps"):
        async with api.watch(SECRETS, {"fieldSelector": "metadata.name=x"}, silence=1):
            raise AssertionError


# -- who it is ------------------------------------------------------------------------------------------------------------


async def test_rotated_token_is_read_again(server: ApiServer, tmp_path: Path) -> None:
    """Once it is refused, the configuration is loaded again and the request made once more; then it is refused for good."""
    token = tmp_path / "token"
    token.write_text("old")
    api = KubeApi(kubeconfig=server.configure({"tokenFile": str(token)}))

    async def fresh(request: web.BaseRequest) -> web.StreamResponse:
        good = request.headers["Authorization"] == "Bearer new"
        return await (answer({"ok": True}) if good else refusal(401, "Unauthorized"))(request)

    server.otherwise["list"] = fresh
    assert (await fault(api)).status == 401
    token.write_text("new\n")
    assert await api.get(SECRETS) == {"ok": True}
    assert [asked.headers["Authorization"] for asked in server.asked] == ["Bearer old"] * 3 + ["Bearer new"]
    await api.close()


async def test_concurrent_requests_load_the_configuration_once(server: ApiServer, tmp_path: Path) -> None:
    """Those whose token was refused at the same time."""
    token = tmp_path / "token"
    token.write_text("old")
    api = KubeApi(kubeconfig=server.configure({"tokenFile": str(token)}))
    await api.open()
    token.write_text("new")

    async def fresh(request: web.BaseRequest) -> web.StreamResponse:
        good = request.headers["Authorization"] == "Bearer new"
        return await (answer({"ok": True}) if good else refusal(401, "Unauthorized"))(request)

    server.otherwise["list"] = fresh
    assert await asyncio.gather(*(api.get(SECRETS) for _ in range(20))) == [{"ok": True}] * 20
    await api.close()


async def test_pod_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token, authority and namespace are where the kubelet mounts them, the address is in the environment; TLS is trusted
    by that authority alone, and a token that was exchanged is read again."""
    authority = Authority("cluster")
    pair = authority.server("127.0.0.1")
    (tmp_path / "pair.pem").write_bytes(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    seen: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        good = request.headers["Authorization"].endswith("second")
        return await (answer({"ok": True}) if good else refusal(401, "Unauthorized"))(request)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(runner.addresses[0][1]))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, content in {"token": b"first", "ca.crt": Authority("other").pem, "namespace": b"apps\n"}.items():
        (mounted / name).write_bytes(content)
    api = KubeApi(mounted=mounted)
    assert (await fault(api)).reason == "Untrusted"
    assert api.namespace == "apps"
    (mounted / "ca.crt").write_bytes(authority.pem)
    (mounted / "token").write_text("second")
    assert await api.get(SECRETS) == {"ok": True}
    assert seen[-1] == "bearer second"
    await api.close()
    await runner.cleanup()


@pytest.mark.parametrize("missing", ["token", "ca.crt", "namespace", "KUBERNETES_SERVICE_HOST"])
async def test_missing_service_account_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """And goes on once it is there: a token may be mounted late."""
    for name in ("token", "ca.crt", "namespace"):
        (tmp_path / name).write_bytes(Authority("x").pem if name == "ca.crt" else b"text")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    if (file := tmp_path / missing).exists():
        whole = file.read_bytes()
        file.unlink()
    else:
        monkeypatch.delenv(missing)
    api = KubeApi(mounted=tmp_path)
    raised = await fault(api)
    assert raised.reason == "Unconfigured"
    assert missing in str(raised)
    assert "mount the token of its service account" in str(raised)
    if not missing.startswith("KUBERNETES"):
        file.write_bytes(whole)
        assert (await fault(api)).reason == "Unreachable"
    await api.close()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        f"token: {CANARY}",
        f"current-context: x\ncontexts: []\nclusters: []\nusers: [{{name: u, user: {{token: {CANARY}}}}}]",
        textwrap.dedent("""
            current-context: t
            contexts: [{name: t, context: {cluster: t}}]
            clusters: [{name: t, cluster: {server: "https://localhost", certificate-authority-data: bm8gY2VydGlmaWNhdGU=}}]
        """),
    ],
    ids=["nothing", "empty", "no yaml", "no kubeconfig", "no context", "no certificate"],
)
async def test_unusable_kubeconfig_is_reported(tmp_path: Path, text: str | None) -> None:
    """The fault shows nothing of the file. A corrected file is used."""
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    api = KubeApi(kubeconfig=file)
    raised = await fault(api)
    assert raised.reason == "Unconfigured"
    assert str(file) in str(raised)
    assert not re.search(rf"{CANARY}|bm8g", repr(raised))
    async with api_server(tmp_path) as server:
        file.write_text(server.configure().read_text())
        server.otherwise["list"] = answer({"ok": True})
        assert await api.get(SECRETS) == {"ok": True}
        await api.close()


# -- what it costs --------------------------------------------------------------------------------------------------------


def loaded(*lines: str) -> set[str]:
    """Which of the package's modules a new interpreter has after these lines."""
    script = "\n".join((*lines, "import sys", "print(*(name for name in sys.modules if name.startswith('kubernetes')))"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_client_is_not_imported_without_a_cluster() -> None:
    """The package is loaded with `open`, and without its blocking clients; who imports it later gets all of it."""
    assert loaded("import equabot_broker.bootstrap.serve, equabot_broker.kube.api, equabot_broker.sources.kubernetes") == set()
    client = ("from equabot_broker.kube._client import import_client", "import_client()")
    lean = loaded(*client)
    assert "kubernetes.aio.client.api_client" in lean
    assert not lean & {"kubernetes", "kubernetes.client", "kubernetes.aio.dynamic", "kubernetes.stream"}
    later = loaded(*client, "import kubernetes.aio", "kubernetes.client.CoreV1Api, kubernetes.aio.client.CoreV1Api")
    assert {"kubernetes", "kubernetes.client", "kubernetes.aio"} <= later
