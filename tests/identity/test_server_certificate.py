"""The broker's own certificate: checked when it is read, taken up when it is renewed, kept when what comes is of no use."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from equabot_broker.domain.errors import CannotStart
from equabot_broker.identity.server_certificate import CertificateFault, ServerCertificate
from tests.fakes.clock import FakeClock
from tests.fakes.exhausted import without_descriptors
from tests.kubernetes.certificates import Authority, Pair

AUTHORITY = Authority("server")
ONE, OTHER = AUTHORITY.server("localhost"), AUTHORITY.server("localhost")


def written(directory: Path, pair: Pair = ONE, *, ca: bytes = AUTHORITY.pem) -> Path:
    """As the kubelet does: a new directory with all of it, and then a link that points there."""
    home = directory / f"..{len(list(directory.iterdir()))}"
    home.mkdir()
    for name, text in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", ca)):
        (home / name).write_bytes(text)
    link = directory / "..new"
    link.symlink_to(home.name)
    link.rename(directory / "data")
    return directory / "data"


def served(at: Path, *, now: float | None = None) -> ServerCertificate:
    clock = FakeClock(now=now or datetime.now(UTC).timestamp())
    return ServerCertificate(at / "tls.crt", at / "tls.key", client_ca=at / "ca.crt", clock=clock)


def test_what_is_read_is_what_the_files_hold(tmp_path: Path) -> None:
    """All three; the key is wrapped, and the authority is left out where callers need no certificate."""
    at = written(tmp_path)
    pair = served(at).read()
    assert (pair.certificate, pair.client_ca) == (ONE.certificate.decode(), AUTHORITY.pem.decode())
    assert pair.key.reveal() == ONE.key.decode()
    assert "PRIVATE" not in repr(pair)
    assert ServerCertificate(at / "tls.crt", at / "tls.key", clock=FakeClock()).read().client_ca == ""


def test_a_renewed_pair_is_given_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the link is swapped; and nothing when nothing has changed."""
    caplog.set_level(logging.INFO)
    files = served(written(tmp_path))
    files.read()
    assert files.renewed() is None
    written(tmp_path, OTHER)
    renewed = files.renewed()
    assert renewed is not None
    assert renewed.key.reveal() == OTHER.key.decode()
    assert files.renewed() is None
    assert "was renewed" in caplog.text


def test_an_authority_alone_may_change(tmp_path: Path) -> None:
    """Whose callers are let in is renewed as well."""
    files = served(written(tmp_path))
    files.read()
    other = Authority("the next one").pem
    written(tmp_path, ca=other)
    renewed = files.renewed()
    assert renewed is not None
    assert renewed.client_ca == other.decode()


@pytest.mark.parametrize(
    ("pair", "ca", "words"),
    [
        (Pair(ONE.certificate, OTHER.key), AUTHORITY.pem, "tls.key is not the key of"),
        (Pair(b"", ONE.key), AUTHORITY.pem, "tls.crt has no certificate"),
        (Pair(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ONE.key), AUTHORITY.pem, "tls.crt has no"),
        (Pair(ONE.certificate, b"canary"), AUTHORITY.pem, "tls.key has no private key"),
        (Pair(ONE.certificate, ONE.certificate), AUTHORITY.pem, "tls.key has no private key"),
        (ONE, b"canary", "ca.crt has no certificate"),
        (Pair(b"\xff\xfe", b"\xff"), b"", "tls.crt has no certificate.*tls.key has no private key.*ca.crt has no"),
    ],
)
def test_files_of_no_use_are_said_and_the_pair_of_before_stays(
    tmp_path: Path, pair: Pair, ca: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start each fault keeps the broker from starting, all at once; later they are in the log. No byte of them."""
    bad = served(written(tmp_path, pair, ca=ca))
    with pytest.raises(CertificateFault, match=words) as raised:
        bad.read()
    assert isinstance(raised.value, CannotStart)
    assert "canary" not in str(raised.value)
    files = served(written(tmp_path))
    files.read()
    written(tmp_path, pair, ca=ca)
    assert files.renewed() is None
    assert files.renewed() is None
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"
    assert "canary" not in caplog.text + files.fault
    assert files.fault.startswith("the previous certificate stays in use: ")
    written(tmp_path)
    assert files.renewed() is not None
    assert files.fault == ""


def test_a_pair_that_could_not_be_read_for_a_moment_is_taken_up(tmp_path: Path) -> None:
    """S9: descriptors ran out while it was renewed. No file changes afterwards, and it is served all the same."""
    clock = FakeClock(now=datetime.now(UTC).timestamp())
    at = written(tmp_path)
    files = ServerCertificate(at / "tls.crt", at / "tls.key", clock=clock)
    files.read()
    written(tmp_path, OTHER)
    with without_descriptors():
        assert files.renewed() is None
    assert "Too many open files" in files.fault
    assert files.renewed() is None, "not with every handshake"
    clock.advance(5.0)
    renewed = files.renewed()
    assert renewed is not None
    assert renewed.key.reveal() == OTHER.key.decode()
    assert files.fault == ""


def test_a_key_behind_a_password_is_of_no_use(tmp_path: Path) -> None:
    """A broker has no user who could type it."""
    hidden = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"canary")
    )
    with pytest.raises(CertificateFault, match=r"tls\.key is encrypted"):
        served(written(tmp_path, Pair(ONE.certificate, hidden))).read()


def test_files_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    """Each with what to do; and one that goes later changes nothing."""
    files = served(tmp_path)
    with pytest.raises(CertificateFault, match=r"tls\.crt does not exist.*tls\.key does not exist.*ca\.crt does not exist"):
        files.read()
    at = written(tmp_path)
    files = served(at)
    files.read()
    (at / "tls.crt").unlink()
    assert files.renewed() is None


@pytest.mark.parametrize(("days", "words"), [(-1, "has expired: callers refuse it"), (0.5, "expires within a day"), (30, "")])
def test_an_end_that_is_near_is_said(tmp_path: Path, days: float, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is served all the same: the sockets' agents need the broker whatever becomes of the others."""
    pair = AUTHORITY.server("localhost", ends=datetime.now(UTC) + timedelta(days=days))
    files = served(written(tmp_path, pair))
    files.read()
    assert (words in caplog.text) if words else not caplog.records
    assert bool(files.fault) is (days < 0)
