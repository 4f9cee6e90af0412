"""A request that must not be sent twice is confirmed at the last moment, each time anew."""

import asyncio

import pytest
from starlette.responses import Response

from ivcap_flows.errors import FencedError, JournalError
from ivcap_flows.http.confirm_send import confirming_sends

BUSY = Response(status_code=429, headers={"Retry-After": "0"})


@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
async def test_each_send_is_confirmed(web, quick, repeat):
    """Also that which follows one that surely was not processed."""
    web.on("POST /1/x", BUSY, BUSY, {})
    asked = []

    async def ask():
        asked.append(len(web.seen))

    async with web.session() as session:
        with confirming_sends(ask):
            await session.request("POST", "/1/x", repeat=repeat, json=1)
        await session.request("POST", "/1/x", repeat=repeat, json=1)
    assert asked == [0, 1, 2] and len(web.seen) == 4


async def test_what_may_be_repeated_is_not_confirmed(web):
    web.on("GET /1/x", {})

    async def ask():
        raise AssertionError

    async with web.session() as session:
        with confirming_sends(ask):
            await session.request("GET", "/1/x", repeat="idempotent")


async def test_what_is_not_confirmed_is_not_sent(web, quick):
    """Nor a second time, nor by a task of its own: the error of whoever confirms is raised."""
    web.on("POST /1/x", BUSY, {})
    answers = [None, FencedError("taken over", key="k"), JournalError("locked")]

    async def ask():
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    async with web.session() as session:
        with confirming_sends(ask):
            with pytest.raises(FencedError):
                await session.request("POST", "/1/x", repeat="keyed", json=1)
            assert len(web.seen) == 1
            with pytest.raises(JournalError):
                await asyncio.create_task(session.request("POST", "/1/x", repeat="keyed", json=1))
    assert len(web.seen) == 1
