"""The embedded platforms as the command line serves them, and the official clients in environments of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eventually import until
from peers import interpreter
from served_home import Home

HERE = Path(__file__).parent

Run = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """Platforms that serve a folder: what the command wrote to its `--env-file`, and what it printed."""

    environment: dict[str, str] = field(repr=False)
    env_file: Path
    printed: str = field(repr=False)
    directory: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`ivcap-flows local serve`, which serves until the tests of this folder are done."""
    command = ("ivcap_flows.cli", "local", "serve", "--port", "0")
    home = Home(tmp_path_factory.mktemp("served") / "state", command).start()
    printed = until(home.log.read_text, lambda said: said.endswith("\n"), alive=home.process)
    yield Served(home.environment, home.env_file, printed, home.root)
    home.close()
    assert home.process.returncode in (0, -signal.SIGTERM), home.log.read_text()


def foreign(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what means our platforms and packages, and with these variables."""
    ours = ("IVCAP", "PROVENA", "PYTHON", "PREFECT", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **variables}


@pytest.fixture(scope="session")
def official(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a script of this folder by the interpreter of an official client; returns what it prints."""

    def run_script(client: str, script: str, *arguments: object) -> dict[str, Any]:
        ended = subprocess.run(
            [interpreter(client), HERE / script, *map(str, arguments)],
            env=foreign(served.environment),
            cwd=tmp_path_factory.mktemp(client),
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        told: dict[str, Any] = json.loads(ended.stdout)
        return told

    return run_script


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many calls of official clients the tests rest on."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, calls in getattr(report, "user_properties", ()):
                if name.startswith("official ") and report.when == "call":
                    terminalreporter.section(f"{sum(calls.values())} calls of {name.removeprefix('official ')}")
                    terminalreporter.write_line(", ".join(f"{call} {n}" for call, n in sorted(calls.items()) if n))
