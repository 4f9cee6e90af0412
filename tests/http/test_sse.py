"""Server-sent events: cut at every byte, endless, or none at all."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcap_flows.errors import NotFoundError, ProtocolError
from ivcap_flows.http import sse
from ivcap_flows.http.reply import StreamedReply
from ivcap_flows.http.sse import EventStream, Sent, event_stream

TEXT = (
    "id: 1\nevent: step\ndata: Niño\ndata: two\n\n: still here\n\ndata: {}\n\nid: 3\n\nid: 4\ndata: last\n\n"
).encode()
EVENTS = [Sent("1", "step", "Niño\ntwo"), Sent("1", "message", "{}"), Sent("4", "message", "last")]
NEWLINES = [b"\n", b"\r\n", b"\r"]


def chunked(*blocks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(b), b) for b in blocks) + end


async def read(session):
    async with session, event_stream(session, "/events") as stream:
        return [event async for event in stream.events()]


async def test_what_is_no_event_stream_is_refused(web):
    """Another type is a violation; statuses that are not expected raise as everywhere."""
    web.on("GET /events", {"items": []})
    with pytest.raises(ProtocolError, match="GET /events is no event stream"):
        await read(web.session())
    web.on("GET /events")
    with pytest.raises(NotFoundError):
        await read(web.session())


@pytest.mark.parametrize("newline", NEWLINES)
async def test_an_event_without_end_is_not_held(wire, monkeypatch, newline):
    """Neither one long line nor endless lines without a blank one; many small events are fine."""
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    small = b"data: " + b"x" * 300 + newline + newline
    wire.answers = [chunked(*[small] * 50)]
    assert len(await read(wire.session())) == 50
    for piece in (b"x" * 300, b"data: " + b"x" * 300 + newline):
        wire.answers = [chunked(b"data: ", *[piece] * 50, end=b"")]
        with pytest.raises(ProtocolError, match="larger than 1000 bytes"):
            await read(wire.session())


class Blocks(StreamedReply):
    """A body in given blocks."""

    def __init__(self, blocks: list[bytes]) -> None:
        self.status, self.headers, self._blocks = 200, {"content-type": "text/event-stream"}, blocks

    async def blocks(self):
        for block in self._blocks:
            yield block


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(newline=st.sampled_from(NEWLINES), cuts=st.sets(st.integers(1, 90)))
async def test_events_may_be_cut_anywhere(newline, cuts, monkeypatch):
    """Within a character, between the two bytes of a line's end; the bound holds for events and not for streams."""
    monkeypatch.setattr(sse, "MAX_EVENT", 48)
    text = TEXT.replace(b"\n", newline)
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    # A block that holds more than the bound would be refused for its size alone.
    pieces = [text[a:b][n : n + 8] for a, b in pairwise(edges) for n in range(0, b - a, 8)]
    stream = EventStream(None, "/events", Blocks(pieces))
    assert [event async for event in stream.events()] == EVENTS
