"""Check whether a connection comes from the user of this server, on this machine.

A login has no password, so access to the port is not enough: other users of the machine have it too.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Final

from ivcap_flows.local.loopback import is_loopback

__all__ = ["is_own"]

_ROOT: Final = 0
_TABLES: Final = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


def is_own(peer: tuple[str, int] | None, server: tuple[str, int | None] | None) -> bool:
    """Return whether the other end is a process of this user or of root.

    If the system does not show owners, any process of this machine counts.
    """
    if peer is None or server is None or server[1] is None or not is_loopback(peer[0]):
        return False
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    try:
        lines = _TABLES[family].read_text().splitlines()[1:]
        wanted = [_shown(family, *peer), _shown(family, server[0], server[1])]
    except (OSError, ValueError):
        return not _TABLES[family].exists()
    # A connection that its process has closed has inode 0 and is shown as root's, so it does not count.
    owners = [int(words[7]) for words in map(str.split, lines) if words[1:3] == wanted and words[9] != "0"]
    return any(owner in (_ROOT, os.getuid()) for owner in owners)


def _shown(family: socket.AddressFamily, host: str, port: int) -> str:
    """Format an end of a connection as in the table: words in the machine's byte order (Linux, proc_net_tcp)."""
    packed = socket.inet_pton(family, host)
    words = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
