"""The chart's pod where it lives: under a kubelet, with containerd, controllers, DNS and Services."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.containers.test_chart import made_up_key
from tests.fakes.token_endpoint import TokenEndpoint
from tests.fakes.upstream import refused
from tests.kubelet.release import BROKER, DEPLOYMENT, GATEWAY, NAME, SECRET, Release, condition, status

ACQUIRE = "import equabot_client; print(equabot_client.connect().acquire('anthropic').id)"
LOAD = """
import asyncio
from equabot_client import EventKind, aio

async def main():
    async with asyncio.timeout(170), aio.connect(timeout=60) as broker:
        for _ in range(200):
            await broker.acquire("anthropic")

        async def follow():
            async for event in broker.stream("anthropic"):
                if event.kind is EventKind.ROTATED:
                    return 1

        print(sum(await asyncio.gather(*(follow() for _ in range(100)))))

asyncio.run(main())
"""
"""Two hundred leases, and a hundred streams, each until it hears of a rotation: prints how many have."""

pytestmark = pytest.mark.timeout(900)  # the first test waits for the images and the node


@pytest.mark.parametrize("gateway", [False, True], ids=["raw", "gateway"])
def test_from_nothing_to_a_passed_helm_test(release: Release, *, gateway: bool) -> None:
    """As docs/operate.md says: the pod runs and is not ready, the Secret makes it ready, `helm test` passes, and doctor has
    nothing to say. The agent started after the broker, and after the gateway."""
    release.install(gateway={"enabled": gateway})
    release.wait_until(lambda: bool(release.pods()) and "running" in status(release.pod(), "agent").get("state", {}))
    pod = release.pod()
    began = {
        each: status(pod, each)["state"]["running"]["startedAt"] for each in (BROKER, *([GATEWAY] if gateway else []), "agent")
    }
    assert list(began.values()) == sorted(began.values())
    assert all(status(pod, each)["started"] for each in began)
    assert not condition(pod, "Ready")
    health = release.run(BROKER, "equabot", "health")
    assert (health.code, "NOT_SERVING" in health.output) == (1, True), health.output
    failed = release.helm("test", NAME, "--timeout", "60s")
    assert failed.code != 0

    key = made_up_key("first")
    release.secret(key)
    release.kubectl("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=120s")
    release.wait_until(lambda: release.used(key))
    passed = release.helm("test", NAME)
    assert passed.code == 0, passed.output
    doctor = release.run(BROKER, "equabot", "doctor")
    assert doctor.code == 0, doctor.output
    for container in began:
        assert key not in release.logs(container)


def test_probes_follow_expiry_and_rotation(release: Release) -> None:
    """K1: not ready once the key has expired, ready with the next one, although the annotation stays; nothing restarts."""
    first, second = made_up_key("first"), made_up_key("second")
    release.install()
    release.secret(first)
    release.wait_until(lambda: release.ready() and release.used(first))
    release.secret(first, expires_at=(datetime.now(UTC) + timedelta(seconds=3)).isoformat(timespec="seconds"))
    release.wait_until(lambda: not release.ready())
    assert "expired" in release.run(BROKER, "equabot", "models", "status").output
    assert not condition(release.pod(), "Ready")
    release.secret(second)
    release.wait_until(lambda: release.ready() and release.used(second))
    doctor = release.run(BROKER, "equabot", "doctor")
    assert doctor.code == 0, doctor.output
    assert "earlier value" in " ".join(doctor.output.split())
    assert {status(release.pod(), each)["restartCount"] for each in (BROKER, "agent")} == {0}


def test_mounted_secrets_rotate(release: Release) -> None:
    """As files, which the kubelet brings, without any right to the API."""
    first, second = made_up_key("first"), made_up_key("second")
    release.install(mountedSecrets=[SECRET], config={"sources": ["mounted"]})
    release.secret(first)
    release.wait_until(lambda: release.ready() and release.used(first))
    release.secret(second)
    release.wait_until(lambda: release.used(second))
    assert release.ready()


@pytest.mark.parametrize("gateway", [False, True], ids=["raw", "gateway"])
def test_leases_survive_a_killed_broker(release: Release, *, gateway: bool) -> None:
    """`kill -9`, twice: the kubelet restarts the broker alone; a lease that was acquired before is there after, and the agent
    goes on. The agent and the gateway are not restarted."""
    key = made_up_key("killed")
    release.install(gateway={"enabled": gateway})
    release.secret(key)
    release.wait_until(lambda: release.ready() and release.used(key))
    acquired = release.run("agent", "python", "-c", ACQUIRE)
    assert acquired.code == 0, acquired.output
    for times in (1, 2):
        container = release.container(BROKER)
        for process in release.node.processes(container):
            os.kill(process, signal.SIGKILL)
        release.wait_until(lambda times=times: status(release.pod(), BROKER)["restartCount"] == times and release.ready())  # type: ignore[misc]
        assert acquired.output.strip() in release.run(BROKER, "equabot", "lease", "list").output
    release.provider.received.clear()
    release.wait_until(lambda: release.used(key))
    others = [each for each in ("agent", GATEWAY) if status(release.pod(), each)]
    assert {status(release.pod(), each)["restartCount"] for each in others} == {0}


def test_a_second_credential_takes_over(release: Release) -> None:
    """The provider refuses the one: the agent goes on with the other, and the pod stays ready."""
    first, second = made_up_key("first"), made_up_key("second")
    release.install(config={"sources": [{"kubernetes": {"names": ["one", "two"]}}]})
    for name, key in (("one", first), ("two", second)):
        release.node.secret(release.namespace, name, {"ANTHROPIC_API_KEY": key})
    release.wait_until(lambda: release.ready() and bool(release.provider.received))
    used = release.provider.received[-1].secret()
    release.provider.verdicts[used] = refused(401)
    [other] = {first, second} - {used}
    release.wait_until(lambda: release.used(other))
    assert release.ready()


def test_a_job_completes(release: Release) -> None:
    """A native sidecar does not keep a Job from its end, and starts before its work."""
    key = made_up_key("job")
    release.install()
    release.secret(key)
    template = release.node.get("Deployment", DEPLOYMENT, namespace=release.namespace, version="apps/v1")["spec"]["template"]
    template["metadata"]["labels"] = {}
    template["spec"]["restartPolicy"] = "Never"
    [agent] = template["spec"]["containers"]
    agent.pop("readinessProbe")
    agent["command"] = ["python", "-c", "import equabot_client; equabot_client.connect().acquire('anthropic')"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": release.namespace}}
    release.node.create({**job, "spec": {"backoffLimit": 0, "template": template}})

    def conditions() -> list[str]:
        done = release.node.get("Job", "once", namespace=release.namespace, version="batch/v1")["status"]
        return [each["type"] for each in done.get("conditions", []) if each["status"] == "True"]

    release.wait_until(lambda: bool({"Complete", "Failed"} & set(conditions())))
    assert "Complete" in conditions()


def test_an_upgrade_replaces_the_pod(release: Release) -> None:
    """From a raw key to the gateway by `helm upgrade`: the agent's calls go on, then through Envoy."""
    key = made_up_key("upgraded")
    release.install()
    release.secret(key)
    release.wait_until(lambda: release.ready() and release.used(key))
    before = release.pod()["metadata"]["name"]
    release.install(gateway={"enabled": True})
    release.kubectl("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=180s")
    release.wait_until(lambda: release.ready() and '"delivery": "brokered"' in release.logs("agent", "--tail=1"))
    assert release.pod()["metadata"]["name"] != before


def test_a_refused_configuration_is_said_by_the_pod(release: Release) -> None:
    """K8: the pod is `Init:CrashLoopBackOff`, its log has a line for every fault, and `config check` says the same before. The
    corrected configuration makes a pod that is ready."""
    wrong = {"required": ["nobody"], "leases": {"max_ttl": "soon"}}
    release.secret(made_up_key("corrected"))
    release.install(config=wrong)
    release.wait_until(lambda: "Init:CrashLoopBackOff" in release.kubectl("get", "pods"))
    assert status(release.pod(), BROKER)["lastState"]["terminated"]["exitCode"] == 64
    said = release.logs(BROKER)
    assert ("nobody" in said, "leases.max_ttl" in said) == (True, True), said
    release.install()
    release.wait_until(release.ready)


def test_who_waits_for_a_release_needs_its_secret_first(release: Release) -> None:
    """K8: `helm install --wait` ends at its timeout while the Secret is missing, and at once where it is there."""
    with pytest.raises(AssertionError, match=r"timed out|deadline|not ready"):
        release.install("--wait", "--timeout=20s")
    assert not condition(release.pod(), "Ready")
    release.secret(made_up_key("waited"))
    release.install("--wait", "--timeout=150s")
    assert release.ready()


def test_without_native_sidecars_nothing_restarts(release: Release) -> None:
    """K10: Envoy and the agent start once the broker serves, so that Envoy finds its configuration."""
    key = made_up_key("plain")
    release.install(nativeSidecar=False, gateway={"enabled": True})
    release.secret(key)
    release.wait_until(lambda: release.ready() and release.used(key))
    restarts = {each: status(release.pod(), each)["restartCount"] for each in (BROKER, GATEWAY, "agent")}
    assert restarts == {BROKER: 0, GATEWAY: 0, "agent": 0}


def test_many_commands_do_not_end_the_broker(release: Release) -> None:
    """K7: sixteen commands at once in its container, while the agent works through the gateway. Nothing is killed."""
    key = made_up_key("busy")
    release.install(gateway={"enabled": True})
    release.secret(key)
    release.wait_until(lambda: release.ready() and release.used(key))
    pod = str(release.pod()["metadata"]["name"])
    with ThreadPoolExecutor(16) as pool:
        ran = list(pool.map(lambda _: release.run(BROKER, "equabot", "models", "status", pod=pod), range(16)))
    assert [each.output for each in ran if each.code] == []
    for container in (BROKER, GATEWAY, "agent"):
        found = status(release.pod(), container)
        assert (found["restartCount"], found["lastState"]) == (0, {})


def test_three_replicas_refresh_one_login(release: Release) -> None:
    """While pods are replaced and a broker is killed, no refresh token is presented twice, and every pod serves."""
    with TokenEndpoint(release.directory / "ledger", life=20.0, host="0.0.0.0") as endpoint:
        provider = {
            "token_url": f"http://{release.node.host}:{endpoint.port}/token", "client_id": "cli",
            "base_url": f"http://{release.node.host}:{release.provider.port}",
        }  # fmt: skip
        entry = {"type": "oauth", "provider": "acme", **endpoint.login("me", life=-1.0)}
        data = {"auth-profiles.json": json.dumps({"version": 1, "profiles": {"acme:me": entry}})}
        release.node.secret(release.namespace, SECRET, data)
        release.install(
            application={"replicas": 3, "env": {"AGENT_PROVIDER": "acme"}}, rbac={"logins": [SECRET]},
            config={"required": ["acme"], "providers": {"acme": provider}},
        )  # fmt: skip
        release.wait_until(lambda: release.ready(3))
        release.kubectl("rollout", "restart", f"deployment/{DEPLOYMENT}")
        release.kubectl("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=300s")
        release.wait_until(lambda: release.ready(3))
        container = str(status(release.pods()[0], BROKER)["containerID"]).rpartition("/")[2]
        for process in release.node.processes(container):
            os.kill(process, signal.SIGKILL)
        presented = [each for each in endpoint.ledger() if each.event == "presented"]
        release.wait_until(
            lambda: release.ready(3) and len([e for e in endpoint.ledger() if e.event == "presented"]) > len(presented)
        )
        tokens = [each.token for each in endpoint.ledger() if each.event == "presented"]
        assert len(tokens) == len(set(tokens)) > 1
        assert {each.verdict for each in endpoint.ledger() if each.event == "presented"} == {"redeemed"}


def test_a_hung_broker_is_restarted_without_the_pods_grace(release: Release) -> None:
    """K4: the pod may take an hour to end, and a broker that does not respond gets none of it: the kubelet kills it after the
    grace of its probe, and starts another. The agent is not restarted, and the lease that it had is there after."""
    key = made_up_key("hung")
    release.install(application={"terminationGracePeriodSeconds": 3600})
    release.secret(key)
    release.wait_until(lambda: release.ready() and release.used(key))
    acquired = release.run("agent", "python", "-c", ACQUIRE)
    assert acquired.code == 0, acquired.output
    container = release.container(BROKER)
    for process in release.node.processes(container):
        os.kill(process, signal.SIGSTOP)
    release.wait_until(lambda: status(release.pod(), BROKER)["restartCount"] == 1 and release.ready())
    ended = status(release.pod(), BROKER)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["containerID"].rpartition("/")[2]) == (128 + signal.SIGKILL, container)
    order = {reason: number for number, reason in enumerate(release.events(BROKER))}
    assert order["Killing"] < order["Started"]
    assert acquired.output.strip() in release.run(BROKER, "equabot", "lease", "list").output
    release.provider.received.clear()
    release.wait_until(lambda: release.used(key))
    assert status(release.pod(), "agent")["restartCount"] == 0


def test_memory_under_a_load_of_streams(release: Release) -> None:
    """K7: with a hundred streams and two hundred leases of one agent, and a rotation that all streams follow, the broker takes
    less than half of the chart's limit, so that commands have room. Nothing is killed."""
    first, second = made_up_key("load"), made_up_key("loaded")
    release.install(
        config={"agents": {"main": {"max_leases": 400}}}, application={"resources": {"limits": {"memory": "512Mi"}}}
    )
    release.secret(first)
    release.wait_until(lambda: release.ready() and release.used(first))
    pod, broker = str(release.pod()["metadata"]["name"]), release.container(BROKER)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(release.run, "agent", "python", "-c", LOAD, pod=pod)
        release.wait_until(
            lambda: loading.done() or release.run(BROKER, "equabot", "lease", "list").output.count("streaming") > 99
        )
        before = release.node.resident(broker)
        release.secret(second)
        loaded = loading.result()
    assert (loaded.code, loaded.output.strip()) == (0, "100"), loaded.output
    after, limit = release.node.resident(broker), release.node.memory_limit(broker)
    print(f"resident: {before >> 20} MiB under load, {after >> 20} after the rotation, of {limit >> 20}")
    assert limit == 512 << 20
    assert max(before, after) < limit / 2
    for each in (BROKER, "agent"):
        found = status(release.pod(), each)
        assert (found["restartCount"], found["lastState"]) == (0, {})


def test_a_lock_goes_with_its_secret(release: Release) -> None:
    """K8: the Lease under which a login is refreshed belongs to its Secret. `helm uninstall` leaves both, as docs/operate.md
    says, and the cluster deletes the Lease with the Secret."""
    with TokenEndpoint(release.directory / "ledger", life=3600.0, host="0.0.0.0") as endpoint:
        provider = {"token_url": f"http://{release.node.host}:{endpoint.port}/token", "client_id": "cli"}
        entry = {"type": "oauth", "provider": "acme", **endpoint.login("me", life=-1.0)}
        data = {"auth-profiles.json": json.dumps({"version": 1, "profiles": {"acme:me": entry}})}
        release.node.secret(release.namespace, SECRET, data)
        release.install(
            rbac={"logins": [SECRET]}, application={"env": {"AGENT_PROVIDER": "acme"}},
            config={"required": ["acme"], "providers": {"acme": provider | {"base_url": "http://127.0.0.1:9"}}},
        )  # fmt: skip
        release.wait_until(lambda: [each.verdict for each in endpoint.ledger() if each.event == "presented"] == ["redeemed"])
    assert release.leases() == [f"equabot-refresh-{SECRET}"]
    assert release.helm("uninstall", NAME, "--wait").code == 0
    assert release.leases() == [f"equabot-refresh-{SECRET}"]
    release.kubectl("delete", "secret", SECRET)
    release.wait_until(lambda: release.leases() == [])
