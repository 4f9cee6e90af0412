"""What the audit hook notes of a call: how files are opened, whose doing it is, and that it never gets in the way."""

import contextlib
import contextvars
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows.capture import file_activity
from ivcap_flows.capture.file_activity import FileActivity
from ivcap_flows.capture.path_tree import PathTree

pytestmark = pytest.mark.canary


def begun(*given: Path) -> FileActivity:
    activity = FileActivity()
    activity.reachable = tuple(map(str, given))
    activity.begin()
    return activity


@pytest.fixture
def activity():
    call = begun()
    yield call
    call.end()


def doing(activity: FileActivity, path: Path) -> str:
    """What the call did with a path, in a few words."""
    written = activity.written(str(path))
    words = ["read"] if activity.read(str(path)) else []
    if written is not None:
        words.append(written.gone or ("overwritten" if written.own else "changed"))
    return " ".join(words)


@pytest.mark.parametrize(
    ("mode", "done"),
    [
        ("r", "read"),
        ("w", "overwritten"),
        ("x", "overwritten"),
        ("a", "changed"),
        ("r+", "read changed"),
        ("w+", "overwritten"),
    ],
)
def test_how_a_file_is_opened(tmp_path, mode, done):
    """By its mode: what is overwritten is not read, what is appended to is kept."""
    path = tmp_path / "file"
    if mode != "x":
        path.touch()
    activity = begun()
    with open(path, mode):
        pass
    assert doing(activity, path) == done
    activity.end()


def test_what_a_call_wrote_itself_it_does_not_read(activity, tmp_path, monkeypatch):
    """Nor does a copy of it come from what was there before; names are absolute, whatever folder the process is in."""
    (tmp_path / "raw").touch()
    monkeypatch.chdir(tmp_path)
    shutil.copy("raw", "a")
    Path("a").read_text()
    assert doing(activity, tmp_path / "a") == "overwritten"
    shutil.copy("a", "./b")
    os.replace("b", "c")
    assert origin(activity, tmp_path / "c") == (str(tmp_path / "raw"), "copy")
    assert doing(activity, tmp_path / "b") == "renamed"
    Path("a").write_text("its own")
    shutil.copy("a", "d")
    assert origin(activity, tmp_path / "d") is None


FAILING: dict[str, Callable[[Path], Any]] = {
    "copyfile of nothing": lambda folder: shutil.copyfile(folder / "none", folder / "out"),
    "copy of nothing": lambda folder: shutil.copy(folder / "none", folder / "out"),
    "copy of a folder": lambda folder: shutil.copyfile(folder / "folder", folder / "out"),
    "copy over itself": lambda folder: shutil.copy2(folder / "out", folder / "out"),
    "copy into no folder": lambda folder: shutil.copy(folder / "raw", folder / "none" / "out"),
    "copy of a link": lambda folder: shutil.copyfile(folder / "link", folder / "out", follow_symlinks=False),
    "move of nothing": lambda folder: shutil.move(folder / "none", folder / "out"),
    "rename of nothing": lambda folder: os.rename(folder / "none", folder / "out"),
    "rename of a folder over a file": lambda folder: os.rename(folder / "folder", folder / "out"),
    "rename into no folder": lambda folder: os.replace(folder / "raw", folder / "none" / "out"),
    "rename to another file system": lambda folder: sys.audit("os.rename", folder / "raw", folder / "out", -1, -1),
    "link over a file": lambda folder: os.link(folder / "raw", folder / "out"),
    "symbolic link over a file": lambda folder: (folder / "out").symlink_to("raw"),
    "removal of nothing": lambda folder: (folder / "none").unlink(missing_ok=True),
    "removal that is refused": lambda folder: sys.audit("os.remove", folder / "out", -1),
    "removal of no tree": lambda folder: shutil.rmtree(folder / "none", ignore_errors=True),
    "creation of what is there": lambda folder: (folder / "out").touch(exist_ok=False),
    "creation in no folder": lambda folder: (folder / "none" / "out").write_text(""),
    "change of nothing": lambda folder: os.truncate(folder / "none", 0),
}


@pytest.mark.parametrize("fails", FAILING.values(), ids=FAILING)
def test_what_fails_is_not_noted(activity, tmp_path, fails):
    """An event says that something is about to happen. What the call writes to the file next is its own."""
    folder, out = tmp_path, tmp_path / "out"
    (folder / "folder").mkdir()
    (folder / "raw").write_text("raw")
    (folder / "link").symlink_to("raw")
    out.write_text("was there")
    activity.end()
    call = begun()
    with contextlib.suppress(OSError):
        fails(folder)
    places = [folder / "none", folder / "none" / "out", folder / "raw", out]
    assert [doing(call, place).removeprefix("read").strip() for place in places] == [""] * 4
    out.write_text("its own")
    assert (doing(call, out).removeprefix("read "), origin(call, out)) == ("overwritten", None)
    call.end()


@pytest.mark.catches("what is announced is believed")
def test_what_another_thread_announced_is_judged_by_the_paths(activity, tmp_path):
    """A thread that does nothing else afterwards raises no further event, and a rename that failed did nothing."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
    context = contextvars.copy_context()
    for done in (
        lambda: os.rename(tmp_path / "a", tmp_path / "c"),
        lambda: sys.audit("os.rename", tmp_path / "b", tmp_path / "d", -1, -1),
    ):
        thread = threading.Thread(target=context.run, args=(done,))
        thread.start()
        thread.join()
    assert (doing(activity, tmp_path / "a"), doing(activity, tmp_path / "b")) == ("renamed", "overwritten")
    assert origin(activity, tmp_path / "c") is None and activity.written(str(tmp_path / "d")) is None


def test_a_copy_that_broke_off_is_a_file_of_its_own(activity, tmp_path, monkeypatch):
    """As on a full disk. A whole copy of an empty file is a copy."""
    (tmp_path / "raw").write_bytes(b"raw")
    (tmp_path / "empty").touch()
    activity.end()
    call = begun()
    shutil.copyfile(tmp_path / "empty", tmp_path / "copy")
    monkeypatch.setattr(shutil, "_fastcopy_sendfile", lambda *_: None)
    shutil.copyfile(tmp_path / "raw", tmp_path / "part")
    assert origin(call, tmp_path / "copy") == (str(tmp_path / "empty"), "copy")
    assert (doing(call, tmp_path / "part"), origin(call, tmp_path / "part")) == ("overwritten", None)
    call.end()


def origin(activity: FileActivity, path: Path) -> tuple[str, str | None] | None:
    written = activity.written(str(path))
    assert written is not None
    return written.origin


@contextlib.contextmanager
def beside(*given: Path) -> Iterator[None]:
    """A call that runs in a thread of its own during the block."""
    begins, ends = threading.Event(), threading.Event()

    def run() -> None:
        call = begun(*given)
        begins.set()
        ends.wait(60)
        call.end()

    thread = threading.Thread(target=run)
    thread.start()
    begins.wait(60)
    yield
    ends.set()
    thread.join()


def test_who_could_have_written_a_file_unseen(tmp_path):
    """A call beside this one that was given the file or a folder around it, also if it has ended meanwhile."""
    inside = str(tmp_path / "folder" / "file")
    mine = begun()
    assert not mine.could_be_concurrent(inside)
    with beside(tmp_path / "folder"):
        assert mine.could_be_concurrent(inside) and not mine.could_be_concurrent(str(tmp_path / "file"))
    assert mine.could_be_concurrent(inside)
    later = begun()
    assert not later.could_be_concurrent(inside)
    later.end()
    mine.end()


@pytest.mark.catches("nothing of ended calls forgotten")
def test_what_ended_calls_did_is_not_kept(tmp_path, monkeypatch):
    """While a long call runs, of all others only the last writers of a limited number of paths are kept.

    A call that began before any were forgotten takes it that another could have written a file.
    """
    monkeypatch.setattr(file_activity, "MOST_KEPT", 20)
    long = begun()

    def short(number: int) -> None:
        call = begun(tmp_path)
        (tmp_path / str(number)).touch()
        call.end()

    for number in range(50):
        thread = threading.Thread(target=short, args=(number,))
        thread.start()
        thread.join()
    process = file_activity._process()
    assert sum(1 for _ in process.writers.below("/")) + sum(1 for _ in process.places.below("/")) <= 25
    assert long.could_be_concurrent("/elsewhere")
    later = begun()
    assert not later.could_be_concurrent("/elsewhere")
    later.end()
    long.end()
    assert (list(process.writers.below("/")), list(process.places.below("/"))) == ([], [])


def test_the_hook_raises_nothing(activity):
    """Whatever stands in an event, who raised it goes on, and it is counted."""
    before = activity.lost
    for arguments in ((), ("a",), (object(), "r", 0), ("\udcff", None, 0), (b"\xff", "r", 0)):
        sys.audit("open", *arguments)
    sys.audit("os.rename", 1, 2)
    assert activity.lost > before


def test_no_more_is_kept_than_a_limit(activity, tmp_path, monkeypatch):
    """What is opened beyond is counted."""
    monkeypatch.setattr(file_activity, "MOST_PATHS", 10)
    for number in range(25):
        (tmp_path / str(number)).touch()
    assert (sum(bool(doing(activity, path)) for path in tmp_path.iterdir()), activity.lost) == (10, 15)


@pytest.mark.catches("origins searched for")
def test_a_copy_costs_the_same_however_many_came_before(tmp_path, monkeypatch):
    """Counted in paths that are looked up: twice as many copies and moved folders need twice as many."""
    seen = 0

    def counted(look: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def counting(tree: PathTree[Any], path: str) -> Iterator[Any]:
            nonlocal seen
            seen += 1
            for found in look(tree, path):
                seen += 1
                yield found

        return counting

    monkeypatch.setattr(PathTree, "around", counted(PathTree.around))
    monkeypatch.setattr(PathTree, "below", counted(PathTree.below))

    def looks(number: int) -> int:
        nonlocal seen
        for index in range(number):
            (tmp_path / f"{number}-{index}").mkdir()
            (tmp_path / f"{number}-{index}" / "file").touch()
        activity, seen = begun(), 0
        for index in range(number):
            shutil.copyfile(tmp_path / f"{number}-{index}" / "file", tmp_path / f"{number}-{index}" / "copy")
            os.rename(tmp_path / f"{number}-{index}", tmp_path / f"{number}-{index} moved")
        activity.end()
        return seen

    few, many = looks(100), looks(200)
    assert 0 < many <= 2.1 * few, (few, many)


def test_what_is_named_by_an_open_folder_is_not_seen(activity, tmp_path):
    """A name relative to it means no file of the folder that the process is in."""
    (tmp_path / "file").touch()
    folder = os.open(tmp_path, os.O_RDONLY)
    os.remove("file", dir_fd=folder)
    os.close(folder)
    assert activity.written(os.path.abspath("file")) is None


def test_the_library_is_left_alone(activity):
    """Imports are no files of the call's."""
    with open(os.__file__):
        pass
    assert not activity.read(os.__file__)


def test_a_child_of_fork_has_notes_of_its_own(activity, tmp_path):
    """What it opens is not seen by the parent, and it does not wait for the parent's locks."""
    child = os.fork()
    if child == 0:
        try:
            inner = begun(tmp_path)
            (tmp_path / "a").touch()
            inner.end()
            os._exit(0 if inner.last_concurrent(str(tmp_path / "a")) is None else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert activity.written(str(tmp_path / "a")) is None


def test_a_link_by_name_leads_from_its_own_folder(activity, tmp_path):
    """A symbolic link to `../raw` comes from the file beside its folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("../raw")
    assert origin(activity, tmp_path / "in" / "link") == (str(tmp_path / "raw"), "link")
