"""A link with latency and TLS in front of a platform: each turn of a connection takes its time, as over a network."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["link"]

_HOST = "127.0.0.1"
_BLOCK = 256 * 1024

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def link(port: int, round_trip: float, folder: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a way to a port of this machine, and the file of the certificate to trust.

    Bytes arrive half a round trip after they were sent, and the first ones of a client a whole one later: opening a
    connection takes that, too. The TLS is at the far end.
    """
    context, certificate = _identity(folder)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def opened(serve: Serve, tls: ssl.SSLContext | None) -> asyncio.Server:
        return await asyncio.start_server(serve, _HOST, 0, ssl=tls, backlog=1024)

    def run(serve: Serve, tls: ssl.SSLContext | None = None) -> int:
        server = asyncio.run_coroutine_threadsafe(opened(serve, tls), loop).result()
        return int(server.sockets[0].getsockname()[1])

    try:
        far = run(partial(_passed_on, port, 0.0), context)
        near = run(partial(_passed_on, far, round_trip))
        yield f"https://{_HOST}:{near}", certificate
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _passed_on(port: int, round_trip: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    there, back = await asyncio.open_connection(_HOST, port)
    await asyncio.gather(
        _carry(reader, back, round_trip / 2, round_trip), _carry(there, writer, round_trip / 2), return_exceptions=True
    )
    for each in (writer, back):
        each.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, takes: float, opening: float = 0) -> None:
    """Pass on what comes, each block when its time has come; `opening` delays the first."""
    loop = asyncio.get_running_loop()
    due: deque[tuple[float, bytes]] = deque()
    arrived = asyncio.Event()

    async def read() -> None:
        begin = loop.time() + opening
        while True:
            block = await reader.read(_BLOCK)
            due.append((max(loop.time(), begin) + takes, block))
            arrived.set()
            if not block:
                return

    reading = asyncio.create_task(read())
    try:
        while True:
            await arrived.wait()
            while due:
                moment, block = due.popleft()
                if (left := moment - loop.time()) > 0:
                    await asyncio.sleep(left)
                if not block:
                    writer.close()
                    return
                writer.write(block)
            arrived.clear()
    finally:
        reading.cancel()


def _identity(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """The context of a server, and the certificate by which it is known."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _HOST)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
