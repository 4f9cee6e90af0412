"""The code of a run: commit, uncommitted changes, entry point, and the versions of all packages. No network."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ivcap_flows.identity import canonical, digest, flows_urn, path_text, utf8_safe
from ivcap_flows.provenance.records import Record, entity
from ivcap_flows.secrets import scrub_text

__all__ = ["Checkout", "checkout", "code_record", "packages"]

_SOURCES: Final = (
    "*.py",
    "*.pyi",
    "*.pyx",
    "*.ipynb",
    "*.r",
    "*.R",
    "*.jl",
    "*.sh",
    "*.sql",
    "*.toml",
    "*.yaml",
    "*.yml",
)
_SECONDS: Final = 20.0
_CREDENTIALS: Final = re.compile(r"(?<=://)(?!git@[^/@]*/)[^/]*@")
"""What stands before a host: a name, perhaps with a password. `git` is the name that everybody has."""


@dataclass(frozen=True)
class Checkout:
    """A git working tree. `diff_sha256` covers the changes since the commit and new source files; None if clean."""

    root: str
    commit: str | None
    branch: str | None
    remote: str | None
    dirty: bool
    diff_sha256: str | None


def checkout(folder: str) -> Checkout | None:
    """Return the working tree around a folder; None without git or outside of a repository."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    top = root.decode(errors="replace").rstrip("\n")
    head = _git(top, "rev-parse", "--verify", "-q", "HEAD")
    changes = _git(top, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") if head else b""
    untracked = _git(top, "ls-files", "-z", "--others", "--exclude-standard", "--", *_SOURCES) or b""
    names = [os.fsdecode(name) for name in untracked.split(b"\0") if name]
    dirty = bool(changes) or bool(names) or changes is None
    branch = _git(top, "symbolic-ref", "-q", "--short", "HEAD")
    remote = _git(top, "config", "--get", "remote.origin.url")
    return Checkout(
        root=top,
        commit=head.decode().strip() if head else None,
        branch=branch.decode(errors="replace").strip() if branch else None,
        remote=_bare(remote.decode(errors="replace").strip()) if remote else None,
        dirty=dirty,
        diff_sha256=_difference(top, changes or b"", names) if dirty else None,
    )


def code_record(source: str | None, name: str) -> Record:
    """Return the code of a flow: its file, its name there, the commit around it, and the environment.

    The id is computed from the content, so all runs of one version share one entity.
    """
    tree = checkout(str(Path(source).parent)) if source is not None and Path(source).exists() else None
    facts: dict[str, Any] = {
        "name": name,
        "file": _relative(source, tree),
        "source_sha256": _file_sha256(source),
        "commit": tree.commit if tree else None,
        "branch": tree.branch if tree else None,
        "remote": tree.remote if tree else None,
        "dirty": tree.dirty if tree else None,
        "diff_sha256": tree.diff_sha256 if tree else None,
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": packages(),
    }
    return entity(flows_urn("code", digest(canonical(facts))), "code", **facts)


def packages() -> dict[str, str]:
    """Return the installed distributions and their versions, by their metadata folders (PEP 376, PEP 427)."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            stem, _, suffix = name.rpartition(".")
            if suffix in ("dist-info", "egg-info") and "-" in stem:
                package, version = stem.split("-")[:2]
                found.setdefault(package.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def _git(folder: str, *arguments: str) -> bytes | None:
    """Return the output of a git command that changes nothing and never prompts; None if it fails."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # Do not run the hooks that the repository's own settings name.
    command = ["git", "-C", folder, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, timeout=_SECONDS, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _difference(root: str, changes: bytes, untracked: list[str]) -> str:
    return digest(
        changes + canonical([[utf8_safe(name), _file_sha256(os.path.join(root, name))] for name in sorted(untracked)])
    )


def _file_sha256(path: str | None) -> str | None:
    try:
        return digest(Path(path).read_bytes()) if path is not None else None
    except OSError:
        return None


def _relative(source: str | None, tree: Checkout | None) -> str | None:
    """Return a path that is the same on every machine: relative to the repository, or else the file's name."""
    if source is None:
        return None
    path = Path(source).resolve()
    if tree is not None and path.is_relative_to(Path(tree.root).resolve()):
        path = path.relative_to(Path(tree.root).resolve())
        return path_text(path.as_posix())
    return path_text(path.name)


def _bare(url: str) -> str:
    return scrub_text(_CREDENTIALS.sub("", url))
