"""Whoever issues service accounts' tokens in a test: its keys, what it publishes of them, and tokens of every kind."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

ISSUER: Final = "https://cluster.test"
_CURVES: Final[dict[str, tuple[ec.EllipticCurve, Any, int, str]]] = {
    "ES256": (ec.SECP256R1(), SHA256(), 32, "P-256"),
    "ES384": (ec.SECP384R1(), SHA384(), 48, "P-384"),
    "ES512": (ec.SECP521R1(), SHA512(), 66, "P-521"),
}


class Issuer:
    """Signs with one key, of the kind that its algorithm takes."""

    def __init__(self, algorithm: str = "RS256", *, key_id: str = "key-1", bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        self._rsa = rsa.generate_private_key(public_exponent=65537, key_size=bits) if algorithm == "RS256" else None
        self._ec = None if self._rsa else ec.generate_private_key(_CURVES[algorithm][0])

    def token(
        self,
        account: str = "agents/reviewer",
        *,
        audiences: Sequence[str] | str = ("equabot",),
        expires_at: float = 1_800_003_600.0,
        head: dict[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """A token of `namespace/name`; `head` and `more` change what it says."""
        said = {"iss": ISSUER, "aud": audiences, "exp": expires_at, "sub": f"system:serviceaccount:{account.replace('/', ':')}"}
        parts = ({"alg": self.algorithm, "kid": self.key_id} | (head or {}), said | more)
        covered = ".".join(base64url(json.dumps(part).encode()) for part in parts)
        return f"{covered}.{base64url(self.sign(covered.encode()))}"

    def sign(self, covered: bytes) -> bytes:
        """As RFC 7518 has it: of an elliptic curve both numbers at their full size."""
        if self._rsa:
            return self._rsa.sign(covered, padding.PKCS1v15(), SHA256())
        assert self._ec is not None
        _, digest, size, _ = _CURVES[self.algorithm]
        return b"".join(number.to_bytes(size) for number in decode_dss_signature(self._ec.sign(covered, ec.ECDSA(digest))))

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public half, as it is published."""
        named = {"kid": self.key_id, "use": "sig", "alg": self.algorithm}
        if self._rsa:
            numbers = self._rsa.public_key().public_numbers()
            return {**named, "kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e), **more}
        assert self._ec is not None
        point = self._ec.public_key().public_numbers()
        _, _, size, curve = _CURVES[self.algorithm]
        x, y = (base64url(number.to_bytes(size)) for number in (point.x, point.y))  # RFC 7518, 6.2.1.2: the full size
        return {**named, "kty": "EC", "crv": curve, "x": x, "y": y, **more}

    def private_key(self) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
        """The key that signs, for another implementation."""
        key = self._rsa or self._ec
        assert key is not None
        return key


def base64url(data: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(number: int) -> str:
    return base64url(number.to_bytes((number.bit_length() + 7) // 8))
