"""Files of datasets through the client, on a real S3 server."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ivcap_flows.handles import LocalFile


def file(path: Path, content: bytes) -> LocalFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return LocalFile(path=str(path), sha256=hashlib.sha256(content).hexdigest(), size=len(content))


async def test_what_is_uploaded_is_downloaded(provena, dataset, tmp_path):
    """Small, empty, in parts, in folders and under odd names: byte for byte, and nothing is sent or fetched twice."""
    contents = {
        "a.csv": b"one",
        "empty": b"",
        "deep/er/ü ?#%&+.nc": b"three",
        "big.bin": os.urandom(20 * 1024 * 1024 + 5),
    }
    files = {name: file(tmp_path / "source" / str(n), content) for n, (name, content) in enumerate(contents.items())}
    async with provena.files(dataset, write=True) as there:
        first = await there.upload(files)
        again = await there.upload(files)
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
        assert got[name].sha256 == files[name].sha256
