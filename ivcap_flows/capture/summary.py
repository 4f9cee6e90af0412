"""One line at the end of a run: what its flow requested, and the command that shows the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ivcap_flows.capture.recorder_registry import rests
from ivcap_flows.identity import short_run
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, OpenedAttempt, Outcome

__all__ = ["counted", "tell_what_is_on_record"]

log = logger_of("ivcap_flows.capture")


def counted(journal: Journal, run_id: str) -> str:
    """Return how many effects of each noun a run requested, in words; nothing if there are none."""
    counts = journal.intents.counts(run_id)
    return ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items())


def tell_what_is_on_record(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    """Log how many effects of each noun the run of a flow requested, unless it goes on. Never raises."""
    if outcome == "parked" or opened.run.entry_point.endswith(":") or rests():
        return
    try:
        said = counted(journal, opened.run.id)
    except Exception:  # noqa: BLE001 - the run has ended, and is on record
        return
    name = opened.attempt.flow_run_name or short_run(opened.run.id)
    log.info("On record%s. `ivcap-flows show %s` shows the run.", f": {said}" if said else "", name)
