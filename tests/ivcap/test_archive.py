"""Folders as archives: the same bytes each time, and nothing that ever leaves the folder."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc

import pytest

from ivcap_flows.errors import ConfigurationError, InputError, SourceChangedError
from ivcap_flows.ivcap.archive import pack, unpack, unpack_stream
from ivcap_flows.ivcap.inflate import inflated


def tree(folder):
    """Everything in a folder: content and being executable of files, targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder",)
        else:
            found[name] = ("file", path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def member(name, content=b"", *, kind=tarfile.REGTYPE, link="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(content), link, mode
    return info, content


def tar(*members):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as out:
        for info, content in members:
            out.addfile(info, io.BytesIO(content))
    return made.getvalue()


def link(name, target):
    return member(name, kind=tarfile.SYMTYPE, link=target)


def xz(content):
    return lzma.compress(content, preset=0)


def hard(name, target):
    return member(name, kind=tarfile.LNKTYPE, link=target)


@pytest.fixture
def folder(tmp_path):
    """Files, folders, an empty one, long and odd names, links within."""
    root = tmp_path / "folder"
    (root / "a" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a" / "data.bin").write_bytes(os.urandom(1_100_000))
    (root / "a" / "deep" / ("n" * 200)).write_bytes(b"long name")
    (root / "Niño 1+2.csv").write_bytes(b"x,y\n")
    (root / "none").touch()
    script = root / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (root / "a" / "up").symlink_to("../run.sh")
    (root / "down").symlink_to("a/deep")
    return root


def packed(folder):
    return b"".join(pack(folder))


def test_a_folder_goes_there_and_back(folder, tmp_path):
    """Contents, names, empty folders, links and executables."""
    there = unpack(io.BytesIO(packed(folder)), tmp_path / "back")
    assert there == tmp_path / "back"
    assert tree(there) == tree(folder)


def test_equal_contents_give_equal_bytes(folder, tmp_path):
    """Times, owners, umask and the order in which files were made are not in the archive."""
    before = packed(folder)
    copy = tmp_path / "copy"
    names = [path.relative_to(folder) for path in folder.rglob("*")]
    random.Random(1).shuffle(names)
    for name in names:
        source, target = folder / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(source.read_bytes())
            target.chmod(0o700 if source.stat().st_mode & 0o100 else 0o600)
            os.utime(target, (1, 1))
    assert packed(copy) == before
    (copy / "none").write_bytes(b"now there is something")
    assert packed(copy) != before


def test_the_archive_is_one_for_other_tools(folder, tmp_path):
    """Python's tarfile and the system's tar read it."""
    made = tmp_path / "made.tar"
    made.write_bytes(packed(folder))
    with tarfile.open(made) as opened:
        assert sorted(opened.getnames()) == sorted(tree(folder))
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", made, "-C", tmp_path / "out"], check=True)
    assert tree(tmp_path / "out") == tree(folder)


def test_a_header_with_odd_numbers_is_an_error_of_the_input(tmp_path):
    """tarfile itself fails on it with an error of Python's own."""
    info = tarfile.TarInfo("f")
    info.pax_headers = {"GNU.sparse.realsize": "x"}
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(io.BytesIO(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)), tmp_path / "out")


def test_a_name_that_is_no_utf8_survives(tmp_path):
    """Linux allows any bytes in a name."""
    root = tmp_path / "folder"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    back = unpack(io.BytesIO(packed(root)), tmp_path / "back")
    assert os.listdir(os.fsencode(back)) == [b"caf\xe9"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside", "a/.."])
def test_a_link_that_may_lead_out_is_not_packed(tmp_path, target):
    """Its content is not taken along, and it is not dropped in silence."""
    root = tmp_path / "folder"
    root.mkdir()
    (root / "out").symlink_to(target)
    with pytest.raises(InputError, match="lead out of the folder"):
        packed(root)


def test_what_cannot_be_packed_is_named(tmp_path):
    """A pipe, a missing folder, a file that may not be read."""
    root = tmp_path / "folder"
    with pytest.raises(InputError, match="is no folder"):
        packed(root)
    root.mkdir()
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match="pipe is neither a file"):
        packed(root)


@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_file_that_changes_while_it_is_packed_is_noticed(folder, change):
    """The archive breaks off rather than hold a mixture."""
    victim = folder / "a" / "data.bin"
    blocks = pack(folder)
    for block in blocks:
        if len(block) == 2**20:
            break
    if change == "grow":
        victim.write_bytes(bytes(2_000_000))
    elif change == "shrink":
        os.truncate(victim, 1_060_000)
    else:
        os.utime(victim, (1, 1))
    with pytest.raises(SourceChangedError, match=r"data\.bin changed"):
        for _ in blocks:
            pass


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, xz])
def test_compressed_archives_are_known_by_their_first_bytes(folder, tmp_path, compress):
    """.tar, .tar.gz, .tar.bz2, .tar.xz."""
    assert tree(unpack(io.BytesIO(compress(packed(folder))), tmp_path / "back")) == tree(folder)


def test_compressed_parts_behind_one_another_are_one(folder, tmp_path):
    """As parallel compressors write them; zeros behind the last part are padding."""
    content = packed(folder)
    parts = gzip.compress(content[:500_001]) + gzip.compress(content[500_001:]) + bytes(512)
    assert tree(unpack(io.BytesIO(parts), tmp_path / "back")) == tree(folder)


EVIL = {
    "absolute": [member("/tmp/evil", b"x")],
    "up": [member("../evil", b"x")],
    "up inside": [member("a/../../evil", b"x")],
    "link absolute": [link("l", "/etc")],
    "link up": [link("a/l", "../../evil")],
    "link by a link": [link("d/l", ".."), link("x", "d/l/../.."), member("x/evil", b"x")],
    "through a link": [link("d", "."), member("d/evil", b"x")],
    "through a link to a folder": [member("real", kind=tarfile.DIRTYPE), link("d", "real"), member("d/evil", b"x")],
    "over a link": [link("f", "g"), member("f", b"x")],
    "folder over a link": [link("f", "g"), member("f", kind=tarfile.DIRTYPE)],
    "link over a file": [member("f", b"x"), link("f", "g")],
    "link over a folder": [member("f/g", b"x"), link("f", "g")],
    "file over a folder": [member("f/g", b"x"), member("f", b"x")],
    "below a file": [member("f", b"x"), member("f/g", b"x")],
    "hard link out": [hard("h", "/etc/passwd")],
    "hard link up": [hard("h", "../../etc/passwd")],
    "hard link to a link": [link("l", "f"), hard("h", "l")],
    "hard link to nothing": [hard("h", "later"), member("later", b"x")],
    "pipe": [member("p", kind=tarfile.FIFOTYPE)],
    "device": [member("d", kind=tarfile.CHRTYPE)],
    "block device": [member("d", kind=tarfile.BLKTYPE)],
    "empty link": [link("l", "")],
    "too deep": [member("d/" * 200 + "f", b"x")],
}


@pytest.mark.parametrize("case", EVIL)
@pytest.mark.parametrize("python", ["with", "without"])
def test_a_hostile_member_leaves_nothing(tmp_path, monkeypatch, case, python):
    """Not in the folder, not beside it, not above it; whether this Python filters archives or not."""
    if python == "without":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    content = tar(member("first", b"harmless"), *EVIL[case])
    with pytest.raises(InputError, match="nothing was unpacked|cannot be unpacked"):
        unpack(io.BytesIO(content), work / "out")
    assert list(tmp_path.rglob("*")) == [work]


def test_harmless_links_and_later_versions_are_unpacked(tmp_path):
    """Links down and up within the folder, hard links to files before, and files that `tar -r` appended again."""
    content = tar(
        member("./", kind=tarfile.DIRTYPE),
        member("./a/f", b"1"),
        link("./a/b/up", "../../a/f"),
        link("dangling", "a/nothing"),
        hard("h", "a/f"),
        member("a/f", b"second"),
    )
    out = unpack(io.BytesIO(content), tmp_path / "out")
    assert tree(out) == {
        "a": ("folder",),
        "a/b": ("folder",),
        "a/b/up": ("link", "../../a/f"),
        "a/f": ("file", b"second", False),
        "dangling": ("link", "a/nothing"),
        "h": ("file", b"1", False),
    }


def test_modes_of_an_archive_are_not_believed(tmp_path):
    """No set-user-id, nothing writable by all, nothing that its owner cannot read."""
    content = tar(member("a", b"1", mode=0o7777), member("b", b"2", mode=0), member("d/", kind=tarfile.DIRTYPE, mode=0))
    out = unpack(io.BytesIO(content), tmp_path / "out")
    mask = os.umask(0)
    os.umask(mask)
    assert {path.name: path.stat().st_mode & 0o7777 for path in out.iterdir()} == {
        "a": 0o777 & ~mask,
        "b": 0o666 & ~mask,
        "d": 0o777 & ~mask,
    }
    assert out.stat().st_mode & 0o777 == 0o777 & ~mask


def test_size_and_members_are_bounded(tmp_path):
    """One byte or one member more than allowed, and nothing is unpacked."""
    content = tar(member("a", b"12345"), member("b", b"67890"))
    for limits in ({"max_size": 9}, {"max_members": 1}):
        with pytest.raises(InputError, match="more than"):
            unpack(io.BytesIO(content), tmp_path / "out", **limits)
    assert list(tmp_path.iterdir()) == []
    unpack(io.BytesIO(content), tmp_path / "out", max_size=10, max_members=2)
    with pytest.raises(InputError, match="more than 20 members"):
        unpack(io.BytesIO(tar(member("d/" * 30 + "f", b"x"))), tmp_path / "deep", max_members=20)


@pytest.mark.parametrize(
    "compress", [gzip.compress, *(pytest.param(each, marks=pytest.mark.long) for each in (bz2.compress, xz))]
)
def test_a_bomb_is_not_inflated(tmp_path, compress):
    """24 MiB of zeros in a few bytes: refused by its header, or by what it inflates to where no header tells."""
    zeros = bytes(24 << 20)
    name = tarfile.TarInfo("name")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, len(zeros)
    bomb, named, bare = compress(tar(member("zeros", zeros))), compress(name.tobuf() + zeros), compress(zeros)
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than 1000 bytes"):
            unpack(io.BytesIO(bomb), tmp_path / "out", max_size=1000)
        with pytest.raises(InputError, match="headers are too many or too long"):
            unpack(io.BytesIO(named), tmp_path / "out")
        inflating = inflated(io.BytesIO(bare), 20 << 20)
        with pytest.raises(InputError, match="larger than allowed"):
            while inflating.read(1 << 20):
                pass
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


def old_sparse(blocks):
    """A sparse file of GNU tar's first form: four holes in its header, and blocks of 21 more."""
    info = tarfile.TarInfo("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    hole = 2 * b"00000000001\0"
    head[386:482], head[482:495], head[148:156] = 4 * hole, b"\x0100000000100\0"[:13], 8 * b" "
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + blocks * (21 * hole + b"\1".ljust(8, b"\0")) + bytes(1024)


def new_sparse(blocks):
    """One of the form that pax archives have: the map is text before the content."""
    info = tarfile.TarInfo("sparse")
    lines = b"%d\n" % (blocks << 8) + (blocks << 8) * b"1\n"
    info.size = len(lines)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}
    return info.tobuf(tarfile.PAX_FORMAT) + lines + bytes(1024)


@pytest.mark.parametrize("make", [old_sparse, new_sparse])
def test_a_map_of_holes_is_not_read(tmp_path, make):
    """A few KiB of archive that describe millions of holes are refused before these are in memory."""
    bomb = gzip.compress(make(8192))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="sparse"):
            unpack(io.BytesIO(bomb), tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


def test_headers_without_members_are_bounded(tmp_path):
    """A chain of headers that each announce another one ends."""
    info = tarfile.TarInfo("g")
    info.type, info.size = tarfile.XGLTYPE, 512
    chain = (info.tobuf() + b"11 a=bcdef\n".ljust(512, b"\0")) * 200
    with pytest.raises(InputError, match="headers are too many"):
        unpack(io.BytesIO(chain), tmp_path / "out", max_members=10)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, xz])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_an_archive_that_ends_early_leaves_nothing(folder, tmp_path, compress, cut):
    """Half an archive is none."""
    content = compress(packed(folder))
    target = tmp_path / "out"
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(io.BytesIO(content[: int(len(content) * cut)]), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


@pytest.mark.parametrize("content", [b"no archive at all" * 100, b"\x1f\x8bgarbage" * 100, b"BZhgarbage" * 100])
def test_what_is_no_archive_is_an_error_of_the_input(tmp_path, content):
    """Plain text, and what only begins like an archive."""
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(io.BytesIO(content), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_mixed_with(folder, tmp_path):
    """One with something in it, a file, a link: refused; an empty one is replaced."""
    content = packed(folder)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(folder)
    for taken in ("folder", "file", "link"):
        before = tree(tmp_path)
        with pytest.raises(InputError, match="exists"):
            unpack(io.BytesIO(content), tmp_path / taken)
        assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert tree(unpack(io.BytesIO(content), tmp_path / "empty")) == tree(folder)
    with pytest.raises(InputError, match="Choose a folder that exists"):
        unpack(io.BytesIO(content), tmp_path / "no" / "where")


LIMITED = """
import io, resource, signal, sys
from pathlib import Path
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.ivcap.archive import unpack

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    unpack(open(sys.argv[1], "rb"), sys.argv[2])
except ConfigurationError as error:
    print(error)
"""


def test_a_full_disk_is_a_clear_error(folder, tmp_path):
    """The file's size limit stands for the disk's: the folder is named and nothing lies about."""
    (tmp_path / "made.tar").write_bytes(packed(folder))
    command = [sys.executable, "-c", LIMITED, tmp_path / "made.tar", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"no room for {tmp_path / 'out'}" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "made.tar"]


async def test_an_archive_is_unpacked_as_it_arrives(folder, tmp_path):
    """Blocks of any length; all are taken, also those behind the archive's end."""
    content = packed(folder) + bytes(100_000)
    taken = []

    async def blocks():
        for at in range(0, len(content), 70_001):
            taken.append(content[at : at + 70_001])
            yield taken[-1]

    out = await unpack_stream(blocks(), tmp_path / "out")
    assert tree(out) == tree(folder)
    assert b"".join(taken) == content


async def test_an_error_of_the_stream_leaves_nothing(folder, tmp_path):
    """The error is that of the stream, and also one behind the last member counts."""
    content = packed(folder)
    for end in (300_000, len(content)):

        async def blocks(end=end):
            yield content[:end]
            raise ConfigurationError("the line is cut")

        with pytest.raises(ConfigurationError, match="line is cut"):
            await unpack_stream(blocks(), tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


async def test_cancelling_ends_the_thread_and_leaves_nothing(folder, tmp_path):
    """A stream that never goes on does not hold the process."""
    content = packed(folder)
    begun = asyncio.Event()

    async def blocks():
        yield content[:300_000]
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(unpack_stream(blocks(), tmp_path / "out"))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


@pytest.mark.long
def test_memory_does_not_grow_with_the_members(tmp_path):
    """Two thousand members are not kept."""
    content = tar(*[member("folder/", kind=tarfile.DIRTYPE)] * 2000)
    tracemalloc.start()
    try:
        unpack(io.BytesIO(content), tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 800_000
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_archive(tmp_path):
    """A file of 32 MiB is packed and unpacked in less than 8 MiB."""
    root = tmp_path / "folder"
    root.mkdir()
    with (root / "big").open("wb") as file:
        file.truncate(32 << 20)

    class Blocks(io.RawIOBase):
        def __init__(self, blocks):
            self.blocks, self.held = blocks, b""

        def readable(self):
            return True

        def readinto(self, buffer):
            self.held = self.held or next(self.blocks, b"")
            part, self.held = self.held[: len(buffer)], self.held[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)

    tracemalloc.start()
    try:
        unpack(Blocks(pack(root)), tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out" / "big").stat().st_size == 32 << 20
