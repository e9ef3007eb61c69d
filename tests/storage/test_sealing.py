"""Sealed stores: nobody reads them without the key, keys can be changed, and what was altered is not believed."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, with_entry, with_order
from equabot_broker.parsing.untrusted_json import LARGEST, Malformed
from equabot_broker.ports import StoreFault
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.sealing import Seal, StoreSeal

ONE, TWO = hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest()
SECRET = "sk-ant-api03-" + "s" * 60


def b64(key: bytes | bytearray) -> bytes:
    return base64.b64encode(key)


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


NAME = "agents/main/agent/auth-profiles.json"


def bound(tmp_path: Path, key_file: Path, name: str = NAME) -> StoreSeal:
    return Seal(key_file, record=tmp_path / "seals.json").of(name)


def store(tmp_path: Path, keys: bytes | None) -> AuthProfiles:
    seal = None if keys is None else bound(tmp_path, written(tmp_path, keys))
    return AuthProfiles(tmp_path / "auth-profiles.json", clock=SystemClock(), seal=seal)


def filled(document: AuthDocument) -> AuthDocument:
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
def test_sealed_store_is_readable_and_opaque(tmp_path: Path, keys: bytes) -> None:
    """However the key is written down."""
    made = store(tmp_path, keys).edit(filled)
    content = (tmp_path / "auth-profiles.json").read_bytes()
    assert set(json.loads(content)) == {"version", "sealed"}
    assert set(json.loads(content)["sealed"]) == {"alg", "kid", "store", "number", "nonce", "data"}
    assert b"anthropic" not in content
    assert json.loads((tmp_path / "seals.json").read_bytes())["numbers"] == {NAME: 1}
    assert b64(SECRET.encode())[:12] not in content
    assert store(tmp_path, b64(ONE)).inspect() == (made, ())


def test_each_write_has_a_new_nonce(tmp_path: Path) -> None:
    """A nonce is never used twice."""
    sealed = bound(tmp_path, written(tmp_path, ONE))
    first, second = (json.loads(sealed.seal(b"{}")[0])["sealed"] for _ in range(2))
    assert (first["nonce"] == second["nonce"], first["data"] == second["data"]) == (False, False)


def test_plain_store_is_reported_and_sealed_by_an_edit(tmp_path: Path) -> None:
    """An edit that changes nothing else is enough, and then nothing is written any more."""
    plain = store(tmp_path, None).edit(filled)
    sealing = store(tmp_path, b64(ONE))
    document, doubts = sealing.inspect()
    assert document == plain
    assert ["is not sealed with the current key" in doubt for doubt in doubts] == [True]
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
    assert "is not sealed with the current key" in both.inspect()[1][0]
    both.edit(lambda d: d)
    assert kid(tmp_path) != old
    assert store(tmp_path, b64(TWO)).inspect() == (document, ())


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (b64(TWO), r"is sealed with key [0-9a-f]{8}, but .*seal.key has [0-9a-f]{8}: add that key"),
        (b"", "has no key: write the output"),
        (b"# nothing\n", "has no key"),
        (b64(TWO) + b"\nshort", "line 2 of the key file .* does not hold 32 bytes"),
        (b"!" * 43, "line 1 of the key file .* does not hold"),
        ("ö".encode() * 32, "does not hold"),
        (b"zz" * 32, "does not hold"),
    ],
)
def test_wrong_key_leaves_the_store_unchanged(tmp_path: Path, keys: bytes, why: str) -> None:
    """What is wrong with the key is said, and nothing of any key."""
    store(tmp_path, b64(ONE)).edit(filled)
    before = (tmp_path / "auth-profiles.json").read_bytes()
    other = store(tmp_path, keys)
    for attempt in (other.read, lambda: other.edit(lambda d: with_order(d, "openai", ["openai:x"]))):
        with pytest.raises(StoreFault, match=why) as raised:
            attempt()
        assert keys.decode()[:8] not in str(raised.value) or not keys
    assert (tmp_path / "auth-profiles.json").read_bytes() == before


def test_sealed_store_without_a_key_is_reported(tmp_path: Path) -> None:
    """And how to say where the key is."""
    store(tmp_path, b64(ONE)).edit(filled)
    with pytest.raises(StoreFault, match=r"it is sealed: name the key's file in the configuration, `seal: \{key_file"):
        store(tmp_path, None).read()


def test_a_missing_key_file_is_a_fault_before_anything_is_written(tmp_path: Path) -> None:
    """Nothing is stored in the open instead."""
    missing = AuthProfiles(tmp_path / "auth-profiles.json", clock=SystemClock(), seal=bound(tmp_path, tmp_path / "no.key"))
    with pytest.raises(StoreFault, match=r"the key file .*no\.key does not exist: create it, or correct seal.key_file"):
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
    exposed = AuthProfiles(tmp_path / "auth-profiles.json", clock=SystemClock(), seal=bound(tmp_path, key))
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
        (flipped, Malformed, "altered after it was sealed"),
        (lambda c: changed(c, data=""), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, data="é"), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, nonce=b64(b"0" * 12).decode()), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, nonce="AA=="), Malformed, "in a format that this version does not support"),
        (lambda c: changed(c, alg="A128GCM"), Malformed, "in a format that this version does not support"),
        (lambda c: changed(c, number=2), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, number="1"), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, number=True), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, store="agents/other/agent/auth-profiles.json"), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, store=None), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, alg="A256GCM"), Malformed, "altered after it was sealed"),
        (lambda c: changed(c, kid=SECRET), StoreFault, "key of another kind"),
        (lambda c: changed(c, kid=None), StoreFault, "key of another kind"),
        (lambda _: b'{"version": 1, "sealed": "x"}', Malformed, "in a format that this version does not support"),
        (lambda c: c[:-20], Malformed, "breaks off"),
    ],
)
def test_altered_content_is_refused(tmp_path: Path, alter: Callable[[bytes], bytes], error: type[Exception], why: str) -> None:
    """It is authenticated, not only hidden."""
    seal = bound(tmp_path, written(tmp_path, b64(ONE)))
    with pytest.raises(error, match=why) as raised:
        seal.unseal(alter(seal.seal(b'{"version": 1}')[0]))
    assert SECRET not in str(raised.value)


def test_plain_store_with_the_word_sealed_is_plain(tmp_path: Path) -> None:
    """The word may stand anywhere in it."""
    seal = bound(tmp_path, written(tmp_path, b64(ONE)))
    for text in (b'{"version": 1, "note": "sealed", "x": {"sealed": 1}}', b"{}", b'["sealed"]'):
        assert seal.unseal(text).text == text


def test_the_largest_store_can_be_sealed_and_read(tmp_path: Path) -> None:
    """Sealing makes it longer than a plain one may be."""
    big = store(tmp_path, b64(ONE))
    document = big.edit(lambda d: AuthDocument({**d.raw, "note": "x" * (LARGEST - 100)}))
    assert big.read() == document


def test_nothing_of_cryptography_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    """It takes memory that a broker without sealed stores does not have to give."""
    code = (
        "import sys; from pathlib import Path; from equabot_broker.engine.timing.clock import SystemClock\n"
        "from equabot_broker.storage.auth_profiles import AuthProfiles; from equabot_broker.storage.sealing import Seal\n"
        "AuthProfiles(Path(sys.argv[1]), clock=SystemClock(), seal=Seal(Path('k'), record=Path('r')).of('x')).read()\n"
        "sys.exit('cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "auth-profiles.json")], check=True)


# -- bound to a store and a write --------------------------------------------------------------------------------------


def noted(name: str) -> Callable[[AuthDocument], AuthDocument]:
    return lambda document: with_entry(document, f"anthropic:{name}", {"type": "api_key", "key": SECRET})


def home(tmp_path: Path) -> AgentStores:
    """As another process has them: nothing is known of what was before but what is written."""
    keys = tmp_path / "seal.key"
    if not keys.exists():
        written(tmp_path, b64(ONE))
    return AgentStores(tmp_path, clock=SystemClock(), seal=Seal(keys, record=tmp_path / "seals.json"))


def names(found: AuthProfiles) -> set[str]:
    return set(found.read().entries)


def in_older_form(text: bytes) -> bytes:
    """As the first edition sealed: bound to nothing."""
    nonce = os.urandom(12)
    data = AESGCM(ONE).encrypt(nonce, text, b"equabot auth-profiles 1")
    kid = hashlib.sha256(ONE).hexdigest()[:8]
    sealed = {"alg": "A256GCM", "kid": kid, "nonce": b64(nonce).decode(), "data": b64(data).decode()}
    return json.dumps({"version": 1, "sealed": sealed}).encode()


def test_a_store_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    """S14: each says whose it is, and both are whole again once they are back."""
    stores = home(tmp_path)
    one, two = stores.of("main"), stores.of("coder")
    one.edit(noted("mains"))
    two.edit(noted("coders"))
    mains, coders = one.path.read_bytes(), two.path.read_bytes()
    one.path.write_bytes(coders)
    two.path.write_bytes(mains)
    for later in (stores, home(tmp_path)):
        with pytest.raises(StoreFault, match=r"it contains agents/coder/agent/auth-profiles.json instead of agents/main/"):
            later.of("main").read()
        with pytest.raises(StoreFault, match=r"it contains agents/main/agent/auth-profiles.json instead of agents/coder/"):
            later.of("coder").edit(noted("x"))
    assert (one.path.read_bytes(), two.path.read_bytes()) == (coders, mains)
    one.path.write_bytes(mains)
    assert names(one) == {"anthropic:mains"}


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_copy_is_refused(tmp_path: Path, restarted: bool) -> None:
    """S14: in the process that has seen the newer one and in the next; the fault says how to accept it."""
    stores = home(tmp_path)
    main = stores.of("main")
    main.edit(noted("old"))
    older = main.path.read_bytes()
    main.edit(noted("new"))
    newer = main.path.read_bytes()
    main.path.write_bytes(older)
    found = (home(tmp_path) if restarted else stores).of("main")
    why = r"it is an older copy \(write 1, but this broker has seen write 2\).*equabot doctor --accept-restored"
    for attempt in (found.read, found.inspect, lambda: found.edit(noted("x"))):
        with pytest.raises(StoreFault, match=why):
            attempt()
    main.path.write_bytes(newer)
    assert names(found) == {"anthropic:old", "anthropic:new"}


def test_running_process_remembers_newer_numbers(tmp_path: Path) -> None:
    """S14: an older record with an older store deceives the next process alone."""
    stores = home(tmp_path)
    main = stores.of("main")
    main.edit(noted("old"))
    older, record = main.path.read_bytes(), (tmp_path / "seals.json").read_bytes()
    main.edit(noted("new"))
    main.path.write_bytes(older)
    (tmp_path / "seals.json").write_bytes(record)
    with pytest.raises(StoreFault, match="it is an older copy"):
        main.read()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_restored_copy_is_accepted_by_an_operator(tmp_path: Path, restarted: bool) -> None:
    """S14: and then no copy is good but that, for a process that was there before, too."""
    running = home(tmp_path).of("main")
    running.edit(noted("old"))
    older = running.path.read_bytes()
    running.edit(noted("new"))
    newer = running.path.read_bytes()
    running.path.write_bytes(older)
    operator = home(tmp_path).of("main")
    assert operator.accept()
    assert not operator.accept()
    found = home(tmp_path).of("main") if restarted else running
    assert names(found) == {"anthropic:old"}
    assert found.inspect()[1] == ()
    for copy in (older, newer):
        running.path.write_bytes(copy)
        with pytest.raises(StoreFault, match="it is an older copy"):
            found.read()


def test_another_agents_store_is_accepted_by_an_operator(tmp_path: Path) -> None:
    """S14: an agent was renamed."""
    stores = home(tmp_path)
    stores.of("main").edit(noted("mains"))
    coder = stores.of("coder")
    coder.path.parent.mkdir(parents=True)
    coder.path.write_bytes(stores.of("main").path.read_bytes())
    coder.path.chmod(0o600)
    assert home(tmp_path).of("coder").accept()
    assert names(coder) == {"anthropic:mains"}


@pytest.mark.parametrize("form", ["older", "open"])
def test_bound_store_is_refused_in_an_older_format(tmp_path: Path, form: str) -> None:
    """S14: a store in the older form is read, and sealed as it should be by the next edit. Afterwards neither that form nor
    text in the open is the store."""
    main = home(tmp_path).of("main")
    main.path.parent.mkdir(parents=True)
    text = b'{"version": 1, "profiles": {"anthropic:planted": {"type": "api_key", "key": "sk-ant-x"}}}'
    content = in_older_form(text) if form == "older" else text
    main.path.write_bytes(content)
    main.path.chmod(0o600)
    [doubt] = main.inspect()[1]
    assert {"older": "is sealed in an older format", "open": "is not sealed with the current key"}[form] in doubt
    main.edit(lambda document: document)
    assert home(tmp_path).of("main").inspect() == (main.read(), ())
    for again in (content, in_older_form(text), text):
        main.path.write_bytes(again)
        for later in (main, home(tmp_path).of("main")):
            with pytest.raises(StoreFault, match=r"is sealed in the older format, but|is not sealed, but"):
                later.read()
    assert home(tmp_path).of("main").accept()
    assert names(main) == {"anthropic:planted"}


@pytest.mark.parametrize(
    "alter",
    [
        lambda c: c.replace(b": 2", b": 1"),
        lambda c: c.replace(b": 2", b": 1e999"),
        lambda c: b"{",
        lambda c: b"[]",
        lambda c: b'{"numbers": {}}',
    ],
)
def test_a_record_that_was_altered_is_a_fault_with_a_way_back(tmp_path: Path, alter: Callable[[bytes], bytes]) -> None:
    """S14: its digest takes the seal's key."""
    main = home(tmp_path).of("main")
    main.edit(noted("a"))
    main.edit(noted("b"))
    record = tmp_path / "seals.json"
    record.write_bytes(alter(record.read_bytes()))
    later = home(tmp_path).of("main")
    with pytest.raises(StoreFault, match=r"seals.json was altered, or .*equabot doctor --accept-restored"):
        later.read()
    assert later.accept()
    assert home(tmp_path).of("main").inspect()[1] == ()


def test_lost_record_is_reported_and_started_again(tmp_path: Path) -> None:
    """S14: until then an older copy would pass."""
    main = home(tmp_path).of("main")
    main.edit(noted("a"))
    (tmp_path / "seals.json").unlink()
    later = home(tmp_path).of("main")
    assert ["has no entry in" in doubt and "equabot doctor --fix" in doubt for doubt in later.inspect()[1]] == [True]
    later.edit(lambda document: document)
    assert later.inspect()[1] == ()
    assert json.loads((tmp_path / "seals.json").read_bytes())["numbers"] == {NAME: 2}


def test_record_survives_a_key_rotation(tmp_path: Path) -> None:
    """It is written with the key that seals, and read with every one."""
    main = home(tmp_path).of("main")
    main.edit(noted("a"))
    (tmp_path / "seal.key").write_bytes(b64(TWO) + b"\n" + b64(ONE))
    main.edit(lambda document: document)
    (tmp_path / "seal.key").write_bytes(b64(TWO))
    assert home(tmp_path).of("main").inspect() == (main.read(), ())


def test_a_home_can_be_moved(tmp_path: Path) -> None:
    """What is sealed is bound to the agent's store, wherever its home is."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    home(here).of("main").edit(noted("a"))
    here.rename(there)
    assert names(home(there).of("main")) == {"anthropic:a"}


def test_many_writers_leave_the_newest_number(tmp_path: Path) -> None:
    """Each process has seen what it has seen; the lock and the record put them in order."""
    homes = [home(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda stores=stores, n=n: [stores.of("main").edit(noted(f"{n}-{i}")) for i in range(5)])
        for n, stores in enumerate(homes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(names(home(tmp_path).of("main"))) == 20
    assert json.loads((tmp_path / "seals.json").read_bytes())["numbers"] == {NAME: 20}
