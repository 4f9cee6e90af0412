"""Park and wake deployed flow runs through Prefect: check whether a run may leave its process, park it, wake it.

A run parks in one step, from Running to Scheduled at its wake time, so a parked run always has a time at which it
wakes. Prefect (observed with 3.8.8) then ends the process, frees the slot of the deployment's concurrency limit, and at
the wake time a worker starts the run again, in a new process and from the flow's first line.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import CodeType
from typing import Any, Final, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, FlowRun, State, TaskRun
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelled, Scheduled

from ivcap_flows.capture.observing import runs_again
from ivcap_flows.capture.task_runs import newest
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.in_prefect.flow_run_states import PARKED, outcome_of, refusal_of
from ivcap_flows.journal.rows import COMES_BACK
from ivcap_flows.plain_text import described

__all__ = [
    "REPLAY_SAFE",
    "Obstacle",
    "OwnRun",
    "cancel_waiting",
    "end_cancelling",
    "some_of",
    "standing",
    "wake",
]

REPLAY_SAFE: Final = "replay-safe"
"""The tag of a task that may run again when a parked run wakes."""

_PAGE: Final = 200
_NAMED: Final = 3
"""Maximum number of tasks that an obstacle names."""
_OUT_OF_REACH: Final = 1.0
"""Seconds between two tries to read a run's state while Prefect's API does not answer."""
_LAG: Final = 30.0
"""Seconds that Prefect's API may take to show a task run."""
_LOOK: Final = 0.1
_SAME_CLOCK: Final = 3.0
"""Clocks that differ by fewer seconds than this count as equal."""
_SURELY_ITSELF: Final = 20.0
"""A run whose wake time is less than this many seconds away is not woken: a worker may fetch it up to ten seconds
early, and rescheduling a run that was already fetched would start it twice."""


@dataclass(frozen=True)
class Obstacle:
    """A reason why a run cannot park, and what the user can change. `passing`: it may be gone at the next try."""

    reason: str
    passing: bool = False


@dataclass(frozen=True)
class OwnRun:
    """The flow run whose body the calling code runs in."""

    flow: Any
    id: UUID
    deployment_id: UUID
    run_count: int

    @classmethod
    def here(cls) -> OwnRun | Obstacle:
        """Return the flow run whose body calls this, or the obstacle because of which it can never park."""
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or context.flow is None:
            return Obstacle("it was called outside a flow, and only a flow run can park")
        if TaskRunContext.get() is not None:
            return Obstacle("it was called in a task; call it in the flow's body")
        flow_run = context.flow_run
        if flow_run.deployment_id is None and flow_run.parent_task_run_id is not None:
            return Obstacle("it was called in a subflow; call it in the body of the deployed flow")
        if flow_run.deployment_id is None:
            return Obstacle("the flow was not started from a deployment, so no worker can start it again")
        if flow_run.parent_task_run_id is not None:
            return Obstacle("another flow waits for the run; start it with run_deployment(..., as_subflow=False)")
        if not _is_in_body_of(context.flow.fn):
            return Obstacle("it was called in a thread or another asyncio task; call it directly in the flow's body")
        return cls(context.flow, flow_run.id, flow_run.deployment_id, flow_run.run_count)

    def judge(self) -> Obstacle | list[str]:
        """Return the obstacle because of which the run cannot park now, or else the tasks that run again when it wakes.

        Asks Prefect's API and blocks. Must be called in the flow's context.
        """
        try:
            with get_client(sync_client=True) as client:
                run = client.read_flow_run(self.id)
                return self._deployment(client) or self._lag(client) or self._tasks(client, run)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the API, the wait continues in the process
            return Obstacle(f"Prefect's API cannot be asked ({described(error)})", passing=True)

    def now(self) -> datetime | Obstacle:
        """Return the time of Prefect's clock, by which Prefect starts runs. Asks Prefect's API and blocks."""
        try:
            with get_client(sync_client=True) as client:
                return _now(client, self.id)
        except Exception as error:  # noqa: BLE001 - as for any obstacle
            return Obstacle(f"Prefect's API cannot be asked ({described(error)})", passing=True)

    def park(self, wake_at: datetime, message: str) -> State[Any] | Obstacle:
        """Schedule the run to start again at `wake_at`. Blocks.

        Returns the state to leave the process with, or the obstacle because of which the run must stay. Raises
        ConfigurationError if Prefect refuses to say which.
        """
        state: State[Any] = Scheduled(scheduled_time=wake_at, name=PARKED, message=message)
        try:
            with get_client(sync_client=True) as client:
                run = client.read_flow_run(self.id)
                if run.state is None or not run.state.is_running():
                    return Obstacle(f"the run is {run.state.name if run.state else 'without a state'}", passing=True)
                client.request("PATCH", "/flow_runs/{id}", path_params={"id": self.id}, json=_to_come_back(run))
                client.set_flow_run_state(self.id, state)
        except Exception as error:  # noqa: BLE001 - Prefect may still have carried out the request
            failed = described(error)
        else:
            failed = ""
        # If the run continued here while a worker starts it again, there would be two of it. So ask the server whether
        # the run was parked; a worker may have started it since.
        states = self._states()
        for found in states:
            if found.name == PARKED and found.state_details.scheduled_time == wake_at:
                return found
        now = max(states, key=lambda each: each.timestamp).name if states else "unknown"
        return Obstacle(failed or f"Prefect made the run {now}", passing=True)

    def _states(self) -> list[State[Any]]:
        """Return all states that the run has had; none if it was deleted. Asks until the server answers.

        Raises ConfigurationError if it refuses to.
        """
        while True:
            try:
                with get_client(sync_client=True) as client:
                    return client.read_flow_run_states(self.id)
            except ObjectNotFound:
                return []
            except Exception as error:
                if (refused := refusal_of(error)) is not None:
                    raise ConfigurationError(
                        f"Prefect's API refuses to say whether the run is parked ({refused}), so its process ends: a "
                        "worker may start the run as well. Give the worker a PREFECT_API_KEY that may read the flow "
                        f"run {self.id}, and retry it if it does not come back.",
                        flow_run=str(self.id),
                    ) from error
                # No worker can start the run while the server does not answer.
                time.sleep(_OUT_OF_REACH)

    def _deployment(self, client: SyncPrefectClient) -> Obstacle | None:
        try:
            deployment = client.read_deployment(self.deployment_id)
        except ObjectNotFound:
            return Obstacle("its deployment was deleted, so no worker can start it again")
        options = deployment.concurrency_options
        if options is not None and options.collision_strategy == ConcurrencyLimitStrategy.CANCEL_NEW:
            return Obstacle(
                f"the deployment {deployment.name!r} has the collision strategy CANCEL_NEW, which would cancel the run "
                "if it wakes while another one is running; use ENQUEUE"
            )
        return None

    def _lag(self, client: SyncPrefectClient) -> Obstacle | None:
        """Wait until the API shows the end of the task run that ended last here; then it also shows those before it."""
        mark, end = newest(), time.monotonic() + _LAG
        while mark is not None and time.monotonic() < end:
            try:
                state = client.read_task_run(UUID(mark)).state
            except ObjectNotFound:
                state = None
            if state is not None and state.is_final():
                return None
            time.sleep(_LOOK)
        if mark is None:
            return None
        return Obstacle("Prefect's API does not show the run's newest tasks yet", passing=True)

    def _tasks(self, client: SyncPrefectClient, run: FlowRun) -> Obstacle | list[str]:
        """Return the tasks that may run again after waking, and would.

        An obstacle is any other task or subflow that would run again, or that is still running.
        """
        since = run.state.timestamp if run.state is not None else datetime.now(timezone.utc)
        running: list[str] = []
        again: list[str] = []
        safely: list[str] = []
        for flow_run, count in ((run, self.run_count), *_subflows(client, run, since)):
            for task_run in _task_runs(client, flow_run.id):
                # Ignore task runs of earlier attempts: Prefect shows one whose process was killed as running for ever.
                if task_run.state is None or task_run.state.state_details.child_flow_run_id is not None:
                    continue
                if count is not None and task_run.flow_run_run_count != count:
                    continue
                if not task_run.state.is_final():
                    running.append(task_run.name)
                elif REPLAY_SAFE in task_run.tags:
                    safely.append(task_run.name)
                elif not _is_kept(task_run):
                    again.append(task_run.name)
            if flow_run is not run:
                if flow_run.deployment_id is not None:
                    again.append(flow_run.name)
                elif flow_run.state is None or not flow_run.state.is_final():
                    running.append(flow_run.name)
        if again:
            return Obstacle(
                f"a run that wakes starts at the flow's first line, and {some_of(again)} would run again; set "
                f"persist_result=True for such a task, or the tag {REPLAY_SAFE!r} if running it again does no harm"
            )
        if running:
            return Obstacle(f"still running: {some_of(running)}; the run parks when that has ended", passing=True)
        return safely


def standing(ids: list[str]) -> dict[str, State[Any] | None]:
    """Return the states of these flow runs; a deleted run is missing. Asks Prefect's API and blocks.

    Raises ConfigurationError if it refuses to say.
    """
    found: dict[str, State[Any] | None] = {}
    try:
        with get_client(sync_client=True) as client:
            for first in range(0, len(ids), _PAGE):
                some = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(each) for each in ids[first : first + _PAGE]]))
                found |= {str(run.id): run.state for run in client.read_flow_runs(flow_run_filter=some, limit=_PAGE)}
    except Exception as error:
        if (refused := refusal_of(error)) is None:
            raise
        raise ConfigurationError(
            f"Prefect's API refuses to say which runs are parked ({refused}). Use a PREFECT_API_KEY that may read flow "
            "runs."
        ) from error
    return found


def wake(flow_run_id: str) -> Literal["woken", "itself", "gone"]:
    """Have a parked run started now. Blocks.

    Returns "woken"; "itself" if it wakes within seconds anyway; "gone" if it is not parked. Raises PrefectException
    with the reason if Prefect does not start it.
    """
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return "gone"
        if state is None or state.name != PARKED:
            return "gone"
        due, now = state.state_details.scheduled_time, _now(client, UUID(flow_run_id))
        if due is not None and due.timestamp() - now.timestamp() < _SURELY_ITSELF:
            return "itself"
        # Prefect itself gives this name to a run that is resumed.
        state = Scheduled(scheduled_time=now, name="Resuming")
        answer: OrchestrationResult[Any] = client.set_flow_run_state(UUID(flow_run_id), state)
        if answer.status is not SetStateStatus.ACCEPT:
            reason = getattr(answer.details, "reason", None) or "no reason is given"
            raise PrefectException(f"Prefect answered {answer.status.value}: {reason}")
        return "woken"


def _now(client: SyncPrefectClient, flow_run_id: UUID) -> datetime:
    """Return the time of Prefect's clock. A wake time by a wrong local clock would be wrong by the difference."""
    said = client.request("GET", "/flow_runs/{id}", path_params={"id": flow_run_id}).headers.get("date")
    own = datetime.now(timezone.utc)
    prefects = parsedate_to_datetime(said) if said else own
    # Prefect's time has whole seconds, so the local clock is more exact if the two agree.
    return own if abs((own - prefects).total_seconds()) < _SAME_CLOCK else prefects


def cancel_waiting(flow_run_id: str) -> None:
    """Cancel a run in Prefect, if it is parked or paused, so that it does not continue. Asks the API and blocks."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return
        left = None if state is None else outcome_of(state)
        if left in COMES_BACK:
            given_up: State[Any] = Cancelled(message=f"Given up while it was {left}.")
            client.set_flow_run_state(UUID(flow_run_id), given_up, force=True)


def end_cancelling(flow_run_id: str) -> None:
    """Complete the cancellation of a run that no longer has a process. Blocks."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run_id), Cancelled(message="Cancelled while it was parked."), force=True)


def _to_come_back(run: FlowRun) -> dict[str, Any]:
    """Return the changes of a run that leaves its process to come back.

    It has no process, or a cancellation in Prefect would look for one. It will be resumed, so its next begin does not
    count as a further run and uses none of the flow's retries. And no process is about to retry it: after a retry,
    Prefect would otherwise not give it to a worker.
    """
    policy = run.empirical_policy.model_copy(update={"resuming": True, "retry_type": None})
    return {"infrastructure_pid": None, "empirical_policy": policy.model_dump(mode="json", exclude_unset=True)}


def _is_in_body_of(function: Callable[..., Any]) -> bool:
    """Return whether the calling code runs within the function, in its thread and its asyncio task."""
    bodies: set[CodeType | None] = set()
    inner: Any = function
    while inner is not None:
        bodies.add(getattr(getattr(inner, "__func__", inner), "__code__", None))
        inner = getattr(inner, "__wrapped__", None)
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code in bodies:
            return True
        frame = frame.f_back
    return False


def _is_kept(task_run: TaskRun) -> bool:
    # The journal has the results of the package's own tasks. Only `dequeue` would take another message.
    if (task_run.task_version or "").startswith("ivcap-flows ") and "dequeue" not in task_run.task_key:
        return True
    completed = task_run.state is not None and task_run.state.is_completed()
    kept = task_run.state is not None and task_run.state.data is not None
    return completed and kept and not runs_again(task_run.task_key)


def _task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> Iterator[TaskRun]:
    offset = 0
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    while page := client.read_task_runs(flow_run_filter=chosen, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)


def _subflows(client: SyncPrefectClient, run: FlowRun, since: datetime) -> Iterator[tuple[FlowRun, int | None]]:
    """Yield the subflows of this attempt, and their subflows, that are still running or would run again."""
    parents = [run.id]
    while parents:
        chosen = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=parents))
        parents = []
        offset = 0
        while page := client.read_flow_runs(flow_run_filter=chosen, limit=_PAGE, offset=offset):
            offset += len(page)
            for child in page:
                state = child.state
                kept = state is not None and state.is_completed() and state.data is not None
                if kept or (child.created is not None and child.created < since):
                    continue
                parents.append(child.id)
                yield child, None


def some_of(names: Sequence[str]) -> str:
    """Name the first of the tasks, and say how many more there are."""
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown
