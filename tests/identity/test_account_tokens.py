"""What tokens of service accounts say of themselves."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.errors import Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.account_tokens import LARGEST, account_of, read_token
from tests.fakes.issuer import Issuer, base64url

ISSUER = Issuer("ES256")
NOW = 1_800_000_000.0


def raw(head: object, said: object) -> SecretValue:
    return SecretValue(".".join(base64url(json.dumps(part).encode()) for part in (head, said)) + ".c2ln")


def saying(**said: Any) -> SecretValue:
    return SecretValue(ISSUER.token(**said))


def test_a_token_says_whose_it_is_and_for_whom() -> None:
    """The claims that the API server writes, and the header that names its key."""
    said = read_token(saying(nbf=NOW - 1))
    assert (said.algorithm, said.key_id, said.issuer) == ("ES256", "key-1", "https://cluster.test")
    assert (said.account, said.audiences) == ("agents/reviewer", ("equabot",))
    assert (said.expires_at, said.not_before) == (NOW + 3600, NOW - 1)
    covered, signature = said.signed()
    assert covered.count(b".") == 1
    assert len(signature) == 64


def test_an_audience_may_stand_alone() -> None:
    """RFC 7519, 4.1.3: a text or a list of texts."""
    assert read_token(saying(audiences="equabot")).audiences == ("equabot",)
    assert read_token(saying(audiences=["a", 1, "b"])).audiences == ("a", "b")
    assert read_token(raw({}, {"sub": "system:serviceaccount:a:b"})).audiences == ()


@pytest.mark.parametrize(
    "text",
    [
        "", "opaque", "a.b", "a.b.c.d", "a.b.c", "..", "a b.c.d", "é.b.c", "e30.e30.\n", "x" * (LARGEST + 1),
        f"{base64url(b'[]')}.{base64url(b'[]')}.c2ln", f"e30.{base64url(b'{')}.c2ln", "e30.e30.c2ln", "e31.e30.c2ln",
        f"e30.{base64url(b'[' * 5000)}.c2ln",
    ],
)  # fmt: skip
def test_what_is_no_such_token_is_refused(text: str) -> None:
    """With words, and nothing of it."""
    with pytest.raises(
        Unidentified, match=r"^the token('s base64url is not canonical| is not (a JSON Web Token|that of a service account))"
    ) as raised:
        read_token(SecretValue(text))
    assert not text or text not in raised.value.message


@pytest.mark.parametrize(
    "subject",
    ["admin", "system:node:x", "system:serviceaccount:a", "system:serviceaccount:a:b:c", "system:serviceaccount::b", 7],
)
def test_only_a_service_account_says_who_calls(subject: object) -> None:
    """Users, nodes and people's logins have tokens of the same form."""
    with pytest.raises(Unidentified, match="not that of a service account"):
        read_token(raw({"alg": "RS256"}, {"sub": subject}))


def test_the_audience_is_ours_or_the_token_is_refused() -> None:
    """A token for the API server is worth too much to be taken here."""
    read_token(saying(audiences=["x", "equabot"])).check_audience("equabot")
    with pytest.raises(Unidentified, match="not for audience 'equabot': send one that was projected for it"):
        read_token(saying(audiences=["https://kubernetes.default.svc"])).check_audience("equabot")


def test_a_token_holds_from_its_beginning_to_its_end() -> None:
    """To the second at its end; at its beginning a node's clock may be a minute ahead."""
    said = read_token(saying(expires_at=NOW, nbf=NOW - 100))
    said.check_times(NOW - 0.001)
    said.check_times(NOW - 160)
    with pytest.raises(Unidentified, match="has expired"):
        said.check_times(NOW)
    with pytest.raises(Unidentified, match="is not valid yet: set the clocks"):
        said.check_times(NOW - 161)


@pytest.mark.parametrize("end", [None, "tomorrow", True, -1, 1e300])
def test_a_token_without_an_end_has_ended(end: object) -> None:
    """Nothing that is good forever is taken."""
    with pytest.raises(Unidentified, match="has expired"):
        read_token(raw({}, {"sub": "system:serviceaccount:a:b", "exp": end})).check_times(NOW)


def test_a_user_name_of_the_api_is_an_account_or_none() -> None:
    """As a TokenReview answers."""
    assert account_of("system:serviceaccount:agents:reviewer") == "agents/reviewer"
    assert account_of("kubernetes-admin") is None


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.integers(0, 2), st.data())
def test_a_token_has_one_spelling(part: int, data: st.DataObject) -> None:
    """S23: any other last character that decodes to the same bytes is refused, as are padding, line ends and blanks."""
    parts = ISSUER.token(pad=data.draw(st.text("x", max_size=3)), head={"pad": "x" * data.draw(st.integers(0, 3))}).split(".")
    read_token(SecretValue(".".join(parts)))
    if spare := {0: 0, 2: 4, 3: 2}[len(parts[part]) % 4]:
        last = ALPHABET.index(parts[part][-1])
        other = last ^ data.draw(st.integers(1, 2**spare - 1))
        spelled = parts[part][:-1] + ALPHABET[other]
    else:
        spelled = parts[part] + data.draw(st.sampled_from(["=", "==", "\n", " ", "A"]))
    parts[part] = spelled
    with pytest.raises(Unidentified, match=r"is not canonical|not a JSON Web Token"):
        read_token(SecretValue(".".join(parts)))


@given(st.lists(st.text(), max_size=3) | st.none() | st.text() | st.integers())
def test_an_extension_that_is_critical_is_refused(crit: object) -> None:
    """S23: RFC 7515, 4.1.11: whatever the `crit` header lists, none of it is implemented."""
    with pytest.raises(Unidentified, match="`crit`"):
        read_token(saying(head={"crit": crit, "exp": 1}))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ('{"alg":"none","alg":"ES256"}', '{"sub":"system:serviceaccount:a:b"}'),
        ('{"alg":"ES256","a":{"b":1,"b":2}}', '{"sub":"system:serviceaccount:a:b"}'),
        ("{}", '{"sub":"system:serviceaccount:a:b","sub":"system:serviceaccount:a:admin"}'),
        ("{}", '{"sub":"system:serviceaccount:a:b","exp":NaN}'),
        ("\ufeff{}", '{"sub":"system:serviceaccount:a:b"}'),
        (" {}", '{"sub":"system:serviceaccount:a:b"}'),
    ],
)
def test_json_that_parsers_read_differently_is_refused(head: str, said: str) -> None:
    """S23: a name that occurs twice, a text that is not JSON, and text before the object."""
    text = ".".join(base64url(part.encode()) for part in (head, said)) + ".c2ln"
    with pytest.raises(Unidentified, match=r"is not canonical|not a JSON Web Token"):
        read_token(SecretValue(text))


@given(st.text() | st.binary().map(lambda data: f"{base64url(data)}.{base64url(data)}.x"))
def test_anything_at_all_is_read_or_refused(text: str) -> None:
    """By one kind of error."""
    with suppress(Unidentified):
        read_token(SecretValue(text)).signed()
