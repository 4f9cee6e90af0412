"""Where a journal may lie: not on a network file system, whose locks and write order SQLite cannot depend on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["NETWORK_FILE_SYSTEMS", "network_file_system"]

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.davfs2", "fuse.glusterfs",
        "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs",
        "webdav",
    }
)  # fmt: skip
"""Names of file systems as the kernel's mount table spells them."""


def network_file_system(path: Path, mounts: Iterable[tuple[str, str]] | None = None) -> str | None:
    """The kind of network file system that `path` lies on, or will once made; None for a local one.

    `mounts` are pairs of mount point and file system kind, by default this machine's.
    """
    if mounts is None:
        import psutil

        mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    resolved = path.resolve()
    ancestors = {str(part): len(part.parts) for part in (resolved, *resolved.parents)}
    # Of several mounts on one point the last hides the others.
    covering = [(ancestors[point], order, kind) for order, (point, kind) in enumerate(mounts) if point in ancestors]
    kind = max(covering)[2].lower() if covering else ""
    return kind if kind in NETWORK_FILE_SYSTEMS else None
