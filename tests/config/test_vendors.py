"""How `providers` changes and adds to the built-in facts."""

from dataclasses import replace

import pytest

from equabot_broker.config.keys import read
from equabot_broker.config.vendors import Known
from equabot_broker.domain.provider import EnvName, HeaderForm, Mode, Provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.routing.request_rules import rules
from equabot_broker.schema.reading import FaultReport


def known(text: str) -> tuple[Known, list[str]]:
    report = FaultReport("f.yaml")
    found = Known(read(text, report).providers, report)
    return found, [str(fault) for fault in report.faults()]


def test_nothing_said_is_the_built_in_facts() -> None:
    """Without the section the catalogue is what ships."""
    assert known("")[0].catalog.providers == PROVIDERS


def test_an_override_changes_only_what_it_says() -> None:
    """In any spelling of the provider; the rest stays built in."""
    found, faults = known("providers: {claude: {base_url: 'http://10.0.0.1:4000/v1', headers: {api_key: {name: X-Key}}}}")
    built_in = PROVIDERS["anthropic"]
    assert faults == []
    assert found.catalog.providers["anthropic"] == replace(
        built_in,
        base_url="http://10.0.0.1:4000/v1",
        headers={**built_in.headers, Mode.API_KEY: HeaderForm("X-Key", "", {})},
        form=None,
    )


@pytest.mark.parametrize(
    ("base_url", "passes", "refused"),
    [
        ("http://10.0.0.1:4000/v1", "/v1/responses", "/v1/v1/responses"),
        ("http://10.0.0.1:4000/gpt/v1", "/gpt/v1/responses", "/gpt/v1/v1/responses"),
        ("http://10.0.0.1:4000", "/responses", "/v1/v1/responses"),
        ("http://10.0.0.1:4000/", "/v1/responses", "/realtime/client_secrets"),
        ("http://10.0.0.1:4000/gpt", "/gpt/v1/responses", "/gpt/v1/realtime/client_secrets"),
    ],
)
def test_the_built_in_requests_hold_at_another_address(base_url: str, passes: str, refused: str) -> None:
    """S1: an address alone opens nothing that the vendor's own does not."""
    found, faults = known(f"providers: {{openai: {{base_url: '{base_url}'}}}}")
    openai = found.catalog.providers["openai"]
    assert (faults, openai.gateway_fault) == ([], "")
    asked = rules(openai.requests, openai.base_path)
    assert asked.allow("POST", passes)
    assert not asked.allow("POST", refused)


def test_requests_that_are_given_replace_the_built_in_ones() -> None:
    """Whole, also at another address; none at all close the gateway to the provider."""
    text = "{{base_url: 'http://10.0.0.1:4000', requests: {}}}"
    for written, taken in (('["* /**"]', ("/**",)), ('["GET /models"]', ("GET /models",)), ("[]", ())):
        found, faults = known(f"providers: {{openai: {text.format(written)}}}")
        assert faults == []
        assert found.catalog.providers["openai"].requests == taken
        assert bool(found.catalog.providers["openai"].gateway_fault) is (not taken)


@pytest.mark.parametrize("written", ["post /v1/x", "/v1/x?y", "/v1/{a}{b}", "everything"])
def test_a_rule_that_is_none_is_a_fault(written: str) -> None:
    """Said with examples of what would be one."""
    [told] = known(f"providers: {{openai: {{requests: ['{written}']}}}}")[1]
    assert told.startswith("f.yaml:1: providers.openai.requests[0]: must be a method and a path, like POST /v1/messages, ")
    assert told.endswith(f"or * /** for everything, with ! before what is not allowed, not '{written}'")


def test_websockets_are_declared_like_requests() -> None:
    """C8: for a provider of one's own none but those; a built-in list is replaced, and holds at another address."""
    acme = "env: {ACME_API_KEY: api_key}, base_url: 'https://acme.example/v1', requests: ['* /**']"
    assert known(f"providers: {{acme: {{{acme}}}}}")[0].catalog.providers["acme"].websockets == ()
    found, faults = known(f"providers: {{acme: {{{acme}, websockets: ['/live', 'GET  /rooms/{{room}}', '!/rooms/x']}}}}")
    assert faults == []
    assert found.catalog.providers["acme"].websockets == ("/live", "GET /rooms/{room}", "!/rooms/x")
    openai = known("providers: {openai: {base_url: 'http://10.0.0.1:4000'}}")[0].catalog.providers["openai"]
    assert rules(openai.websockets, openai.base_path).allow("GET", "/v1/responses")
    assert rules(openai.websockets, openai.base_path).allow("GET", "/responses")
    assert known("providers: {openai: {websockets: []}}")[0].catalog.providers["openai"].websockets == ()


@pytest.mark.parametrize("written", ["POST /live", "!PUT /live", "HEAD /live"])
def test_a_websocket_is_opened_with_get(written: str) -> None:
    """C8: a rule with another method would never match; the fault says what to write."""
    [told] = known(f"providers: {{openai: {{websockets: ['{written}']}}}}")[1]
    assert told.startswith("f.yaml:1: providers.openai.websockets[0]: must be a path, like /v1/realtime, because a WebSocket")
    assert told.endswith(f"not '{written}'")


def test_a_new_provider_needs_little() -> None:
    """A variable is enough: its lists, its SDK's variable and a bearer header follow."""
    found, faults = known("providers: {acme: {env: {ACME_API_KEY: api_key, ACME_TOKEN: token, ACME_OLD: token}}}")
    assert faults == []
    assert found.catalog.get("acme") == Provider(
        id="acme",
        env_names=(EnvName("ACME_API_KEY"), EnvName("ACME_TOKEN", Mode.TOKEN), EnvName("ACME_OLD", Mode.TOKEN)),
        list_env_names=("ACME_API_KEYS",),
        sdk_env={Mode.API_KEY: "ACME_API_KEY", Mode.TOKEN: "ACME_TOKEN"},
    )


def test_every_fact_can_be_given() -> None:
    """All keys of the section arrive."""
    found, faults = known("""
providers:
  acme:
    base_url: https://api.acme.example
    base_url_env: ACME_BASE_URL
    env: {ACME_TOKEN: token}
    env_lists: [ACME_KEYS]
    headers: {token: {prefix: "Token ", extra: {X-V: "2"}}}
    sdk_env: {token: ACME_SDK}
    key_prefixes: [acme_]
    token_prefixes: [acmet_]
    aliases: [acme-ai]
    token_url: https://login.acme.example/token
    token_encoding: form
    client_id: me
""")
    assert faults == []
    assert found.catalog.get("acme-ai") == Provider(
        id="acme",
        aliases=("acme-ai",),
        env_names=(EnvName("ACME_TOKEN", Mode.TOKEN),),
        list_env_names=("ACME_KEYS",),
        headers={Mode.TOKEN: HeaderForm("Authorization", "Token ", {"X-V": "2"})},
        sdk_env={Mode.TOKEN: "ACME_SDK"},
        base_url="https://api.acme.example",
        base_url_env="ACME_BASE_URL",
        key_prefixes=("acme_",),
        token_prefixes=("acmet_",),
        token_url="https://login.acme.example/token",
        token_encoding="form",
        client_id="me",
    )


def test_names_and_variables_have_one_owner() -> None:
    """A second owner would hide the first, or make two profiles of one key."""
    text = """
providers:
  acme:
    aliases: [anthropic, other]
    env: {OPENAI_API_KEY: api_key}
  other: {env: {X: api_key}}
  more: {env: {X: api_key}}
"""
    assert known(text)[1] == [
        "f.yaml:4: providers.acme.aliases: 'anthropic' is also a name of anthropic; choose another name",
        "f.yaml:4: providers.acme.aliases: 'other' is also a name of other; choose another name",
        "f.yaml:5: providers.acme.env: OPENAI_API_KEY is also a variable of openai; choose another variable",
        "f.yaml:5: providers.acme.env: OPENAI_API_KEYS is also a variable of openai; choose another variable",
        "f.yaml:7: providers.more.env: X is also a variable of other; choose another variable",
    ]


def test_a_provider_is_changed_once() -> None:
    """Two sections for one provider would contradict each other silently."""
    assert known("providers:\n  zai: {client_id: a}\n  z.ai: {client_id: b}\n")[1] == [
        "f.yaml:3: providers.z.ai: is another spelling of zai, which is listed above; keep one"
    ]
