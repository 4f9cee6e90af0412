"""The work of `ivcap-flows sync`: run by hand, by a deployment, or in a separate process when a run ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.outbox import Drained, drain
from ivcap_flows.sinks.sink_registry import Clients, check_sinks, open_sinks

if TYPE_CHECKING:
    from ivcap_flows.errors import IvcapFlowsError
    from ivcap_flows.journal import AttemptRow, DeliveryRow, DeliveryState, Journal, Outcome

__all__ = ["Synced", "begin_sync", "synchronise"]

log = logger_of("ivcap_flows.sinks")

_UNDELIVERED: Final[tuple[DeliveryState, ...]] = ("pending", "dead")
_begun: list[subprocess.Popen[Any]] = []


@dataclass(frozen=True)
class Synced:
    """The result of one `sync`: the attempts that it closed, the sinks, what is left, and sinks without a client."""

    ended: list[tuple[AttemptRow, Outcome]]
    sinks: list[Drained]
    left: list[DeliveryRow]
    unusable: dict[str, IvcapFlowsError]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to deliver. A sink that another process delivers to now counts as done."""
        return not self.unusable and not any(sink.pending or sink.dead for sink in self.sinks)


def synchronise(journal: Journal, names: Sequence[str], clients: Clients, *, again: bool = False) -> Synced:
    """Close runs whose process died, then deliver to the sinks with these names.

    With `again`, also retry deliveries that wait for their next try, and those that were refused. Raises
    ConfigurationError for an unknown sink, before anything is done.
    """
    check_sinks(names)
    ended = reconcile(journal)
    opened = open_sinks(names, journal, clients)
    drained = drain(journal, opened.sinks, again=again)
    left = [
        row
        for sink in opened.sinks
        for state in _UNDELIVERED
        for row in journal.deliveries.where(sink.name, state=state, limit=None)
    ]
    return Synced(ended, drained, left, opened.unusable)


def begin_sync() -> None:
    """Start `ivcap-flows sync` in a separate process that outlives this one, if the settings ask for it.

    Never waits and never raises: the next `sync` delivers what this one does not.
    """
    settings = Settings.current()
    if not (settings.sync_at_end and settings.sinks):
        return
    # Reap those that have ended, which takes no time, so that a process with many runs keeps no zombies.
    _begun[:] = [process for process in _begun if process.poll() is None]
    try:
        _begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "ivcap_flows.cli", "sync"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
    except OSError as error:
        log.warning("To deliver the record, run `ivcap-flows sync`. It could not be started automatically: %s", error)
