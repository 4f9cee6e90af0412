"""Model runs and lineage (prov-api). Writes only dispatch a job; `jobs` tells how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field

from ivcap_flows.errors import InputError
from ivcap_flows.http.multipart import file_form
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.infos import Info
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.subtypes import kind_of
from ivcap_flows.provena.wire import Wire

__all__ = ["DEEPEST", "MAX_BATCH_BYTES", "Converted", "Direction", "ProvApi", "batches"]

MAX_BATCH_BYTES: Final = 150_000
"""Encoded size of the records of one batch. The whole batch is one queue message of less than 262,144 bytes."""

DEEPEST: Final = 10
"""Links that a look at lineage may follow one after the other."""

_DEEPEST_REPORT: Final = 3

Direction = Literal["upstream", "downstream"]
"""Towards what something came of, or towards what came of it."""


class _Dispatched(Wire):
    session_id: str


class Converted(Wire):
    """A file of model runs as records: those to register, the jobs of those that were, and what was ignored."""

    new_records: list[ModelRunRecord] = Field(default_factory=list)
    existing_records: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)


class ProvApi(Api):
    """Registration is not idempotent: the same record sent twice makes two model runs.

    Lineage is that of all items, whether or not the caller may read them. A `depth` is the number of links that are
    followed, at most 10; None is the server's own, which is 2 upstream and downstream, and 4 for the others.
    """

    async def register(self, record: ModelRunRecord) -> str:
        """Register one run and return the session id of its job.

        Raises InputError before sending, BadRequestError for what the server's own look-ups refuse (unknown ids,
        missing inputs, resources or annotations), NotAuthorizedError for an item that the caller may not read.
        """
        return await self._dispatch("/model_run/register", record.body())

    async def register_batch(self, records: Sequence[ModelRunRecord]) -> str:
        """Register several runs in one job and return its session id.

        The server checks only the shape now; what else is wrong shows as failed child jobs. Raises InputError for an
        empty batch and for one above `MAX_BATCH_BYTES`; `batches` cuts a longer list.
        """
        if not records:
            raise InputError("A batch of model runs is empty; give at least one record.")
        bodies = [record.body() for record in records]
        size = sum(map(_encoded_size, bodies))
        if size > MAX_BATCH_BYTES and len(bodies) > 1:
            raise InputError(
                f"A batch of {len(bodies)} model runs has {size:,} bytes, and Provena takes {MAX_BATCH_BYTES:,}; "
                "send it in several batches.",
                size=size,
                limit=MAX_BATCH_BYTES,
            )
        return await self._dispatch("/model_run/register_batch", {"records": bodies})

    async def update(self, run: str, record: ModelRunRecord, *, reason: str) -> str:
        """Replace the record of a model run, in the registry and in the graph, and return the job's session id.

        The record is checked as for `register`. That the run is one, and the caller's to change, is checked by the job:
        it fails with hardly a word otherwise. Afterwards the run's `record_status` is COMPLETE, not LODGED.
        """
        body = {"model_run_id": run, "reason": reason, "record": record.body(unknown=True)}
        return _session(await self.call("POST", "/model_run/update", repeat="keyed", json=body), "an update")

    async def link_to_study(self, run: str, study: str) -> str:
        """Add a model run to a study and return the session id of the job that does so in the graph.

        Raises BadRequestError for a run that has a study, as far as the server knows: for a minute it may go by what it
        read before, and take the same link twice. The run's own record tells whether it took.
        """
        asked = {"model_run_id": run, "study_id": study}
        path = "/model_run/edit/link_to_study"
        return _session(await self.call("POST", path, repeat="keyed", params=asked), "a link to a study")

    async def explore(self, start: str, direction: Direction, *, depth: int | None = None) -> Lineage:
        """All that leads to an item (upstream) or comes of it (downstream).

        Raises UnavailableError, without asking twice, for a 500: the server's answer to an id that it does not know.
        """
        return await self._explored(direction, start, depth)

    async def contributing_datasets(self, start: str, *, depth: int | None = None) -> Lineage:
        """The datasets that an item came of, and the ways to them. Raises as `explore`."""
        return await self._explored("special/contributing_datasets", start, depth)

    async def effected_datasets(self, start: str, *, depth: int | None = None) -> Lineage:
        """The datasets that came of a dataset, and the ways to them. Raises as `explore`."""
        return await self._explored("special/effected_datasets", start, depth)

    async def contributing_agents(self, start: str, *, depth: int | None = None) -> Lineage:
        """The persons and organisations behind an item, and the ways to them. Raises as `explore`."""
        return await self._explored("special/contributing_agents", start, depth)

    async def effected_agents(self, start: str, *, depth: int | None = None) -> Lineage:
        """The persons and organisations behind what came of an item. Raises as `explore`."""
        return await self._explored("special/effected_agents", start, depth)

    async def report(self, id: str, subtype: type[Info] | str, *, depth: int = 1) -> str:  # noqa: A002 - the platform's own word
        """Have a document written about a MODEL_RUN or STUDY, up to 3 links deep, and return the job's session id.

        The job's `report_url` leads to a .docx file for an hour; `ProvenaClient.documents` saves it. For other subtypes
        the job fails.
        """
        if not 1 <= depth <= _DEEPEST_REPORT:
            raise InputError(f"A report of Provena goes 1 to {_DEEPEST_REPORT} links deep, not {depth}.")
        body = {"id": id, "item_subtype": kind_of(subtype).subtype, "depth": depth}
        return _session(await self.call("POST", "/explore/generate/report", repeat="idempotent", json=body), "a report")

    async def csv_template(self, workflow_template: str) -> str:
        """A CSV file with a header and no rows, to be filled with model runs of a workflow template.

        Raises BadRequestError for what is no workflow template; UnavailableError, without asking twice, where two
        columns would bear one name.
        """
        asked = {"workflow_template_id": workflow_template}
        path = "/bulk/generate_template/csv"
        return await self.call_text("GET", path, repeat="idempotent", params=asked, final=(500,))

    async def convert_csv(self, content: str | bytes) -> Converted:
        """The records in a filled CSV template. Registers nothing; a row with a `_job_id` counts as registered.

        Raises BadRequestError that names the first fault: missing columns, no rows, an empty cell, a bad time.
        """
        raw = content.encode() if isinstance(content, str) else content
        form = file_form("csv_file", "model_runs.csv", raw, "text/csv")
        body = await self.call("POST", "/bulk/convert_model_runs/csv", repeat="idempotent", form=form)
        given = {name: body[name] for name in Converted.model_fields if body.get(name) is not None}
        return parse(Converted, given, "converted model runs")

    async def regenerate_csv(self, batch: str) -> str:
        """The CSV file of a batch, with the job, its status, and the handle or the error of each run.

        Raises BadRequestError unless all runs are of one workflow template and fill all that it has, the optional too;
        UnavailableError, without asking twice, for an unknown batch.
        """
        path = "/bulk/regenerate_from_batch/csv"
        return await self.call_text("GET", path, repeat="idempotent", params={"batch_id": batch}, final=(500,))

    async def _dispatch(self, path: str, body: dict[str, Any]) -> str:
        return _session(await self.call("POST", path, repeat="keyed", json=body), "a registration")

    async def _explored(self, query: str, start: str, depth: int | None) -> Lineage:
        if depth is not None and not 1 <= depth <= DEEPEST:
            raise InputError(f"Provena follows 1 to {DEEPEST} links, not {depth}.")
        asked = {"starting_id": start, "depth": depth}
        body = await self.call("GET", f"/explore/{query}", repeat="idempotent", params=asked, final=(500,))
        return parse(Lineage, body.get("graph") or {}, "lineage graph")


def batches(records: Sequence[ModelRunRecord]) -> list[list[ModelRunRecord]]:
    """The records in their order, cut so that each part may be sent as one batch."""
    parts: list[list[ModelRunRecord]] = []
    room = 0
    for record in records:
        size = _encoded_size(record.body())
        if not parts or size > room:
            parts.append([])
            room = MAX_BATCH_BYTES
        parts[-1].append(record)
        room -= size
    return parts


def _session(body: dict[str, Any], what: str) -> str:
    return parse(_Dispatched, body, f"answer to {what}").session_id


def _encoded_size(body: dict[str, Any]) -> int:
    return len(json.dumps(body).encode())
