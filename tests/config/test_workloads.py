"""`profiles.<id>.wif`: what a workload's identity has to be told, and what contradicts it."""

from dataclasses import replace
from pathlib import Path

import pytest

from equabot_broker.config.load import load
from equabot_broker.oauth.workload import Workload
from equabot_broker.providers import PROVIDERS
from equabot_broker.schema.faults import ConfigurationFaults
from tests.config.test_assemble import faults, sound

ANTHROPIC = "token_file: /t/a, federation_rule_id: fdrl_1, organization_id: o-1, service_account_id: svac_1"
OPENAI = "token_file: /t/o, identity_provider_id: idp_1, service_account_id: user_1"
OPENROUTER = "token_file: /t/r, federation_policy_id: p-1"


def test_every_vendor_has_its_own_fields() -> None:
    """`mode: wif` goes without saying; a path starts where the file is."""
    config = sound(
        f"profiles:\n"
        f"  claude:pod: {{mode: wif, wif: {{{ANTHROPIC}, workspace_id: default}}}}\n"
        f"  openai:pod: {{wif: {{{OPENAI}, subject_token_type: id_token}}}}\n"
        f"  openrouter:pod: {{wif: {{{OPENROUTER.replace('/t/r', 'r')}}}}}\n"
    )
    told = {"federation_rule_id": "fdrl_1", "organization_id": "o-1", "service_account_id": "svac_1", "workspace_id": "default"}
    assert config.workloads == (
        Workload(profile="anthropic:pod", provider="anthropic", token_file="/t/a", fields=told),
        Workload(
            profile="openai:pod",
            provider="openai",
            token_file="/t/o",
            fields={"identity_provider_id": "idp_1", "service_account_id": "user_1"},
            token_type="id_token",
        ),
        Workload(
            profile="openrouter:pod",
            provider="openrouter",
            token_file="/etc/equabot/r",
            fields={"federation_policy_id": "p-1"},
        ),
    )


def test_every_fault_is_told_at_once() -> None:
    """Each where it is, with what would be right."""
    takes = "token_file, federation_rule_id, organization_id, service_account_id, workspace_id"
    characters = "letters, digits, -, _, . and :, without spaces"
    assert faults(
        "profiles:\n"
        "  anthropic:a: {wif: {token_file: /t, identity_provider_id: idp_1, federation_rule_id: x, subject_token_type: jwt}}\n"
        "  openai:b: {mode: wif}\n"
        "  groq:c: {wif: {token_file: /t}}\n"
        f"  openai:d: {{mode: api_key, from: {{env: D}}, expires_at: 2030-01-01T00:00:00Z, wif: {{{OPENAI}}}}}\n"
        f"  openrouter:e: {{wif: {{{OPENROUTER}, subject_token_type: id_token}}}}\n"
        "  openai:f: {wif: {identity_provider_id: idp_1}}\n"
        "  openai:g: {wif: {token_file: /t, identity_provider_id: 'a b', service_account_id: [x]}}\n"
        "  openai:h: {mode: wif, from: {env: H}}\n"
    ) == [
        "2: profiles.anthropic:a.wif: lacks organization_id and service_account_id, which anthropic needs; add it",
        f"2: profiles.anthropic:a.wif.identity_provider_id: is not a field of anthropic; use one of {takes}",
        f"2: profiles.anthropic:a.wif.subject_token_type: is not a field of anthropic; use one of {takes}",
        "3: profiles.openai:b: has mode: wif, but no section wif that describes the identity; add it",
        "4: profiles.groq:c.wif: groq does not support workload identities; anthropic, openai, openrouter do",
        "5: profiles.openai:d.mode: is api_key, but the section wif needs mode wif; keep one of the two",
        "5: profiles.openai:d.from: cannot be used with wif, because the secret comes from an exchange; remove it",
        "5: profiles.openai:d.expires_at: cannot be used with wif, because each exchange returns an end; remove it",
        "6: profiles.openrouter:e.wif.subject_token_type: is not a type of token that openrouter accepts; use one of jwt",
        "7: profiles.openai:f.wif: lacks token_file; add it",
        f"8: profiles.openai:g.wif.identity_provider_id: must be an identifier as the vendor shows it: {characters}",
        "8: profiles.openai:g.wif.service_account_id: must be a single value, not a list",
        "9: profiles.openai:h: has mode: wif, but no section wif that describes the identity; add it",
        "9: profiles.openai:h.from: cannot be used with wif, because the secret comes from an exchange; remove it",
    ]


def test_a_credential_is_no_identifier() -> None:
    """It would be sent along, and shown."""
    key = "sk-ant-api03-" + "canary00" * 4
    (fault,) = faults(f"profiles:\n  openrouter:pod: {{wif: {{token_file: /t, federation_policy_id: {key}}}}}")
    assert fault == (
        "2: profiles.openrouter:pod.wif.federation_policy_id: is a credential, which does not belong here; "
        "write the identifier that the vendor shows"
    )


VARIABLES = {
    "ANTHROPIC_IDENTITY_TOKEN_FILE": "/var/run/secrets/anthropic.com/token",
    "ANTHROPIC_FEDERATION_RULE_ID": "fdrl_1",
    "ANTHROPIC_ORGANIZATION_ID": "o-1",
    "ANTHROPIC_SERVICE_ACCOUNT_ID": "svac_1",
}


def test_what_is_set_up_for_the_vendors_own_sdk_is_enough(tmp_path: Path) -> None:
    """All of its variables, that is; a workspace may be missing."""
    told = {"federation_rule_id": "fdrl_1", "organization_id": "o-1", "service_account_id": "svac_1"}
    made = Workload(
        profile="anthropic:workload", provider="anthropic", token_file="/var/run/secrets/anthropic.com/token", fields=told
    )
    assert load(environ=VARIABLES, home=tmp_path).workloads == (made,)
    scoped = load(environ=VARIABLES | {"ANTHROPIC_WORKSPACE_ID": "default"}, home=tmp_path).workloads
    assert scoped == (replace(made, fields=told | {"workspace_id": "default"}),)
    for name in VARIABLES:
        assert load(environ=VARIABLES | {name: ""}, home=tmp_path).workloads == ()


def test_the_file_goes_before_variables(tmp_path: Path) -> None:
    """A provider that it configures a workload of has no other; those of other providers leave the variables alone."""
    for profile, expected in (("claude:pod", ["anthropic:pod"]), ("openai:pod", ["openai:pod", "anthropic:workload"])):
        file = tmp_path / "equabot.yaml"
        file.write_text(f"profiles: {{{profile}: {{wif: {{{ANTHROPIC if 'claude' in profile else OPENAI}}}}}}}")
        config = load(config_path=str(file), environ=VARIABLES, home=tmp_path)
        assert [workload.profile for workload in config.workloads] == expected


def test_a_variable_that_is_no_identifier_is_a_fault(tmp_path: Path) -> None:
    """It is named, and not shown."""
    with pytest.raises(ConfigurationFaults) as refused:
        load(environ=VARIABLES | {"ANTHROPIC_ORGANIZATION_ID": "a canary"}, home=tmp_path)
    (fault,) = refused.value.faults
    assert (fault.where, "must be an identifier" in fault.message) == ("ANTHROPIC_ORGANIZATION_ID", True)
    assert "canary" not in str(refused.value)


def test_another_endpoint_is_asked() -> None:
    """`token_url` names it for exchanges too; how it is asked stays."""
    config = sound(
        f"providers: {{anthropic: {{token_url: 'https://a.example/t'}}}}\nprofiles: {{anthropic:p: {{wif: {{{ANTHROPIC}}}}}}}"
    )
    before, after = PROVIDERS["anthropic"].exchange, config.catalog.providers["anthropic"].exchange
    assert before is not None
    assert after is not None
    assert (after.url, after.needs, after.headers) == ("https://a.example/t", before.needs, before.headers)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/t",
        "http://localhost/t",
        "http://10.1.2.3/t",
        "http://sts.infra.svc/t",
        "http://issuer:80/t",
        "https://x.y/t",
    ],
)
def test_nearby_an_identity_may_go_in_the_clear(url: str) -> None:
    """As it does to a mesh's own proxy, or in a test."""
    config = sound(f"providers: {{openai: {{token_url: '{url}'}}}}\nprofiles: {{openai:p: {{wif: {{{OPENAI}}}}}}}")
    assert Path(config.workloads[0].token_file) == Path("/t/o")


@pytest.mark.parametrize("url", ["http://auth.example.com/t", "http://8.8.8.8/t", "http://svc.example/t"])
def test_further_away_it_may_not(url: str) -> None:
    """Whoever reads it on its way could exchange it as well."""
    text = f"providers:\n  openai:\n    token_url: '{url}'\nprofiles: {{openai:p: {{wif: {{{OPENAI}}}}}}}"
    assert faults(text) == ["3: providers.openai.token_url: would send identity tokens without encryption; use https"]
    assert faults(text.partition("profiles")[0]) == []
