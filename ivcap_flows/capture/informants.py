"""The calls whose values a call was given: from the objects themselves, and from Prefect's futures and `wait_for`.

Prefect links a task run to all runs whose results it finds among the arguments. It compares places in memory, so it
also links runs whose values merely share a part: a key of two dicts, a number in the code. Such links are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.capture.makers import makers_of
from ivcap_flows.handles import Handle
from ivcap_flows.identity import flows_urn
from ivcap_flows.lru_cache import LruCache
from ivcap_flows.provenance.describe import reference
from ivcap_flows.provenance.records import Record, relation

__all__ = ["DOUBTED", "Informant", "doubted", "informants_of", "ran"]

DOUBTED: Final = "_ivcap_flows_doubted"
"""The attribute of a mapped task with what `doubted` found in what it is mapped over, of which a run has one item."""

_PARENTS: Final = "__parents__"
_WAIT_FOR: Final = "wait_for"
_last_tries: LruCache[str, str] = LruCache(100_000)
"""The id of the try that began last, by task run, for the task runs of this process."""


@dataclass(frozen=True)
class Informant:
    """An activity whose values another was given, in the parameters `roles`; `guessed` if that may be coincidence."""

    id: str
    roles: tuple[str, ...]
    guessed: bool = False

    def stated(self, informed: str) -> Iterator[Record]:
        """Yield the records that say so."""
        yield reference(self.id)
        role = self.roles[0] if len(self.roles) == 1 else list(self.roles)
        yield relation("wasInformedBy", informed, self.id, role=role, guessed=self.guessed or None)


def ran(task_run_id: str, activity: str) -> None:
    """Note that a try of a task run begins, as the activity with this id."""
    _last_tries.put(task_run_id, activity)


def informants_of(
    given: Mapping[str, Any], task: Any = None, *, writes: frozenset[str] = frozenset()
) -> list[Informant]:
    """Return the calls whose values are among the arguments of a call. `task` is Prefect's context of a task run.

    Of what the call only `writes` to, as a collection, nothing is an input, nor whoever filled it before.
    """
    roles: dict[str, dict[str, None]] = {}
    guessed: set[str] = set()
    for name, value in given.items():
        for maker in makers_of(value):
            roles.setdefault(maker, {})[name] = None
    if task is not None:
        for name, id_, certain in _linked_by_prefect(task, {_task_run_of(maker) for maker in roles}):
            if name in writes and isinstance(given.get(name), Handle):
                continue
            activity = _last_tries.get(id_) or flows_urn("task-run", id_)
            if not certain and activity not in roles:
                guessed.add(activity)
            roles.setdefault(activity, {})[name] = None
    return [Informant(id_, tuple(names), id_ in guessed) for id_, names in roles.items()]


def _task_run_of(activity: str) -> str:
    return activity.rpartition(":")[2].partition(".")[0]


def _linked_by_prefect(task: Any, known: set[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield Prefect's links except to `known` task runs: parameter, task run, and whether the link is certain."""
    inputs = task.task_run.task_inputs or {}
    for name, given in inputs.items():
        linked = {str(each.id) for each in given if each.input_type == "task_run"} - known
        if not linked or name == _PARENTS:
            continue
        if name == _WAIT_FOR:
            yield from ((name, id_, True) for id_ in sorted(linked))
            continue
        # If the tasks of a flow run in other processes, this one does not know their results by their places in memory.
        apart = _is_apart()
        by_place = set() if apart else _by_place((task.parameters or {}).get(name))
        by_place |= getattr(task.task, DOUBTED, set())
        yield from ((name, id_, not apart) for id_ in sorted(linked - by_place))


def _is_apart() -> bool:
    flow = sys.modules["prefect.context"].FlowRunContext.get()
    return flow is None or bool(flow.detached)


def doubted(values: Iterable[Any]) -> set[str]:
    """Return the task runs that Prefect links to values that they did not make, which are where theirs were before."""
    from prefect.client.schemas.objects import State
    from prefect.futures import PrefectFuture

    found: set[str] = set()
    for value in values:
        if not isinstance(value, PrefectFuture | State):
            found |= _by_place(value, parts=False) - {_task_run_of(maker) for maker in makers_of(value)}
    return found


def _by_place(value: Any, *, parts: bool = True) -> set[str]:
    """Return the task runs that Prefect links to a value by its place in memory alone, or by those of its parts."""
    from prefect.utilities.engine import collect_task_run_inputs_sync

    linked = collect_task_run_inputs_sync(value, max_depth=-1 if parts else 0)
    return {str(each.id) for each in linked if each.input_type == "task_run"}
