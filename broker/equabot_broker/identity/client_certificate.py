"""Callers whose connection was opened with a certificate. That it is signed by the configured authority the TLS handshake has
seen to; here is read whose it is, and that it has not ended since."""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from equabot_broker.domain.callers import CallerProof, Callers, Identified
from equabot_broker.domain.errors import Unidentified
from equabot_broker.ports import Clock

_KEPT: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificate:
    """The names that count, and the end in seconds since the epoch."""

    names: tuple[str, ...]
    expires_at: float


class ClientCertificates:
    """Who is calling, by the certificates of their connections.

    The names of a certificate are the URIs in it (`spiffe://…`); where there are none, its DNS names; where there are none of
    those either, its common name.
    """

    fault: Final = ""
    """Nobody else is asked, so nothing can keep it from knowing."""

    def __init__(self, callers: Callers, *, clock: Clock) -> None:
        self._callers = callers
        self._clock = clock
        self._read: OrderedDict[bytes, _Certificate] = OrderedDict()

    def apply(self, callers: Callers) -> None:
        """The configuration is another, from the next call on."""
        self._callers = callers

    async def identify(self, shown: CallerProof) -> Identified:
        """The caller of this connection. Raises Unidentified, and PolicyDenied for one who is no agent."""
        if not shown.certificate:
            raise Unidentified("the connection was opened without a certificate: open it with one")
        key = sha256(shown.certificate.encode()).digest()
        certificate = self._read.get(key)
        if certificate is None:
            certificate = self._read[key] = _certificate(shown.certificate)
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        left = certificate.expires_at - self._clock.now()
        if left <= 0:
            raise Unidentified("the certificate of this connection has ended: open another with the renewed one")
        return Identified(agent=self._callers.of_certificate(certificate.names), until=self._clock.steady() + left)


def _certificate(pem: str) -> _Certificate:
    from cryptography import x509  # noqa: PLC0415 - 7 MiB, for those who listen for certificates alone
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    try:
        found = x509.load_pem_x509_certificate(pem.encode())
        try:
            alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            alternatives = x509.SubjectAlternativeName([])
        common = [str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        names = (
            alternatives.get_values_for_type(x509.UniformResourceIdentifier)
            or alternatives.get_values_for_type(x509.DNSName)
            or common
        )
        return _Certificate(names=tuple(names), expires_at=found.not_valid_after_utc.timestamp())
    except (ValueError, x509.DuplicateExtension):
        raise Unidentified("the certificate of this connection cannot be read: have it issued anew") from None
