"""`export`: the provenance of a run for other tools."""

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
