"""Single files: read, made, overwritten, changed, copied, renamed; each edge from what the code does."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow, task

from ivcap_flows import recorded

Edges = Callable[..., list[dict[str, str]]]
ROWS = "month,value\n1,2\n2,3\n"


@task
@recorded
def clean(source: Path, target: Path) -> Path:
    target.write_text(source.read_text().upper())
    return target


@task
@recorded
def report(source: Path, target: Path) -> None:
    target.write_text(f"{len(source.read_text())} characters in all")


def run(body: Callable[[], object]) -> None:
    """The body as a recorded flow."""
    flow(recorded(body), name="main")()


def test_a_chain_of_files(tmp_path: Path, edges: Edges) -> None:
    """What one task makes the next one uses, whether the path is in a result or not."""
    (tmp_path / "raw.csv").write_text(ROWS)
    run(lambda: report(clean(tmp_path / "raw.csv", tmp_path / "clean.csv"), tmp_path / "report.txt"))
    edges(
        {
            ("used", "clean", "raw.csv"),
            ("made", "clean", "clean.csv"),
            ("used", "report", "clean.csv"),
            ("made", "report", "report.txt"),
        }
    )


def test_overwriting_a_fixed_path_is_no_derivation(tmp_path: Path, edges: Edges) -> None:
    """What lay at the target from the last time is no input, and the new file does not come from it."""
    (tmp_path / "raw.csv").write_text(ROWS)
    (tmp_path / "clean.csv").write_text("what was here before")
    run(lambda: clean(tmp_path / "raw.csv", tmp_path / "clean.csv"))
    edges({("used", "clean", "raw.csv"), ("made", "clean", "clean.csv")})


def test_two_runs_that_write_one_path_are_not_chained(tmp_path: Path, edges: Edges) -> None:
    """Each run makes a file of its own from its own input."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(ROWS + name)
        run(lambda name=name: clean(tmp_path / f"{name}.csv", tmp_path / "latest.csv"))
    edges(
        {
            ("used", "clean[0]", "one.csv"),
            ("made", "clean[0]", "latest.csv"),
            ("used", "clean[1]", "two.csv"),
            ("made", "clean[1]", "latest.csv#2"),
        },
        runs=2,
    )


def test_the_same_run_twice_makes_the_same_bytes_twice(tmp_path: Path, edges: Edges) -> None:
    """Equal bytes at one path, written by two runs, are two files; the input is one."""
    (tmp_path / "raw.csv").write_text(ROWS)
    for _ in range(2):
        run(lambda: clean(tmp_path / "raw.csv", tmp_path / "clean.csv"))
    edges(
        {("used", f"clean[{number}]", "raw.csv") for number in range(2)}
        | {("made", "clean[0]", "clean.csv"), ("made", "clean[1]", "clean.csv#2")},
        runs=2,
    )


def test_a_file_changed_in_place(tmp_path: Path, edges: Edges) -> None:
    """Read and written again: the new version comes from the old one."""
    (tmp_path / "data.csv").write_text(ROWS)

    @task
    @recorded
    def scale(path: Path) -> None:
        path.write_text(path.read_text().replace("2", "20"))

    run(lambda: scale(tmp_path / "data.csv"))
    edges({("used", "scale", "data.csv"), ("made", "scale", "data.csv#2"), ("derived", "data.csv#2", "data.csv")})


def test_a_part_of_a_file_is_changed(tmp_path: Path, edges: Edges) -> None:
    """Opened to read and write, the rest of the file stays."""
    (tmp_path / "data.bin").write_bytes(bytes(100))

    @task
    @recorded
    def patch(path: str) -> None:
        with open(path, "r+b") as file:
            file.write(b"head")

    run(lambda: patch(str(tmp_path / "data.bin")))
    edges({("used", "patch", "data.bin"), ("made", "patch", "data.bin#2"), ("derived", "data.bin#2", "data.bin")})


def test_appending(tmp_path: Path, edges: Edges) -> None:
    """Nothing of the file is read, and all of it is in the next version."""

    @task
    @recorded
    def note(log: Path, text: str) -> None:
        with log.open("a") as file:
            file.write(text + "\n")

    def body() -> None:
        note(tmp_path / "log.txt", "began with a first line")
        note(tmp_path / "log.txt", "went on with a second one")

    run(body)
    edges(
        {
            ("made", "note[0]", "log.txt"),
            ("used", "note[1]", "log.txt"),
            ("made", "note[1]", "log.txt#2"),
            ("derived", "log.txt#2", "log.txt"),
        }
    )


def test_a_copy(tmp_path: Path, edges: Edges) -> None:
    """The copy is a file of its own, which comes from the first; so is one that is made byte by byte."""
    (tmp_path / "a.csv").write_text(ROWS)

    @task
    @recorded
    def copy(source: Path, target: Path) -> None:
        shutil.copy2(source, target)

    @task
    @recorded
    def by_hand(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())

    def body() -> None:
        copy(tmp_path / "a.csv", tmp_path / "b.csv")
        by_hand(tmp_path / "a.csv", tmp_path / "c.csv")

    run(body)
    edges(
        {
            ("used", "copy", "a.csv"),
            ("made", "copy", "b.csv"),
            ("derived", "b.csv", "a.csv"),
            ("used", "by_hand", "a.csv"),
            ("made", "by_hand", "c.csv"),
            ("derived", "c.csv", "a.csv"),
        }
    )


@pytest.mark.parametrize("move", [os.rename, os.replace, shutil.move, Path.rename])
def test_a_rename(move: Callable[[Path, Path], object], tmp_path: Path, edges: Edges) -> None:
    """The file under its new name comes from the one under the old name."""
    (tmp_path / "draft.csv").write_text(ROWS)

    @task
    @recorded
    def publish(source: Path, target: Path) -> Path:
        move(source, target)
        return target

    run(lambda: publish(tmp_path / "draft.csv", tmp_path / "final.csv"))
    edges({("used", "publish", "draft.csv"), ("made", "publish", "final.csv"), ("derived", "final.csv", "draft.csv")})


def test_equal_bytes_at_two_paths_are_two_files(tmp_path: Path, edges: Edges) -> None:
    """Two tasks that happen to write the same have nothing to do with each other."""

    @task
    @recorded
    def write(target: Path) -> None:
        target.write_text("the very same text in both files")

    @task
    @recorded
    def read(source: Path) -> int:
        return len(source.read_text())

    def body() -> None:
        write(tmp_path / "a.txt")
        write(tmp_path / "b.txt")
        read(tmp_path / "b.txt")

    run(body)
    edges({("made", "write[0]", "a.txt"), ("made", "write[1]", "b.txt"), ("used", "read", "b.txt")})


def test_a_file_written_by_way_of_a_temporary_one(tmp_path: Path, edges: Edges) -> None:
    """The usual way to replace a file at once: what was there before is gone, and nothing comes from it."""
    (tmp_path / "raw.csv").write_text(ROWS)
    (tmp_path / "clean.csv").write_text("what was here before")

    @task
    @recorded
    def replace(source: Path, target: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
            file.write(source.read_text().lower() + "end")
        os.replace(file.name, target)

    run(lambda: replace(tmp_path / "raw.csv", tmp_path / "clean.csv"))
    edges({("used", "replace", "raw.csv"), ("made", "replace", "clean.csv")})


def test_a_temporary_copy_that_is_moved(tmp_path: Path, edges: Edges) -> None:
    """What comes by way of a temporary copy comes from where that came from."""
    (tmp_path / "raw.csv").write_text(ROWS)

    @task
    @recorded
    def fetch(source: Path, target: Path) -> None:
        shutil.copyfile(source, f"{target}.part")
        shutil.move(f"{target}.part", target)

    run(lambda: fetch(tmp_path / "raw.csv", tmp_path / "here.csv"))
    edges({("used", "fetch", "raw.csv"), ("made", "fetch", "here.csv"), ("derived", "here.csv", "raw.csv")})


def test_a_temporary_file_between(tmp_path: Path, edges: Edges) -> None:
    """What is written and read within one task is its own business."""
    (tmp_path / "raw.csv").write_text(ROWS)

    @task
    @recorded
    def sort(source: Path, scratch: Path, target: Path) -> None:
        scratch.write_text(source.read_text()[::-1])
        target.write_text(scratch.read_text().strip() + "sorted")
        scratch.unlink()

    run(lambda: sort(tmp_path / "raw.csv", tmp_path / "scratch", tmp_path / "sorted.csv"))
    edges({("used", "sort", "raw.csv"), ("made", "sort", "sorted.csv")})


def test_a_file_that_is_removed(tmp_path: Path, edges: Edges) -> None:
    """To remove a file is not to read it."""
    (tmp_path / "old.csv").write_text(ROWS)

    @task
    @recorded
    def tidy(path: Path) -> None:
        path.unlink()

    run(lambda: tidy(tmp_path / "old.csv"))
    edges(set())


def test_empty_files_join_nothing(tmp_path: Path, edges: Edges) -> None:
    """Two empty files are two."""

    @task
    @recorded
    def mark(path: Path) -> None:
        path.touch()

    @task
    @recorded
    def check(path: Path) -> bool:
        return path.read_text() == ""

    def body() -> None:
        mark(tmp_path / "a.done")
        mark(tmp_path / "b.done")
        check(tmp_path / "b.done")

    run(body)
    edges({("made", "mark[0]", "a.done"), ("made", "mark[1]", "b.done"), ("used", "check", "b.done")})


def test_a_task_that_says_what_it_writes(tmp_path: Path, edges: Edges) -> None:
    """A program that overwrites the target is not seen doing it; the task says it."""
    (tmp_path / "raw.csv").write_text(ROWS)
    (tmp_path / "clean.csv").write_text("what was here before")
    program = "import sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read() + 'end')"

    @task
    @recorded(reads="source", writes=["target"])
    def call(source: Path, target: Path) -> None:
        subprocess.run([sys.executable, "-S", "-c", program, source, target], check=True)

    run(lambda: call(tmp_path / "raw.csv", tmp_path / "clean.csv"))
    edges({("declared", "call", "raw.csv"), ("made", "call", "clean.csv")})


def test_a_program_that_writes_a_new_file(tmp_path: Path, edges: Edges) -> None:
    """The target was not there and is there at the end, and nobody else ran."""
    (tmp_path / "raw.csv").write_text(ROWS)
    program = "import sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read() + 'end')"

    @task
    @recorded
    def call(source: Path, target: Path) -> None:
        subprocess.run([sys.executable, "-S", "-c", program, source, target], check=True)

    run(lambda: call(tmp_path / "raw.csv", tmp_path / "clean.csv"))
    edges({("given", "call", "raw.csv"), ("made", "call", "clean.csv")})


def test_a_program_that_changes_a_file(tmp_path: Path, edges: Edges) -> None:
    """That it read the file before it wrote it is not seen, and not stated."""
    (tmp_path / "data.csv").write_text(ROWS)
    program = "import sys; p = sys.argv[1]; t = open(p).read(); open(p, 'w').write(t + 'end')"

    @task
    @recorded
    def change(path: Path) -> None:
        subprocess.run([sys.executable, "-S", "-c", program, path], check=True)

    run(lambda: change(tmp_path / "data.csv"))
    edges(
        {("made", "change", "data.csv")},
        not_seen={("used", "change", "data.csv"), ("derived", "data.csv#2", "data.csv")},
    )


def test_a_failed_task_that_had_begun_to_write(tmp_path: Path, edges: Edges) -> None:
    """It read what it read, and what it left is its doing; the second try makes the file anew."""
    (tmp_path / "raw.csv").write_text(ROWS)
    tried: list[int] = []

    @task(retries=1, retry_delay_seconds=0)
    @recorded
    def convert(source: Path, target: Path) -> None:
        text = source.read_text()
        target.write_text(text[:5] if not tried else text.upper())
        tried.append(1)
        if len(tried) == 1:
            raise OSError("disk full")

    run(lambda: convert(tmp_path / "raw.csv", tmp_path / "out.csv"))
    edges(
        {
            ("used", "convert", "raw.csv"),
            ("made", "convert", "out.csv"),
            ("informed", "convert#2", "convert"),
            ("used", "convert#2", "raw.csv"),
            ("made", "convert#2", "out.csv#2"),
        }
    )


def test_a_helper_within_a_task(tmp_path: Path, edges: Edges) -> None:
    """The innermost recorded call makes the file; what it read its task has used as well."""
    (tmp_path / "raw.csv").write_text(ROWS)

    @recorded
    def helper(source: Path, target: Path) -> None:
        target.write_text(source.read_text() + "from the helper")

    @task
    @recorded
    def work(source: Path, target: Path) -> None:
        helper(source, target)

    run(lambda: work(tmp_path / "raw.csv", tmp_path / "out.csv"))
    edges({("used", "work", "raw.csv"), ("used", "helper", "raw.csv"), ("made", "helper", "out.csv")})


def test_a_subflow(tmp_path: Path, edges: Edges) -> None:
    """A flow that another one calls uses what it was given; its task makes the file."""
    (tmp_path / "raw.csv").write_text(ROWS)

    @flow
    @recorded
    def inner(source: Path, target: Path) -> Path:
        return clean(source, target)

    run(lambda: report(inner(tmp_path / "raw.csv", tmp_path / "clean.csv"), tmp_path / "report.txt"))
    edges(
        {
            ("used", "inner", "raw.csv"),
            ("used", "clean", "raw.csv"),
            ("made", "clean", "clean.csv"),
            ("used", "report", "clean.csv"),
            ("made", "report", "report.txt"),
        }
    )


def test_a_file_that_is_found(tmp_path: Path, edges: Edges) -> None:
    """A task that looks up a path has not used the file; who gets the path from it has, and is linked to it."""
    (tmp_path / "newest.csv").write_text(ROWS)
    older_than_a_tick(tmp_path / "newest.csv")

    @task
    @recorded
    def find(pattern: str) -> Path:
        return next(tmp_path.glob(pattern))

    run(lambda: report(find("*.csv"), tmp_path / "report.txt"))
    edges({("informed", "report", "find"), ("used", "report", "newest.csv"), ("made", "report", "report.txt")})


def older_than_a_tick(path: Path) -> None:
    """Wait until a file has been there for more than a tick of the clock that stamps it."""
    changed, probe = path.stat().st_ctime, path.with_name("probe")
    while True:
        probe.touch()
        if probe.stat().st_ctime > changed + 0.05:
            break
    probe.unlink()


@pytest.mark.catches("paths are no values", "a chooser uses what it was given")
def test_files_that_are_found_and_chosen(tmp_path: Path, edges: Edges) -> None:
    """Paths are values: each task is linked to the one that it has the path from. Only who reads a file has used it."""
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text(ROWS + name)
    older_than_a_tick(tmp_path / "c.csv")

    @task
    @recorded
    def discover() -> list[Path]:
        return sorted(tmp_path.glob("*.csv"))

    @task
    @recorded
    def newest(paths: list[Path]) -> Path:
        return max(paths, key=lambda path: path.stem)

    run(lambda: report(newest(discover()), tmp_path / "report.txt"))
    edges(
        {
            ("informed", "newest", "discover"),
            ("informed", "report", "newest"),
            ("used", "report", "c.csv"),
            ("made", "report", "report.txt"),
        }
    )


def sed(path: Path) -> None:
    """Change a file in place by a program, which nobody sees."""
    program = "import sys; p = sys.argv[1]; t = open(p).read(); open(p, 'w').write(t + 'end')"
    subprocess.run([sys.executable, "-S", "-c", program, path], check=True)


@pytest.mark.catches("read and written is written")
def test_a_task_that_says_that_it_changes_a_file(tmp_path: Path, edges: Edges) -> None:
    """A parameter that is read and written: the next version comes from the one before, whatever was seen of it."""
    (tmp_path / "data.csv").write_text(ROWS)
    (tmp_path / "log.txt").write_text(ROWS)

    @task
    @recorded(reads="path", writes="path")
    def change(path: Path) -> None:
        sed(path)

    @task
    @recorded(reads="path", writes="path")
    def append(path: Path) -> None:
        with path.open("a") as file:
            file.write("end")

    def body() -> None:
        change(tmp_path / "data.csv")
        append(tmp_path / "log.txt")

    run(body)
    edges(
        {
            ("declared", "change", "data.csv"),
            ("made", "change", "data.csv#2"),
            ("derived", "data.csv#2", "data.csv"),
            ("declared", "append", "log.txt"),
            ("made", "append", "log.txt#2"),
            ("derived", "log.txt#2", "log.txt"),
        }
    )


@pytest.mark.catches("a bare name is an input")
def test_a_text_that_happens_to_be_the_name_of_a_file(
    tmp_path: Path, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no input, unless the file is opened. A library may have read a `Path`, or a text with a separator."""
    monkeypatch.chdir(tmp_path)
    for name in ("README.md", "data.csv", "path.nc", "text.nc"):
        Path(name).write_text(ROWS + name)

    @task
    @recorded
    def label(text: str, source: str, path: Path, other: str) -> int:
        return len(text) + len(Path(source).read_text())

    run(lambda: label("README.md", "data.csv", Path("path.nc"), "./text.nc"))
    edges({("used", "label", "data.csv"), ("given", "label", "path.nc"), ("given", "label", "text.nc")})


@pytest.mark.catches("clocks compared")
def test_what_is_new_goes_by_the_clock_of_the_files(
    tmp_path: Path, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far the clock of the database or of this process is from it: five minutes ahead, or behind."""
    (tmp_path / "old.csv").write_text(ROWS)
    older_than_a_tick(tmp_path / "old.csv")

    @task
    @recorded
    def find(ahead: int) -> Path:
        return tmp_path / "old.csv"

    @task
    @recorded
    def fetch(ahead: int) -> Path:
        # Where the task was not told to write, unseen.
        target = tmp_path / f"new{ahead}.csv"
        subprocess.run([sys.executable, "-S", "-c", f"open({str(target)!r}, 'w').write('the rows')"], check=True)
        return target

    now, now_ns = time.time, time.time_ns

    def body() -> None:
        for ahead in (-300, 300):
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda ahead=ahead: now() + ahead)
                patch.setattr(time, "time_ns", lambda ahead=ahead: now_ns() + ahead * 10**9)
                find(ahead)
                fetch(ahead)

    run(body)
    edges({("made", "fetch[0]", "new-300.csv"), ("made", "fetch[1]", "new300.csv")})


def test_a_backup_is_kept_of_what_is_replaced(tmp_path: Path, edges: Edges) -> None:
    """The new file does not come from the one that was moved out of its way; the backup does."""
    (tmp_path / "out.csv").write_text(ROWS)

    @task
    @recorded
    def replace(target: Path, backup: Path) -> None:
        os.replace(target, backup)
        target.write_text("something else altogether")

    run(lambda: replace(tmp_path / "out.csv", tmp_path / "out.bak"))
    edges(
        {
            ("used", "replace", "out.csv"),
            ("made", "replace", "out.bak"),
            ("derived", "out.bak", "out.csv"),
            ("made", "replace", "out.csv#2"),
        }
    )


def test_two_append_to_one_file_at_once(tmp_path: Path, edges: Edges) -> None:
    """What either left when it ended is not its own alone, and the record says so."""
    (tmp_path / "log.txt").write_text(ROWS)
    together = threading.Barrier(2)

    @task
    @recorded
    def note(number: int, log: Path) -> None:
        together.wait(60)
        with log.open("a") as file:
            file.write(f"line {number}")
        together.wait(60)

    def body() -> None:
        note.map(range(2), [tmp_path / "log.txt"] * 2).wait()

    run(body)
    said = edges(set())
    assert [list(each) for each in said] == [[str(tmp_path / "log.txt")]] * 2


def test_a_task_from_the_cache(tmp_path: Path, edges: Edges) -> None:
    """The second run takes the path from Prefect's cache: its next task uses the file of the first run."""
    (tmp_path / "raw.csv").write_text(ROWS)

    key = str(uuid.uuid4())

    @task(cache_key_fn=lambda *_: key, persist_result=True)
    @recorded
    def make(source: Path, target: Path) -> Path:
        target.write_text(source.read_text() + "made once")
        return target

    @task
    @recorded
    def count(source: Path) -> int:
        return len(source.read_text())

    for _ in range(2):
        run(lambda: count(make(tmp_path / "raw.csv", tmp_path / "out.csv")))
    edges(
        {
            ("used", "make", "raw.csv"),
            ("made", "make", "out.csv"),
            ("used", "count[0]", "out.csv"),
            ("used", "count[1]", "out.csv"),
        },
        runs=2,
    )
