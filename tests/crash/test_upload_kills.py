"""`kill -9` of an upload at each of its steps; the same upload again leaves one artifact that is ready and right.

`make test` kills a stream in the middle of a chunk, `make proofs` files, streams and blocks of unknown number at each;
`make kills N=20` repeats that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from other_processes import settings_of_platforms

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.cli import main
from ivcap_flows.identity import CONTENT_SCHEMA, INTENT_SCHEMA, digest, key_entity
from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

MIB = 1024 * 1024
UPLOADER = Path(__file__).with_name("uploader.py")
STEPS = (
    "before the artifact is asked for",
    "before its name is in the journal",
    "before its digest is stated",
    "in the middle of a chunk",
    "after the first chunk",
    "after the last byte",
    "before the outcome is in the journal",
    "before the outcome is on the platform",
)
SOURCES = ("file", "stream", "unknown size")
SHORT = ("in the middle of a chunk", "stream")
LEFT_BEHIND = "before its name is in the journal"
FINISHED = STEPS[-2:]


class Uploader:
    """Uploads of one file by processes of their own."""

    def __init__(self, server: subprocess.Popen[str], path: Path, journal: str) -> None:
        self.server, self.path, self.journal = server, path, journal

    def run(self, source: str, step: str | None, journal: str | None = None) -> int:
        """How the process ended."""
        ours = {**settings_of_platforms(), "IVCAP_FLOWS_JOURNAL": journal or self.journal}
        asked = {"source": source, "path": str(self.path), "step": step, "environment": ours}
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def kill(self, source: str, step: str) -> None:
        assert self.run(source, step) == -signal.SIGKILL, self.said

    def again(self, source: str, journal: str | None = None) -> str:
        """The URN of the artifact."""
        assert self.run(source, None, journal) == 0, self.said
        return Path(f"{self.path}.urn").read_text(encoding="ascii")

    @property
    def said(self) -> str:
        return Path(f"{self.path}.log").read_text(encoding="utf-8")[-4000:]


@pytest.fixture(scope="module")
def _uploader() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(UPLOADER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture
def uploader(_uploader, embedded_platform, sqlite_url, tmp_path, monkeypatch) -> Uploader:
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", sqlite_url)
    path = tmp_path / f"{tmp_path.name}-{time.time_ns()}.bin"
    path.write_bytes(os.urandom(5 * MIB))
    return Uploader(_uploader, path, sqlite_url)


def on_platform(ask: Callable[[Any], Any]) -> Any:
    async def asked() -> Any:
        async with IvcapCredentials.from_environment().get_client() as client:
            return await ask(client)

    return loop.run(asked())


def artifacts(name: str) -> list[Any]:
    """All artifacts of that name, whatever their status."""

    async def ask(client: Any) -> list[Any]:
        return [record async for record in client.artifacts.list(name=name)]

    return on_platform(ask)


def received(name: str, embedded: Any) -> int:
    """The bytes that the platform has of the artifacts of that name, once it has dealt with all that was sent."""

    async def ask(client: Any) -> int:
        return sum([await client.artifacts.offset(record) async for record in client.artifacts.list(name=name)])

    before = -1
    while True:
        now = on_platform(ask)
        if now == before and all(request["status"] for request in embedded.requests("PATCH")):
            return now
        before = now
        time.sleep(0.1)


def statements(urn: str, schema: str) -> list[Any]:
    async def ask(client: Any) -> list[Any]:
        return [record.content async for record in client.aspects.list(entity=urn, schema=schema)]

    return on_platform(ask)


def doctor(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What it says, also of what other tests have left on the platform."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    return [note for finding in json.loads(capsys.readouterr().out) for note in finding["notes"]]


@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize(
    ("step", "source"),
    [
        pytest.param(step, source, marks=() if (step, source) == SHORT else pytest.mark.long)
        for step in STEPS
        for source in SOURCES
    ],
)
def test_killed(uploader, embedded_platform, capsys, step, source):
    """Again in another process: one ready artifact, its bytes and digest right, no byte sent that was there, and what
    the kill left behind is named."""
    name, size = uploader.path.name, 5 * MIB
    uploader.kill(source, step)
    there = received(name, embedded_platform)
    embedded_platform.forget_requests()
    urn = uploader.again(source)

    found = {record.urn: record.status for record in artifacts(name)}
    assert [u for u, status in found.items() if status == "ready"] == [urn]
    content = on_platform(lambda client: client.artifacts.read_bytes(urn, limit=size))
    assert content == uploader.path.read_bytes()
    assert {one["sha256"] for one in statements(urn, CONTENT_SCHEMA)} == {digest(content)}
    with Journal.open(uploader.journal) as journal:
        [row] = journal.intents.where(noun="upload")
    assert [one["urn"] for one in statements(key_entity(row.key), INTENT_SCHEMA)] == [urn]
    assert (row.urn, row.duplicates) == (urn, [])

    assert sum(request["received"] for request in embedded_platform.requests("PATCH")) == size - there
    created = len(embedded_platform.requests("POST", "/1/artifacts$"))
    assert created == (step in STEPS[:2])
    assert there > 0 or step in STEPS[:3]
    assert there < size or step in (STEPS[2], "after the last byte", *FINISHED)

    notes = [note for note in doctor(capsys) if name in note]
    unready = [u for u, status in found.items() if status != "ready"]
    assert len(unready) == (step == LEFT_BEHIND)
    assert [u for u in found if any(u in note for note in notes)] == unready


@pytest.mark.long
@pytest.mark.parametrize("killed_at", ["before its name is in the journal", "before the outcome is on the platform"])
def test_killed_and_uploaded_elsewhere(uploader, embedded_platform, capsys, tmp_path, killed_at):
    """An upload tells other journals of its outcome alone. Again here it is gone on with; a machine elsewhere that was
    first makes its own, which is then kept here, and the journal names both."""
    uploader.path.write_bytes(os.urandom(1000))
    uploader.kill("file", killed_at)
    whole = [record.urn for record in artifacts(uploader.path.name) if record.status == "ready"]
    urn = uploader.again("file")
    assert [r.urn for r in artifacts(uploader.path.name) if r.status == "ready"] == [urn] and whole in ([], [urn])

    uploader.path.write_bytes(os.urandom(1000))
    uploader.kill("file", killed_at)
    elsewhere = uploader.again("file", f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    assert uploader.again("file") == elsewhere
    ready = {record.urn for record in artifacts(uploader.path.name) if record.status == "ready"}
    with Journal.open(uploader.journal) as journal:
        rows = {row.urn: row.duplicates for row in journal.intents.where(noun="upload")}
    assert ready == {urn, elsewhere, *rows[elsewhere]}
    assert len(rows[elsewhere]) == (killed_at != LEFT_BEHIND)
    named = [note for note in doctor(capsys) if uploader.path.name in note]
    assert all(any(other in note for note in named) for other in rows[elsewhere])
