"""A connection: what it sends and reads is what httpx's own does, within its limits of time and size."""

import asyncio
import datetime
import ipaddress
import re
import socket
import ssl
import struct
import time
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import pairwise

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from ivcap_flows.http.connection import Connection
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
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await talk(reader, writer)
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def request(port, method="GET", patience=5.0, scheme="http", path="/x", **more):
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), patience)
    return httpx.Request(method, f"{scheme}://127.0.0.1:{port}{path}", extensions={"timeout": timeout}, **more)


@asynccontextmanager
async def connection(certificate=None, kept=4.0):
    trust = None if certificate is None else ssl.create_default_context(cafile=certificate)
    async with aclosing(Connection(trust, kept)) as made:
        yield made


async def asked(made, *arguments, **more):
    """The reply read whole: status, headers and body."""
    async with aclosing(await made.handle_async_request(request(*arguments, **more))) as reply:
        blocks = [block async for block in reply.stream]
        return reply.status_code, reply.headers.raw, b"".join(blocks)


async def request_of(reader):
    """The bytes of a request up to its end by its Content-Length; an IncompleteReadError at the end of all."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return head, await reader.readexactly(int(length[1]) if length else 0)


def answering(*replies):
    """Gives these bytes, one a request, the last for ever; in blocks, where it is a list. Counts its connections."""

    async def talk(reader, writer):
        talk.connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                talk.heads.append((await request_of(reader))[0])
                reply = left.pop(0) if len(left) > 1 else left[0]
                for block in reply if isinstance(reply, list) else [reply]:
                    writer.write(block)
                    await writer.drain()
                    await asyncio.sleep(0)
                if ENDS in b"".join(reply if isinstance(reply, list) else [reply]):
                    return writer.close()

    left = list(replies)
    talk.connections, talk.heads = 0, []
    return talk


ENDS = b"X-Then: end"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REPLIES = {
    "length": OK,
    "empty": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "an empty header": b"HTTP/1.1 200 OK\r\nX-None:\r\nX-Some:  a b \t\r\nContent-Length: 2\r\n\r\nok",
    "a header twice": b"HTTP/1.1 201 Made\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
    "beyond ASCII": b"HTTP/1.1 200 OK\r\nX-Word: caf\xc3\xa9\r\nContent-Length: 2\r\n\r\nok",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;n=v\r\nde\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    "nothing": b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "not changed": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n" + OK,
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
    "refused": b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone",
    "closing": b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + ENDS + b"\r\nContent-Length: 2\r\n\r\nok",
    "up to the end": b"HTTP/1.1 200 OK\r\n" + ENDS + b"\r\n\r\nall that comes",
    "old": b"HTTP/1.0 200 OK\r\n" + ENDS + b"\r\nContent-Length: 2\r\n\r\nok",
}


async def both(reply, method="GET"):
    """What this connection and one of httpx make of the same reply, and of the next one."""
    told = []
    for made in (Connection(None, 4.0), httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))):
        talk = answering(reply, OK)
        async with peer(talk) as port, aclosing(made):
            replies = [await asked(made, port, method) for _ in range(2)]
            # Hosts differ by their port, and httpx tells itself nothing of what is above it.
            told.append((replies, talk.connections, [head.replace(str(port).encode(), b"") for head in talk.heads]))
    return told


@pytest.mark.parametrize("name", REPLIES)
async def test_replies_are_read_as_httpx_reads_them(name):
    """Status, headers and body, and whether the connection serves once more."""
    ours, theirs = await both(REPLIES[name])
    assert ours == theirs
    assert ours[1] == (2 if ENDS in REPLIES[name] else 1)


UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nhalf of it"


@pytest.mark.parametrize("later", [False, True], ids=["while it is read", "before it is read"])
async def test_a_reset_is_no_end_of_a_reply(later):
    """Of a reply without a length only an orderly end says that it is whole."""

    async def talk(reader, writer):
        await request_of(reader)
        writer.write(UNTIL_THE_END)
        await writer.drain()
        await asyncio.sleep(0.05)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with (
        peer(talk) as port,
        connection() as made,
        aclosing(await made.handle_async_request(request(port))) as reply,
    ):
        if later:
            await asyncio.sleep(0.2)
        with pytest.raises(httpx.ReadError):
            async for _ in reply.stream:
                pass


async def test_an_old_server_may_keep_a_connection():
    """Where it says so; httpx opens another."""
    talk = answering(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    async with peer(talk) as port, connection() as made:
        assert [(await asked(made, port))[2] for _ in range(2)] == [b"ok"] * 2
    assert talk.connections == 1


@pytest.mark.parametrize("length", [b"", b"Content-Length: 7\r\n"], ids=["unsaid", "said"])
@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n" + ENDS + b"\r\n"], ids=["stays", "closes"])
async def test_a_reply_to_head_has_no_body(length, closing):
    """Whatever length it tells, and the connection serves on unless the peer closes it."""
    reply = b"HTTP/1.1 200 OK\r\n" + length + closing + b"\r\n"
    (first, *_), connections, _ = (await both([reply], "HEAD"))[0]
    assert (first[0], first[2]) == (200, b"")
    assert connections == (2 if closing else 1)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(REPLIES)), cuts=st.sets(st.integers(1, 150), max_size=12))
def test_it_matters_not_in_which_pieces_a_reply_comes(name, cuts):
    """Down to single bytes, at any place."""
    reply = REPLIES[name]
    places = [0, *sorted(cut for cut in cuts if cut < len(reply)), len(reply)]
    ours, theirs = asyncio.run(both([reply[start:end] for start, end in pairwise(places)]))
    assert ours == theirs


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 200_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 20_000,
    "half a head": b"HTTP/1.1 200 OK\r\n" + ENDS,
    "half a body": b"HTTP/1.1 200 OK\r\n" + ENDS + b"\r\nContent-Length: 9\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\n" + ENDS + b"\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    "no last chunk": b"HTTP/1.1 200 OK\r\n" + ENDS + b"\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_reply_is_told(name):
    """At once, and the next request has a connection of its own."""
    talk = answering(BROKEN[name], OK)
    async with peer(talk) as port, connection() as made:
        with pytest.raises(httpx.RemoteProtocolError):
            await asked(made, port)
        assert (await asked(made, port))[2] == b"ok"
    assert talk.connections == 2


@pytest.mark.parametrize("pause", [None, 0.05])
async def test_bytes_that_nobody_asked_for_are_nobodys_reply(pause):
    """What follows a whole reply, with it or later, is not taken for the next one."""
    planted = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse"
    connections = 0

    async def talk(reader, writer):
        nonlocal connections
        connections += 1
        while True:
            await request_of(reader)
            if connections == 1 and pause is None:
                writer.write(OK + planted)
                continue
            writer.write(OK)
            if connections == 1:
                await asyncio.sleep(pause)
                writer.write(planted)

    async with peer(talk) as port, connection() as made:
        assert (await asked(made, port))[2] == b"ok"
        await asyncio.sleep(0.1)
        assert (await asked(made, port))[2] == b"ok"
    assert connections == 2


async def blocks_of(*blocks):
    for block in blocks:
        yield block


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"content": b"abc"},
        {"content": b"x" * 100_000},
        {"content": b"", "headers": {"X-None": ""}},
        {"headers": {"Content-Type": "text/plain", "X-Word": "a\tb"}},
    ],
    ids=str,
)
async def test_requests_leave_as_those_of_httpx(more):
    """The same line and headers, byte for byte."""
    sent = []
    for made in (Connection(None, 4.0), httpx.AsyncHTTPTransport()):

        async def talk(reader, writer):
            sent.append(await request_of(reader))
            writer.write(OK)
            await reader.read()

        async with peer(talk) as port, aclosing(made):
            await asked(made, port, "POST", path="/a%20b/ü?q=1&r=%25", **more)
            sent[-1] = [part.replace(str(port).encode(), b"") for part in sent[-1]]
    assert sent[0] == sent[1]


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunks"])
async def test_a_body_leaves_in_blocks(web, declared):
    """As long as was declared, or in chunks; empty blocks end nothing."""

    async def echo(asking):
        return Response(await asking.body())

    web.on("POST /x", echo)
    port = int(web.url.rpartition(":")[2])
    parts = [b"first", b"", b"x" * 300_000, b"last"]
    headers = {"Content-Length": str(len(b"".join(parts)))} if declared else {}
    async with connection() as made:
        for _ in range(2):
            reply = await asked(made, port, "POST", content=blocks_of(*parts), headers=headers)
            assert reply[2] == b"".join(parts)


@pytest.mark.parametrize("parts", [[b"ab"], [b"abcd"], [b"ab", b"cd"], []], ids=str)
async def test_a_body_of_another_length_is_an_error(parts):
    """What is too much does not leave: it would be another request. What is too little gets no reply."""
    came = []

    async def talk(reader, writer):
        came.append(await reader.read())

    async with peer(talk) as port:
        async with connection() as made:
            with pytest.raises(httpx.LocalProtocolError, match="Content-Length, 3"):
                await asked(made, port, "POST", content=blocks_of(*parts), headers={"Content-Length": "3"})
        await asyncio.sleep(0.05)
    assert all(len(one.partition(b"\r\n\r\n")[2]) <= 3 for one in came)


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"X-A": "a\r\nX-B: b"}},
        {"headers": {"X-A": "a\nX-B: b"}},
        {"headers": {"X-A": "a\x00"}},
        {"headers": {"X A": "a"}},
        {"headers": {"X-A\r\nX-B": "a"}},
        {"headers": {"X-A:": "a"}},
        {"method": "GET /y HTTP/1.1\r\nX:"},
    ],
    ids=str,
)
async def test_what_is_no_http_is_not_sent(wrong):
    """Nobody can put a line of their own into a request."""
    talk = answering(OK)
    async with peer(talk) as port, connection() as made:
        with pytest.raises(httpx.LocalProtocolError):
            await asked(made, port, **wrong)
    assert not talk.connections


async def test_a_reply_before_the_end_of_the_request_ends_it():
    """A refusal is told without the rest of a long body being sent; the connection is not used again."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    connections = drawn = 0

    async def talk(reader, writer):
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await asyncio.sleep(5)

    async def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield b"x" * 65536
            await asyncio.sleep(0)

    async with peer(talk) as port, connection() as made:
        for turn in (1, 2):
            status, *_ = await asked(made, port, "POST", content=endless())
            assert (status, connections) == (413, turn)
    assert drawn < 1000


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_many_bytes_both_ways(certificate, encrypted):
    """More than any buffer holds arrives whole and in order, and the peer waits while nobody reads."""
    sent = 0

    async def back(reader, writer):
        nonlocal sent
        _, got = await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got))
        for start in range(0, len(got), 65536):
            writer.write(got[start : start + 65536])
            await writer.drain()
            sent = start
        await reader.read()

    used = certificate if encrypted else None
    async with peer(back, used) as port, connection(used) as made:
        reply = await made.handle_async_request(
            request(port, "POST", scheme="https" if encrypted else "http", content=MANY)
        )
        await asyncio.sleep(0.2)
        assert sent < len(MANY) * 3 // 4
        assert await reply.aread() == MANY


async def test_requests_share_an_encrypted_connection(certificate, monkeypatch):
    """As HTTP/1.1, of which the client has said that it is all it speaks; a stranger's certificate is refused."""
    opened = []

    async def talk(reader, writer):
        opened.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def ask(pool, port):
        return await (await pool.send(request(port, scheme="https"))).aread()

    async with peer(talk, certificate) as port, aclosing(Pool()) as pool:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await ask(pool, port)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with aclosing(Pool()) as trusting:
            assert [await ask(trusting, port) for _ in range(3)] == [b"ok"] * 3
    assert opened == ["http/1.1"]


async def test_a_silent_peer_is_waited_for_so_long(certificate):
    """Connecting, writing and reading with a peer that does nothing end at their time, each with its own error."""

    async def silent(reader, writer):
        await asyncio.sleep(5)

    async with peer(silent) as port, connection() as made, connection(certificate) as secure:
        with pytest.raises(httpx.ReadTimeout):
            await asked(made, port, patience=0.05)
        with pytest.raises(httpx.WriteTimeout):
            await asked(made, port, "POST", patience=0.05, content=MANY)
        with pytest.raises(httpx.ConnectTimeout):
            await asked(secure, port, patience=0.05, scheme="https")


async def test_a_silence_within_a_body_is_waited_for_so_long():
    """Each block may take the time allowed, not all of them together."""

    async def slow(reader, writer):
        await request_of(reader)
        for block in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 4\r\n\r\n", b"a", b"b", b"c"):
            writer.write(block)
            await asyncio.sleep(0.15)
        await asyncio.sleep(5)

    async with peer(slow) as port, connection() as made:
        reply = await made.handle_async_request(request(port, patience=0.5))
        came = []
        with pytest.raises(httpx.ReadTimeout):
            async for block in reply.stream:
                came.append(block)
    assert b"".join(came) == b"abc"


@pytest.mark.parametrize(("rude", "error"), [(False, httpx.RemoteProtocolError), (True, httpx.ReadError)])
@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], ids=["head", "body"])
async def test_a_peer_that_goes_away_is_noticed(rude, error, words):
    """What came before the end is read first; then it is an end, or a reset."""

    async def leave(reader, writer):
        await request_of(reader)
        writer.write(words)
        await writer.drain()
        await asyncio.sleep(0.05)
        if rude:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

    came = []
    async with peer(leave) as port, connection() as made:
        with pytest.raises(error):
            async for block in (await made.handle_async_request(request(port))).stream:
                came.append(block)
    assert b"".join(came) == words[-4:]


async def test_a_peer_that_leaves_while_it_is_written_to_ends_the_writing():
    """Who waits for room hears that there will be none."""

    async def leave(reader, writer):
        await asyncio.sleep(0.1)
        writer.transport.abort()

    async with peer(leave) as port, connection() as made:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await asked(made, port, "POST", content=blocks_of(*[MANY] * 8))


async def test_a_reply_that_is_not_read_is_no_later_ones():
    """Left in the middle, or cancelled before its head, its connection is closed."""
    go = asyncio.Event()

    async def late(reader, writer):
        await request_of(reader)
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla")
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"te")

    async with peer(late) as port, connection() as made:
        waiting = asyncio.create_task(asked(made, port))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        left = await made.handle_async_request(request(port))
        await left.aclose()
        assert (await asked(made, port))[2] == b"late"


async def test_an_end_that_the_loop_has_not_heard_of_is_seen():
    """An idle connection that its peer closed is not taken for open, though the loop had no turn since."""
    closed = []

    async def once(reader, writer):
        await request_of(reader)
        writer.write(OK)
        await writer.drain()
        closed.append(writer.get_extra_info("socket"))
        await asyncio.sleep(5)

    async with peer(once) as port, connection() as made:
        await asked(made, port)
        time.sleep(0.05)
        closed[0].shutdown(socket.SHUT_RDWR)
        assert (await asked(made, port))[2] == b"ok"


async def test_a_connection_is_not_used_after_a_long_rest():
    """Before the peer closes it, another one is opened."""
    talk = answering(OK)
    async with peer(talk) as port, connection(kept=0.2) as made:
        for rest in (0.0, 0.0, 0.3):
            await asyncio.sleep(rest)
            assert (await asked(made, port))[2] == b"ok"
    assert talk.connections == 2


async def test_nobody_listens():
    """A closed port is told as such."""
    async with connection() as made:
        with pytest.raises(httpx.ConnectError):
            await asked(made, 9)
