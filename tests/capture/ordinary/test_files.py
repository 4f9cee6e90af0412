"""Single files: read, made, overwritten, changed, copied, renamed; each edge from what the code does."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest

from ivcap_flows import flow, recorded, task

MOVES = [os.rename, os.replace, shutil.move, Path.rename]


def lay(folder: Path, *names: str) -> list[Path]:
    """Files, each with content of its own."""
    paths = [folder / name for name in names]
    for path in paths:
        path.write_text(f"the rows of {path.name}: 1, 2, 3\n")
    return paths


def older_than_a_tick(path: Path) -> None:
    """Wait until a file has been there for more than a tick of the clock that stamps it."""
    changed, probe = path.stat().st_ctime, path.with_name("probe")
    while True:
        probe.touch()
        if probe.stat().st_ctime > changed + 0.05:
            break
    probe.unlink()


def program(code: str, *paths: Path) -> None:
    """Run Python in another process, which nobody watches."""
    subprocess.run([sys.executable, "-S", "-c", f"import sys; {code}", *paths], check=True)


CONVERT = "open(sys.argv[2], 'w').write(open(sys.argv[1]).read() + 'end')"
CHANGE = "p = sys.argv[1]; t = open(p).read(); open(p, 'w').write(t + 'end')"


@task
def clean(source: Path, target: Path) -> Path:
    target.write_text(source.read_text().upper())
    return target


@task
def count(source: Path) -> int:
    return len(source.read_text())


@task
def report(source: Path, target: Path) -> None:
    target.write_text(f"{len(source.read_text())} characters in all")


def test_files_that_are_read_and_made(tmp_path, edges):
    """What one task makes the next one uses. What lay at the target is no input, and to remove a file is not to read
    it. Equal files at two paths are two, and so are empty ones.
    """
    raw, cleaned, old = lay(tmp_path, "raw.csv", "clean.csv", "old.csv")

    @task
    def write(target: str, text: str) -> None:
        Path(target).write_text(text)

    @task
    def sort(source: Path, scratch: Path, target: Path) -> None:
        scratch.write_text(source.read_text()[::-1])
        target.write_text(scratch.read_text().strip() + "sorted")
        scratch.unlink()

    @task
    def tidy(path: Path) -> None:
        path.unlink()

    @flow
    def main() -> None:
        report(clean(raw, cleaned), tmp_path / "report.txt")
        for name, text in (("a.txt", "the very same text"), ("b.txt", "the very same text"), ("a", ""), ("b", "")):
            write(f"{tmp_path}/{name}", text)
        count(tmp_path / "b.txt")
        count(tmp_path / "b")
        sort(raw, tmp_path / "scratch", tmp_path / "sorted.csv")
        tidy(old)

    main()
    edges(
        {
            ("used", "clean", "raw.csv"),
            ("made", "clean", "clean.csv"),
            ("used", "report", "clean.csv"),
            ("made", "report", "report.txt"),
            ("made", "write[0]", "a.txt"),
            ("made", "write[1]", "b.txt"),
            ("made", "write[2]", "a"),
            ("made", "write[3]", "b"),
            ("used", "count[0]", "b.txt"),
            ("used", "count[1]", "b"),
            ("used", "sort", "raw.csv"),
            ("made", "sort", "sorted.csv"),
        }
    )


def test_files_that_are_changed_in_place(tmp_path, edges):
    """The new version comes from the old one: read and written, written in part, or appended to."""
    data, binary, log = lay(tmp_path, "data.csv", "data.bin", "log.txt")

    @task
    def scale(path: Path) -> Path:
        path.write_text(path.read_text().replace("2", "20"))
        return path

    @task
    def patch(path: str) -> None:
        with open(path, "r+b") as file:
            file.write(b"head")

    @task
    def note(log: Path, text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    @flow
    def main() -> None:
        count(scale(data))
        patch(str(binary))
        note(log, "one more line")
        note(log, "and another one")

    main()
    edges(
        {
            ("used", "scale", "data.csv"),
            ("made", "scale", "data.csv#2"),
            ("derived", "data.csv#2", "data.csv"),
            ("used", "count", "data.csv#2"),
            ("used", "patch", "data.bin"),
            ("made", "patch", "data.bin#2"),
            ("derived", "data.bin#2", "data.bin"),
            ("used", "note[0]", "log.txt"),
            ("made", "note[0]", "log.txt#2"),
            ("derived", "log.txt#2", "log.txt"),
            ("used", "note[1]", "log.txt#2"),
            ("made", "note[1]", "log.txt#3"),
            ("derived", "log.txt#3", "log.txt#2"),
        }
    )


def test_files_that_are_copied_renamed_and_replaced(tmp_path, edges):
    """What is copied or renamed comes from where it was, also by way of a temporary file. What takes the place of a
    file does not come from it, and its backup does.
    """
    drafts = lay(tmp_path, *(f"draft{number}" for number in range(len(MOVES))))
    copied, raw, target, out = lay(tmp_path, "copied", "raw", "target", "out")

    @task
    def publish(number: int, source: Path, target: Path) -> Path:
        MOVES[number](source, target)
        return target

    @task
    def copy(source: Path, target: Path) -> None:
        shutil.copy2(source, target)

    @task
    def by_hand(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())

    @task
    def fetch(source: Path, target: Path) -> None:
        shutil.copyfile(source, f"{target}.part")
        shutil.move(f"{target}.part", target)

    @task
    def replace(source: Path, target: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
            file.write(source.read_text().upper() + "end")
        os.replace(file.name, target)

    @task
    def renew(target: Path, backup: Path) -> None:
        os.replace(target, backup)
        target.write_text("something else altogether")

    @flow
    def main() -> None:
        for number, draft in enumerate(drafts):
            publish(number, draft, tmp_path / f"final{number}")
        copy(copied, tmp_path / "copy")
        by_hand(copied, tmp_path / "second")
        fetch(copied, tmp_path / "here")
        replace(raw, target)
        renew(out, tmp_path / "backup")

    main()
    moved = range(len(MOVES))
    edges(
        {("used", f"publish[{number}]", f"draft{number}") for number in moved}
        | {("made", f"publish[{number}]", f"final{number}") for number in moved}
        | {("derived", f"final{number}", f"draft{number}") for number in moved}
        | {("used", by, "copied") for by in ("copy", "by_hand", "fetch")}
        | {
            ("made", "copy", "copy"),
            ("derived", "copy", "copied"),
            ("made", "by_hand", "second"),
            ("derived", "second", "copied"),
            ("made", "fetch", "here"),
            ("derived", "here", "copied"),
            ("used", "replace", "raw"),
            ("made", "replace", "target"),
            ("used", "renew", "out"),
            ("made", "renew", "backup"),
            ("derived", "backup", "out"),
            ("made", "renew", "out#2"),
        }
    )


@pytest.mark.catches("read and written is written")
def test_files_that_programs_write(tmp_path, edges):
    """Of an unseen writer the record has what is new, what changed, and what a task declares; no more."""
    raw, old, changed, declared, log = lay(tmp_path, "raw.csv", "old.csv", "changed.csv", "declared.csv", "log.txt")

    @task
    def convert(source: Path, target: Path) -> None:
        program(CONVERT, source, target)

    @task
    @recorded(reads="source", writes=["target"])
    def overwrite(source: Path, target: Path) -> None:
        program(CONVERT, source, target)

    @task
    def change(path: Path) -> None:
        program(CHANGE, path)

    @task
    @recorded(reads="path", writes="path")
    def update(path: Path) -> None:
        program(CHANGE, path)

    @task
    @recorded(reads="path", writes="path")
    def append(path: Path) -> None:
        with path.open("a") as file:
            file.write("end")

    @flow
    def main() -> None:
        convert(raw, tmp_path / "new.csv")
        overwrite(raw, old)
        change(changed)
        update(declared)
        append(log)

    main()
    edges(
        {
            ("given", "convert", "raw.csv"),
            ("made", "convert", "new.csv"),
            ("declared", "overwrite", "raw.csv"),
            ("made", "overwrite", "old.csv"),
            ("made", "change", "changed.csv"),
            ("declared", "update", "declared.csv"),
            ("made", "update", "declared.csv#2"),
            ("derived", "declared.csv#2", "declared.csv"),
            ("declared", "append", "log.txt"),
            ("made", "append", "log.txt#2"),
            ("derived", "log.txt#2", "log.txt"),
        },
        not_seen={("used", "change", "changed.csv"), ("derived", "changed.csv#2", "changed.csv")},
    )


def test_files_of_tries_helpers_and_subflows(tmp_path, edges):
    """What a failed try left is its doing, and the next makes it anew. The innermost recorded call makes a file; what
    it read its task has used as well. A subflow uses what it is given.
    """
    raw, first, second = lay(tmp_path, "raw.csv", "first.csv", "second.csv")
    tried: list[int] = []

    @task(retries=1, retry_delay_seconds=0)
    def convert(source: Path, target: Path) -> None:
        text = source.read_text()
        target.write_text(text[:5] if not tried else text.upper())
        tried.append(1)
        if len(tried) == 1:
            raise OSError("disk full")

    @recorded
    def helper(source: Path, target: Path) -> None:
        target.write_text(source.read_text() + "from the helper")

    @task
    def work(source: Path, target: Path) -> None:
        helper(source, target)

    @flow
    def inner(source: Path, target: Path) -> Path:
        return clean(source, target)

    @flow
    def main() -> None:
        convert(raw, tmp_path / "out.csv")
        work(first, tmp_path / "helped.csv")
        report(inner(second, tmp_path / "clean.csv"), tmp_path / "report.txt")

    main()
    edges(
        {
            ("used", "convert", "raw.csv"),
            ("made", "convert", "out.csv"),
            ("informed", "convert#2", "convert"),
            ("used", "convert#2", "raw.csv"),
            ("made", "convert#2", "out.csv#2"),
            ("used", "work", "first.csv"),
            ("used", "helper", "first.csv"),
            ("made", "helper", "helped.csv"),
            ("used", "inner", "second.csv"),
            ("used", "clean", "second.csv"),
            ("made", "clean", "clean.csv"),
            ("used", "report", "clean.csv"),
            ("made", "report", "report.txt"),
        }
    )


@pytest.mark.catches("paths are no values", "a chooser uses what it was given")
def test_files_that_are_found_and_chosen(tmp_path, edges):
    """Paths are values: each task is linked to the one that it has the path from. Only who reads a file has used it.
    A copy that keeps the time of its source was written by its task all the same.
    """
    *_, last = lay(tmp_path, "a.csv", "b.csv", "c.csv")
    older_than_a_tick(last)

    @task
    def discover() -> list[Path]:
        return sorted(tmp_path.glob("*.csv"))

    @task
    def newest(paths: list[Path]) -> Path:
        return max(paths, key=lambda path: path.stem)

    @task
    def fetch() -> list[Path]:
        return [Path(shutil.copy2(tmp_path / "a.csv", tmp_path / "copy.txt"))]

    @flow
    def main() -> None:
        report(newest(discover()), tmp_path / "report.txt")
        fetch()

    main()
    edges(
        {
            ("informed", "newest", "discover"),
            ("informed", "report", "newest"),
            ("used", "report", "c.csv"),
            ("made", "report", "report.txt"),
            ("made", "fetch", "copy.txt"),
        }
    )


@pytest.mark.catches("a bare name is an input")
def test_a_text_that_happens_to_be_the_name_of_a_file(tmp_path, edges, monkeypatch):
    """It is no input, unless the file is opened. A library may have read a `Path`, or a text with a separator."""
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, "README.md", "data.csv", "path.nc", "text.nc")

    @task
    def label(text: str, source: str, path: Path, other: str) -> int:
        return len(text) + len(Path(source).read_text())

    @flow
    def main() -> None:
        label("README.md", "data.csv", Path("path.nc"), "./text.nc")

    main()
    edges({("used", "label", "data.csv"), ("given", "label", "path.nc"), ("given", "label", "text.nc")})


def test_texts_that_might_be_paths_are_not_counted(tmp_path, edges):
    """However many there are: a `Path`, and what a text names before the call or after it, is seen."""
    [source] = lay(tmp_path, "raw.csv")
    stations = [f"St. {number}" for number in range(300)]

    @task
    def select(names: list[str], source: Path, target: str, copy: str) -> list[str]:
        Path(target).write_text(source.read_text().upper())
        program(CONVERT, source, Path(copy))
        return [*names, copy]

    @flow
    def main() -> None:
        count(Path(select(stations, source, f"{tmp_path}/some.csv", f"{tmp_path}/copy.csv")[-1]))

    main()
    assert not edges(
        {("used", "select", "raw.csv"), ("made", "select", "some.csv"), ("made", "select", "copy.csv")}
        | {("used", "count", "copy.csv")}
    )


def test_a_text_of_two_lines_that_is_the_name_of_a_file(tmp_path, edges):
    """What was seen counts, whatever characters the name has; a text that names no file is none."""
    name = str(tmp_path / "two\nlines.csv")

    @task
    def write(notes: str) -> str:
        Path(name).write_text("what is written, and by whom")
        return name

    @task
    def read(source: str) -> int:
        return len(Path(source).read_text())

    @flow
    def main() -> None:
        read(write("see ./a.csv\nand more."))

    main()
    edges({("made", "write", "two\nlines.csv"), ("used", "read", "two\nlines.csv")})


@pytest.mark.catches("clocks compared")
def test_what_is_new_goes_by_the_clock_of_the_files(tmp_path, edges, monkeypatch):
    """However far the clock of the database or of this process is from it: five minutes ahead, or behind."""
    [old] = lay(tmp_path, "old.csv")
    older_than_a_tick(old)

    @task
    def find(ahead: int) -> Path:
        return old

    @task
    def fetch(ahead: int) -> Path:
        # Where the task was not told to write, unseen.
        target = tmp_path / f"new{ahead}.csv"
        program("open(sys.argv[1], 'w').write('the rows')", target)
        return target

    now, now_ns = time.time, time.time_ns

    @flow
    def main() -> None:
        for ahead in (-300, 300):
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda ahead=ahead: now() + ahead)
                patch.setattr(time, "time_ns", lambda ahead=ahead: now_ns() + ahead * 10**9)
                find(ahead)
                fetch(ahead)

    main()
    edges({("made", "fetch[0]", "new-300.csv"), ("made", "fetch[1]", "new300.csv")})


def test_two_append_to_one_file_at_once(tmp_path, edges):
    """What either left when it ended is not its own alone, and the record says so."""
    [log] = lay(tmp_path, "log.txt")
    together = threading.Barrier(2)

    @task
    def note(number: int, log: Path) -> None:
        together.wait(60)
        with log.open("a") as file:
            file.write(f"line {number}")
        together.wait(60)

    @flow
    def main() -> None:
        note.map(range(2), [log] * 2).wait()

    main()
    assert [list(each) for each in edges(set())] == [[str(log)]] * 2


def test_files_of_two_runs(tmp_path, edges):
    """Runs that write one path are not chained: equal bytes of two runs are two files, and an input of both is one.
    Who takes a path from Prefect's cache uses the file of the first run.
    """
    raw, *inputs = lay(tmp_path, "raw.csv", "one.csv", "two.csv")
    key = str(uuid.uuid4())

    @task(cache_key_fn=lambda *_: key, persist_result=True)
    def make(source: Path, target: Path) -> Path:
        target.write_text(source.read_text() + "made once")
        return target

    @flow
    def main(number: int) -> None:
        clean(inputs[number], tmp_path / "latest.csv")
        report(raw, tmp_path / "same.txt")
        count(make(raw, tmp_path / "out.csv"))

    for number in range(2):
        main(number)
    edges(
        {
            ("used", "clean[0]", "one.csv"),
            ("made", "clean[0]", "latest.csv"),
            ("used", "clean[1]", "two.csv"),
            ("made", "clean[1]", "latest.csv#2"),
            ("used", "report[0]", "raw.csv"),
            ("made", "report[0]", "same.txt"),
            ("used", "report[1]", "raw.csv"),
            ("made", "report[1]", "same.txt#2"),
            ("used", "make", "raw.csv"),
            ("made", "make", "out.csv"),
            ("used", "count[0]", "out.csv"),
            ("used", "count[1]", "out.csv"),
        },
        runs=2,
    )


@pytest.fixture
def elsewhere(tmp_path):
    """A folder in another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is only one file system")
        yield Path(folder)


def test_a_move_to_another_file_system_is_one(tmp_path, elsewhere, edges):
    """The rename fails, and a copy follows: of a file, and of a folder, file by file."""
    [raw] = lay(tmp_path, "raw.csv")
    (tmp_path / "parts").mkdir()
    lay(tmp_path / "parts", "a", "b")

    @task
    def publish(source: Path, target: Path) -> Path:
        return Path(shutil.move(source, target))

    @flow
    def main() -> None:
        publish.with_options(name="file")(raw, elsewhere / "final.csv")
        publish.with_options(name="folder")(tmp_path / "parts", elsewhere / "all")
        count(elsewhere / "final.csv")

    main()
    edges(
        {
            ("used", "file", "raw.csv"),
            ("made", "file", "final.csv"),
            ("derived", "final.csv", "raw.csv"),
            ("used", "count", "final.csv"),
            ("used", "folder", "parts/a"),
            ("used", "folder", "parts/b"),
            ("made", "folder", "a"),
            ("derived", "a", "parts/a"),
            ("made", "folder", "b"),
            ("derived", "b", "parts/b"),
            ("made", "folder", "all/"),
            ("member", "all/", "a"),
            ("member", "all/", "b"),
        }
    )


def test_defaults_are_arguments(tmp_path, edges):
    """What a function is called with is its own defaults, too: by place, by name, and of a task within a flow."""
    raw, other, target = lay(tmp_path, "raw.csv", "other.csv", "out.csv")

    @recorded
    def clean(source: Path = raw, *, target: Path = target) -> None:
        target.write_text(source.read_text().upper())

    @task
    def summarise(source: Path = other, words: tuple[str, ...] = ("a", "b")) -> int:
        return len(source.read_text())

    @flow
    def main() -> None:
        clean()
        summarise()

    main()
    edges({("used", "clean", "raw.csv"), ("made", "clean", "out.csv"), ("used", "summarise", "other.csv")})
