"""Show in Prefect's UI what a run was, when it ends: one page.

A separate thread does this while Prefect ends the run; a process that ends waits for it for a moment. If Prefect cannot
be reached, the record is still in the journal.
"""

from __future__ import annotations

import atexit
import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Final

from ivcap_flows.identity import flows_urn, short_run
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, key_for, show
from ivcap_flows.in_prefect.end_of_run import counted
from ivcap_flows.in_prefect.run_page import MODEL_RUN, MOST, RunPage
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, OpenedAttempt, Outcome

__all__ = ["show_in_prefect"]

log = logger_of("ivcap_flows.in_prefect")

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "crashed"})
_WORK: Final = ("order", "job", MODEL_RUN)
_TIMEOUT: Final = 3.0
"""Seconds for which a process that ends waits for the thread."""

_showing: list[threading.Thread] = []


def show_in_prefect(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    """Begin to show how a flow run ended, unless it runs without Prefect. Never raises, waits or blocks."""
    if outcome not in _ENDED or opened.run.entry_point.endswith(":") or "prefect.context" not in sys.modules:
        return
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=lambda: context.run(_show, journal, opened, outcome), name="ivcap-flows-showing", daemon=True
    )
    if not _showing:
        atexit.register(_finish)
    _showing[:] = [other for other in _showing if other.is_alive()]
    _showing.append(thread)
    thread.start()


def _finish() -> None:
    for thread in _showing:
        thread.join(_TIMEOUT)


def _show(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    try:
        if Settings.current().artifacts == "off":
            return
        run = opened.run
        work = [row for noun in _WORK for row in journal.intents.where(run_id=run.id, noun=noun, limit=MOST)]
        around = list(journal.lineages.around([flows_urn("attempt", opened.attempt.id)], "runs"))
        ends, said = journal.lineages.ends(run.id, most=MOST), counted(journal, run.id)
        page = RunPage(run, outcome, journal.runs.attempts(run.id), work, ends, around, said)
        if not page.empty:
            about, key = f"The record of run {short_run(run.id)}: {outcome}.", key_for("provenance", run.flow_name)
            show(PrefectArtifact("markdown", page.markdown(), about, opened.attempt.flow_run_id, key=key))
    except Exception as error:  # noqa: BLE001 - Prefect's API or the journal may be away; the run has ended well
        log.debug("The record of run %s could not be shown in Prefect: %s", opened.run.id, error)
