"""The identity of a run, wherever its code is: the place of the code in its project, and the parameters."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture.stand_ins import StandIns
from ivcap_flows.errors import InputError
from ivcap_flows.identity import canonical, digest, utf8_safe
from ivcap_flows.secrets import logger_of, scrub_alone

__all__ = ["Project", "parameters_sha256"]

log = logger_of("ivcap_flows.capture")

_INSTALLED: Final = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Project:
    """The folder that code moves with. `root` is None for code outside of any project, or without a file."""

    root: str | None

    @classmethod
    def around(cls, file: str | None) -> Project:
        """Find the folder of installed code, else the nearest folder above with `.git`, else with `pyproject.toml`."""
        if file is None or not os.path.isfile(file):
            return cls(None)
        above = [str(folder) for folder in PurePath(file).parents]
        installed = (folder for folder in above if os.path.basename(folder) in _INSTALLED)
        marked = (f for mark in (".git", "pyproject.toml") for f in above if os.path.exists(os.path.join(f, mark)))
        return cls(next(installed, None) or next(marked, None))

    def code(self, file: str | None, name: str) -> str:
        """Identify the function `name` by its file's path in the project, or without a project by the file's name.

        Code without a file, as in an interactive session, is identified by the text that stands for its path.
        """
        if file is not None and os.path.isfile(file):
            file = self._inside(file) or os.path.basename(file)
        return str(utf8_safe(f"{file}:{name}"))

    def path(self, text: str) -> str:
        """Return the text. A path in the project, also one given to an option (`--in=/a/b`), becomes relative to it."""
        option, equals, path = text.partition("=") if text.startswith("-") else ("", "", text)
        inside = self._inside(path)
        return text if inside is None else f"{option}{equals}<project>/{inside}"

    def _inside(self, path: str) -> str | None:
        """Return a path in the project relative to its root, and None for any other path."""
        if self.root is not None and os.path.isabs(path):
            for root in (self.root, os.path.realpath(self.root)):
                inside = os.path.relpath(path, root) if path.startswith(root) else os.pardir
                if inside.partition(os.sep)[0] != os.pardir:
                    return PurePath(inside).as_posix()
        return None


def parameters_sha256(
    parameters: Mapping[str, Any], project: Project, contents: Mapping[int, str] | None = None, *, of: str | None = None
) -> str:
    """Return the digest that equal parameters share in any process, on any host, and in any checkout of the project.

    `contents` names the tables and arrays that were read, by `id()`. Parameters that cannot be compared are equal to
    none, not even to themselves, so no later run continues this one. A warning says so if `of` names what runs.
    """
    try:
        form = canonical_form(dict(parameters), "parameters", stand_in=StandIns(contents, project.path))
        return digest(canonical(scrub_alone(form)))
    except InputError as error:
        why = error.message
    except Exception as error:  # noqa: BLE001 - an error of a user's type must not stop the run
        why = f"its parameters cannot be compared ({type(error).__name__})."
    if of is not None:
        log.warning("If %s does not complete, the same command begins a new run instead of continuing it: %s", of, why)
    return f"unlike any: {uuid.uuid4()}"
