"""The command that runs a service on this machine if its description names a container image.

The description stays as its SDK printed it. The files needed to run the service are apart, in a folder of the state
with the service's id: the mapping, and for a long-running service the files of its host (hosting.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ivcap_flows.local.directory import Directory, write_atomically

__all__ = ["RunnerMapping", "read_mapping", "service_folder", "write_mapping"]

_PLAIN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


@dataclass(frozen=True)
class RunnerMapping:
    """`command` is started in the folder `cwd`; at most `concurrency` jobs run at once (None: no limit)."""

    command: tuple[str, ...]
    cwd: str
    concurrency: int | None = None


def service_folder(directory: Directory, service: str) -> Path:
    """Return the folder of a service URN, whatever characters its id has."""
    bare = service.rsplit(":", 1)[-1]
    return directory.root / "services" / (bare if _PLAIN.fullmatch(bare) else hashlib.sha256(bare.encode()).hexdigest())


def read_mapping(directory: Directory, service: str) -> RunnerMapping | None:
    """Return the mapping of a service URN; None if none is registered."""
    try:
        value = json.loads((service_folder(directory, service) / "mapping.json").read_bytes())
    except FileNotFoundError:
        return None
    return RunnerMapping(tuple(value["command"]), value["cwd"], value["concurrency"])


def write_mapping(directory: Directory, service: str, mapping: RunnerMapping) -> None:
    folder = service_folder(directory, service)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / "mapping.json", json.dumps(asdict(mapping)).encode())
