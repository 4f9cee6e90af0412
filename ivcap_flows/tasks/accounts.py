"""Which credentials a task uses that was given none, and whether they lead to where its run has work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from ivcap_flows.capture.prefect_context import flow_context
from ivcap_flows.durable import planning
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.forked import PerProcess
from ivcap_flows.identity import short_run
from ivcap_flows.journal import Journal, OpenedAttempt, RunRow
from ivcap_flows.journal.rows import AccountRow
from ivcap_flows.lru_cache import LruCache

__all__ = ["block_name", "check_account", "credentials_of"]

_checked: Final = PerProcess[LruCache[tuple[str, str, int, str], None]](lambda: LruCache(1_000))
"""Credentials that were checked in this process: journal, run, number of the attempt, name."""


def credentials_of(platform: Literal["ivcap", "provena"], given: Any, attempt: OpenedAttempt | None) -> Any:
    """Return the credentials that a task was given; else the parameter of its flow that has the platform's name.

    A subflow without such a parameter has that of the run's outermost flow. Return None if there is none, or if it is
    None: then the environment says which credentials there are.
    """
    if given is not None:
        return given
    flow = flow_context()
    own = (flow.parameters or {}).get(platform) if flow is not None else None
    if own is not None or attempt is None:
        return own
    # Of a block, the record has the name.
    outermost = attempt.run.parameters.get(platform)
    return outermost.get("name") if isinstance(outermost, Mapping) else outermost


def block_name(credentials: Any) -> str | None:
    """Return the name of a credentials block; None for one that is not saved, and for the environment's credentials."""
    if credentials is None or isinstance(credentials, str):
        return credentials
    name: str | None = credentials._block_document_name
    return name


async def check_account(
    platform: Literal["ivcap", "provena"], given: Any, here: AccountRow, journal: Journal, attempt: OpenedAttempt | None
) -> None:
    """Raise ConfigurationError if the run has work of another account, by credentials that have the same name there.

    An attempt on another machine, or another day, may have another environment. Credentials without a name are made by
    the flow's code, which decides itself where it goes on. So does code that changes the environment of its process:
    only the first account of an attempt is checked.
    """
    plan, block = planning(), block_name(given)
    run = attempt.run if attempt is not None else plan.run if plan is not None else None
    if run is None or (block is None and given is not None):
        return
    name = platform if block is None else f"{platform}/{block}"
    if attempt is None:
        there = await journal.ask(journal.accounts.elsewhere, run.id, name, here)
    else:
        known = (journal.id, run.id, attempt.attempt.number, name)
        if known in _checked():
            return
        there = await journal.ask(journal.accounts.note, run.id, name, here)
        if there is None:
            _checked().put(known, None)
    if there is not None:
        raise _goes_elsewhere(run, there, here, block)


def _goes_elsewhere(run: RunRow, there: AccountRow, here: AccountRow, block: str | None) -> ConfigurationError:
    leads = "the environment of this process leads" if block is None else f"the block {block!r} leads here"
    again = run.way_on if run.deployed else f"{run.way_on}; IVCAP_FLOWS_FRESH=1 begins a new run here"
    return ConfigurationError(
        f"The run {short_run(run.id)} of {run.flow_name} has work on {there.platform} as {there.account}, but {leads} "
        f"to {here.platform} as {here.account}. Nothing was sent there. Use the credentials with which the run began, "
        f"then {again}.",
        run=run.id,
        there=vars(there),
        here=vars(here),
    )
