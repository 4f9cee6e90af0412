"""Register the work of a run as model runs on Provena: as workflows say, and what a killed flow had requested.

Without a workflow nothing is sent, since a registration needs facts that no record of a run has (templates, licences,
people). What a task sent is looked up by its key and noted in the journal, so that the task finds it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.errors import InDoubtError, WaitTimeoutError
from ivcap_flows.handles import Dataset, Handle, Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import NewIntent, OpenedAttempt
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.lookup import Sign, half, look_for
from ivcap_flows.registration.model_runs import run_of_sign
from ivcap_flows.registration.requirements import Requirements
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.sinks.base import REFUSALS, TRIAL, Delivery, is_trial
from ivcap_flows.sinks.registrar import Registrar

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal, RunRow
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["ProvenaSink"]

_WORK: Final[dict[str, type[Order | Job]]] = {"order": Order, "job": Job}
_MADE: Final[dict[str, type[Handle]]] = {"dataset": Dataset, NOUN: ModelRun}
PATIENCE: Final = 120.0
"""Seconds that one registration may take in a pass. The next pass continues it."""
_NAMED: Final = 5
"""The maximum number that a reason names."""


class ProvenaSink:
    """Delivers with one user's client.

    A run for which there is no workflow, and that has no open registration, has nothing to deliver.
    """

    def __init__(
        self, client: ProvenaClient, journal: Journal, name: str = "provena", workflows: Workflows | None = None
    ) -> None:
        self._client = client
        self._journal = journal
        self._name = name
        self._workflows = workflows or Workflows(())

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Register what succeeded and has a workflow. Then look for what else was sent and not seen as lodged."""
        refused, unsent = await self._register(run, graph)
        waiting, failed = await self._look(run)
        facts = await self._unstated(run, graph)
        refused += [words for key, words in failed.items() if not any(key in said for said in refused)]
        reason = _few(refused, " ")
        if waiting:
            told = f"Not visible on Provena yet: {_few(waiting, ', ')}. Run the flow again to register them."
            return Delivery("pending", f"{reason} {told}".strip(), facts)
        return Delivery("dead", reason, facts) if refused else Delivery("delivered", unsent, facts)

    async def _register(self, run: RunRow, graph: Graph) -> tuple[list[str], str | None]:
        """Register the run and its orders and jobs, if they succeeded and have a workflow.

        Return the refusals, and the reason why nothing is registered although there is a workflow.
        """
        asked = await asyncio.to_thread(self._work, run, graph)
        done = [
            (intent, _WORK[intent.noun].model_validate(intent.outcome))
            for intent in asked
            if intent.state == "done" and intent.status == "succeeded"
        ]
        meant = [
            (intent, work, workflow)
            for intent, work in done
            if (workflow := self._workflows.for_work(work, run.flow_name)) is not None
        ]
        whole = self._workflows.for_run(run.flow_name) if run.outcome == "completed" else None
        if not (meant or whole):
            return [], None
        if await is_trial(graph, self._client.platform):
            return [], TRIAL
        attempts = await self._journal.ask(self._journal.runs.attempts, run.id)
        newest = max((row for row in attempts if row.leads), key=lambda row: row.number)
        attempt = OpenedAttempt(run, newest, joined=newest.number > 1)
        platform, account = await self._client.platform(), await self._client.username()
        requirements = Requirements(self._client)
        registrar = Registrar(self._client, self._journal, attempt, graph, platform, account, requirements)
        refused = [
            await _refusal(work.urn, registrar.register(work, workflow, _before(intent, asked)))
            for intent, work, workflow in meant
        ]
        if whole is not None:
            refused.append(await _refusal(flows_urn("run", run.id), registrar.register_run(attempts, whole)))
        return [said for said in refused if said is not None], None

    async def _intents(self, run: RunRow, nouns: Sequence[str] | dict[str, Any] = (NOUN,)) -> list[IntentRow]:
        rows = await self._journal.ask(self._journal.intents.where, run_id=run.id, limit=None)
        return [row for row in rows if row.noun in nouns]

    def _work(self, run: RunRow, graph: Graph) -> list[IntentRow]:
        """Return the intents of the run's orders and jobs, and of ended ones on its record that another run requested.

        That run may have ended, and been delivered, before the order did.
        """
        intents = self._journal.intents
        own = [row for row in intents.where(run_id=run.id, limit=None) if row.noun in _WORK]
        others = {node.id for node in graph.nodes.values() if node.type in _WORK} - {row.urn for row in own}
        return [*own, *(row for urn in sorted(others) for row in _ended(intents.where(urn=urn)))]

    async def _unstated(self, run: RunRow, graph: Graph) -> list[Record]:
        """Return the records of registrations that the run's record lacks, since no task of the run saw them done."""
        made = [row for row in await self._intents(run, _MADE) if row.state == "done" and row.urn not in graph.nodes]
        return [record for row in made for record in describe(_MADE[row.noun].model_validate(row.outcome))]

    async def _look(self, run: RunRow) -> tuple[list[str], dict[str, str]]:
        """Look for everything that was sent and has no known end, and note what is lodged.

        Return the keys of what may still be lodged, and by key the reasons why the rest failed.
        """
        sent = [intent for intent in await self._intents(run) if intent.state == "sent"]
        platform = await self._client.platform() if sent else None
        sent = [intent for intent in sent if intent.platform == platform]
        if not sent:
            return [], {}
        signs = await look_for(self._client, {intent.key for intent in sent}, look_since(self._client.time, *sent))
        now = await self._journal.ask(self._journal.now)
        waiting: list[str] = []
        failed: dict[str, str] = {}
        lodged: list[tuple[IntentRow, Sign]] = []
        for intent in sent:
            sign = signs.get(intent.key)
            if sign is not None and sign.kind == "lodged":
                lodged.append((intent, sign))
            elif sign is not None and sign.kind == "half":
                failed[intent.key] = f"The model run {intent.key} is in doubt. {half(sign.handle, sign.words)}."
            elif (
                sign is not None
                and sign.kind == "failed"
                # Until then, a later job under the same key may still appear.
                and intent.sent_at is not None
                and (now - intent.sent_at).total_seconds() > self._client.visibility_delay
            ):
                failed[intent.key] = f"The model run {intent.key} is not registered. Its job failed: {sign.words}"
            else:
                waiting.append(intent.key)
        return [*waiting, *await self._adopt(lodged)], failed

    async def _adopt(self, lodged: Sequence[tuple[IntentRow, Sign]]) -> list[str]:
        """Note what was found. Return the keys that a live process holds, which will find the same."""
        held: list[str] = []
        for intent, sign in lodged:
            claim = await self._journal.claim(_wanted(intent))
            if claim.kind == "held":
                held.append(intent.key)
            elif claim.kind in ("new", "doubt"):
                try:
                    if claim.kind == "doubt":
                        await self._settle(claim.intent, sign)
                finally:
                    await self._journal.ask_surely(self._journal.intents.release, claim.intent)
        return held

    async def _settle(self, intent: IntentRow, sign: Sign) -> None:
        run = run_of_sign(sign, intent.request, platform=intent.platform, key=intent.key)
        settle = partial(
            self._journal.intents.settle,
            intent,
            urn=run.urn,
            outcome=run.model_dump(mode="json"),
            how="adopted",
            matched_by="key",
            duplicates=sign.more,
        )
        await self._journal.ask(settle)


def _ended(rows: Sequence[IntentRow]) -> list[IntentRow]:
    return [row for row in rows if row.has_ended][:1]


def _wanted(intent: IntentRow) -> NewIntent:
    shared = {field.name for field in fields(NewIntent)} & vars(intent).keys()
    return NewIntent(**{name: getattr(intent, name) for name in shared}, attempt_number=intent.asked_attempt)


def _few(parts: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return separator.join(parts[:_NAMED]) + more


async def _refusal(urn: str, registration: Coroutine[Any, Any, object]) -> str | None:
    """Wait for a registration, but not for ever. Return why it was refused, or None."""
    try:
        await asyncio.wait_for(registration, PATIENCE)
    except asyncio.TimeoutError as error:
        raise WaitTimeoutError(
            f"The registration of {urn} has not ended within {PATIENCE:g} s. The next sync continues.", pending=[urn]
        ) from error
    except (*REFUSALS, InDoubtError) as error:
        return f"{urn} is not registered. {error}"
    return None


def _before(intent: IntentRow, asked: Sequence[IntentRow]) -> list[str]:
    """Return how earlier requests for the same failed, oldest first."""
    earlier = [row for row in asked if row.base_key == intent.base_key and row.generation < intent.generation]
    return [row.status or row.state for row in sorted(earlier, key=lambda row: row.generation)]
