"""Machines of a fleet, as far as one can stand for many.

The processes of a machine share a host name, process numbers, a home and a checkout with each other and with no others;
networks and disks are shared by all. A machine is a set of Linux namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from eventually import until

__all__ = ["Machine", "can_be_had"]

ROOT: Final = Path(__file__).parents[2]
AS_ROOT: Final = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
APART: Final = ["unshare", *AS_ROOT, "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_be_had() -> bool:
    """Whether this user may make namespaces here."""
    return shutil.which("nsenter") is not None and subprocess.run([*APART, "true"], check=False).returncode == 0


class Machine:
    """`environment` is that of its processes, `log` has what they print."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.folder = name, folder
        home, checkout = folder / "home", folder / "checkout"
        home.mkdir(parents=True)
        shutil.copytree(ROOT / "flows", checkout / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(__file__).with_name("fleet_flows.py"), checkout)
        shutil.copy(ROOT / "pyproject.toml", checkout)
        self.checkout = checkout
        self.environment = {
            **environment,
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "PREFECT_HOME": str(home / "prefect"),
            "PYTHONPATH": os.pathsep.join((str(checkout), str(ROOT))),
        }
        self._init: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Run a command on this machine, which starts if it is off."""
        if self._init is None:
            self._switch_on()
        assert self._init is not None
        [init] = _children(self._init.pid)
        enter = ["nsenter", f"--target={init}", *(["--user"] if AS_ROOT else []), "--mount", "--uts", "--pid", "--"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*enter, *command],
                cwd=self.checkout,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def kill(self) -> None:
        """Cut the power. The next command starts it again."""
        if self._init is None:
            return
        for init in _children(self._init.pid):
            os.kill(init, signal.SIGKILL)
        self._init.wait(30)
        for process in self._started:
            process.wait(30)
        self._init, self._started = None, []

    def said(self) -> str:
        """The end of what its processes printed."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return f"--- {self.name}\n{text[-6000:]}"

    def _switch_on(self) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        script = f"hostname {self.name} && touch {ready} && exec sleep infinity"
        self._init = subprocess.Popen([*APART, "sh", "-c", script], stderr=subprocess.DEVNULL)
        until(ready.exists, seconds=30, said=lambda: f"{self.name} did not start", alive=self._init)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
