"""A Secret's annotations: their meaning, and the message for a mistake in them."""

import pytest

from equabot_broker.discovery.bundle_profiles import NOTHING, BundleNotes
from equabot_broker.domain.provider import Mode
from equabot_broker.formats.annotations import read_annotations
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.providers import BUILT_IN

CANARY = "sk-ant-api03-CANARYcanary0123456789"
ENDS_AT = "Secret apps/llm annotation equabot.dev/expires-at"


def read(**annotations: str) -> BundleNotes:
    told = {f"equabot.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return read_annotations(told, catalog=BUILT_IN, where="Secret apps/llm")


def test_what_is_not_said_is_not_known() -> None:
    """Annotations of others, and empty ones, say nothing."""
    assert read() == read(provider="", profile=" ", mode="", expires_at="") == NOTHING
    assert read_annotations({"kubectl.kubernetes.io/x": "y"}, catalog=BUILT_IN, where="x") == NOTHING


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"provider": " Anthropic "}, BundleNotes(provider="anthropic")),
        ({"profile": "prod"}, BundleNotes(name="prod")),
        ({"profile": "anthropic:prod"}, BundleNotes(provider="anthropic", name="prod")),
        ({"provider": "openai", "profile": "openai:prod"}, BundleNotes(provider="openai", name="prod")),
        ({"mode": "token"}, BundleNotes(mode=Mode.TOKEN)),
        ({"mode": "oauth"}, BundleNotes(mode=Mode.OAUTH)),
        ({"expires_at": "1970-01-01T00:00:10Z"}, BundleNotes(expires_at=10.0, ends_at=ENDS_AT)),
        ({"expires_at": "2027-01-01t00:00:00.5+01:00"}, BundleNotes(expires_at=1798758000.5, ends_at=ENDS_AT)),
    ],
)
def test_what_they_say(annotations: dict[str, str], said: BundleNotes) -> None:
    """A profile's id says its provider as well."""
    assert read(**annotations) == said


@pytest.mark.parametrize(
    ("annotations", "fault"),
    [
        ({"provider": "nobody"}, "annotation equabot.dev/provider names 'nobody', which is not a known provider"),
        ({"profile": "nobody:prod"}, "annotation equabot.dev/profile names 'nobody', which is not a known provider"),
        ({"profile": ":prod"}, "annotation equabot.dev/profile is ':prod': write a name, or provider:name"),
        ({"profile": "openai:"}, "write a name, or provider:name"),
        ({"profile": "a b"}, "write a name, or provider:name"),
        ({"profile": "../x"}, "write a name, or provider:name"),
        ({"provider": "openai", "profile": "anthropic:x"}, "says that it is openai's, and that it is a profile of anthropic"),
        ({"mode": "wif"}, "annotation equabot.dev/mode is 'wif': write one of api_key, token, oauth"),
        ({"mode": "apikey"}, "write one of api_key, token, oauth"),
        ({"expires_at": "soon"}, "annotation equabot.dev/expires-at is 'soon': write an instant with its offset"),
        ({"expires_at": "2027-01-01T00:00:00"}, "with its offset"),
        ({"expires_at": "2027-13-01T00:00:00Z"}, "with its offset"),
        ({"expires_at": "1798761600"}, "with its offset"),
    ],
)
def test_a_mistake_is_refused(annotations: dict[str, str], fault: str) -> None:
    """With the Secret, the annotation and what to write."""
    with pytest.raises(Malformed) as raised:
        read(**annotations)
    assert str(raised.value).startswith("Secret apps/llm ")
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("provider", CANARY), ("profile", f"{CANARY} x"), ("profile", f"{CANARY}:x"), ("mode", CANARY), ("expires_at", CANARY)],
)
def test_a_credential_in_the_wrong_place_is_not_repeated(name: str, value: str) -> None:
    """Annotations are public, but a user may have put a secret there."""
    with pytest.raises(Malformed) as raised:
        read(**{name: value})
    assert "CANARY" not in repr(raised.value)
    assert raised.value.__cause__ is None
