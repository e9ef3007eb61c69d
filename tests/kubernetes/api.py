"""The Kubernetes API as a test's administrator uses it: objects, accounts with their rights, kubeconfigs.

It blocks, for a few milliseconds a call. The code under test has a client of its own and shares nothing with this one.
"""

import base64
import itertools
import secrets
import ssl
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import yaml

Json = dict[str, Any]

_CLUSTER_WIDE: Final = frozenset(
    {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "ValidatingAdmissionPolicy"}
)
_NUMBER: Final = itertools.count(1)


class Refused(Exception):
    """What the API answered in place of what was asked: its `status`, `reason` and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Account:
    """A service account, with a token for the API."""

    namespace: str
    name: str
    token: str = field(repr=False)

    @property
    def user(self) -> Json:
        """It, as a kubeconfig's `user`."""
        return {"token": self.token}


class Api:
    """An administrator of the cluster which a kubeconfig's `cluster` and `user` describe."""

    def __init__(self, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
        self.url = str(cluster["server"]).rstrip("/")
        self._cluster = dict(cluster)
        self._user = dict(user)
        self._client: httpx.Client | None = None

    @classmethod
    def of(cls, kubeconfig: Path) -> Self:
        """As the current context of the file says, whose `user` has a token or a certificate."""
        content = yaml.safe_load(kubeconfig.read_text())
        named = {kind: {each["name"]: each for each in content[kind]} for kind in ("contexts", "clusters", "users")}
        context = named["contexts"][content["current-context"]]["context"]
        cluster = _inlined(named["clusters"][context["cluster"]]["cluster"], kubeconfig.parent)
        return cls(cluster, _inlined(named["users"][context["user"]]["user"], kubeconfig.parent))

    @property
    def ca(self) -> bytes:
        """What signs for the server, as PEM."""
        return base64.b64decode(self._cluster["certificate-authority-data"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    # --- objects ---

    def get(self, kind: str, name: str, *, namespace: str = "", version: str = "v1") -> Json:
        """The object as it is now."""
        return self.call("GET", _path(version, kind, namespace, name))

    def objects(self, kind: str, *, namespace: str = "", version: str = "v1") -> list[Json]:
        """The objects of a namespace, or of all."""
        items: list[Json] = self.call("GET", _path(version, kind, namespace))["items"]
        return items

    def create(self, thing: Mapping[str, Any]) -> Json:
        """The object as it was created; a name that exists is refused."""
        return self.call("POST", _path_of(thing, named=False), thing)

    def try_out(self, thing: Mapping[str, Any]) -> Json:
        """What `create` would make, with all that defaults and admission add; nothing is kept (server-side dry run). A field
        that the API does not know is refused."""
        params = {"dryRun": "All", "fieldValidation": "Strict"}
        return self.call("POST", _path_of(thing, named=False), thing, params=params)

    def replace(self, thing: Mapping[str, Any]) -> Json:
        """All of the object anew; with a `resourceVersion`, only if nobody was faster."""
        return self.call("PUT", _path_of(thing), thing)

    def apply(self, thing: Mapping[str, Any]) -> Json:
        """Created or changed, server-side: what an earlier one said and this one does not is gone."""
        params = {"fieldManager": "test", "force": "true"}
        return self.call("PATCH", _path_of(thing), thing, content_type="application/apply-patch+yaml", params=params)

    def patch(self, kind: str, name: str, change: Mapping[str, Any], *, namespace: str = "", version: str = "v1") -> Json:
        """The object with a JSON merge patch applied (RFC 7396)."""
        path = _path(version, kind, namespace, name)
        return self.call("PATCH", path, change, content_type="application/merge-patch+json")

    def delete(self, kind: str, name: str, *, namespace: str = "", version: str = "v1") -> None:
        """Deletes it; an object that is not there is refused."""
        self.call("DELETE", _path(version, kind, namespace, name))

    def clear(self, kind: str, *, namespace: str, version: str = "v1") -> None:
        """Deletes all of the kind in a namespace."""
        self.call("DELETE", _path(version, kind, namespace))

    def secret(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, str | bytes],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Json:
        """The Secret, made or brought to exactly this: a key, label or annotation that is not named is gone."""
        encoded = {
            key: base64.b64encode(value.encode() if isinstance(value, str) else value).decode() for key, value in data.items()
        }
        metadata = {"namespace": namespace, "name": name, "labels": labels or {}, "annotations": annotations or {}}
        return self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})

    def namespace(self, stem: str = "test") -> str:
        """The name of a fresh one."""
        name = f"{stem}-{next(_NUMBER)}-{secrets.token_hex(3)}"
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    # --- who may do what ---

    def service_account(
        self,
        namespace: str,
        name: str,
        *,
        rules: Sequence[Mapping[str, Any]] = (),
        cluster_rules: Sequence[Mapping[str, Any]] = (),
    ) -> Account:
        """The account with these RBAC rules and no other, in its namespace and in the whole cluster. May be said again."""
        metadata = {"namespace": namespace, "name": name}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        self._grant(metadata, "Role", metadata, rules)
        self._grant(metadata, "ClusterRole", {"name": f"{namespace}-{name}"}, cluster_rules)
        user = f"system:serviceaccount:{namespace}:{name}"
        self._wait_until_granted(user, [*_asked(rules, namespace), *_asked(cluster_rules, "")])
        return Account(namespace, name, self.token(namespace, name))

    def token(self, namespace: str, name: str, *, audiences: Sequence[str] = (), seconds: int = 3600) -> str:
        """A token of a service account. No audience means the API's own; no less than 600 seconds are granted."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": list(audiences), "expirationSeconds": seconds},
        }
        path = f"{_path('v1', 'ServiceAccount', namespace, name)}/token"
        granted: str = self.call("POST", path, body)["status"]["token"]
        return granted

    def kubeconfig(self, path: Path, *, user: Mapping[str, Any] | None = None, namespace: str = "default") -> Path:
        """Writes one for the administrator, or for a kubeconfig's `user`: `account.user`, `{"tokenFile": …}`."""
        named = {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [named],
            "clusters": [{"name": "test", "cluster": self._cluster}],
            "users": [{"name": "test", "user": dict(self._user if user is None else user)}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content))
        return path

    def mount(self, directory: Path, account: Account) -> dict[str, str]:
        """Writes what a kubelet mounts into the account's pod: `token`, `ca.crt`, `namespace`. Returns its environment."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "token").write_text(account.token)
        (directory / "ca.crt").write_bytes(self.ca)
        (directory / "namespace").write_text(account.namespace)
        address = urlsplit(self.url)
        return {"KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(address.port or 443)}

    def _grant(
        self, account: Mapping[str, str], kind: str, metadata: Mapping[str, str], rules: Sequence[Mapping[str, Any]]
    ) -> None:
        version = "rbac.authorization.k8s.io/v1"
        self.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": list(rules)})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]}
        subjects = [{"kind": "ServiceAccount", **account}]
        binding = {"apiVersion": version, "kind": f"{kind}Binding", "metadata": metadata}
        self.apply({**binding, "roleRef": role, "subjects": subjects})

    def _wait_until_granted(self, user: str, asked: Iterable[Json]) -> None:
        """A server follows its own Roles by a watch: on a busy machine seconds go by until what was granted holds (T10)."""
        deadline = time.monotonic() + 60
        for attributes in asked:
            review = {"spec": {"user": user, "resourceAttributes": attributes}}
            thing = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", **review}
            while not self.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", thing)["status"]["allowed"]:
                assert time.monotonic() < deadline, f"{user} is not granted {attributes}"
                time.sleep(0.05)

    # --- the wire ---

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        timeout: float = 30,
        params: Mapping[str, str] | None = None,
    ) -> Json:
        """One request, as the administrator. Raises `Refused` for an answer that is a refusal, `httpx.HTTPError` for none."""
        if self._client is None:
            self._client = self._connect()
        answer = self._client.request(
            method, path, json=body, params=params, headers={"content-type": content_type}, timeout=timeout
        )
        if answer.is_success:
            content: Json = answer.json() if "json" in answer.headers.get("content-type", "") else {"text": answer.text}
            return content
        try:
            told = answer.json()
        except ValueError:
            told = {"message": answer.text}
        raise Refused(answer.status_code, told.get("reason", ""), told.get("message", ""))

    def _connect(self) -> httpx.Client:
        trust = ssl.create_default_context(cadata=self.ca.decode())
        if "client-certificate-data" in self._user:
            pair = (base64.b64decode(self._user[f"client-{part}-data"]) for part in ("certificate", "key"))
            with tempfile.NamedTemporaryFile() as file:  # the ssl module takes certificates from files alone
                file.write(b"\n".join(pair))
                file.flush()
                trust.load_cert_chain(file.name)
        headers = {"authorization": f"Bearer {self._user['token']}"} if "token" in self._user else {}
        return httpx.Client(base_url=self.url, verify=trust, headers=headers, trust_env=False)


def _inlined(stanza: Mapping[str, Any], directory: Path) -> Json:
    """A `cluster` or `user` with its files' contents in place of their names."""
    inlined = dict(stanza)
    for key in ("certificate-authority", "client-certificate", "client-key"):
        if key in inlined:
            inlined[f"{key}-data"] = base64.b64encode((directory / inlined.pop(key)).read_bytes()).decode()
    if "tokenFile" in inlined:
        inlined["token"] = (directory / inlined.pop("tokenFile")).read_text().strip()
    return inlined


def _path_of(thing: Mapping[str, Any], *, named: bool = True) -> str:
    metadata = thing["metadata"]
    return _path(thing["apiVersion"], thing["kind"], metadata.get("namespace", ""), metadata["name"] if named else "")


def _path(version: str, kind: str, namespace: str, name: str = "") -> str:
    """Plurals follow the rule that all of Kubernetes' own kinds follow."""
    parts = ["api" if "/" not in version else "apis", version]
    if namespace and kind not in _CLUSTER_WIDE:
        parts += ["namespaces", namespace]
    lower = kind.lower()
    parts.append(f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}es" if lower.endswith("s") else f"{lower}s")
    return "/" + "/".join([*parts, *([name] if name else [])])


def _asked(rules: Iterable[Mapping[str, Any]], namespace: str) -> Iterator[Json]:
    """What the rules allow, one question each."""
    for rule in rules:
        for group, resource, verb, name in itertools.product(
            rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [""])
        ):
            yield {"namespace": namespace, "group": group, "resource": resource, "verb": verb, "name": name}
