"""The files of a long-running service's host, in the folder of the service (mapping.py).

host.lock    held by the host for its life         host.json    its plan
inbox/<job>  a job that waits for the host         server.json  the process of the service
host.log     output of host and service            retire       asks the host to finish and end
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ivcap_flows.local.directory import Directory, is_held, write_atomically
from ivcap_flows.local.services.mapping import service_folder
from ivcap_flows.local.services.processes import end_process, noted_process

__all__ = ["HostFiles", "HostPlan", "spawn_locked"]

_LAST_WORDS: Final = 400
_WITHHELD: Final = ("IVCAP_", "PROVENA_", "PREFECT_", "OPENLINEAGE")
"""How the names of variables begin that no service gets: some of them have the user's own tokens, or passwords."""


@dataclass(frozen=True)
class HostPlan:
    """How a host runs its service: `command` in `cwd`.

    Jobs are posted to `path`. The server is ready when the path `ready_url` answers; None means the usual path.
    """

    service: str
    service_name: str
    command: tuple[str, ...]
    cwd: str
    path: str
    ready_url: str | None

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class HostFiles:
    directory: Directory
    folder: Path

    @classmethod
    def of(cls, directory: Directory, service: str) -> HostFiles:
        return cls(directory, service_folder(directory, service))

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    @property
    def log(self) -> Path:
        return self.folder / "host.log"

    @property
    def server(self) -> Path:
        return self.folder / "server.json"

    @property
    def retire(self) -> Path:
        return self.folder / "retire"

    def plan(self) -> HostPlan:
        value = json.loads((self.folder / "host.json").read_bytes())
        return HostPlan(**value | {"command": tuple(value["command"])})

    def runs(self) -> bool:
        return is_held(self.folder / "host.lock")

    def hand_over(self, job: str) -> None:
        """Put a job into the inbox of the host; its ticket is in the job's folder."""
        self.inbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.inbox / job.rsplit(":", 1)[-1]).touch(mode=0o600)

    def waiting(self) -> list[str]:
        """Return the bare ids of the jobs in the inbox, oldest first."""
        try:
            return [entry.name for entry in sorted(os.scandir(self.inbox), key=lambda entry: entry.stat().st_mtime_ns)]
        except FileNotFoundError:
            return []

    def serves(self, plan: HostPlan) -> bool:
        """Return whether the running host was started with exactly this plan and is not about to end."""
        return not self.retire.exists() and self.plan() == plan

    def start(self, plan: HostPlan) -> subprocess.Popen[bytes]:
        """Start a new host; call it only if none runs."""
        self.end_stray()
        self.retire.unlink(missing_ok=True)
        write_atomically(self.folder / "host.json", plan.as_json())
        arguments = ["ivcap_flows.local.services.lambdas", str(self.directory.root), plan.service]
        return spawn_locked(self.folder / "host.lock", self.log, arguments, fresh_log=True)

    def end_stray(self) -> None:
        """End the process of the service if its host was killed and could not end it."""
        stray = noted_process(self.server)
        if stray is not None:
            end_process(stray, patience=0)
        self.server.unlink(missing_ok=True)

    def last_words(self) -> str:
        try:
            return self.log.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""


def spawn_locked(lock: Path, log: Path, arguments: list[str], *, fresh_log: bool = False) -> subprocess.Popen[bytes]:
    """Run `python -m <arguments>` in a session of its own, which outlives the server; it inherits the held lock."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
    try:
        with log.open("wb" if fresh_log else "ab") as out:
            return subprocess.Popen(  # noqa: S603 - the interpreter and this package
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                pass_fds=(held,),
                env=environment,
            )
    finally:
        os.close(held)
