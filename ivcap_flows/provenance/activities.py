"""The activities of a graph: which is a part of which, who is responsible, when and how each ended."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Final

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record, content_of
from ivcap_flows.provenance.rules import WORK

__all__ = ["Activities", "columns_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RUNNING: Final = frozenset({None, "running"})


class Activities:
    """The activities of a graph: which is a part of which, who is responsible, when and how each ended."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.all = [node for node in graph.nodes.values() if node.kind == "activity"]

    def starter(self, id: str) -> Record | None:  # noqa: A002
        return next(iter(self.graph.targets(id, "wasStartedBy")), None)

    def above(self, id: str) -> list[Record]:  # noqa: A002
        """Return the activities that an activity is a part of, the nearest first."""
        found: list[Record] = []
        starter = self.starter(id)
        while starter is not None and starter not in found:
            found.append(starter)
            starter = self.starter(starter.id)
        return found

    def flow_of(self, id: str) -> Record | None:  # noqa: A002
        """Return the attempt, of a flow or a subflow, that an activity is a part of."""
        return next((each for each in self.above(id) if each.type in ("attempt", "flow-run")), None)

    def attempts(self, id: str) -> list[Record]:  # noqa: A002
        """Return the attempts of a flow run, the last one last."""
        found = [each for each in self.graph.sources(id, "wasStartedBy") if each.type == "attempt"]
        return sorted(found, key=lambda each: (each.attributes.get("number") or 0, self.began(each)))

    def plan(self, activity: Record) -> Record | None:
        """Return the plan that an activity followed. For a flow run, that is the plan of its last attempt."""
        plans = self.graph.targets(activity.id, "hadPlan")
        if not plans and activity.type == "flow-run":
            plans = [
                plan for attempt in self.attempts(activity.id) for plan in self.graph.targets(attempt.id, "hadPlan")
            ]
        return plans[-1] if plans else None

    def agents(self, activity: Record) -> list[Record]:
        """Return who is responsible for an activity: its own agents, else those of the nearest activity around it."""
        for each in (activity, *self.above(activity.id)):
            agents = (self.graph.targets(part.id, "wasAssociatedWith") for part in self.parts(each))
            found = {agent.id: agent for some in agents for agent in some}
            if found:
                return list(found.values())
        return []

    def concluded(self, activity: Record) -> list[Record]:
        """Return the inputs that follow from an activity's arguments alone: it was not seen to read them."""
        links = self.graph.links_from(activity.id, "used")
        return [self.graph.nodes[link.target or ""] for link in links if link.attributes.get("basis") == "given"]

    def products(self) -> list[Record]:
        """Return what was made and not used to make something else. A copy elsewhere is not something else."""
        made = dict.fromkeys(link.source or "" for link in self.graph.links("wasGeneratedBy"))
        things = [self.graph.nodes[id_] for id_ in made if id_ in self.graph.nodes]
        return [thing for thing in things if not any(self._makes_another(user, thing) for user in self._users(thing))]

    def _users(self, thing: Record) -> list[Record]:
        makers = {maker.id for maker in self.graph.targets(thing.id, "wasGeneratedBy")}
        return [user for user in self.graph.sources(thing.id, "used") if user.id not in makers]

    def _makes_another(self, activity: Record, thing: Record) -> bool:
        if any(part.type in WORK for part in self.graph.sources(activity.id, "wasStartedBy")):
            return True
        content = content_of(thing)
        made = self.graph.sources(activity.id, "wasGeneratedBy")
        return any(content is None or content_of(each) != content for each in made)

    def began(self, activity: Record) -> datetime:
        """Return when an activity began. If that is not known, return when the activity that started it began."""
        for each in (activity, *self.above(activity.id)):
            times = [each.time, *(link.time for link in self.graph.links_from(each.id, "wasStartedBy"))]
            known = [time for time in times if time is not None]
            if known:
                return min(known)
        return min((each.time for each in self.graph.nodes.values() if each.time is not None), default=_EPOCH)

    def outcome(self, activity: Record) -> str:
        """Return the outcome, or `running` if none is known. A flow run without one has that of its last attempt."""
        outcome = activity.attributes.get("outcome")
        if outcome in _RUNNING and activity.type == "flow-run":
            attempts = self.attempts(activity.id)
            outcome = attempts[-1].attributes.get("outcome") if attempts else None
        if outcome is None and (activity.ended is not None or activity.type == "model-run"):
            return "completed"
        return str(outcome or "running")

    def ended(self, activity: Record) -> datetime | None:
        """Return when an activity ended, or None if it has not. A parked or paused run has not ended."""
        outcome = self.outcome(activity)
        if outcome == "running" or (activity.type == "flow-run" and outcome in ("parked", "paused")):
            return None
        return max(activity.ended, self.began(activity)) if activity.ended is not None else self.last_seen(activity)

    def last_seen(self, activity: Record) -> datetime:
        """Return the latest moment that is known of an activity."""
        times = [*(part.ended for part in self.parts(activity)), self.began(activity)]
        return max(time for time in times if time is not None)

    def parts(self, activity: Record) -> list[Record]:
        """Return an activity itself, and of a flow run its attempts, the last one last."""
        return [activity, *(self.attempts(activity.id) if activity.type == "flow-run" else ())]

    def parameters(self, activity: Record) -> dict[str, Any]:
        """Return the parameters of an activity, or what was requested by it, by name."""
        values: dict[str, Any] = {}
        for part in self.parts(activity):
            for used in self.graph.targets(part.id, "used"):
                if used.type == "parameters":
                    values |= used.attributes.get("values") or {}
        own = activity.attributes.get("parameters") or activity.attributes.get("request")
        return values | (own if isinstance(own, dict) else {})


def columns_of(record: Record) -> list[tuple[str, str | None]]:
    """Return the columns of a frame, or the variables of an array, with their types."""
    listed = record.attributes.get("columns") or record.attributes.get("variables") or []
    named = [each for each in listed if isinstance(each, dict) and "name" in each] if isinstance(listed, list) else []
    return [(str(each["name"]), str(each["type"]) if "type" in each else None) for each in named]
