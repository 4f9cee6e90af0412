"""The client against the embedded platform, over a real socket."""

import hashlib
import os
import time
from datetime import datetime, timedelta, timezone

import pytest

from ivcap_flows.errors import NotAuthorizedError, NotFoundError
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient


async def test_a_twin_has_an_identity_of_its_own(twin):
    """Its instance, not its port, names it; it says how fast it settles, and who acts."""
    assert (await twin.platform()).startswith("urn:ivcap-flows:twin:")
    assert twin.settle < 120
    assert (await twin.account()).startswith("urn:ivcap:account:")


@pytest.mark.parametrize("size", [0, 1, 200_000])
async def test_an_artifact_goes_there_and_back(twin, tmp_path, size):
    """Created, sent, ready, downloaded: the same bytes, name and type."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    record = await twin.artifacts.create(name="Niño 1+2", media_type="text/csv", size=size)
    assert not record.ready or size == 0
    await twin.artifacts.send(record, source, offset=0)
    read = await twin.artifacts.read(record.urn)
    assert (read.ready, read.name, read.mime_type, read.size) == (True, "Niño 1+2", "text/csv", size)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    found = await twin.artifacts.download(record.urn, tmp_path / "back", sha256=sha256)
    assert (found.size, found.sha256) == (size, sha256)


async def test_an_upload_goes_on_in_another_process_by_its_urn(twin, blob):
    """Half of it is there; the URN alone is enough to send the rest."""
    record = await twin.artifacts.create(name="half", media_type="x/y", size=200_000)
    half = blob.with_name("half")
    half.write_bytes(blob.read_bytes()[:80_000])
    await twin.artifacts.send(record, half, offset=0)
    assert await twin.artifacts.offset(record.urn) == 80_000
    told = []
    await twin.artifacts.send(record.urn, blob, progress=told.append)
    assert told == [200_000]
    assert (await twin.artifacts.read(record.urn)).ready


async def test_lists_are_read_over_all_pages(twin):
    """More than one page of artifacts, each once, and a limit that is the total."""
    made = {(await twin.artifacts.create(name=f"n{n}", media_type="x/y", size=1)).urn for n in range(55)}
    listed = [record.urn async for record in twin.artifacts.list()]
    assert len(listed) == len(set(listed))
    assert made <= set(listed)
    assert len([record async for record in twin.artifacts.list(limit=52)]) == 52


async def test_an_item_of_a_list_can_be_downloaded(twin, blob, tmp_path):
    """Items carry no data-href; the record is read again for it."""
    record = await twin.artifacts.create(name="listed", media_type="x/y", size=200_000)
    await twin.artifacts.send(record, blob)
    [item] = [each async for each in twin.artifacts.list() if each.urn == record.urn]
    await twin.artifacts.send(item, blob)  # whole already: nothing is sent
    assert (await twin.artifacts.download(item.urn, tmp_path / "out")).size == 200_000


async def test_aspects_are_added_updated_and_retracted(twin):
    """History stays: the one before the update is there at its time, the retracted one by its URN."""
    entity, schema = "urn:x:entity:1", "urn:x:schema:a.1"
    first = await twin.aspects.add(entity, schema, {"n": 1})
    second = await twin.aspects.update(entity, schema, {"n": 2})
    [active] = [each async for each in twin.aspects.list(entity=entity, schema=schema)]
    assert (active.urn, active.content["n"], active.active) == (second, 2, True)
    assert not (await twin.aspects.read(first)).active
    assert (await twin.aspects.read(second)).replaces == first
    matching = twin.aspects.list(entity=entity, content_path="$.n ? (@ == 2)")
    assert [each.urn async for each in matching] == [second]
    await twin.aspects.retract(second)
    assert [each async for each in twin.aspects.list(entity=entity, schema=schema)] == []
    early = datetime.now(timezone.utc) - timedelta(days=1)
    assert [each async for each in twin.aspects.list(entity=entity, schema=schema, at_time=early)] == []
    assert (await twin.aspects.read(second)).valid_to is not None


async def test_refusals_have_their_own_errors(twin, twin_environment):
    """An unknown thing, and a token that has expired."""
    with pytest.raises(NotFoundError):
        await twin.orders.read("urn:ivcap:order:00000000-0000-0000-0000-000000000000")
    expired = StaticToken(twin_environment["IVCAP_JWT_EXPIRED"])
    assert expired.expired_at(time.time())
    async with IvcapClient(twin_environment["IVCAP_URL"], expired) as late:
        with pytest.raises(NotAuthorizedError):
            await anext(late.artifacts.list())
