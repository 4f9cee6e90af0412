"""The folder of an embedded platform: its layout, the process that serves it, and a check that it can be used.

ivcap.sqlite        records            blobs/xx/<id>       bytes of artifacts
runs/<job>/         one job's files    outbox/<job>.json   results that the server has not collected yet
server.lock         held by the server for its life        start.lock   held while one process starts the server
server.json         the server's address (0600)            server.log   its output when started on demand
login.pem           signs id tokens (0600)
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ivcap_flows.errors import EmbeddedPlatformError

__all__ = [
    "FULL_DISK",
    "OUT_OF_SPACE",
    "Directory",
    "is_held",
    "make_private",
    "need_space",
    "sync_folder",
    "write_atomically",
]

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers by which a file system reports that it is full."""
OUT_OF_SPACE: Final[ContextVar[bool]] = ContextVar("OUT_OF_SPACE", default=False)
"""Whether the current request must find the file system full (a fault)."""
_OURS: Final = re.compile(
    r"(ivcap|provena)\.sqlite(-wal|-shm)?|server\.(json|lock|log)|start\.lock|(login|provena-realm)\.pem"
    "|blobs|runs|outbox|services"
)
"""The names of what the server keeps in its folder."""
_ROOT: Final = 0
_BARE: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{7,63}")


def need_space() -> None:
    """Call before storing bytes or records. Raises OSError as for a full file system if a fault asks for it."""
    if OUT_OF_SPACE.get():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _bare(urn: str) -> str:
    """Return the last part of a URN, which names files. Raises ValueError for one that the platform would not make."""
    bare = urn.rsplit(":", 1)[-1]
    if not _BARE.fullmatch(bare):
        raise ValueError(f"{bare[:60]!r} does not name a file of the embedded platform")
    return bare


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file so that readers see either the old or the new content, and the new one survives a crash."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def is_held(path: Path) -> bool:
    """Return whether another process holds a lock file; False if the file is missing."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def make_private(path: Path) -> None:
    """Create a file, or change the mode of one of this user's, so that only its owner can read it. Raises OSError."""
    path.touch(mode=0o600)
    _take_from_others(path)


def _need_own(file: Path, found: os.stat_result) -> None:
    """Refuse what another user made: it could name a server or a program of theirs. Raises EmbeddedPlatformError."""
    if found.st_uid not in (_ROOT, os.getuid()):
        raise EmbeddedPlatformError(
            f"The embedded platform does not use its folder {file.parent}, since {file.name} in it belongs to another "
            "user. Set IVCAP_LOCAL_DIR to a folder of your own.",
            directory=str(file.parent),
        )


def _take_from_others(path: Path) -> None:
    """Leave the rights on a file or folder of this user to its owner alone. Never opens it: that would cost SQLite its
    locks."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if found.st_mode & 0o077 and found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode):
            path.chmod(found.st_mode & 0o700)


@dataclass(frozen=True)
class Directory:
    root: Path

    @property
    def database(self) -> Path:
        return self.root / "ivcap.sqlite"

    @property
    def login_key(self) -> Path:
        return self.root / "login.pem"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def server_file(self) -> Path:
        return self.root / "server.json"

    @property
    def server_lock(self) -> Path:
        return self.root / "server.lock"

    @property
    def start_lock(self) -> Path:
        return self.root / "start.lock"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    def run(self, job: str) -> Path:
        return self.runs / _bare(job)

    def blob(self, artifact: str) -> Path:
        bare = _bare(artifact)
        return self.blobs / bare[:2] / bare

    def prepare(self) -> None:
        """Create the folder, check that it is writable, and that no other user has made or may read what is in it.

        The mode of a folder that exists is left as it is, since the user may keep other things there. Raises
        EmbeddedPlatformError with its name and the next step.
        """
        try:
            for folder in (self.root, self.blobs, self.runs, self.outbox):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self.root.iterdir():
                if _OURS.fullmatch(path.name):
                    _need_own(path, path.lstat())
                    _take_from_others(path)
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".probe") as probe:
                probe.write(b"x")
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> EmbeddedPlatformError:
        step = (
            "Free some space on its file system"
            if error.errno in FULL_DISK
            else "Give this user read and write access to it"
        )
        return EmbeddedPlatformError(
            f"The embedded platform cannot use its folder {self.root} ({error.strerror or error})."
            f" {step}, or set IVCAP_LOCAL_DIR to another folder.",
            directory=str(self.root),
        )

    def server(self) -> dict[str, Any] | None:
        """Return what the last server wrote about itself; it may have ended since (`connected` tells)."""
        try:
            with self.server_file.open("rb") as file:
                _need_own(self.server_file, os.fstat(file.fileno()))
                value = json.loads(file.read())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise self.unusable(error) from error
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Let only one process at a time into the block, for this directory."""
        fd = os.open(self.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def claim(self) -> int | None:
        """Become the server of this directory until the returned descriptor is closed; None if another process is."""
        fd = os.open(self.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd
