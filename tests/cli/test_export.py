"""`export`: the provenance of a run for other tools."""

import json

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


def test_a_path_that_cannot_be_written_is_wrong_use(on_record, tmp_path):
    """The error names the path and why."""
    target = tmp_path / "missing" / "run.json"
    said = on_record("export", "latest", "-o", target)
    assert said.status == 2 and f"{target} cannot be written: No such file" in said.err


@pytest.mark.parametrize("arguments", [["nothing"], ["latest", "--format", "turtle"]])
def test_what_there_is_not_is_wrong_use(on_record, arguments):
    """An unknown run or format."""
    assert on_record("export", *arguments).status == 2
