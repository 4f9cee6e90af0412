"""Which orders, jobs and flows are model runs on Provena, and as what: a YAML file of the user's, or the same in code.

- service: coastal-el-nino-index           # its name or URN
  flow: coastal                            # optional; goes before an entry without one
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
  model_version: {annotation: version}     # what the flow has said by annotate()
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
    """The data for one dataset template: what has the name under which this stands, or a registered `dataset`.

    `dataset` is a handle, or where one comes from. `resources` gives the deferred resources of the template, key to
    relative path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: Text
    dataset: Stated | None = None
    resources: dict[str, Stated] = Field(default_factory=dict)


class MappingEntry(BaseModel):
    """The orders and jobs of one service, in one flow or in any, or without a service the runs of a flow, as runs of
    one workflow template.

    Everything but the service and the flow is named by its handle on Provena. `inputs` and `outputs` go from a name to
    a dataset template, or to a `DataUse`. What differs from run to run is taken from the work by a `ValueFrom`. Without
    `modeller` it is the person that the user is linked to.
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
        """The data of one side by name."""
        given: dict[str, str | DataUse] = getattr(self, side)
        return {name: DataUse(template=use) if isinstance(use, str) else use for name, use in given.items()}


@dataclass(frozen=True)
class ModelRunMapping:
    """The entries of a mapping."""

    entries: tuple[MappingEntry, ...]

    @staticmethod
    def is_in_code(place: str) -> bool:
        """Whether a place names a mapping in code, as `module:name`, rather than a file."""
        return _IN_CODE.fullmatch(place) is not None and not os.path.exists(place)

    @classmethod
    def named(cls, place: str) -> ModelRunMapping:
        """The mapping in the YAML file of this path, or the object in code that `module:name` names: a mapping, or the
        entries of one. InputError for what is none."""
        if not cls.is_in_code(place):
            return cls.read(Path(place))
        module, _, name = place.partition(":")
        here = os.getcwd()
        try:
            # As `python -m` has it: a module of the user's lies in the working directory.
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
            raise InputError(f"{place} is no mapping. Make it a ModelRunMapping or a list of MappingEntry.", path=place)
        if faults := made.clashes():
            raise InputError(f"The mapping {place} is wrong. {'; '.join(faults)}.", path=place, faults=faults)
        return made

    @classmethod
    def read(cls, path: Path) -> ModelRunMapping:
        """The mapping in a YAML file. InputError names the file and every fault in it with its place; data: `path`,
        `faults`."""
        import yaml

        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"The mapping {path} cannot be read ({error.strerror}).", path=str(path)) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"The mapping {path} is no YAML: {error}", path=str(path)) from error
        if not isinstance(value, list):
            raise InputError(f"The mapping {path} must be a list with one entry for each service.", path=str(path))
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
        """What more than one entry is for."""
        pairs = Counter((entry.service, entry.flow) for entry in self.entries)
        return [
            f"{count} entries are for the {_work(service, flow)}"
            for (service, flow), count in pairs.items()
            if count > 1
        ]

    def entry_for(self, work: Order | Job, flow: str) -> MappingEntry | None:
        """The entry that makes work of this flow a model run, or None."""
        fitting = [
            entry
            for entry in self.entries
            if entry.service is not None
            and entry.service in (work.service, work.service_name)
            and entry.flow in (None, flow)
        ]
        return max(fitting, key=lambda entry: entry.flow is not None, default=None)

    def entry_for_run(self, flow: str) -> MappingEntry | None:
        """The entry that makes the runs of this flow model runs, or None."""
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
