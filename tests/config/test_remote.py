"""The agents' API over TCP in the configuration: what it comes to, and the rules between listeners and agents."""

from pathlib import Path

import pytest

from equabot_broker.config.assemble import Surroundings, assemble
from equabot_broker.config.keys import read
from equabot_broker.config.model import CertificateListener, Config, Remote, TokenListener
from equabot_broker.domain.callers import Callers
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.schema.reading import FaultReport
from equabot_broker.schema.values import Address

AGENTS = "agents: {main: {service_accounts: [a/b], certificates: [x]}}\n"
FILES = "certificate: tls/tls.crt, key: /k"
BOTH = "service_accounts: {address: '0.0.0.0:8443'}, client_certificates: {address: '0.0.0.0:8444', ca: ~/ca.crt}"


def assembled(text: str) -> tuple[Config, list[str]]:
    report = FaultReport("f.yaml")
    around = Surroundings(
        file=Path("/etc/equabot/equabot.yaml"), user_home=Path("/home/me"), home=Path("/home/me/.equabot"),
        run_dir=None, default_run_dir=Path("/run/equabot"),
    )  # fmt: skip
    config = assemble(read(text + "sources: [env]\n", report), around, report)
    return config, [str(fault).removeprefix("f.yaml:") for fault in report.faults()]


def test_nothing_listens_by_default() -> None:
    """TCP is for those who ask for it."""
    assert assembled("")[0].remote is None
    assert assembled("listen: {health: '0.0.0.0:1'}\n")[0].remote is None


def test_what_is_written_is_what_listens() -> None:
    """Paths in full; agents by who may call as them, and not in their policies."""
    config, faults = assembled(
        f"listen: {{agents: {{{FILES}, {BOTH}}}}}\n"
        "agents:\n"
        "  main: {service_accounts: [ns/one, ns/two]}\n"
        "  coder: {providers: [openai], service_accounts: [other/one], certificates: ['spiffe://x/y', coder]}\n"
    )
    assert faults == []
    assert config.remote == Remote(
        certificate=Path("/etc/equabot/tls/tls.crt"),
        key=Path("/k"),
        service_accounts=TokenListener(address=Address("0.0.0.0", 8443)),
        client_certificates=CertificateListener(address=Address("0.0.0.0", 8444), ca=Path("/home/me/ca.crt")),
        callers=Callers(
            accounts={"ns/one": "main", "ns/two": "main", "other/one": "coder"},
            certificates={"spiffe://x/y": "coder", "coder": "coder"},
        ),
    )
    assert config.policies.of("coder") == AgentPolicy(providers=frozenset({"openai"}))


def test_published_keys_have_options_of_their_own() -> None:
    """A file with its issuer, or an API server, whose word on the issuer may be replaced."""
    for options, listener in (
        (
            "validate: published_keys, keys: k.json, issuer: 'https://i', audience: mine",
            TokenListener(
                address=Address("::", 1), audience="mine", published=True, keys=Path("/etc/equabot/k.json"), issuer="https://i"
            ),
        ),
        (
            "validate: published_keys, kubeconfig: ~/kc",
            TokenListener(address=Address("::", 1), published=True, kubeconfig=Path("/home/me/kc")),
        ),
    ):
        text = f"listen: {{agents: {{{FILES}, service_accounts: {{address: '[::]:1', {options}}}}}}}\n"
        config, faults = assembled(text + "agents: {main: {service_accounts: [a/b]}}\n")
        assert faults == []
        assert config.remote is not None
        assert config.remote.service_accounts == listener


def listening(options: str) -> str:
    return f"listen: {{agents: {{{FILES}, {options}}}}}\n"


def for_tokens(options: str) -> str:
    """For tokens alone, with such options; one agent may call."""
    return listening(f"service_accounts: {{address: '0.0.0.0:1', {options}}}") + ONE


ONE = "agents: {main: {service_accounts: [a/b]}}\n"
AT = "listen.agents"
NOBODY = "would accept no caller; add agents.<agent>"
TWICE = """\
agents:
  main: {service_accounts: [a/b], certificates: [x]}
  coder: {service_accounts: [a/c, a/b], certificates: [x]}
"""
PORTS = """\
listen:
  agents:
    certificate: /c
    key: /k
    service_accounts: {address: '0.0.0.0:8686'}
    client_certificates: {address: '127.0.0.1:8686', ca: /ca}
"""
NO_ACCOUNTS = "agents: {main: {service_accounts: [reviewer, a/B, a/b], certificates: [x]}}\n"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (f"listen: {{agents: {{{BOTH}}}}}\n{AGENTS}", [f"1: {AT}: lacks certificate and key; add it"]),
        (f"listen: {{agents: {{{FILES}}}}}\n{AGENTS}", [f"1: {AT}: does not define how callers authenticate; add service_"]),
        (AGENTS, [f"1: agents.main.{key}: has no listener; add {AT}," for key in ("service_accounts", "certificates")]),
        (
            listening("service_accounts: {address: '0.0.0.0:1'}") + AGENTS,
            [f"2: agents.main.certificates: has no listener; add {AT}.client_certificates, or remove it"],
        ),
        (
            listening(BOTH) + "agents: {main: {certificates: [x]}}\n",
            [f"1: {AT}.service_accounts: {NOBODY}.service_accounts for at least one agent"],
        ),
        (
            listening(BOTH),
            [f"1: {AT}.service_accounts: {NOBODY}.service_accounts", f"1: {AT}.client_certificates: {NOBODY}.certificates"],
        ),
        (
            listening(BOTH) + TWICE,
            [f"4: agents.coder.{key}: has a name that agent main also" for key in ("service_accounts", "certificates")],
        ),
        (
            for_tokens("keys: /k, issuer: x"),
            [f"1: {AT}.service_accounts.{key}: needs validate: published_keys; add that" for key in ("keys", "issuer")],
        ),
        (
            for_tokens("validate: published_keys, keys: /k, kubeconfig: /c"),
            [
                f"1: {AT}.service_accounts.kubeconfig: cannot be used together with keys; keep one of the two",
                f"1: {AT}.service_accounts.keys: needs issuer; add the one that `kubectl get --raw",
            ],
        ),
        (
            PORTS + AGENTS,
            [
                f"5: {AT}.service_accounts.address: has the port of listen.health (127.0.0.1:8686); choose another port",
                f"6: {AT}.client_certificates.address: has the port of listen.health (127.0.0.1:8686); choose",
                f"6: {AT}.client_certificates.address: has the port of {AT}.service_accounts.address (0.0.0.0:8686); choose",
            ],
        ),
        (
            listening(BOTH) + NO_ACCOUNTS,
            [
                "2: agents.main.service_accounts[0]: 'reviewer' is not a service account; write namespace/name, such as",
                "2: agents.main.service_accounts[1]: 'a/B' is not a service account; write namespace/name, such as",
            ],
        ),
        (for_tokens("validate: x"), [f"1: {AT}.service_accounts.validate: 'x' is not one of token_review, published_keys"]),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_would(text: str, faults: list[str]) -> None:
    """All of it at once; an address at which nobody would be let in, and callers who have none, are mistakes."""
    found = assembled(text)[1]
    assert len(found) == len(faults)
    assert [fault[: len(begun)] for fault, begun in zip(found, faults, strict=True)] == faults


def test_a_key_in_the_place_of_a_name_is_not_repeated() -> None:
    """What might be a credential is only described."""
    key = "sk-ant-api03-canary" + "0" * 40
    found = assembled(listening(BOTH) + f"agents: {{main: {{service_accounts: [{key}], certificates: [x]}}}}\n")[1]
    assert len(found) == 1
    assert "canary" not in found[0]
