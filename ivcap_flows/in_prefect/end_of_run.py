"""Tell at the end of a run what it requested, and what a run that ended badly leaves on the platform."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ivcap_flows.durable.divergence import warn_of_what_was_left
from ivcap_flows.durable.earlier_successes import EarlierSuccesses, in_words
from ivcap_flows.identity import short_id, short_run
from ivcap_flows.in_prefect.events import emit_orphans
from ivcap_flows.journal.rows import COMES_BACK
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt, Outcome

__all__ = ["counted", "tell_of_live_orders", "tell_of_what_was_left", "tell_what_is_on_record"]

log = logger_of("ivcap_flows.in_prefect")

_ENDS: Final = {"cancelled": "was cancelled", "crashed": "crashed", "failed": "failed", "lost": "lost its process"}
_NAMED: Final = 20


def tell_of_live_orders(journal: Journal, run_id: str, outcome: str) -> None:
    """Tell about the orders and jobs of a run that may still go on, if the run ended badly. Never raises."""
    if outcome not in _ENDS:
        return
    try:
        from ivcap_flows.work.orphans import live_of

        rows = live_of(journal, run_id)
        names = [f"{row.urn or _without_urn(journal, row)} ({row.subject})" for row in rows[:_NAMED]]
    except Exception:
        log.warning("It is not known which orders and jobs run %s leaves on the platform.", run_id, exc_info=True)
        return
    if not rows:
        return
    if not (outcome == "failed" and _is_tried_again()):
        emit_orphans(rows, outcome)
    more = [f"and {len(rows) - _NAMED} more"] if len(rows) > _NAMED else []
    log.warning(
        "Run %s %s. The platform cannot cancel its orders and jobs, so these continue and are paid for: %s. The next "
        "attempt of the run waits for them again; until then, `ivcap-flows orders --orphans` lists them.",
        run_id,
        _ENDS[outcome],
        "; ".join([*names, *more]),
    )


def _without_urn(journal: Journal, row: IntentRow) -> str:
    return f"{row.noun} {short_id(row.key)}, {'being requested' if journal.intents.held(row) else 'in doubt'}"


def tell_of_what_was_left(journal: Journal, opened: OpenedAttempt, outcome: str) -> None:
    """Tell what a completed run requested in place of what its earlier attempts had requested. Never raises."""
    if outcome != "completed" or opened.attempt.number < 2:
        return
    try:
        warn_of_what_was_left(journal, opened.run.id, opened.attempt.number)
    except Exception as error:  # noqa: BLE001 - the run has ended, and is on record
        log.debug("It is not known what run %s left of its earlier attempts: %s", opened.run.id, error)


def _is_tried_again() -> bool:
    """Return whether Prefect will try the running flow or background task again, in this process."""
    module = sys.modules.get("prefect.context")
    found = None if module is None else module.FlowRunContext.get()
    task = None if module is None else module.TaskRunContext.get()
    if found is None and task is not None:
        return not task.task_run.state.is_final()
    if found is None or found.flow is None or found.flow_run is None:
        return False
    return bool(found.flow_run.run_count <= (found.flow.retries or 0))


def counted(journal: Journal, run_id: str) -> str:
    """Return how many effects of each noun a run requested, in words; nothing if there are none."""
    counts = journal.intents.counts(run_id)
    return ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items())


def tell_what_is_on_record(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    """Log how many effects of each noun the run of a flow requested, unless it goes on. Never raises.

    Log also how many of its orders and jobs an earlier success could have spared, so that nobody pays twice unawares.

    The command has the short id: a name may be that of many runs, or have characters that a shell takes otherwise.
    """
    if outcome in COMES_BACK or opened.run.entry_point.endswith(":"):
        return
    try:
        requested = counted(journal, opened.run.id) or "nothing was requested on a platform"
        spared = _spared(journal, opened.run.id)
    except Exception:  # noqa: BLE001 - the run has ended, and is on record
        return
    log.info("On record: %s. `ivcap-flows show %s` shows the run.", requested, short_run(opened.run.id))
    if spared:
        log.info(spared)


def _spared(journal: Journal, run_id: str) -> str:
    earlier = EarlierSuccesses(journal, run_id)
    rows = journal.intents.where(run_id=run_id, limit=None)
    new = [row for row in rows if row.how == "sent" and row.definition is not None]
    # Where one was looked for to be reused, there was none.
    return in_words(sum(row.reuse is None and earlier.equal_to(row) is not None for row in new), len(new))
