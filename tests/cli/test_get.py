"""`get`: what a URN of a trace stands for."""

import json
import uuid

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials


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


def test_each_kind_of_thing_can_be_read(ivcap_flows, embedded_platform, names):
    """A collection has its items, which IVCAP has as aspects."""
    name, items = uuid.uuid4().hex, [names["product"], names["series"]]

    async def made():
        async with IvcapCredentials.from_environment().get_client() as client:
            collection = await client.collections.create(name, description="For a test")
            await client.collections.add(collection.urn, items)
            aspect = await client.aspects.add(items[0], "urn:example:schema:seen.1", {"seen": True})
            service = (await client.orders.read(names["order"])).service
            return collection.urn, aspect, service

    collection, *others = loop.run(made())
    told = {"id": collection, "name": name, "description": "For a test", "items": items}
    assert ivcap_flows("get", collection).json == told
    for urn in others:
        assert ivcap_flows("get", urn).json["id"] == urn


def test_what_the_account_cannot_see_is_named(ivcap_flows, transcript):
    urn = "urn:ivcap:artifact:00000000-0000-0000-0000-000000000000"
    transcript(ivcap_flows, f"$ get {urn}\nNotFoundError: … {urn} …\n[1]")
