"""What the audit hook notes of a call: how files are opened, whose doing it is, and that it never gets in the way."""

import asyncio
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from ivcap_flows.capture.opened import KEPT, READ, REMOVED, WRITTEN, Opened, unseen

pytestmark = pytest.mark.canary


@pytest.fixture
def opened():
    call = Opened()
    call.begin()
    yield call
    call.end()


def plain(call: Opened, path: Path) -> int:
    return call.at(str(path)) & (READ | WRITTEN | KEPT | REMOVED)


@pytest.mark.parametrize(
    ("mode", "bits"),
    [
        ("r", READ),
        ("w", WRITTEN),
        ("x", WRITTEN),
        ("a", WRITTEN | KEPT),
        ("r+", READ | WRITTEN | KEPT),
        ("w+", WRITTEN),
    ],
)
def test_how_a_file_is_opened(opened: Opened, tmp_path: Path, mode: str, bits: int) -> None:
    """By its mode: what is overwritten is not read, what is appended to is kept."""
    path = tmp_path / "file"
    if mode != "x":
        path.touch()
    opened.paths.clear()
    with open(path, mode):
        pass
    assert plain(opened, path) == bits


def test_what_a_call_wrote_itself_it_does_not_read(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it a copy of anything that was there; names are absolute, whatever folder the process is in."""
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("a")
    Path("a").read_text()
    assert plain(opened, tmp_path / "a") == WRITTEN
    shutil.copy("a", "./b")
    assert opened.origins[str(tmp_path / "b")] == (str(tmp_path / "a"), "copy")
    os.replace("b", "c")
    assert opened.origins[str(tmp_path / "c")] == (str(tmp_path / "a"), "copy")
    assert plain(opened, tmp_path / "b") & REMOVED


def test_calls_are_told_apart(opened: Opened, tmp_path: Path) -> None:
    """A call within another does it for both; asyncio and `to_thread` keep to the call, a plain thread to none."""

    wrote = {name: asyncio.Event() for name in "ab"}
    beside: dict[str, tuple[bool, bool]] = {}

    async def work(name: str, other: str) -> Opened:
        call = Opened()
        call.begin()
        await asyncio.sleep(0)
        await asyncio.to_thread((tmp_path / name).write_text, name)
        wrote[name].set()
        await wrote[other].wait()
        beside[name] = call.elsewhere(str(tmp_path / other))
        call.end()
        return call

    async def both() -> list[Opened]:
        return list(await asyncio.gather(work("a", "b"), work("b", "a")))

    a, b = asyncio.run(both())
    assert [path.name for path in tmp_path.iterdir() if plain(a, path)] == ["a"]
    assert [path.name for path in tmp_path.iterdir() if plain(b, path)] == ["b"]
    assert beside == {"a": (True, False), "b": (True, False)}
    assert plain(opened, tmp_path / "a") == plain(opened, tmp_path / "b") == WRITTEN
    thread = threading.Thread(target=(tmp_path / "c").write_text, args=("c",))
    thread.start()
    thread.join()
    with unseen():
        (tmp_path / "a").read_text()
    assert not plain(opened, tmp_path / "c")
    assert plain(opened, tmp_path / "a") == WRITTEN


def test_the_hook_raises_nothing(opened: Opened) -> None:
    """Whatever stands in an event, who raised it goes on, and it is counted."""
    before = opened.lost
    for arguments in ((), ("a",), (object(), "r", 0), ("\udcff", None, 0), (b"\xff", "r", 0)):
        sys.audit("open", *arguments)
    sys.audit("os.rename", 1, 2)
    assert opened.lost > before


def test_no_more_is_kept_than_a_limit(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is opened beyond is counted."""
    monkeypatch.setattr("ivcap_flows.capture.opened.MOST_PATHS", 10)
    for number in range(25):
        (tmp_path / str(number)).touch()
    assert (len(opened.paths), opened.lost) == (10, 15)


def test_the_library_is_left_alone(opened: Opened) -> None:
    """Imports are no files of the call's."""
    with open(os.__file__):
        pass
    assert os.__file__ not in opened.paths


def test_a_child_of_fork_has_notes_of_its_own(opened: Opened, tmp_path: Path) -> None:
    """What it opens is not seen by the parent, and it does not wait for the parent's locks."""
    child = os.fork()
    if child == 0:
        try:
            inner = Opened()
            inner.begin()
            (tmp_path / "a").touch()
            inner.end()
            os._exit(0 if inner.elsewhere(str(tmp_path / "a")) == (False, False) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert not plain(opened, tmp_path / "a")
