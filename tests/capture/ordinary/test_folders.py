"""Folders that tasks share, fill and read: each task is credited with its own files."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task

from ivcap_flows import recorded
from ivcap_flows.capture import journal
from ivcap_flows.capture.calls import Call

Edges = Callable[..., list[dict[str, str]]]


@task
@recorded
def split(number: int, folder: Path) -> None:
    (folder / f"{number}.csv").write_text(f"the rows of the part with the number {number}")


@task
@recorded
def gather(folder: Path, target: Path) -> Path:
    target.write_text("".join(path.read_text() for path in sorted(folder.glob("*.csv"))))
    return target


def test_mapped_tasks_write_into_one_folder(tmp_path: Path, edges: Edges) -> None:
    """Five tasks at once make five files, and nobody has used another's; who gathers them has used the five."""
    together = threading.Barrier(5)
    (tmp_path / "parts").mkdir()

    @task
    @recorded
    def split(number: int, folder: Path) -> None:
        together.wait()
        (folder / f"{number}.csv").write_text(f"the first half of the part with the number {number}")
        together.wait()
        with (folder / f"{number}.csv").open("a") as file:
            file.write("the second half")
        together.wait()

    @flow
    @recorded
    def main() -> None:
        split.map(range(5), [tmp_path / "parts"] * 5).wait()
        gather(tmp_path / "parts", tmp_path / "all.csv")

    main()
    edges(
        {("made", f"split[{number}]", f"parts/{number}.csv") for number in range(5)}
        | {("used", "gather", f"parts/{number}.csv") for number in range(5)}
        | {("made", "gather", "all.csv")}
    )


def test_an_output_folder_is_no_input(tmp_path: Path, edges: Edges) -> None:
    """What lies in the folder from the last time is not used, by the task or by the flow; a file of it is replaced."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "0.csv").write_text("the result of last time, to be replaced")
    (out / "old.csv").write_text("another result of last time, which stays")

    @flow
    @recorded
    def nightly(out: Path) -> None:
        split(0, out)

    nightly(out)
    edges({("made", "split", "out/0.csv")})


def test_a_folder_that_a_task_makes(tmp_path: Path, edges: Edges) -> None:
    """A new folder with all its files is the task's; another task that looks into it uses it as it was left."""

    @task
    @recorded
    def export(target: Path) -> Path:
        target.mkdir()
        for name in ("a", "b"):
            (target / f"{name}.txt").write_text(f"the text of the file {name}")
        return target

    @task
    @recorded
    def count(folder: Path) -> int:
        return len(list(folder.iterdir()))

    @flow
    @recorded
    def main() -> None:
        count(export(tmp_path / "texts"))

    main()
    edges(
        {
            ("made", "export", "texts/"),
            ("made", "export", "texts/a.txt"),
            ("made", "export", "texts/b.txt"),
            ("member", "texts/", "texts/a.txt"),
            ("member", "texts/", "texts/b.txt"),
            ("given", "count", "texts/"),
        }
    )


def test_one_file_of_a_folder_is_read(tmp_path: Path, edges: Edges) -> None:
    """The rest of the folder is no input."""
    (tmp_path / "inputs").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "inputs" / f"{name}.csv").write_text(f"the rows of the input {name}")

    @task
    @recorded
    def pick(folder: Path, target: Path) -> None:
        target.write_text((folder / "b.csv").read_text() + "picked")

    @flow
    @recorded
    def main() -> None:
        pick(tmp_path / "inputs", tmp_path / "b.csv")

    main()
    edges({("used", "pick", "inputs/b.csv"), ("made", "pick", "b.csv")})


def test_files_changed_in_a_folder(tmp_path: Path, edges: Edges) -> None:
    """A file that is read and written comes from its former self; the one beside it is left alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1,2,3 and so on to the end")
    (tmp_path / "data" / "b.csv").write_text("4,5,6 and so on to the end")

    @task
    @recorded
    def fix(folder: Path) -> None:
        path = folder / "a.csv"
        path.write_text(path.read_text().replace("1", "one"))

    @flow
    @recorded
    def main() -> None:
        fix(tmp_path / "data")

    main()
    edges({("used", "fix", "data/a.csv"), ("made", "fix", "data/a.csv#2"), ("derived", "data/a.csv#2", "data/a.csv")})


def test_two_folders_of_equal_files(tmp_path: Path, edges: Edges) -> None:
    """Each is a thing of its own, made by its own task."""

    @task
    @recorded
    def fill(target: Path) -> Path:
        target.mkdir()
        for name in "ab":
            (target / f"{name}.csv").write_text(f"the rows of the part {name}")
        return target

    @flow
    @recorded
    def main() -> None:
        fill(tmp_path / "left")
        fill(tmp_path / "right")

    main()
    edges(
        {
            edge
            for index, folder in enumerate(("left", "right"))
            for edge in (
                ("made", f"fill[{index}]", f"{folder}/"),
                *(("made", f"fill[{index}]", f"{folder}/{name}.csv") for name in "ab"),
                *(("member", f"{folder}/", f"{folder}/{name}.csv") for name in "ab"),
            )
        }
    )


def test_a_copied_folder(tmp_path: Path, edges: Edges) -> None:
    """Each file of the copy comes from its own original."""
    (tmp_path / "one").mkdir()
    for name in ("a", "b"):
        (tmp_path / "one" / f"{name}.csv").write_text(f"the rows of the input {name}")

    @task
    @recorded
    def copy(source: Path, target: Path) -> None:
        shutil.copytree(source, target)

    @flow
    @recorded
    def main() -> None:
        copy(tmp_path / "one", tmp_path / "two")

    main()
    edges(
        {("made", "copy", "two/")}
        | {("member", "two/", f"two/{name}.csv") for name in "ab"}
        | {("made", "copy", f"two/{name}.csv") for name in "ab"}
        | {("used", "copy", f"one/{name}.csv") for name in "ab"}
        | {("derived", f"two/{name}.csv", f"one/{name}.csv") for name in "ab"}
    )


def test_programs_that_write_into_one_folder_at_once(tmp_path: Path, edges: Edges) -> None:
    """Whose program has written which file is not seen, so nothing is stated, and the record says so."""
    together = threading.Barrier(2)
    (tmp_path / "parts").mkdir()
    program = "import sys; open(sys.argv[1], 'w').write('the rows of a part, by a program')"

    @task
    @recorded
    def call(number: int, folder: Path) -> None:
        together.wait()
        subprocess.run([sys.executable, "-S", "-c", program, folder / f"{number}.csv"], check=True)
        together.wait()

    @flow
    @recorded
    def main() -> None:
        call.map(range(2), [tmp_path / "parts"] * 2).wait()

    main()
    made = {("made", f"call[{number}]", f"parts/{number}.csv") for number in range(2)}
    unknown = edges(set(), not_seen=made)
    files = {str(tmp_path / "parts" / f"{number}.csv") for number in range(2)}
    assert [set(said) for said in unknown] == [files, files]


def test_programs_whose_files_are_in_their_results(tmp_path: Path, edges: Edges) -> None:
    """What a task returns it has made, whoever else ran."""
    together = threading.Barrier(2)
    (tmp_path / "parts").mkdir()
    program = "import sys; open(sys.argv[1], 'w').write('the rows of a part, by a program')"

    @task
    @recorded
    def call(number: int, folder: Path) -> Path:
        together.wait()
        target = folder / f"{number}.csv"
        subprocess.run([sys.executable, "-S", "-c", program, target], check=True)
        together.wait()
        return target

    @flow
    @recorded
    def main() -> None:
        call.map(range(2), [tmp_path / "parts"] * 2).wait()

    main()
    edges({("made", f"call[{number}]", f"parts/{number}.csv") for number in range(2)})


@pytest.mark.catches("a folder leaves what was done in it")
def test_a_folder_is_replaced_at_once(tmp_path: Path, edges: Edges) -> None:
    """Made aside and renamed in: its files are the task's, and do not come from those that they take the place of."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.csv").write_text("the rows of last time")
    # Too short for equal contents to mean anything.
    (tmp_path / "raw.csv").write_text("1,2")

    @task
    @recorded
    def publish(source: Path, target: Path) -> None:
        new, old = target.with_name("new"), target.with_name("old")
        new.mkdir()
        shutil.copy(source, new / "a.csv")
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old)

    @flow
    @recorded
    def main() -> None:
        publish(tmp_path / "raw.csv", results)

    main()
    made = {("made", "publish", "results/"), ("made", "publish", "results/a.csv")}
    origin = {("used", "publish", "raw.csv"), ("derived", "results/a.csv", "raw.csv")}
    assert edges(made | origin | {("member", "results/", "results/a.csv")}) == []


@pytest.mark.catches("a renamed folder is not seen")
def test_two_rename_their_folders_in_at_once(tmp_path: Path, edges: Edges) -> None:
    """Each has made what is in its own folder, whether it was given the folder around both or not."""
    together = threading.Barrier(2)
    (tmp_path / "results").mkdir()

    def make(name: str) -> Path:
        aside = tmp_path / f"aside-{name}"
        aside.mkdir()
        together.wait(60)
        program = "import sys; open(sys.argv[1], 'w').write('the rows of a part, by a program')"
        subprocess.run([sys.executable, "-S", "-c", program, aside / "rows.csv"], check=True)
        target = aside.rename(tmp_path / "results" / name)
        together.wait(60)
        return target

    @task
    @recorded
    def given(results: Path) -> None:
        make("a")

    @task
    @recorded
    def alone() -> Path:
        return make("b")

    @flow
    @recorded
    def main() -> None:
        first = given.submit(tmp_path / "results")
        alone()
        first.wait()

    main()
    assert (
        edges(
            {
                ("made", "given", "results/a/rows.csv"),
                ("made", "alone", "results/b/"),
                ("made", "alone", "results/b/rows.csv"),
                ("member", "results/b/", "results/b/rows.csv"),
            }
        )
        == []
    )


def test_a_renamed_folder_takes_its_files_along(tmp_path: Path, edges: Edges) -> None:
    """Each file under the new name comes from the one under the old name."""
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "a.csv").write_text("the rows of the part a")

    @task
    @recorded
    def publish(source: Path, target: Path) -> None:
        source.rename(target)

    @flow
    @recorded
    def main() -> None:
        publish(tmp_path / "draft", tmp_path / "final")

    main()
    edges(
        {
            ("used", "publish", "draft/a.csv"),
            ("made", "publish", "final/"),
            ("member", "final/", "final/a.csv"),
            ("made", "publish", "final/a.csv"),
            ("derived", "final/a.csv", "draft/a.csv"),
        }
    )


@pytest.mark.catches("read and written is written")
def test_a_task_that_says_that_it_changes_a_folder(tmp_path: Path, edges: Edges) -> None:
    """What a program changed in it comes from what was there; left as it was, it was read as a whole."""
    for name in ("changed", "left"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text(f"the rows of {name}")

    @task
    @recorded(reads="folder", writes="folder")
    def change(folder: Path, text: str) -> None:
        program = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
        subprocess.run([sys.executable, "-S", "-c", program, folder / "a.csv", text], check=True)

    @flow
    @recorded
    def main() -> None:
        change(tmp_path / "changed", "one more")
        change(tmp_path / "left", "")

    main()
    edges(
        {
            ("declared", "change[0]", "changed/a.csv"),
            ("made", "change[0]", "changed/a.csv#2"),
            ("derived", "changed/a.csv#2", "changed/a.csv"),
            ("declared", "change[1]", "left/"),
            ("member", "left/", "left/a.csv"),
        }
    )


def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are walked from now on."""
    seen: list[str] = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: (seen.append(top), walk(top))[1])
    return seen


@pytest.mark.parametrize("root", ["/", "//", Path("/")], ids=repr)
def test_the_root_of_all_files_is_no_input(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text such as a separator is seldom meant as a folder, and that one has all files."""
    seen = walked(monkeypatch)
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("root", root)
    call.snapshot_entry(None)
    call.file_activity.begin()
    call.snapshot_exit(None, other_process=False)
    call.file_activity.end()
    assert (seen, call.files) == ([], [])


def test_a_folder_is_walked_once_before_and_once_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is named among the arguments and results."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").touch()
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("source", [tmp_path / "in", f"{tmp_path}/in", f"{tmp_path}/in/"] * 3)
    call.arguments.at("target", tmp_path / "out")
    seen = walked(monkeypatch)
    call.snapshot_entry(None)
    call.file_activity.begin()
    assert seen == [str(tmp_path / "in")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.csv").touch()
    call.returned.at("result", [tmp_path / "out"] * 2)
    call.snapshot_exit(None, other_process=False)
    call.file_activity.end()
    assert sorted(seen) == [str(tmp_path / "in"), str(tmp_path / "in"), str(tmp_path / "out")]
    edges = {(edge.verb, Path(edge.seen.path).name) for edge in call.files}
    assert edges == {("used", "in"), ("made", "out"), ("made", "a.csv")}


def test_paths_beyond_a_limit_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the call nor after it."""
    folders = [tmp_path / str(number) for number in range(300)]
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("folders", folders)
    call.snapshot_entry(None)
    for folder in folders:
        folder.mkdir()
    seen = walked(monkeypatch)
    call.snapshot_exit(None, other_process=False)
    assert len(seen) == 256


def test_what_a_task_made_is_not_stated_again_by_its_flow(tmp_path: Path, edges: Edges) -> None:
    """Of a folder with thousands of files that a flow is given, the journal would hold everything twice."""
    out = tmp_path / "out"
    out.mkdir()

    @flow
    @recorded
    def main(out: Path) -> None:
        split(0, out)
        (out / "list.txt").write_text("the names of all the files in this folder")

    main(out)
    edges({("made", "split", "out/0.csv"), ("made", "main[1]", "out/list.txt")})
    [run] = journal().runs.recent(1)
    stated = [fact.record.id for fact in journal().facts.of_run(run.id) if fact.record.type == "wasGeneratedBy"]
    assert len(stated) == 2
