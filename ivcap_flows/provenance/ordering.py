"""The order of instants (W3C PROV-CONSTRAINTS, 2013, section 6.2), and how it is restored if clocks differ.

Of its event orderings, these apply to our records, by their names there: start-precedes-end, usage-within-activity,
generation-within-activity, wasInformedBy-ordering, generation-precedes-usage,
derivation-generation-generation-ordering, and wasStartedBy-ordering, by which a starter began before what it starts. We
record no invalidations, no ends by triggers, and no instants of agents. Generations are ordered only for things that a
platform makes once: a file's content may be made again, and may be used before it is made anew.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from ivcap_flows.provenance.records import Record

__all__ = ["SINGLE_BIRTH", "disordered", "in_order"]

_REMOTE_WORK: Final = frozenset({"order", "job", "model-run"})
"""Activities whose times come from a platform's clock."""
SINGLE_BIRTH: Final = frozenset({"artifact", "aspect", "collection"})
"""Types that a platform makes once. A file's content may be made again and again."""

Event = tuple[str, str]
"""A kind of event, and the id of the activity, entity or relation to which it happens."""


def disordered(nodes: Mapping[str, Record], relations: Iterable[Record]) -> list[str]:
    """Return one sentence for each instant that is before another which it must follow."""
    links = list(relations)
    if _is_plain(nodes, links):
        return []
    events = _Events(nodes, links)
    latest = events.latest()
    return [
        f"The {what} of {id_} at {events.times[what, id_].isoformat()} is earlier than an event that it must follow."
        for what, id_ in latest
        if (what, id_) in events.times and events.times[what, id_] < latest[what, id_]
    ]


def in_order(nodes: Mapping[str, Record], relations: Mapping[str, Record]) -> list[Record]:
    """Return the records whose instants were not in order, with instants that are.

    A platform's clock may be wrong by hours. Its times for its own work are moved as little as possible, into the time
    that this machine's clock leaves for the work. Instants that are out of order even then, because several of our
    machines have different clocks, are moved to the latest instant that they must follow.
    """
    if _is_plain(nodes, relations.values()):
        return []
    events = _Events(nodes, relations.values())
    known = dict(events.times)
    events.fit()
    events.times = events.latest()
    changed = []
    for record in (*nodes.values(), *relations.values()):
        names = {"time": _begin_of(record), "ended": ("end", record.id)}
        moved = {
            name: events.times[event]
            for name, event in names.items()
            if event in known and events.times[event] != known[event]
        }
        if moved:
            changed.append(record.model_copy(update=moved))
    return changed


def _begin_of(record: Record) -> Event:
    return ("start" if record.kind == "activity" else record.type, record.id)


def _is_plain(nodes: Mapping[str, Record], relations: Iterable[Record]) -> bool:
    """Whether each relation alone shows that all is in order, as in nearly every graph. The full check is expensive.

    If an instant is unknown, it may be between two that are known. Then the full check is needed.
    """
    born: dict[str, datetime] = {}
    used: dict[str, datetime] = {}
    for node in nodes.values():
        if node.time is not None and node.ended is not None and node.ended < node.time:
            return False
    for link in relations:
        source, target = nodes.get(link.source or ""), nodes.get(link.target or "")
        if source is None or target is None:
            continue
        if link.type == "wasStartedBy":
            if source.time is None or (target.time is not None and source.time < target.time):
                return False
        elif link.type == "wasInformedBy":
            if target.time is not None and source.ended is not None and source.ended < target.time:
                return False
        elif link.type in ("used", "wasGeneratedBy"):
            activity, thing = (source, target) if link.type == "used" else (target, source)
            first, last = link.time or activity.time, link.time or activity.ended
            if first is not None and activity.time is not None and first < activity.time:
                return False
            if last is not None and activity.ended is not None and last > activity.ended:
                return False
            if thing.type in SINGLE_BIRTH:
                if first is None:
                    return False
                if link.type == "wasGeneratedBy":
                    born[thing.id] = max(first, born.get(thing.id, first))
                elif last is not None:
                    used[thing.id] = min(last, used.get(thing.id, last))
        elif link.type == "wasDerivedFrom" and {source.type, target.type} <= SINGLE_BIRTH:
            return False
    return all(used[id_] >= time for id_, time in born.items() if id_ in used)


class _Events:
    """The known instants of a graph, and which event comes before which."""

    def __init__(self, nodes: Mapping[str, Record], relations: Iterable[Record]) -> None:
        self.times: dict[Event, datetime] = {}
        self.remote: set[Event] = set()
        self._after: dict[Event, list[Event]] = defaultdict(list)
        self._before: dict[Event, int] = defaultdict(int)
        for node in nodes.values():
            if node.kind == "activity":
                self._know(("start", node.id), node.time)
                self._know(("end", node.id), node.ended)
                self._precedes(("start", node.id), ("end", node.id))
                if node.type in _REMOTE_WORK:
                    self.remote |= {("start", node.id), ("end", node.id)}
        for link in relations:
            source, target = nodes.get(link.source or ""), nodes.get(link.target or "")
            if source is not None and target is not None:
                for first, second in self._of(link, source, target):
                    self._precedes(first, second)
        self.sorted = self._sort()

    def _of(self, link: Record, source: Record, target: Record) -> Iterator[tuple[Event, Event]]:
        event = _begin_of(link)
        if link.type == "used":
            self._know(event, link.time)
            yield ("start", source.id), event
            yield event, ("end", source.id)
            if target.type in SINGLE_BIRTH:
                yield ("birth", target.id), event
        elif link.type == "wasGeneratedBy":
            self._know(event, link.time)
            yield ("start", target.id), event
            yield event, ("end", target.id)
            if source.type in SINGLE_BIRTH:
                yield event, ("birth", source.id)
        elif link.type == "wasStartedBy":
            yield ("start", target.id), ("start", source.id)
        elif link.type == "wasInformedBy":
            yield ("start", target.id), ("end", source.id)
        elif link.type == "wasDerivedFrom" and source.type in SINGLE_BIRTH and target.type in SINGLE_BIRTH:
            yield ("birth", target.id), ("birth", source.id)

    def _know(self, event: Event, time: datetime | None) -> None:
        if time is not None:
            self.times[event] = time

    def _precedes(self, first: Event, second: Event) -> None:
        self._after[first].append(second)
        self._before[second] += 1

    def _sort(self) -> list[Event]:
        """Return the events, each after all that it follows, without those in a cycle, which is another fault."""
        left = dict(self._before)
        free = deque(event for event in self._after if event not in left)
        found = []
        while free:
            event = free.popleft()
            found.append(event)
            for later in self._after.get(event, ()):
                left[later] -= 1
                if left[later] == 0:
                    free.append(later)
        return found

    def latest(self) -> dict[Event, datetime]:
        """Return for each event the latest instant among its own and those of all that it follows."""
        return _spread(self.sorted, self.times, self._after)

    def fit(self) -> None:
        """Move what platforms report about their own work into the time that our own instants leave for it."""
        own = {event: time for event, time in self.times.items() if event not in self.remote}
        since = _spread(self.sorted, own, self._after)
        until: dict[Event, datetime] = dict(own)
        for event in reversed(self.sorted):
            bounds = [until[later] for later in self._after.get(event, ()) if later in until]
            if bounds:
                until[event] = min([*bounds, *([until[event]] if event in until else [])])
        for event in self.remote & self.times.keys():
            time = self.times[event]
            self.times[event] = max(min(time, until.get(event, time)), since.get(event, time))


def _spread(
    order: Iterable[Event], times: Mapping[Event, datetime], after: Mapping[Event, Iterable[Event]]
) -> dict[Event, datetime]:
    found = dict(times)
    for event in order:
        time = found.get(event)
        if time is not None:
            for later in after.get(event, ()):
                known = found.get(later)
                if known is None or known < time:
                    found[later] = time
    return found
