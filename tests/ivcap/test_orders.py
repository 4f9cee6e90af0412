"""Orders: placed once, read with their products, metadata and logs."""

import asyncio
from datetime import datetime, timezone

import pytest
from starlette.responses import Response, StreamingResponse

from ivcap_flows.errors import InputError, ProtocolError, UnavailableError

O, A, S = "urn:ivcap:order:o", "urn:ivcap:artifact:a", "urn:ivcap:service:s"  # noqa: E741
ROUTE = f"/1/orders/{O}"
POLICY = "urn:ivcap:policy:p"


async def test_an_order_is_sent_once(client, scripted):
    """The body as the API has it; an answer that leaves in doubt is not followed by a second order."""
    scripted.on("POST /1/orders", Response(status_code=503))
    with pytest.raises(UnavailableError) as error:
        await client.orders.place(S, {"a": "1"}, name="n", tags=["t"], policy=POLICY)
    assert [call.body for call in scripted.calls] == [
        {"service": S, "parameters": [{"name": "a", "value": "1"}], "name": "n", "tags": ["t"], "policy": POLICY}
    ]
    assert error.value.sent is True
    scripted.on("POST /1/orders", {"status": "pending"})
    with pytest.raises(ProtocolError, match="OrderRecord: wrong or missing id") as error:
        await client.orders.place(S, {})
    assert error.value.sent is True


async def test_a_log_comes_line_by_line(client, scripted):
    """Within its window; long lines are cut, and half characters do no harm."""

    async def written():
        for block in (b"one\r\ntw", b"o\n\nNi\xc3", b"\xb1o\n", b"x" * 3000, b"x" * 3000, b"\nlast"):
            yield block

    scripted.on(f"GET {ROUTE}/logs", lambda call: StreamingResponse(written(), media_type="text/plain"))
    since, until = (datetime(2026, 6, day, tzinfo=timezone.utc) for day in (1, 2))
    lines = [line async for line in client.orders.logs(O, since=since, until=until)]
    assert lines == ["one", "two", "", "Niño", "x" * 4096, "last"]
    assert scripted.calls[0].query == {"from": str(int(since.timestamp())), "to": str(int(until.timestamp()))}
    with pytest.raises(InputError, match="has no offset"):
        await anext(client.orders.logs(O, since=datetime(2026, 6, 1)))


@pytest.mark.parametrize(
    ("log", "tail"),
    [
        (b"", ""),
        (None, ""),
        (b"one\ntwo\nthree\n", "two\nthree"),
        (b"one\r\ntwo\r\nthree", "two\nthree"),
        (b"x" * 100_000 + b"\nlast\n", "x" * 4096 + "\nlast"),
        (b"".join(b"%d\n" % n for n in range(200_000)), "199998\n199999"),
        (b"\xff\n", "\ufffd"),
    ],
    ids=["empty", "none", "lines", "crlf", "long line", "long log", "binary"],
)
async def test_the_tail_of_a_log(client, scripted, log, tail):
    """The last lines, each bounded, however long the log is."""
    scripted.on(f"GET {ROUTE}/logs", Response(log, media_type="text/plain", status_code=204 if log is None else 200))
    assert await client.orders.log_tail(O, lines=2) == tail


@pytest.mark.parametrize(("block", "lines"), [(b"line\n" * 100, ["line", "line"]), (b"x" * 1000, ["x" * 4096])])
async def test_a_log_without_end_is_not_held(client, scripted, block, lines):
    """The first lines of one that never ends are there at once, and so is the beginning of a line that never ends."""

    async def endless():
        while True:
            yield block
            await asyncio.sleep(0.01)

    scripted.on(f"GET {ROUTE}/logs", lambda call: StreamingResponse(endless(), media_type="text/plain"))
    log = client.orders.logs(O)
    assert [await asyncio.wait_for(anext(log), 5) for _ in lines] == lines
    await log.aclose()
