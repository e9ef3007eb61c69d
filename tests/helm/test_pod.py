"""The pod that the chart makes: who is in it, what everybody may touch, and how the kubelet asks."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import EVERY, FIXTURES, config, containers, mounted, pod, render

BROKER = "equabot-broker"
GATEWAY = "equabot-gateway"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(params=EVERY, ids=lambda path: path.stem)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(request.param)


def test_the_broker_is_asked_by_service_name_over_grpc(objects: list[dict[str, Any]]) -> None:
    """Startup asks for life alone, or a pod without credentials would be killed; readiness is the credentials' health."""
    broker = containers(pod(objects))[BROKER]
    port = {each["name"]: each["containerPort"] for each in broker["ports"]}["equabot-health"]
    asked = {kind: broker[f"{kind}Probe"]["grpc"] for kind in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"port": port, "service": "liveness"},
        "liveness": {"port": port, "service": "liveness"},
        "readiness": {"port": port, "service": "readiness"},
    }
    assert f":{port}" in config(objects)


def test_an_agent_has_its_socket_and_nothing_of_the_brokers(objects: list[dict[str, Any]]) -> None:
    """No token, no operators' socket, no control socket, no configuration, no Secret, no other agent's socket; and it cannot
    write where its socket is."""
    spec = pod(objects)
    assert spec["automountServiceAccountToken"] is False
    found = containers(spec)
    (agent,) = [each for name, each in found.items() if name not in (BROKER, GATEWAY)]
    ((path, volume),) = mounted(agent).items()
    assert agent["volumeMounts"][0]["readOnly"] is True
    name = path.removeprefix("/run/equabot/")
    assert volume == f"equabot-agent-{name.replace('_', '-')}"
    assert mounted(found[BROKER])[f"/run/equabot-agents/{name}"] == volume
    assert {each["name"]: each.get("value") for each in agent["env"]}[
        "EQUABOT_BROKER_ADDRESS"
    ] == f"unix:/run/equabot/{name}/broker.sock"
    assert f"socket: /run/equabot-agents/{name}/broker.sock" in config(objects)


def test_the_gateway_sees_its_own_directory_alone(objects: list[dict[str, Any]]) -> None:
    """Envoy's configuration and the control socket, as the user whom that socket is for; neither token nor Secret."""
    found = containers(pod(objects))
    if GATEWAY not in found:
        assert "/run/equabot/gateway" not in mounted(found[BROKER])
        return
    gateway = found[GATEWAY]
    assert mounted(gateway) == {"/run/equabot/gateway": "equabot-gateway"}
    assert mounted(found[BROKER])["/run/equabot/gateway"] == "equabot-gateway"
    assert gateway["volumeMounts"][0]["readOnly"] is True
    assert gateway["securityContext"]["runAsUser"] == found[BROKER]["securityContext"]["runAsUser"]
    assert "/run/equabot/gateway/envoy.yaml" in gateway["args"]
    assert "mode: sidecar" in config(objects)
    assert "- brokered" in config(objects)


def test_everybody_is_hardened(objects: list[dict[str, Any]]) -> None:
    """No root, nothing to write to, no capabilities, the runtime's seccomp; memory has a limit, and volumes a size."""
    spec = pod(objects)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec.get("shareProcessNamespace", False) is False
    for container in containers(spec).values():
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "memory" in container["resources"]["limits"]
    empty = [each["emptyDir"] for each in spec["volumes"] if "emptyDir" in each]
    assert all(each["medium"] == "Memory" and each["sizeLimit"] for each in empty)


def test_every_mount_has_its_volume(objects: list[dict[str, Any]]) -> None:
    """And every volume somebody who mounts it."""
    spec = pod(objects)
    volumes = [each["name"] for each in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    assert {name for each in containers(spec).values() for name in mounted(each).values()} == set(volumes)


def test_only_who_asks_the_api_has_a_token(objects: list[dict[str, Any]]) -> None:
    """It lies where the client looks for it, in the broker's container, and only where a source needs it."""
    spec = pod(objects)
    read = yaml.safe_load(config(objects))
    needed = "kubernetes:" in config(objects) or "service_accounts" in read["listen"].get("agents", {})
    assert (TOKEN in mounted(containers(spec)[BROKER])) is needed
    for name, container in containers(spec).items():
        assert TOKEN not in mounted(container) or name == BROKER
    projected = {each["name"]: each["projected"]["sources"] for each in spec["volumes"] if "projected" in each}
    if needed:
        kinds = [kind for source in projected["equabot-api"] for kind in source]
        assert kinds == ["serviceAccountToken", "configMap", "downwardAPI"]
    else:
        assert "equabot-api" not in projected


@pytest.mark.parametrize(("kubernetes", "native"), [("1.28.4", False), ("1.29.0", True), ("1.35.1", True)])
def test_a_cluster_says_whether_it_has_native_sidecars(kubernetes: str, *, native: bool) -> None:
    """Where it has them, the broker comes first and goes last; elsewhere the agent is the first of equals."""
    spec = pod(render(FIXTURES / "gateway.yaml", kubernetes=kubernetes))
    assert [each["name"] for each in spec.get("initContainers", [])] == ([BROKER, GATEWAY] if native else [])
    assert [each["name"] for each in spec["containers"]] == (["agent"] if native else [BROKER, GATEWAY, "agent"])
    policies = {name: each.get("restartPolicy") for name, each in containers(spec).items()}
    assert policies == {"agent": None, **dict.fromkeys((BROKER, GATEWAY), "Always" if native else None)}


def test_a_hung_broker_has_less_time_to_end_than_the_pod(objects: list[dict[str, Any]]) -> None:
    """K4: a failed liveness probe ends it after five seconds; the pod's grace is for a broker that ends in order."""
    spec = pod(objects)
    assert containers(spec)[BROKER]["livenessProbe"]["terminationGracePeriodSeconds"] == 5
    assert spec["terminationGracePeriodSeconds"] > 5


def test_what_is_after_the_broker_waits_for_it(objects: list[dict[str, Any]]) -> None:
    """K10: as a native sidecar by its startup probe; else it is the first container, and a kubelet starts the next one when
    its postStart hook has returned."""
    spec = pod(objects)
    broker = containers(spec)[BROKER]
    if "initContainers" in spec:
        assert spec["initContainers"][0]["name"] == BROKER
        assert "lifecycle" not in broker
    else:
        assert spec["containers"][0]["name"] == BROKER
        assert broker["lifecycle"]["postStart"]["exec"]["command"][:3] == ["equabot", "health", "liveness"]


def test_a_fallback_can_be_asked_for() -> None:
    """`nativeSidecar: false`, whatever the cluster."""
    assert "initContainers" not in pod(render(FIXTURES / "plain.yaml", kubernetes="1.35.0"))


def test_a_workloads_tokens_are_the_brokers_alone() -> None:
    """One token an audience, each in a directory of its name."""
    spec = pod(render(FIXTURES / "workload-identity.yaml"))
    (volume,) = [each for each in spec["volumes"] if each["name"] == "equabot-workload"]
    assert volume["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "path": "anthropic/token",
                "audience": "https://api.anthropic.com",
                "expirationSeconds": 3600,
            }
        },
        {"serviceAccountToken": {"path": "openai/token", "audience": "https://api.openai.com/v1", "expirationSeconds": 600}},
    ]
    holders = [name for name, each in containers(spec).items() if "equabot-workload" in mounted(each).values()]
    assert holders == [BROKER]


def test_secrets_as_files(tmp_path: Path) -> None:
    """Each in a directory of its name, read-only; a pod starts without them, and is not ready."""
    spec = pod(render(FIXTURES / "mounted.yaml"))
    found = mounted(containers(spec)[BROKER])
    assert {path for path in found if path.startswith("/run/secrets")} == {
        "/run/secrets/equabot/llm",
        "/run/secrets/equabot/team.keys",
    }
    assert all(each["secret"]["optional"] is True for each in spec["volumes"] if "secret" in each)


def test_an_audit_log_on_a_claim_has_its_anchor_there(tmp_path: Path) -> None:
    """S17: it outlives the pod with the log. Two pods never write it at once. Elsewhere the chart says nothing of it."""

    def audit(*values: Path | dict[str, Any]) -> tuple[Any, Any]:
        objects = render(*values, at=tmp_path)
        (config,) = [each["data"]["equabot.yaml"] for each in objects if "equabot.yaml" in each.get("data", {})]
        (workload,) = [each for each in objects if each["kind"] == "Deployment"]
        return yaml.safe_load(config).get("audit"), workload["spec"].get("strategy")

    path = "/var/lib/equabot/audit.jsonl"
    assert audit(FIXTURES / "audit.yaml") == (
        {"path": path, "anchor": "/var/lib/equabot/audit.head", "fail_closed": True},
        {"type": "Recreate"},
    )
    elsewhere = {"config": {"audit": {"anchor": "/var/lib/equabot/elsewhere"}}}
    assert audit(FIXTURES / "audit.yaml", elsewhere)[0]["anchor"] == "/var/lib/equabot/elsewhere"
    assert audit({"config": {"audit": {"path": path}}}) == ({"path": path}, None)
    assert audit() == (None, None)


def test_a_changed_configuration_makes_new_pods(tmp_path: Path) -> None:
    """The broker reads its configuration once, so the pods carry its checksum."""

    def checksum(*values: Path | dict[str, Any]) -> str:
        (workload,) = [each for each in render(*values, at=tmp_path) if each["kind"] == "Deployment"]
        return str(workload["spec"]["template"]["metadata"]["annotations"]["equabot.dev/config-checksum"])

    usual = checksum()
    assert checksum({"broker": {"resources": {"limits": {"memory": "1Gi"}}}}) == usual
    assert checksum({"config": {"leases": {"max_ttl": "30m"}}}) != usual
