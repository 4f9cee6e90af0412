"""Labels for the things of a graph: a title of a few words, and a note with the type and what else matters."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ivcap_flows.identity import last_part, path_parts
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record

__all__ = ["Labels", "distinct_names", "name_of", "plural", "title"]

_KEY: Final = re.compile(r" \[[0-9a-f]{16}(?:\.\d+)?\]$")

_RESULT: Final = "result"
"""The role of what a function returned. The name of a parameter says more."""

_TO_BE_TRIED_AGAIN: Final = frozenset({"retried", "running"})


def name_of(record: Record) -> str | None:
    """Return the name of a thing, or else the last part of its path; None if it has neither."""
    if name := record.attributes.get("name"):
        return str(name)
    path = str(record.attributes.get("path") or "")
    return last_part(path) or path or None


def title(record: Record) -> str:
    """Return the title of a thing by its record alone."""
    attributes = record.attributes
    # The name of a task run tells it from others of its task.
    if name := attributes.get("run_name") or name_of(record) or attributes.get("flow_run_name"):
        # The key in an order's name means nothing to people.
        return _KEY.sub("", " ".join(str(name).split()))
    if _is_data(record):
        return _columns(attributes) or _shape(attributes) or record.type
    return record.type if record.type == "parameters" else _tail(str(attributes.get("schema") or record.id))


def distinct_names(records: Iterable[Record]) -> dict[str, str]:
    """Return the name of each thing by its id. Of a path, it is as much of the end as tells it from the other paths."""
    listed = list(records)
    parts = {path: path_parts(path) for path in {str(each.attributes.get("path") or "") for each in listed}}
    ends = Counter(tuple(of_path[place:]) for of_path in parts.values() for place in range(len(of_path)))
    names = {
        path: "/".join(next((end for end in _ends(of_path) if ends[end] == 1), of_path))
        for path, of_path in parts.items()
    }
    return {
        each.id: str(each.attributes.get("name") or "") or names[str(each.attributes.get("path") or "")] or title(each)
        for each in listed
    }


def _ends(parts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the ends of a path, shortest first."""
    return (tuple(parts[place:]) for place in reversed(range(len(parts))))


def plural(type: str) -> str:  # noqa: A002 - the field's name
    """Return the word for several things of a type."""
    word = type.replace("-", " ")
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


class Labels:
    """Titles and notes of a graph's things.

    The relations show as which parameter a table was given, and how often a task was tried.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tries: dict[str, dict[int, str | None]] = defaultdict(dict)
        for node in graph.nodes.values():
            if node.type == "task-run":
                self._tries[_task_run_of(node)][_try(node)] = node.attributes.get("outcome")

    def title(self, record: Record) -> str:
        """Return the title of a thing.

        A table or an array has the name of the parameter that it was first given as, or else "result". A content has
        the title of the first thing that holds it.
        """
        if record.type == "content":
            holders = self._graph.sources(record.id, "specializationOf")
            if holder := next((each for each in holders if each.type != "content"), None):
                return self.title(holder)
        if _is_data(record) and (roles := self._roles(record.id)):
            return next((role for role in roles if role != _RESULT), _RESULT)
        return title(record)

    def _roles(self, id: str) -> list[str]:  # noqa: A002
        links = (*self._graph.links_from(id, "wasGeneratedBy"), *self._graph.links_to(id, "used"))
        return [role for link in links for role in _roles(link)]

    def _flow_run(self, starter: str) -> str | None:
        """Return the name that Prefect gave to the flow run that an activity last started."""
        started = (each.attributes for each in reversed(self._graph.sources(starter, "wasStartedBy")))
        return next((str(each["flow_run_name"]) for each in started if "flow_run_name" in each), None)

    def note(self, record: Record) -> str:
        """Return the type of a thing, and what else is worth a glance."""
        return " · ".join(self._words(record))

    def _words(self, record: Record) -> Iterator[str]:
        attributes = record.attributes
        type_ = record.type.replace("-", " ")
        if record.type == "attempt" and "number" in attributes:
            yield f"{type_} {attributes['number']}"
        elif _is_data(record) and (shape := _shape(attributes)):
            yield f"{type_} {shape}"
        else:
            yield type_
        if _is_data(record) and (columns := _columns(attributes)):
            yield columns
        if record.type == "task-run":
            yield from self._words_of_try(record)
        if flow_run := attributes.get("flow_run_name") or self._flow_run(record.id):
            yield str(flow_run)
        if service := attributes.get("service_name"):
            yield str(service)
        if record.type == "parameters" and isinstance(attributes.get("values"), dict):
            yield f"{len(attributes['values'])} values"
        if commit := attributes.get("commit"):
            yield f"commit {str(commit)[:8]}" + ("+" if attributes.get("dirty") else "")
        if version := attributes.get("version"):
            yield str(version)
        if isinstance(size := attributes.get("size"), int):
            yield _bytes(size)
        if record.kind == "activity" and record.time and record.ended:
            yield _seconds((record.ended - record.time).total_seconds())

    def _words_of_try(self, record: Record) -> Iterator[str]:
        task = str(record.attributes.get("name", ""))
        if task.lower() not in title(record).lower():
            yield task
        tries = self._tries[_task_run_of(record)]
        last = max(tries)
        if last > 1:
            # A try that will be retried is followed by one that is not in this graph, so the total is unknown.
            known = tries[last] not in _TO_BE_TRIED_AGAIN
            yield f"try {_try(record)}" + (f" of {last}" if known else "")


def _roles(link: Record) -> list[str]:
    role = link.attributes.get("role")
    return [] if role is None else [str(each) for each in role] if isinstance(role, list) else [str(role)]


def _task_run_of(record: Record) -> str:
    """Return the id of a try without its number, which all tries after the first have at the end."""
    return record.id.removesuffix(f".{_try(record)}")


def _try(record: Record) -> int:
    number = record.attributes.get("try")
    return number if isinstance(number, int) else 1


def _is_data(record: Record) -> bool:
    """Whether a thing is a table or an array in memory."""
    return record.type in ("frame", "array") or (record.type == "unhashed" and "library" in record.attributes)


def _columns(attributes: dict[str, Any]) -> str:
    """Return the names of a table's columns, or of a data set's variables without coordinates, or an array's type."""
    named = [each for each in _listed(attributes, "columns") if each.get("name")]
    named += [each for each in _data_variables(attributes) if each.get("name")]
    return ", ".join(str(each["name"]) for each in named) or str(attributes.get("data_type", ""))


def _shape(attributes: dict[str, Any]) -> str:
    """Return the size of a table, an array or a data set's largest variable, one number for each dimension."""
    if "rows" in attributes:
        columns = _listed(attributes, "columns")
        # If a table has too many columns to list, the last entry says how many there are.
        count = columns[-1].get("type") if columns and columns[-1].get("name") == "…" else len(columns)
        return f"{attributes['rows']} x {str(count).partition(' ')[0]}"
    shapes = [attributes.get("shape"), *(each.get("shape") for each in _data_variables(attributes))]
    largest: Sequence[object] = max((shape for shape in shapes if isinstance(shape, list)), key=len, default=[])
    return " x ".join(map(str, largest))


def _data_variables(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in _listed(attributes, "variables") if each.get("dimensions") != [each.get("name")]]


def _listed(attributes: dict[str, Any], name: str) -> list[dict[str, Any]]:
    listed = attributes.get(name)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _tail(id: str) -> str:  # noqa: A002
    """Return the end of a URN, which tells it from others."""
    last = re.split(r"[:/]", id.rstrip(":/"))[-1] or id
    return last if len(last) <= 14 else f"{last[:12]}…"


def _bytes(size: int) -> str:
    value, units = float(size), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and (larger := next(units, None)):
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
