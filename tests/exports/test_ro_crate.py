"""RO-Crates of recorded runs, by roc-validator and as `rocrate` reads them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exports_standards import IDS_OF_SOFTWARE
from exports_worlds import RUNS
from mutants import mutate
from rocrate.rocrate import ROCrate

from ivcap_flows import loop
from ivcap_flows.errors import InputError
from ivcap_flows.identity import digest
from ivcap_flows.provenance import Graph
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.ro_crate_terms import CrateTerms
from ivcap_flows.sinks import FolderSink, contents
from ivcap_flows.sinks.folder import text_of
from ivcap_flows.sinks.ro_crate import read_terms, write_crate


def entities(crate: Path) -> dict[str, dict[str, Any]]:
    text = (crate / "ro-crate-metadata.json").read_text(encoding="utf-8")
    return {entity["@id"]: entity for entity in json.loads(text)["@graph"]}


def typed(crate: Path, type_: str) -> list[dict[str, Any]]:
    return [each for each in entities(crate).values() if type_ in as_list(each["@type"])]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "with-parts" else pytest.mark.long) for name in RUNS]
)
def test_the_crate_of_a_run_is_valid(world, validator, tmp_path, name):
    """By all REQUIRED and RECOMMENDED checks of the Provenance Run Crate but one that none passes."""
    crate = tmp_path / "crate"
    write_crate(world.run(name), world.graph(name), crate)
    issues = validator.issues(crate, "provenance")
    assert [issue for issue in issues if issue["check"] != IDS_OF_SOFTWARE] == []
    assert {issue["severity"] for issue in issues} == {"RECOMMENDED"}
    print(name, validator.checks, "checks,", len(entities(crate)), "entities")


def test_a_zip_has_the_same_files_as_the_folder(world, tmp_path):
    """And the same entities; nothing is left beside it."""
    run, graph = world.run("with-parts"), world.graph("with-parts")
    write_crate(run, graph, tmp_path / "crate")
    write_crate(run, graph, tmp_path / "crate.zip")
    with zipfile.ZipFile(tmp_path / "crate.zip") as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = json.loads(archive.read("ro-crate-metadata.json"))
    there = {p.relative_to(tmp_path / "crate").as_posix() for p in (tmp_path / "crate").rglob("*") if p.is_file()}
    assert names == there
    assert {each["@id"] for each in metadata["@graph"]} == set(entities(tmp_path / "crate"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_files_are_in_the_crate_or_named_by_urn_and_sha256(world, tmp_path):
    """Each has the sha256 that it says; what is on a platform has its URN, and so has every activity."""
    crate, graph = tmp_path / "crate", world.graph("coastal-el-nino")
    write_crate(world.run("coastal-el-nino"), graph, crate)
    told = entities(crate)
    for each in typed(crate, "File"):
        content = (crate / each["@id"]).read_bytes()
        assert each["sha256"] == digest(content) and int(each["contentSize"]) == len(content)
    inside = [each for each in typed(crate, "File") if "identifier" in each]
    assert {Path(each["@id"]).name for each in inside} >= {"index.csv", "events.csv", "coastal_el_nino.py"}
    artifacts = [node for node in graph.nodes.values() if node.type == "artifact"]
    assert artifacts and all(told[a.id].get("sha256") == a.attributes.get("sha256") for a in artifacts)
    activities = [node.id for node in graph.nodes.values() if node.kind == "activity"]
    assert {uri(activity) for activity in activities} <= set(told)
    read = ROCrate(crate)
    assert read.mainEntity.id == "code/flows/coastal_el_nino.py" or read.mainEntity.id == "code/coastal_el_nino.py"
    assert len(read.data_entities) == len(inside) + len(typed(crate, "MediaObject")) + 3


def test_a_subflow_and_mapped_tasks_are_steps(world, tmp_path):
    """The subflow, the task that it maps and the one after it; a control action for each time."""
    crate = tmp_path / "crate"
    write_crate(world.run("with-parts"), world.graph("with-parts"), crate)
    [main] = typed(crate, "ComputationalWorkflow")
    steps = [entities(crate)[step["@id"]]["name"] for step in main["step"]]
    assert sorted(steps) == ["joined", "shorten", "shorten_all"]
    controls = typed(crate, "ControlAction")
    assert len(controls) == 4
    [organize] = typed(crate, "OrganizeAction")
    assert len(organize["object"]) == 4
    inputs = {entities(crate)[each["@id"]]["name"] for each in main["input"]}
    assert inputs == {"sources", "folder", "note"}


def test_a_run_results_in_its_final_products(world, tmp_path):
    """Not in what they were made of. Files are tied to the parameters of the workflow, and keep their names."""
    crate = tmp_path / "crate"
    write_crate(world.run("with-parts"), world.graph("with-parts"), crate)
    told = entities(crate)
    run, [main] = told[f"urn:ivcap-flows:run:{world.ids['with-parts']}"], typed(crate, "ComputationalWorkflow")
    results = run["result"] if isinstance(run["result"], list) else [run["result"]]
    files = [each for each in (told[result["@id"]] for result in results) if "File" in each["@type"]]
    assert [each["name"] for each in files] == ["whole.txt"] and files[0]["@id"].endswith("/whole.txt")
    assert files[0]["exampleOfWork"] == {"@id": main["output"]["@id"]}
    assert told[main["output"]["@id"]]["additionalType"] == "File"
    given = [each for each in typed(crate, "File") if each.get("exampleOfWork") == {"@id": "#input/sources"}]
    assert sorted(each["name"] for each in given) == ["a.txt", "b.txt"]
    assert told["#input/sources"]["additionalType"] == "File"


def test_the_source_of_two_flows_in_one_file_is_there_once(world, tmp_path):
    """As the code of the run; that of the subflow is a part of it."""
    crate = tmp_path / "crate"
    write_crate(world.run("with-parts"), world.graph("with-parts"), crate)
    assert [path.name for path in crate.rglob("*.py")] == ["exported_flows.py"]
    [main] = typed(crate, "ComputationalWorkflow")
    [part] = [each for each in entities(crate).values() if each.get("isPartOf") == {"@id": main["@id"]}]
    assert (part["name"], main["name"]) == ("shorten_all", "with_parts")


def test_what_failed_and_what_has_not_ended_is_told(world, tmp_path):
    """A failed run has its cause; a parked one has no status, and its order is no action that made anything."""
    write_crate(world.run("spoiled"), world.graph("spoiled"), tmp_path / "failed")
    run = entities(tmp_path / "failed")[f"urn:ivcap-flows:run:{world.ids['spoiled']}"]
    assert run["actionStatus"].endswith("FailedActionStatus") and run["error"].startswith("RuntimeError: The server")
    write_crate(world.run("parks"), world.graph("parks"), tmp_path / "parked")
    run = entities(tmp_path / "parked")[f"urn:ivcap-flows:run:{world.ids['parks']}"]
    assert "actionStatus" not in run and "error" not in run and "parked" in run["description"]
    [order] = [each for each in typed(tmp_path / "parked", "Action") if each["additionalType"] == "order"]
    assert "endTime" not in order and "actionStatus" not in order


@pytest.mark.long
def test_what_only_the_user_can_state_is_not_invented(world, validator, tmp_path):
    """Without terms no licence is given; with them they are the crate's, which is as valid, here as a zip."""
    run, graph = world.run("spoiled"), world.graph("spoiled")
    write_crate(run, graph, tmp_path / "bare")
    root = entities(tmp_path / "bare")["./"]
    assert entities(tmp_path / "bare")[root["license"]["@id"]]["name"] == "not stated"
    path = tmp_path / "terms.yaml"
    path.write_text(
        "license: https://creativecommons.org/licenses/by/4.0/\n"
        "author: {name: Ada, id: https://orcid.org/0000-0002-1825-0097}\n"
        "organisation: {name: Example, url: https://example.org/}\n"
    )
    write_crate(run, graph, tmp_path / "stated", read_terms(path))
    told = entities(tmp_path / "stated")
    root = told["./"]
    assert root["license"]["@id"].endswith("/by/4.0/") and root["publisher"]["@id"] == "https://example.org/"
    assert told[root["author"]["@id"]]["affiliation"] == {"@id": "https://example.org/"}
    write_crate(run, graph, tmp_path / "stated.zip", read_terms(path))
    assert validator.faults(tmp_path / "stated.zip", "provenance") == []
    assert "not stated" not in [told[root[name]["@id"]]["name"] for name in ("license", "publisher", "author")]


@pytest.mark.parametrize("text", ["licence: MIT", "author: Ada", "[", "organisation: {name: Example}"])
def test_terms_that_cannot_be_used_are_refused(tmp_path, text):
    """A misspelt or incomplete statement is named with its file."""
    path = tmp_path / "terms.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"terms\.yaml"):
        read_terms(path)


def test_a_crate_replaces_nothing(world, tmp_path):
    """A folder with something in it, or a file, is left as it is."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "crate.zip").touch()
    for target in (tmp_path / "full", tmp_path / "crate.zip"):
        with pytest.raises(InputError):
            write_crate(world.run("spoiled"), world.graph("spoiled"), target)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    write_crate(world.run("spoiled"), world.graph("spoiled"), tmp_path / "empty")


def test_a_full_disk_is_no_refusal(world, tmp_path, monkeypatch):
    """It is the folder's trouble and not the run's, as with the other forms; nothing is left, and later all is well."""
    run, graph, sink = world.run("spoiled"), world.graph("spoiled"), FolderSink(tmp_path / "crates", "ro-crate")

    def full(self, place, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", full)
        with pytest.raises(OSError, match="No space left"):
            loop.run(sink.deliver(run, graph))
    assert list(sink.folder.iterdir()) == []
    loop.run(sink.deliver(run, graph))
    assert [path.name for path in sink.folder.iterdir()] == [f"{run.id}.{run.journal}.crate.zip"]


@pytest.fixture
def moved(world, tmp_path, monkeypatch):
    """The graph of a run whose files and code lie in a folder of the test's own."""
    shutil.copytree(world.folder, tmp_path / "moved", ignore=shutil.ignore_patterns("journal*", "coastal*"))
    run, graph = world.run("with-parts"), world.graph("with-parts")
    place = str(tmp_path / "moved")

    def there(record):
        path = record.attributes.get("path")
        if not isinstance(path, str):
            return record
        return record.model_copy(
            update={"attributes": {**record.attributes, "path": path.replace(str(world.folder), place)}}
        )

    object.__setattr__(run, "entry_point", run.entry_point.replace(str(world.folder), place))
    return run, Graph(there(record) for record in graph.records), tmp_path / "moved"


def with_content(graph, content):
    """The file on record that has a content."""
    [found] = [
        node.id for node in graph.nodes.values() if node.type == "file" and digest(content) == node.attributes["sha256"]
    ]
    return found


def test_a_file_that_is_another_now_is_not_in_the_crate(moved, tmp_path):
    """It is named by the sha256 that it had."""
    run, graph, folder = moved
    old = (folder / "parts/a.txt").read_bytes()
    (folder / "parts/a.txt").write_bytes(old + b"more")
    (folder / "parts/b.txt").unlink()
    write_crate(run, graph, tmp_path / "crate")
    told = entities(tmp_path / "crate")
    assert told[with_content(graph, old)]["@type"] == "MediaObject"
    names = {path.name for path in (tmp_path / "crate" / "data").rglob("*") if path.is_file()}
    assert "short-a.txt" in names and not {"a.txt", "b.txt"} & names


def written_and_read(run, graph, target, monkeypatch):
    """Write a crate. Return the bytes that are written below the target's folder, and how often each file is read."""
    written, reads = [], Counter()
    write_bytes, writestr, read_bytes = Path.write_bytes, zipfile.ZipFile.writestr, Path.read_bytes

    def write(self, content):
        written.append(len(content))
        return write_bytes(self, content)

    def archive(self, place, content):
        written.append(len(content))
        return writestr(self, place, content)

    def read(self):
        reads[self] += 1
        return read_bytes(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        patch.setattr(zipfile.ZipFile, "writestr", archive)
        patch.setattr(Path, "read_bytes", read)
        patch.setattr(shutil, "copy", None)
        write_crate(run, graph, target)
    return sum(written), reads


@pytest.mark.parametrize("zipped", [False, True])
def test_each_content_is_read_and_written_once(moved, monkeypatch, tmp_path, zipped):
    """So what is written has the sha256 on record and was looked through for secrets, whatever happens meanwhile."""
    run, graph, _ = moved
    target = tmp_path / ("crate.zip" if zipped else "crate")
    written, reads = written_and_read(run, graph, target, monkeypatch)
    if zipped:
        shutil.unpack_archive(target, tmp_path / "crate")
    assert written <= sum(path.stat().st_size for path in (tmp_path / "crate").rglob("*") if path.is_file())
    assert {reads[Path(node.attributes["path"])] for node in graph.nodes.values() if node.type == "file"} == {1}


def write_too_much(moved, tmp_path, monkeypatch):
    """A crate of more than it may have: all files but the largest fit."""
    run, graph, _ = moved
    sizes = sorted(node.attributes["size"] for node in graph.nodes.values() if node.type == "file")
    monkeypatch.setattr(contents, "MOST", sum(sizes) - 1)
    write_crate(run, graph, tmp_path / "crate")
    inside = [path.stat().st_size for path in (tmp_path / "crate/data").rglob("*") if path.is_file()]
    assert sum(inside) <= sum(sizes) - 1 and sorted(inside) == sizes[:-1]
    assert sizes[-1] in {int(each.get("contentSize", 0)) for each in typed(tmp_path / "crate", "MediaObject")}


@pytest.mark.mutant(None)
def test_the_files_of_a_crate_have_a_limit_together(moved, monkeypatch, tmp_path, caplog):
    """The smallest come first; what is left out is named, and a warning says so."""
    write_too_much(moved, tmp_path, monkeypatch)
    assert "1 files are named only" in caplog.text


def test_code_has_its_part_of_the_limit(moved, monkeypatch, tmp_path):
    """It goes first: if not even the code fits, only what describes the run is in the crate."""
    run, graph, folder = moved
    monkeypatch.setattr(contents, "MOST", (folder / "exported_flows.py").stat().st_size - 1)
    write_crate(run, graph, tmp_path / "crate")
    assert not (tmp_path / "crate" / "code").exists()


@pytest.mark.mutant("crate without a limit")
def test_a_build_that_copies_without_a_limit_is_found(moved, monkeypatch, tmp_path):
    """The test fails on a build whose crates have every file."""
    mutate("crate without a limit", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        write_too_much(moved, tmp_path, monkeypatch)


@pytest.mark.long
def test_an_image_and_a_note_are_told(moved, validator, tmp_path):
    """The container image of an attempt, its host, and what a user noted on a thing; here without the flow's code.

    Code that was changed since, and that no commit has, is named only: that is a Process Run Crate.
    """
    run, graph, folder = moved
    image = {"container_image": "registry.example.org/team/image:1.2", "annotation.colour": "red"}
    graph = Graph(
        record.model_copy(update={"attributes": {**record.attributes, **image}}) if record.type == "attempt" else record
        for record in graph.records
    )
    with (folder / "exported_flows.py").open("a") as code:
        code.write("# changed\n")
    write_crate(run, graph, tmp_path / "crate")
    root = entities(tmp_path / "crate")["./"]
    assert root["conformsTo"] == {"@id": "https://w3id.org/ro/wfrun/process/0.5"} and "mainEntity" not in root
    assert not (tmp_path / "crate" / "code").exists()
    assert validator.faults(tmp_path / "crate", "process") == []
    [container] = typed(tmp_path / "crate", "ContainerImage")
    assert (container["registry"], container["name"], container["tag"]) == ("registry.example.org", "team/image", "1.2")
    values = {(each["name"], each["value"]) for each in typed(tmp_path / "crate", "PropertyValue")}
    assert ("colour", "red") in values and "host_kind" in {name for name, _ in values}


@pytest.mark.long
def test_a_flow_without_steps_is_a_workflow_run_crate(world, validator, tmp_path):
    """Nothing of it was run that is known of."""
    graph = world.graph("with-parts")
    bare = graph.where(lambda node: node.type not in ("task-run", "call") and not node.attributes.get("subflow"))
    write_crate(world.run("with-parts"), bare, tmp_path / "crate")
    root = entities(tmp_path / "crate")["./"]
    assert len(root["conformsTo"]) == 3 and "mainEntity" in root
    assert validator.faults(tmp_path / "crate", "workflow") == []


def test_what_holds_a_secret_stays_out(moved, monkeypatch, tmp_path):
    """A file, or code, with a known token in it is named and not included; the others are there."""
    run, graph, folder = moved
    monkeypatch.setenv("IVCAP_JWT", (folder / "parts/a.txt").read_text().split()[1])
    write_crate(run, graph, tmp_path / "crate")
    names = {path.name for path in (tmp_path / "crate/data").rglob("*") if path.is_file()}
    assert "b.txt" in names and "a.txt" not in names
    monkeypatch.setenv("IVCAP_JWT", "def shorten_all")
    write_crate(run, graph, tmp_path / "bare")
    assert not (tmp_path / "bare/code").exists() and (tmp_path / "crate/code/exported_flows.py").exists()


@pytest.fixture
def careless(moved):
    """The run, with a password in the source of its flow and in a file that it was given."""
    run, graph, folder = moved
    texts = {folder / "exported_flows.py": 'DB_PASSWORD = "hunter2"\n', folder / "parts/a.txt": "password: hunter2\n"}
    digests = {}
    for path, text in texts.items():
        old = path.read_bytes()
        path.write_bytes(old + text.encode())
        digests[digest(old)] = digest(path.read_bytes())

    return run, Graph(
        record.model_copy(
            update={
                "attributes": {
                    name: digests.get(value, value) if isinstance(value, str) else value
                    for name, value in record.attributes.items()
                }
            }
        )
        for record in graph.records
    )


def exports_of(run, graph, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return all that a crate and OpenLineage's events say, and the jobs of the events."""
    write_crate(run, graph, folder / "crate")
    told = [path.read_text() for path in (folder / "crate").rglob("*") if path.is_file()]
    events = [json.loads(line) for line in text_of("openlineage", run, graph).splitlines()]
    return "\n".join([*told, *map(json.dumps, events)]), [event["job"]["facets"] for event in events]


@pytest.mark.mutant(None)
def test_what_holds_a_password_is_left_out_and_says_so(careless, tmp_path):
    """In the crate's metadata, its README and its record, and in a tag of OpenLineage's job."""
    text, jobs = exports_of(*careless, tmp_path)
    assert "hunter2" not in text
    why = "it holds a secret, or something that looks like one"
    told = [*typed(tmp_path / "crate", "SoftwareSourceCode"), *typed(tmp_path / "crate", "MediaObject")]
    left = [each["name"] for each in told if each.get("description") == f"The content is left out: {why}."]
    assert sorted(left) == ["a.txt", "shorten_all", "with_parts"]
    assert f"- not in the crate: a.txt. The content is left out: {why}." in (tmp_path / "crate/README.md").read_text()
    assert f'"{why}"' in (tmp_path / "crate/provenance/prov.json").read_text()
    tags = [tag for job in jobs for tag in job.get("tags", {}).get("tags", [])]
    assert {"key": "sourceCode", "value": f"left out: {why}", "source": "ivcap-flows"} in tags
    assert not any("sourceCode" in job for job in jobs) and "b.txt" in text


@pytest.mark.mutant("contents are not searched")
def test_a_build_that_searches_no_contents_is_found(careless, tmp_path, monkeypatch):
    """The password is in what it exports."""
    mutate("contents are not searched", monkeypatch.setattr)
    assert "hunter2" in exports_of(*careless, tmp_path)[0]


def test_a_crate_names_no_path_and_no_user_of_this_machine(world, tmp_path):
    """It is made to be handed on."""
    crate = tmp_path / "crate"
    write_crate(world.run("with-parts"), world.graph("with-parts"), crate, CrateTerms())
    metadata = (crate / "ro-crate-metadata.json").read_text() + (crate / "provenance/prov.json").read_text()
    assert str(world.folder) not in metadata and "urn:ivcap-flows:user:" not in metadata
