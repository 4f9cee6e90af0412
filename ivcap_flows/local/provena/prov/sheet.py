"""CSV sheets of model runs: the empty template, conversion into records, and the sheet of a batch's jobs."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections import Counter
from datetime import datetime, timezone
from typing import Any

from fastapi import HTTPException
from pydantic import ValidationError

from ivcap_flows.local.provena.faults import first_fault
from ivcap_flows.local.provena.prov.record import Fetch, Record
from ivcap_flows.local.provena.web import CrashError, invalid

__all__ = ["Sheet", "convert", "regenerate"]

_WORKFLOW = "_workflow template id "
_START = "execution start time (YYYY-MM-DD HH:MM:SS+HH:MM)"
_END = "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)"
_FIXED = ("display name", "description", "model version (optional)", "agent id", "study id", _START, _END)
_JOB = ("_job_id", "_job_status", "_model_run_record_id", "_error_info")
_TIME = re.compile(r"\d{4}([-/])\d\d\1\d\d[ T]\d\d:\d\d(:\d\d)?[+-]\d\d:\d\d")


class Sheet:
    """The columns of one workflow template."""

    def __init__(self, workflow_id: str, fetch: Fetch) -> None:
        """Raises the 400 refusal of a template that cannot be fetched."""
        self._fetch = fetch
        found = fetch("MODEL_RUN_WORKFLOW_TEMPLATE", workflow_id)
        if found is None:
            raise invalid(f"{workflow_id} is not the id of a complete MODEL_RUN_WORKFLOW_TEMPLATE.")
        self.workflow = found
        self.ends: list[tuple[str, str, str, dict[str, str]]] = []
        for end in ("input", "output"):
            for part in found[f"{end}_templates"]:
                template = fetch("DATASET_TEMPLATE", part["template_id"])
                if template is None:
                    raise invalid(f"{part['template_id']} is not the id of a complete DATASET_TEMPLATE.")
                word = end.capitalize()
                column = f"{word} dataset id for template: {template['display_name']} [template id: {template['id']}]"
                keys = [resource["key"] for resource in template["deferred_resources"]]
                self.ends.append((end, template["id"], column, {key: f"{word} resource: {key}" for key in keys}))
        annotations = found["annotations"] or {"required": [], "optional": []}
        self.annotations = {key: f"annotation: {key}" for key in (*annotations["required"], *annotations["optional"])}
        self.required = annotations["required"]

    @property
    def header(self) -> list[str]:
        """All columns in order. Raises a 500 refusal if two would be the same."""
        ends = [name for _, _, column, resources in self.ends for name in (column, *resources.values())]
        names = [_WORKFLOW + self.workflow["id"], *_FIXED, *ends, *self.annotations.values(), *_JOB]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise HTTPException(500, f"The sheet would have columns twice: {', '.join(twice)}.")
        return names

    def text(self, rows: list[dict[str, str]]) -> str:
        """Return the sheet as CSV with these rows."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.header, restval="")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def record(self, row: dict[str, str]) -> dict[str, Any]:
        """Return the record of a row. Raises a 400 refusal for a cell that cannot be used."""
        sides: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        for end, template, column, resources in self.ends:
            if missing := [name for name in (column, *resources.values()) if not row[name]]:
                raise invalid(f"The columns {', '.join(missing)} need a value.")
            if self._fetch("DATASET", row[column]) is None:
                raise invalid(f"{row[column]} is not the id of a complete DATASET.")
            dataset = {"dataset_template_id": template, "dataset_id": row[column], "dataset_type": "DATA_STORE"}
            given = {key: row[name] for key, name in resources.items()}
            sides[f"{end}s"].append(dataset | {"resources": given or None})
        annotations = {key: row[name] for key, name in self.annotations.items() if row[name]}
        if lacking := [key for key in self.required if key not in annotations]:
            raise invalid(f"The annotations {', '.join(lacking)} need a value.")
        record = {
            "workflow_template_id": self.workflow["id"],
            "model_version": row["model version (optional)"] or None,
            **sides,
            "annotations": annotations or None,
            "display_name": row["display name"],
            "description": row["description"],
            "study_id": row["study id"] or None,
            "associations": {"modeller_id": row["agent id"]},
            "start_time": _seconds(row[_START]),
            "end_time": _seconds(row[_END]),
        }
        try:
            return Record.model_validate(record).model_dump()
        except ValidationError as error:
            first = first_fault(error)
            raise invalid(f"A row is no model run: {first['loc'][-1]}: {first['msg']}") from error

    def row(self, job: dict[str, Any]) -> dict[str, str]:
        """Return the row of a job. Raises a 400 refusal if its record omits a part of the workflow template."""
        record = job["payload"]["record"]
        row = {
            "display name": record["display_name"],
            "description": record["description"],
            "model version (optional)": record.get("model_version", ""),
            "agent id": record["associations"]["modeller_id"],
            "study id": record.get("study_id", ""),
            _START: _written(record["start_time"]),
            _END: _written(record["end_time"]),
            "_job_id": job["session_id"],
            "_job_status": job["status"],
            "_model_run_record_id": job["result"]["record"]["id"] if job["status"] == "SUCCEEDED" else "",
            "_error_info": job["info"] or "" if job["status"] == "FAILED" else "",
        }
        for end, template, column, resources in self.ends:
            filled = [part for part in record[f"{end}s"] if part["dataset_template_id"] == template]
            if not filled or not resources.keys() <= filled[0].get("resources", {}).keys():
                raise invalid(f"The record of the job {job['session_id']} does not fill the template {template}.")
            row[column] = filled[0]["dataset_id"]
            row |= {name: filled[0]["resources"][key] for key, name in resources.items()}
        annotations = record.get("annotations", {})
        return row | {name: annotations.get(key, "") for key, name in self.annotations.items()}


def convert(content: bytes, fetch: Fetch) -> dict[str, Any]:
    """Return the records of a sheet: the new ones, those lodged before, and warnings about unknown columns."""
    try:
        # As in the real server, a byte-order mark stays and changes the name of the first column.
        lines = [line for line in csv.reader(io.StringIO(content.decode())) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise invalid(f"The file is no CSV text in UTF-8: {error}.") from error
    if len(lines) < 2:
        raise invalid("The file has no rows.")
    header = lines[0]
    workflows = [name.removeprefix(_WORKFLOW).strip() for name in header if name.startswith(_WORKFLOW)]
    if len(workflows) != 1 or len(set(header)) != len(header):
        raise invalid("The file has a column twice, or not one column that names its workflow template.")
    sheet = Sheet(workflows[0], fetch)
    if missing := [name for name in sheet.header if name not in header]:
        raise invalid(f"The file lacks the columns {', '.join(missing)}.")
    new: list[dict[str, Any]] = []
    existing: list[str] = []
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise invalid(f"The row {number} has {len(line)} cells, and the header {len(header)}.")
        row = {name: cell.strip() for name, cell in zip(header, line, strict=True)}
        if job := row["_job_id"]:
            existing.append(_uuid(job))
        else:
            new.append(sheet.record(row))
    extra = [name for name in header if name not in sheet.header]
    warnings = [f"The unknown column {name} was ignored." for name in extra]
    return {"new_records": new, "existing_records": existing, "warnings": warnings}


def regenerate(jobs: list[dict[str, Any]], fetch: Fetch) -> str:
    """Return the sheet of the jobs of a batch."""
    if not jobs:
        raise CrashError
    if any(job["job_sub_type"] != "MODEL_RUN_PROV_LODGE" for job in jobs):
        raise invalid("The batch holds jobs that lodge no model run.")
    workflows = {job["payload"]["record"]["workflow_template_id"] for job in jobs}
    if len(workflows) != 1:
        raise invalid("The batch holds model runs of several workflow templates.")
    sheet = Sheet(workflows.pop(), fetch)
    return sheet.text([sheet.row(job) for job in jobs])


def _uuid(text: str) -> str:
    try:
        uuid.UUID(text)
    except ValueError as error:
        raise invalid(f"The job id {text!r} was not a valid UUID4 identifier.") from error
    return text


def _seconds(text: str) -> int:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        return int(datetime.fromisoformat(text.replace("/", "-")).timestamp())
    except ValueError as error:
        raise invalid(f"The time {text!r} is not of the form YYYY-MM-DD HH:MM:SS+HH:MM.") from error


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(sep=" ")
