"""TLS of the listeners for other machines: 1.2 or newer, HTTP/2 only. Every handshake uses the newest certificate."""

import asyncio
import asyncio.sslproto
import os
import ssl
from typing import Any, Final, Protocol, cast

from equabot_broker.domain.errors import CannotStart
from equabot_broker.domain.secret_value import SecretValue

asyncio.sslproto.SSLProtocol.max_size = 32 << 10
"""Bytes that a connection reads at once. The connection has a buffer of that size; the default is 256 KiB."""
_UNREAD: Final = 16 << 10
"""Bytes that are queued while the connection is not read, in addition to that buffer; the default is 256 KiB."""
_SHUTDOWN_WITHIN: Final = 1.0
_HANDSHAKE_WITHIN: Final = 5.0
"""Seconds from the accept to the end of the handshake."""


class Pair(Protocol):
    """A certificate, its key, and the authority that must have signed callers' certificates (empty: callers need none)."""

    @property
    def certificate(self) -> str: ...

    @property
    def key(self) -> SecretValue: ...

    @property
    def client_ca(self) -> str: ...


class Certificate(Protocol):
    """The storage of the pair, which is renewed from time to time."""

    def read(self) -> Pair:
        """The present pair. Raises CannotStart."""

    def renewed(self) -> Pair | None:
        """The pair if it has changed since the last read, else None. Thread-safe. Never raises."""


class ServerTls:
    """Makes connections secure. Raises CannotStart for a certificate that cannot be used."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._context = _context(certificate.read())

    async def secure(self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """The connection after its handshake. Raises OSError (every TLS error is one) and TimeoutError."""
        pair = await asyncio.to_thread(self._certificate.renewed)
        if pair is not None:
            self._context = _context(pair)
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            protocol,
            self._context,
            server_side=True,
            ssl_handshake_timeout=_HANDSHAKE_WITHIN,
            ssl_shutdown_timeout=_SHUTDOWN_WITHIN,
        )
        if secured is None:
            raise ConnectionError("the caller has closed the connection")
        cast("Any", secured).set_read_buffer_limits(high=_UNREAD)
        return secured


def certificate_of(transport: asyncio.Transport) -> str:
    """The client certificate as PEM; empty without one."""
    shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(shown) if shown else ""


def _context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        if pair.client_ca:
            context.load_verify_locations(cadata=pair.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        # The library loads files only: this file is in memory, and disappears with its descriptor.
        with os.fdopen(os.memfd_create("equabot-tls"), "w+", encoding="ascii") as memory:
            memory.write(f"{pair.certificate}\n{pair.key.reveal()}\n")
            memory.flush()
            context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        raise CannotStart(f"the certificate of listen.agents cannot be used ({why}): install another pair") from None
    return context
