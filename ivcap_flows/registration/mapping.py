"""Which orders and jobs are model runs on Provena, and as what: a YAML file of the user's.

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
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.provena.datasets import DatasetDefaults

__all__ = ["MappingEntry", "ModelRunMapping"]

Text = Annotated[str, Field(min_length=1)]


class MappingEntry(BaseModel):
    """The orders and jobs of one service, in one flow or in any, as runs of one workflow template.

    Everything but the service and the flow is named by its handle on Provena. Without `modeller` it is the person that
    the user is linked to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Text
    flow: Text | None = None
    workflow_template: Text
    inputs: dict[str, Text] = Field(default_factory=dict)
    outputs: dict[str, Text] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    organisation: Text | None = None
    modeller: Text | None = None
    study: Text | None = None
    datasets: DatasetDefaults | None = None


@dataclass(frozen=True)
class ModelRunMapping:
    """The entries of a mapping file."""

    entries: tuple[MappingEntry, ...]

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
        pairs = Counter((entry.service, entry.flow) for entry in entries)
        for (service, flow), count in pairs.items():
            if count > 1:
                where = f" in the flow {flow!r}" if flow else ""
                faults.append(f"{count} entries are for the service {service!r}{where}")
        if faults:
            raise InputError(f"The mapping {path} is wrong. {'; '.join(faults)}.", path=str(path), faults=faults)
        return cls(tuple(entries))

    def entry_for(self, work: Order | Job, flow: str) -> MappingEntry | None:
        """The entry that makes work of this flow a model run, or None."""
        fitting = [
            entry
            for entry in self.entries
            if entry.service in (work.service, work.service_name) and entry.flow in (None, flow)
        ]
        return max(fitting, key=lambda entry: entry.flow is not None, default=None)


def _faults(error: ValidationError, entry: str) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in fault["loc"])
        yield f"{entry}{', ' + place if place else ''}: {fault['msg']}"


def _named(given: Any) -> str:
    name = given.get("service") if isinstance(given, dict) else None
    return f" ({name})" if isinstance(name, str) and name else ""
