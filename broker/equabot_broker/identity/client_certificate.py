"""Identifies callers by client certificates. The TLS handshake has checked the signature; this module reads the names, and
checks that the certificate has not expired since."""

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
    """The names that identify the caller, and the expiry in seconds since the epoch."""

    names: tuple[str, ...]
    expires_at: float


class ClientCertificates:
    """Identifies callers by the certificates of their connections.

    The names are the URIs of the certificate (`spiffe://…`), else its DNS names, else its common name.
    """

    fault: Final = ""
    """Always empty: the check needs no other system."""

    def __init__(self, callers: Callers, *, clock: Clock) -> None:
        self._callers = callers
        self._clock = clock
        self._read: OrderedDict[bytes, _Certificate] = OrderedDict()

    def apply(self, callers: Callers) -> None:
        """Applies a new configuration to the next call."""
        self._callers = callers

    async def identify(self, shown: CallerProof) -> Identified:
        """The caller of this connection. Raises Unidentified, and PolicyDenied for a caller that maps to no agent."""
        if not shown.certificate:
            raise Unidentified("the connection has no client certificate: open it with one")
        key = sha256(shown.certificate.encode()).digest()
        certificate = self._read.get(key)
        if certificate is None:
            certificate = self._read[key] = _certificate(shown.certificate)
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        left = certificate.expires_at - self._clock.now()
        if left <= 0:
            raise Unidentified(
                "the client certificate of this connection has expired: open another connection with the renewed one"
            )
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
        raise Unidentified("the client certificate of this connection cannot be read: have it issued again") from None
