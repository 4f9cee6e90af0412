"""RO-Crates of recorded runs, by roc-validator and as `rocrate` reads them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exports_standards import IDS_OF_SOFTWARE
from exports_worlds import RUNS
from markdown_it import MarkdownIt
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


@pytest.fixture(scope="module")
def crate(world, tmp_path_factory) -> Path:
    """The crate of the run with a subflow, to be read."""
    folder = tmp_path_factory.mktemp("crates") / "crate"
    write_crate(world.run("with-parts"), world.graph("with-parts"), folder)
    return folder


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


def test_a_zip_has_the_same_files_as_the_folder(world, crate, tmp_path):
    """And the same entities; nothing is left beside it. Neither replaces what is there."""
    run, graph = world.run("with-parts"), world.graph("with-parts")
    write_crate(run, graph, tmp_path / "crate.zip")
    with zipfile.ZipFile(tmp_path / "crate.zip") as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = json.loads(archive.read("ro-crate-metadata.json"))
    assert names == {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()}
    assert {each["@id"] for each in metadata["@graph"]} == set(entities(crate))
    assert [path.name for path in tmp_path.iterdir()] == ["crate.zip"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for target in (tmp_path / "full", tmp_path / "crate.zip"):
        with pytest.raises(InputError):
            write_crate(run, graph, target)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    write_crate(run, graph, tmp_path / "empty")


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


def test_a_subflow_and_mapped_tasks_are_steps(crate):
    """The subflow, the task that it maps and the one after it; a control action for each time. The source of two flows
    in one file is there once."""
    told, [main] = entities(crate), typed(crate, "ComputationalWorkflow")
    assert sorted(told[step["@id"]]["name"] for step in main["step"]) == ["joined", "shorten", "shorten_all"]
    assert len(typed(crate, "ControlAction")) == 4
    [organize] = typed(crate, "OrganizeAction")
    assert len(organize["object"]) == 4
    assert {told[each["@id"]]["name"] for each in main["input"]} == {"sources", "folder", "note"}
    assert [path.name for path in crate.rglob("*.py")] == ["exported_flows.py"]
    [part] = [each for each in told.values() if each.get("isPartOf") == {"@id": main["@id"]}]
    assert (part["name"], main["name"]) == ("shorten_all", "with_parts")


def test_a_run_results_in_its_final_products(world, crate):
    """Not in what they were made of. Files are tied to the parameters of the workflow, and keep their names. No path
    and no user of this machine is named: a crate is made to be handed on."""
    told = entities(crate)
    run, [main] = told[f"urn:ivcap-flows:run:{world.ids['with-parts']}"], typed(crate, "ComputationalWorkflow")
    files = [each for each in (told[result["@id"]] for result in as_list(run["result"])) if "File" in each["@type"]]
    assert [each["name"] for each in files] == ["whole.txt"] and files[0]["@id"].endswith("/whole.txt")
    assert files[0]["exampleOfWork"] == {"@id": main["output"]["@id"]}
    assert told[main["output"]["@id"]]["additionalType"] == "File"
    given = [each for each in typed(crate, "File") if each.get("exampleOfWork") == {"@id": "#input/sources"}]
    assert sorted(each["name"] for each in given) == ["a.txt", "b.txt"]
    assert told["#input/sources"]["additionalType"] == "File"
    metadata = (crate / "ro-crate-metadata.json").read_text() + (crate / "provenance/prov.json").read_text()
    assert str(world.folder) not in metadata and "urn:ivcap-flows:user:" not in metadata


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


@pytest.mark.parametrize(
    "text", ["licence: MIT", "author: Ada", "[", "license: 2024-02-30", "organisation: {name: Example}"]
)
def test_terms_that_cannot_be_used_are_refused(tmp_path, text):
    """A misspelt or incomplete statement is named with its file. An empty file states nothing."""
    path = tmp_path / "terms.yaml"
    path.touch()
    assert read_terms(path) == CrateTerms()
    path.write_text(text)
    with pytest.raises(InputError, match=r"terms\.yaml"):
        read_terms(path)


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


def test_a_file_that_is_another_now_is_not_in_the_crate(moved, tmp_path):
    """It is named by the sha256 that it had."""
    run, graph, folder = moved
    old = (folder / "parts/a.txt").read_bytes()
    (folder / "parts/a.txt").write_bytes(old + b"more")
    (folder / "parts/b.txt").unlink()
    write_crate(run, graph, tmp_path / "crate")
    [had] = [n.id for n in graph.nodes.values() if n.type == "file" and n.attributes["sha256"] == digest(old)]
    assert entities(tmp_path / "crate")[had]["@type"] == "MediaObject"
    names = {path.name for path in (tmp_path / "crate" / "data").rglob("*") if path.is_file()}
    assert "short-a.txt" in names and not {"a.txt", "b.txt"} & names


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_each_content_is_read_and_written_once(moved, monkeypatch, tmp_path, name):
    """So what is written has the sha256 on record and was looked through for secrets, whatever happens meanwhile."""
    run, graph, _ = moved
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
        write_crate(run, graph, tmp_path / name)
    if name == "crate.zip":
        shutil.unpack_archive(tmp_path / name, tmp_path / "crate")
    assert sum(written) <= sum(path.stat().st_size for path in (tmp_path / "crate").rglob("*") if path.is_file())
    assert {reads[Path(node.attributes["path"])] for node in graph.nodes.values() if node.type == "file"} == {1}


@pytest.mark.catches("crate without a limit")
def test_the_files_of_a_crate_have_a_limit_together(moved, monkeypatch, tmp_path, caplog):
    """The smallest come first; what is left out is named, and a warning says so. Code goes before them: if not even
    that fits, only what describes the run is in the crate."""
    run, graph, folder = moved
    sizes = sorted(node.attributes["size"] for node in graph.nodes.values() if node.type == "file")
    monkeypatch.setattr(contents, "MOST", sum(sizes) - 1)
    write_crate(run, graph, tmp_path / "crate")
    inside = [path.stat().st_size for path in (tmp_path / "crate/data").rglob("*") if path.is_file()]
    assert sum(inside) <= sum(sizes) - 1 and sorted(inside) == sizes[:-1]
    assert sizes[-1] in {int(each.get("contentSize", 0)) for each in typed(tmp_path / "crate", "MediaObject")}
    assert "1 files are named only" in caplog.text
    monkeypatch.setattr(contents, "MOST", (folder / "exported_flows.py").stat().st_size - 1)
    write_crate(run, graph, tmp_path / "bare")
    assert not (tmp_path / "bare" / "code").exists()


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


def test_no_name_is_markup_in_a_readme(moved, tmp_path):
    """Neither the flow's nor that of a file that is not in the crate: no HTML, no link, and nothing turned around."""
    run, graph, _ = moved
    nasty = "<img src=x onerror=alert(1)><details>[a](evil.example)\u202e `b`\n# c"

    def anew(record):
        given = {name: nasty for name in ("name", "path") if name in record.attributes and record.type != "software"}
        return record.model_copy(update={"attributes": {**record.attributes, **given}})

    write_crate(run, Graph(map(anew, graph.records)), tmp_path / "crate")
    text = (tmp_path / "crate/README.md").read_text()
    html = MarkdownIt("commonmark").render(text)
    assert text.count("onerror") >= 2 and "\u202e" not in text
    assert not {"<img", "<details", "<a ", "<code>b"} & set(re.findall(r"<img|<details|<a |<code>b", html))
    assert html.count("<h1>") == 1 and html.count("<li>") == sum(line.startswith("- ") for line in text.splitlines())


@pytest.mark.catches("contents are not searched")
def test_what_holds_a_password_is_left_out_and_says_so(moved, tmp_path):
    """In the crate's metadata, its README and its record, and in a tag of OpenLineage's job."""
    run, graph, folder = moved
    texts = {folder / "exported_flows.py": 'DB_PASSWORD = "hunter2"\n', folder / "parts/a.txt": "password: hunter2\n"}
    digests = {}
    for path, text in texts.items():
        old = path.read_bytes()
        path.write_bytes(old + text.encode())
        digests[digest(old)] = digest(path.read_bytes())

    def anew(record):
        given = record.attributes.items()
        changed = {name: digests.get(value, value) if isinstance(value, str) else value for name, value in given}
        return record.model_copy(update={"attributes": changed})

    graph = Graph(map(anew, graph.records))
    write_crate(run, graph, tmp_path / "crate")
    events = [json.loads(line) for line in text_of("openlineage", run, graph).splitlines()]
    files = [path.read_text() for path in (tmp_path / "crate").rglob("*") if path.is_file()]
    text = "\n".join([*files, *map(json.dumps, events)])
    assert "hunter2" not in text and "b.txt" in text
    why = "it holds a secret, or something that looks like one"
    told = [*typed(tmp_path / "crate", "SoftwareSourceCode"), *typed(tmp_path / "crate", "MediaObject")]
    left = [each["name"] for each in told if each.get("description") == f"The content is left out: {why}."]
    assert sorted(left) == ["a.txt", "shorten_all", "with_parts"]
    assert f"- not in the crate: a.txt. The content is left out: {why}." in (tmp_path / "crate/README.md").read_text()
    assert f'"{why}"' in (tmp_path / "crate/provenance/prov.json").read_text()
    jobs = [event["job"]["facets"] for event in events]
    tags = [tag for job in jobs for tag in job.get("tags", {}).get("tags", [])]
    assert {"key": "sourceCode", "value": f"left out: {why}", "source": "ivcap-flows"} in tags
    assert not any("sourceCode" in job for job in jobs)
