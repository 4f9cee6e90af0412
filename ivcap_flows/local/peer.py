"""Check whether a connection comes from the user of this server, on this machine.

A login has no password, so access to the port is not enough: other users of the machine have it too.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from ivcap_flows.local.loopback import is_loopback

__all__ = ["is_own"]

_ROOT: Final = 0
_TABLES: Final = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


def is_own(peer: tuple[str, int] | None, server: tuple[str, int | None] | None) -> bool:
    """Return whether the other end is a process of this user. On Linux, root's processes count, too."""
    if peer is None or server is None or server[1] is None or not is_loopback(peer[0]):
        return False
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    if not sys.platform.startswith("linux"):
        return _is_held_by_own(peer, (server[0], server[1]))
    try:
        lines = _TABLES[family].read_text().splitlines()[1:]
        wanted = [_shown(family, *peer), _shown(family, server[0], server[1])]
    except (OSError, ValueError):
        return False
    # A connection that its process has closed has inode 0 and is shown as root's, so it does not count.
    owners = [int(words[7]) for words in map(str.split, lines) if words[1:3] == wanted and words[9] != "0"]
    return any(owner in (_ROOT, os.getuid()) for owner in owners)


def _is_held_by_own(peer: tuple[str, int], server: tuple[str, int]) -> bool:
    """Look for the other end among the connections of this user's processes, which all systems show their user."""
    for process in psutil.process_iter():
        # A process may end meanwhile, or be one that no user may look into.
        with suppress(psutil.Error):
            if process.uids().real != os.getuid():
                continue
            if any((each.laddr, each.raddr) == (peer, server) for each in process.net_connections("tcp")):
                return True
    return False


def _shown(family: socket.AddressFamily, host: str, port: int) -> str:
    """Format an end of a connection as in the table: words in the machine's byte order (Linux, proc_net_tcp)."""
    packed = socket.inet_pton(family, host)
    words = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
