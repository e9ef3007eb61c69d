"""What chart and kustomizations make, before a real API server: it takes every object, in the strictest kind of namespace, and
the rights that they give are those that are needed and no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helm.chart import EVERY, FIXTURES, consumer, of_kind, render
from tests.kubernetes.api import Account, Api, Refused
from tests.kubernetes.manifests import kustomized, teach
from tests.tiers import require

Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def operator(cluster: Api) -> None:
    """The Prometheus operator's kinds, as far as the chart uses them."""
    require("helm")
    teach(cluster)


@pytest.fixture
def strict(cluster: Api, namespace: str) -> str:
    """A namespace that enforces the pod security standard `restricted`, with the account that a controller would make."""
    labels = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "warn")}
    cluster.patch("Namespace", namespace, {"metadata": {"labels": labels}})
    for name in ("default", "agents"):  # the latter is named by a fixture, as somebody else's
        cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    return namespace


def accepted(cluster: Api, objects: list[Json], namespace: str) -> list[Json]:
    """The objects as the server would keep them, and after them the pod of the workload. Raises Refused."""
    taken = [cluster.try_out(each) for each in objects]
    for account in of_kind(objects, "ServiceAccount"):
        cluster.apply(account)  # pods are admitted only with an account that there is
    return taken + [cluster.try_out(each) for each in pods(objects, namespace)]


def pods(objects: list[Json], namespace: str) -> Iterator[Json]:
    """A pod of every workload, which no controller makes here."""
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet"):
            template = each["spec"]["template"]
            metadata = {**template["metadata"], "name": f"{each['metadata']['name']}-0", "namespace": namespace}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def elsewhere(cluster: Api, objects: list[Json]) -> None:
    """Makes the other namespaces that objects name."""
    for name in {each["metadata"].get("namespace", "default") for each in objects}:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.mark.parametrize("fixture", EVERY, ids=lambda path: path.stem)
def test_the_server_takes_every_object_of_the_chart(cluster: Api, strict: str, fixture: Path) -> None:
    """Server-side dry run with strict field validation; the pod is admitted where root and capabilities are not."""
    objects = render(fixture, namespace=strict)
    elsewhere(cluster, objects)
    made = accepted(cluster, objects, strict)
    assert len(made) > len(objects) > 3


def test_the_server_takes_a_chart_that_depends_on_it(cluster: Api, strict: str, tmp_path: Path) -> None:
    """Likewise."""
    accepted(cluster, render(chart=consumer(tmp_path), namespace=strict), strict)


@pytest.mark.parametrize("name", ["base", "gateway"])
def test_the_server_takes_the_kustomizations(cluster: Api, strict: str, name: str) -> None:
    """Likewise, in another namespace than they name."""
    objects = kustomized(name)
    for each in objects:
        each["metadata"]["namespace"] = strict
        for subject in each.get("subjects", []):
            subject["namespace"] = strict
    accepted(cluster, objects, strict)


def test_a_field_that_is_misspelt_would_be_refused(cluster: Api, strict: str) -> None:
    """Else the tests above would prove nothing; also in the operator's kinds."""
    objects = render(FIXTURES / "pod-monitor.yaml", namespace=strict)
    (workload,), (monitor,) = of_kind(objects, "Deployment"), of_kind(objects, "PodMonitor")
    for each, spec in ((workload, workload["spec"]["template"]["spec"]), (monitor, monitor["spec"])):
        spec["shareProcesNamespace"] = True
        with pytest.raises(Refused, match="shareProcesNamespace"):
            cluster.try_out(each)


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def account(cluster: Api, namespace: str, tmp_path: Path) -> Iterator[Api]:
    """The API as the broker of the fixture `logins` has it."""
    objects = render(FIXTURES / "logins.yaml", namespace=namespace)
    for each in objects:
        if each["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
            cluster.apply(each)
    name = of_kind(objects, "ServiceAccount")[0]["metadata"]["name"]
    user = Account(namespace, name, cluster.token(namespace, name)).user
    with Api.of(cluster.kubeconfig(tmp_path / "kubeconfig", user=user, namespace=namespace)) as api:
        yield api


def named(name: str) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={name}"}


def test_the_broker_reads_the_secrets_that_are_named_and_no_others(cluster: Api, namespace: str, account: Api) -> None:
    """Listing and watching go by name, which is the form that `resourceNames` allow."""
    for name in ("equabot-credentials", "logins", "other"):
        cluster.secret(namespace, name, {"ANTHROPIC_API_KEY": "x"})
    path = f"/api/v1/namespaces/{namespace}/secrets"
    for name in ("equabot-credentials", "logins"):
        (found,) = account.call("GET", path, params=named(name))["items"]
        assert found["metadata"]["name"] == name
        assert account.call("GET", path, params={**named(name), "watch": "true", "timeoutSeconds": "1"})["type"] == "ADDED"
    for params in (named("other"), {}, {"labelSelector": "equabot.dev/credential=true"}):
        with pytest.raises(Refused, match="403"):
            account.call("GET", path, params=params)
    with pytest.raises(Refused, match="403"):
        account.call("GET", "/api/v1/namespaces/default/secrets/equabot-credentials")


def test_the_broker_writes_logins_and_nothing_else(cluster: Api, namespace: str, account: Api) -> None:
    """The Secret that is a login, and the Lease of its lock; no other Secret, no other Lease, and it deletes nothing."""
    for name in ("equabot-credentials", "logins"):
        cluster.secret(namespace, name, {"ANTHROPIC_API_KEY": "x"})
    account.replace(account.get("Secret", "logins", namespace=namespace))
    version = "coordination.k8s.io/v1"
    lock = {"name": "equabot-refresh-logins", "namespace": namespace}
    made = account.create({"apiVersion": version, "kind": "Lease", "metadata": lock, "spec": {"holderIdentity": "me"}})
    account.replace({**made, "spec": {"holderIdentity": ""}})
    refused = [
        lambda: account.replace(cluster.get("Secret", "equabot-credentials", namespace=namespace)),
        lambda: account.delete("Secret", "logins", namespace=namespace),
        lambda: account.delete("Lease", lock["name"], namespace=namespace, version=version),
        lambda: account.get("Lease", "other", namespace=namespace, version=version),
        lambda: account.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new", "namespace": namespace}}),
    ]
    for attempt in refused:
        with pytest.raises(Refused, match="403"):
            attempt()
