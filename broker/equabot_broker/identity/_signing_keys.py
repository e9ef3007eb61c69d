"""Converts JSON Web Keys (RFC 7517) to verifiers for RFC 7518 signatures. The type of a key determines its algorithm."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from equabot_broker.identity.account_tokens import base64url

_MOST_KEYS: Final = 64
_LEAST_RSA_BITS: Final = 2048

Verify = Callable[[bytes, bytes], bool]
"""Whether the second argument is a signature of the first."""


def usable(published: Mapping[str, Any]) -> Mapping[tuple[str, str], Verify]:
    """The keys that can verify a signature, by id and algorithm. Other keys are ignored: a set may have any."""
    found: dict[tuple[str, str], Verify] = {}
    listed = published.get("keys")
    for key in (listed if isinstance(listed, list) else [])[:_MOST_KEYS]:
        if isinstance(key, dict) and key.get("use", "sig") == "sig" and isinstance(key.get("kid"), str):
            try:
                made = _rsa(key) if key.get("kty") == "RSA" else _elliptic(key)
            except (KeyError, TypeError, ValueError):
                continue
            algorithm, verify = made
            if key.get("alg", algorithm) == algorithm:
                found[key["kid"], algorithm] = verify
    return found


def _rsa(key: Mapping[str, Any]) -> tuple[str, Verify]:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 7 MiB, for those who check signatures alone
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    public = RSAPublicNumbers(e=_number(key["e"]), n=_number(key["n"])).public_key()
    if public.key_size < _LEAST_RSA_BITS:
        raise ValueError("too short to be safe")

    def verify(covered: bytes, signature: bytes) -> bool:
        try:
            public.verify(signature, covered, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True

    return "RS256", verify


def _elliptic(key: Mapping[str, Any]) -> tuple[str, Verify]:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import (  # noqa: PLC0415
        ECDSA,
        SECP256R1,
        SECP384R1,
        SECP521R1,
        EllipticCurvePublicNumbers,
    )
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512  # noqa: PLC0415

    curves: dict[str, tuple[str, Any, Any, int]] = {
        "P-256": ("ES256", SECP256R1(), SHA256(), 32),
        "P-384": ("ES384", SECP384R1(), SHA384(), 48),
        "P-521": ("ES512", SECP521R1(), SHA512(), 66),
    }
    algorithm, curve, digest, size = curves[key["crv"]]
    public = EllipticCurvePublicNumbers(x=_number(key["x"]), y=_number(key["y"]), curve=curve).public_key()

    def verify(covered: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        try:
            public.verify(encode_dss_signature(r, s), covered, ECDSA(digest))
        except InvalidSignature:
            return False
        return True

    return algorithm, verify


def _number(text: str) -> int:
    data = base64url(text)
    if not data:
        raise ValueError("not a number in canonical base64url")
    return int.from_bytes(data)
