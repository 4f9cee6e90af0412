"""Jobs that wait cost the platform little, however many they are."""

import asyncio
import time
from contextlib import suppress
from types import SimpleNamespace

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.jobs.dispatch import Dispatcher


async def test_the_state_thread_is_left_to_requests(tmp_path, monkeypatch):
    """A look at jobs that takes long comes seldom: it has about a tenth of the time."""
    looks = 0

    def active():
        nonlocal looks
        looks += 1
        time.sleep(0.05)
        return [{"id": "urn:ivcap:job:1", "status": "pending", "service": "s"}]

    monkeypatch.setattr(Dispatcher, "_plan", lambda dispatcher, service: SimpleNamespace(concurrency=0))
    platform = SimpleNamespace(
        directory=Directory(tmp_path),
        thread=SimpleNamespace(run=asyncio.to_thread),
        jobs=SimpleNamespace(active=active),
    )
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(Dispatcher(platform).run(), 1.2)
    assert 2 <= looks <= 4
