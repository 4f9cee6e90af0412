"""Builds that are broken on purpose: each takes one guarantee out of the package, in the process that asks for it.

`MUTANTS` lists them. A test with the marker `catches` and the name of one is run on it, too, and must fail there. A
test that breaks its build itself bears the marker `mutant`. `make mutants` runs them, and prints which test catches
which.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import httpx
import sqlalchemy as sa
from alembic.operations import Operations
from capture_mutants import CAPTURE
from mutant import Mutant, SetAttribute

from ivcap_flows import canonical, threads
from ivcap_flows.blocks.block_login import BlockLogin
from ivcap_flows.capture import files, observing, pending_calls, values
from ivcap_flows.capture.calls import Call
from ivcap_flows.cli import rerun, trace
from ivcap_flows.durable import divergence, intent_record, submission
from ivcap_flows.durable.equal_requests import EqualRequests
from ivcap_flows.durable.intent_record import IntentRecord
from ivcap_flows.durable.plan import Plan
from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.submission import Submission
from ivcap_flows.errors import DurabilityError, ForbiddenError, InDoubtError, NotFoundError
from ivcap_flows.http import answers, pool, session
from ivcap_flows.http.pool import Pool, Reuse
from ivcap_flows.in_prefect import artifacts, parameters
from ivcap_flows.ivcap import archive, idempotency_records
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects
from ivcap_flows.ivcap.collections import Collections
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal import (
    Claim,
    IntentRow,
    Journal,
    NewIntent,
    RunRow,
    counters,
    moves,
    process_locks,
    revisions,
    schema,
    store,
    transitions,
    upgrading,
)
from ivcap_flows.journal.accounts import Accounts
from ivcap_flows.journal.claims import Claims
from ivcap_flows.journal.intents import Intents
from ivcap_flows.journal.leases import Leases
from ivcap_flows.journal.parks import Parks
from ivcap_flows.journal.polls import Polls
from ivcap_flows.journal.process_locks import ProcessLocks
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import AttemptRow, Park, Poll, RunIdentity
from ivcap_flows.journal.transitions import Transitions
from ivcap_flows.local.services import descriptions
from ivcap_flows.provenance import html, lineage_rules, lineage_walk
from ivcap_flows.provenance.lineage_rules import Follow, Step
from ivcap_flows.provenance.lineage_walk import LineageWalk
from ivcap_flows.reading import names, on_record, verification
from ivcap_flows.registration import model_runs
from ivcap_flows.registration.lookup import Newest
from ivcap_flows.registration.making import Making
from ivcap_flows.secrets import rules, scrubbing
from ivcap_flows.secrets.forms import SecretForms
from ivcap_flows.sinks import contents, outbox
from ivcap_flows.tasks import (
    following,
    jobs,
    missing,
    model_run_changes,
    pair,
    park_watcher,
    parking,
    registry,
    running,
    sources,
    submission_limit,
    uploads,
)
from ivcap_flows.tasks.orders import OrderEffect
from ivcap_flows.tasks.park_watcher import Watcher
from ivcap_flows.tasks.step_window import StepWindow
from ivcap_flows.tasks.submission_limit import SubmissionLimit
from ivcap_flows.work import kinds

__all__ = ["MUTANTS", "Mutant", "SetAttribute", "mutate"]


def intent_after_the_effect(patch: SetAttribute) -> None:
    claim, mark_sent, settle = Intents.claim, Intents.mark_sent, Intents.settle
    write = IdempotencyRecords.write
    unwritten: dict[str, tuple[NewIntent, tuple[Any, ...]]] = {}

    def claim_later(self: Intents, wanted: NewIntent, **limit: Any) -> Claim:
        unknown = wanted.noun == "order" and self.get(wanted.key) is None
        made = claim(self, wanted, **limit)
        if unknown:
            unwritten[wanted.key] = (wanted, ())
            with self._store.write() as connection:
                connection.execute(sa.delete(schema.intents).where(schema.intents.c.key == wanted.key))
        return made

    def mark_sent_later(self: Intents, intent: IntentRow, *given: Any) -> IntentRow:
        if intent.key not in unwritten:
            return mark_sent(self, intent, *given)
        unwritten[intent.key] = (unwritten[intent.key][0], given)
        return replace(intent, state="sent")

    def settle_at_last(self: Intents, intent: IntentRow, **outcome: Any) -> IntentRow:
        if intent.key in unwritten:
            wanted, given = unwritten.pop(intent.key)
            intent = mark_sent(self, claim(self, wanted).intent, *given)
        return settle(self, intent, **outcome)

    async def write_later(
        self: IdempotencyRecords, key: str, content: dict[str, Any], *, first: bool = False
    ) -> Sequence[dict[str, Any]]:
        return [] if content["urn"] is None else await write(self, key, content, first=first)

    patch(Intents, "claim", claim_later)
    patch(Intents, "mark_sent", mark_sent_later)
    patch(Intents, "settle", settle_at_last)
    patch(IdempotencyRecords, "write", write_later)


def sent_before_it_is_marked(patch: SetAttribute) -> None:
    mark_sent, settle = Intents.mark_sent, Intents.settle
    unmarked: dict[str, tuple[Any, ...]] = {}

    def mark_later(self: Intents, intent: IntentRow, *given: Any) -> IntentRow:
        unmarked[intent.key] = given
        return replace(intent, state="sent")

    def mark_at_last(self: Intents, intent: IntentRow, **outcome: Any) -> IntentRow:
        held = self.get(intent.key)
        if held is not None and held.state == "claimed" and intent.key in unmarked:
            intent = mark_sent(self, replace(intent, state="claimed"), *unmarked[intent.key])
        return settle(self, intent, **outcome)

    patch(Intents, "mark_sent", mark_later)
    patch(Intents, "settle", mark_at_last)


def no_settle(patch: SetAttribute) -> None:
    begin = Submission.__init__

    def begin_hastily(self: Any, effect: Any, *given: Any, **options: Any) -> None:
        begin(self, replace(effect, visibility_delay=0.0), *given, **options)

    patch(Submission, "__init__", begin_hastily)


def no_key_aspects(patch: SetAttribute) -> None:
    # Nobody ever sees one.
    patch(intent_record, "foremost", lambda records: None)


def what_may_not_be_read_is_ours(patch: SetAttribute) -> None:
    async def read(kind: Any, client: Any, urn: str, service: str = "") -> Any:
        return await kind.read(client, urn, service)

    patch(kinds, "read_listed", read)


def a_turn_without_the_look(patch: SetAttribute) -> None:
    patch(IntentRecord, "shows_within", 0.0)


def a_claim_gives_way_at_once(patch: SetAttribute) -> None:
    look = IdempotencyRecords._with

    async def seen(self: IdempotencyRecords, written: AspectRecord) -> list[AspectRecord]:
        there = await look(self, written)
        self._lists_at_once = True
        return there

    patch(IdempotencyRecords, "_with", seen)


def the_own_record_is_not_waited_for(patch: SetAttribute) -> None:
    async def there(self: IdempotencyRecords, written: AspectRecord) -> list[AspectRecord]:
        return await self._active(written.entity)

    patch(IdempotencyRecords, "_with", there)


def an_unreadable_order_is_others(patch: SetAttribute) -> None:
    find = OrderEffect.find

    async def found(self: OrderEffect, intent: IntentRow) -> Any:
        try:
            return await find(self, intent)
        except (ForbiddenError, NotFoundError):
            return []

    patch(OrderEffect, "find", found)


def a_look_that_sees_nothing(patch: SetAttribute) -> None:
    look = kinds.look_through

    async def look_through(*given: Any, **options: Any) -> Any:
        try:
            return await look(*given, **options)
        except InDoubtError:
            return []

    patch(jobs, "look_through", look_through)


def equal_requests_not_asked_for(patch: SetAttribute) -> None:
    async def nothing(self: IntentRecord) -> list[dict[str, Any]]:
        return []

    patch(IntentRecord, "of_equal_requests", nothing)


def rivals_not_waited_for(patch: SetAttribute) -> None:
    choose = EqualRequests.choose

    def at_once(self: EqualRequests, alike: Any, *, last: bool) -> Any:
        return choose(replace(self, rivals=dict.fromkeys(self.rivals, False)), alike, last=last)

    patch(EqualRequests, "choose", at_once)


def all_take_the_oldest(patch: SetAttribute) -> None:
    choose = EqualRequests.choose

    def oldest(self: EqualRequests, alike: Any, *, last: bool) -> Any:
        return None if choose(self, alike, last=last) is None else alike[0]

    patch(EqualRequests, "choose", oldest)


def who_loses_gives_up(patch: SetAttribute) -> None:
    keep = Submission._keep

    async def give_up(self: Submission[Any], *found: Any) -> Any:
        try:
            return await keep(self, *found)
        except InDoubtError as error:
            raise DurabilityError(str(error)) from error

    patch(Submission, "_keep", give_up)
    all_take_the_oldest(patch)


def records_belong_to_the_journal(patch: SetAttribute) -> None:
    def gives_way(record: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
        return record.get("journal") == content.get("journal") and record.get("urn") != content.get("urn")

    patch(idempotency_records, "_gives_way", gives_way)


def each_journal_keeps_its_upload(patch: SetAttribute) -> None:
    agree = IntentRecord.agree

    async def agree_with_itself(self: Any, urn: str | None, outcome: Any) -> tuple[None, list[str]]:
        return None, (await agree(self, urn, outcome))[1]

    patch(IntentRecord, "agree", agree_with_itself)


def made_again_before_it_must_show(patch: SetAttribute) -> None:
    shown = uploads._shown

    async def shown_once(call: Any, urn: str, timeout: float, *read: Any) -> Any:
        return await shown(call, urn, 0.0, *read)

    patch(uploads, "_shown", shown_once)


def lost_is_kept(patch: SetAttribute) -> None:
    patch(missing, "MADE_AGAIN", frozenset())


def orders_are_made_again(patch: SetAttribute) -> None:
    patch(missing, "MADE_AGAIN", frozenset({"upload", "order"}))


def lost_is_not_superseded(patch: SetAttribute) -> None:
    patch(intent_record, "foremost", lambda records: next((each for each in records if each.get("urn")), None))
    patch(uploads, "foremost", intent_record.foremost)


def not_synchronous(patch: SetAttribute) -> None:
    make = store._sqlite

    def make_fast(url: Any) -> sa.Engine:
        engine = make(url)
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return engine

    patch(store, "_sqlite", make_fast)


def no_fence(patch: SetAttribute) -> None:
    patch(Transitions, "_check_fence", lambda self, row, held: None)
    patch(transitions, "check_arrow", lambda row, after, **known: None)


def every_holder_dead(patch: SetAttribute) -> None:
    patch(Processes, "holds", lambda self, process, token: False)


def a_lock_that_says_nothing(patch: SetAttribute) -> None:
    patch(ProcessLocks, "life", lambda self, process, lock: "unknown")


def a_noted_death_not_believed(patch: SetAttribute) -> None:
    patch(process_locks, "ENDED", "")


def a_move_that_takes_silence_for_a_death(patch: SetAttribute) -> None:
    def note_all(self: Processes, connection: sa.Connection) -> None:
        connection.execute(sa.update(schema.processes).values(lock=process_locks.ENDED))

    patch(Processes, "note_deaths", note_all)


def a_source_that_is_not_locked(patch: SetAttribute) -> None:
    patch(moves._End, "keep_others_out", lambda self, connection: None)
    patch(moves._End, "write", lambda self: self.engine.begin())
    # On SQLite, any write locks the file.
    patch(Processes, "note_deaths", lambda self, connection: None)


def an_upgrade_without_its_lock(patch: SetAttribute) -> None:
    @contextmanager
    def together(store: Any) -> Iterator[Any]:
        try:
            with store.engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise store.failure("upgraded", error) from error

    patch(upgrading, "_alone", together)


def an_upgrade_without_its_transaction(patch: SetAttribute) -> None:
    upgrade = revisions.upgrade

    def upgrade_and_commit(connection: sa.Connection, missing: Any) -> None:
        upgrade(connection, missing)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")

    patch(revisions, "upgrade", upgrade_and_commit)


def an_upgrade_that_forgets_a_table(patch: SetAttribute) -> None:
    patch(Operations, "create_table", lambda self, *given, **more: None)


def an_upgrade_that_forgets_a_counter(patch: SetAttribute) -> None:
    patch(counters, "continue_after", lambda *given: None)


def an_upgrade_that_waits_for_nobody(patch: SetAttribute) -> None:
    patch(upgrading, "_wait_for", lambda store, connection: None)


def a_copy_without_its_mark(patch: SetAttribute) -> None:
    patch(upgrading, "_mark", lambda path, mark: None)


def the_revision_is_not_read_again(patch: SetAttribute) -> None:
    patch(store, "_USABLE", "SELECT '1' FROM journal_info WHERE mark IS NULL")
    patch(store, "_AND_USABLE", ", (SELECT '1' FROM journal_info WHERE mark IS NULL)")


def a_target_made_before_the_proof(patch: SetAttribute) -> None:
    def make_and_look(self: Processes, connection: sa.Connection) -> Any:
        made[-1].make_file()
        return living(self, connection)

    def opened(self: Any, url: str) -> None:
        begin(self, url)
        made.append(self)

    made: list[Any] = []
    begin, living = moves._End.__init__, Processes.living
    patch(moves._End, "__init__", opened)
    patch(Processes, "living", make_and_look)


def a_reader_makes_the_journal(patch: SetAttribute) -> None:
    patch(Journal, "or_empty", Journal.open)


def a_lock_file_known_by_its_name(patch: SetAttribute) -> None:
    patch(ProcessLocks, "_identity", lambda self, file: "")


def a_lock_that_is_not_tried(patch: SetAttribute) -> None:
    patch(ProcessLocks, "_keeps_out", staticmethod(lambda path: True))


def a_file_named_before_it_is_locked(patch: SetAttribute) -> None:
    patch(ProcessLocks, "_in_making", staticmethod(lambda path: path))


def release_not_written(patch: SetAttribute) -> None:
    def only_here(self: Claims, intent: IntentRow) -> None:
        if intent.token is not None:
            self._processes.end(intent.token)

    patch(Claims, "release", only_here)
    release = Intents.release
    patch(Intents, "release", lambda self, intent, *_: release(self, intent))


def sends_not_confirmed(patch: SetAttribute) -> None:
    send = Submission._send

    async def marked_before(self: Any) -> Any:
        await self._mark_sent()

        async def confirmed() -> None:
            """The mark that was written once is good for ever."""

        self._mark_sent = confirmed
        return await send(self)

    patch(Submission, "_send", marked_before)


def old_confirmation_trusted(patch: SetAttribute) -> None:
    async def before_the_head(_self: Any, event: str, _: Any) -> None:
        if event == "http11.send_request_headers.started":
            await session.confirm_send()

    patch(session._ConfirmedSend, "__call__", before_the_head)


def progress_not_stored(patch: SetAttribute) -> None:
    patch(Intents, "progress", lambda self, intent, progress: replace(intent, progress=progress))


def local_clock(patch: SetAttribute) -> None:
    def since(platform: object, *intents: IntentRow) -> datetime:
        return min(intent.created_at for intent in intents) - timedelta(minutes=5)

    # This module is among those whose name is changed.
    real = look_since
    for module in list(sys.modules.values()):
        if getattr(module, "look_since", None) is real:
            patch(module, "look_since", since)


def sent_again_not_noted(patch: SetAttribute) -> None:
    real = Transitions.move

    def moved(self: Transitions, connection: Any, held: Any, after: Any, values: Any) -> IntentRow:
        return real(self, connection, held, after, values | ({"sent_again": False} if "sent_again" in values else {}))

    patch(Transitions, "move", moved)


def requests_gain_a_field(patch: SetAttribute) -> None:
    request = uploads._request
    patch(uploads, "_request", lambda *given: {**request(*given), "encoding": None})


def key_by_path(patch: SetAttribute) -> None:
    patch(RunRow, "flow", property(lambda self: self.entry_point))


def sets_unsorted(patch: SetAttribute) -> None:
    patch(canonical, "_sorted", list)


def each_asks_for_itself(patch: SetAttribute) -> None:
    async def not_asked(self: PollSharing, do: object) -> None:
        """As if there were no journal."""

    patch(PollSharing, "_ask", not_asked)


def rounds_of_many(patch: SetAttribute) -> None:
    begin = Polls.begin
    patch(Polls, "begin", lambda self, watchlist, seen: begin(self, watchlist, seen) or self.read(watchlist))


def added_only_once(patch: SetAttribute) -> None:
    add = Polls.add

    def first_time(self: Polls, watchlist: str, wanted: Mapping[str, str]) -> Poll:
        known = self.__dict__.setdefault("added", set())
        new = {urn: service for urn, service in wanted.items() if urn not in known}
        known |= set(new)
        return add(self, watchlist, new)

    patch(Polls, "add", first_time)


def no_shapes_of_secrets(patch: SetAttribute) -> None:
    patch(rules, "SHAPES", [])


def no_values_of_secret_names_in_texts(patch: SetAttribute) -> None:
    patch(rules, "ASSIGNMENTS", [])
    patch(rules, "COMMANDS", [])
    patch(rules, "_USERINFO", re.compile(r"(?!)"))


def no_names_of_secrets(patch: SetAttribute) -> None:
    for module in (scrubbing, values):
        patch(module, "is_secret_name", lambda name: False)


def no_types_of_secrets(patch: SetAttribute) -> None:
    patch(scrubbing, "secrets_of", lambda value, *args, **options: ())


def lists_are_no_commands(patch: SetAttribute) -> None:
    def one_by_one(words: Sequence[str], replace: Any) -> list[str]:
        return [rules.without_shapes(word, replace) for word in words]

    patch(scrubbing, "without_arguments", one_by_one)


def no_known_secrets(patch: SetAttribute) -> None:
    patch(scrubbing, "known", SecretForms)


def early_calls_kept(patch: SetAttribute) -> None:
    def keep_all(call: Any, flow_run_id: str) -> None:
        pending_calls._pending()[call] = flow_run_id

    patch(pending_calls, "keep", keep_all)


def callback_for_each_journal(patch: SetAttribute) -> None:
    class _Engines:
        @staticmethod
        def add(engine: sa.Engine) -> None:
            os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))

    patch(store, "_engines", _Engines)


def processes_not_pruned(patch: SetAttribute) -> None:
    patch(Processes, "prune", lambda self, before: None)


def crate_without_a_limit(patch: SetAttribute) -> None:
    def takes(self: Any, id_: str, content: bytes, name: str) -> bool:
        return contents.place_of_secret(content, name) is None

    patch(contents.Contents, "_takes", takes)


def whole_results_kept(patch: SetAttribute) -> None:
    from ivcap_flows.tasks import jobs, waiting

    for module in (jobs, waiting):
        patch(module, "outcome_of", lambda work: work.model_dump(mode="json"))


def result_not_read_again(patch: SetAttribute) -> None:
    from ivcap_flows.tasks import jobs

    patch(jobs, "is_json_type", lambda media_type: False)


def secrets_are_forgotten(patch: SetAttribute) -> None:
    add = scrubbing._Known.add

    def add_and_forget(self: Any, secret: str, name: str = "") -> None:
        add(self, secret, name)
        if len(self._secrets) % 1_000 == 0:
            self.forms = SecretForms()

    patch(scrubbing._Known, "add", add_and_forget)


def masks_are_masked_again(patch: SetAttribute) -> None:
    patch(scrubbing, "_is_mask", lambda value: False)


def any_two_texts_are_a_header(patch: SetAttribute) -> None:
    patch(scrubbing, "_HEADER", re.compile("(?s).*"))


def signatures_are_remembered(patch: SetAttribute) -> None:
    patch(scrubbing, "signs", lambda name: False)


def contents_are_not_searched(patch: SetAttribute) -> None:
    patch(contents, "place_of_secret", lambda content, name: None)


def the_last_fact_is_the_last_version(patch: SetAttribute) -> None:
    patch(verification, "_last_times", lambda facts: {})


def a_fault_is_a_refusal(patch: SetAttribute) -> None:
    patch(outbox, "REFUSALS", (*outbox.REFUSALS, ValueError))


def paths_as_displayed(patch: SetAttribute) -> None:
    for module in (contents, rerun, verification):
        patch(module, "path_of", str)


def prefect_logs_parameters(patch: SetAttribute) -> None:
    patch(parameters, "_quietly", nullcontext)


def arguments_unchecked(patch: SetAttribute) -> None:
    patch(pair, "_texts", lambda value: [])


def sizes_by_stat(patch: SetAttribute) -> None:
    patch(files.PathState, "size", property(lambda self: self.stamp.size))
    patch(archive, "_content", lambda path, state: nullcontext((state.size, ()) if state else (0, ())))


def keys_by_letters_alone(patch: SetAttribute) -> None:
    patch(artifacts, "digest", lambda data: "")


def files_before_runs(patch: SetAttribute) -> None:
    for module in (names, on_record):
        patch(module, "is_path", lambda journal, name: os.path.lexists(name))


def unknowns_untold(patch: SetAttribute) -> None:
    patch(trace, "unknowns", lambda activity: ())


def inputs_that_are_only_written_to(patch: SetAttribute) -> None:
    patch(Call, "uses", lambda self, role, handle: True)


def no_word_of_inner_calls(patch: SetAttribute) -> None:
    patch(Call, "tell_outer", lambda self: None)


def members_at_any_time(patch: SetAttribute) -> None:
    patch(LineageWalk, "_was_member", lambda self, membership, use: True)


def members_of_what_is_named(patch: SetAttribute) -> None:
    def follows(step: Step) -> Follow:
        return lineage_rules.follows(step._replace(here="other") if step.here == "group" else step)

    patch(lineage_walk, "follows", follows)


def the_path_does_not_count(patch: SetAttribute) -> None:
    patch(LineageWalk, "_path", lambda self, thing: None)


def datasets_of_all_that_was_registered(patch: SetAttribute) -> None:
    patch(LineageWalk, "_names", frozenset())


def a_replay_in_another_order_is_refused(patch: SetAttribute) -> None:
    def refuse(*_: object) -> None:
        raise DurabilityError("the flow asks for something else than before")

    patch(divergence.logger, "info", refuse)


def results_that_are_not_read_back(patch: SetAttribute) -> None:
    patch(observing, "_is_not_read_back", lambda task: False)


def a_plan_forgets_what_it_makes(patch: SetAttribute) -> None:
    patch(Plan, "__getattribute__", lambda self, name: {} if name == "values" else object.__getattribute__(self, name))


def a_changed_request_is_not_named(patch: SetAttribute) -> None:
    patch(Intents, "unasked", lambda *_: [])


def no_look_before_the_first_send(patch: SetAttribute) -> None:
    begin = Submission.__init__

    def as_if_wanted_anew(self: Submission[Any], *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._wanted_anew = True

    patch(Submission, "__init__", as_if_wanted_anew)


def a_look_without_bounds(patch: SetAttribute) -> None:
    everything = Newest(datetime.min.replace(tzinfo=timezone.utc), 2**31)
    patch(Newest, "after", classmethod(lambda *_: everything))


def _all(*some: Callable[[SetAttribute], None]) -> Callable[[SetAttribute], None]:
    def apply(patch: SetAttribute) -> None:
        for each in some:
            each(patch)

    return apply


def descriptions_unchecked(patch: SetAttribute) -> None:
    patch(descriptions, "define", lambda url, token, given, body: given)


def connections_kept(patch: SetAttribute) -> None:
    patch(pool, "_NEW", pool._KEPT)
    copies_taken(patch)


def a_connection_for_each_read(patch: SetAttribute) -> None:
    patch(pool, "_KEPT", pool._NEW)


def copies_taken(patch: SetAttribute) -> None:
    patch(Pool, "refuse_copy", lambda *_: None)


def misfits_connections_kept(patch: SetAttribute) -> None:
    async def left(_: httpx.Response) -> None:
        pass

    patch(session, "abandon", left)


def dead_connections_count(patch: SetAttribute) -> None:
    patch(Reuse, "broke", lambda *_: False)


def connections_shared_with_a_fork(patch: SetAttribute) -> None:
    patch(pool.os, "getpid", lambda: 0)


def unknown_events_pass(patch: SetAttribute) -> None:
    class Every(set[str]):
        def __contains__(self, _: object) -> bool:
            return True

    patch(session, "_STEPS", Every())


def replies_without_the_key_taken(patch: SetAttribute) -> None:
    keys = answers._keys
    patch(answers, "_keys", lambda body: {field: found for field, found in keys(body).items() if found})


def replies_unjudged(patch: SetAttribute) -> None:
    patch(session, "misfit", lambda *_: None)


def all_in_the_loops_threads(patch: SetAttribute) -> None:
    def begin(_: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))

    patch(threads, "_begin", begin)


def following_takes_all(patch: SetAttribute) -> None:
    patch(following, "_place", nullcontext)


def whole_files_in_the_threads_of_blocks(patch: SetAttribute) -> None:
    patch(sources, "WHOLE_FILES", threads.FILES)


def archives_in_the_threads_of_blocks(patch: SetAttribute) -> None:
    patch(archive, "UNPACKING", threads.FILES)


def block_not_checked(patch: SetAttribute) -> None:
    async def unchecked(self: BlockLogin) -> None:
        pass

    patch(BlockLogin, "_check_writable", unchecked)


def update_only_adds(patch: SetAttribute) -> None:
    async def add(self: Aspects, entity: str, schema: str, content: Any, policy: str | None, _: Exception) -> str:
        return await self.add(entity, schema, content, policy)

    patch(Aspects, "_add_and_retract", add)


def end_on_the_loop(patch: SetAttribute) -> None:
    async def at_once(self: Journal, call: Callable[..., None], *args: Any) -> None:
        call(*args)

    patch(Journal, "ask_surely", at_once)


def items_of_the_task_that_needs_them(patch: SetAttribute) -> None:
    patch(registry, "outside_call", nullcontext)


def a_refusal_is_a_lost_reply(patch: SetAttribute) -> None:
    def may_have_taken_effect(error: BaseException) -> bool:
        given = getattr(error, "data", {})
        return may_have(type(error)(str(error), **{**given, "nothing_made": False}) if given else error)

    may_have = submission.may_have_taken_effect
    patch(submission, "may_have_taken_effect", may_have_taken_effect)


def an_accepted_request_is_forgotten(patch: SetAttribute) -> None:
    patch(session, "note_accepted", lambda: None)


def any_watcher_promises(patch: SetAttribute) -> None:
    patch(park_watcher, "watcher_of", lambda *_: "watcher")
    patch(parking, "watcher_of", lambda *_: "watcher")
    patch(Leases, "held", lambda leases, name, held=Leases.held: held(leases, "watcher"))


def goes_on_anywhere(patch: SetAttribute) -> None:
    patch(Accounts, "note", lambda *_: None)


def slots_left_to_their_leases(patch: SetAttribute) -> None:
    async def release(self: Any, client: Any, *, was_leased: bool) -> None:
        await client.release_concurrency_slots_with_lease(self.lease)

    patch(submission_limit._Slot, "_release", release)


def made_before_it_is_checked(patch: SetAttribute) -> None:
    async def unchecked(check: Any, *given: Any) -> Any:
        check.close()
        return Making(*given)

    patch(Making, "after", unchecked)


def announced_before_its_turn(patch: SetAttribute) -> None:
    send = Submission._send

    async def announced_already(_: int) -> None:
        return None

    async def announce_first(self: Submission[Any]) -> Any:
        there = await self._before_sending(1)
        vars(self)["_before_sending"] = announced_already
        return there or await send(self)

    patch(Submission, "_send", announce_first)


def only_the_oldest_is_waited_for(patch: SetAttribute) -> None:
    announce = IntentRecord.announce

    async def announce_after_one(self: IntentRecord, send: int, **about: Any) -> Any:
        there, turn = await announce(self, send, **about)
        return there, min(turn, 1)

    patch(IntentRecord, "announce", announce_after_one)


def sent_again_unannounced(patch: SetAttribute) -> None:
    before_sending = Submission._before_sending

    async def announce_the_first(self: Submission[Any], send: int) -> Any:
        return await before_sending(self, send) if send == 1 else None

    patch(Submission, "_before_sending", announce_the_first)


def one_membership_an_item(patch: SetAttribute) -> None:
    present = Collections._present

    async def oldest(self: Collections, urn: str, items: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {item: aspects[:1] for item, aspects in (await present(self, urn, items)).items()}

    patch(Collections, "_present", oldest)


def wakes_in_turn(patch: SetAttribute) -> None:
    wake = Watcher._wake

    async def wake_the_first(self: Watcher, attempts: list[AttemptRow]) -> int:
        [(first, _), *_] = await self._parked()
        return await wake(self, [attempt for attempt in attempts if attempt.id == first.id])

    patch(Watcher, "_wake", wake_the_first)


def a_failure_stops_nothing(patch: SetAttribute) -> None:
    patch(StepWindow, "stops", property(lambda self: False))


def waves(patch: SetAttribute) -> None:
    patch(StepWindow, "_places", property(lambda self: 0 if self.under_way else self._size))


def steps_begin_at_their_beginning(patch: SetAttribute) -> None:
    async def nothing(*_: Any) -> dict[Any, Any]:
        return {}

    patch(running, "_known", nothing)


def wakes_for_all(patch: SetAttribute) -> None:
    note = Parks.note

    def of_all(self: Parks, attempt_id: str, park: Park | None) -> None:
        note(self, attempt_id, park and replace(park, enough=None))

    patch(Parks, "note", of_all)


def a_subflow_leads(patch: SetAttribute) -> None:
    patch(RunIdentity, "is_subflow", property(lambda self: False))


def one_layout(patch: SetAttribute) -> None:
    _on_the_page(patch, "page.css", "@media (max-width: 760px)", "@media (max-width: 0)")


def a_drag_is_a_click(patch: SetAttribute) -> None:
    _on_the_page(patch, "page.js", "if (moved) return;", "")


def zoom_at_the_corner(patch: SetAttribute) -> None:
    _on_the_page(patch, "page.js", "view.x = x - (x - view.x) * scale / view.scale;", "")


def _on_the_page(patch: SetAttribute, file: str, words: str, others: str) -> None:
    part = html._part

    def changed(name: str) -> str:
        assert name != file or words in part(name)
        return part(name).replace(words, others) if name == file else part(name)

    patch(html, "_part", changed)
    patch(html, "_script", html._script.__wrapped__)


def each_process_has_its_limit(patch: SetAttribute) -> None:
    @asynccontextmanager
    async def turn(self: SubmissionLimit) -> AsyncIterator[None]:
        async with submission_limit._queues().setdefault(self._name, asyncio.Lock()):
            yield

    patch(SubmissionLimit, "turn", turn)


def the_registry_decides_alone(patch: SetAttribute) -> None:
    async def believe(*given: Any) -> None:
        return None

    patch(model_run_changes, "_ensure_in_graph", believe)


def only_the_row_ends_a_wait(patch: SetAttribute) -> None:
    async def wait(waiting: Awaitable[Any], *given: Any) -> Any:
        return await waiting

    patch(model_runs, "unless_done", wait)
    patch(model_run_changes, "unless_done", wait)


MUTANTS: Final = {
    "one membership an item": Mutant("what two added at once is removed at once", one_membership_an_item),
    "runs wake in turn": Mutant("a run wakes when its own work has ended", wakes_in_turn),
    "a subflow leads": Mutant("a subflow is tried within the attempt of its flow", a_subflow_leads),
    "one layout": Mutant("the page has room on a phone", one_layout),
    "a drag is a click": Mutant("a drag leaves what is chosen", a_drag_is_a_click),
    "zoom at the corner": Mutant("what one points at stays there", zoom_at_the_corner),
    "each process has its limit": Mutant("all processes together keep the limit", each_process_has_its_limit),
    "any watcher promises": Mutant("a run sleeps long only if its own watcher is there", any_watcher_promises),
    "a run goes on anywhere": Mutant("a run goes on where it has work, or sends nothing", goes_on_anywhere),
    "intent after the effect": Mutant(
        "the intent and its idempotency record are written before", intent_after_the_effect
    ),
    "sent before it is marked": Mutant("the mark is on disk when the request leaves", sent_before_it_is_marked),
    "no settle": Mutant("nothing is sent again before what was sent must show", no_settle),
    "no look before the first send": Mutant("a new journal finds what has its key", no_look_before_the_first_send),
    "announced before its turn": Mutant("who waits for a slot has announced nothing", announced_before_its_turn),
    "only the oldest is waited for": Mutant(
        "of several journals each waits for all that came before", only_the_oldest_is_waited_for
    ),
    "sent again unannounced": Mutant("who sends again waits for who came meanwhile", sent_again_unannounced),
    "a refusal is a lost reply": Mutant("what was surely refused is an error at once", a_refusal_is_a_lost_reply),
    "an accepted request is forgotten": Mutant(
        "what fails after it leaves a doubt, and no refusal", an_accepted_request_is_forgotten
    ),
    "slots left to their leases": Mutant(
        "a slot is given back also if Prefect has restarted", slots_left_to_their_leases
    ),
    "made before it is checked": Mutant("nothing is made for a run that would be refused", made_before_it_is_checked),
    "the registry decides alone": Mutant("a change of a run is made in the graph, too", the_registry_decides_alone),
    "only the row of a job ends its wait": Mutant(
        "a job whose row went back is not waited for once its run is there", only_the_row_ends_a_wait
    ),
    "a look without bounds": Mutant("a batch reads no whole registry", a_look_without_bounds),
    "records belong to the journal": Mutant(
        "a record that names an effect stays, also if its journal was put back", records_belong_to_the_journal
    ),
    "each journal keeps its upload": Mutant(
        "two journals that upload the same take one artifact", each_journal_keeps_its_upload
    ),
    "made again before it must show": Mutant(
        "an upload is made again only once it must have shown", made_again_before_it_must_show
    ),
    "what is lost is kept": Mutant("an upload that the platform has lost is made again", lost_is_kept),
    "orders are made again": Mutant("nothing but an upload is made again by itself", orders_are_made_again),
    "what is lost is not superseded": Mutant("every journal finds what was made again", lost_is_not_superseded),
    "what may not be read is ours": Mutant("a job of others keeps nothing in doubt", what_may_not_be_read_is_ours),
    "a turn without the look": Mutant(
        "a turn waits as long as its holder may look for its own record", a_turn_without_the_look
    ),
    "a claim gives way before its outcome shows": Mutant(
        "nothing is taken away before what follows it shows", a_claim_gives_way_at_once
    ),
    "the own record is not waited for": Mutant(
        "who writes a record sees all before it", the_own_record_is_not_waited_for
    ),
    "an order that cannot be read is others'": Mutant(
        "an order that bears the key is not placed again", an_unreadable_order_is_others
    ),
    "a look that sees nothing proves something": Mutant("what was not seen may be there", a_look_that_sees_nothing),
    "equal requests not asked for": Mutant("an effect is another key's of any journal", equal_requests_not_asked_for),
    "rivals not waited for": Mutant("what another key gets to know is left to it", rivals_not_waited_for),
    "all take the oldest": Mutant("two journals take different ones of equal effects", all_take_the_oldest),
    "who loses gives up": Mutant("who loses a race for an equal effect looks again", who_loses_gives_up),
    "no idempotency records": Mutant("what another journal asked for is known", no_key_aspects),
    "synchronous off": Mutant("a commit waits for the disk", not_synchronous),
    "no fence": Mutant("only the newest holder writes, and only along the arrows", no_fence),
    "every holder dead": Mutant("what a live process is at is left to it", every_holder_dead),
    "a lock that says nothing": Mutant("who died on this machine is known at once", a_lock_that_says_nothing),
    "a noted death is not believed": Mutant("who was dead before a move is dead after it", a_noted_death_not_believed),
    "a move takes silence for a death": Mutant(
        "what is known by a heartbeat alone lingers after a move", a_move_that_takes_silence_for_a_death
    ),
    "a source that is not locked": Mutant("no flow opens between the proof and the mark", a_source_that_is_not_locked),
    "an upgrade without its lock": Mutant("of several processes one upgrades a journal", an_upgrade_without_its_lock),
    "an upgrade without its transaction": Mutant(
        "an upgrade that fails changes nothing", an_upgrade_without_its_transaction
    ),
    "an upgrade that forgets a table": Mutant(
        "an upgraded journal has the tables of a new one", an_upgrade_that_forgets_a_table
    ),
    "an upgrade that forgets a counter": Mutant(
        "numbers of an upgraded journal go on after the highest", an_upgrade_that_forgets_a_counter
    ),
    "an upgrade that waits for nobody": Mutant(
        "a change of tables waits for older code", an_upgrade_that_waits_for_nobody
    ),
    "a copy without its mark": Mutant("the copy before an upgrade is not opened", a_copy_without_its_mark),
    "the revision is not read again": Mutant(
        "who has a journal open sees that its tables have changed", the_revision_is_not_read_again
    ),
    "a target made before the proof": Mutant("a refused move leaves no file", a_target_made_before_the_proof),
    "a reader makes the journal": Mutant("who only reads makes no journal", a_reader_makes_the_journal),
    "a lock file known by its name": Mutant(
        "a copy of a lock file does not prove a death", a_lock_file_known_by_its_name
    ),
    "a lock that is not tried": Mutant("where flock does nothing, the heartbeat decides", a_lock_that_is_not_tried),
    "a file named before it is locked": Mutant(
        "no probe keeps a process from its lock", a_file_named_before_it_is_locked
    ),
    "no fence, every holder dead": Mutant("both of these", _all(no_fence, every_holder_dead)),
    "release not written": Mutant("a claim ends with its call, for other processes too", release_not_written),
    "sends are not confirmed": Mutant("a process that was suspended asks before it sends", sends_not_confirmed),
    "old confirmation trusted": Mutant("a process that slept before the socket asks again", old_confirmation_trusted),
    "progress not stored": Mutant("an upload goes on where the platform stands", progress_not_stored),
    "local clock in a look-up": Mutant("what is looked at goes by the platform's own time", local_clock),
    "sent again not noted": Mutant("the journal knows of what a late first request may show", sent_again_not_noted),
    "a replay in another order is refused": Mutant(
        "a replay is judged by what it asks for, in any order", a_replay_in_another_order_is_refused
    ),
    "a failure stops nothing": Mutant("a step that failed stops what was not requested", a_failure_stops_nothing),
    "waves instead of a window": Mutant("one straggler holds one place", waves),
    "steps begin at their beginning": Mutant(
        "what the journal has counts as requested", steps_begin_at_their_beginning
    ),
    "a parked run wakes when all has ended": Mutant("a parked run wakes for a quarter of its window", wakes_for_all),
    "results that are not read back": Mutant(
        "a run that parks repeats no task in silence", results_that_are_not_read_back
    ),
    "a plan forgets what it makes": Mutant("what is planned can be read", a_plan_forgets_what_it_makes),
    "a changed request is not named": Mutant("a replay says what it leaves behind", a_changed_request_is_not_named),
    "key by path": Mutant("scope flow is the flow's, wherever its code lies", key_by_path),
    "work is added once": Mutant("who waits hears of an end, also after another that waited for it", added_only_once),
    "each asks for itself": Mutant("one process asks for all", each_asks_for_itself),
    "rounds of many": Mutant("a round is of one process", rounds_of_many),
    "no shapes of secrets": Mutant("a token is known by its shape", no_shapes_of_secrets),
    "no values of secret names in texts": Mutant(
        "a connection string shows no password", no_values_of_secret_names_in_texts
    ),
    "no names of secrets": Mutant("what has a secret name is hidden", no_names_of_secrets),
    "no types of secrets": Mutant("what a SecretStr holds is hidden in texts, too", no_types_of_secrets),
    "lists are no commands": Mutant("a list of arguments shows what its line hides", lists_are_no_commands),
    "no known secrets": Mutant("what was hidden once is hidden wherever it stands", no_known_secrets),
    **CAPTURE,
    "secrets are forgotten": Mutant("what was hidden is hidden for ever", secrets_are_forgotten),
    "signatures are remembered": Mutant("what is remembered is bounded", signatures_are_remembered),
    "masks are masked again": Mutant("what is redacted twice is redacted once", masks_are_masked_again),
    "any two texts are a header": Mutant("a text beside another shows no password", any_two_texts_are_a_header),
    "contents are not searched": Mutant("no code or file with a secret leaves", contents_are_not_searched),
    "the last fact is the last version": Mutant(
        "verify expects the version that was at a path last", the_last_fact_is_the_last_version
    ),
    "a fault is a refusal": Mutant("a fault of the code is tried again", a_fault_is_a_refusal),
    "inputs that are only written to": Mutant(
        "a collection that receives is no input", inputs_that_are_only_written_to
    ),
    "no word of inner calls": Mutant("nor is one that is passed on to who writes to it", no_word_of_inner_calls),
    "members at any time": Mutant("what is put in later is no origin of an earlier use", members_at_any_time),
    "the path does not count": Mutant("equal bytes at one path are one file", the_path_does_not_count),
    "members of what is named": Mutant("only a use leads into a collection", members_of_what_is_named),
    "a dataset of all that was registered": Mutant(
        "a dataset comes from its own artifact alone", datasets_of_all_that_was_registered
    ),
    "requests gain a field": Mutant("what was paid for keeps its key in a later version", requests_gain_a_field),
    "sets unsorted": Mutant("a set has one form, whatever the hash seed", sets_unsorted),
    "callback for each journal": Mutant("an opened journal leaves nothing behind", callback_for_each_journal),
    "processes not pruned": Mutant("a journal forgets processes that are gone", processes_not_pruned),
    "crate without a limit": Mutant("the files of a crate have a limit together", crate_without_a_limit),
    "whole results kept": Mutant("the journal keeps no long result of a job", whole_results_kept),
    "result not read again": Mutant("a replayed request returns the result as before", result_not_read_again),
    "early calls kept": Mutant("calls of flows that never open an attempt take bounded room", early_calls_kept),
    "paths as displayed": Mutant("a recorded path is opened as the system has it", paths_as_displayed),
    "prefect logs parameters": Mutant("a wrong parameter puts no other into a log", prefect_logs_parameters),
    "arguments unchecked": Mutant("a text or path that nothing can hold is refused by name", arguments_unchecked),
    "sizes by stat": Mutant("the bytes that were read are what is stored and sent", sizes_by_stat),
    "keys by letters alone": Mutant("each flow's artifacts have a key of their own", keys_by_letters_alone),
    "files before runs": Mutant("a file does not hide the run of its name", files_before_runs),
    "end on the loop": Mutant("a claim's end does not stop the package's loop", end_on_the_loop),
    "items of the task that needs them": Mutant(
        "what a workflow declares leads from no run to another", items_of_the_task_that_needs_them
    ),
    "update only adds": Mutant("an update leaves one active aspect", update_only_adds),
    "all in the loop's threads": Mutant("what waits leaves names to be looked up", all_in_the_loops_threads),
    "following takes all streams": Mutant("what is followed leaves streams for downloads", following_takes_all),
    "whole files in the threads of blocks": Mutant(
        "a request does not wait for another's digest", whole_files_in_the_threads_of_blocks
    ),
    "archives in the threads of blocks": Mutant("nor for an archive to arrive", archives_in_the_threads_of_blocks),
    "block not checked": Mutant("no refresh token is spent whose successor cannot be stored", block_not_checked),
    "connections kept": Mutant("a reply that comes twice meets no other request", connections_kept),
    "a connection for each read": Mutant("reads share connections", a_connection_for_each_read),
    "copies taken": Mutant("a reply that has come on a connection answers nothing else", copies_taken),
    "misfits' connections kept": Mutant("a connection with a reply to another request ends", misfits_connections_kept),
    "dead connections count": Mutant("a kept connection that ends costs nothing", dead_connections_count),
    "connections shared with a fork": Mutant("a child has its own connections", connections_shared_with_a_fork),
    "unknown events pass": Mutant("a send that nothing confirms is refused", unknown_events_pass),
    "replies without the key taken": Mutant("a reply has the key of its request", replies_without_the_key_taken),
    "replies unjudged": Mutant("a reply to another request is refused", replies_unjudged),
    "unknowns untold": Mutant("a trace says what the record does not know", unknowns_untold),
    "descriptions unchecked": Mutant("a service that is reported exists", descriptions_unchecked),
}


def mutate(name: str, patch: SetAttribute = setattr) -> None:
    """Break the package in this process."""
    MUTANTS[name].apply(patch)
