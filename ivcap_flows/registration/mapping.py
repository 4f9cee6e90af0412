"""The mapping: which orders, jobs and flow runs become which model runs on Provena. A YAML file, or the same in code.

- service: coastal-el-nino-index           # its name or URN
  flow: coastal                            # optional; such an entry wins over one without a flow
  workflow_template: 102.100.100/1
  inputs: {series: 102.100.100/2}          # parameter: dataset template
  outputs: {index.csv: 102.100.100/3}      # product: dataset template
  datasets:                                # statements for the datasets that are minted: DatasetDefaults
    organisation_id: 102.100.100/4
    publisher_id: 102.100.100/4
    license: https://creativecommons.org/licenses/by/4.0/
    approvals: {}
- flow: monthly-index                      # without a service: the run of the flow itself
  workflow_template: 102.100.100/5
  display_name: {parameter: title}         # taken from the work: ValueFrom
  model_version: {annotation: version}     # stated by the flow with annotate()
  annotations: {region: Tasman Sea, commit: {record: commit}, degree: {parameter: degree, of: fit}}
  inputs: {series: 102.100.100/2}          # parameter of the flow, or name of an artifact that it used
  outputs:
    index.csv:                             # name of an artifact that it made
      template: 102.100.100/3
      resources: {table: index.csv}        # path of each deferred resource of the dataset template
    mask:
      template: 102.100.100/6
      dataset: 102.100.100/7               # a dataset that is registered already
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.provena.datasets import DatasetDefaults
from ivcap_flows.registration.values import Stated, Text, ValueFrom

__all__ = ["DataUse", "MappingEntry", "ModelRunMapping"]

_IN_CODE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class DataUse(BaseModel):
    """The data for one dataset template: the data with this entry's name, or a registered `dataset`.

    `dataset` is a handle, or a `ValueFrom` that gives one. `resources` maps the template's deferred resources, by key,
    to relative paths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: Text
    dataset: Stated | None = None
    resources: dict[str, Stated] = Field(default_factory=dict)


class MappingEntry(BaseModel):
    """Maps work to runs of one workflow template: a service's orders and jobs, in one flow or all, or a flow's runs.

    An entry without a service is for the runs of the flow itself. Everything except the service and the flow is named
    by its handle on Provena. `inputs` and `outputs` map a name to a dataset template or a `DataUse`. A `ValueFrom`
    takes a value that differs from run to run from the work. The default `modeller` is the person linked to the user.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Text | None = None
    flow: Text | None = None
    workflow_template: Text
    display_name: Stated | None = None
    model_version: Stated | None = None
    inputs: dict[str, Text | DataUse] = Field(default_factory=dict)
    outputs: dict[str, Text | DataUse] = Field(default_factory=dict)
    annotations: dict[str, str | ValueFrom] = Field(default_factory=dict)
    organisation: Text | None = None
    modeller: Text | None = None
    study: Text | None = None
    datasets: DatasetDefaults | None = None

    @model_validator(mode="after")
    def _names_its_work(self) -> MappingEntry:
        if self.service is None and self.flow is None:
            raise ValueError("give a service, a flow, or both")
        return self

    def uses(self, side: Literal["inputs", "outputs"]) -> dict[str, DataUse]:
        """Return the data of one side by name."""
        given: dict[str, str | DataUse] = getattr(self, side)
        return {name: DataUse(template=use) if isinstance(use, str) else use for name, use in given.items()}


@dataclass(frozen=True)
class ModelRunMapping:
    """A mapping: its entries, and which entry applies to which work."""

    entries: tuple[MappingEntry, ...]

    @staticmethod
    def is_in_code(place: str) -> bool:
        """Return whether a place names a mapping in code, as `module:name`, and not a file."""
        return _IN_CODE.fullmatch(place) is not None and not os.path.exists(place)

    @classmethod
    def named(cls, place: str) -> ModelRunMapping:
        """Return the mapping in a YAML file, or the object `module:name`: a ModelRunMapping or a list of its entries.

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
            raise InputError(f"The mapping {place} cannot be imported: {error}.", path=place) from error
        finally:
            sys.path.remove(here)
        made = value if isinstance(value, cls) else None
        if isinstance(value, list | tuple) and all(isinstance(each, MappingEntry) for each in value):
            made = cls(tuple(value))
        if made is None:
            raise InputError(f"{place} must be a ModelRunMapping or a list of MappingEntry.", path=place)
        if faults := made.clashes():
            raise InputError(f"The mapping {place} is wrong. {'; '.join(faults)}.", path=place, faults=faults)
        return made

    @classmethod
    def read(cls, path: Path) -> ModelRunMapping:
        """Read a mapping from a YAML file.

        Raises InputError, which names the file and every fault with its place (data: `path`, `faults`).
        """
        import yaml

        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"The mapping {path} cannot be read ({error.strerror}).", path=str(path)) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"The mapping {path} is not valid YAML: {error}", path=str(path)) from error
        if not isinstance(value, list):
            raise InputError(f"The mapping {path} must be a list with an entry per service or flow.", path=str(path))
        entries: list[MappingEntry] = []
        faults: list[str] = []
        for number, given in enumerate(value, 1):
            try:
                entries.append(MappingEntry.model_validate(given))
            except ValidationError as error:
                faults += _faults(error, f"entry {number}{_named(given)}")
        made = cls(tuple(entries))
        faults += made.clashes()
        if faults:
            raise InputError(f"The mapping {path} is wrong. {'; '.join(faults)}.", path=str(path), faults=faults)
        return made

    def clashes(self) -> list[str]:
        """Return a text for each service or flow that has more than one entry."""
        pairs = Counter((entry.service, entry.flow) for entry in self.entries)
        return [
            f"{count} entries are for the {_work(service, flow)}"
            for (service, flow), count in pairs.items()
            if count > 1
        ]

    def entry_for(self, work: Order | Job, flow: str) -> MappingEntry | None:
        """Return the entry for an order or job of this flow, or None. An entry that names the flow wins."""
        fitting = [
            entry
            for entry in self.entries
            if entry.service is not None
            and entry.service in (work.service, work.service_name)
            and entry.flow in (None, flow)
        ]
        return max(fitting, key=lambda entry: entry.flow is not None, default=None)

    def entry_for_run(self, flow: str) -> MappingEntry | None:
        """Return the entry for the runs of this flow, or None."""
        return next((each for each in self.entries if each.service is None and each.flow == flow), None)


def _work(service: str | None, flow: str | None) -> str:
    if service is None:
        return f"flow {flow!r}"
    return f"service {service!r}" + (f" in the flow {flow!r}" if flow else "")


def _faults(error: ValidationError, entry: str) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in fault["loc"])
        yield f"{entry}{', ' + place if place else ''}: {fault['msg']}"


def _named(given: Any) -> str:
    name = (given.get("service") or given.get("flow")) if isinstance(given, dict) else None
    return f" ({name})" if isinstance(name, str) and name else ""
