"""Folders as archives: the same bytes each time, and nothing that ever leaves the folder."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import resource
import shutil
import subprocess
import tarfile
import tracemalloc
from contextlib import contextmanager

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


def link(name, target):
    return member(name, kind=tarfile.SYMTYPE, link=target)


def hard(name, target):
    return member(name, kind=tarfile.LNKTYPE, link=target)


def tar(*members):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as out:
        for info, content in members:
            out.addfile(info, io.BytesIO(content))
    return made.getvalue()


def xz(content):
    return lzma.compress(content, preset=0)


def packed(folder):
    return b"".join(pack(folder))


@contextmanager
def in_memory(most):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files, folders, an empty one, long and odd names, one that is no UTF-8, links within. It is only read."""
    root = tmp_path_factory.mktemp("of_archive") / "folder"
    (root / "a" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a" / "data.bin").write_bytes(os.urandom(1_100_000))
    (root / "a" / "deep" / ("n" * 200)).write_bytes(b"long name")
    (root / "Niño 1+2.csv").write_bytes(b"x,y\n")
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    (root / "none").touch()
    script = root / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (root / "a" / "up").symlink_to("../run.sh")
    (root / "down").symlink_to("a/deep")
    return root


@pytest.fixture(scope="module")
def archive(folder):
    return packed(folder)


def in_parts(content):
    """As parallel compressors write it, with zeros behind the last part as padding."""
    return gzip.compress(content[:500_001]) + gzip.compress(content[500_001:]) + bytes(512)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, xz, in_parts])
def test_a_folder_goes_there_and_back(folder, archive, tmp_path, compress):
    back = unpack(io.BytesIO(compress(archive)), tmp_path / "back")
    assert back == tmp_path / "back"
    assert tree(back) == tree(folder)


def test_equal_contents_give_equal_bytes(folder, archive, tmp_path):
    """Times, owners and umask are not in the archive, and its members are sorted."""
    copy = shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    for path in copy.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
            os.utime(path, (1, 1))
    assert packed(copy) == archive
    (copy / "none").write_bytes(b"now there is something")
    assert packed(copy) != archive


def test_the_archive_is_one_for_other_tools(folder, archive, tmp_path):
    """Python's tarfile and the system's tar read it."""
    (tmp_path / "made.tar").write_bytes(archive)
    (tmp_path / "out").mkdir()
    with tarfile.open(tmp_path / "made.tar") as opened:
        assert opened.getnames() == list(tree(folder))
    subprocess.run(["tar", "-xf", tmp_path / "made.tar", "-C", tmp_path / "out"], check=True)
    assert tree(tmp_path / "out") == tree(folder)


def test_what_cannot_be_packed_is_named(tmp_path):
    """A missing folder, a pipe, and a link that may lead out: it is neither followed nor dropped in silence."""
    root = tmp_path / "folder"
    with pytest.raises(InputError, match="is no folder"):
        packed(root)
    root.mkdir()
    for target in ("/etc/passwd", "../outside", "a/../../outside", "a/.."):
        (root / "out").symlink_to(target)
        with pytest.raises(InputError, match="lead out of the folder"):
            packed(root)
        (root / "out").unlink()
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match="pipe is neither a file"):
        packed(root)


CHANGES = {
    "grows": lambda path: path.write_bytes(bytes(2_000_000)),
    "shrinks": lambda path: os.truncate(path, 1_060_000),
    "is touched": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_packed_is_noticed(folder, tmp_path, change):
    """The archive breaks off rather than hold a mixture."""
    shutil.copytree(folder / "a", tmp_path / "a", symlinks=True)
    blocks = pack(tmp_path)
    while len(next(blocks)) != 2**20:
        pass
    CHANGES[change](tmp_path / "a" / "data.bin")
    with pytest.raises(SourceChangedError, match=r"data\.bin changed"):
        list(blocks)


def longer_than_a_path():
    """Links whose real path no system call takes, so that `tarfile` cannot see where they lead (CVE-2025-4517)."""
    folder, steps = "d" * 247, "abcdefghijklmnop"
    for at, step in enumerate(steps):
        yield member("/".join([folder] * (at + 1)), kind=tarfile.DIRTYPE)
        yield link("/".join([folder] * at + [step]), folder)
    far = "/".join([*steps, "l" * 254])
    yield link(far, "../" * len(steps))
    yield link("escape", f"{far}/../evil")
    yield hard("evil", "escape/evil")
    yield member("evil", b"x")


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
    "links longer than a path": list(longer_than_a_path()),
}


@pytest.mark.parametrize("case", EVIL)
def test_a_hostile_member_leaves_nothing(tmp_path, case):
    """Not in the folder, not beside it, not above it."""
    work = tmp_path / "work"
    work.mkdir()
    content = tar(member("first", b"harmless"), *EVIL[case])
    with pytest.raises(InputError, match="nothing was unpacked|cannot be unpacked"):
        unpack(io.BytesIO(content), work / "out")
    assert list(tmp_path.rglob("*")) == [work]


def test_what_an_archive_may_say_is_unpacked(tmp_path):
    """Links down and up within the folder, hard links to files before, and files that `tar -r` appended again. Its
    modes are not believed: no set-user-id, nothing writable by all, nothing that its owner cannot read."""
    content = tar(
        member("./", kind=tarfile.DIRTYPE),
        member("./a/f", b"1", mode=0),
        link("./a/b/up", "../../a/f"),
        link("dangling", "a/nothing"),
        hard("h", "a/f"),
        member("a/f", b"second", mode=0o7777),
        member("d/", kind=tarfile.DIRTYPE, mode=0),
    )
    out = unpack(io.BytesIO(content), tmp_path / "out")
    assert tree(out) == {
        "a": ("folder",),
        "a/b": ("folder",),
        "a/b/up": ("link", "../../a/f"),
        "a/f": ("file", b"second", True),
        "d": ("folder",),
        "dangling": ("link", "a/nothing"),
        "h": ("file", b"1", False),
    }
    mask = os.umask(0)
    os.umask(mask)
    modes = [path.stat().st_mode & 0o7777 for path in (out, out / "d", out / "a/f", out / "h")]
    assert modes == [mode & ~mask for mode in (0o777, 0o777, 0o777, 0o666)]


def odd_header():
    """tarfile itself fails on it with an error of Python's own."""
    info = tarfile.TarInfo("f")
    info.pax_headers = {"GNU.sparse.realsize": "x"}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def chain():
    """Headers that each announce another one."""
    info = tarfile.TarInfo("g")
    info.type, info.size = tarfile.XGLTYPE, 512
    return (info.tobuf() + b"11 a=bcdef\n".ljust(512, b"\0")) * 200


TWO = tar(member("a", b"12345"), member("b", b"67890"))


@pytest.mark.parametrize(
    ("content", "limits", "said"),
    [
        (TWO, {"max_size": 9}, "more than 9 bytes"),
        (TWO, {"max_members": 1}, "more than 1 members"),
        (tar(member("d/" * 30 + "f", b"x")), {"max_members": 20}, "more than 20 members"),
        (chain(), {"max_members": 10}, "headers are too many"),
        (odd_header(), {}, "cannot be unpacked"),
        (b"no archive at all" * 100, {}, "cannot be unpacked"),
        (b"\x1f\x8bgarbage" * 100, {}, "cannot be unpacked"),
        (b"BZhgarbage" * 100, {}, "cannot be unpacked"),
    ],
    ids=["size", "members", "folders of names", "chain of headers", "odd header", "text", "no gzip", "no bzip2"],
)
def test_what_is_too_much_or_no_archive_leaves_nothing(tmp_path, content, limits, said):
    with pytest.raises(InputError, match=said):
        unpack(io.BytesIO(content), tmp_path / "out", **limits)
    assert list(tmp_path.iterdir()) == []


def test_limits_may_be_reached(tmp_path):
    assert len(tree(unpack(io.BytesIO(TWO), tmp_path / "out", max_size=10, max_members=2))) == 2


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, xz])
def test_an_archive_that_ends_early_leaves_nothing(archive, tmp_path, compress):
    content = compress(archive)
    for cut in (0.1, 0.5, 0.9):
        with pytest.raises(InputError, match="cannot be unpacked"):
            unpack(io.BytesIO(content[: int(len(content) * cut)]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


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
    with in_memory(16 << 20):
        with pytest.raises(InputError, match="more than 1000 bytes"):
            unpack(io.BytesIO(bomb), tmp_path / "out", max_size=1000)
        with pytest.raises(InputError, match="headers are too many or too long"):
            unpack(io.BytesIO(named), tmp_path / "out")
        inflating = inflated(io.BytesIO(bare), 20 << 20)
        with pytest.raises(InputError, match="larger than allowed"):
            while inflating.read(1 << 20):
                pass
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
    with in_memory(8 << 20), pytest.raises(InputError, match="sparse"):
        unpack(io.BytesIO(bomb), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_mixed_with(archive, folder, tmp_path):
    """One with something in it, a file, a link: refused; an empty one is replaced."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(folder)
    before = tree(tmp_path)
    for taken in ("taken", "file", "link"):
        with pytest.raises(InputError, match="exists"):
            unpack(io.BytesIO(archive), tmp_path / taken)
        assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert tree(unpack(io.BytesIO(archive), tmp_path / "empty")) == tree(folder)
    with pytest.raises(InputError, match="Choose a folder that exists"):
        unpack(io.BytesIO(archive), tmp_path / "no" / "where")


def test_what_is_unpacked_already_stays(archive, folder, tmp_path):
    """A flow that goes on unpacks again: the folder is left as it is. One that differs in any way is refused."""
    out = unpack(io.BytesIO(archive), tmp_path / "out")
    there = {path: path.lstat().st_ino for path in out.rglob("*")}
    assert unpack(io.BytesIO(archive), out) == out
    assert {path: path.lstat().st_ino for path in out.rglob("*")} == there
    more, none, down = out / "a" / "more", out / "none", out / "down"
    for change, undo in (
        (more.touch, more.unlink),
        (more.mkdir, more.rmdir),
        (lambda: none.write_bytes(b"1"), lambda: none.write_bytes(b"")),
        (none.unlink, none.touch),
        (lambda: (down.unlink(), down.symlink_to("a")), lambda: (down.unlink(), down.symlink_to("a/deep"))),
    ):
        change()
        before = tree(tmp_path)
        with pytest.raises(InputError, match=rf"{out} exists, with another content\. Name a folder that"):
            unpack(io.BytesIO(archive), out)
        assert tree(tmp_path) == before
        undo()
    assert unpack(io.BytesIO(archive), out) == out


def test_a_full_disk_is_a_clear_error(archive, tmp_path):
    """The process's limit for files stands for the disk's: the folder is named and nothing lies about."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ConfigurationError, match=f"no room for {tmp_path / 'out'}"):
            unpack(io.BytesIO(archive), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


async def test_an_archive_is_unpacked_as_it_arrives(archive, folder, tmp_path):
    """Blocks of any length; all are taken, also those behind the archive's end."""
    content, taken = archive + bytes(100_000), []

    async def blocks():
        for at in range(0, len(content), 70_001):
            taken.append(content[at : at + 70_001])
            yield taken[-1]

    assert tree(await unpack_stream(blocks(), tmp_path / "out")) == tree(folder)
    assert b"".join(taken) == content


async def test_a_stream_that_fails_or_is_left_leaves_nothing(archive, tmp_path):
    """The error is that of the stream, and also one behind the last member counts. Cancelling ends the thread."""
    held = asyncio.Event()

    async def failing(end):
        yield archive[:end]
        raise ConfigurationError("the line is cut")

    async def waiting():
        yield archive[:300_000]
        held.set()
        await asyncio.Event().wait()

    for end in (300_000, len(archive)):
        with pytest.raises(ConfigurationError, match="line is cut"):
            await unpack_stream(failing(end), tmp_path / "out")
    task = asyncio.create_task(unpack_stream(waiting(), tmp_path / "out"))
    await asyncio.wait_for(held.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_memory_does_not_grow_with_the_members(tmp_path):
    content = tar(*[member("folder/", kind=tarfile.DIRTYPE)] * 2000)
    with in_memory(800_000):
        unpack(io.BytesIO(content), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:unclosed file")
def test_memory_does_not_grow_with_the_archive(tmp_path):
    """A file of 32 MiB is packed and unpacked in less than 8 MiB."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "big").touch()
    os.truncate(tmp_path / "folder" / "big", 32 << 20)
    with in_memory(8 << 20), (tmp_path / "made.tar").open("w+b") as made:
        made.writelines(pack(tmp_path / "folder"))
        made.seek(0)
        unpack(made, tmp_path / "out")
    assert (tmp_path / "out" / "big").stat().st_size == 32 << 20
