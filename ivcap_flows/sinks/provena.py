"""Model runs on Provena that a run asked for and did not see lodged, because its process ended in between.

Nothing is sent from here: a registration needs what only the flow's own task knows (templates, datasets, people). What
that task did send is looked for under its key and noted in the journal, so that the task finds it done.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.handles import ModelRun
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.sinks.base import Delivery

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal, RunRow
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.provena.runs import JobRow

__all__ = ["KEY_ANNOTATION", "ProvenaSink"]

KEY_ANNOTATION: Final = "ivcap-flows-key"
"""The annotation of a model run record that holds the key it was sent under."""

_NOUN: Final = "model run"
_SENT: Final = ("sent", "in_doubt")
_CLOCKS: Final = timedelta(minutes=5)


class ProvenaSink:
    """Looks for registrations with one user's client; a run without an open one has nothing to deliver."""

    def __init__(self, client: ProvenaClient, journal: Journal, name: str = "provena") -> None:
        self._client = client
        self._journal = journal
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        intents = await asyncio.to_thread(self._journal.intents.where, run_id=run.id, noun=_NOUN, limit=None)
        waiting = [intent.key for intent in intents if not await self._settled(intent)]
        if waiting:
            keys = ", ".join(waiting)
            return Delivery("pending", f"Not seen on Provena yet: {keys}. Run the flow again to register.")
        return Delivery("delivered")

    async def _settled(self, intent: IntentRow) -> bool:
        """Whether nothing is left to do for an intent: it was never sent, is done, or was found just now."""
        if intent.state not in _SENT:
            return True
        platform = await self._client.platform()
        if intent.platform != platform:
            return True
        row = await self._job_of(intent)
        run = row.lodged if row is not None else None
        if row is None or run is None:
            return False
        request: Any = intent.request
        record = run.record or row.record
        handle = ModelRun(
            urn=run.id,
            platform=platform,
            session_id=row.session_id,
            workflow_template=request["workflow-template"],
            display_name=record.display_name if record is not None else None,
            subject=request["subject"],
            inputs=tuple(part.dataset_id for part in record.inputs) if record is not None else (),
            outputs=tuple(part.dataset_id for part in record.outputs) if record is not None else (),
            key=intent.key,
        )
        return await asyncio.to_thread(self._adopt, intent, run.id, handle.model_dump(mode="json"))

    def _adopt(self, intent: IntentRow, urn: str, outcome: Any) -> bool:
        """Note what was found, unless a live process is at the intent and will see the same."""
        from ivcap_flows.journal import NewIntent

        shared = {field.name for field in fields(NewIntent)} & vars(intent).keys()
        wanted = NewIntent(**{name: getattr(intent, name) for name in shared}, attempt_number=intent.asked_attempt)
        claim = self._journal.intents.claim(wanted)
        if claim.kind == "doubt":
            self._journal.intents.settle_outcome(
                claim.intent, urn=urn, outcome=outcome, how="adopted", matched_by="key"
            )
        elif claim.kind == "new":
            self._journal.intents.release(claim.intent)
        return claim.kind in ("doubt", "kept")

    async def _job_of(self, intent: IntentRow) -> JobRow | None:
        """The job that the intent was sent as: by the session that was kept, else by its key in the user's jobs."""
        kept: Any = intent.progress
        if isinstance(kept, dict) and kept.get("session_id"):
            return await self._client.jobs.fetch(kept["session_id"])
        async for row in self._client.jobs.list():
            asked = row.created_timestamp
            if asked is not None and datetime.fromtimestamp(asked, timezone.utc) < intent.created_at - _CLOCKS:
                break
            if any((sent.annotations or {}).get(KEY_ANNOTATION) == intent.key for sent in row.records):
                return row
        return None
