"""The broker's certificate and key, and the authority for its callers. The files can be replaced while the broker runs: a
kubelet does that when a Secret is renewed."""

import logging
from dataclasses import dataclass
from math import inf
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from equabot_broker.domain.errors import CannotStart
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.ports import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

_log: Final = logging.getLogger(__name__)

_LARGEST: Final = 1 << 20
_WARN_WITHIN: Final = 24 * 3600.0
_AGAIN_AFTER: Final = 5.0
"""Seconds between two reads of files that could not be used."""
_ENDED: Final = "has expired: callers refuse it, so renew it"


class CertificateFault(CannotStart):
    """The files cannot be used: which file, what is wrong, what to do. The message has no part of the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPair:
    """PEM texts: the certificate with its chain, its key, and the authority that must have signed callers' certificates; empty
    if callers need none."""

    certificate: str
    key: SecretValue
    client_ca: str


class ServerCertificate:
    """The files of a `ServerPair`. Thread-safe."""

    def __init__(self, certificate: Path, key: Path, *, client_ca: Path | None = None, clock: Clock) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._clock = clock
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._asking = Lock()
        self._unfit = ""
        self._again_at = 0.0
        self._ends = inf

    @property
    def fault(self) -> str:
        """The fault of the served certificate: newer files cannot be used, or it has expired. Empty without a fault."""
        ended = self._ends <= self._clock.now()
        return self._unfit or (f"the certificate in {self._certificate} {_ENDED}" if ended else "")

    def read(self) -> ServerPair:
        """The present content of the files. Raises CertificateFault with all faults."""
        with self._asking:
            self._seen = self._stamp()
            return self._read()

    def renewed(self) -> ServerPair | None:
        """The content of the files if they have changed since the last read, else None. Files that cannot be used are logged
        and tried again. Costs one `stat` per file."""
        with self._asking:
            stamp = self._stamp()
            # Files that could not be used are read again even if they have not changed: the fault may be temporary.
            due = self._unfit and self._clock.steady() >= self._again_at
            if stamp == self._seen and not due:
                return None
            self._seen = stamp
            try:
                pair = self._read()
            except CertificateFault as fault:
                self._again_at = self._clock.steady() + _AGAIN_AFTER
                unfit = f"the previous certificate stays in use: {fault}"
                if unfit != self._unfit:
                    _log.error("%s", unfit)
                self._unfit = unfit
                return None
            self._unfit = ""
            _log.info("the certificate in %s was renewed", self._certificate)
            return pair

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in self._paths():
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _paths(self) -> tuple[Path, ...]:
        return (self._certificate, self._key, *((self._client_ca,) if self._client_ca else ()))

    def _read(self) -> ServerPair:
        texts: list[str] = []
        faults: list[str] = []
        for path in self._paths():
            try:
                texts.append(_text(path))
            except CertificateFault as fault:
                faults.append(str(fault))
        if not faults:
            faults = self._wrong(*texts)
        if faults:
            raise CertificateFault("; ".join(faults))
        return ServerPair(certificate=texts[0], key=SecretValue(texts[1]), client_ca=texts[2] if self._client_ca else "")

    def _wrong(self, certificate: str, key: str, client_ca: str = "") -> list[str]:
        from cryptography import x509  # noqa: PLC0415 - 7 MiB, for those who listen to other machines alone
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        faults: list[str] = []
        chain, private = None, None
        try:
            chain = x509.load_pem_x509_certificates(certificate.encode())
        except ValueError:
            faults.append(f"{self._certificate} has no certificate in PEM form: write the server's certificate with its chain")
        try:
            private = load_pem_private_key(key.encode(), password=None)
        except TypeError:
            faults.append(f"{self._key} is encrypted: write the plain key, readable by the broker only")
        except Exception:  # noqa: BLE001 - the library raises many kinds of errors for an invalid key
            faults.append(f"{self._key} has no private key in PEM form: write that of {self._certificate}")
        if chain and private and not _belong_together(chain[0], private):
            faults.append(f"{self._key} is not the key of {self._certificate}: write a certificate with its own key")
        try:
            if self._client_ca:
                x509.load_pem_x509_certificates(client_ca.encode())
        except ValueError:
            faults.append(
                f"{self._client_ca} has no certificate in PEM form: write that of the authority of your callers' certificates"
            )
        if chain and not faults:
            self._ends = chain[0].not_valid_after_utc.timestamp()
            self._warn()
        return faults

    def _warn(self) -> None:
        left = self._ends - self._clock.now()
        if left <= 0:
            _log.error("the certificate in %s %s", self._certificate, _ENDED)
        elif left < _WARN_WITHIN:
            _log.warning("the certificate in %s expires within a day: renew it", self._certificate)


def _belong_together(certificate: "Certificate", key: "PrivateKeyTypes") -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except Exception:  # noqa: BLE001 - a kind of key that TLS cannot use
        return False


def _text(path: Path) -> str:
    try:
        return read_whole(path, limit=_LARGEST).decode("ascii", "replace")
    except FileNotFoundError:
        fault = f"{path} does not exist: mount it, readable by the broker only"
    except Unreadable as unreadable:
        fault = str(unreadable)
    raise CertificateFault(fault)
