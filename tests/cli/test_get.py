"""`get`: what a URN of a trace stands for."""

import json


def test_an_artifact_becomes_a_file(ivcap_flows, world, tmp_path, monkeypatch):
    """By its name in this folder, and never over what is there; or where one says."""
    monkeypatch.chdir(tmp_path)
    urn = world.made["product"]
    said = ivcap_flows("get", urn)
    assert said.status == 0 and said.out.startswith("upper.csv: ")
    assert (tmp_path / "upper.csv").read_bytes() == world.downloaded.read_bytes()
    again = ivcap_flows("get", urn)
    assert again.status == 2 and "There is a file upper.csv already" in again.err
    assert ivcap_flows("get", urn, "-o", "other.csv").status == 0
    assert (tmp_path / "other.csv").read_bytes() == world.downloaded.read_bytes()


def test_of_other_things_there_is_what_the_platform_says(ivcap_flows, world, tmp_path):
    """As JSON, in the platform's words; printed, or in a file."""
    urn = world.made["order"]
    printed = ivcap_flows("get", urn).json
    assert (printed["id"], printed["status"]) == (urn, "succeeded")
    assert ivcap_flows("get", urn, "-o", tmp_path / "order.json").status == 0
    assert json.loads((tmp_path / "order.json").read_text(encoding="utf-8")) == printed


def test_what_the_account_cannot_see_is_named(ivcap_flows):
    urn = "urn:ivcap:artifact:00000000-0000-0000-0000-000000000000"
    said = ivcap_flows("get", urn)
    assert said.status == 1 and urn in said.err
