"""What waits in a thread keeps nothing else waiting: no name of a host, no request, no call of the journal."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ivcap_flows import loop
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap import archive
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import sources
from ivcap_flows.tasks.sources import opened
from ivcap_flows.threads import FILES, JOURNAL, Threads, alone

MANY = 20
"""More than any kind of threads has."""


@pytest.fixture
async def by_name(_embedded):
    """A client of the embedded platform by a host name, on a loop that has one thread to look it up in."""
    url = _embedded.environment["IVCAP_URL"].replace("127.0.0.1", "localhost")
    assert "localhost" in url
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with IvcapClient(url, StaticToken(_embedded.environment["IVCAP_JWT"]), budget=5) as client:
        yield client


@pytest.fixture
def journal(tmp_path):
    with Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}") as journal:
        yield journal


@pytest.fixture
async def artifact(upload):
    """A tar archive with one file."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as out:
        out.addfile(tarfile.TarInfo("member"))
    return (await upload(content.getvalue(), name="one.tar")).urn


@pytest.fixture
def others_go_on(by_name, journal, artifact, tmp_path):
    """Does one thing many times at once, which goes on once it is told to, and all others meanwhile."""

    async def digest():
        async with opened(tmp_path / "file", journal.files) as file:
            return file.sha256

    (tmp_path / "file").write_bytes(b"x")
    others = {
        "names": lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80),
        "requests": lambda: by_name.artifacts.read(artifact),
        "files": lambda: by_name.artifacts.download(artifact, tmp_path / "out"),
        "digests": digest,
        "archives": lambda: by_name.artifacts.untar(artifact, tmp_path / "unpacked"),
        "journal": lambda: journal.ask(journal.now),
    }

    async def check(held, hold, *go):
        holding = [asyncio.create_task(hold(number)) for number in range(MANY)]
        await asyncio.sleep(0)
        doing = {name: asyncio.ensure_future(others[name]()) for name in others.keys() - {held}}
        try:
            await asyncio.wait(doing.values(), timeout=5)
            assert [name for name, each in doing.items() if not each.done() or each.exception()] == []
            assert not any(each.done() for each in holding)
        finally:
            for each in go:
                each.set()
            await asyncio.gather(*holding, *doing.values(), return_exceptions=True)

    return check


@pytest.mark.catches("whole files in the threads of blocks")
async def test_digests_hold_up_nothing_else(others_go_on, journal, tmp_path, monkeypatch):
    """However many large files are hashed at once, before their uploads."""
    go, real = threading.Event(), sources.file_at
    (tmp_path / "large").write_bytes(b"x")

    def hashed(path, digests):
        assert path.name != "large" or go.wait(60)
        return real(path, digests)

    async def hold(_):
        async with opened(tmp_path / "large", journal.files):
            pass

    monkeypatch.setattr(sources, "file_at", hashed)
    await others_go_on("digests", hold, go)


@pytest.mark.catches("all in the loop's threads", "archives in the threads of blocks")
async def test_archives_that_arrive_hold_up_nothing_else(others_go_on, tmp_path):
    """They wait for the network, as long as it likes."""
    go = asyncio.Event()

    async def blocks():
        await go.wait()
        yield b""

    await others_go_on("archives", lambda number: archive.unpack_stream(blocks(), tmp_path / f"held {number}"), go)


async def test_a_users_streams_hold_up_nothing(others_go_on, journal):
    """They may wait for whatever they like, other tasks of this process among it."""
    go = threading.Event()

    async def hold(_):
        async with opened((b"x" for _ in "x" if go.wait(60)), journal.files):
            pass

    await others_go_on(None, hold, go)


async def test_calls_of_a_journal_hold_up_nothing_else(others_go_on, journal):
    """A database may be busy or far away."""
    go = threading.Event()
    await others_go_on("journal", lambda _: journal.ask(go.wait, 60), go)


@pytest.mark.catches("all in the loop's threads")
async def test_many_archives_are_unpacked_by_the_name_of_a_host(by_name, artifact, tmp_path):
    """None holds the thread in which the name for its own download is looked up."""
    each = (by_name.artifacts.untar(artifact, tmp_path / f"{number}") for number in range(12))
    done = await asyncio.wait_for(asyncio.gather(*each), 20)
    assert [os.listdir(folder) for folder in done] == [["member"]] * 12


async def test_an_archive_that_waits_for_a_thread_opens_no_stream_and_can_be_left(tmp_path, monkeypatch):
    """At once, though who has the thread goes on."""
    monkeypatch.setattr(archive, "UNPACKING", Threads("one", 1))
    opened_by, go = [], asyncio.Event()

    async def blocks(name):
        opened_by.append(name)
        await go.wait()
        yield b""

    first, second = (asyncio.create_task(archive.unpack_stream(blocks(n), tmp_path / n)) for n in ("first", "second"))
    while not opened_by:
        await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(second, 5)
    assert opened_by == ["first"] and not first.done()
    go.set()
    await asyncio.wait([first])
    assert opened_by == ["first"]


def test_nothing_of_the_package_runs_in_the_threads_for_names():
    """The embedded platforms have processes of their own."""
    package = Path(loop.__file__).parent
    files = [path for path in package.rglob("*.py") if "local" not in path.relative_to(package).parts]
    taken = re.compile(r"asyncio\.to_thread\(|run_in_executor\(None")
    assert [str(path) for path in files if taken.search(path.read_text(encoding="utf-8"))] == []


def test_a_forked_child_has_threads_of_its_own():
    """Those of its parent are not there, and what they hold is never given back."""
    go = threading.Event()

    async def hold():
        return [asyncio.ensure_future(kind.run(go.wait, 60)) for kind in (FILES, JOURNAL) for _ in range(MANY)]

    async def ask():
        return sum([await FILES.run(int, 3), await JOURNAL.run(int, 2), await alone(int, 2)])

    held = loop.run(hold())
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(loop.run(ask()))
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        go.set()
        loop.run(_ended(held))


async def _ended(held):
    await asyncio.wait(held)


AT_EXIT = """
import atexit, sys
from ivcap_flows import loop
from ivcap_flows.journal import Journal

journal = Journal.open(sys.argv[1])
said = []

def end():
    loop.run(journal.ask_surely(lambda: said.append(journal.now())))
    print(len(said))

if sys.argv[2] == "used":
    loop.run(journal.ask(journal.now))
atexit.register(end)
"""


@pytest.mark.parametrize("before", ["used", "unused"])
def test_an_end_is_written_while_the_interpreter_ends(journal_url_of_exit, before):
    """When no thread can be started any more, whether there were some before or not."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, journal_url_of_exit, before], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.fixture
def journal_url_of_exit(tmp_path):
    return f"sqlite:///{tmp_path / 'exit.sqlite'}"
