"""How the embedded IVCAP runs jobs: what that costs, and events that are still being written."""

import asyncio
import io
import json
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.jobs.dispatch import Dispatcher


async def test_the_state_thread_is_left_to_requests(tmp_path, monkeypatch):
    """A slow round over the jobs runs rarely, and takes about a tenth of the time."""
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


class Growing(io.RawIOBase):
    """A file whose rest is written when somebody has read to its end."""

    def __init__(self, whole, there):
        self._whole, self._there, self._at = whole, there, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        assert whence == io.SEEK_SET
        self._at = offset
        return offset

    def readinto(self, buffer):
        block = self._whole[self._at : self._there][: len(buffer)]
        buffer[: len(block)] = block
        self._at += len(block)
        if not block:
            self._there = len(self._whole)
        return len(block)


@pytest.mark.parametrize("there", range(0, 55, 6))
def test_an_event_that_is_just_being_told_is_taken_whole(there):
    """An event that is read while it is being written becomes one event."""
    told = [{"name": name} for name in ("first", "second", "third")]
    whole = b"".join(json.dumps(one).encode() + b"\n" for one in told)
    files = iter([Growing(whole, there), Growing(whole, len(whole))])
    taken, upto = [], 0

    class Folder:
        def __truediv__(self, name):
            return SimpleNamespace(open=lambda mode: io.BufferedReader(next(files)))

    def take_events(job, events, read):
        nonlocal upto
        taken.extend(events)
        upto = read

    dispatcher = object.__new__(Dispatcher)
    dispatcher._platform = SimpleNamespace(jobs=SimpleNamespace(take_events=take_events))
    for _ in range(2):
        dispatcher._take_events({"id": "urn:ivcap:job:1", "events_read": upto}, Folder())
    assert taken == told and upto == len(whole)
