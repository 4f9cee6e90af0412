"""`get`: what a URN of a trace stands for."""

import json

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_artifact_becomes_a_file(ivcap_flows, transcript, world, folder):
    """By its name in this folder, and never over what is there; or where one says."""
    downloaded = """
$ get {product}
upper.csv: … bytes, sha256 …
$ get {product}
InputError: There is a file upper.csv already. Name another with -o.
[2]
$ get {product} -o other.csv
other.csv: … bytes, sha256 …
"""
    transcript(ivcap_flows, downloaded)
    for name in ("upper.csv", "other.csv"):
        assert (folder / name).read_bytes() == world.downloaded.read_bytes()


def test_of_other_things_there_is_what_the_platform_says(ivcap_flows, transcript, names, folder):
    """As JSON, in the platform's words; printed, or in a file."""
    printed = ivcap_flows("get", names["order"]).json
    assert (printed["id"], printed["status"]) == (names["order"], "succeeded")
    transcript(ivcap_flows, "$ get {order} -o order.json\norder.json: {order}")
    assert json.loads((folder / "order.json").read_text(encoding="utf-8")) == printed


def test_what_the_account_cannot_see_is_named(ivcap_flows, transcript):
    urn = "urn:ivcap:artifact:00000000-0000-0000-0000-000000000000"
    transcript(ivcap_flows, f"$ get {urn}\nNotFoundError: … {urn} …\n[1]")
