"""Server-sent events over real sockets: whole, cut at every byte, broken, endless."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcap_flows.errors import NotFoundError, ProtocolError, UnreachableError
from ivcap_flows.http import sse
from ivcap_flows.http.reply import StreamedReply
from ivcap_flows.http.sse import EventStream, Sent, event_stream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
TEXT = (
    "id: 1\nevent: step\ndata: Niño\ndata: two\n\n: still here\n\ndata: {}\n\nid: 3\n\nid: 4\ndata: last\n\n"
).encode()
EVENTS = [Sent("1", "step", "Niño\ntwo"), Sent("1", "message", "{}"), Sent("4", "message", "last")]


def chunked(*blocks: bytes, end: bool = True) -> bytes:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(b), b) for b in blocks) + (b"0\r\n\r\n" if end else b"")


async def read(session, last_id=None, **options):
    async with session, event_stream(session, "/events", last_id=last_id, **options) as stream:
        return [event async for event in stream.events()]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_events_are_read_as_they_are_written(wire, newline):
    """Lines of data are joined, comments and events without data passed over; an id holds until the next."""
    wire.answers = [chunked(TEXT.replace(b"\n", newline))]
    assert await read(wire.session(), last_id="0", params={"max-wait-time": 3}) == EVENTS
    asked = wire.requests[0].decode().lower()
    assert "last-event-id: 0\r\n" in asked and "accept: text/event-stream" in asked and "max-wait-time=3" in asked


async def test_a_break_is_told_after_what_came(wire):
    """The events before it are there, half an event is not."""
    wire.answers = [chunked(b"id: 1\ndata: a\n\n", b"id: 2\ndata: b", end=False)]
    got = []
    session = wire.session(budget=0.1)
    with pytest.raises(UnreachableError):
        async with session, event_stream(session, "/events") as stream:
            async for event in stream.events():
                got.append(event.data)
    assert got == ["a"]


async def test_what_is_no_event_stream_is_refused(web):
    """Another type is a violation; statuses that are not expected raise as everywhere."""
    web.on("GET /events", {"items": []})
    with pytest.raises(ProtocolError, match="GET /events is no event stream"):
        await read(web.session())
    web.on("GET /events")
    with pytest.raises(NotFoundError):
        await read(web.session())


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_an_event_without_end_is_not_held(wire, monkeypatch, newline):
    """Neither one long line nor endless lines without a blank one; many small events are fine."""
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    small = b"data: " + b"x" * 300 + newline + newline
    wire.answers = [chunked(*[small] * 50)]
    assert len(await read(wire.session())) == 50
    for piece in (b"x" * 300, b"data: " + b"x" * 300 + newline):
        wire.answers = [chunked(b"data: ", *[piece] * 50, end=False)]
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
@given(newline=st.sampled_from([b"\n", b"\r\n", b"\r"]), cuts=st.sets(st.integers(1, 90)))
async def test_events_may_be_cut_anywhere(newline, cuts, monkeypatch):
    """Within a character, between the two bytes of a line's end; the bound holds for events and not for streams."""
    monkeypatch.setattr(sse, "MAX_EVENT", 48)
    text = TEXT.replace(b"\n", newline)
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    # A block that holds more than the bound would be refused for its size alone.
    pieces = [text[a:b][n : n + 8] for a, b in pairwise(edges) for n in range(0, b - a, 8)]
    stream = EventStream(None, "/events", Blocks(pieces))
    assert [event async for event in stream.events()] == EVENTS
