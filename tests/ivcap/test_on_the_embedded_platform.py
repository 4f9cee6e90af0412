"""The client against the embedded platform, over a real socket."""

import hashlib
import os
import time
from datetime import datetime, timedelta, timezone

import pytest

from ivcap_flows.errors import NotAuthorizedError, NotFoundError
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient


async def test_an_embedded_platform_has_an_identity_of_its_own(embedded):
    """Its instance, not its port, names it; it says how fast it settles, and who acts."""
    assert (await embedded.platform()).startswith("urn:ivcap-flows:embedded:")
    assert embedded.visibility_delay < 120
    assert (await embedded.account()).startswith("urn:ivcap:account:")


@pytest.mark.parametrize("size", [0, 1, 200_000])
async def test_an_artifact_goes_there_and_back(embedded, tmp_path, size):
    """Created, sent, ready, downloaded: the same bytes, name and type."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    record = await embedded.artifacts.create(name="Niño 1+2", media_type="text/csv", size=size)
    assert not record.ready or size == 0
    await embedded.artifacts.send(record, source, offset=0)
    read = await embedded.artifacts.read(record.urn)
    assert (read.ready, read.name, read.mime_type, read.size) == (True, "Niño 1+2", "text/csv", size)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    found = await embedded.artifacts.download(record.urn, tmp_path / "back", sha256=sha256)
    assert (found.size, found.sha256) == (size, sha256)


async def test_an_upload_goes_on_in_another_process_by_its_urn(embedded, blob):
    """Half of it is there; the URN alone is enough to send the rest."""
    record = await embedded.artifacts.create(name="half", media_type="x/y", size=200_000)
    half = blob.with_name("half")
    half.write_bytes(blob.read_bytes()[:80_000])
    await embedded.artifacts.send(record, half, offset=0)
    assert await embedded.artifacts.offset(record.urn) == 80_000
    told = []
    await embedded.artifacts.send(record.urn, blob, progress=told.append)
    assert told == [200_000]
    assert (await embedded.artifacts.read(record.urn)).ready


async def test_lists_are_read_over_all_pages(embedded):
    """More than one page of artifacts, each once, and a limit that is the total."""
    made = {(await embedded.artifacts.create(name=f"n{n}", media_type="x/y", size=1)).urn for n in range(55)}
    listed = [record.urn async for record in embedded.artifacts.list()]
    assert len(listed) == len(set(listed))
    assert made <= set(listed)
    assert len([record async for record in embedded.artifacts.list(limit=52)]) == 52


async def test_an_item_of_a_list_can_be_downloaded(embedded, blob, tmp_path):
    """Items carry no data-href; the record is read again for it."""
    record = await embedded.artifacts.create(name="listed", media_type="x/y", size=200_000)
    await embedded.artifacts.send(record, blob)
    [item] = [each async for each in embedded.artifacts.list() if each.urn == record.urn]
    await embedded.artifacts.send(item, blob)  # whole already: nothing is sent
    assert (await embedded.artifacts.download(item.urn, tmp_path / "out")).size == 200_000


async def test_aspects_are_added_updated_and_retracted(embedded):
    """History stays: the one before the update is there at its time, the retracted one by its URN."""
    entity, schema = "urn:x:entity:1", "urn:x:schema:a.1"
    first = await embedded.aspects.add(entity, schema, {"n": 1})
    second = await embedded.aspects.update(entity, schema, {"n": 2})
    [active] = [each async for each in embedded.aspects.list(entity=entity, schema=schema)]
    assert (active.urn, active.content["n"], active.active) == (second, 2, True)
    assert not (await embedded.aspects.read(first)).active
    assert (await embedded.aspects.read(second)).replaces == first
    matching = embedded.aspects.list(entity=entity, content_path="$.n ? (@ == 2)")
    assert [each.urn async for each in matching] == [second]
    await embedded.aspects.retract(second)
    assert [each async for each in embedded.aspects.list(entity=entity, schema=schema)] == []
    early = datetime.now(timezone.utc) - timedelta(days=1)
    assert [each async for each in embedded.aspects.list(entity=entity, schema=schema, at_time=early)] == []
    assert (await embedded.aspects.read(second)).valid_to is not None


async def test_refusals_have_their_own_errors(embedded, embedded_environment):
    """An unknown thing, and a token that has expired."""
    with pytest.raises(NotFoundError):
        await embedded.orders.read("urn:ivcap:order:00000000-0000-0000-0000-000000000000")
    expired = StaticToken(embedded_environment["IVCAP_JWT_EXPIRED"])
    assert expired.expired_at(time.time())
    async with IvcapClient(embedded_environment["IVCAP_URL"], expired) as late:
        with pytest.raises(NotAuthorizedError):
            await anext(late.artifacts.list())
