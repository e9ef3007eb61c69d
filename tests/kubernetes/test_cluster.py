"""The cluster keeps what the tests that use it take for granted."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.kubernetes.api import Api, Json, Refused
from tests.kubernetes.cluster import ISSUER, Cluster
from tests.tiers import program

READS = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]


def allowed(cluster: Api, kubeconfig: Path, verb: str, namespace: str) -> bool:
    """What RBAC says of the kubeconfig's user."""
    spec = {"resourceAttributes": {"verb": verb, "resource": "secrets", "namespace": namespace}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    with Api.of(kubeconfig) as user:
        answer = user.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def test_secret_has_the_last_applied_content(cluster: Api, namespace: str) -> None:
    """Keys and labels that are not named any more are gone, and there is one object of that name."""
    cluster.secret(namespace, "llm", {"A": "1", "B": "2"}, labels={"x": "y"})
    cluster.secret(namespace, "llm", {"B": b"3"})
    (only,) = cluster.objects("Secret", namespace=namespace)
    assert only["data"] == {"B": "Mw=="}
    assert "labels" not in only["metadata"]


def test_account_has_the_rights_of_its_rules(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """In its namespace and nowhere else; what is not said again is taken away."""
    account = cluster.service_account(namespace, "reader", rules=READS)
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig", user=account.user)
    assert allowed(cluster, kubeconfig, "watch", namespace)
    assert not allowed(cluster, kubeconfig, "update", namespace)
    assert not allowed(cluster, kubeconfig, "watch", "default")
    cluster.service_account(namespace, "reader")
    with Api.of(kubeconfig) as reader, pytest.raises(Refused, match="403 Forbidden"):
        reader.objects("Secret", namespace=namespace)


def test_a_token_is_good_for_its_audience_alone(cluster: Api, namespace: str) -> None:
    """A TokenReview tells; a token for another service is none for the API itself."""
    cluster.service_account(namespace, "agent")
    token = cluster.token(namespace, "agent", audiences=["equabot"])

    def reviewed(*audiences: str) -> bool:
        spec = {"token": token, "audiences": audiences}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer = cluster.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
        return bool(answer["status"].get("authenticated"))

    assert reviewed("equabot")
    assert not reviewed("another")
    assert not reviewed()


def test_pod_has_the_mounts_of_a_kubelet(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """Token, authority and namespace are files; the address is in the environment."""
    account = cluster.service_account(namespace, "agent")
    environ = cluster.mount(tmp_path, account)
    assert f"https://{environ['KUBERNETES_SERVICE_HOST']}:{environ['KUBERNETES_SERVICE_PORT']}" == cluster.url
    assert (tmp_path / "ca.crt").read_bytes() == cluster.ca
    assert (tmp_path / "token").read_text() == account.token
    assert (tmp_path / "namespace").read_text() == namespace
    assert account.token not in repr(account)


def test_kubectl_agrees(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """The kubeconfig is one for everybody's programs."""
    kubectl = program("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl")
    cluster.secret(namespace, "llm", {"A": "1"})
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig", namespace=namespace)
    listed = subprocess.run(
        [kubectl, "--kubeconfig", kubeconfig, "get", "secrets", "-o", "name"], capture_output=True, text=True, check=True
    )
    assert listed.stdout == "secret/llm\n"


def test_cluster_restarts_with_its_data(start_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    """Killed and started again it has the same address, data and accounts, and no history."""
    cluster = start_cluster()
    namespace = cluster.namespace()
    since = cluster.secret(namespace, "llm", {"A": "1"})["metadata"]["resourceVersion"]
    cluster.secret(namespace, "llm", {"A": "2"})
    account = cluster.service_account(namespace, "reader", rules=READS)

    def watched() -> Json:
        """What a watch says first that goes on from the first Secret."""
        params = {"watch": "1", "resourceVersion": since, "fieldSelector": "metadata.name=llm", "timeoutSeconds": "1"}
        return cluster.call("GET", f"/api/v1/namespaces/{namespace}/secrets", params=params)

    with Api.of(cluster.kubeconfig(tmp_path / "kubeconfig", user=account.user)) as reader:
        assert watched()["type"] == "MODIFIED"
        cluster.kill()
        with pytest.raises(httpx.ConnectError):
            reader.objects("Secret", namespace=namespace)
        cluster.start()
        (secret,) = reader.objects("Secret", namespace=namespace)
        assert secret["data"] == {"A": "Mg=="}
        assert watched()["object"]["code"] == 410


def test_a_paused_server_is_silent(start_cluster: Callable[[], Cluster]) -> None:
    """Nothing is answered, and nothing is refused either; afterwards all goes on."""
    cluster = start_cluster()
    cluster.pause()
    with pytest.raises(httpx.TimeoutException):
        cluster.call("GET", "/readyz", timeout=0.3)
    cluster.resume()
    assert cluster.call("GET", "/readyz") == {"text": "ok"}


def test_a_person_comes_with_a_certificate(start_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    """The API server knows the name and the groups that are written in it."""
    cluster = start_cluster()
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig", user=cluster.person("jo", "system:masters"))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with Api.of(kubeconfig) as jo:
        told = jo.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert told["status"]["userInfo"]["username"] == "jo"
    assert "system:masters" in told["status"]["userInfo"]["groups"]


def test_the_keys_of_its_tokens_are_published(cluster: Api) -> None:
    """As discovery says where."""
    found = cluster.call("GET", "/.well-known/openid-configuration")
    assert found["jwks_uri"].endswith("/openid/v1/jwks")
    keys = cluster.call("GET", "/openid/v1/jwks")
    assert [key["kty"] for key in keys["keys"]] == ["RSA"]
    assert found["issuer"] == ISSUER


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """With the last that it wrote; and nothing goes on running."""
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).write_text("#!/bin/sh\necho no room for me >&2; exit 3\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(AssertionError, match=r"it ended with 3(?s:.*)no room for me"), Cluster(tmp_path, tmp_path / "files"):
        pass
