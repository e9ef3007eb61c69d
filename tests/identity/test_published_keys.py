"""Tokens checked against published keys: signatures of every kind, keys that change, publishers that are away."""

import json
import string
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.domain.errors import IdentityUnchecked, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.account_tokens import read_token
from equabot_broker.identity.published_keys import KeysOfApi, KeysOfFile, KeysUnread, Published, PublishedKeys
from equabot_broker.kube.api import KubeApi
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import ISSUER, Issuer, base64url
from tests.fakes.token_reviewer import TokenReviewer

RSA = Issuer("RS256", key_id="rsa")
P256, P384, P521 = (Issuer(algorithm, key_id=algorithm) for algorithm in ("ES256", "ES384", "ES512"))


class Publishing:
    """Publishes what a test says, or nothing."""

    def __init__(self, *keys: Mapping[str, Any]) -> None:
        self.keys: list[Mapping[str, Any]] = list(keys)
        self.away = ""
        self.reads = 0

    async def read(self) -> Published:
        self.reads += 1
        if self.away:
            raise KeysUnread(self.away)
        return Published(issuer=ISSUER, keys={"keys": list(self.keys)})


async def account(keys: PublishedKeys, token: str) -> str:
    return await keys.account(read_token(SecretValue(token)))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("issuer", [RSA, P256, P384, P521], ids=lambda issuer: issuer.algorithm)
async def test_who_is_signed_for_is_who_it_says(issuer: Issuer, clock: FakeClock) -> None:
    """With each kind of key that a cluster may use; with one byte changed, the token identifies no caller."""
    keys = PublishedKeys(Publishing(issuer.jwk()), clock=clock)
    token = issuer.token("agents/reviewer")
    assert await account(keys, token) == "agents/reviewer"
    covered, _, signature = token.rpartition(".")
    other = issuer.token("agents/admin").rpartition(".")[0]
    for forged in (
        f"{other}.{signature}",
        f"{covered}.{'B' if signature[0] != 'B' else 'C'}{signature[1:]}",
        f"{covered}.AAAA",
    ):
        with pytest.raises(Unidentified, match="this cluster did not issue the token"):
            await account(keys, forged)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256", "PS256", "RS512", ""])
async def test_a_token_does_not_choose_how_it_is_checked(algorithm: str, clock: FakeClock) -> None:
    """The key says which algorithm it is for: neither `none` nor the public key as a shared one will do (RFC 8725, 3.1)."""
    keys = PublishedKeys(Publishing(RSA.jwk()), clock=clock)
    with pytest.raises(Unidentified, match="signed with an unknown key"):
        await account(keys, RSA.token(head={"alg": algorithm}))


@pytest.mark.parametrize("issuer", [RSA, P256, P384, P521], ids=lambda issuer: issuer.algorithm)
async def test_a_signature_has_one_spelling(issuer: Issuer, clock: FakeClock) -> None:
    """S23: the spare bits of the last character are not free, or one token would be many."""
    keys = PublishedKeys(Publishing(issuer.jwk()), clock=clock)
    token = issuer.token()
    alphabet = string.ascii_letters + string.digits + "-_"
    spellings = {token[:-1] + other for other in alphabet}
    taken = []
    for spelling in spellings:
        with suppress(Unidentified):
            taken.append((await account(keys, spelling), spelling))
    assert taken == [("agents/reviewer", token)]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"iss": "https://other.test"}, "this cluster did not issue the token"),
        ({"iss": None}, "this cluster did not issue the token"),
        ({"exp": 1_799_999_999}, "has expired"),
        ({"exp": None}, "has expired"),
        ({"nbf": 1_800_000_100}, "is not valid yet"),
    ],
)
async def test_a_signature_is_not_enough(said: dict[str, Any], words: str, clock: FakeClock) -> None:
    """The issuer is the cluster's, and the token holds now."""
    with pytest.raises(Unidentified, match=words):
        await account(PublishedKeys(Publishing(RSA.jwk()), clock=clock), RSA.token(**said))


async def test_a_new_key_is_found_and_an_old_one_ends(clock: FakeClock) -> None:
    """A token that names an unknown key has the keys read again, a few seconds apart; a withdrawn key ends within minutes."""
    publishing = Publishing(RSA.jwk())
    keys = PublishedKeys(publishing, clock=clock)
    await account(keys, RSA.token())
    publishing.keys = [P256.jwk()]
    for _ in range(50):
        with pytest.raises(Unidentified, match="signed with an unknown key"):
            await account(keys, P256.token())
    assert publishing.reads == 1, "whoever sends tokens does not decide how often the keys are read"
    assert await account(keys, RSA.token()) == "agents/reviewer"
    clock.advance(5)
    assert await account(keys, P256.token()) == "agents/reviewer"
    assert publishing.reads == 2
    publishing.keys = [RSA.jwk()]
    clock.advance(300)
    with pytest.raises(Unidentified, match="signed with an unknown key"):
        await account(keys, P256.token())
    assert publishing.reads == 3


async def test_the_keys_of_before_hold_for_an_hour(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """While they cannot be read again: known tokens go on, unknown keys are refused for now, and it is said once."""
    publishing = Publishing(RSA.jwk())
    keys = PublishedKeys(publishing, clock=clock)
    await account(keys, RSA.token())
    publishing.away = "the API server is away"
    for _ in range(3):
        clock.advance(300)
        await account(keys, RSA.token(expires_at=1_900_000_000.0))
        with pytest.raises(IdentityUnchecked, match="cannot be checked now: the API server is away"):
            await account(keys, P256.token())
    assert len(caplog.records) == 1
    clock.advance(3000)
    with pytest.raises(IdentityUnchecked):
        await account(keys, RSA.token(expires_at=1_900_000_000.0))
    publishing.away = ""
    clock.advance(5)
    assert await account(keys, RSA.token(expires_at=1_900_000_000.0)) == "agents/reviewer"


async def test_no_caller_is_accepted_before_the_keys_are_read(clock: FakeClock) -> None:
    """And a crowd does not read them more often than one caller would."""
    publishing = Publishing(RSA.jwk())
    publishing.away = "nobody answers"
    keys = PublishedKeys(publishing, clock=clock)
    for _ in range(20):
        with pytest.raises(IdentityUnchecked, match="nobody answers"):
            await account(keys, RSA.token())
    assert publishing.reads == 1


async def test_keys_of_no_use_are_passed_over(clock: FakeClock) -> None:
    """Keys for encryption, of kinds unknown, too short, malformed: the others still count."""
    short = Issuer("RS256", key_id="short", bits=1024)
    useless: list[Any] = [
        {**RSA.jwk(), "use": "enc"}, {**RSA.jwk(), "alg": "RS512"}, {"kty": "oct", "kid": "rsa", "k": "AAAA"}, None, "key", {},
        {"kty": "RSA", "kid": "rsa"}, {"kty": "RSA", "kid": "rsa", "n": "!", "e": "AQAB"}, {**P256.jwk(), "x": base64url(b"1")},
        {**P256.jwk(), "crv": "secp256k1"}, {"kty": "EC", "kid": "ES256", "crv": 7}, short.jwk(),
    ]  # fmt: skip
    keys = PublishedKeys(Publishing(*useless, P384.jwk()), clock=clock)
    assert await account(keys, P384.token()) == "agents/reviewer"
    for issuer in (RSA, P256, short):
        with pytest.raises(Unidentified, match="signed with an unknown key"):
            await account(keys, issuer.token())


async def test_a_file_publishes_what_is_in_it_now(tmp_path: Path) -> None:
    """A set as `kubectl get --raw` prints it; anything else is said by the file's name."""
    file = KeysOfFile(tmp_path / "jwks.json", issuer=ISSUER)
    with pytest.raises(KeysUnread, match=r"jwks\.json does not exist: mount it"):
        await file.read()
    for text in ("", "[]", "{", "[" * 100_000, '"canary"'):
        (tmp_path / "jwks.json").write_text(text)
        with pytest.raises(KeysUnread, match=r"jwks\.json is not a JSON Web Key Set: write the output"):
            await file.read()
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [RSA.jwk()]}))
    assert await file.read() == Published(issuer=ISSUER, keys={"keys": [RSA.jwk()]})


async def test_an_api_server_publishes_keys_and_issuer(tmp_path: Path) -> None:
    """The configured issuer takes precedence over the one that the API server names; without either, no token is trusted."""
    with TokenReviewer() as server:
        api = KubeApi(kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
        await api.open()
        with pytest.raises(KeysUnread, match="openid-configuration"):
            await KeysOfApi(api).read()
        server.documents["/openid/v1/jwks"] = {"keys": [RSA.jwk()]}
        assert (await KeysOfApi(api, issuer="https://mine").read()).issuer == "https://mine"
        server.documents["/.well-known/openid-configuration"] = {"issuer": ISSUER}
        assert await KeysOfApi(api).read() == Published(issuer=ISSUER, keys={"keys": [RSA.jwk()]})
        server.documents["/.well-known/openid-configuration"] = {"issuer": 7}
        with pytest.raises(KeysUnread, match="names no issuer"):
            await KeysOfApi(api).read()
        await api.close()
