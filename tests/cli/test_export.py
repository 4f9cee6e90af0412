"""`export`: the provenance of a run for other tools."""

import json

import pytest


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("prov-json", '"wasGeneratedBy": {'),
        ("prov-n", "document\n"),
        ("turtle", "@prefix prov:"),
        ("openlineage", '"eventType": "START"'),
    ],
)
def test_a_form_is_printed_or_written(on_record, world, tmp_path, form, words):
    """To standard output and to a file alike, with the ids of the platforms. tests/exports reads each back."""
    said = on_record("export", "harvest", "--format", form)
    assert said.status == 0 and words in said.out
    assert world.made["order"] in said.out.replace("\\", "").replace("ivcap:", "urn:ivcap:")
    for option in ("-o", "--output"):
        written = on_record("export", "harvest", "--format", form, option, tmp_path / option)
        assert (written.status, written.out) == (0, "")
        assert len((tmp_path / option).read_text(encoding="utf-8")) == len(said.out)


def test_a_crate_has_the_terms_that_the_user_states(on_record, transcript, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "terms.yaml").write_text("license: https://spdx.org/licenses/CC-BY-4.0\n")
    transcript(on_record, "$ export harvest --format ro-crate -o crate --terms terms.yaml")
    graph = json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    [root] = [each for each in graph if each["@id"] == "./"]
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
