"""What `ivcap-flows sync` does, by hand, from a deployment, or in a process of its own when a run ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.reconcile import reconcile
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.errors import IvcapFlowsError
    from ivcap_flows.journal import AttemptRow, DeliveryRow, DeliveryState, Journal, Outcome
    from ivcap_flows.sinks import Drained
    from ivcap_flows.sinks.sink_registry import Clients

__all__ = ["Synced", "begin_sync", "synchronise"]

log = logger_of("ivcap_flows.capture")

_LEFT: Final[tuple[DeliveryState, ...]] = ("pending", "dead")
_begun: list[subprocess.Popen[Any]] = []


@dataclass(frozen=True)
class Synced:
    """What one `sync` came to: the attempts that it closed, each sink, what is left, and the sinks without a client."""

    ended: list[tuple[AttemptRow, Outcome]]
    sinks: list[Drained]
    left: list[DeliveryRow]
    unusable: dict[str, IvcapFlowsError]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to deliver, as far as no other process is at it."""
        return not self.unusable and not any(sink.pending or sink.dead for sink in self.sinks)


def synchronise(journal: Journal, names: Sequence[str], clients: Clients, *, again: bool = False) -> Synced:
    """Tell how runs ended that lost their process, then deliver to the sinks of these names.

    `again` tries what waits for its time, and what was refused. ConfigurationError for a name that is no sink, before
    anything is done.
    """
    from ivcap_flows.sinks import drain
    from ivcap_flows.sinks.sink_registry import check_sinks, open_sinks

    check_sinks(names)
    ended = reconcile(journal)
    opened = open_sinks(names, journal, clients)
    drained = drain(journal, opened.sinks, again=again)
    left = [
        row
        for sink in opened.sinks
        for state in _LEFT
        for row in journal.deliveries.where(sink.name, state=state, limit=None)
    ]
    return Synced(ended, drained, left, opened.unusable)


def begin_sync() -> None:
    """Start `ivcap-flows sync` in a process of its own that outlives this one, where the settings ask for it.

    Nothing is waited for and nothing raised: whatever does not come of it, the next `sync` does.
    """
    settings = Settings.current()
    if not (settings.sync_at_end and settings.sinks):
        return
    # Those that have ended are waited for, which takes no time, so that a process of many runs keeps no zombies.
    _begun[:] = [process for process in _begun if process.poll() is None]
    try:
        nowhere = subprocess.DEVNULL
        _begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "ivcap_flows.cli", "sync"],
                stdin=nowhere,
                stdout=nowhere,
                stderr=nowhere,
                start_new_session=True,
            )
        )
    except OSError as error:
        log.warning("The record is not delivered yet, since `ivcap-flows sync` could not be started: %s", error)
