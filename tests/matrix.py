"""Run the suite on each Python of this machine, and with other versions of what the package depends on; print a table.

`make matrix` runs the whole suite in each cell, `make matrix ARGS=--short` the quick checks in the two outer cells: it
imports the package, asks `doctor`, runs the demo, and with the newest versions the canary tests, which notice what a
new Prefect changes. `--only lowest` leaves out the other cells. Each cell is an environment of its own under
`.venvs/matrix`, and what its last tests printed lies beside it, as `3.12-pinned.log`. Remove that folder to resolve
versions anew.

- `pinned`: the versions of constraints.txt, on each Python.
- `lowest`: the lowest versions of what pyproject.toml names that go together, on the oldest Python.
- `newest`: the highest versions that go together, on the newest Python, and then the newest Prefect that pyproject.toml
  allows, also if no release of one of its own dependencies is new enough for it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from interpreters import interpreters
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[1]
SAYS_WHICH: Final = (
    "import sys; from importlib.metadata import version; print(sys.version.split()[0], version('prefect'))"
)


@dataclass(frozen=True)
class Cell:
    python: str
    versions: str

    @property
    def name(self) -> str:
        minor = run([self.python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]).stdout.strip()
        return f"{minor}-{self.versions}"


@dataclass(frozen=True)
class Outcome:
    passed: int
    skipped: int
    failed: list[str]


def run(command: list[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, **options)


def constraints(cell: Cell) -> str:
    """The file that holds pip to the versions of a cell, relative to the project."""
    if cell.versions == "pinned":
        return "constraints.txt"
    file = Path(".venvs/matrix", f"{cell.name}.txt")
    if not (ROOT / file).exists() or (ROOT / file).stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
        extreme = {"lowest": "lowest-direct", "newest": "highest"}[cell.versions]
        options = ("--all-extras", "--group=dev", f"--resolution={extreme}", f"--python={cell.python}", "--no-header")
        done = run([sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml", *options])
        if done.returncode:
            raise SystemExit(done.stderr)
        (ROOT / file).write_text(done.stdout)
    return str(file)


def make(cell: Cell, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the Makefile in the environment of a cell."""
    # A newer Prefect changes the database in the user's own folder, and an older one does not start with it any more.
    home = {"PREFECT_HOME": str(ROOT / ".venvs/matrix" / f"{cell.name}-prefect")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | home | variables
    own = (f"VENV=.venvs/matrix/{cell.name}", f"PYTHON={cell.python}", f"CONSTRAINTS={constraints(cell)}")
    return run(["make", *own, *words], env=environment)


def install(cell: Cell) -> str | None:
    """Make the environment of a cell; the value says why it could not be made."""
    done = make(cell, "install")
    if done.returncode == 0 and cell.versions == "newest":
        [prefect] = [text for text in requires("ivcap-flows") or () if Requirement(text).name == "prefect"]
        # `make` sets it to the pinned versions.
        free = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
        done = run([python_of(cell), "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps", prefect], env=free)
    return None if done.returncode == 0 else done.stderr[-2000:]


def python_of(cell: Cell) -> str:
    return str(ROOT / ".venvs/matrix" / cell.name / "bin/python")


def tests(cell: Cell, *options: str) -> Outcome:
    """Run tests in a cell."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        done = make(cell, "test", f"ARGS=-q --junitxml={report} {' '.join(options)}")
        (ROOT / f".venvs/matrix/{cell.name}.log").write_text(done.stdout + done.stderr)
        if not report.exists():
            return Outcome(0, 0, [f"pytest ended early: {(done.stdout + done.stderr)[-1000:]}"])
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    return Outcome(len(cases) - len(failed) - skipped, skipped, names)


def quick(cell: Cell) -> Outcome:
    """Import the package, ask `doctor`, and run the demo in a cell; with the newest versions, the canary tests, too."""
    with tempfile.TemporaryDirectory() as home:
        alone = {"HOME": home, "XDG_DATA_HOME": f"{home}/data", "PREFECT_HOME": f"{home}/prefect"}
        environment = {**os.environ, **alone}
        checks = {
            "import": run([python_of(cell), "-c", "import ivcap_flows.tasks"], env=environment),
            "doctor": run([python_of(cell), "-m", "ivcap_flows.cli", "doctor"], env=environment),
            "demo": make(cell, "demo", **alone),
        }
    failed = [f"{name}: {(done.stdout + done.stderr)[-1000:]}" for name, done in checks.items() if done.returncode]
    if cell.versions != "newest":
        return Outcome(len(checks) - len(failed), 0, failed)
    # Collecting all tests takes longer than running these.
    files = [
        str(file.relative_to(ROOT)) for file in ROOT.glob("tests/*/test_*.py") if "mark.canary" in file.read_text()
    ]
    canaries = tests(cell, "-m 'canary and not long'", *files)
    return Outcome(len(checks) - len(failed) + canaries.passed, canaries.skipped, [*failed, *canaries.failed])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="quick checks, with the lowest and the newest versions")
    parser.add_argument("--only", help="the cells whose names contain this, such as 3.12 or lowest")
    given = parser.parse_args()
    pythons = list(interpreters())
    cells = [Cell(pythons[0], "lowest"), Cell(pythons[-1], "newest")]
    if not given.short:
        cells = [*(Cell(python, "pinned") for python in pythons), *cells]
    chosen = [cell for cell in cells if not given.only or given.only in cell.name]
    if not chosen:
        parser.error(f"no cell is named {given.only}; there are {', '.join(cell.name for cell in cells)}")
    with ThreadPoolExecutor(3) as lanes:
        installed = zip(chosen, lanes.map(install, chosen), strict=True)
    rows, failed = [], []
    for cell, refused in installed:
        begin = time.monotonic()
        if refused is None:
            outcome = quick(cell) if given.short else tests(cell)
            python, prefect = run([python_of(cell), "-c", SAYS_WHICH]).stdout.split()
        else:
            outcome, python, prefect = Outcome(0, 0, [f"not installed: {refused}"]), cell.name.partition("-")[0], ""
        minutes = (time.monotonic() - begin) / 60
        failed += [f"{cell.name}: {name}" for name in outcome.failed]
        counts = (outcome.passed, len(outcome.failed), outcome.skipped)
        rows.append((python, cell.versions, prefect, *map(str, counts), f"{minutes:.1f}"))
        print(f"{cell.name}: {outcome.passed} passed, {len(outcome.failed)} failed", file=sys.stderr)
        print("".join(f"  {name.splitlines()[0]}\n" for name in outcome.failed), end="", file=sys.stderr, flush=True)
    for row in [("python", "versions", "prefect", "passed", "failed", "skipped", "minutes"), *rows]:
        print("".join(text.ljust(10) for text in row).rstrip())
    for name in failed:
        print(f"\n{name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
