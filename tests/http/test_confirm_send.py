"""A request that must not be sent twice is confirmed at the last moment, each time anew."""

import asyncio
import contextlib
import logging
import time

import pytest
from starlette.responses import Response

from ivcap_flows.errors import FencedError, JournalError
from ivcap_flows.http import session as session_module
from ivcap_flows.http.confirm_send import confirming_sends

BUSY = Response(status_code=429, headers={"Retry-After": "0"})


@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
async def test_each_send_is_confirmed(web, quick_retries, repeat):
    """Also that which follows one that surely was not processed."""
    web.on("POST /1/x", BUSY, BUSY, {})
    asked = []

    async def ask():
        asked.append(len(web.calls))

    async with web.session() as session:
        with confirming_sends(ask):
            await session.request("POST", "/1/x", repeat=repeat, json=1)
        await session.request("POST", "/1/x", repeat=repeat, json=1)
    assert asked == [0, 1, 2] and len(web.calls) == 4


async def test_what_may_be_repeated_is_not_confirmed(web):
    web.on("GET /1/x", {})

    async def ask():
        raise AssertionError

    async with web.session() as session:
        with confirming_sends(ask):
            await session.request("GET", "/1/x", repeat="idempotent")


async def test_what_is_not_confirmed_is_not_sent(web, quick_retries):
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
            assert len(web.calls) == 1
            with pytest.raises(JournalError):
                await asyncio.create_task(session.request("POST", "/1/x", repeat="keyed", json=1))
    assert len(web.calls) == 1


class SleepsAfterTheHead(logging.Handler):
    """Suspends the process, event loop and all, when httpcore says that the head was written."""

    def emit(self, record):
        if record.getMessage().startswith("send_request_headers.complete"):
            time.sleep(0.4)


@pytest.mark.catches("old confirmation trusted")
@pytest.mark.parametrize("sleep", ["before the head", "after the head"])
async def test_what_was_confirmed_before_a_sleep_is_not_sent_after_it(web, caplog, monkeypatch, sleep):
    """A process that is suspended between the journal and the socket has perhaps lost its claim meanwhile."""
    web.on("POST /1/x", {})
    monkeypatch.setattr(session_module, "CONFIRMED_FOR", 0.3)
    if sleep == "after the head":
        caplog.set_level(logging.DEBUG, "httpcore.http11")
        monkeypatch.setattr(logging.getLogger("httpcore.http11"), "handlers", [SleepsAfterTheHead()])
    asked = []

    async def confirm():
        asked.append(len(web.calls))
        if len(asked) > 1:
            raise FencedError("taken over", key="k")
        if sleep == "before the head":
            time.sleep(0.4)

    async with web.session() as session:
        with confirming_sends(confirm), contextlib.suppress(FencedError):
            await session.request("POST", "/1/x", repeat="keyed", json=1)
    assert asked == [0, 0] and not web.calls
