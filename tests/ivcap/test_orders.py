"""Orders beyond placing: status, products, metadata, logs and use."""

import asyncio
from datetime import datetime, timezone

import pytest
from starlette.responses import Response, StreamingResponse

from ivcap_flows.errors import InputError

O, A = "urn:ivcap:order:o", "urn:ivcap:artifact:a"  # noqa: E741
ROUTE = f"/1/orders/{O}"


def listing(*items, following=None):
    links = [{"rel": "next", "type": "application/json", "href": following}] if following else []
    return {"items": list(items), "links": links}


async def test_products_and_metadata_are_read_as_they_are_asked_for(client, scripted):
    """A page is fetched when the one before is used up, and no page beyond the limit."""
    for noun, items in (("products", [{"id": f"{A}{n}", "status": "ready"} for n in range(3)]),
                        ("metadata", [{"id": f"x{n}", "schema": f"urn:s:{n}"} for n in range(3)])):  # fmt: skip
        scripted.on(f"GET {ROUTE}/{noun}", listing(*items[:2], following="?page=c"), listing(items[2]))
        lister = getattr(client.orders, noun)
        found = lister(O)
        assert (await anext(found)).urn and len(scripted.to(f"GET {ROUTE}/{noun}")) == 1
        assert len([each async for each in found]) == 2
        scripted.on(f"GET {ROUTE}/{noun}", listing(*items[:2], following="?page=c"), listing(items[2]))
        before = len(scripted.to(f"GET {ROUTE}/{noun}"))
        assert len([each async for each in lister(O, limit=2)]) == 2
        assert len(scripted.to(f"GET {ROUTE}/{noun}")) == before + 1


async def test_metadata_are_added_as_aspects(client, scripted):
    """Of the order, by its URN or bare id."""
    scripted.on("POST /1/aspects", {"id": "x"})
    assert await client.orders.add_metadata("o", "urn:s:1", {"k": 1}) == "urn:ivcap:aspect:x"
    [call] = scripted.calls
    assert (call.query["entity"], call.query["schema"], call.body) == (O, "urn:s:1", {"k": 1})


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
    assert await client.orders.log_tail(O, 2) == "x" * 4096 + "\nlast"
    with pytest.raises(InputError, match="has no offset"):
        await anext(client.orders.logs(O, since=datetime(2026, 6, 1)))


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


async def test_an_order_without_log_has_no_lines(client, scripted):
    """204 is an empty log."""
    scripted.on(f"GET {ROUTE}/logs", Response(status_code=204))
    assert [line async for line in client.orders.logs(O)] == []
    assert await client.orders.log_tail(O) == ""


async def test_an_order_on_the_embedded_platform(embedded, until):
    """Status, log window, and metadata with what was added."""
    service = await embedded.services.by_name("fail")
    order = await embedded.orders.place(service.urn, {"message": "one\ntwo"})
    await until(lambda: embedded.orders.read(order.urn))
    assert await embedded.orders.status(order.urn) in ("failed", "error")
    added = await embedded.orders.add_metadata(order.urn, "urn:example:schema:note.1", {"n": 1})
    assert added in [each.urn async for each in embedded.orders.metadata(order.urn)]
    assert "two" in [line async for line in embedded.orders.logs(order.urn)][-1]
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    assert [line async for line in embedded.orders.logs(order.urn, until=past)] == []
