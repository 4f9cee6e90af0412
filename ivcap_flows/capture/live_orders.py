"""Warn about the work that a cancelled, failed or crashed flow leaves on the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ivcap_flows.identity import short_id
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal

__all__ = ["tell_of_live_orders"]

log = logger_of("ivcap_flows.capture")

_ENDS: Final = {"cancelled": "was cancelled", "crashed": "crashed", "failed": "failed", "lost": "lost its process"}
_NAMED: Final = 20


def tell_of_live_orders(journal: Journal, run_id: str, outcome: str) -> None:
    """Warn about the orders and jobs of a run that may still go on, if the run ended badly. Never raises."""
    if outcome not in _ENDS:
        return
    try:
        from ivcap_flows.work.orphans import live_of

        rows = live_of(journal, run_id)
    except Exception:
        log.warning("It is not known which orders and jobs run %s leaves on the platform.", run_id, exc_info=True)
        return
    if not rows:
        return
    names = [f"{row.urn or f'{row.noun} {short_id(row.key)}, in doubt'} ({row.subject})" for row in rows[:_NAMED]]
    more = [f"and {len(rows) - _NAMED} more"] if len(rows) > _NAMED else []
    log.warning(
        "Run %s %s. The platform cannot cancel its orders and jobs, so these continue and are paid for: %s. The next "
        "attempt of the run waits for them again; until then, `ivcap-flows orders --orphans` lists them.",
        run_id,
        _ENDS[outcome],
        "; ".join([*names, *more]),
    )
