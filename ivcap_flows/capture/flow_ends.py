"""The ends of the tries of flow runs and background task runs, as Prefect's engines set their states.

Prefect calls hooks only for some of the states in which a run ends, and for none at the end of a try before the last.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.in_prefect.flow_run_states import outcome_of
from ivcap_flows.plain_text import described

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["watch_ends"]

_ENGINES: Final = (
    ("prefect.flow_engine", ("FlowRunEngine", "AsyncFlowRunEngine"), "flow_run"),
    ("prefect.task_engine", ("SyncTaskRunEngine", "AsyncTaskRunEngine"), "task_run"),
)
"""The modules and classes of the engines, and the attribute that has the run."""
_TRIED_AGAIN: Final = ("AwaitingRetry", "Retrying")
"""The states that a task run gets in place of one that says how the try ended."""
_WATCHED: Final = "__ivcap_flows_watched__"

Ended = Callable[[str, "Outcome", "str | None"], None]
"""Is told the id of a flow run or task run, and the outcome of its try with the cause."""


def watch_ends(ended: Ended) -> None:
    """Call `ended` when a try of a flow run or a task run ends. A second call does nothing."""
    for module, names, run in _ENGINES:
        for engine in (getattr(sys.modules.get(module), name, None) for name in names):
            # Without the method, which is not public, an attempt ends with its process.
            set_state = getattr(engine, "set_state", None)
            if set_state is not None and not hasattr(set_state, _WATCHED):
                watched = _watched(set_state, run, ended)
                setattr(watched, _WATCHED, True)
                engine.set_state = watched  # type: ignore[union-attr]


def _watched(set_state: Callable[..., Any], run: str, ended: Ended) -> Callable[..., Any]:
    def tell(engine: Any, proposed: Any, accepted: Any) -> Any:
        end = _end_of_try(proposed, accepted, of_task=run == "task_run")
        if end is not None:
            ended(str(getattr(engine, run).id), *end)
        return accepted

    if not inspect.iscoroutinefunction(set_state):
        return functools.wraps(set_state)(
            lambda engine, state, *args, **kwargs: tell(engine, state, set_state(engine, state, *args, **kwargs))
        )

    @functools.wraps(set_state)
    async def set_later(engine: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        return tell(engine, state, await set_state(engine, state, *args, **kwargs))

    return set_later


def _end_of_try(proposed: Any, accepted: Any, *, of_task: bool) -> tuple[Outcome, str | None] | None:
    """Return how a try ended that gets a state, with the cause; None if it goes on."""
    # A try of a flow that failed may be followed by another: then Prefect accepts a scheduled state instead.
    for state in (accepted, proposed):
        outcome = outcome_of(state)
        if outcome is not None:
            return outcome, None if outcome == "completed" else state.message
    if of_task and accepted.name in _TRIED_AGAIN:
        # The state does not say why. Prefect sets it while it handles the error, if there was one.
        error = sys.exc_info()[1]
        return "failed", None if error is None else described(error)
    return None
