"""Why a result of two runs differs: the changes that lead to it, causes before what they explain."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ivcap_flows.provenance.graph import Graph

__all__ = ["Cause", "Reasons"]


@dataclass(frozen=True)
class Cause:
    """A change that may explain others.

    `about` are the things in either graph that it concerns, or nothing if it concerns the whole run.
    """

    words: str
    before: Any
    after: Any
    about: frozenset[str] = frozenset()


class Reasons:
    """The changes between two runs.

    `inputs` are used things, `asked` is what steps and services were asked for, `parameters` are those of the runs,
    `code` is theirs, and `common` is what the code ran with.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        *,
        inputs: Sequence[Cause],
        asked: Sequence[Cause],
        parameters: Sequence[Cause],
        code: Sequence[Cause],
        common: Sequence[Cause],
    ) -> None:
        self._graphs = graphs
        self._inputs, self._asked, self._parameters, self._code = inputs, asked, parameters, code
        self._common = common

    def of(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return the changes that lead to things, in words: the causes, nearest first, then what these explain."""
        far = self._distances(ids)

        def nearest(*causes: Cause) -> float:
            return min((far[id_] for cause in causes for id_ in cause.about if id_ in far), default=inf)

        inputs = [cause for cause in self._inputs if nearest(cause) < inf]
        asked = [cause for cause in self._asked if nearest(cause) < inf]
        passed_on = [cause for cause in self._parameters if _given_as(cause, self._asked)]
        parameters = [cause for cause in passed_on if _given_as(cause, asked)]
        explained = [
            cause
            for cause in asked
            if any(_given_as(each, [cause]) for each in parameters) or self._follows(cause, inputs)
        ]
        causes = [
            *((nearest(cause), cause) for cause in inputs),
            *((nearest(*_given_as(cause, asked)), cause) for cause in parameters),
        ]
        if self._code and len(explained) < len(asked):
            # With the same parameters and inputs, only other code asks for something else.
            causes += [(inf, cause) for cause in self._code]
            explained = asked
        causes += [(nearest(cause), cause) for cause in asked if cause not in explained]
        found = [cause for _, cause in sorted(causes, key=_distance)] + sorted(explained, key=nearest)
        # A parameter that no step was given may have been used by the flow itself.
        untold = [cause for cause in self._parameters if cause not in passed_on]
        return tuple(dict.fromkeys(each.words for each in (*found, *untold, *self._code, *self._common)))

    def _follows(self, cause: Cause, inputs: Iterable[Cause]) -> bool:
        """Whether a changed input comes before what was asked for, so that the value may be computed from it."""
        before: set[str] = set()
        for graph in self._graphs:
            here = [id_ for id_ in cause.about if id_ in graph.nodes]
            before |= set(graph.lineage(here, "up").nodes) if here else set()
        return any(each.about & before for each in inputs)

    def _distances(self, ids: Iterable[str]) -> dict[str, int]:
        """Return how many relations lie between things and everything that they come from."""
        starts = list(ids)
        found: dict[str, int] = {}
        for graph in self._graphs:
            here = [id_ for id_ in starts if id_ in graph.nodes]
            if not here:
                continue
            up = graph.lineage(here, "up")
            ends: dict[str, list[str]] = {}
            for link in up.relations.values():
                ends.setdefault(link.source or "", []).append(link.target or "")
                ends.setdefault(link.target or "", []).append(link.source or "")
            far = dict.fromkeys(here, 0)
            queue = deque(here)
            while queue:
                id_ = queue.popleft()
                for other in ends.get(id_, ()):
                    if other not in far:
                        far[other] = far[id_] + 1
                        queue.append(other)
            for id_, steps in far.items():
                found[id_] = min(steps, found.get(id_, steps))
        return found


def _given_as(parameter: Cause, asked: Iterable[Cause]) -> list[Cause]:
    """Return the requests that changed in just the way in which a parameter of the run changed."""
    return [each for each in asked if (each.before, each.after) == (parameter.before, parameter.after)]


def _distance(found: tuple[float, Cause]) -> float:
    return found[0]
