"""Git in tests: the project's own files may lie in an unpacked sdist, which is no checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["git"]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, whatever the user's own settings; the value is what it prints."""
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        env={**os.environ, **alone},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()
