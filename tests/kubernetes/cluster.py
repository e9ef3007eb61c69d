"""A real Kubernetes API server with its etcd, as processes of the test's own: nothing is pulled, no node is needed.

There is the API with its storage, RBAC, admission and tokens, and nothing behind it: no kubelet and no controllers. So a
service account has to be created (no namespace brings a `default` one), a Deployment makes no pods, what is deleted takes
nothing with it, and a deleted namespace stays terminating.
"""

import base64
import contextlib
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import httpx

from tests.kubernetes.api import Api, Json, Refused
from tests.kubernetes.certificates import Authority, signing_key

ISSUER: Final = "https://kubernetes.default.svc"

# The kernel gives these to nobody who asks for any port, so they are ours again after a restart.
_PORTS: Final = range(20000, 30000)


class Cluster(Api):
    """The two programs of `assets`, with their files in an empty `directory` of a short name: etcd has a socket in it.

    Started and stopped as a context or by its methods, which block (`asyncio.to_thread` keeps a loop turning) and may be
    called in any order: address, certificates, accounts and data outlive every end.
    """

    def __init__(self, assets: Path, directory: Path, *, address: str = "127.0.0.1") -> None:
        self._assets = assets
        self._address = address
        self._directory = directory
        self._authority = Authority("test-cluster")
        self._token = secrets.token_urlsafe(32)
        self._port = _free_port()
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        trust = base64.b64encode(self._authority.pem).decode()
        super().__init__(
            {"server": f"https://{address}:{self._port}", "certificate-authority-data": trust}, {"token": self._token}
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        self.kill()  # nobody will want its data

    def start(self) -> None:
        """Returns once the server says that it is ready: two or three seconds. Nothing happens to one that runs."""
        if self._server is not None:
            return
        if not (self._directory / "tokens.csv").exists():
            self._prepare()
        try:
            self._etcd = self._launch("etcd", self._etcd_flags())
            self._server = self._launch("kube-apiserver", self._server_flags())
            self._until(self._ready, "ready")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Both end as they want to."""
        self.resume()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Both are gone at once; who is connected sees a reset."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stopped, and started with the same data at the same address.

        A server keeps no history over its end: whoever goes on from a `resourceVersion` of before is told 410 Gone.
        """
        self.stop()
        self.start()

    def pause(self) -> None:
        """The server falls silent: connections stay and are even accepted, and nothing is answered on them."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on where it was."""
        self._signal(signal.SIGCONT)

    def person(self, name: str, *groups: str) -> Json:
        """Somebody with a client certificate, as a kubeconfig's `user`. May do what RBAC allows the name and the groups."""
        pair = self._authority.client(name, *groups)
        return {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }

    @property
    def log(self) -> str:
        """The last that both wrote."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self._directory.glob("*.log"))
        )

    # --- the programs ---

    def _prepare(self) -> None:
        serving = self._authority.server(self._address, "localhost", "kubernetes.default.svc", "10.0.0.1")
        signing = signing_key()
        files = {
            "ca.pem": self._authority.pem,
            "tls.pem": serving.certificate,
            "tls.key": serving.key,
            "accounts.pem": signing.certificate,
            "accounts.key": signing.key,
            "tokens.csv": f'{self._token},admin,admin,"system:masters"\n'.encode(),
        }
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in files.items():
            (self._directory / name).write_bytes(content)

    def _etcd_flags(self) -> Sequence[str]:
        client, peer = f"unix://{self._directory}/etcd", f"unix://{self._directory}/peer"
        return (
            "--name=test",
            f"--data-dir={self._directory}/data",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )

    def _server_flags(self) -> Sequence[str]:
        files = self._directory
        return (
            f"--etcd-servers=unix://{files}/etcd",
            f"--bind-address={self._address}",
            f"--advertise-address={self._address}",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={files}/tls.pem",
            f"--tls-private-key-file={files}/tls.key",
            f"--client-ca-file={files}/ca.pem",
            f"--token-auth-file={files}/tokens.csv",
            "--authorization-mode=RBAC",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-signing-key-file={files}/accounts.key",
            f"--service-account-key-file={files}/accounts.pem",
            f"--service-account-jwks-uri={self.url}/openid/v1/jwks",
            "--service-cluster-ip-range=10.0.0.0/24",
        )

    def _launch(self, program: str, flags: Sequence[str]) -> subprocess.Popen[bytes]:
        # What a test starts shall not outlive it, however it ends: the kernel sees to that.
        guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with (self._directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen([*guard, self._assets / program, *flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _ready(self) -> bool:
        for process in (self._etcd, self._server):
            if process is not None and process.poll() is not None:
                raise AssertionError(f"it ended with {process.returncode}\n{self.log}")
        with contextlib.suppress(httpx.TransportError, Refused):
            return bool(self.call("GET", "/readyz", timeout=2))
        return False

    def _until(self, condition: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not {name} in time\n{self.log}")
            time.sleep(0.05)

    def _signal(self, number: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        # The server first: it would wait for its etcd.
        for process in (self._server, self._etcd):
            if process is None:
                continue
            process.send_signal(number)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._server = self._etcd = None


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
