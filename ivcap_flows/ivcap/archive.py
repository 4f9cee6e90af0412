"""Folders as tar archives: packed to the same bytes each time, and unpacked so that nothing leaves the folder.

An archive may come from anybody, so every member is checked here before it is created. The `data` filter of `tarfile`
(PEP 706) is not enough: it looks where links lead, and in the Pythons before June 2025 paths that are longer than a
system call takes pass it (CVE-2025-4517).
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, NoReturn, cast

from ivcap_flows.errors import InputError, SourceChangedError
from ivcap_flows.file_state import FileState, reading
from ivcap_flows.http.download import explained
from ivcap_flows.http.tus import BLOCK
from ivcap_flows.ivcap.inflate import inflated
from ivcap_flows.ivcap.side_car import side_car_of
from ivcap_flows.threads import UNPACKING

__all__ = ["MAX_MEMBERS", "MAX_SIZE", "linked_within", "members", "pack", "unpack", "unpack_stream"]

MAX_SIZE: Final = 16 * 1024**3
"""Default maximum of the bytes that an archive may unpack to."""

MAX_MEMBERS: Final = 100_000
"""Default maximum of the members that an archive may have."""

_ANOTHER: Final = "Name a folder that does not exist, or an empty one."

_MAX_DEPTH: Final = 200
"""Maximum depth of nested folders, so that removing them again needs no deep recursion."""

_MAX_NAME: Final = 64 * 1024
"""Maximum bytes of a header that only holds a name or attributes: tarfile reads these whole."""

_HEADERS_ONLY: Final = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


def pack(folder: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the tar archive of a folder's content in blocks; equal contents give equal bytes.

    Members are sorted by name and have no times and owners; of a file's mode, only the executable bit is kept. Links
    are kept as links. Raises InputError for links that leave the folder and for members that are not files, folders or
    links, and SourceChangedError for a file that changes meanwhile.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise InputError(f"{root} is no folder.", path=str(root))
    size = 0
    for path in _below(root):
        info, state = _described(path, path.relative_to(root))
        with _content(path, state) as (info.size, content):
            head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            yield head
            yield from content
        padding = -info.size % tarfile.BLOCKSIZE
        yield bytes(padding)
        size += len(head) + info.size + padding
    yield bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)


def members(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, sorted by name, without the side-cars of its files.

    They are no content: a folder is the same before and after its files were uploaded.
    """
    with reading(folder), os.scandir(folder) as found:
        entries = {entry.name: entry for entry in found}
    return [entries[name] for name in sorted(entries.keys() - {side_car_of(name).name for name in entries})]


def _below(folder: Path) -> Iterator[Path]:
    """Yield everything in a folder, sorted by name, each folder before its members."""
    for entry in members(folder):
        path = folder / entry.name
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _below(path)


def _described(path: Path, name: Path) -> tuple[tarfile.TarInfo, FileState | None]:
    info = tarfile.TarInfo(name.as_posix())
    with reading(path):
        found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, linked_within(path, PurePosixPath(info.name)), 0o777
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISREG(found.st_mode):
        info.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        return info, FileState.from_stat(found)
    else:
        raise InputError(f"{path} is neither a file nor a folder nor a link.", path=str(path))
    return info, None


def linked_within(path: Path, name: PurePosixPath) -> str:
    """Return the target of the link at `path`, whose path within the folder is `name`.

    Raises InputError if the target may be outside of the folder.
    """
    with reading(path):
        target = os.readlink(path)
    if not _stays(name, target):
        raise InputError(
            f"{path} is a link to {target}, which may lead out of the folder. Put the content in its place, or make it "
            "a link relative to where it lies.",
            path=str(path),
        )
    return target


@contextmanager
def _content(path: Path, state: FileState | None) -> Iterator[tuple[int, Iterable[bytes]]]:
    """Yield the size of a file and its blocks; without a `state`, those of a member that has no content.

    Some file systems report no size, as that of `/proc`. Such a file is read first, to know what its header must say.
    """
    if state is None or state.size:
        yield (0, ()) if state is None else (state.size, _blocks(path, state, state.size))
        return
    with tempfile.SpooledTemporaryFile(BLOCK) as copy:
        copy.writelines(_blocks(path, state, sys.maxsize))
        size = copy.tell()
        copy.seek(0)
        yield size, iter(partial(copy.read, BLOCK), b"")


def _blocks(path: Path, state: FileState, most: int) -> Iterator[bytes]:
    left = most
    with reading(path), open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
        while block := file.read(min(BLOCK, left)):
            left -= len(block)
            yield block
    if (left and state.size) or FileState.of(path) != state:
        raise SourceChangedError(f"{path} changed while it was packed. Try again when nothing writes.", path=str(path))


def _stays(name: PurePosixPath, target: str) -> bool:
    """Return whether a link at `name` surely leads to a target within the archive's folder.

    All its `..` must come first. Since they start from a real folder, they cannot pass through a link. The parts after
    them lead downwards, perhaps through links that passed the same check.
    """
    parts = PurePosixPath(target).parts
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return bool(target) and not target.startswith("/") and ".." not in parts[ups:] and ups < len(name.parts)


async def unpack_stream(
    blocks: AsyncIterator[bytes],
    folder: str | os.PathLike[str],
    *,
    max_size: int = MAX_SIZE,
    max_members: int = MAX_MEMBERS,
) -> Path:
    """Unpack an archive as it arrives, as `unpack` does. All blocks are read before the folder appears."""
    pipe = _Pipe(blocks, asyncio.get_running_loop())

    def unpacked() -> Path:
        pipe.begin()
        return unpack(cast(BinaryIO, pipe), folder, max_size=max_size, max_members=max_members)

    work = UNPACKING.begin(unpacked)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if pipe.stop():
            await asyncio.wait([work])
        else:
            # It leaves nothing behind, and may wait long for a thread.
            work.cancel()
        raise


class _Pipe(io.RawIOBase):
    """Asynchronous blocks as a file that a thread reads."""

    def __init__(self, blocks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._blocks, self._loop = blocks, loop
        self._held = memoryview(b"")
        self._waiting: Future[bytes | None] | None = None
        self._step = threading.Lock()
        self._begun = self._stopped = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = memoryview(self._next() or b"")
        count = min(len(self._held), len(buffer))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _next(self) -> bytes | None:
        self._waiting = asyncio.run_coroutine_threadsafe(_after(self._blocks), self._loop)
        if self._stopped:
            self._waiting.cancel()
        try:
            return self._waiting.result()
        except FutureCancelledError:
            raise _cancelled() from None

    def begin(self) -> None:
        """Note that there is a thread that reads. Raises InputError if the pipe was stopped before."""
        with self._step:
            if self._stopped:
                raise _cancelled()
            self._begun = True

    def stop(self) -> bool:
        """Make the thread end: cancel the block that it waits for, and any later one. Return whether it had begun."""
        with self._step:
            self._stopped = True
            begun = self._begun
        if self._waiting is not None:
            self._waiting.cancel()
        return begun


def _cancelled() -> InputError:
    return InputError("The download of the archive was cancelled.")


async def _after(blocks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(blocks, None)


def unpack(
    source: BinaryIO,
    folder: str | os.PathLike[str],
    *,
    max_size: int = MAX_SIZE,
    max_members: int = MAX_MEMBERS,
) -> Path:
    """Unpack a tar archive into a folder that does not exist or is empty. It may be compressed by gzip, bzip2 or xz.

    The folder appears once the source is read to its end and everything is unpacked. One that has the same content
    already, as after an earlier run, stays. Raises InputError for members that could leave the folder (absolute names,
    `..`, links that lead out, anything reached through a link), for devices, for data that is not an archive, for more
    than `max_size` bytes or `max_members` members, and for a folder with another content. Times and owners are ignored.
    """
    target = Path(os.path.abspath(folder))
    with explained(target):
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise InputError(f"{target} exists and is no folder. {_ANOTHER}", path=str(target))
        taken = target.exists() and any(target.iterdir())
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent))
    try:
        with explained(target):
            try:
                _Unpacking(staging, max_size, max_members).run(source)
            except (tarfile.TarError, EOFError, RecursionError, ValueError) as error:  # ValueError: bad numbers
                raise InputError(f"The archive cannot be unpacked: {error}.") from error
            if taken:
                if not _equal(staging, target):
                    raise InputError(f"{target} exists, with another content. {_ANOTHER}", path=str(target))
                return target
            os.chmod(staging, 0o777 & ~_umask())
            os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _equal(one: Path, other: Path) -> bool:
    """Return whether two folders have members of the same names and contents."""
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and all(_equal_member(one / name, other / name) for name in names)


def _equal_member(one: Path, other: Path) -> bool:
    kind = stat.S_IFMT(one.lstat().st_mode)
    if kind != stat.S_IFMT(other.lstat().st_mode):
        return False
    if kind == stat.S_IFDIR:
        return _equal(one, other)
    if kind == stat.S_IFLNK:
        return os.readlink(one) == os.readlink(other)
    with open(one, "rb") as first, open(other, "rb") as second:
        while (block := first.read(BLOCK)) == second.read(BLOCK):
            if not block:
                return True
    return False


def _umask() -> int:
    """Return the mask that the process applies to the mode of new files.

    Only Linux shows it without changing it; elsewhere 0o022 is assumed.
    """
    with suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(next(line for line in status.splitlines() if line.startswith("Umask:")).split()[1], 8)
    return 0o022


class _Unpacking:
    """One extraction into an empty staging folder."""

    def __init__(self, root: Path, max_size: int, max_members: int) -> None:
        self._root, self._max_size, self._max_members = root, max_size, max_members
        self._size = self._members = 0
        self._made: dict[PurePosixPath, bytes] = {}

    def run(self, source: BinaryIO) -> None:
        # The limit includes headers and padding, at most four blocks per member; names have their own limit.
        content = inflated(source, self._max_size + (self._max_members + 20) * 8 * tarfile.BLOCKSIZE)
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_bounded(4 * self._max_members + 16)) as archive:
            for member in archive:
                self._members += 1
                if self._members > self._max_members:
                    self._refuse(f"it has more than {self._max_members} members")
                self._take(archive, member)
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all members
        while source.read(BLOCK):
            pass

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = PurePosixPath(member.name)
        if "\0" in member.name or name.is_absolute() or ".." in name.parts:
            self._refuse(f"its member {member.name[:200]!r} would lie outside of the folder")
        if not name.parts:
            return  # the folder itself
        if len(name.parts) > _MAX_DEPTH:
            self._refuse(f"its member {member.name[:200]!r} lies below more than {_MAX_DEPTH} folders")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            self._refuse(f"its member {member.name[:200]!r} is neither a file nor a folder nor a link")
        for folder in reversed(name.parents[:-1]):
            self._folder(folder)
        self._size += member.size
        if self._size > self._max_size:
            self._refuse(f"it unpacks to more than {self._max_size} bytes")
        if member.isdir():
            self._folder(name)
            return
        before = self._made.get(name)
        if before == tarfile.REGTYPE and member.isreg():
            (self._root / name).unlink()  # a later version of the file, which `tar -r` appends
        elif before is not None:
            self._refuse(f"its member {member.name[:200]!r} is there twice")
        if member.issym():
            self._link(name, member)
        elif member.islnk():
            self._hard_link(name, member)
        else:
            self._file(name, archive, member)
        self._made[name] = tarfile.SYMTYPE if member.issym() else tarfile.REGTYPE

    def _folder(self, name: PurePosixPath) -> None:
        made = self._made.setdefault(name, tarfile.DIRTYPE)
        if made != tarfile.DIRTYPE:
            self._refuse(f"its member {str(name)[:200]!r} is a folder and something else too")
        if len(self._made) > self._max_members:  # includes folders implied by names
            self._refuse(f"it has more than {self._max_members} members")
        (self._root / name).mkdir(exist_ok=True)

    def _link(self, name: PurePosixPath, member: tarfile.TarInfo) -> None:
        if not _stays(name, member.linkname):
            self._refuse(f"its link {member.name[:200]!r} to {member.linkname[:200]!r} may leave the folder")
        os.symlink(member.linkname, self._root / name)

    def _hard_link(self, name: PurePosixPath, member: tarfile.TarInfo) -> None:
        linked = PurePosixPath(member.linkname)
        if self._made.get(linked) != tarfile.REGTYPE:
            self._refuse(f"its link {member.name[:200]!r} leads to no file before it")
        os.link(self._root / linked, self._root / name)

    def _file(self, name: PurePosixPath, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = archive.extractfile(member)
        assert content is not None
        mode = 0o777 if member.mode & stat.S_IXUSR else 0o666
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(self._root / name, flags, mode), "wb", buffering=0) as file:
            shutil.copyfileobj(content, file, BLOCK)
        if (self._root / name).lstat().st_size != member.size:
            raise tarfile.ReadError(f"{member.name[:200]!r} ends early")

    def _refuse(self, fault: str) -> NoReturn:
        raise InputError(f"The archive is refused and nothing was unpacked: {fault}.")


def _bounded(most: int) -> type[tarfile.TarInfo]:
    """Return a TarInfo class that limits the number of headers and rejects those too large for memory."""
    seen = 0

    class Bounded(tarfile.TarInfo):
        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
            """Check a header, those of names and attributes too, before what follows it is read.

            Every Python from 3.10 on calls it for each header; `frombuf` is passed by since 3.14.
            """
            nonlocal seen
            seen += 1
            if self.type == tarfile.GNUTYPE_SPARSE:
                _refuse_sparse()
            if seen > most or (self.type in _HEADERS_ONLY and self.size > _MAX_NAME):
                raise InputError(
                    "The archive is refused and nothing was unpacked: its headers are too many or too long."
                )
            return cast(tarfile.TarInfo, super()._proc_member(archive))  # type: ignore[misc]  # not in typeshed

        def _proc_gnusparse_10(self, *_: object) -> NoReturn:
            """Refuse the other form of a sparse file, whose map comes before the content."""
            _refuse_sparse()

    return Bounded


def _refuse_sparse() -> NoReturn:
    # tarfile reads the whole map of holes into memory, and the archive determines its length.
    raise InputError("The archive is refused and nothing was unpacked: it holds a sparse file. Pack it without `-S`.")
