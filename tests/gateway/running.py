"""A broker with a real Envoy before it, and a vendor on loopback behind that."""

import http.client
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from equabot_client import Lease
from tests.fakes.upstream import Upstream
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.ports import free_port
from tests.tiers import program, require

OPENAI_KEY: Final = "sk-proj-" + "gateway0" * 12
DOTENV: Final = f"ANTHROPIC_API_KEY={KEY}\nOPENAI_API_KEY={OPENAI_KEY}\n"
TWO_KEYS: Final = f"ANTHROPIC_API_KEY={KEY}\nANTHROPIC_API_KEY_SECOND={OTHER_KEY}\n"
MESSAGES: Final = "/anthropic/v1/messages"
HELLO: Final[Any] = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """Why the gateway refused, in the contract's word; empty for what it let through."""
        return self.headers.get("x-equabot-reason", "")

    def json(self) -> Any:
        return json.loads(self.body)


class Gateway(RunningBroker):
    """`equabot serve` with a gateway. Providers lie at the vendor; `config` adds sections, and keys to them."""

    def __init__(self, vendor: Upstream, *, mode: str = "child", dotenv: str = DOTENV, **config: Any) -> None:
        require("envoy")
        super().__init__(credentials={}, dotenv=dotenv, config="")
        self.vendor = vendor
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.envoy_log = self.home / "envoy.log"
        self.environ["EQUABOT_LISTEN_GATEWAY"] = f"127.0.0.1:{self.port}"
        self.configure(
            {
                "gateway": {"mode": mode, "envoy": str(program("envoy"))},
                "providers": {"anthropic": {"base_url": vendor.url}, "openai": {"base_url": f"{vendor.url}/v1"}},
            },
            config,
        )

    def configure(self, *documents: Mapping[str, Any]) -> None:
        """Writes its configuration: the sections of the first, with what the next ones add to them."""
        whole: dict[str, Any] = {}
        for document in documents:
            for name, section in document.items():
                whole[name] = whole.get(name, {}) | section if isinstance(section, Mapping) else section
        (self.home / "equabot.yaml").write_text(yaml.safe_dump(whole))

    @property
    def envoy_config(self) -> Path:
        """What it writes for Envoy."""
        return self.run_dir / "gateway" / "envoy.yaml"

    @contextmanager
    def envoy(self, config: Path | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """Envoy beside the broker, as in a pod, listening."""
        with self.envoy_log.open("ab") as log:
            how = ("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
            command = [str(program("envoy")), "-c", str(config or self.envoy_config), *how]
            process = subprocess.Popen(command, env={}, stdout=log, stderr=log)
        try:
            self.wait_for(lambda: process.poll() is not None or _listens(self.port))
            assert process.poll() is None, self.envoy_log.read_text()
            yield process
        finally:
            process.kill()
            process.wait(60)

    def lease(self, provider: str = "anthropic", *, agent: str = "main", **wanted: Any) -> Lease:
        """A brokered lease, which nobody renews."""
        with self.connect(agent) as broker:
            return broker.acquire(provider, delivery="brokered", **wanted)

    def ask(self, token: str, path: str = MESSAGES, *, method: str = "POST", body: Any = HELLO, **headers: str) -> Told:
        """A request with the token where Anthropic's package puts it, unless there is none."""
        given = {"content-type": "application/json"} | ({"x-api-key": token} if token else {})
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=None if method in ("GET", "HEAD") else json.dumps(body), headers=given)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Told(answer.status, told, answer.read())
        finally:
            connection.close()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the audit log tells of a kind."""
        return [record for record in map(json.loads, self.audit().splitlines()) if record["kind"] == kind]

    def wait_answered(self, count: int) -> None:
        """Returns once the broker has heard of so many answers: what follows from them counts then."""
        self.wait_for(lambda: len(self.events("used")) >= count)

    def written(self) -> dict[str, bytes]:
        """Everything that it and its Envoy have written, but where the key is kept."""
        files = (path for path in self.home.rglob("*") if path.is_file() and path != self.dotenv)
        return {str(path.relative_to(self.home)): path.read_bytes() for path in files}


def agent_environ(gateway: Gateway, **given: str) -> dict[str, str]:
    """What a process of an agent has, that was started without the broker's help."""
    return {"PATH": os.environ["PATH"], "HOME": str(gateway.home / "agent"), "LANG": "C.UTF-8"} | given


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
