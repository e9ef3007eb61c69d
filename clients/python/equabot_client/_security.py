"""What a connection over TCP takes: whom to trust there, and how to show who is calling. Files, because they are renewed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypedDict

import grpc

from equabot_client import errors
from equabot_client._address import expanded

_VARIABLES: Final = {
    "ca_file": "EQUABOT_BROKER_CA_FILE",
    "token_file": "EQUABOT_BROKER_TOKEN_FILE",
    "client_certificate": "EQUABOT_BROKER_CLIENT_CERTIFICATE",
    "client_key": "EQUABOT_BROKER_CLIENT_KEY",
}
_LARGEST: Final = 1 << 20

Stamp = tuple[tuple[int, int, int], ...]
"""How files looked: other contents, another stamp."""


class Security(TypedDict, total=False):
    """For a broker in another pod, whose address is `host:port`. What is left out is taken from the environment."""

    ca_file: str | None
    """Who must have signed the broker's certificate (PEM); default `EQUABOT_BROKER_CA_FILE`, else the usual authorities."""
    token_file: str | None
    """A service account's token for audience `equabot`, read again for every call; default `EQUABOT_BROKER_TOKEN_FILE`."""
    client_certificate: str | None
    """In a token's place: a certificate (PEM); default `EQUABOT_BROKER_CLIENT_CERTIFICATE`."""
    client_key: str | None
    """Its key; default `EQUABOT_BROKER_CLIENT_KEY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of a `Security`; those that there are not are None."""

    ca_file: Path | None = None
    token_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    @classmethod
    def of(cls, given: Security, environ: Mapping[str, str]) -> Self:
        """What was given, and the rest from the environment. Raises ValueError for a certificate without its key."""
        named = {name: given.get(name) or environ.get(variable) for name, variable in _VARIABLES.items()}
        files = cls(**{name: expanded(str(path)) for name, path in named.items() if path})
        if (files.client_certificate is None) != (files.client_key is None):
            raise ValueError("client_certificate and client_key belong together: give both")
        return files

    @property
    def identify(self) -> bool:
        """Whether they show who is calling."""
        return self.token_file is not None or self.client_certificate is not None

    def __bool__(self) -> bool:
        return self.identify or self.ca_file is not None

    def stamp(self) -> Stamp:
        """Of what a connection is made with: the token goes with each call."""
        found = []
        for path in (self.ca_file, self.client_certificate, self.client_key):
            try:
                stat = path.stat() if path else None
            except OSError:
                stat = None
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat else (0, 0, 0))
        return tuple(found)

    def credentials(self) -> grpc.ChannelCredentials:
        """TLS with what the files hold now. Raises FileUnreadable."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file, holding=b"CERTIFICATE-----") if self.ca_file else None,
            private_key=_read(self.client_key, holding=b"PRIVATE KEY-----") if self.client_key else None,
            certificate_chain=_read(self.client_certificate, holding=b"CERTIFICATE-----") if self.client_certificate else None,
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call says of its maker. Raises FileUnreadable."""
        if self.token_file is None:
            return ()
        text = _read(self.token_file)
        token = text.decode("ascii", "replace").strip()
        if not token.isprintable() or not token.isascii() or " " in token or not token:
            raise errors.FileUnreadable(f"{self.token_file} holds no token: is it a projected service-account token?")
        return (("authorization", f"Bearer {token}"),)


def _read(path: Path, *, holding: bytes = b"") -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST)
    except OSError as error:
        raise errors.FileUnreadable(f"{path} cannot be read ({error.strerror}): is it mounted here?") from None
    if holding not in text:
        raise errors.FileUnreadable(f"{path} is not in PEM form: it holds no {holding.decode().rstrip('-').lower()}")
    return text
