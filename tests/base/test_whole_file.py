"""A private file: whole and on disk under its name, or not there."""

import os
import stat
from pathlib import Path

import pytest

from ivcap_flows.whole_file import write_private


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("old")
    path.chmod(0o644)
    return path


def test_text_and_name_are_on_disk(target, monkeypatch):
    """The text before it gets its name, the name before the call returns. Only its owner can read it."""
    steps, fsync, replace = [], os.fsync, os.replace

    def syncing(descriptor):
        steps.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def naming(source, to):
        steps.append(("name", Path(to)))
        replace(source, to)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", naming)
    write_private(target, "new")
    assert [verb for verb, _ in steps] == ["sync", "name", "sync"]
    assert steps[0][1].parent == target.parent and [path for _, path in steps[1:]] == [target, target.parent]
    assert target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_what_was_there(target, monkeypatch, step):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="no space left"):
        write_private(target, "new")
    assert list(target.parent.iterdir()) == [target] and target.read_text() == "old"


def test_a_folder_that_may_not_be_read_gets_the_file(target, monkeypatch):
    """Its names cannot be synced then."""
    opened = os.open

    def refuse(path, flags, *rest, **named):
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    write_private(target, "new")
    assert target.read_text() == "new"
