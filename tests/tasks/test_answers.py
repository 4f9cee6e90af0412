"""An intermediary sends replies twice, or the reply of another request: what a task returns is its own all the same."""

from __future__ import annotations

import http.client
import re
import socketserver
import threading
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import mint_dataset, place_order

NOTE = "urn:example:schema:answers.1"


class Intermediary(socketserver.ThreadingTCPServer):
    """Passes requests on to a platform, and keeps connections. `doubled` are replies to send twice, as a regular
    expression of `METHOD path`. The next request that `replaced` matches gets the last reply to its method."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.upstream = upstream
        self.doubled: str | None = None
        self.replaced: str | None = None
        self.sent_twice = 0
        self.last: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Exchange(socketserver.StreamRequestHandler):
    server: Intermediary

    def handle(self) -> None:
        while head := self.rfile.readline():
            method, path, _ = head.decode().split(" ")
            headers = http.client.parse_headers(self.rfile)
            if "chunked" in headers.get("transfer-encoding", ""):
                body = b"".join(self._chunks())
            else:
                body = self.rfile.read(int(headers.get("content-length", 0)))
            reply = self._passed_on(method, path, dict(headers.items()), body)
            asked = f"{method} {path}"
            if self.server.replaced is not None and re.search(self.server.replaced, asked):
                # No copy of a reply on this connection: it comes by another way.
                self.server.replaced, reply = None, self.server.last[method].replace(b"\r\n", b"\r\nVia: 1.1 x\r\n", 1)
            if self.server.doubled is not None and re.search(self.server.doubled, asked):
                self.server.sent_twice += 1
                reply += reply
            self.server.last[method] = reply
            self.wfile.write(reply)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _passed_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        host = urlsplit(self.server.upstream).netloc
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "transfer-encoding")}
        platform = http.client.HTTPConnection(host, timeout=60)
        try:
            platform.request(method, path, body, {**kept, "Host": self.server.url.removeprefix("http://")})
            reply = platform.getresponse()
            content = reply.read()
        finally:
            platform.close()
        hop = ("connection", "content-length", "transfer-encoding")
        lines = [f"HTTP/1.1 {reply.status} {reply.reason}", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in reply.getheaders() if name.lower() not in hop]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
def between(_embedded: EmbeddedPlatform, embedded_platform, monkeypatch):
    """The intermediary between the tasks and the embedded platforms."""
    url = _embedded.environment["IVCAP_URL"]
    with Intermediary(url) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in _embedded.environment.items():
            monkeypatch.setenv(name, value.replace(url, server.url))
        yield server
        server.shutdown()


def test_orders(between, in_script, effects, on_platform, unique):
    """Each call has the order that it placed, under the key that it sent, though every reply comes twice."""
    between.doubled = "^(POST|PUT) "
    messages = [f"{unique} {number}" for number in range(4)]
    orders = in_script(lambda: [place_order("echo", {"message": message}) for message in messages])
    assert between.sent_twice >= 8
    between.doubled = None
    records = [on_platform(lambda client, order=order: client.orders.read(order.urn)) for order in orders]
    assert [record.values()["message"] for record in records] == messages
    assert effects.count("/1/orders") == len({order.urn for order in orders}) == 4


@pytest.mark.catches("connections kept")
def test_mints(between, in_script, registry, artifact):
    """The reply to a mint names nothing that was sent, and yet each artifact has its own dataset."""
    between.doubled = "^POST "
    both = artifact, artifact.model_copy(update={"urn": f"urn:ivcap:artifact:{uuid.uuid4()}", "name": "other.csv"})
    minted = in_script(lambda: [mint_dataset(one, terms=registry.terms) for one in both])
    assert between.sent_twice >= 2 and len({dataset.urn for dataset in minted}) == 2
    assert [dataset.access_uri for dataset in minted] == [one.urn for one in both]


@pytest.mark.catches("replies unjudged")
def test_the_reply_to_another_request(between, in_script, effects, on_platform, unique):
    """What an intermediary mixes up leaves a doubt: the effect is looked for, found, and made once."""
    between.replaced = "^POST /1/orders$"
    order = in_script(lambda: place_order("echo", {"message": unique}))
    assert on_platform(lambda client: client.orders.read(order.urn)).values()["message"] == unique
    assert between.replaced is None and effects.count("/1/orders") == 1


@pytest.mark.catches("replies unjudged")
async def test_reads(between, unique):
    """What is read is what was asked for, of both platforms, by id and by filter."""
    notes = [f"urn:example:thing:{unique}:{number}" for number in range(3)]
    async with IvcapCredentials.from_environment().get_client() as client:
        aspects = [await client.aspects.add(note, NOTE, {"of": note}) for note in notes]
        await client.aspects.read(aspects[1])
        between.replaced = f"^GET /1/aspects/{aspects[0]}"
        assert (await client.aspects.read(aspects[0])).urn == aspects[0] and between.replaced is None
        between.doubled = "^GET "
        assert [(await client.aspects.read(urn)).urn for urn in aspects] == aspects
        for note in notes:
            assert [record.entity async for record in client.aspects.list(entity=note)] == [note]
    async with ProvenaCredentials.from_environment().get_client() as provena:
        organisation = Organisation(display_name=unique, name=unique)
        items = [(await provena.registry.create(Organisation, organisation)).item.id for _ in range(3)]
        assert [(await provena.registry.fetch(Organisation, item)).id for item in items] == items
        assert len(set(items)) == 3 and between.sent_twice >= 9
