"""Kinds of file systems: which can hold a journal, and which have reliable change times."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["LOCAL_FUSE", "NETWORK_FILE_SYSTEMS", "file_system", "network_file_system"]

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fakeowner", "glusterfs", "gpfs",
        "lustre", "macfuse", "ncpfs", "nfs", "nfs4", "orangefs", "osxfuse", "panfs", "prl_fs", "pvfs2", "smb2", "smb3",
        "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav", "wekafs",
    }
)  # fmt: skip
"""File systems on a network, or shared by a host with a virtual machine, by their names in the mount table.

On these, locks do not reach the other machines that see the same files, or mapped memory is not shared.
"""
LOCAL_FUSE: Final = frozenset({"fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuseblk"})
"""FUSE file systems on a local disk. All others count as remote: most are, and the mount table does not say which."""


def file_system(path: Path, mounts: Iterable[tuple[str, str]] | None = None) -> str:
    """Return the kind of file system that `path` is on, or will be on once it exists.

    Return an empty string if the mount table does not say. `mounts` are pairs of mount point and kind of file system,
    by default those of this machine.
    """
    if mounts is None:
        import psutil

        mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    resolved = path.resolve()
    ancestors = {str(part): len(part.parts) for part in (resolved, *resolved.parents)}
    # If several file systems are mounted on one point, the last hides the others.
    covering = [(ancestors[point], order, kind) for order, (point, kind) in enumerate(mounts) if point in ancestors]
    return max(covering)[2].lower() if covering else ""


def network_file_system(path: Path, mounts: Iterable[tuple[str, str]] | None = None) -> str | None:
    """Return the kind of network or virtual file system that `path` is or will be on; None if it is a local one."""
    kind = file_system(path, mounts)
    remote = kind in NETWORK_FILE_SYSTEMS or (kind.startswith("fuse") and kind not in LOCAL_FUSE)
    return kind if remote else None
