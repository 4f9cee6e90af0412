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
    ForbiddenError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
)
from ivcap_flows.provena.collection_format import Duration, SpatialInfo, TemporalInfo
from ivcap_flows.provena.documents import Documents
from ivcap_flows.provena.models import DatasetInfo
from ivcap_flows.provena.terms import collection_format

AREA = SpatialInfo(coverage="SRID=4326;POINT (0 0)", resolution="0.25")
PERIOD = TemporalInfo(duration=Duration(begin_date=date(1981, 1, 1), end_date=date(2010, 12, 31)), resolution="P1M")


def stated(world, **over):
    artifact = handles.Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name="series.csv")
    found = collection_format(artifact, world.terms)
    return found.model_copy(update={"dataset_info": found.dataset_info.model_copy(update=over)})


async def test_metadata_are_checked_changed_and_taken_back(user, world):
    """What was minted, with area and time, is read back typed; an update and a revert are entries of its history."""
    first, second = stated(world, spatial_info=AREA), stated(world, temporal_info=PERIOD)
    assert [await user.datastore.validate(each) for each in (first, second)] == [None, None]
    minted = await user.datastore.mint(first)
    await user.datastore.update_metadata(minted.handle, second, reason="more")
    assert (await user.datastore.fetch_dataset(minted.handle)).info.collection_format == second
    await user.datastore.revert_metadata(minted.handle, 0, reason="less")
    back = await user.datastore.fetch_dataset(minted.handle)
    assert (back.info.collection_format, back.info.s3) == (first, minted.s3_location)
    assert [entry.id for entry in back.history] == [2, 1, 0]
    assert minted.handle in [item.id async for item in user.datastore.list(limit=5)]
    with pytest.raises(BadRequestError):
        await user.datastore.update_metadata("nothing", second, reason="r")
    with pytest.raises(NotFoundError):
        await user.datastore.fetch_dataset("nothing")


async def test_what_the_data_store_would_refuse_is_told(user, world):
    """The flat answer and a 422 both come back as its words; our own checks know the same before a mint."""
    assert "nobody" in await user.datastore.validate(stated(world, publisher_id="nobody"))
    faulty = stated(world, temporal_info=TemporalInfo(resolution="monthly"), spatial_info=SpatialInfo(extent="here"))
    assert await user.datastore.validate(faulty) is not None
    with pytest.raises(InputError, match=r"extent is no EWKT .*resolution is no ISO 8601 duration"):
        await user.datastore.mint(faulty)
    assert "associations" in (await user.datastore.schema())["properties"]


async def test_files_and_keys_are_given_to_those_who_may_have_them(embedded_provena, user, world, tmp_path):
    """A file by a presigned URL, without the token. Reading is open to others, writing is not. No repr or dump shows a
    secret."""
    statement = stated(world)
    minted = await user.datastore.mint(statement)
    url = await user.datastore.presigned_url(minted.handle, "metadata.json", expires_in=60)
    file = await user.documents.save(url, tmp_path / "m.json", what="the metadata")
    assert json.loads((tmp_path / "m.json").read_text())["dataset_info"]["name"] == statement.dataset_info.name
    assert file.size == (tmp_path / "m.json").stat().st_size and "metadata.json" not in repr(url)
    for path in ("../secret", "nothing.txt"):
        with pytest.raises(BadRequestError):
            await user.datastore.presigned_url(minted.handle, path)

    keys = await user.datastore.write_credentials(minted.handle, console=True)
    assert keys.expiry > datetime.now(timezone.utc)
    for secret in (keys.aws_secret_access_key, keys.aws_session_token, keys.console_session_url):
        assert secret.get_secret_value()
        assert secret.get_secret_value() not in repr(keys) + keys.model_dump_json()
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        assert (await other.datastore.read_credentials(minted.handle)).console_session_url is None
        with pytest.raises(NotAuthorizedError) as caught:
            await other.datastore.write_credentials(minted.handle)
    assert caught.value.about == "item"


async def test_a_release_is_asked_for_and_decided(embedded_provena, user, world):
    """From the request to the approval, with the reviewer's own list, which is forbidden to others; a released dataset
    takes no more files."""
    minted = await user.datastore.mint(stated(world))
    async with (
        embedded_provena.client("ADMIN") as admin,
        embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other,
    ):
        reviewer = await other.auth_api.linked_person()
        with pytest.raises(BadRequestError):
            await user.datastore.releases.request(minted.handle, reviewer, notes="please")
        await admin.datastore.releases.add_reviewer(reviewer)
        assert await user.datastore.releases.reviewers() == [reviewer]
        await user.datastore.releases.request(minted.handle, reviewer, notes="please")
        pending = other.registry.releases(reviewer, release_status="PENDING")
        assert [item.id async for item in pending] == [minted.handle]
        # The registry has one index only for what a reviewer has, and refuses the sort that other lists have.
        assert minted.handle in [item.id async for item in user.registry.list_any(reviewer=reviewer)]
        await other.datastore.releases.decide(minted.handle, approve=True, notes="fine")
        await admin.datastore.releases.remove_reviewer(reviewer)
        assert await admin.datastore.releases.reviewers() == []

    info = (await user.registry.fetch(DatasetInfo, minted.handle)).info
    assert (info.release_status, info.release_approver) == ("RELEASED", reviewer)
    assert {event.action for event in info.release_history} == {"REQUEST", "APPROVE"}
    with pytest.raises(ForbiddenError):
        [item async for item in user.registry.releases(reviewer)]
    with pytest.raises(ForbiddenError):
        await user.datastore.write_credentials(minted.handle)
    with pytest.raises(NotAuthorizedError):
        await user.datastore.releases.add_reviewer(reviewer)


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
