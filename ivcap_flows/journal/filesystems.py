"""The kinds of file systems: where a journal may lie, and whose change times can be trusted."""

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
"""Names of network file systems, and of folders that a host shares with a virtual machine, as the mount table has them.

Their locks do not reach the other machines that see the same files, or their mapped memory is not shared.
"""
LOCAL_FUSE: Final = frozenset({"fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuseblk"})
"""The FUSE file systems on a local disk. All others are taken for remote: most are, and none says so itself."""


def file_system(path: Path, mounts: Iterable[tuple[str, str]] | None = None) -> str:
    """The kind of file system that `path` lies on, or will once made; empty where the mount table does not say.

    `mounts` are pairs of mount point and file system kind, by default this machine's.
    """
    if mounts is None:
        import psutil

        mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    resolved = path.resolve()
    ancestors = {str(part): len(part.parts) for part in (resolved, *resolved.parents)}
    # Of several mounts on one point the last hides the others.
    covering = [(ancestors[point], order, kind) for order, (point, kind) in enumerate(mounts) if point in ancestors]
    return max(covering)[2].lower() if covering else ""


def network_file_system(path: Path, mounts: Iterable[tuple[str, str]] | None = None) -> str | None:
    """The kind of network or virtual file system that `path` lies on, or will once made; None for a local one."""
    kind = file_system(path, mounts)
    remote = kind in NETWORK_FILE_SYSTEMS or (kind.startswith("fuse") and kind not in LOCAL_FUSE)
    return kind if remote else None
