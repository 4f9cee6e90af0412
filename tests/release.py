"""Check what would be published: the sdist and wheel in `dist/`. `make release` builds them and runs this.

The metadata and the long description are twine's matter. Here: its links lead to the repository; the sdist holds all
that a checkout has under the project's folders; the wheel built from it has the package, its licence and its type
marker, and nothing else; no file names a folder of this machine; and the tests pass in the unpacked sdist, in an
environment of its own, with no checkout around. `--long` runs the whole suite there, without it the tests of the base
rooms and the journal, and the demo.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SHORT: Final = "tests/base tests/journal tests/provenance"


def tracked() -> set[str]:
    """The files that the sdist must have: all that git knows."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in names.split("\0") if name}


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(tracked() - there)
    assert not missing, f"The sdist lacks {missing}."


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        contents = {name: archive.read(name) for name in names}
    foreign = [name for name in names if not name.startswith(("ivcap_flows/", "ivcap_flows-"))]
    assert not foreign, f"The wheel has {foreign}."
    assert not [name for name in names if "/tests/" in name or "/test_" in name], "The wheel has tests."
    assert "ivcap_flows/py.typed" in names, "The wheel has no type marker."
    [metadata] = (content.decode() for name, content in contents.items() if name.endswith(".dist-info/METADATA"))
    relative = re.findall(r"\]\((?!https?:|#)[^)]*\)", metadata)
    assert not relative, f"The long description has links that lead nowhere on a package index: {relative}."
    licences = ("LICENSE", "ivcap_flows/provenance/page/dagre.min.js.LEGAL.txt")
    lacking = [each for each in licences if not any(name.endswith(f".dist-info/licenses/{each}") for name in names)]
    assert not lacking, f"The wheel lacks the licences {lacking}."
    here = [str(place).encode() for place in (ROOT, Path.home()) if len(str(place)) > 1]
    named = [name for name, content in contents.items() if any(place in content for place in here)]
    assert not named, f"{named} name a folder of this machine."


def try_tests(sdist: Path, *, whole: bool) -> None:
    """Run the tests where nothing but the sdist is, with the package installed from it."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        [unpacked] = Path(folder).iterdir()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON", "VIRTUAL"))
        }
        arguments = f"ARGS=-q {'' if whole else SHORT}"
        subprocess.run(["make", "demo"], cwd=unpacked, env=environment, check=True)
        subprocess.run(["make", "test", arguments], cwd=unpacked, env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="run the whole suite in the unpacked sdist")
    given = parser.parse_args()
    [sdist] = (ROOT / "dist").glob("*.tar.gz")
    [wheel] = (ROOT / "dist").glob("*.whl")
    check_sdist(sdist)
    check_wheel(wheel)
    try_tests(sdist, whole=given.long)
    print(f"{sdist.name} and {wheel.name} are fit to be published.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
