"""Datasets and the search for items against the embedded Provena."""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime, timezone
from types import SimpleNamespace

import pytest

from ivcap_flows import handles
from ivcap_flows.errors import (
    BadRequestError,
    ConfigurationError,
    ForbiddenError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
)
from ivcap_flows.provena.collection_format import Duration, SpatialInfo, TemporalInfo
from ivcap_flows.provena.documents import Documents
from ivcap_flows.provena.models import DatasetInfo, Organisation
from ivcap_flows.provena.terms import collection_format

PERIOD = TemporalInfo(duration=Duration(begin_date=date(1981, 1, 1), end_date=date(2010, 12, 31)), resolution="P1M")


def stated(world, **over):
    artifact = handles.Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name="series.csv")
    found = collection_format(artifact, world.terms)
    return found.model_copy(update={"dataset_info": found.dataset_info.model_copy(update=over)})


async def test_metadata_are_checked_changed_and_taken_back(user, world):
    """What was minted, with area and time, is read back typed; an update and a revert are entries of its history."""
    area = SpatialInfo(coverage="SRID=4326;POINT (0 0)", resolution="0.25")
    first, second = stated(world, spatial_info=area), stated(world, temporal_info=PERIOD)
    assert [await user.datastore.validate(each) for each in (first, second)] == [None, None]
    minted = await user.datastore.mint(first)

    await user.datastore.update_metadata(minted.handle, second, reason="more")
    changed = await user.datastore.fetch_dataset(minted.handle)
    await user.datastore.revert_metadata(minted.handle, 0, reason="less")
    back = await user.datastore.fetch_dataset(minted.handle)

    assert changed.info.collection_format == second
    assert back.info.collection_format == first
    assert [entry.id for entry in back.history] == [2, 1, 0]
    assert minted.s3_location == back.info.s3
    assert minted.handle in [item.id async for item in user.datastore.list(limit=5)]
    with pytest.raises(BadRequestError):
        await user.datastore.update_metadata("nothing", second, reason="r")
    with pytest.raises(NotFoundError):
        await user.datastore.fetch_dataset("nothing")


async def test_what_the_data_store_would_refuse_is_told(user, world):
    """The flat answer and a 422 both come back as its words; our own checks know the same before a mint."""
    unknown = stated(world, publisher_id="nobody")
    assert "nobody" in await user.datastore.validate(unknown)
    faulty = stated(world, temporal_info=TemporalInfo(resolution="monthly"), spatial_info=SpatialInfo(extent="here"))

    assert await user.datastore.validate(faulty) is not None
    with pytest.raises(InputError, match=r"extent is no EWKT .*resolution is no ISO 8601 duration"):
        await user.datastore.mint(faulty)
    assert "associations" in (await user.datastore.schema())["properties"]


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (SpatialInfo(resolution="-1"), "resolution is no number above 0 ('-1')"),
        (SpatialInfo(coverage="SRID=4326;" + "P" * 50_000), "coverage has 50,010 characters, and 50,000 are allowed"),
        (TemporalInfo(resolution="P"), "resolution is no ISO 8601 duration such as P1M ('P')"),
        (TemporalInfo(resolution="P1Y2M10DT2H30M"), None),
        (Duration(begin_date=date(2001, 1, 2), end_date=date(2001, 1, 1)), "end_date (2001-01-01) is before"),
    ],
)
def test_area_and_time_are_checked_before_sending(part, fault):
    """As the data store checks them, but with all faults at once."""
    found = part.faults()

    assert [each.startswith(fault) for each in found] == [True] if fault else found == []


async def test_a_dataset_has_one_next_version(user, world):
    """The new one has the metadata, and the old one names it."""
    minted = await user.datastore.mint(stated(world))
    new = await user.datastore.version(minted.handle, reason="corrected")

    old, following = [await user.datastore.fetch_dataset(one) for one in (minted.handle, new.id)]

    assert old.versioning_info.next_version == new.id
    assert following.info.collection_format == old.info.collection_format
    with pytest.raises(BadRequestError, match=new.id):
        await user.datastore.version(minted.handle, reason="again")


async def test_a_file_is_read_by_its_presigned_url_without_the_token(user, world, tmp_path):
    """The metadata file is there from the mint on; the URL is kept out of what is printed."""
    statement = stated(world)
    minted = await user.datastore.mint(statement)

    url = await user.datastore.presigned_url(minted.handle, "metadata.json", expires_in=60)
    file = await user.documents.save(url, tmp_path / "m.json", what="the metadata")

    assert json.loads((tmp_path / "m.json").read_text())["dataset_info"]["name"] == statement.dataset_info.name
    assert file.size == (tmp_path / "m.json").stat().st_size
    assert "metadata.json" not in repr(url)
    for path in ("../secret", "nothing.txt"):
        with pytest.raises(BadRequestError):
            await user.datastore.presigned_url(minted.handle, path)


async def test_keys_are_given_and_never_shown(embedded_provena, user, world):
    """Reading is open to others, writing is not; no repr or dump shows a secret."""
    minted = await user.datastore.mint(stated(world))

    keys = await user.datastore.write_credentials(minted.handle, console=True)
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        read = await other.datastore.read_credentials(minted.handle)
        with pytest.raises(NotAuthorizedError) as caught:
            await other.datastore.write_credentials(minted.handle)

    assert caught.value.about == "item"
    assert read.console_session_url is None
    assert keys.expiry > datetime.now(timezone.utc)
    shown = repr(keys) + keys.model_dump_json()
    for secret in (keys.aws_secret_access_key, keys.aws_session_token, keys.console_session_url):
        assert secret.get_secret_value()
        assert secret.get_secret_value() not in shown


async def test_a_release_is_asked_for_and_decided(embedded_provena, user, world):
    """From the request to the approval, with the reviewer's list; a released dataset takes no more files."""
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
        pending = [item.id async for item in other.registry.releases(reviewer, release_status="PENDING")]
        await other.datastore.releases.decide(minted.handle, approve=True, notes="fine")
        await admin.datastore.releases.remove_reviewer(reviewer)

    info = (await user.registry.fetch(DatasetInfo, minted.handle)).info
    assert pending == [minted.handle]
    assert (info.release_status, info.release_approver) == ("RELEASED", reviewer)
    assert {event.action for event in info.release_history} == {"REQUEST", "APPROVE"}
    assert await user.datastore.releases.reviewers() == []
    with pytest.raises(ForbiddenError):
        await user.datastore.write_credentials(minted.handle)
    with pytest.raises(NotAuthorizedError):
        await user.datastore.releases.add_reviewer(reviewer)


async def test_items_are_found_by_their_words(user, world):
    """With a subtype only such items; more than the server gives is not asked for."""
    word = f"w{uuid.uuid4().hex}"
    made = await user.registry.create(Organisation, Organisation(display_name=word, name=word))

    [hit] = await user.search.registry(word, subtype=Organisation)

    assert hit.id == made.item.id
    assert hit.score > 0
    assert await user.search.registry(word, subtype="PERSON") == []
    assert [each.id for each in await user.search.registry(word, limit=50)] == [hit.id]
    with pytest.raises(InputError):
        await user.search.registry(word, limit=51)


async def test_an_api_whose_url_is_not_known_says_so(client):
    """Deployments that are named API by API may leave out what is seldom used."""
    with pytest.raises(ConfigurationError, match="PROVENA_HANDLE_API"):
        _ = client.ids


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
        asked.append((session.base_url, session.auth, source))

    monkeypatch.setattr("ivcap_flows.provena.documents.download", SimpleNamespace(fetch=fetch))
    documents = Documents({"files.example.org"}, None)

    if good:
        await documents.save(url + "?X-Amz-Signature=abc", tmp_path / "r", what="the report")
        [(_, auth, source)] = asked
        assert auth is None
        assert source.endswith("r.docx?X-Amz-Signature=abc")
    else:
        with pytest.raises(ProtocolError) as caught:
            await documents.save(url + "?X-Amz-Signature=abc", tmp_path / "r", what="the report")
        assert asked == []
        assert "abc" not in str(caught.value) + str(caught.value.data)
