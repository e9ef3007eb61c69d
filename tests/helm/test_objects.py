"""The other objects: what the broker may do in the cluster, who reaches the pods, and what watches them."""

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from equabot_broker.domain.remedies import variable
from equabot_broker.kube.locking import lease_name
from equabot_broker.providers.catalog import PROVIDERS
from tests.helm.chart import CHART, EVERY, FIXTURES, NAMESPACE, config, helm, of_kind, render, secret_rules
from tests.version import VERSION

READ = ["get", "list", "watch"]


def test_helm_finds_nothing_to_say() -> None:
    """`helm lint --strict`, with the values of every fixture."""
    for fixture in EVERY:
        assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", fixture)


@pytest.mark.parametrize("fixture", EVERY, ids=lambda path: path.stem)
def test_the_broker_takes_the_configuration(fixture: Path, tmp_path: Path) -> None:
    """`equabot config check` on what its container would read."""
    file = tmp_path / "equabot.yaml"
    file.write_text(config(render(fixture)))
    command = [sys.executable, "-m", "equabot_broker", "config", "check", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_object_a_file() -> None:
    """Named by component and kind, but for Roles, of which there is one a namespace."""
    for file in (CHART / "templates").glob("**/*.yaml"):
        component, _, kind = file.stem.partition("-")
        assert component in ("agent", "broker", "remote")
        kinds = [line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith("kind:")]
        assert len(kinds) <= 1
        assert not kinds or kind in (kinds[0].lower(), "dashboard")


@pytest.mark.parametrize("fixture", EVERY, ids=lambda path: path.stem)
def test_names_and_labels(fixture: Path) -> None:
    """No two objects share a name, each says its namespace, and all can be found by their labels."""
    objects = render(fixture)
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert all(namespace or kind.startswith("Cluster") for kind, namespace, _ in names)
    assert len(names) == len(set(names))
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "test"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_the_broker_may_read_the_secrets_that_are_named() -> None:
    """And no other, and change none."""
    objects = render()
    assert secret_rules(objects, NAMESPACE) == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["equabot-credentials"], "verbs": READ}
    ]
    (binding,) = of_kind(objects, "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "test-equabot-broker", "namespace": NAMESPACE}]
    assert of_kind(objects, "ClusterRole") == []


def test_a_selector_is_every_secret_of_the_namespace() -> None:
    """RBAC knows no labels; another namespace is narrowed on its own, under a name that tells whose it is."""
    objects = render(FIXTURES / "selector.yaml")
    assert secret_rules(objects, NAMESPACE) == [{"apiGroups": [""], "resources": ["secrets"], "verbs": READ}]
    (rule,) = secret_rules(objects, "platform")
    assert {"shared", "more"} <= set(rule["resourceNames"])
    assert {role["metadata"]["name"] for role in of_kind(objects, "Role")} == {
        "test-equabot-broker",
        f"test-equabot-broker-{NAMESPACE}",
    }


def test_logins_may_be_written_under_a_lock() -> None:
    """Those that are named, with a Lease for each; creating has no name yet that could be looked at."""
    (role,) = of_kind(render(FIXTURES / "logins.yaml"), "Role")
    written = [rule for rule in role["rules"] if set(rule["verbs"]) - set(READ)]
    assert [(rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in written] == [
        (["secrets"], ["logins"], ["update"]),
        (["leases"], ["equabot-refresh-logins"], ["get", "update"]),
        (["leases"], None, ["create"]),
    ]


def test_a_lock_is_called_as_the_broker_calls_it(tmp_path: Path) -> None:
    """Also for a Secret with the longest name that there may be."""
    names = ["logins", "l" * 253, "l" * 219 + "-." + "x" * 30]
    values = {"config": {"sources": [{"kubernetes": {"names": names}}]}, "rbac": {"logins": names}}
    (role,) = of_kind(render(values, at=tmp_path), "Role")
    (rule,) = [rule for rule in role["rules"] if "leases" in rule["resources"] and "resourceNames" in rule]
    assert rule["resourceNames"] == [lease_name("equabot-refresh", name) for name in names]


def test_who_is_asked_about_callers(tmp_path: Path) -> None:
    """With token reviews the API server, which takes a right; published keys take none."""
    remote = FIXTURES / "remote.yaml"
    (binding,), (role,) = (of_kind(render(remote), kind) for kind in ("ClusterRoleBinding", "ClusterRole"))
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["rules"] == [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]
    keys = {"config": {"listen": {"agents": {"service_accounts": {"validate": "published_keys"}}}}}
    without = render(remote, keys, at=tmp_path)
    assert of_kind(without, "ClusterRoleBinding") == of_kind(without, "ClusterRole") == []
    (service,) = [each for each in of_kind(render(remote), "Service") if each["metadata"]["name"].endswith("-broker-broker")]
    assert {each["name"]: each["port"] for each in service["spec"]["ports"]} == {"certificates": 8444, "tokens": 8443}
    (policy,) = of_kind(render(remote), "NetworkPolicy")
    callers = {"namespaceSelector": {"matchLabels": {"team": "agents"}}}
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"] if callers in rule["from"]] == [
        8444,
        8443,
    ]


@pytest.mark.parametrize("name", ["mounted", "workload-identity"])
def test_who_asks_nothing_of_the_api_has_no_right_to_it(name: str) -> None:
    """Files and tokens need no Role."""
    objects = render(FIXTURES / f"{name}.yaml")
    assert [each["kind"] for each in objects if each["kind"].startswith("Role")] == []


def test_disruptions_are_bounded_where_there_is_more_than_one() -> None:
    """With one replica a budget would only keep nodes from being drained."""
    assert of_kind(render(), "PodDisruptionBudget") == []
    (budget,) = of_kind(render(FIXTURES / "logins.yaml"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_the_network_is_closed_but_for_what_is_needed() -> None:
    """Metrics for scrapers, DNS and TLS to the outside, and not the metadata services of clouds."""
    (policy,) = of_kind(render(), "NetworkPolicy")
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    blocks = [to["ipBlock"] for rule in spec["egress"] for to in rule.get("to", [])]
    assert "169.254.0.0/16" in blocks[0]["except"]
    ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6443}


@pytest.mark.parametrize("fixture", EVERY, ids=lambda path: path.stem)
def test_selectors_find_the_pods(fixture: Path) -> None:
    """Whatever looks for pods or for the Service finds them by labels that they have."""
    objects = render(fixture)
    (workload,) = of_kind(objects, "Deployment")
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    looking: list[dict[str, Any]] = [each["spec"]["selector"] for each in of_kind(objects, "Service")]
    looking += [each["spec"]["selector"]["matchLabels"] for each in of_kind(objects, "PodMonitor")]
    looking += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(objects, "NetworkPolicy")]
    looking += [each["spec"]["selector"]["matchLabels"] for each in of_kind(objects, "PodDisruptionBudget")]
    looking.append(workload["spec"]["selector"]["matchLabels"])
    assert all(selector.items() <= labels for selector in looking)
    services = of_kind(objects, "Service")
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (found,) = [each for each in services if wanted <= each["metadata"]["labels"].items()]
        assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in found["spec"]["ports"]]


def test_what_helm_test_asks() -> None:
    """The broker over the network, and the agent's page; with no more rights than anybody."""
    (test,) = of_kind(render(), "Pod")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert test["spec"]["automountServiceAccountToken"] is False
    services = {f"{each['metadata']['name']}.{NAMESPACE}.svc" for each in of_kind(render(), "Service")}
    said = yaml.safe_dump(test)
    assert all(name in said for name in services)
    assert [each["name"] for each in test["spec"]["containers"]] == ["liveness", "readiness", "lease"]
    assert of_kind(render(FIXTURES / "agents.yaml"), "Pod") == []


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 1), (503, 1), (0, 1)])
def test_what_helm_test_asks_fails_while_the_agents_calls_fail(status: int, code: int) -> None:
    """K8: a lease in hand is not enough. The test's own command, with a page in place of the agent's."""
    (test,) = of_kind(render(), "Pod")
    [source] = test["spec"]["containers"][-1]["args"]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"working": True, "status": status}).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        asked = re.sub(r"http://[^\"]*", f"http://127.0.0.1:{server.server_port}/", source)
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, timeout=60, check=False)
        server.shutdown()
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize("fixture", EVERY, ids=lambda path: path.stem)
def test_the_notes_tell_what_is_next(fixture: Path) -> None:
    """After an installation: which Secret to make, how to watch, and what is wider than it has to be."""
    installed = helm("install", "test", CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", fixture)
    notes = installed.partition("NOTES:")[2]
    assert "rollout status" in notes
    assert "<no value>" not in notes
    assert "--from-literal" not in notes, "a key does not belong into a command line"
    secrets = {name for role in of_kind(render(fixture), "Role") for name in role["rules"][0].get("resourceNames", [])}
    assert not secrets or any(f"create secret generic {name} " in notes for name in secrets)
    assert ("every Secret of" in notes) is (fixture.stem == "selector")
    assert ("without native sidecars" in notes) is (fixture.stem == "plain")


def test_the_notes_name_the_variables_and_what_is_not_published(tmp_path: Path) -> None:
    """F26: a block that is pasted whole stores a key from its file; each provider's variable; images that no registry has."""
    values = tmp_path / "values.yaml"
    lab = {"base_url": "https://lab.example", "env": {"LAB_KEY": "api_key"}}
    config = {"required": ["openai", "google", "lab"], "providers": {"lab": lab}}
    values.write_text(yaml.safe_dump({"config": config}))
    command = ("install", "test", CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", values)
    notes = helm(*command).partition("NOTES:")[2]
    assert "--from-file=OPENAI_API_KEY=openai.key --from-file=GEMINI_API_KEY=google.key --from-file=LAB_KEY=lab.key" in notes
    assert "/dev/stdin" not in notes
    assert f"No registry has equabot-broker:{VERSION} or equabot-example-agent:{VERSION}." in notes
    images = {"broker": {"image": {"repository": "r.example/a"}}, "application": {"image": {"repository": "r.example/b"}}}
    values.write_text(yaml.safe_dump({"config": config, **images}))
    assert "No registry" not in helm(*command).partition("NOTES:")[2]


def test_the_notes_know_the_variables_of_the_catalogue() -> None:
    """F26: a provider's variable is in one place, and the chart's copy is the same."""
    known = yaml.safe_load((CHART / "files" / "variables.yaml").read_text())
    assert known == {name: variable(provider) for name, provider in PROVIDERS.items() if variable(provider)}


def test_no_two_fixtures_are_alike() -> None:
    """Each renders something that the others do not."""
    for one, other in combinations(EVERY, 2):
        assert render(one) != render(other)
