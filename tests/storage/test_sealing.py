"""Sealed stores: nobody reads them without the key, keys can be changed, and what was altered is not believed."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.domain.auth_document import LARGEST, Document, Malformed, with_entry, with_order
from broker.engine.clock import SystemClock
from broker.ports import StoreFault
from broker.storage.auth_profiles import AuthProfiles
from broker.storage.sealing import Seal

ONE, TWO = os.urandom(32), os.urandom(32)
SECRET = "sk-ant-api03-" + "s" * 60


def b64(key: bytes | bytearray) -> bytes:
    return base64.b64encode(key)


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def store(tmp_path: Path, keys: bytes | None) -> AuthProfiles:
    seal = None if keys is None else Seal(written(tmp_path, keys))
    return AuthProfiles(tmp_path / "auth-profiles.json", clock=SystemClock(), seal=seal)


def filled(document: Document) -> Document:
    return with_entry(document, "anthropic:x", {"type": "api_key", "key": SECRET, "note": "é"})


def kid(tmp_path: Path) -> str:
    return str(json.loads((tmp_path / "auth-profiles.json").read_bytes())["sealed"]["kid"])


@pytest.mark.parametrize(
    "keys",
    [
        ONE, b64(ONE), b64(ONE) + b"\n", b"# one\n\n  " + b64(ONE) + b"\r\n", ONE.hex().encode(), ONE.hex().upper().encode(),
        base64.urlsafe_b64encode(ONE), b64(ONE).rstrip(b"="), b64(ONE) + b"\n" + b64(TWO),
    ],
)  # fmt: skip
def test_what_is_sealed_is_read_again_and_shows_nothing(tmp_path: Path, keys: bytes) -> None:
    """However the key is written down."""
    made = store(tmp_path, keys).edit(filled)
    content = (tmp_path / "auth-profiles.json").read_bytes()
    assert set(json.loads(content)) == {"version", "sealed"}
    assert set(json.loads(content)["sealed"]) == {"alg", "kid", "nonce", "data"}
    assert b"anthropic" not in content
    assert b64(SECRET.encode())[:12] not in content
    assert store(tmp_path, b64(ONE)).inspect() == (made, ())


def test_every_write_is_sealed_anew(tmp_path: Path) -> None:
    """A nonce is never used twice."""
    sealed = Seal(written(tmp_path, ONE))
    assert sealed.seal(b"{}") != sealed.seal(b"{}")


def test_a_plain_store_is_read_said_and_sealed_by_the_next_edit(tmp_path: Path) -> None:
    """An edit that changes nothing else is enough, and then nothing is written any more."""
    plain = store(tmp_path, None).edit(filled)
    sealing = store(tmp_path, b64(ONE))
    document, doubts = sealing.inspect()
    assert document == plain
    assert ["is not sealed with the present key" in doubt for doubt in doubts] == [True]
    sealing.edit(lambda d: d)
    assert sealing.inspect() == (plain, ())
    before = (tmp_path / "auth-profiles.json").stat()
    sealing.edit(lambda d: d)
    assert (tmp_path / "auth-profiles.json").stat() == before


def test_the_key_is_changed_by_putting_the_new_one_first(tmp_path: Path) -> None:
    """Read with the old, sealed with the new; then the old one may go."""
    document = store(tmp_path, b64(ONE)).edit(filled)
    old = kid(tmp_path)
    both = store(tmp_path, b64(TWO) + b"\n" + b64(ONE))
    assert both.read() == document
    assert "is not sealed with the present key" in both.inspect()[1][0]
    both.edit(lambda d: d)
    assert kid(tmp_path) != old
    assert store(tmp_path, b64(TWO)).inspect() == (document, ())


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (b64(TWO), r"is sealed with key [0-9a-f]{8}, and .*seal.key has [0-9a-f]{8}: add that key"),
        (b"", "holds no key: write one into it"),
        (b"# nothing\n", "holds no key"),
        (b64(TWO) + b"\nshort", "line 2 of the key file .* is no key of 32 bytes"),
        (b"!" * 43, "line 1 of the key file .* is no key"),
        ("ö".encode() * 32, "is no key"),
        (b"zz" * 32, "is no key"),
    ],
)
def test_without_the_right_key_it_stays_closed_and_as_it_is(tmp_path: Path, keys: bytes, why: str) -> None:
    """What is wrong with the key is said, and nothing of any key."""
    store(tmp_path, b64(ONE)).edit(filled)
    before = (tmp_path / "auth-profiles.json").read_bytes()
    other = store(tmp_path, keys)
    for attempt in (other.read, lambda: other.edit(lambda d: with_order(d, "openai", ["openai:x"]))):
        with pytest.raises(StoreFault, match=why) as raised:
            attempt()
        assert keys.decode()[:8] not in str(raised.value) or not keys
    assert (tmp_path / "auth-profiles.json").read_bytes() == before


def test_without_any_key_it_says_that_it_is_sealed(tmp_path: Path) -> None:
    """And how to say where the key is."""
    store(tmp_path, b64(ONE)).edit(filled)
    with pytest.raises(StoreFault, match=r"it is sealed: name the key's file in the configuration, `seal: \{key_file"):
        store(tmp_path, None).read()


def test_a_missing_key_file_is_a_fault_before_anything_is_written(tmp_path: Path) -> None:
    """Nothing is stored in the open instead."""
    missing = AuthProfiles(tmp_path / "auth-profiles.json", clock=SystemClock(), seal=Seal(tmp_path / "no.key"))
    with pytest.raises(StoreFault, match=r"there is no key file .*no\.key: create it, or correct seal.key_file"):
        missing.edit(filled)
    assert not (tmp_path / "auth-profiles.json").exists()
    (tmp_path / "no.key").mkdir()
    with pytest.raises(StoreFault, match=r"the key file .*no\.key"):
        missing.edit(filled)


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o604, 0o622])
def test_a_key_that_others_can_read_or_change_is_not_used(tmp_path: Path, mode: int) -> None:
    """S14: as ssh refuses it, whenever it is needed, with the way back; what is sealed stays as it is."""
    document = store(tmp_path, b64(ONE)).edit(filled)
    key = tmp_path / "seal.key"
    key.chmod(mode)
    exposed = AuthProfiles(tmp_path / "auth-profiles.json", clock=SystemClock(), seal=Seal(key))
    for attempt in (exposed.read, lambda: exposed.edit(lambda d: with_order(d, "openai", ["openai:x"]))):
        with pytest.raises(
            StoreFault, match=rf"the key file {key} has mode 0{mode:o}, with which every user can .*: chmod 600 {key}"
        ):
            attempt()
    key.chmod(0o440)
    assert exposed.read() == document


def changed(content: bytes, **fields: object) -> bytes:
    contents = json.loads(content)
    contents["sealed"] |= fields
    return json.dumps(contents).encode()


def flipped(content: bytes) -> bytes:
    data = bytearray(base64.b64decode(json.loads(content)["sealed"]["data"]))
    data[5] ^= 1
    return changed(content, data=b64(data).decode())


@pytest.mark.parametrize(
    ("alter", "error", "why"),
    [
        (flipped, Malformed, "altered since it was sealed"),
        (lambda c: changed(c, data=""), Malformed, "altered since it was sealed"),
        (lambda c: changed(c, data="é"), Malformed, "altered since it was sealed"),
        (lambda c: changed(c, nonce=b64(b"0" * 12).decode()), Malformed, "altered since it was sealed"),
        (lambda c: changed(c, nonce="AA=="), Malformed, "in a way this program does not know"),
        (lambda c: changed(c, alg="A128GCM"), Malformed, "in a way this program does not know"),
        (lambda c: changed(c, kid=SECRET), StoreFault, "key of another kind"),
        (lambda c: changed(c, kid=None), StoreFault, "key of another kind"),
        (lambda _: b'{"version": 1, "sealed": "x"}', Malformed, "in a way this program does not know"),
        (lambda c: c[:-20], Malformed, "breaks off"),
    ],
)
def test_what_was_altered_is_not_believed(
    tmp_path: Path, alter: Callable[[bytes], bytes], error: type[Exception], why: str
) -> None:
    """It is authenticated, not only hidden."""
    seal = Seal(written(tmp_path, b64(ONE)))
    with pytest.raises(error, match=why) as raised:
        seal.unseal(alter(seal.seal(b'{"version": 1}')))
    assert SECRET not in str(raised.value)


def test_a_plain_store_that_only_speaks_of_sealing_is_plain(tmp_path: Path) -> None:
    """The word may stand anywhere in it."""
    seal = Seal(written(tmp_path, b64(ONE)))
    for text in (b'{"version": 1, "note": "sealed", "x": {"sealed": 1}}', b"{}", b'["sealed"]'):
        assert seal.unseal(text) == (text, False)


def test_the_largest_store_can_be_sealed_and_read(tmp_path: Path) -> None:
    """Sealing makes it longer than a plain one may be."""
    big = store(tmp_path, b64(ONE))
    document = big.edit(lambda d: Document({**d.raw, "note": "x" * (LARGEST - 100)}))
    assert big.read() == document


def test_nothing_of_cryptography_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    """It takes memory that a broker without sealed stores does not have to give."""
    code = (
        "import sys; from pathlib import Path; from broker.engine.clock import SystemClock\n"
        "from broker.storage.auth_profiles import AuthProfiles; from broker.storage.sealing import Seal\n"
        "AuthProfiles(Path(sys.argv[1]), clock=SystemClock(), seal=Seal(Path('k'))).read()\n"
        "sys.exit('cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "auth-profiles.json")], check=True)
