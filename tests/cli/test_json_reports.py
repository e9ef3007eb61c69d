"""`doctor`, `health` and `config check` for programs: one JSON document, stable keys, the same exit codes, no secret."""

import json
from typing import Any

import pytest

from tests.fakes.host import KEY, TOKEN, Done, Host
from tests.ports import free_port

CANARY = "sk-ant-api03-" + "c4nary" * 10


def answer(done: Done) -> dict[str, Any]:
    """The document, which is all of standard output."""
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_doctor_as_json_says_what_its_table_says(host: Host) -> None:
    """F11: the same findings, in their order, with the exit code of the table; --fix says what it did."""
    host.write_store(
        {"version": 1, "profiles": {"anthropic:manual": {"type": "token", "provider": "anthropic", "token": TOKEN}}}
    )
    host.store_path().chmod(0o644)
    host.write_config("required: [openai]\n")
    table, document = host.run("doctor"), host.run("doctor", "--json")
    found = answer(document)
    assert document.code == table.code == 1
    assert list(found) == ["findings", "counts", "fixed", "not_fixed"]
    assert all(list(one) == ["severity", "subject", "message", "remedy", "fixable"] for one in found["findings"])
    rows = ["\t".join((one["severity"], one["subject"], one["message"], one["remedy"])).rstrip() for one in found["findings"]]
    assert rows == table.out.splitlines()[:-1]
    assert found["counts"] == {
        severity: sum(one["severity"] == severity for one in found["findings"]) for severity in ("error", "warning", "info")
    }
    assert any(one["fixable"] for one in found["findings"])
    assert (found["fixed"], found["not_fixed"]) == ([], [])
    fixed = answer(host.run("doctor", "--json", "--fix"))
    assert fixed["fixed"]
    assert len(fixed["findings"]) < len(found["findings"])
    assert TOKEN[:20] not in document.out + document.err


def test_doctor_reports_a_configuration_that_is_refused(host: Host) -> None:
    """As findings, with the file and line."""
    host.write_config("requierd: [openai]\n")
    done = host.run("doctor", "--json")
    assert done.code == host.run("doctor").code == 1
    assert "did you mean 'required'?" in answer(done)["findings"][0]["message"]


def test_config_check_as_json(host: Host) -> None:
    """64 and the faults, or 0 and what applies."""
    host.write_config("required: [openai]\nproviders: {acme: {base_url: 'https://api.acme.dev'}}\n")
    done = host.run("config", "check", "--json")
    found = answer(done)
    assert (done.code, done.err) == (0, "")
    assert list(found) == ["valid", "file", "faults", "warnings", "effective"]
    assert (found["valid"], found["file"], found["faults"]) == (True, str(host.home / "equabot.yaml"), [])
    assert [list(one) for one in found["warnings"]] == [["severity", "subject", "message", "remedy"]]
    assert list(found["effective"]) == ["run_dir", "state_path", "listen", "agents", "sources", "required"]
    assert found["effective"]["required"] == ["openai"]
    assert list(found["effective"]["listen"]) == ["health", "metrics", "gateway"]
    host.write_config("requierd: [openai]\nlisten: {health: nowhere}\n")
    done = host.run("config", "check", "--json")
    found = answer(done)
    assert done.code == host.run("config", "check").code == 64
    assert (found["valid"], found["effective"], found["warnings"]) == (False, None, [])
    assert found["file"] == str(host.home / "equabot.yaml")
    assert [list(fault) for fault in found["faults"]] == [["where", "path", "message"]] * 2


def test_health_as_json_without_a_broker(host: Host) -> None:
    """Still a document, and still exit code 3."""
    address = f"127.0.0.1:{free_port()}"
    done = host.run("health", "provider/openai", "--json", "--address", address)
    found = answer(done)
    assert done.code == host.run("health", "provider/openai", "--address", address).code == 3
    assert list(found) == ["service", "status", "address", "message", "did_you_mean", "findings"]
    assert (found["service"], found["status"], found["address"]) == ("provider/openai", "NO_BROKER", address)
    assert found["message"] == f"no broker answers at {address}: start one with `equabot serve`"
    assert done.err == f"equabot: {found['message']}\n"


@pytest.mark.parametrize(
    "words", [("doctor", "--json"), ("config", "check", "--json"), ("health", "--json", "--address", "127.0.0.1:1")]
)
@pytest.mark.parametrize(
    "config", ["", f"required: ['{CANARY}']\n", f"{CANARY}: 1\n", f"providers: {{'{CANARY}': {{aliases: ['{CANARY}']}}}}\n"]
)
def test_no_secret_is_in_a_document(host: Host, words: tuple[str, ...], config: str) -> None:
    """Whatever is wrong, and wherever a key was put."""
    host.write_config(config)
    host.write_store({"version": 1, "profiles": {CANARY: {"type": "api_key", "provider": "anthropic", "key": KEY}}})
    (host.home / ".env").write_text(
        f"ANTHROPIC_API_KEY={CANARY}\nOPENAI_API_KEY\n{CANARY}\n{CANARY}=x\nANTHROPIC_KEY={CANARY}\n"
    )
    done = host.run(*words)
    for secret in ("c4naryc4nary", "k3yk3yk3y"):
        assert secret not in done.out + done.err
    json.loads(done.out)
