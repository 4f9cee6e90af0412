"""Model runs and lineage (prov-api). A write only starts a job; `jobs` reports how it ended."""

from __future__ import annotations

from typing import Any, Final, Literal

from ivcap_flows.errors import InputError
from ivcap_flows.http.concurrency_limit import ConcurrencyLimit
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.infos import Info
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.subtypes import kind_of
from ivcap_flows.provena.wire import Wire

__all__ = ["DEEPEST", "MAX_RECORD_BYTES", "Direction", "ProvApi"]

MAX_RECORD_BYTES: Final = 150_000
"""Maximum encoded bytes of a record, which is in one queue message of less than 262,144 bytes."""

DEEPEST: Final = 10
"""Maximum number of links that a lineage query follows one after the other."""

_DEEPEST_REPORT: Final = 3

Direction = Literal["upstream", "downstream"]
"""Towards the causes of an item, or towards its effects."""


class _Dispatched(Wire):
    session_id: str


class ProvApi(Api):
    """Model runs and lineage. Registration is not idempotent: sending the same record twice makes two model runs.

    Lineage includes all items, even those that the caller may not read. `depth` is the number of links to follow, at
    most 10; None is the server's default, which is 2 for upstream and downstream, and 4 for the other queries.
    `registering` limits the registrations in progress, by Provena's own replies.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.registering = ConcurrencyLimit("Registrations of model runs with Provena")

    async def register(self, record: ModelRunRecord) -> str:
        """Register one run and return the session id of its job.

        Raises InputError before sending, BadRequestError for what the server's own look-ups refuse (unknown ids,
        missing inputs, resources or annotations), and NotAuthorizedError for an item that the caller may not read.
        """
        body = await self.call("POST", "/model_run/register", repeat="keyed", json=record.body())
        return _session(body, "a registration")

    async def update(self, run: str, record: ModelRunRecord, *, reason: str) -> str:
        """Replace the record of a model run, in the registry and in the graph, and return the job's session id.

        The record is checked as for `register`. Only the job checks that `run` is a model run that the caller may
        change; if not, the job fails with hardly any explanation. Afterwards the run's `record_status` is COMPLETE, not
        LODGED.
        """
        body = {"model_run_id": run, "reason": reason, "record": record.body(unknown=True)}
        return _session(await self.call("POST", "/model_run/update", repeat="keyed", json=body), "an update")

    async def link_to_study(self, run: str, study: str) -> str:
        """Add a model run to a study; return the session id of the job that updates the graph.

        Raises BadRequestError if the server knows that the run has a study. For up to a minute it may use an older read
        of the run and accept the same link twice. The run's own record tells whether the link was made.
        """
        asked = {"model_run_id": run, "study_id": study}
        path = "/model_run/edit/link_to_study"
        return _session(await self.call("POST", path, repeat="keyed", params=asked), "a link to a study")

    async def explore(self, start: str, direction: Direction, *, depth: int | None = None) -> Lineage:
        """Return everything that led to an item (upstream) or resulted from it (downstream).

        Raises UnavailableError without a repeat for a 500, which is the server's reply to an unknown id.
        """
        return await self._explored(direction, start, depth)

    async def contributing_datasets(self, start: str, *, depth: int | None = None) -> Lineage:
        """Return the datasets that an item resulted from, and the paths to them. Raises as `explore` does."""
        return await self._explored("special/contributing_datasets", start, depth)

    async def effected_datasets(self, start: str, *, depth: int | None = None) -> Lineage:
        """Return the datasets that resulted from a dataset, and the paths to them. Raises as `explore` does."""
        return await self._explored("special/effected_datasets", start, depth)

    async def contributing_agents(self, start: str, *, depth: int | None = None) -> Lineage:
        """Return the persons and organisations behind an item, and the paths to them. Raises as `explore` does."""
        return await self._explored("special/contributing_agents", start, depth)

    async def effected_agents(self, start: str, *, depth: int | None = None) -> Lineage:
        """Return the persons and organisations behind the results of an item. Raises as `explore` does."""
        return await self._explored("special/effected_agents", start, depth)

    async def report(self, id: str, subtype: type[Info] | str, *, depth: int = 1) -> str:  # noqa: A002 - the platform's own word
        """Request a report about a MODEL_RUN or STUDY, up to 3 links deep; return the job's session id.

        The job's `report_url` leads to a .docx file for one hour; `ProvenaClient.documents` saves it. The job fails for
        other subtypes.
        """
        if not 1 <= depth <= _DEEPEST_REPORT:
            raise InputError(f"A report of Provena goes 1 to {_DEEPEST_REPORT} links deep, not {depth}.")
        body = {"id": id, "item_subtype": kind_of(subtype).subtype, "depth": depth}
        return _session(await self.call("POST", "/explore/generate/report", repeat="idempotent", json=body), "a report")

    async def csv_template(self, workflow_template: str) -> str:
        """Return a CSV file with a header and no rows, to be filled with model runs of a workflow template.

        Raises BadRequestError if the id is not a workflow template; UnavailableError, without a repeat, if two columns
        would have the same name.
        """
        asked = {"workflow_template_id": workflow_template}
        path = "/bulk/generate_template/csv"
        return await self.call_text("GET", path, repeat="idempotent", params=asked, final=(500,))

    async def _explored(self, query: str, start: str, depth: int | None) -> Lineage:
        if depth is not None and not 1 <= depth <= DEEPEST:
            raise InputError(f"Provena follows 1 to {DEEPEST} links, not {depth}.")
        asked = {"starting_id": start, "depth": depth}
        body = await self.call("GET", f"/explore/{query}", repeat="idempotent", params=asked, final=(500,))
        return parse(Lineage, body.get("graph") or {}, "lineage graph")


def _session(body: dict[str, Any], what: str) -> str:
    return parse(_Dispatched, body, f"answer to {what}").session_id
