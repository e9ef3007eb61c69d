"""The TypeScript client with a real broker over TLS, and through a real gateway."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.running import Gateway
from tests.journeys.conftest import MakeBroker, make_broker  # noqa: F401 - a fixture
from tests.journeys.running import KEY
from tests.kubernetes.certificates import Authority, Pair
from tests.languages import typescript
from tests.ports import free_port

CONFIG = """\
listen:
  agents:
    certificate: tls.crt
    key: tls.key
    client_certificates: {{address: "127.0.0.1:{port}", ca: tls.ca}}
agents:
  coder:
    providers: [anthropic]
    certificates: ["spiffe://cluster.local/ns/team/sa/coder"]
"""


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    typescript.build()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Upstream() as vendor:
        running = Gateway(vendor)
        try:
            yield running.start()
        finally:
            running.close()


def write(pair: Pair, certificate: Path, key: Path) -> None:
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)


def test_a_certificate_identifies_the_agent_and_is_renewed(make_broker: MakeBroker, tmp_path: Path) -> None:  # noqa: F811
    """A renewed certificate is used for the next connection, and one of another authority is refused with the reason."""
    port, authority = free_port(), Authority("authority")
    broker = make_broker(config=CONFIG.format(port=port), dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    write(authority.server("localhost", "127.0.0.1"), broker.home / "tls.crt", broker.home / "tls.key")
    for place in (broker.home / "tls.ca", tmp_path / "ca"):
        place.write_bytes(authority.pem)
    (broker.home / "tls.key").chmod(0o600)
    write(authority.caller("coder", "spiffe://cluster.local/ns/team/sa/coder"), tmp_path / "crt", tmp_path / "key")
    write(authority.caller("coder", "spiffe://cluster.local/ns/team/sa/coder"), tmp_path / "crt.new", tmp_path / "key.new")
    foreign = Authority("another").caller("coder", "spiffe://cluster.local/ns/team/sa/coder")
    write(foreign, tmp_path / "crt.foreign", tmp_path / "key.foreign")
    broker.start()
    environ = {
        "EQUABOT_BROKER_ADDRESS": f"localhost:{port}",
        "EQUABOT_BROKER_CA_FILE": str(tmp_path / "ca"),
        "EQUABOT_BROKER_CLIENT_CERTIFICATE": str(tmp_path / "crt"),
        "EQUABOT_BROKER_CLIENT_KEY": str(tmp_path / "key"),
    }
    keys = typescript.evaluate(
        f"""const {{ renameSync }} = require("node:fs");
        const broker = client.connect({{ timeoutMs: 60000 }});
        const first = (await broker.acquire("anthropic")).secret.reveal();
        for (const name of ["crt", "key"]) {{
            const path = {json.dumps(str(tmp_path))} + "/" + name;
            renameSync(path + ".new", path);
        }}
        const second = (await broker.acquire("anthropic")).secret.reveal();
        await broker.close();
        return [first, second];""",
        environ,
    )
    assert keys == [KEY, KEY]
    stranger = environ | {
        "EQUABOT_BROKER_CLIENT_CERTIFICATE": str(tmp_path / "crt.foreign"),
        "EQUABOT_BROKER_CLIENT_KEY": str(tmp_path / "key.foreign"),
    }
    reason = typescript.evaluate(
        'return client.connect({ timeoutMs: 5000 }).acquire("anthropic").catch((error) => error.reason)', stranger
    )
    assert reason in {"UNAUTHENTICATED", "BROKER_UNAVAILABLE"}
    assert '"agent":"coder"' in broker.audit()


def test_the_vendors_sdk_works_through_the_gateway_without_a_key(gateway: Gateway) -> None:
    """The process holds a lease token only. The vendor gets the key from the gateway."""
    environ = {"EQUABOT_BROKER_ADDRESS": f"unix:{gateway.socket()}"}
    told = typescript.evaluate(
        """const Anthropic = require("@anthropic-ai/sdk").default;
        const broker = client.connect({ timeoutMs: 60000 });
        const credential = broker.credential("anthropic", { delivery: "brokered" });
        const lease = await credential.lease();
        const claude = new Anthropic({ apiKey: "equabot", baseURL: await credential.baseUrl(), fetch: credential.fetch });
        const message = await claude.messages.create({
            model: "claude", max_tokens: 9, messages: [{ role: "user", content: "hi" }],
        });
        await broker.revoke(lease);
        const refused = await fetch(lease.baseUrl + "/v1/messages", {
            method: "POST", headers: { "content-type": "application/json", ...lease.headers }, body: "{}",
        });
        await broker.close();
        return [lease.delivery, lease.secret.reveal(), message.content.length, refused.status];""",
        environ,
    )
    delivery, token, content, refused = told
    assert (delivery, refused) == ("brokered", 401)
    assert content
    assert token != KEY
    assert [request.secret() for request in gateway.vendor.received][-1:] == [KEY]
