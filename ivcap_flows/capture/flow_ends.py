"""The ends of the tries of flow runs, as Prefect's engines set their states.

Prefect calls hooks only for some of the states in which a run ends, and for none at the end of a try before the last.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.in_prefect.flow_run_states import outcome_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["watch_ends"]

_ENGINES: Final = ("FlowRunEngine", "AsyncFlowRunEngine")
_WATCHED: Final = "__ivcap_flows_watched__"

Ended = Callable[[str, "Outcome", "str | None"], None]
"""Is told the id of a flow run, and the outcome of its try with the cause."""


def watch_ends(ended: Ended) -> None:
    """Call `ended` when a try of a flow run ends, after Prefect's hooks. A second call does nothing."""
    engines = sys.modules.get("prefect.flow_engine")
    for engine in (getattr(engines, name, None) for name in _ENGINES):
        # Without the method, which is not public, an attempt ends with its process.
        set_state = getattr(engine, "set_state", None)
        if set_state is not None and not hasattr(set_state, _WATCHED):
            watched = _watched(set_state, ended)
            setattr(watched, _WATCHED, True)
            engine.set_state = watched  # type: ignore[union-attr]


def _watched(set_state: Callable[..., Any], ended: Ended) -> Callable[..., Any]:
    def tell(engine: Any, proposed: Any, accepted: Any) -> Any:
        # A try that failed may be followed by another: then Prefect accepts a scheduled state instead.
        for state in (accepted, proposed):
            outcome = outcome_of(state)
            if outcome is not None:
                ended(str(engine.flow_run.id), outcome, None if outcome == "completed" else state.message)
                break
        return accepted

    if not inspect.iscoroutinefunction(set_state):
        return functools.wraps(set_state)(
            lambda engine, state, *args, **kwargs: tell(engine, state, set_state(engine, state, *args, **kwargs))
        )

    @functools.wraps(set_state)
    async def set_later(engine: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        return tell(engine, state, await set_state(engine, state, *args, **kwargs))

    return set_later
