"""The gateway follows a configuration that is reloaded: providers come, move and go while an answer is under way."""

import http.client
import json
import threading

from tests.fakes.upstream import Answer, Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import DOTENV, HELLO, MESSAGES, Gateway
from tests.tiers import program

LAB = {"env": {"LAB_API_KEY": "api_key"}, "requests": ["POST /v1/**"]}
AT_LAB = "/lab/v1/things"


def _reconfigure(gateway: Gateway, vendor: Upstream, **providers: object) -> None:
    known = {"anthropic": {"base_url": vendor.url}, "openai": {"base_url": f"{vendor.url}/v1"}}
    envoy = {"mode": "child", "envoy": str(program("envoy"))}
    gateway.configure({"gateway": envoy, "providers": known | providers})
    done = gateway.run("reload")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_provider_comes_moves_and_goes_while_an_answer_streams(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """C15: the answer that is under way goes on to its end; each request goes where the configuration says then."""
    gateway = make_gateway(dotenv=f"{DOTENV}LAB_API_KEY=0123456789-lab-key\n").start()
    going_on = threading.Event()
    vendor.answers.append(Answer(chunks=[b"first", going_on, b"last"]))
    token = gateway.lease().secret.reveal()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.request("POST", MESSAGES, json.dumps(HELLO), {"content-type": "application/json", "x-api-key": token})
    answer = connection.getresponse()
    assert answer.read(5) == b"first"

    assert gateway.ask(token, AT_LAB).status == 404
    with Upstream() as elsewhere:
        _reconfigure(gateway, vendor, lab={"base_url": vendor.url, **LAB})
        lab = gateway.lease("lab").secret.reveal()
        gateway.wait_for(lambda: gateway.ask(lab, AT_LAB).status == 200)
        assert vendor.received[-1].path == "/v1/things"

        _reconfigure(gateway, vendor, lab={"base_url": elsewhere.url, **LAB})
        gateway.wait_for(lambda: gateway.ask(lab, AT_LAB).status == 200)
        before = len(vendor.received)
        assert gateway.ask(lab, AT_LAB).status == 200
        assert (len(vendor.received), elsewhere.received[-1].path) == (before, "/v1/things")

        _reconfigure(gateway, vendor)
        assert gateway.ask(lab, AT_LAB).status in (401, 404)
        gateway.wait_for(lambda: gateway.ask(lab, AT_LAB).status == 404)

    going_on.set()
    assert answer.read() == b"last"
    connection.close()
    assert gateway.ask(token).status == 200
