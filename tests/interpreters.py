"""Print one Python of each minor version that this machine has, oldest first."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MINORS: Final = range(10, 15)


def interpreters() -> Iterator[str]:
    """Look on the path, and among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in MINORS:
        found = [shutil.which(f"python3.{minor}"), *sorted(map(str, pyenv.glob(f"3.{minor}.*/bin/python")))]
        # A shim of pyenv is on the path for versions that are not switched on, too.
        one = next((each for each in found if each is not None and works(each)), None)
        if one is not None:
            yield one


def works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    print(*interpreters(), sep="\n")
