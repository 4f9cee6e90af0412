"""Files of datasets through the client, on a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from traceback import format_exception
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.endpoint import Endpoint
from botocore.exceptions import ReadTimeoutError
from botocore.httpchecksum import StreamingChecksumBody
from botocore.response import StreamingBody
from pydantic import SecretStr

from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    NotAuthorizedError,
    NotFoundError,
    SourceChangedError,
    UnreachableError,
)
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.embedded import Embedded
from ivcap_flows.identity import EMBEDDED
from ivcap_flows.provena import client, files, s3, s3_upload
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.datastore import DataStoreApi
from ivcap_flows.provena.s3 import Bucket
from ivcap_flows.settings import Settings

P = 5 * 1024 * 1024
"""Bytes of the smallest part that S3 takes."""


def file(path: Path, content: bytes) -> LocalFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return LocalFile(path=str(path), sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@pytest.fixture
async def provena() -> AsyncIterator[ProvenaClient]:
    """A client of the user."""
    async with ProvenaCredentials.from_environment(Settings()).get_client() as client:
        yield client


@pytest.fixture
async def dataset(provena: ProvenaClient, stated: CollectionFormat) -> str:
    """A new dataset's handle."""
    return (await provena.datastore.mint(stated)).handle


@dataclass
class Place:
    """The folder of a dataset in the bucket, as others may write to it."""

    client: Any
    bucket: str
    prefix: str

    def put(self, name: str, content: bytes, *, sha256: str | None = None) -> None:
        stated = {"sha256": sha256} if sha256 else {}
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content, Metadata=stated)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def has(self, name: str) -> bool:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + name).get("Contents", [])
        return self.prefix + name in [each["Key"] for each in found]

    def unfinished(self, name: str) -> list[str]:
        """The ids of uploads in parts that nobody completed."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix + name)
        return [each["UploadId"] for each in found.get("Uploads", [])]

    def parts(self, name: str, upload: str) -> list[int]:
        found = self.client.list_parts(Bucket=self.bucket, Key=self.prefix + name, UploadId=upload)
        return [each["PartNumber"] for each in found.get("Parts", [])]


@pytest.fixture(scope="session")
def bucket_client(s3_server: Any) -> Any:
    """A client of the S3 server beside ours."""
    return s3_server.client()


@pytest.fixture
async def place(provena: ProvenaClient, dataset: str, bucket_client: Any) -> Place:
    """Where the files of the dataset are."""
    found = (await provena.datastore.fetch_dataset(dataset)).info.s3
    assert found is not None
    return Place(bucket_client, found.bucket_name, found.path)


async def test_what_is_uploaded_is_downloaded(provena, dataset, tmp_path, monkeypatch):
    """Small, empty, in parts, in folders and under odd names: byte for byte, and nothing is sent or fetched twice."""
    monkeypatch.setattr(s3_upload, "PART", P)
    monkeypatch.setattr(files, "PART", P)
    contents = {
        "a.csv": b"one",
        "empty": b"",
        "deep/er/ü ?#%&+.nc": b"three",
        "big.bin": os.urandom(P + 5),
    }
    sources = {name: file(tmp_path / "source" / str(n), content) for n, (name, content) in enumerate(contents.items())}
    async with provena.files(dataset, write=True) as there:
        first = await there.upload(sources)
        again = await there.upload(sources)
        listed = await there.list()
        one = await there.list(["deep"])
    assert [each.sent for each in first] == [True] * 4
    assert [each.sent for each in again] == [False] * 4
    assert {each.path: each.size for each in listed if each.path != "metadata.json"} == {
        name: len(content) for name, content in contents.items()
    }
    assert [each.path for each in one] == ["deep/er/ü ?#%&+.nc"]
    async with provena.files(dataset) as there:
        got = await there.download(tmp_path / "target")
        before = {name: os.stat(found).st_ino for name, found in got.items()}
        assert {
            name: os.stat(each).st_ino for name, each in (await there.download(tmp_path / "target")).items()
        } == before
    assert got.keys() == {*contents, "metadata.json"}
    for name, content in contents.items():
        assert (tmp_path / "target" / name).read_bytes() == content
        assert got[name].sha256 == sources[name].sha256


@pytest.fixture
def client_of(monkeypatch):
    """Returns a client of the embedded Provena, which says this of itself; None is what a real one says."""

    def made(said):
        async def ask(*_, **__):
            return said

        monkeypatch.setattr(client, "ask_embedded", ask)
        return ProvenaCredentials.from_environment(Settings()).get_client()

    return made


BAD = ["../out", "a/../../out", "/etc/out", "a\\b", "C:/out", "a//b", "./a", "line\nbreak", "\x7f"]


async def test_names_from_outside_stay_inside(provena, dataset, place, tmp_path, monkeypatch):
    """Keys that others wrote and that would leave the folder are refused before a byte is fetched; the rest is had."""
    place.put("good.txt", b"good")
    target = tmp_path / "in"
    listed = Bucket.list
    bad = []

    async def and_bad(self, prefix):
        async for each in listed(self, prefix):
            yield each
        for name in bad:  # of these keys the server for tests takes only some
            yield each._replace(key=place.prefix + name)

    async with provena.files(dataset) as there:
        monkeypatch.setattr(Bucket, "list", and_bad)
        for name in BAD:
            bad[:] = [name]
            with pytest.raises(InputError, match="may not be written to a folder"):
                await there.download(target)
        bad.clear()
        for one, other in (("a", "A"), ("b", "b/c"), ("é", "e\u0301"), ("d/x", "D")):
            place.put(one, b"1")
            place.put(other, b"2")
            with pytest.raises(InputError, match="not two files on every"):
                await there.download(target)
            place.remove(one)
            place.remove(other)
        place.put("bad\\name", b"bad")
        place.put("folder/", b"")
        assert list(tmp_path.rglob("*")) == []
        assert list(await there.download(target, ["good.txt"])) == ["good.txt"]
    async with provena.files(dataset, write=True) as there:
        for name in [*BAD, "x" * 1030, "\udcff"]:
            with pytest.raises(InputError, match="nothing was sent"):
                await there.upload({name: file(tmp_path / "f", b"f")})
        with pytest.raises(InputError, match="not two files"):
            await there.upload({"f": file(tmp_path / "f", b"f"), "F": file(tmp_path / "g", b"g")})
        with pytest.raises(InputError, match="Provena's own"):
            await there.upload({"metadata.json": file(tmp_path / "f", b"{}")})


async def test_links_in_the_target_are_not_followed(provena, dataset, place, tmp_path):
    """A folder that is a link is refused; a file that is one is replaced, and what it led to stays."""
    place.put("sub/file", b"new")
    outside = file(tmp_path / "outside" / "file", b"old")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "sub").symlink_to(tmp_path / "outside")
    (tmp_path / "two" / "sub").mkdir(parents=True)
    (tmp_path / "two" / "sub" / "file").symlink_to(outside.path)
    async with provena.files(dataset) as there:
        with pytest.raises(InputError, match="no folder of its own"):
            await there.download(tmp_path / "one", ["sub"])
        got = await there.download(tmp_path / "two", ["sub"])
    assert Path(outside.path).read_bytes() == b"old"
    assert not Path(got["sub/file"].path).is_symlink()
    assert Path(got["sub/file"].path).read_bytes() == b"new"


async def test_wrong_bytes_are_no_file(provena, dataset, place, tmp_path, monkeypatch):
    """An object that does not have the sha256 that it states leaves nothing, also not beside an older file. Where
    another client has stated none, S3's MD5 holds: equal content is not sent again, wrong content is no file.
    """
    place.put("stated", b"wrong", sha256=hashlib.sha256(b"right").hexdigest())
    place.put("not stated", b"content")
    old = file(tmp_path / "in" / "stated", b"older")
    read = StreamingChecksumBody.read
    async with provena.files(dataset, write=True) as there:
        with pytest.raises(IntegrityError, match="instead of"):
            await there.download(tmp_path / "in", ["stated"])
        [done] = await there.upload({"not stated": file(tmp_path / "a.csv", b"content")})
        assert not done.sent
        monkeypatch.setattr(StreamingChecksumBody, "read", lambda body, amount: read(body, amount).swapcase())
        with pytest.raises(IntegrityError, match="MD5"):
            await there.download(tmp_path / "in", ["not stated"])
    assert [each.name for each in (tmp_path / "in").iterdir()] == ["stated"]
    assert Path(old.path).read_bytes() == b"older"


async def test_a_download_goes_on_where_it_broke_off(provena, dataset, place, tmp_path, monkeypatch):
    """After a broken connection only the rest is asked for; a file that was replaced meanwhile is none."""
    content = os.urandom(5 * 1024 * 1024)
    read, asked = StreamingBody.read, []

    def breaking(body, amount):
        asked.append(body)
        if len(asked) in (3, 5):
            raise ReadTimeoutError(endpoint_url="s3")
        return read(body, amount)

    async with provena.files(dataset, write=True) as there:
        await there.upload({"big": file(tmp_path / "big", content)})
        monkeypatch.setattr(StreamingBody, "read", breaking)
        got = await there.download(tmp_path / "in", ["big"])
        assert Path(got["big"].path).read_bytes() == content
        assert len({id(body) for body in asked}) == 3

        def replaced(body, amount):
            place.put("big", b"other")
            raise ReadTimeoutError(endpoint_url="s3")

        Path(got["big"].path).unlink()
        monkeypatch.setattr(StreamingBody, "read", replaced)
        with pytest.raises(IntegrityError, match="replaced or removed"):
            await there.download(tmp_path / "in", ["big"])
    assert list((tmp_path / "in").iterdir()) == []


async def test_an_upload_in_parts_goes_on(provena, dataset, place, tmp_path, monkeypatch):
    """Parts that a call sent before it lost S3 are not sent again; those of other content stay, or are removed."""
    content = os.urandom(2 * P + 5)
    big = file(tmp_path / "big", content)
    monkeypatch.setattr(s3_upload, "PART", P)
    monkeypatch.setattr(files, "PART", P)
    sent = []
    ask = Bucket.ask

    async def counted(self, operation, **arguments):
        if operation == "upload_part":
            if arguments["PartNumber"] == 3 and not sent.count(3):
                sent.append(3)
                raise UnreachableError("lost")
            sent.append(arguments["PartNumber"])
        return await ask(self, operation, **arguments)

    monkeypatch.setattr(Bucket, "ask", counted)
    async with provena.files(dataset, write=True) as there:
        with pytest.raises(UnreachableError):
            await there.upload({"big": big})
        [begun] = place.unfinished("big")
        had = place.parts("big", begun)
        assert not place.has("big")
        monkeypatch.setattr(s3_upload, "STALE", timedelta(days=36_500))  # the server tells one date of all
        sent[:] = [3]
        other = file(tmp_path / "other", os.urandom(P + 5))
        await there.upload({"big": other})
        assert place.unfinished("big") == [begun]
        sent[:] = [3]
        await there.upload({"big": big})
        assert sorted([*had, *sent[1:]]) == [1, 2, 3]
        assert had and place.unfinished("big") == []
        got = await there.download(tmp_path / "in", ["big"])
        assert Path(got["big"].path).read_bytes() == content

        stale = place.client.create_multipart_upload(Bucket=place.bucket, Key=place.prefix + "big")["UploadId"]
        monkeypatch.setattr(s3_upload, "STALE", timedelta(seconds=-1))
        assert place.unfinished("big") == [stale]
        await there.upload({"big": other})
        assert place.unfinished("big") == []


async def test_of_a_file_that_changes_nothing_is_left(provena, dataset, place, tmp_path, monkeypatch):
    """In one piece and in parts: neither an object nor parts of one, and the older object stays."""
    monkeypatch.setattr(s3_upload, "PART", P)
    async with provena.files(dataset, write=True) as there:
        for size in (10, P + 5):
            big = file(tmp_path / "big", os.urandom(size))
            (tmp_path / "big").write_bytes(os.urandom(size))
            with pytest.raises(SourceChangedError):
                await there.upload({"big": big})
            assert not place.has("big")
            assert place.unfinished("big") == []


async def test_a_beginning_that_both_share_is_no_wrong_object(provena, dataset, place, tmp_path, monkeypatch):
    """An unfinished upload of another file with the same first parts does not lend its sha256 to this one."""
    monkeypatch.setattr(s3_upload, "PART", P)
    monkeypatch.setattr(files, "PART", P)
    short = os.urandom(2 * P)
    whole = file(tmp_path / "long", short + b"more")
    ask = Bucket.ask

    async def failing(self, operation, **arguments):
        if arguments.get("PartNumber") == 3:
            raise UnreachableError("lost")
        return await ask(self, operation, **arguments)

    async with provena.files(dataset, write=True) as there:
        monkeypatch.setattr(Bucket, "ask", failing)
        with pytest.raises(UnreachableError):
            await there.upload({"big": whole})
        assert len(place.parts("big", *place.unfinished("big"))) == 2
        monkeypatch.setattr(Bucket, "ask", ask)
        (tmp_path / "long").write_bytes(short)
        await there.upload({"big": file(tmp_path / "long", short + b"less")})
        got = await there.download(tmp_path / "in", ["big"])
    assert Path(got["big"].path).read_bytes() == short + b"less"


KILLED = """
import asyncio, hashlib, os, signal, sys
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.handles import LocalFile
from ivcap_flows.provena import s3_upload
from ivcap_flows.provena.s3 import Bucket
from ivcap_flows.settings import Settings

dataset, path = sys.argv[1:]
s3_upload.PART = 5 * 1024 * 1024
ask, left = Bucket.ask, [2]

async def killing(self, operation, **arguments):
    if operation == "upload_part":
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return await ask(self, operation, **arguments)

Bucket.ask = killing

async def main():
    content = open(path, "rb").read()
    file = LocalFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    async with ProvenaCredentials.from_environment(Settings()).get_client() as client:
        async with client.files(dataset, write=True) as there:
            await there.upload({"big": file})

asyncio.run(main())
"""


@pytest.mark.long
async def test_after_a_kill_the_next_call_completes(provena, dataset, place, tmp_path, monkeypatch):
    """A process killed between its parts leaves no object; the next call completes it."""
    big = file(tmp_path / "big", os.urandom(2 * P + 5))
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, dataset, big.path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not place.has("big")
    assert len(place.unfinished("big")) == 1
    monkeypatch.setattr(s3_upload, "PART", P)
    async with provena.files(dataset, write=True) as there:
        [done] = await there.upload({"big": big})
        got = await there.download(tmp_path / "in", ["big"])
    assert done.sent
    assert got["big"].sha256 == big.sha256
    assert place.unfinished("big") == []


async def test_keys_are_renewed_and_shown_nowhere(provena, dataset, place, tmp_path, monkeypatch, caplog):
    """Before they expire, and when S3 calls them expired before; no log at any level, error or repr holds them."""
    asked, secrets = [], []
    give = DataStoreApi.write_credentials

    async def short(self, id, **options):  # noqa: A002
        keys = await give(self, id, **options)
        token = f"session-token-{uuid.uuid4()}"
        asked.append(token)
        secrets.extend([token, f"secret-{token}"])
        return keys.model_copy(
            update={
                "aws_session_token": SecretStr(token),
                "aws_secret_access_key": SecretStr(f"secret-{token}"),
                "expiry": datetime.now(timezone.utc) + timedelta(seconds=life),
            }
        )

    monkeypatch.setattr(DataStoreApi, "write_credentials", short)
    answer, refused = Endpoint.make_request, []

    def expiring(self, operation, request):
        if operation.name == "PutObject" and not refused:
            refused.append(operation)
            words = {"Code": "ExpiredToken", "Message": "The provided token has expired.", "Sent": asked[-1]}
            return SimpleNamespace(status_code=400), {"Error": words, "ResponseMetadata": {"HTTPStatusCode": 400}}
        return answer(self, operation, request)

    caplog.set_level(logging.DEBUG)
    life = 0.01
    async with provena.files(dataset, write=True) as there:
        await asyncio.sleep(0.01)
        await there.list()
        assert len(asked) > 1
    life, asked[:] = 28_800, []
    async with provena.files(dataset, write=True) as there:
        monkeypatch.setattr(Endpoint, "make_request", expiring)
        await there.upload({"a": file(tmp_path / "a", b"a")})
        assert len(asked) == 2
        with pytest.raises(NotFoundError) as caught:
            await there._bucket.ask("get_object", Key="nothing")
        shown = repr(there) + repr(there._bucket) + repr(caught.value) + "".join(format_exception(caught.value))
    assert place.has("a")
    assert "provena" in caplog.text
    assert not [secret for secret in secrets if secret in caplog.text + shown]


async def test_the_users_own_aws_settings_are_not_used(provena, dataset, client_of, monkeypatch):
    """A profile that is not there, keys and a proxy of other accounts in the environment change nothing. The embedded
    Provena tells where its own server is; what it says beside the keys, or AWS's variables, counts nothing.
    """
    give = DataStoreApi.read_credentials

    async def elsewhere(self, id, **options):  # noqa: A002
        return (await give(self, id, **options)).model_copy(update={"endpoint_url": "http://192.0.2.1:9000"})

    monkeypatch.setattr(DataStoreApi, "read_credentials", elsewhere)
    for name, value in (
        ("AWS_PROFILE", "missing"),
        ("AWS_ACCESS_KEY_ID", "other"),
        ("AWS_SECRET_ACCESS_KEY", "other"),
        ("AWS_ENDPOINT_URL_S3", "http://192.0.2.2:9000"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ):
        monkeypatch.setenv(name, value)
    async with provena.files(dataset) as there:
        assert [each.path for each in await there.list()] == ["metadata.json"]
        assert there._bucket._open.client._request_signer._credentials.access_key != "other"
    with pytest.raises(ConfigurationError, match="--s3-endpoint"):
        async with client_of(Embedded(f"{EMBEDDED}no-s3", 1.0)) as other, other.files(dataset):
            pass
    async with client_of(None) as real:
        assert await real._s3_endpoint() == "http://192.0.2.2:9000"
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
        assert await real._s3_endpoint() is None


async def test_what_cannot_be_reached_is_told(provena, dataset, client_of, monkeypatch):
    """By errors of this package: of S3 that refuses, and of one that is gone, where a retry may help; of a locked
    dataset, before anything is asked of S3; and without the extra, with its name and how to install it.
    """
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    async with provena.files(dataset) as there:
        with pytest.raises(NotFoundError) as caught:
            await there._bucket.ask("list_parts", Key="a", UploadId="none")
        assert caught.value.code == "NoSuchUpload"
        assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    await provena.registry.locks.lock("DATASET", dataset, reason="test")
    with pytest.raises(NotAuthorizedError) as refused:
        async with provena.files(dataset, write=True):
            pass
    assert refused.value.about == "item"
    nowhere = Embedded(f"{EMBEDDED}gone-s3", 1.0, s3="http://127.0.0.1:9")
    async with client_of(nowhere) as other, other.files(dataset) as there:
        with pytest.raises(UnreachableError):
            await there.list()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'ivcap-flows[s3]'")):
        async with provena.files(dataset):
            pass


def test_memory_for_parts_is_bounded():
    """More than the room is never taken at once; a part larger than all of it is alone."""

    async def moves():
        room, most, held = s3_upload.MemoryLimit(10), [0], [0]

        async def part(size):
            async with room.of(size):
                held[0] += size
                most[0] = max(most[0], held[0])
                await asyncio.sleep(0)
                held[0] -= size

        await asyncio.gather(*(part(size) for size in (4, 4, 4, 10, 1, 25, 3)))
        return most[0]

    assert asyncio.run(moves()) == 25


def test_what_writes_to_s3_is_declared():
    """The table of writes has each operation of the upload that changes something, and no other."""
    asked = re.findall(r'bucket\.ask\(\s*"(\w+)"', Path(s3_upload.__file__).read_text(encoding="utf-8"))
    page = Path(__file__).parents[2] / "docs" / "reference" / "writes.md"
    told = re.findall(
        r"^\| provena \| `DatasetFiles\.upload` \| `(\w+)` \| idempotent ", page.read_text(encoding="utf-8"), re.M
    )
    assert set(told) == {name for name in asked if not name.startswith(("head_", "list_", "get_"))}
