"""Provena's template sheet for model runs: which column is which field (see prov-api's `bulk/generate_template`).

The header names the workflow template and, for each input and output, its dataset template. The columns of a dataset's
resources follow the dataset's column. The `key` column is an addition of this package. Unknown columns are reported and
ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from ivcap_flows.errors import InputError
from ivcap_flows.registration.rows import Fault, Row

__all__ = ["FILLED", "HANDLE", "JOB", "Sheet", "filled_in"]

_WORKFLOW: Final = "_workflow template id "
_START: Final = "execution start time (YYYY-MM-DD HH:MM:SS+HH:MM)"
_END: Final = "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)"
_TEXTS: Final = {
    "display name": "display_name",
    "description": "description",
    "model version (optional)": "model_version",
    "study id": "study_id",
}
_AGENT: Final = "agent id"
_TIMES: Final = {_START: "start_time", _END: "end_time"}
_DATASET: Final = re.compile(r"(Input|Output) dataset id for template: .*\[template id: (.+?)\]$", re.DOTALL)
_RESOURCE: Final = re.compile(r"(Input|Output) resource: (.+)$", re.DOTALL)
_ANNOTATION: Final = "annotation: "
JOB: Final = "_job_id"
_STATUS: Final = "_job_status"
HANDLE: Final = "_model_run_record_id"
FILLED: Final = (JOB, _STATUS, HANDLE, "_error_info")
"""Columns that Provena fills in."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME: Final = re.compile(r"\d{4}([-/])\d\d\1\d\d[ T]\d\d:\d\d(:\d\d)?([+-]\d\d:\d\d)?")
"""Times in the forms that Provena's guide lists. Its converter takes no offset such as `+1000` or `Z`."""


@dataclass
class Sheet:
    """The columns of one sheet."""

    workflow: str
    names: dict[str, str] = field(default_factory=dict)
    """Column names by field of a record; a dataset's field has its template in place of its number."""
    warnings: list[str] = field(default_factory=list)
    _header: tuple[str, ...] = ()
    _ends: list[tuple[str, str, int, dict[str, int]]] = field(default_factory=list)
    """For each dataset: its side, its dataset template, the column of its id, and the columns of its resources."""
    _annotations: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, header: Sequence[str], what: str) -> Sheet:
        """Read a header. Raises InputError, which names `what` was read, if it is not that of Provena's template."""
        columns = tuple(name.strip() for name in header)
        workflows = [name.removeprefix(_WORKFLOW) for name in columns if name.startswith(_WORKFLOW)]
        twice = [name for name, count in Counter(columns).items() if count > 1 and name]
        needed = ("display name", "description", _AGENT, _START, _END)
        missing = [name for name in needed if name not in columns]
        faults = [f"the column {name!r} is missing" for name in missing]
        faults += [f"the column {name!r} is there twice" for name in twice]
        if len(workflows) != 1:
            faults.insert(0, f"one column must be named `{_WORKFLOW}<handle>`, but {len(workflows) or 'none'} is")
        if faults:
            raise InputError(
                f"The header of {what} is not that of Provena's template for model runs: {'; '.join(faults)}. "
                "`ivcap-flows models template <handle>` writes that of your workflow template.",
                faults=faults,
            )
        sheet = cls(workflows[0], _header=columns)
        sheet.names["workflow_template_id"] = f"{_WORKFLOW}{workflows[0]}"
        for place, name in enumerate(columns):
            sheet._add(place, name)
        return sheet

    def row(self, number: int, cells: Sequence[str], line: int | None = None) -> Row:
        """Make a row from its cells. `line` is the line of the file on which the row ends.

        Faults name fields, not columns, like the faults that are found later. A row with a wrong number of cells is not
        read, since its values may be in the wrong columns.
        """
        if len(cells) != len(self._header):
            words = f"The row has {len(cells)} cells, but the header has {len(self._header)}"
            words = f"Line {line}: {words}. Put quotes around a cell that contains a comma" if line else words
            return Row(number, None, faults=(Fault(number, "the row", "unreadable", words),))
        values = {name: cell.strip() for name, cell in zip(self._header, cells, strict=True)}
        key = values.get("key") or None
        handle, job, faults = filled_in(number, values)
        if job or handle:
            return Row(number, None, key, handle, job, tuple(faults))
        body: dict[str, Any] = {"workflow_template_id": self.workflow, "inputs": [], "outputs": []}
        body |= {name: values[column] for column, name in _TEXTS.items() if values.get(column)}
        body["associations"] = {"modeller_id": values[_AGENT]} if values.get(_AGENT) else {}
        for column, name in _TIMES.items():
            if text := values.get(column):
                try:
                    body[name] = _seconds(text)
                except ValueError as error:
                    body[name] = 0
                    faults.append(Fault(number, name, "time", str(error)))
        for side, template, place, resources in self._ends:
            dataset = cells[place].strip()
            paths = {key: cells[at].strip() for key, at in resources.items() if cells[at].strip()}
            if dataset or paths:
                part = {"dataset_template_id": template, "dataset_id": dataset, "dataset_type": "DATA_STORE"}
                body[side].append(part | ({"resources": paths} if paths else {}))
        annotations = {key: cells[at].strip() for key, at in self._annotations.items()}
        body["annotations"] = {key: text for key, text in annotations.items() if text}
        return Row(number, body, key, faults=tuple(faults))

    def _add(self, place: int, name: str) -> None:
        if found := _DATASET.match(name):
            side, template = found[1].lower() + "s", found[2]
            self._ends.append((side, template, place, {}))
            self.names[f"{side}[{template}]"] = self.names[f"{side}[{template}].dataset_id"] = name
        elif (found := _RESOURCE.match(name)) and self._ends and self._ends[-1][0] == found[1].lower() + "s":
            side, template, _, resources = self._ends[-1]
            resources[found[2]] = place
            self.names[f"{side}[{template}].resources.{found[2]}"] = name
        elif name.startswith(_ANNOTATION):
            key = name.removeprefix(_ANNOTATION)
            self._annotations[key] = place
            self.names[f"annotations.{key}"] = name
        elif name in _TEXTS:
            self.names[_TEXTS[name]] = name
        elif name in _TIMES:
            self.names[_TIMES[name]] = name
        elif name == _AGENT:
            self.names["associations.modeller_id"] = name
        elif name and not name.startswith(_WORKFLOW) and name not in (*FILLED, "key"):
            self.warnings.append(f"The column {name!r} is unknown and is ignored.")


def filled_in(number: int, values: Mapping[str, Any]) -> tuple[str | None, str | None, list[Fault]]:
    """Return the handle and the job of a row, from the columns that Provena fills in, and the faults in them.

    A row with either claims that it was registered before. A failed job does not count.
    """
    job, status, handle = (str(values[name]) if values.get(name) else None for name in (JOB, _STATUS, HANDLE))
    if status == "FAILED" and handle is None:
        return None, None, []
    faults = []
    if job is not None and not _UUID.fullmatch(job):
        words = f"{job!r} is not a UUID, so it names no job. Correct the column, or empty it to register the row"
        faults.append(Fault(number, JOB, "wrong value", words))
    return handle, job, faults


def _seconds(text: str) -> int:
    """Return the Unix seconds of a time. Raises ValueError that says what is wrong with the text."""
    found = _TIME.fullmatch(text)
    try:
        time = datetime.fromisoformat(text.replace("/", "-")) if found else None
    except ValueError:
        time = None
    if time is None:
        raise ValueError(f"{text!r} must have the form YYYY-MM-DD HH:MM:SS+HH:MM, with the offset from UTC")
    if time.tzinfo is None:
        raise ValueError(
            f"{text!r} has no offset from UTC. Provena's guide reads such a time as UTC, and its converter in the "
            f"server's own zone. For UTC, write {text}+00:00"
        )
    return int(time.timestamp())
