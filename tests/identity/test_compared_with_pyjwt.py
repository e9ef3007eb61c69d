"""The broker's readers of JSON Web Tokens against PyJWT: what they accept, PyJWT accepts, and both read the same claims.

PyJWT checks times by the clock of this machine, so it checks none here.
"""

import json
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from equabot_broker.domain.errors import Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.account_tokens import AccountToken, read_token
from equabot_broker.identity.published_keys import Published, PublishedKeys
from equabot_broker.oauth.workload import read_identity
from equabot_broker.parsing.jwt import claims
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import ISSUER, Issuer, base64url

ISSUERS: Final = {algorithm: Issuer(algorithm) for algorithm in ("RS256", "ES256", "ES384", "ES512")}
KEYS: Final = {algorithm: jwt.PyJWK(issuer.jwk()) for algorithm, issuer in ISSUERS.items()}
AUDIENCE: Final = "equabot"
LATER: Final = 1_800_003_600
"""An end that is in the future for `FakeClock`."""
NO_TIMES: Final[Any] = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
UNVERIFIED: Final[Any] = {"verify_signature": False}

algorithms = st.sampled_from(sorted(ISSUERS))
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
subjects = st.builds("system:serviceaccount:{}:{}".format, names, names)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
audiences = st.just(AUDIENCE) | st.lists(st.text(), max_size=3).map(lambda others: [*others, AUDIENCE])


class One:
    """Publishes the key of one issuer."""

    def __init__(self, key: dict[str, Any]) -> None:
        self._key = key

    async def read(self) -> Published:
        return Published(issuer=ISSUER, keys={"keys": [self._key]})


async def accept(token: str, key: dict[str, Any]) -> AccountToken:
    """Every check of a broker. Raises Unidentified."""
    said = read_token(SecretValue(token))
    said.check_audience(AUDIENCE)
    await PublishedKeys(One(key), clock=FakeClock()).account(said)
    return said


def accept_by_pyjwt(token: str, algorithm: str) -> dict[str, Any]:
    """The claims. Raises PyJWTError."""
    return jwt.decode(token, KEYS[algorithm], [algorithm], NO_TIMES, audience=AUDIENCE, issuer=ISSUER)


def signed(head: bytes, said: bytes, issuer: Issuer) -> str:
    """A token with these bytes, whatever they are, and with a correct signature."""
    covered = f"{base64url(head)}.{base64url(said)}"
    return f"{covered}.{base64url(issuer.sign(covered.encode()))}"


@given(algorithms, subjects, audiences, st.dictionaries(st.text(min_size=4), json_values, max_size=3))
async def test_what_pyjwt_signs_is_accepted(algorithm: str, subject: str, audience: Any, more: dict[str, Any]) -> None:
    """By each kind of key, in the form in which PyJWT publishes it, with claims that the broker does not know."""
    issuer = ISSUERS[algorithm]
    private = issuer.private_key()
    said = more | {"sub": subject, "aud": audience, "iss": ISSUER, "exp": LATER, "nbf": 7}
    token = jwt.encode(said, private, algorithm, {"kid": issuer.key_id})
    form: Any = RSAAlgorithm if algorithm == "RS256" else ECAlgorithm
    read = await accept(token, {**form.to_jwk(private.public_key(), as_dict=True), "kid": issuer.key_id})
    assert (f"system:serviceaccount:{read.account.replace('/', ':')}", read.issuer) == (subject, ISSUER)
    assert list(read.audiences) == ([audience] if isinstance(audience, str) else audience)
    assert (read.expires_at, read.not_before) == (LATER, 7)


@pytest.mark.parametrize("algorithm", ISSUERS)
def test_the_issuer_of_the_tests_is_understood_by_pyjwt(algorithm: str) -> None:
    """Else the tests and the broker could share an error."""
    assert accept_by_pyjwt(ISSUERS[algorithm].token(), algorithm)["sub"] == "system:serviceaccount:agents:reviewer"


edits = st.lists(
    st.tuples(st.sampled_from(["put", "cut", "swap"]), st.integers(0), st.characters(max_codepoint=127)), max_size=3
)


def edited(text: str, changes: list[tuple[str, int, str]]) -> str:
    for change, place, character in changes:
        at = place % (len(text) + 1)
        tail = text[at:] if change == "put" else text[at + 1 :]
        text = text[:at] + ("" if change == "cut" else character) + tail
    return text


@given(algorithms, edits)
async def test_a_damaged_token_is_accepted_by_neither(algorithm: str, changes: list[tuple[str, int, str]]) -> None:
    """Characters added, removed and replaced anywhere, the dots too."""
    issuer = ISSUERS[algorithm]
    await compare(edited(issuer.token(), changes), issuer)


heads = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["none", "HS256", *ISSUERS]) | json_values,
        "kid": st.just("key-1") | json_values,
        "typ": json_values,
    },
)
saids = st.fixed_dictionaries(
    {},
    optional={
        "sub": subjects | json_values,
        "aud": audiences | st.text() | st.integers(),
        "iss": st.just(ISSUER) | json_values,
        "exp": st.just(LATER) | json_values,
    },
)


@given(algorithms, heads, saids, edits, edits)
async def test_a_signed_token_with_any_content_is_read_alike(
    algorithm: str, head: Any, said: Any, of_head: list[tuple[str, int, str]], of_said: list[tuple[str, int, str]]
) -> None:
    """Header and claims of every type, missing ones, and JSON with errors: the signature is correct, the content is not."""
    issuer = ISSUERS[algorithm]
    usual = {"sub": "system:serviceaccount:a:b", "aud": AUDIENCE, "exp": LATER, "iss": ISSUER}
    parts = ({"alg": algorithm, "kid": "key-1"} | head, usual | said)
    text, claimed = (json.dumps(part) for part in parts)
    await compare(signed(edited(text, of_head).encode(), edited(claimed, of_said).encode(), issuer), issuer)


async def compare(token: str, issuer: Issuer) -> None:
    """If the broker accepts the token, PyJWT accepts it, with the same claims."""
    try:
        read = await accept(token, issuer.jwk())
    except Unidentified:
        return
    said = accept_by_pyjwt(token, issuer.algorithm)
    assert said["sub"] == f"system:serviceaccount:{read.account.replace('/', ':')}"
    assert said["exp"] == read.expires_at


@given(st.integers(10**12) | st.floats(min_value=1e12) | st.booleans() | st.text() | st.lists(st.integers(), max_size=1))
async def test_a_beginning_that_is_no_instant_never_comes(beginning: object) -> None:
    """PyJWT refuses such tokens or calls them not valid yet. A time that cannot be read does not count as no time."""
    issuer = ISSUERS["ES256"]
    with pytest.raises(Unidentified, match=r"is not valid yet|not a JSON Web Token"):
        await accept(issuer.token(nbf=beginning), issuer.jwk())


@given(st.dictionaries(st.text(min_size=4), json_values), st.binary(min_size=32, max_size=64))
def test_unverified_claims_are_read_alike(said: dict[str, Any], secret: bytes) -> None:
    """Of logins and identity tokens: the claims that PyJWT wrote."""
    token = jwt.encode(said | {"exp": LATER}, secret, "HS256")
    assert claims(token) == said | {"exp": LATER}
    assert read_identity(token.encode()).expires_at == LATER


@given(st.text(), st.binary(), edits)
def test_claims_come_from_nothing_that_pyjwt_reads_otherwise(
    text: str, said: bytes, changes: list[tuple[str, int, str]]
) -> None:
    """PyJWT refuses the text, or reads what the broker reads, or the broker reads no claim."""
    for token in (text, edited(f"{base64url(b'{}')}.{base64url(said)}.", changes)):
        try:
            expected = jwt.decode(token, options=UNVERIFIED)
        except jwt.PyJWTError:
            continue
        assert claims(token) in (expected, {})
