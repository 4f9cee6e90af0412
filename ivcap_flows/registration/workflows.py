"""The workflows of a team: a YAML file or an object in code, and which of them applies to which work."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, TypeAdapter

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.yaml_file import read_yaml

__all__ = ["Workflows"]

_IN_CODE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


_FILE: Final[TypeAdapter[list[Workflow]]] = TypeAdapter(Annotated[list[Workflow], BeforeValidator(_listed)])


def _read(path: Path) -> list[Workflow]:
    return read_yaml(path, _FILE, "workflows")


@dataclass(frozen=True)
class Workflows:
    """Some workflows, and which of them applies to which work."""

    all: tuple[Workflow, ...]

    @staticmethod
    def is_in_code(place: str) -> bool:
        """Return whether a place names workflows in code, as `module:name`, and not a file."""
        return _IN_CODE.fullmatch(place) is not None and not os.path.exists(place)

    @classmethod
    def of(cls, given: Workflow | Path | str) -> Workflows:
        """Return the workflow itself, or those in a YAML file. Raises InputError as `read`."""
        return cls((given,)) if isinstance(given, Workflow) else cls.read(Path(given))

    @classmethod
    def named(cls, place: str) -> Workflows:
        """Return the workflows in a YAML file, or the object `module:name`: a Workflow, or a list of them.

        Raises InputError if it is neither, cannot be read, or has clashes.
        """
        if not cls.is_in_code(place):
            return cls.read(Path(place))
        module, _, name = place.partition(":")
        here = os.getcwd()
        try:
            # As with `python -m`, the user's modules are in the working directory.
            sys.path.insert(0, here)
            value = getattr(importlib.import_module(module), name)
        except Exception as error:  # the module is the user's, and may fail in any way
            raise InputError(f"The workflows {place} cannot be imported: {error}.", path=place) from error
        finally:
            sys.path.remove(here)
        found = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(each, Workflow) for each in found):
            raise InputError(f"{place} must be a Workflow, or a list of them.", path=place)
        return cls(found)._checked(place)

    @classmethod
    def read(cls, path: Path) -> Workflows:
        """Read a YAML file: one workflow, or a list of them.

        Raises InputError, which names the file and every fault with its line (data: `path`, `faults`).
        """
        return cls(tuple(_read(path)))._checked(str(path))

    def _checked(self, place: str) -> Workflows:
        """Return the same. Raises InputError if several workflows are for the same work."""
        pairs = Counter((each.service, each.flow) for each in self.all)
        clashes = [f"{count} are for the {_work(*pair)}" for pair, count in pairs.items() if count > 1]
        if clashes:
            raise InputError(f"The workflows in {place} are wrong. {'; '.join(clashes)}.", path=place, faults=clashes)
        return self

    def for_work(self, work: Order | Job, flow: str | None) -> Workflow | None:
        """Return the workflow for an order or job of this flow, or None. One that names the flow wins."""
        fitting = [
            each
            for each in self.all
            if each.service is not None
            and each.service in (work.service, work.service_name)
            and each.flow in (None, flow)
        ]
        return max(fitting, key=lambda each: each.flow is not None, default=None)

    def for_run(self, flow: str) -> Workflow | None:
        """Return the workflow for the runs of this flow, or None."""
        return next((each for each in self.all if each.service is None and each.flow == flow), None)


def _work(service: str | None, flow: str | None) -> str:
    if service is None:
        return f"flow {flow!r}"
    return f"service {service!r}" + (f" in the flow {flow!r}" if flow else "")
