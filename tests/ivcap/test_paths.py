"""A path that no file can have is an InputError that names it, wherever a file is read or written."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.capture import files
from ivcap_flows.errors import InputError
from ivcap_flows.file_state import FileState
from ivcap_flows.http import download
from ivcap_flows.ivcap import archive
from ivcap_flows.ivcap.side_car import read_side_car, write_side_car
from ivcap_flows.tasks.folders import files_in


async def nothing() -> AsyncIterator[tuple[int, bytes]]:
    yield 0, b""


WAYS: dict[str, Callable[[Path], Any]] = {
    "its state": FileState.of,
    "its digest": lambda path: files.file_at(path, None),
    "what is there": files.state_at,
    "a folder's files": lambda path: list(files_in(path, path)),
    "an archive": lambda path: list(archive.pack(path)),
    "its side-car": read_side_car,
    "a new side-car": lambda path: write_side_car(path, "urn:ivcap:artifact:1"),
    "a new file": lambda path: loop.run(download.save(b"x", path)),
    "a download": lambda path: loop.run(download.store(nothing(), path, urn="urn:x:1")),
    "an unpacked archive": lambda path: archive.unpack(BytesIO(), path),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "loop/a", "n" * 300])
def test_a_path_that_no_file_can_have_is_named(tmp_path: Path, way: str, name: str) -> None:
    """With a NUL, half a surrogate pair, a link that leads to itself, and more characters than a name can have."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError) as caught:
        WAYS[way](tmp_path / name)
    assert str(tmp_path / name) in caught.value.message
    assert os.listdir(tmp_path) == ["loop"]


def test_a_link_to_itself_in_a_folder_is_named(tmp_path: Path) -> None:
    """It is no file to upload; a tar archive keeps it as the link that it is."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"/loop cannot be read: Too many levels of symbolic links"):
        list(files_in(tmp_path, tmp_path))
    archive.unpack(BytesIO(b"".join(archive.pack(tmp_path))), tmp_path / "back")
    assert os.readlink(tmp_path / "back" / "loop") == "loop"
