"""`export`: the provenance of a run for other tools."""

import json
import zipfile

import pytest
from prov.model import ProvDocument


@pytest.mark.parametrize("option", ["-o", "--output", None])
def test_prov_json_is_read_back(on_record, world, tmp_path, option):
    """From a file or from standard output: activities, entities and their ids are the platforms' own."""
    run = on_record("runs", "--flow", "harvest", "--json").json[0]["id"]
    target = tmp_path / "run.json"
    said = on_record("export", run, "--format", "prov-json", *([option, target] if option else []))
    assert said.status == 0 and bool(said.out) == (option is None)
    text = target.read_text(encoding="utf-8") if option else said.out
    document = ProvDocument.deserialize(content=text, format="json")
    ids = {record.identifier.uri for record in document.get_records() if record.identifier}
    assert {world.made["product"], world.made["order"], f"urn:ivcap-flows:run:{run}"} <= ids
    assert f"https://hdl.handle.net/{world.made['dataset']}" in ids
    assert json.loads(text)["wasGeneratedBy"]


@pytest.mark.parametrize("options", [[], ["--format", "ro-crate"]])
def test_a_path_that_cannot_be_written_is_wrong_use(on_record, tmp_path, options):
    """The error names the path and why."""
    target = tmp_path / "missing" / "run"
    said = on_record("export", "latest", *options, "-o", target)
    assert said.status == 2 and f"{target} cannot be written: No such file" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["latest", "--format", "sonnet"],
        ["latest", "--format", "ro-crate"],
        ["latest", "--terms", "terms.yaml"],
        ["latest", "--format", "ro-crate", "-o", "crate", "--terms", "missing.yaml"],
    ],
)
def test_what_there_is_not_is_wrong_use(on_record, arguments):
    """An unknown run or format, an RO-Crate without a place, terms without an RO-Crate."""
    assert on_record("export", *arguments).status == 2


@pytest.mark.parametrize(
    ("format_", "words"),
    [("prov-n", "document\n"), ("turtle", "@prefix prov:"), ("openlineage", '"eventType": "START"')],
)
def test_every_format_is_written(on_record, world, tmp_path, format_, words):
    """To standard output and to a file alike, with the ids of the platforms."""
    run = on_record("runs", "--flow", "harvest", "--json").json[0]["id"]
    said = on_record("export", run, "--format", format_)
    assert said.status == 0 and words in said.out
    assert world.made["order"] in said.out.replace("\\", "").replace("ivcap:", "urn:ivcap:")
    on_record("export", run, "--format", format_, "-o", tmp_path / "run")
    assert len((tmp_path / "run").read_text(encoding="utf-8")) == len(said.out)


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_an_ro_crate_is_a_folder_or_a_zip(on_record, tmp_path, name):
    """By the end of its name; a second one does not replace it."""
    target = tmp_path / name
    assert on_record("export", "latest", "--format", "ro-crate", "-o", target).status == 0
    made = list(zipfile.ZipFile(target).namelist()) if target.is_file() else [path.name for path in target.iterdir()]
    assert "ro-crate-metadata.json" in made
    assert "exists already" in on_record("export", "latest", "--format", "ro-crate", "-o", target).err
