"""Datasets against the embedded Provena, and the documents behind its URLs."""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime, timezone
from types import SimpleNamespace

import pytest

from ivcap_flows import handles
from ivcap_flows.errors import (
    BadRequestError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
)
from ivcap_flows.provena.collection_format import Duration, SpatialInfo, TemporalInfo
from ivcap_flows.provena.documents import Documents
from ivcap_flows.provena.terms import collection_format

AREA = SpatialInfo(coverage="SRID=4326;POINT (0 0)", resolution="0.25")
PERIOD = TemporalInfo(duration=Duration(begin_date=date(1981, 1, 1), end_date=date(2010, 12, 31)), resolution="P1M")


def stated(run_items, **over):
    artifact = handles.Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name="series.csv")
    found = collection_format(artifact, run_items.terms)
    return found.model_copy(update={"dataset_info": found.dataset_info.model_copy(update=over)})


async def test_metadata_are_minted_and_changed(user, run_items):
    """What was minted, with area and time, is read back typed; an update is an entry of its history. What the data
    store would refuse is refused before it is sent."""
    first, second = stated(run_items, spatial_info=AREA), stated(run_items, temporal_info=PERIOD)
    minted = await user.datastore.mint(first)
    await user.datastore.update_metadata(minted.handle, second, reason="more")
    after = await user.datastore.fetch_dataset(minted.handle)
    assert (after.info.collection_format, after.info.s3) == (second, minted.s3_location)
    assert [entry.id for entry in after.history] == [1, 0]
    here, monthly = SpatialInfo(extent="here"), TemporalInfo(resolution="monthly")
    faulty = stated(run_items, temporal_info=monthly, spatial_info=here)
    with pytest.raises(InputError, match=r"extent is no EWKT .*resolution is no ISO 8601 duration"):
        await user.datastore.mint(faulty)
    with pytest.raises(BadRequestError):
        await user.datastore.update_metadata("nothing", second, reason="r")
    with pytest.raises(NotFoundError):
        await user.datastore.fetch_dataset("nothing")


async def test_files_and_keys_are_given_to_those_who_may_have_them(embedded_provena, user, run_items, tmp_path):
    """A file by a presigned URL, without the token. Reading is open to others, writing is not. No repr or dump shows a
    secret."""
    statement = stated(run_items)
    minted = await user.datastore.mint(statement)
    path = "/registry/items/generate-presigned-url"

    async def url_of(name):
        wanted = {"dataset_id": minted.handle, "file_path": name}
        return (await user.datastore.call("POST", path, repeat="idempotent", json=wanted))["presigned_url"]

    file = await user.documents.save(await url_of("metadata.json"), tmp_path / "m.json", what="the metadata")
    assert json.loads((tmp_path / "m.json").read_text())["dataset_info"]["name"] == statement.dataset_info.name
    assert file.size == (tmp_path / "m.json").stat().st_size
    for name in ("../secret", "nothing.txt"):
        with pytest.raises(BadRequestError):
            await url_of(name)

    keys = await user.datastore.write_credentials(minted.handle)
    assert keys.expiry > datetime.now(timezone.utc)
    for secret in (keys.aws_secret_access_key, keys.aws_session_token):
        assert secret.get_secret_value()
        assert secret.get_secret_value() not in repr(keys) + keys.model_dump_json()
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        assert (await other.datastore.read_credentials(minted.handle)).aws_access_key_id
        with pytest.raises(NotAuthorizedError) as caught:
            await other.datastore.write_credentials(minted.handle)
    assert caught.value.about == "item"


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://bucket.s3.ap-southeast-2.amazonaws.com/r.docx", True),
        ("https://s3-ap-southeast-2.amazonaws.com/bucket/r.docx", True),
        ("https://files.example.org/r.docx", True),
        ("http://bucket.s3.amazonaws.com/r.docx", False),
        ("https://evil-s3.amazonaws.com.example.net/r.docx", False),
        ("https://ec2-1-2-3-4.compute.amazonaws.com/r.docx", False),
        ("http://169.254.169.254/latest", False),
        ("file:///etc/passwd", False),
    ],
)
async def test_documents_come_from_known_hosts_only(tmp_path, monkeypatch, url, good):
    """Provena's own, S3's by https, and those that the user trusts; the others are not asked."""
    asked = []

    async def fetch(session, source, target, *, urn):
        asked.append((session.auth, source))

    monkeypatch.setattr("ivcap_flows.provena.documents.download", SimpleNamespace(fetch=fetch))
    save = Documents({"files.example.org"}, None).save(url + "?X-Amz-Signature=abc", tmp_path / "r", what="the report")
    if good:
        await save
        [(auth, source)] = asked
        assert auth is None and source.endswith("r.docx?X-Amz-Signature=abc")
    else:
        with pytest.raises(ProtocolError) as caught:
            await save
        assert asked == []
        assert "abc" not in str(caught.value) + str(caught.value.data)
