"""OpenLineage events (spec 2-0-2), as models of its Python client. They need the extra `openlineage`.

Each activity is a run with a START, and once it has ended with a COMPLETE, FAIL or ABORT. An activity that has not
ended is RUNNING. Events that are sent again have the same run ids, so that a receiver has each run once.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows import __version__
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.provenance.activities import Activities
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.openlineage_names import Names
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.rules import validate
from ivcap_flows.provenance.things import type_of

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Job, RunEvent

__all__ = ["PRODUCER", "dumps", "events", "run_id"]

PRODUCER: Final = f"urn:ivcap-flows:software:ivcap-flows:{__version__}"
_ENDS: Final = {
    "completed": "COMPLETE",
    "parked": "COMPLETE",
    "paused": "COMPLETE",
    "failed": "FAIL",
    "crashed": "FAIL",
    "lost": "FAIL",
    "cancelled": "ABORT",
    "abandoned": "ABORT",
}
"""The event at the end of an activity. A parked or paused attempt is complete, while its flow run goes on."""


def run_id(id: str) -> str:  # noqa: A002
    """Return the UUID of an activity: the one in its URN, or else one computed from the URN."""
    try:
        return str(uuid.UUID(id.rpartition(":")[2]))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, uri(id)))


def events(records: Iterable[Record], *, sources: Mapping[str, bytes] | None = None) -> list[RunEvent]:
    """Return the events of all activities, by time. `sources` is the source of codes, by their ids.

    Raises ValueError if the records break the rules, and ConfigurationError without the extra.
    """
    if importlib.util.find_spec("openlineage") is None:
        raise ConfigurationError(
            "OpenLineage needs an extra. Install it with `pip install 'ivcap-flows[openlineage]'`."
        )
    graph = records if isinstance(records, Graph) else Graph(records)
    validate(graph)
    teller = _Teller(Activities(graph), sources or {})
    runs = [activity for activity in teller.activities.all if type_of(activity).lineage == "run"]
    found = [event for activity in runs for event in teller.of(activity)]
    # An activity begins no earlier than the one that started it. What ends last is the whole run.
    return sorted(found, key=lambda event: event.eventTime)


def dumps(records: Iterable[Record], *, sources: Mapping[str, bytes] | None = None) -> str:
    """Return the events as JSON, one per line."""
    found = events(records, sources=sources)
    from openlineage.client.serde import Serde

    return "".join(Serde.to_json(event) + "\n" for event in found)


class _Teller:
    def __init__(self, activities: Activities, sources: Mapping[str, bytes]) -> None:
        from ivcap_flows.provenance.openlineage_facets import Facets

        self.activities = activities
        self.graph = activities.graph
        self.names = Names(activities)
        self.facets = Facets(activities, sources, PRODUCER, self.names, run_id)

    def of(self, activity: Record) -> list[RunEvent]:
        from openlineage.client.event_v2 import InputDataset, OutputDataset, Run, RunEvent, RunState

        activities, outcome = self.activities, self.activities.outcome(activity)
        ended = activities.ended(activity)
        last = RunState[_ENDS.get(outcome, "COMPLETE") if ended is not None else "RUNNING"]
        began = activities.began(activity)
        inputs = [self._dataset(InputDataset, each) for each in self._given(activity)]
        outputs = [self._dataset(OutputDataset, each) for each in self.graph.sources(activity.id, "wasGeneratedBy")]

        def event(state: RunState, time: datetime, **more: Any) -> RunEvent:
            run = Run(run_id(activity.id), self.facets.of_run(activity, state.value))
            return RunEvent(
                eventType=state,
                eventTime=time.astimezone(timezone.utc).isoformat(timespec="microseconds"),
                run=run,
                job=self._job(activity),
                producer=PRODUCER,
                inputs=inputs,
                **more,
            )

        return [
            event(RunState.START, began),
            event(last, ended or max(activities.last_seen(activity), began), outputs=outputs),
        ]

    def _given(self, activity: Record) -> list[Record]:
        return [each for each in self.graph.targets(activity.id, "used") if type_of(each).lineage == "dataset"]

    def _dataset(self, kind: Any, record: Record) -> Any:
        dataset = kind(*self.names.dataset(record), facets=self.facets.of_dataset(record))
        statistics = self.facets.statistics(record, kind.__name__)
        if statistics and kind.__name__ == "InputDataset":
            dataset.inputFacets = statistics
        elif statistics:
            dataset.outputFacets = statistics
        return dataset

    def _job(self, activity: Record) -> Job:
        from openlineage.client.event_v2 import Job

        return Job(*self.names.job(activity), self.facets.of_job(activity))
