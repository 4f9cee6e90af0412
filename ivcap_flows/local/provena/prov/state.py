"""Model runs: accepted by prov-api, lodged by jobs into the registry and the graph."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from pydantic import ValidationError

from ivcap_flows.local.provena.faults import first_fault
from ivcap_flows.local.provena.files import Files
from ivcap_flows.local.provena.jobs.state import Done, Job, JobError, Jobs
from ivcap_flows.local.provena.prov import document
from ivcap_flows.local.provena.prov.graph import Graph, TooLargeError
from ivcap_flows.local.provena.prov.record import Fetch, Record, check
from ivcap_flows.local.provena.prov.report import REPORTED, report
from ivcap_flows.local.provena.registry.kinds import KINDS
from ivcap_flows.local.provena.registry.state import Entry, Registry
from ivcap_flows.local.provena.users import ACCOUNTS, User
from ivcap_flows.local.provena.web import CrashError, denied, invalid

__all__ = ["ModelRuns"]

_RUN = KINDS["MODEL_RUN"]
_REPORT_SECONDS = 3600


class ModelRuns:
    """The prov-api's work on model runs, in requests and in jobs."""

    def __init__(self, registry: Registry, jobs: Jobs, graph: Graph, files: Files) -> None:
        self.registry, self.jobs, self.graph, self._files = registry, jobs, graph, files
        jobs.work("MODEL_RUN_PROV_LODGE", self._lodge)
        jobs.work("MODEL_RUN_BATCH_SUBMIT", self._submit)
        jobs.work("MODEL_RUN_UPDATE", self._update)
        jobs.work("MODEL_RUN_LODGE_ONLY", self._lodge_only)
        jobs.work("MODEL_RUN_UPDATE_LODGE_ONLY", self._update_lodge_only)
        jobs.work("REGISTER_CREATE_ACTIVITY", self._register_creation)
        jobs.work("LODGE_CREATE_ACTIVITY", self._lodge_creation)
        jobs.work("REGISTER_VERSION_ACTIVITY", self._register_version)
        jobs.work("LODGE_VERSION_ACTIVITY", self._lodge_version)
        jobs.work("GENERATE_REPORT", self._report)

    def fetcher(self, user: User) -> Fetch:
        """Return the look-up to check a user's record with, limited to the items that the user may read."""

        def fetch(subtype: str, id: str) -> dict[str, Any] | None:  # noqa: A002 - the wire's own word
            entry = self.registry.get(id)
            if entry is None or entry.kind.subtype != subtype or entry.is_seed:
                return None
            if not self.registry.readable(user, entry):
                raise denied(f"The registry denied access to {id}.")
            return entry.item

        return fetch

    def dispatch(self, user: User, sub_type: str, **payload: Any) -> str:
        """Queue a job for a user; return its session id."""
        if user.email is None:
            raise CrashError
        return self.jobs.dispatch(user.username, sub_type, payload | {"user_info": _cipher()})

    def register(self, user: User, record: dict[str, Any]) -> str:
        """Check a record and queue its lodging. The same record twice makes two runs."""
        check(record, self.fetcher(user))
        return self.dispatch(user, "MODEL_RUN_PROV_LODGE", record=record, revalidate=False)

    def register_batch(self, user: User, records: list[dict[str, Any]]) -> str:
        """Queue the lodging of records, each by its own job, which checks it."""
        return self.dispatch(user, "MODEL_RUN_BATCH_SUBMIT", records=records)

    def update(self, user: User, run_id: str, reason: str, record: dict[str, Any]) -> str:
        """Check a new record for a run and queue its replacement."""
        check(record, self.fetcher(user))
        return self.dispatch(
            user,
            "MODEL_RUN_UPDATE",
            model_run_record_id=run_id,
            updated_record=record,
            reason=reason,
            revalidate=True,
        )

    def link_to_study(self, user: User, run_id: str, study_id: str) -> str:
        """Add a run without a study to one, at once in the registry and by a job in the graph."""
        fetch = self.fetcher(user)
        for subtype, item in (("MODEL_RUN", run_id), ("STUDY", study_id)):
            if fetch(subtype, item) is None:
                raise invalid(f"Validation failed for the entity {item}. It is not a complete {subtype}.")
        entry = self.registry.unlocked(run_id)
        if entry.kind.writers.isdisjoint(self.registry.roles(user, entry)):
            raise denied(f"You may not change the model run {run_id}.")
        if entry.item["record"]["study_id"] is not None:
            raise invalid(f"The model run {run_id} already has a study.")
        record = entry.item["record"] | {"study_id": study_id}
        self.registry.revise(entry, entry.info | {"record": record}, f"Linked to the study {study_id}", user.username)
        return self.dispatch(user, "MODEL_RUN_LODGE_ONLY", model_run_record_id=run_id, record=record, revalidate=False)

    def lodge(
        self, username: str, record: dict[str, Any], halfway: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Create a run from a checked record; return its `record_info`.

        `halfway` is called before the graph is written.
        """
        entry = self.registry.add(username, _RUN, None)
        info = {
            "display_name": record["display_name"],
            "user_metadata": None,
            "record_status": "COMPLETE",
            "record": record,
            "prov_serialisation": self.lineage(entry.id, record).prov_json(),
        }
        self.registry.revise(entry, info, "Initial record creation", username)
        halfway()
        self.graph.write(entry.id, self.lineage(entry.id, record))
        self.registry.revise(entry, info | {"record_status": "LODGED"}, "Record lodged into the graph", username)
        return {"id": entry.id, "prov_json": info["prov_serialisation"], "record": record}

    def lineage(self, run_id: str, record: dict[str, Any]) -> document.Lineage:
        """Return the lineage of a run."""
        workflow = self.registry.known(record["workflow_template_id"])
        return document.of_run(run_id, record, workflow.item["software_id"])

    def relodge(self, run_id: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write the current record of a run into the graph; return the run's `record_info`."""
        lineage = self.lineage(run_id, record)
        self.graph.write(run_id, lineage)
        return {"id": run_id, "prov_json": lineage.prov_json(), "record": record}

    def _checked(self, job: Job, name: str) -> dict[str, Any]:
        try:
            record = Record.model_validate(job.payload[name]).model_dump()
        except ValidationError as error:
            first = first_fault(error)
            raise JobError(f"The record is malformed: {first['loc']} {first['msg']}.") from error
        if job.payload["revalidate"]:
            try:
                check(record, self.fetcher(_user(job)))
            except HTTPException as refusal:
                raise JobError(str(refusal.detail)) from refusal
        return record

    def _run(self, job: Job) -> Entry:
        entry = self.registry.get(job.payload["model_run_record_id"])
        if entry is None or entry.kind is not _RUN or entry.is_seed:
            raise JobError("The model run could not be fetched from the registry. Error: ..")
        return entry

    def _lodge(self, job: Job) -> Done:
        return Done({"record": self.lodge(job.username, self._checked(job, "record"), job.halfway)})

    def _submit(self, job: Job) -> Done:
        records = job.payload["records"]
        if not records:
            raise JobError("The batch could not be submitted. Error: ..")
        batch = self.registry.store.new_id()
        for number, record in enumerate(records):
            if number == len(records) // 2:
                job.halfway()
            payload = {"record": record, "revalidate": True, "user_info": job.payload["user_info"]}
            self.jobs.dispatch(job.username, "MODEL_RUN_PROV_LODGE", payload, batch)
        return Done({"batch_id": batch}, f"Launched {len(records)} jobs.")

    def _update(self, job: Job) -> Done:
        record, entry = self._checked(job, "updated_record"), self._run(job)
        if entry.locked or entry.kind.writers.isdisjoint(self.registry.roles(_user(job), entry)):
            raise JobError("The model run could not be updated in the registry. Error: ..")
        info = {
            "display_name": record["display_name"],
            "user_metadata": entry.item["user_metadata"],
            "record_status": "COMPLETE",
            "record": record,
            "prov_serialisation": self.lineage(entry.id, record).prov_json(),
        }
        self.registry.revise(entry, info, job.payload["reason"], job.username)
        job.halfway()
        return Done({"record": self.relodge(entry.id, record)})

    def _lodge_only(self, job: Job) -> Done:
        record, entry = self._checked(job, "record"), self._run(job)
        job.halfway()
        return Done({"record": self.relodge(entry.id, record)})

    def _update_lodge_only(self, job: Job) -> Done:
        record, entry = self._checked(job, "updated_record"), self._run(job)
        job.halfway()
        self.relodge(entry.id, record)
        return Done({})

    def _register_creation(self, job: Job) -> Done:
        item = job.payload["created_item_id"]
        info = {"display_name": f"Created item {item}", "user_metadata": None, "created_item_id": item}
        activity = self.registry.add(job.username, KINDS["CREATE"], info).id
        session = self.jobs.dispatch(
            job.username, "LODGE_CREATE_ACTIVITY", job.payload | {"creation_activity_id": activity}
        )
        return Done({"creation_activity_id": activity, "lodge_session_id": session})

    def _lodge_creation(self, job: Job) -> Done:
        said, subtype = job.payload, job.payload["created_item_subtype"]
        item = document.Node(said["created_item_id"], KINDS[subtype].category, subtype)
        activity = said["creation_activity_id"]
        self.graph.write(activity, document.of_creation(activity, item, said["linked_person_id"]))
        return Done({})

    def _register_version(self, job: Job) -> Done:
        said = job.payload
        info = {
            "display_name": f"Versioned item {said['from_version_id']} to {said['to_version_id']}",
            "user_metadata": None,
            "reason": said["reason"],
            "from_item_id": said["from_version_id"],
            "to_item_id": said["to_version_id"],
            "new_version_number": said["version_number"],
        }
        activity = self.registry.add(job.username, KINDS["VERSION"], info).id
        keys = ("from_version_id", "to_version_id", "linked_person_id", "item_subtype")
        payload = {key: said[key] for key in keys} | {"version_activity_id": activity}
        session = self.jobs.dispatch(job.username, "LODGE_VERSION_ACTIVITY", payload)
        return Done({"version_activity_id": activity, "lodge_session_id": session})

    def _lodge_version(self, job: Job) -> Done:
        said, subtype = job.payload, job.payload["item_subtype"]
        new = document.Node(said["to_version_id"], KINDS[subtype].category, subtype)
        activity = said["version_activity_id"]
        lineage = document.of_version(activity, said["from_version_id"], new, said["linked_person_id"])
        self.graph.write(activity, lineage)
        return Done({})

    def _report(self, job: Job) -> Done:
        entry = self.registry.get(job.payload["id"])
        subtype = job.payload["item_subtype"]
        if subtype not in REPORTED:
            raise JobError(f"There are no reports of the subtype {subtype}, only of {' and '.join(REPORTED)}.")
        if entry is None or entry.is_seed:
            raise JobError("The report could not be generated. Error: ..")
        if entry.kind.subtype != subtype or not self.registry.readable(_user(job), entry):
            raise JobError("The report could not be generated. Error: ..")
        path = f"reports/{job.session_id}.docx"
        media = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
        try:
            written = report(self.registry, self.graph, entry, job.payload["depth"])
        except TooLargeError as error:
            raise JobError("The report could not be generated. Error: ..") from error
        self._files.put(path, media, written)
        return Done({"report_url": self._files.url(path, _REPORT_SECONDS)})


def _user(job: Job) -> User:
    account = ACCOUNTS.get(job.username)
    return account.user if account else User(job.username, None, frozenset())


def _cipher() -> str:
    """Return a stand-in for the encrypted user context, which no client can read."""
    return base64.b64encode(os.urandom(96)).decode()
