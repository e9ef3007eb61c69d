"""What cannot be a key is refused, for every provider, and no real key is."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.hygiene import Unclean, clean
from equabot_broker.discovery.key_forms import misshapen
from equabot_broker.domain.provider import Mode
from equabot_broker.providers import BUILT_IN, PROVIDERS

KEY = "sk-ant-api03-" + "w8Gz" * 12


def refusal(text: str, provider: str = "anthropic", mode: Mode = Mode.API_KEY) -> str:
    with pytest.raises(Unclean) as caught:
        clean(text, provider=PROVIDERS[provider], mode=mode, catalog=BUILT_IN)
    return caught.value.reason


NO_KEYS = {
    "op://Team/Anthropic/key": "a reference",
    "https://console.anthropic.com/settings/keys": "a reference",
    "ref+awsssm://llm/anthropic": "a reference",
    "awssm://llm/anthropic": "a reference",
    "vault:kv/llm#key": "a reference",
    "encrypted:BDq7+9HPMfLEIRVz50hmLXPXRuDBXaJiw==": "a reference",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:llm-AbCdEf": "a reference",
    "secret:llm/anthropic": "a reference",
    "file:/run/secrets/anthropic": "a reference",
    "ENC[AES256_GCM,data:p673w==,iv:YY=,tag:A==,type:str]": "a reference",
    "ENC(G6N718UuyPE5bHyWKyuLQSm02auQPUtm)": "a reference",
    "{cipher}AQB8Jp1e0x7C9a5K": "a reference",
    "@Microsoft.KeyVault(SecretUri=x)": "a reference",
    "!vault|secret": "a reference",
    "projects/42/secrets/anthropic/versions/latest": "a reference",
    "1password:Team/Anthropic": "a reference",
    "secret/data/llm": "a reference",
    "process.env.LLM": "a reference",
    "os.environ/LLM": "a reference",
    "secrets.LLM": "a reference",
    "LLM_GATEWAY_KEY": "a reference",
    "gAAAAAB" + "mZ1Yk3ab" * 12 + "==": "a reference",
    "U2FsdGVkX1+vupppZksvRf5pq5g5XjFRIipRkwB0K1Y=": "a reference",
    "AgBy3i4O" + "JSWK+Pi/" * 50: "a reference",
    "age1" + "ql3z7hjy" * 7: "a reference",
    "api.anthropic.com": "an address",
    "localhost.localdomain.internal:4000/v1": "an address",
    "/run/secrets/anthropic_api_key": "a path",
    "~/.secrets/anthropic": "a path",
    "C:\\secrets\\anthropic": "a path",
    "anthropic.key": "a path",
    "llm/anthropic.txt": "a path",
    "AKIAIOSFODNN7EXAMPLE": "of another service",
    "xoxb-1234-5678-abcdefghijkl": "of another service",
    "sk_live_abcdefghijklmnop12345": "of another service",
    "rt.1.AbCdEfGhIjKl": "a refresh token",
    "someone@example.com": "an e-mail address",
    "sk-ant-api03-AbC...xyz": "masked",
    "sk-ant-api03-AbC..xyz9": "masked",
    "sk-ant-api03-**********1234": "masked",
    "true": "a word",
    "FALSE": "a word",
    "hello": "too short",
    "sk-ant": "too short",
    "sk-ant-api03": "too short",
    "sk-ant-api03-": "too short",
    "sk-": "too short",
    f"{KEY};": "ends in a character",
    f"{KEY},": "ends in a character",
    f"{KEY}\\n": "ends in a character",
    f"{KEY}\\": "ends in a character",
    base64.b64encode(KEY.encode()).decode(): "in base64",
    base64.b64encode(f"{KEY}\n".encode()).decode(): "in base64",
    base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("="): "in base64",
    "PLACEHOLDER_TO_BE_REPLACED": "a placeholder",
    "anthropic-key-to-be-replaced": "a placeholder",
    "MY_EXAMPLE_KEY": "a placeholder",
    "[redacted-by-ci]": "a placeholder",
    f"{KEY}|{KEY}": "has a character",
    f"x-api-key:{KEY}": "has a character",
    f"sk%2Dant{KEY}": "has a character",
}


@pytest.mark.parametrize("text", NO_KEYS)
@pytest.mark.parametrize("provider", ["anthropic", "openai", "mistral"])
def test_what_cannot_be_a_key_is_refused(text: str, provider: str) -> None:
    """P6, F14: with the reason and what to do, and nothing of the text. It was sent to the vendor before."""
    if provider != "anthropic" and (text.startswith("sk-ant") or KEY in text):
        return
    reason = refusal(text, provider)
    assert NO_KEYS[text] in reason
    assert not any(piece in reason for piece in (text, KEY, "Team", "console", "example.com", "xyz"))


OF_A_VENDOR = ("too short", "has a character", "of another service", "a refresh token")


@pytest.mark.parametrize("text", [text for text, why in NO_KEYS.items() if not why.startswith(OF_A_VENDOR)])
def test_most_of_it_is_refused_for_any_server(text: str) -> None:
    """P6: a reference or a masked copy is no key of an operator's own server either."""
    refusal(text, "litellm")


@pytest.mark.parametrize("mode", [Mode.TOKEN, Mode.OAUTH])
def test_tokens_are_looked_at_as_well(mode: Mode) -> None:
    """P6: in a token's place likewise. How long a login's access token is, is its issuer's matter."""
    assert "a reference" in refusal("op://Team/Claude/token", mode=mode)
    assert "masked" in refusal("sk-ant-oat01-AbC...xyz", mode=mode)
    assert "a refresh token" in refusal("sk-ant-ort01-" + "w8Gz" * 12, mode=mode)
    assert misshapen("opaque", provider=PROVIDERS["qwen-portal"], mode=Mode.OAUTH, catalog=BUILT_IN) == ""


@pytest.mark.parametrize(
    "text",
    ["dummy-key", "sk-dummy", "sk-ant-api03-EXAMPLE", "sk-ant-api03-CHANGEME", "sk-ant-api03-REPLACE_ME", "sk-ant-KEY_HERE",
     "sample-key", "api-key-goes-here", "change-me-please", "no-key-required", "sk-ant-placeholder", "sk-ant-_____"],
)  # fmt: skip
def test_words_that_stand_in_for_a_key_are_refused(text: str) -> None:
    """P6: behind the beginning of a key as well. A server of the operator's own may have such a key."""
    assert "a placeholder" in refusal(text)
    assert misshapen(text, provider=PROVIDERS["litellm"], mode=Mode.API_KEY, catalog=BUILT_IN) == ""


BASE62 = string.ascii_letters + string.digits
SHAPES = {
    "anthropic": ("sk-ant-api03-", BASE62 + "_-", 95),
    "openai": ("sk-proj-", BASE62 + "_-", 156),
    "openrouter": ("sk-or-v1-", "0123456789abcdef", 64),
    "google": ("AIzaSy", BASE62 + "_-", 33),
    "github-copilot": ("github_pat_", BASE62 + "_", 82),
    "zai": ("", "0123456789abcdef", 32),
    "huggingface": ("hf_", string.ascii_letters, 34),
    "microsoft-foundry": ("", BASE62, 84),
    "groq": ("gsk_", BASE62, 52),
    "cerebras": ("csk-", string.ascii_lowercase + string.digits, 48),
    "xai": ("xai-", BASE62, 80),
    "moonshot": ("sk-", BASE62, 48),
    "deepseek": ("sk-", "0123456789abcdef", 32),
    "fireworks": ("fw_", BASE62, 24),
    "perplexity": ("pplx-", BASE62, 48),
    "nvidia": ("nvapi-", BASE62 + "_-", 64),
    "litellm": ("sk-", string.digits, 4),
    "voyage": ("pa-", BASE62 + "_-", 43),
    "tavily": ("tvly-dev-", BASE62, 32),
    "firecrawl": ("fc-", "0123456789abcdef", 32),
    "brave": ("BSA", BASE62 + "_-", 28),
    "elevenlabs": ("sk_", "0123456789abcdef", 48),
}
"""Prefix, alphabet and length of keys as vendors hand them out; the others' are plain letters and digits, 32 of them."""


@pytest.mark.parametrize("provider", PROVIDERS)
@given(data=st.data())
def test_every_real_key_passes(provider: str, data: st.DataObject) -> None:
    """P6: a form that is too strict would lose good keys. Any key of a vendor's form is accepted, as key and as token."""
    prefix, alphabet, length = SHAPES.get(provider, ("", BASE62, 32))
    key = prefix + "".join(data.draw(st.lists(st.sampled_from(alphabet), min_size=length, max_size=length)))
    for mode in (Mode.API_KEY, Mode.TOKEN, Mode.OAUTH):
        assert misshapen(key, provider=PROVIDERS[provider], mode=mode, catalog=BUILT_IN) == ""


@pytest.mark.parametrize(
    "key",
    [
        "0123abcd4567ef890123abcd4567ef89.Ab3dEfGh1jKlMn0p",  # zai
        "123e4567-e89b-12d3-a456-426614174000",  # exa
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl",  # minimax
        "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn",  # an encrypted token without a wrapped key
        "cpk_0123.4567.AbCdEfGh",  # chutes
        "AQ.Ab8RN6K_x-y",  # google's newer ones
        "q7RkTz0JwXv9LmPb83Aa/+==",
        "-_Kx0dEf9hTq3vZ8",  # random texts in base64
        "__Kx0dEf9hTq3vZ8",
        "sk-here2Kx0dEf9hTq3vZ8",
        "VENICE-INFERENCE-KEY-Kx0dEf9hTq3vZ8",
    ],
)
def test_odd_forms_that_exist_pass(key: str) -> None:
    """P6: dots, dashes, base64."""
    assert misshapen(key, provider=PROVIDERS["mistral"], mode=Mode.API_KEY, catalog=BUILT_IN) == ""


def test_every_vendor_says_how_short_its_keys_are_not() -> None:
    """P6: as data, for each but the proxy that people run themselves; never longer than a real key."""
    assert [known.id for known in PROVIDERS.values() if known.form is None] == ["litellm"]
    for name, (prefix, _, length) in SHAPES.items():
        form = PROVIDERS[name].form
        assert form is None or max(form.shortest, *form.beginnings.values(), 0) <= len(prefix) + length
