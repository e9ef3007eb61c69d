"""Loads the `kubernetes` package, and the configuration with which it finds an API server and authenticates to it."""

import asyncio
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from equabot_broker.files.reading import Unreadable, read_some, read_whole
from equabot_broker.kube._faults import KubeFault

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient, Configuration

MOUNTED: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's service account."""

_IN_POD: Final = ("token", "ca.crt", "namespace")
_LOAD_WITHIN: Final = 30.0
_SIZE_MAX: Final = 1 << 20
_LOADING: Final = threading.Lock()
_PARENTS: Final = ("kubernetes", "kubernetes.aio")


class LoadedClient(NamedTuple):
    """The address of the API server, the account, and the default namespace."""

    configuration: "Configuration"
    namespace: str


def import_client() -> None:
    """Imports the parts of the package that are used here. It takes a quarter of a second.

    The two top modules of the package import all of it, with its blocking clients (9 MiB). During this import, empty
    modules replace them. A later import of the package gets all of it.
    """
    with _LOADING:
        standins = [name for name in _PARENTS if name not in sys.modules]
        for name in standins:
            module = ModuleType(name)
            module.__path__ = _folders(name)
            sys.modules[name] = module
        try:
            import kubernetes.aio.client.api_client  # noqa: PLC0415 - loaded only for a broker that uses the Kubernetes API
            import kubernetes.aio.config  # noqa: F401, PLC0415
        finally:
            for name in standins:
                del sys.modules[name]


def _folders(name: str) -> list[str]:
    parent, _, child = name.rpartition(".")
    if parent:
        return [str(Path(folder) / child) for folder in sys.modules[parent].__path__]
    spec = find_spec(name)
    return list(spec.submodule_search_locations or ()) if spec else []


async def load(kubeconfig: Path | None, *, mounted: Path) -> LoadedClient:
    """Reads the kubeconfig, or without one the service account of the pod. Raises KubeFault (Unconfigured)."""
    fault = _unconfigured(kubeconfig, mounted)
    needed = [kubeconfig] if kubeconfig else [mounted / name for name in _IN_POD]
    if not all(map(_readable, needed)):
        raise fault  # the package would open a named pipe and wait for a writer
    try:
        async with asyncio.timeout(_LOAD_WITHIN):
            return await _of_file(kubeconfig) if kubeconfig else _of_pod(mounted)
    except Exception:  # noqa: BLE001 - the package raises any type, with parts of the file in the message
        raise fault from None


async def _of_file(kubeconfig: Path) -> LoadedClient:
    config, client = sys.modules["kubernetes.aio.config"], sys.modules["kubernetes.aio.client"]
    configuration = client.Configuration()
    loader = await config.load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
    context: Mapping[str, Any] = loader.current_context.get("context") or {}
    return LoadedClient(configuration, str(context.get("namespace") or "default"))


def _of_pod(mounted: Path) -> LoadedClient:
    loader = sys.modules["kubernetes.aio.config.incluster_config"]
    configuration = sys.modules["kubernetes.aio.client"].Configuration()
    # It reads the token again every minute.
    loader.InClusterConfigLoader(str(mounted / "token"), str(mounted / "ca.crt")).load_and_set(configuration)
    return LoadedClient(configuration, read_whole(mounted / "namespace", limit=_SIZE_MAX).decode().strip() or "default")


def make_client(configuration: "Configuration") -> "ApiClient":
    """Makes a client, in a running event loop. The client connects with its first request.

    Raises OSError or ValueError if a certificate cannot be used.
    """
    configuration.connection_pool_maxsize = 0  # each stream holds a connection: with a limit, requests would wait for streams
    client: ApiClient = sys.modules["kubernetes.aio.client.api_client"].ApiClient(configuration)
    client.user_agent = "equabot-broker"
    rest = client.rest_client
    rest.pool_manager = rest._create_pool_manager()  # noqa: SLF001 - its documentation says to override it
    # Otherwise the client silently repeats a GET, PUT or DELETE whose response is lost.
    rest.pool_manager._retry_connection = False  # noqa: SLF001 - there is no public name for it
    return client


def adopt(client: "ApiClient", fresh: "Configuration") -> None:
    """Gives another configuration to a client that is in use. Its connections stay open."""
    known = client.configuration
    known.host, known.api_key, known.refresh_api_key_hook = fresh.host, fresh.api_key, fresh.refresh_api_key_hook
    context = client.rest_client.ssl_context
    if fresh.ssl_ca_cert:
        context.load_verify_locations(fresh.ssl_ca_cert)
    if fresh.cert_file:
        context.load_cert_chain(fresh.cert_file, keyfile=fresh.key_file)


def _unconfigured(kubeconfig: Path | None, mounted: Path) -> KubeFault:
    if kubeconfig is not None:
        what = "cannot be read" if not _readable(kubeconfig) else "cannot be used"
        return KubeFault(
            f"the kubeconfig {kubeconfig} {what}: check that it exists and is readable, and that its current context names a"
            " cluster and a user whose files and programs exist",
            reason="Unconfigured",
        )
    missing = next((name for name in _IN_POD if not _readable(mounted / name)), "")
    why = f"{mounted / missing} cannot be read" if missing else "KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set"
    return KubeFault(
        f"the Kubernetes API is not configured ({why}): in a pod, mount the token of its service account; elsewhere, set a"
        " kubeconfig",
        reason="Unconfigured",
    )


def _readable(path: Path) -> bool:
    try:
        return bool(read_some(path, limit=_SIZE_MAX).data)
    except (FileNotFoundError, Unreadable):
        return False
