"""Folders that tasks share, fill and read: each task is credited with its own files."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ivcap_flows import flow, recorded, task
from ivcap_flows.capture import journal
from ivcap_flows.capture.calls import Call


def lay(folder: Path, *names: str) -> Path:
    """A folder of files, each with content of its own."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"the rows of {folder.name}/{name}: 1, 2, 3\n")
    return folder


def write_by_program(path: Path, text: str = "the rows of a part, by a program") -> None:
    """Append to a file in another process, which nobody watches."""
    code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    subprocess.run([sys.executable, "-S", "-c", code, path, text], check=True)


@task
def gather(folder: Path, target: Path) -> None:
    target.write_text("".join(path.read_text() for path in sorted(folder.glob("*.csv"))))


def test_mapped_tasks_write_into_one_folder(tmp_path, edges):
    """Tasks at once make a file each, and nobody has used another's; who gathers them has used all."""
    together, parts = threading.Barrier(3), lay(tmp_path / "parts")

    @task
    def split(number: int, folder: Path) -> None:
        for mode in "wa":
            together.wait()
            with (folder / f"{number}.csv").open(mode) as file:
                file.write(f"half of the part with the number {number}")
        together.wait()

    @flow
    def main() -> None:
        split.map(range(3), [parts] * 3).wait()
        gather(parts, tmp_path / "all.csv")

    main()
    edges(
        {("made", f"split[{number}]", f"parts/{number}.csv") for number in range(3)}
        | {("used", "gather", f"parts/{number}.csv") for number in range(3)}
        | {("made", "gather", "all.csv")}
    )


@pytest.mark.catches("a folder leaves what was done in it", "read and written is written")
def test_folders_that_tasks_make_change_and_move(tmp_path, edges):
    """A new folder with all its files is the task's, and is used as it was left; folders of equal files are two. In an
    old folder only what is read or written counts. What is copied or renamed comes, file by file, from its original.
    A folder that is made aside and renamed in does not come from the one that it takes the place of.
    """
    inputs, data = lay(tmp_path / "inputs", "a.csv", "b.csv"), lay(tmp_path / "data", "a.csv", "b.csv")
    one, draft, results = (lay(tmp_path / name, "a.csv") for name in ("one", "draft", "results"))
    changed, left = lay(tmp_path / "changed", "a.csv"), lay(tmp_path / "left", "a.csv")
    # Too short for equal contents to mean anything.
    (tmp_path / "raw.csv").write_text("1,2")

    @task
    def fill(target: Path) -> Path:
        target.mkdir()
        (target / "a.txt").write_text("the text of the file a")
        return target

    @task
    def count(folder: Path) -> int:
        return len(list(folder.iterdir()))

    @task
    def pick(folder: Path, target: Path) -> None:
        target.write_text((folder / "b.csv").read_text() + "picked")

    @task
    def fix(folder: Path) -> None:
        path = folder / "a.csv"
        path.write_text(path.read_text().replace("1", "one"))

    @task
    def copy(source: Path, target: Path) -> None:
        shutil.copytree(source, target)

    @task
    def rename(source: Path, target: Path) -> None:
        source.rename(target)

    @task
    def publish(source: Path, target: Path) -> None:
        new, old = target.with_name("new"), target.with_name("old")
        new.mkdir()
        shutil.copy(source, new / "a.csv")
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old)

    @task
    @recorded(reads="folder", writes="folder")
    def update(folder: Path, text: str) -> None:
        write_by_program(folder / "a.csv", text)

    @flow
    def main() -> None:
        count(fill(tmp_path / "left texts"))
        fill(tmp_path / "right texts")
        pick(inputs, tmp_path / "picked.csv")
        fix(data)
        copy(one, tmp_path / "two")
        rename(draft, tmp_path / "final")
        publish(tmp_path / "raw.csv", results)
        update(changed, "one more")
        update(left, "")

    main()
    assert (
        edges(
            {
                ("made", "fill[0]", "left texts/"),
                ("made", "fill[0]", "left texts/a.txt"),
                ("member", "left texts/", "left texts/a.txt"),
                ("given", "count", "left texts/"),
                ("made", "fill[1]", "right texts/"),
                ("made", "fill[1]", "right texts/a.txt"),
                ("member", "right texts/", "right texts/a.txt"),
                ("used", "pick", "inputs/b.csv"),
                ("made", "pick", "picked.csv"),
                ("used", "fix", "data/a.csv"),
                ("made", "fix", "data/a.csv#2"),
                ("derived", "data/a.csv#2", "data/a.csv"),
                ("used", "copy", "one/a.csv"),
                ("made", "copy", "two/"),
                ("made", "copy", "two/a.csv"),
                ("member", "two/", "two/a.csv"),
                ("derived", "two/a.csv", "one/a.csv"),
                ("used", "rename", "draft/a.csv"),
                ("made", "rename", "final/"),
                ("made", "rename", "final/a.csv"),
                ("member", "final/", "final/a.csv"),
                ("derived", "final/a.csv", "draft/a.csv"),
                ("used", "publish", "raw.csv"),
                ("made", "publish", "results/"),
                ("made", "publish", "results/a.csv"),
                ("member", "results/", "results/a.csv"),
                ("derived", "results/a.csv", "raw.csv"),
                ("declared", "update[0]", "changed/a.csv"),
                ("made", "update[0]", "changed/a.csv#2"),
                ("derived", "changed/a.csv#2", "changed/a.csv"),
                ("declared", "update[1]", "left/"),
                ("member", "left/", "left/a.csv"),
            }
        )
        == []
    )


def test_programs_that_write_into_one_folder_at_once(tmp_path, edges):
    """Whose program has written which file is not seen, so nothing is stated, and the record says so. What a task
    returns it has made, whoever else ran.
    """
    together, parts, given = threading.Barrier(2), lay(tmp_path / "parts"), lay(tmp_path / "given")

    @task
    def call(number: int, folder: Path, tells: bool) -> Path | None:
        together.wait()
        target = folder / f"{number}.csv"
        write_by_program(target)
        together.wait()
        return target if tells else None

    @flow
    def main() -> None:
        call.map(range(2), [parts] * 2, [False] * 2).wait()
        call.with_options(name="call and tell").map(range(2), [given] * 2, [True] * 2).wait()

    main()
    unknown = edges(
        {("made", f"call and tell[{number}]", f"given/{number}.csv") for number in range(2)},
        not_seen={("made", f"call[{number}]", f"parts/{number}.csv") for number in range(2)},
    )
    both = {str(parts / f"{number}.csv") for number in range(2)}
    assert [set(said) for said in unknown if both & set(said)] == [both, both]


@pytest.mark.catches("a renamed folder is not seen")
def test_two_rename_their_folders_in_at_once(tmp_path, edges):
    """Each has made what is in its own folder, whether it was given the folder around both or not."""
    together, results = threading.Barrier(2), lay(tmp_path / "results")

    def make(name: str) -> Path:
        aside = lay(tmp_path / f"aside-{name}")
        together.wait(60)
        write_by_program(aside / "rows.csv")
        target = aside.rename(results / name)
        together.wait(60)
        return target

    @task
    def given(results: Path) -> None:
        make("a")

    @task
    def alone() -> Path:
        return make("b")

    @flow
    def main() -> None:
        first = given.submit(results)
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


def test_an_output_folder_of_a_flow(tmp_path, edges):
    """What lies in it from the last time is not used, by the task or by the flow. What a task made there its flow does
    not state again: of a folder with thousands of files, the journal would hold everything twice.
    """
    out = lay(tmp_path / "out", "0.csv", "old.csv")

    @task
    def split(folder: Path) -> None:
        (folder / "0.csv").write_text("the rows of this time")

    @flow
    def main(out: Path) -> None:
        split(out)
        (out / "list.txt").write_text("the names of all the files in this folder")

    main(out)
    edges({("made", "split", "out/0.csv"), ("made", "main[1]", "out/list.txt")})
    [run] = journal().runs.recent(1)
    stated = [fact.record.id for fact in journal().facts.of_run(run.id) if fact.record.type == "wasGeneratedBy"]
    assert len(stated) == 2


def test_a_file_in_a_folder_that_a_call_has_too(tmp_path, edges):
    """A path in the result or among the arguments says of the folder around it what one that is only found there says:
    a new folder is made, in an old one only that file counts, and nothing is unknown.
    """
    inputs, out = lay(tmp_path / "inputs", "a.csv", "b.csv"), tmp_path / "out"

    @task
    def pick(folder: Path, file: Path) -> str:
        return file.read_text()

    @task
    def leave(folder: Path, file: Path) -> None:
        pass

    @task
    def save(folder: Path, number: int) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "all.csv").write_text(f"the rows of the time with the number {number}")
        return folder / "all.csv"

    @flow
    def main() -> None:
        pick(inputs, inputs / "a.csv")
        leave(inputs, inputs / "b.csv")
        for number in range(2):
            save(out, number)

    main()
    unknown = edges(
        {
            ("used", "pick", "inputs/a.csv"),
            ("given", "leave", "inputs/"),
            ("given", "leave", "inputs/b.csv"),
            ("member", "inputs/", "inputs/a.csv"),
            ("member", "inputs/", "inputs/b.csv"),
            ("made", "save[0]", "out/"),
            ("made", "save[0]", "out/all.csv"),
            ("member", "out/", "out/all.csv"),
            ("made", "save[1]", "out/all.csv#2"),
        }
    )
    assert unknown == []


def test_folders_that_a_text_names(tmp_path, edges, monkeypatch):
    """With a separator in it, unless it holds the working directory."""
    (tmp_path / "work").mkdir()
    lay(tmp_path / "work" / "in", "a.csv")
    monkeypatch.chdir(tmp_path / "work")

    @recorded
    def fill(source: str, target: str, around: str) -> None:
        lay(Path(target), "b.csv")

    @flow
    def main() -> None:
        fill("./in", "./out", str(tmp_path))

    main()
    edges(
        {("given", "fill", "work/in/"), ("member", "work/in/", "work/in/a.csv")}
        | {("made", "fill", "work/out/"), ("made", "fill", "work/out/b.csv"), ("member", "work/out/", "work/out/b.csv")}
    )


def test_a_folder_that_was_copied_elsewhere_meets_its_original(tmp_path, edges, recorded_graph):
    """In the content of their manifest, not as one thing."""

    @recorded
    def fill(target: Path) -> None:
        lay(target, "a.csv")

    @recorded
    def look_at(folder: Path) -> None:
        """Do nothing."""

    @flow
    def main() -> None:
        fill(tmp_path / "one")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        look_at(tmp_path / "two")

    main()
    edges(
        {("made", "fill", "one/"), ("made", "fill", "one/a.csv"), ("member", "one/", "one/a.csv")}
        | {("given", "look_at", "two/"), ("member", "two/", "two/a.csv")}
    )
    graph = recorded_graph()
    [copy] = [node.id for node in graph if node.attributes.get("path") == str(tmp_path / "two")]
    assert "fill" in {node.attributes.get("name") for node in graph.lineage(copy)}


@pytest.fixture
def walked(monkeypatch):
    """The folders that are walked."""
    seen: list[str] = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: (seen.append(top), walk(top))[1])
    return seen


@pytest.mark.parametrize("root", ["/", "//", Path("/")], ids=repr)
def test_the_root_of_all_files_is_no_input(root, walked):
    """A text such as a separator is seldom meant as a folder, and that one has all files."""
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("root", root)
    call.snapshot_entry(None)
    call.file_activity.begin()
    call.snapshot_exit(None, other_process=False)
    call.file_activity.end()
    assert (walked, call.files) == ([], [])


def test_a_folder_is_walked_once_before_and_once_after(tmp_path, walked):
    """However often it is named among the arguments and results."""
    source, target = lay(tmp_path / "in", "a.csv"), tmp_path / "out"
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("source", [source, f"{source}", f"{source}/"] * 3)
    call.arguments.at("target", target)
    call.snapshot_entry(None)
    call.file_activity.begin()
    assert walked == [str(source)]
    lay(target, "a.csv")
    call.returned.at("result", [target] * 2)
    call.snapshot_exit(None, other_process=False)
    call.file_activity.end()
    assert sorted(walked) == [str(source), str(source), str(target)]
    edges = {(edge.verb, Path(edge.seen.path).name) for edge in call.files}
    assert edges == {("used", "in"), ("made", "out"), ("made", "a.csv")}


def test_paths_beyond_a_limit_are_not_looked_at(tmp_path, walked):
    """Neither before the call nor after it. The record has their number."""
    folders = [tmp_path / str(number) for number in range(300)]
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("folders", folders)
    call.snapshot_entry(None)
    for folder in folders:
        folder.mkdir()
    call.snapshot_exit(None, other_process=False)
    assert len(walked) == 256
    assert call.unknown["…"].startswith("44 more paths were not looked at")
