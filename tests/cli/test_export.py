"""`export`: the provenance of a run for other tools."""

import json

import pytest
from prov.model import ProvDocument


def test_prov_json_is_read_back(on_record, world, tmp_path):
    """From a file or from standard output: activities, entities and their ids are the platforms' own."""
    run, target = on_record("show", "harvest", "--json").json["run"]["id"], tmp_path / "run.json"
    text = on_record("export", run, "--format", "prov-json").out
    for option in ("-o", "--output"):
        said = on_record("export", run, "--format", "prov-json", option, target)
        assert (said.status, said.out) == (0, "") and target.read_text(encoding="utf-8") == text
        target.unlink()
    document = ProvDocument.deserialize(content=text, format="json")
    ids = {record.identifier.uri for record in document.get_records() if record.identifier}
    assert {world.made["product"], world.made["order"], f"urn:ivcap-flows:run:{run}"} <= ids
    assert f"https://hdl.handle.net/{world.made['dataset']}" in ids
    assert json.loads(text)["wasGeneratedBy"]


@pytest.mark.parametrize(
    ("format_", "words"),
    [("prov-n", "document\n"), ("turtle", "@prefix prov:"), ("openlineage", '"eventType": "START"')],
)
def test_every_format_is_written(on_record, world, tmp_path, format_, words):
    """To standard output and to a file alike, with the ids of the platforms."""
    said = on_record("export", "harvest", "--format", format_)
    assert said.status == 0 and words in said.out
    assert world.made["order"] in said.out.replace("\\", "").replace("ivcap:", "urn:ivcap:")
    on_record("export", "harvest", "--format", format_, "-o", tmp_path / "run")
    assert len((tmp_path / "run").read_text(encoding="utf-8")) == len(said.out)
