"""The connections under httpcore: bytes both ways, encrypted or not, limits of time, and peers that go away."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct
from contextlib import aclosing, asynccontextmanager, suppress

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ivcap_flows.http.network import Network
from ivcap_flows.http.pool import Pool

MANY = bytes(range(256)) * 64 * 1024  # 16 MiB, more than sockets and buffers hold


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that signs itself, with its key: one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@asynccontextmanager
async def peer(talk, certificate=None):
    """A server of bytes that does `talk(reader, writer)` with whoever connects; its port."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])

    async def guarded(reader, writer):
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await talk(reader, writer)
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def connected(port, certificate=None):
    stream = await Network().connect_tcp("127.0.0.1", port, timeout=5)
    try:
        if certificate is not None:
            trust = ssl.create_default_context(cafile=certificate)
            stream = await stream.start_tls(trust, "127.0.0.1", timeout=5)
        yield stream
    finally:
        await stream.aclose()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_many_bytes_both_ways(certificate, encrypted):
    """More than any buffer holds arrives whole and in order, and the peer waits while nobody reads."""
    sent = 0

    async def back(reader, writer):
        nonlocal sent
        got = await reader.readexactly(len(MANY))
        for start in range(0, len(got), 65536):
            writer.write(got[start : start + 65536])
            await writer.drain()
            sent = start
        writer.close()

    used = certificate if encrypted else None
    async with peer(back, used) as port, connected(port, used) as stream:
        await stream.write(MANY, timeout=5)
        await asyncio.sleep(0.2)
        assert sent < len(MANY) * 3 // 4
        came = bytearray()
        while block := await stream.read(10_000, timeout=5):
            assert len(block) <= 10_000
            came += block
        assert came == MANY
        assert await stream.read(1, timeout=5) == b""


async def test_requests_share_an_encrypted_connection(certificate, monkeypatch):
    """As HTTP/1.1, of which the client has said that it is all it speaks; a stranger's certificate is refused."""
    opened = []

    async def talk(reader, writer):
        opened.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def ask(pool, port):
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), 5.0)
        reply = await pool.send(httpx.Request("GET", f"https://127.0.0.1:{port}/", extensions={"timeout": timeout}))
        return await reply.aread()

    async with peer(talk, certificate) as port, aclosing(Pool()) as pool:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await ask(pool, port)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with aclosing(Pool()) as trusting:
            assert [await ask(trusting, port) for _ in range(3)] == [b"ok"] * 3
    assert opened == ["http/1.1"]


async def test_a_certificate_that_is_not_trusted_ends_the_connection(certificate):
    """A server whose certificate nobody vouches for is not spoken to."""

    async def silent(reader, writer):
        await reader.read()

    async with peer(silent, certificate) as port:
        stream = await Network().connect_tcp("127.0.0.1", port, timeout=5)
        with pytest.raises(httpcore.ConnectError, match="certificate verify failed"):
            await stream.start_tls(ssl.create_default_context(), "127.0.0.1", timeout=5)


async def test_a_silent_peer_is_waited_for_so_long(certificate):
    """Reading, writing and encrypting with a peer that does nothing end at their time, each with its own error."""

    async def silent(reader, writer):
        await asyncio.sleep(5)

    async with peer(silent) as port, connected(port) as stream:
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(1, timeout=0.05)
        with pytest.raises(httpcore.WriteTimeout):
            while True:
                await stream.write(MANY, timeout=0.05)
    async with peer(silent) as port:
        stream = await Network().connect_tcp("127.0.0.1", port, timeout=5)
        with pytest.raises(httpcore.ConnectTimeout):
            await stream.start_tls(ssl.create_default_context(), "127.0.0.1", timeout=0.05)


async def test_a_read_that_was_cancelled_loses_nothing():
    """Who stops to wait takes no bytes along: the next read gets them."""
    go = asyncio.Event()

    async def late(reader, writer):
        await go.wait()
        writer.write(b"late")
        await writer.drain()

    async with peer(late) as port, connected(port) as stream:
        reading = asyncio.create_task(stream.read(10, timeout=5))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        go.set()
        assert await stream.read(10, timeout=5) == b"late"


@pytest.mark.parametrize("rude", [False, True], ids=["closed", "reset"])
async def test_a_peer_that_goes_away_is_noticed(rude):
    """What came before the end is read first; then the end, or the error of a reset; writing tells it too."""

    async def leave(reader, writer):
        await reader.readexactly(6)
        writer.write(b"last words")
        await writer.drain()
        await asyncio.sleep(0.05)
        if rude:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()
        else:
            writer.close()

    async with peer(leave) as port, connected(port) as stream:
        await stream.write(b"unread", timeout=5)
        assert await stream.read(100, timeout=5) == b"last words"
        if rude:
            with pytest.raises(httpcore.ReadError):
                await stream.read(100, timeout=5)
        else:
            assert await stream.read(100, timeout=5) == b""
        assert stream.get_extra_info("is_readable")
        with pytest.raises(httpcore.WriteError):
            for _ in range(3):
                await stream.write(b"more", timeout=5)
                await asyncio.sleep(0.05)


async def test_a_peer_that_leaves_while_it_is_written_to_ends_the_writing():
    """A writer that waits for room hears that there will be none."""

    async def leave(reader, writer):
        await asyncio.sleep(0.1)
        writer.transport.abort()

    async with peer(leave) as port, connected(port) as stream:
        with pytest.raises(httpcore.WriteError):
            while True:
                await stream.write(MANY, timeout=5)


async def test_an_end_that_the_loop_has_not_heard_of_is_seen():
    """An idle connection that its peer closed is not taken for open, though the loop had no turn since."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with connected(listener.getsockname()[1]) as stream:
            assert not stream.get_extra_info("is_readable")
            listener.accept()[0].close()
            assert stream.get_extra_info("is_readable")


async def test_nobody_listens():
    """A closed port is told as such."""
    with pytest.raises(httpcore.ConnectError):
        await Network().connect_tcp("127.0.0.1", 9, timeout=5)
