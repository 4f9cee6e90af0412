"""Model runs and the jobs that lodge them (source: provena/provena, prov-api and job-api). Times are Unix seconds."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Final

from pydantic import Field, SecretStr

from ivcap_flows.errors import RegistrationFailedError
from ivcap_flows.provena.wire import Wire, blank, no_seconds

__all__ = ["TERMINAL", "Associations", "JobRow", "Lodged", "ModelRunRecord", "TemplatedDataset"]

TERMINAL: Final = frozenset({"SUCCEEDED", "FAILED"})
"""The states that a job never leaves."""


class TemplatedDataset(Wire):
    """A dataset in the role that a dataset template of the workflow gives it.

    `resources` maps the template's deferred resource keys to relative paths, which the server does not check.
    """

    dataset_template_id: str
    dataset_id: str
    dataset_type: str = "DATA_STORE"
    resources: dict[str, str] | None = None

    def faults(self) -> list[str]:
        return blank(self, "dataset_template_id", "dataset_id")


class Associations(Wire):
    """The person who ran the model (a PERSON) and, optionally, for which ORGANISATION."""

    modeller_id: str
    requesting_organisation_id: str | None = None

    def faults(self) -> list[str]:
        return blank(self, "modeller_id", "requesting_organisation_id")


class ModelRunRecord(Wire):
    """The registered facts of a model run. Times are Unix seconds; the workflow template names the model."""

    workflow_template_id: str
    model_version: str | None = None
    inputs: list[TemplatedDataset] = Field(default_factory=list)
    outputs: list[TemplatedDataset] = Field(default_factory=list)
    annotations: dict[str, str] | None = None
    display_name: str
    description: str
    study_id: str | None = None
    associations: Associations
    start_time: int
    end_time: int

    def of_handle(self) -> dict[str, Any]:
        """Return the record's content by the fields of a `ModelRun` handle."""
        return {
            "workflow_template": self.workflow_template_id,
            "display_name": self.display_name,
            "description": self.description,
            "started_at": datetime.fromtimestamp(self.start_time, timezone.utc),
            "finished_at": datetime.fromtimestamp(self.end_time, timezone.utc),
            "inputs": tuple(part.dataset_id for part in self.inputs),
            "input_templates": tuple(part.dataset_template_id for part in self.inputs),
            "outputs": tuple(part.dataset_id for part in self.outputs),
            "output_templates": tuple(part.dataset_template_id for part in self.outputs),
            "study": self.study_id,
            "model_version": self.model_version,
            "annotations": dict(self.annotations or {}),
            "modeller": self.associations.modeller_id,
            "organisation": self.associations.requesting_organisation_id,
        }

    def faults(self) -> list[str]:
        found = blank(self, "workflow_template_id", "display_name", "description", "study_id")
        found += no_seconds(self, "start_time", "end_time")
        if self.end_time < self.start_time:
            found.append(f"end_time ({self.end_time}) is before start_time ({self.start_time})")
        return found


class Lodged(Wire):
    """The result of a lodged model run: its handle, its record, and PROV-JSON as text."""

    id: str
    prov_json: str | None = None
    record: ModelRunRecord | None = None


class JobRow(Wire):
    """A row of the job API.

    `status` goes from PENDING to DEQUEUED to IN_PROGRESS to SUCCEEDED or FAILED; any of the first three may be skipped.
    """

    session_id: str
    created_timestamp: int | None = None
    username: str | None = None
    batch_id: str | None = None
    job_type: str | None = None
    job_sub_type: str | None = None
    status: str
    info: str | None = None
    payload: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        return self.status in TERMINAL

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED"

    @property
    def record(self) -> ModelRunRecord | None:
        """The model run record that was sent, or None for another kind of job."""
        sent = self.payload.get("record") or self.payload.get("updated_record")
        return ModelRunRecord.model_validate(sent) if isinstance(sent, dict) else None

    @property
    def lodged(self) -> Lodged | None:
        """The lodged model run once a registration has succeeded."""
        found = (self.result or {}).get("record")
        return Lodged.model_validate(found) if self.succeeded and isinstance(found, dict) else None

    @property
    def report_url(self) -> SecretStr | None:
        """For a succeeded report: the document's URL, valid for one hour for everybody who has it."""
        url = (self.result or {}).get("report_url")
        return SecretStr(url) if isinstance(url, str) and url else None

    def checked(self) -> JobRow:
        """Return this row. Raises RegistrationFailedError if the job failed."""
        if self.status != "FAILED":
            return self
        why = (self.info or "").strip() or "Provena gives no reason"
        raise RegistrationFailedError(
            f"The Provena job {self.session_id} ({self.job_sub_type or 'of unknown kind'}) failed: {why}",
            session_id=self.session_id,
            detail=self.info,
        )
