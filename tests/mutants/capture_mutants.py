"""Broken builds of `ivcap_flows.capture`: each records what is not true, or keeps what is over."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any, Final

from mutant import Mutant, SetAttribute

from ivcap_flows.capture import (
    call_scope,
    calls,
    contents,
    context,
    data,
    file_activity,
    file_edges,
    files,
    likeness,
    makers,
    observing,
    parts,
    prefect_context,
    stand_ins,
    values,
)
from ivcap_flows.capture.data import DataVersion
from ivcap_flows.capture.file_activity import FileActivity, Written
from ivcap_flows.capture.file_edges import Declared, FileEdges
from ivcap_flows.capture.given import Given
from ivcap_flows.capture.path_tree import PathTree
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.journal.rows import RunIdentity

__all__ = ["CAPTURE"]


def nothing_forgotten(patch: SetAttribute) -> None:
    patch(file_activity._Process, "forget", lambda self: None)


def what_is_announced_is_believed(patch: SetAttribute) -> None:
    patch(file_activity._Process, "announce", lambda self, happened, note: note())


def origins_searched_for(patch: SetAttribute) -> None:
    written = FileActivity._last_written

    def searched(self: FileActivity, path: str) -> Written | None:
        list(self._written.below(os.sep))
        return written(self, path)

    patch(FileActivity, "_last_written", searched)


def folders_leave_what_was_done(patch: SetAttribute) -> None:
    patch(PathTree, "move", lambda self, source, target: None)


def renamed_folders_not_seen(patch: SetAttribute) -> None:
    around = PathTree.around
    patch(PathTree, "around", lambda self, path: (each for each in around(self, path) if not each[1]))


def read_and_written_is_written(patch: SetAttribute) -> None:
    of = Declared.of
    patch(Declared, "of", lambda self, role: "written" if role in self.writes else of(self, role))


def mapped_lists_by_their_places(patch: SetAttribute) -> None:
    patch(observing, "doubted", lambda values: set())


def clocks_compared(patch: SetAttribute) -> None:
    patch(file_edges, "_begin_there", lambda folder, started: time.time_ns() - (time.monotonic_ns() - started))


def bare_names_are_inputs(patch: SetAttribute) -> None:
    may_have_read = calls._may_have_read

    def also_bare(given: Sequence[tuple[str, str]], named: Set[str]) -> frozenset[str]:
        return may_have_read([(role, os.path.abspath(path)) for role, path in given], named)

    patch(calls, "_may_have_read", also_bare)


def choosers_use_all(patch: SetAttribute) -> None:
    may_have_read = calls._may_have_read
    patch(calls, "_may_have_read", lambda given, named: may_have_read(given, frozenset()))


def paths_are_no_values(patch: SetAttribute) -> None:
    is_followed = makers._is_followed

    def not_if_found(value: Any, wrote: makers.Wrote) -> bool:
        return is_followed(value, lambda path: wrote(path) or os.path.exists(path))

    patch(makers, "_is_followed", not_if_found)


def nobody_writes_elsewhere(patch: SetAttribute) -> None:
    patch(FileEdges, "_is_alone", lambda self, path: not self.activity.could_be_concurrent(path))


def extras_not_looked_at(patch: SetAttribute) -> None:
    parts_of = parts.parts_of

    def fields(value: Any) -> Any:
        found = parts_of(value)
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return {name: part for name, part in found.items() if name not in extra} if extra else found

    for module in (parts, stand_ins, values):
        patch(module, "parts_of", fields)


def ends_need_words(patch: SetAttribute) -> None:
    patch(call_scope, "described", str)
    patch(values, "_digits", str)
    patch(values, "_named", None)


def released_results_kept(patch: SetAttribute) -> None:
    patch(makers, "release", lambda: False)


def no_schema_in_the_digest(patch: SetAttribute) -> None:
    patch(contents._Content, "tell", lambda self, *described: None)


def no_floor_of_entropy(patch: SetAttribute) -> None:
    patch(contents, "FLOOR", 0)


def tasks_share_their_bytecode(patch: SetAttribute) -> None:
    patch(likeness, "_unreachable", lambda content: b"")


def equal_data_are_one(patch: SetAttribute) -> None:
    read = data._read

    def named_by_content(value: Any) -> DataVersion:
        seen = read(value)
        seen.id = seen.content or seen.id
        return seen

    patch(data, "_read", named_by_content)


def computed_is_another(patch: SetAttribute) -> None:
    patch(DataVersion, "_is_still", lambda self, seen: seen.sha256 == self.sha256)


def opaque_is_unchanged(patch: SetAttribute) -> None:
    patch(
        Given, "state_of", lambda self, value: "same" if any(each is value for each in self.values.values()) else None
    )


def given_is_changed(patch: SetAttribute) -> None:
    changed = Given.changed

    def all_perhaps(self: Given, complete: Callable[[ValueScan], None]) -> list[Any]:
        found = changed(self, complete)
        self._same.clear()
        return found

    patch(Given, "changed", all_perhaps)


def last_maker_alone(patch: SetAttribute) -> None:
    patch(makers, "_note_next", lambda value, maker, given: makers._note(value, maker))


def flow_gives_all(patch: SetAttribute) -> None:
    digest_values = calls.digest_values
    patch(calls, "digest_values", lambda look, outer: digest_values(look, None))


def times_are_of_a_file(patch: SetAttribute) -> None:
    version = files._version
    patch(files, "_version", lambda noun, seen, mtime_ns, made: version(noun, seen, mtime_ns, made=True))


def background_tasks_are_the_processs(patch: SetAttribute) -> None:
    for module in (context, prefect_context):
        patch(module, "background_task", lambda: None)


def continued_by_its_parameters(patch: SetAttribute) -> None:
    identity_of_task = context.identity_of_task
    patch(context, "identity_of_task", lambda *given: replace(identity_of_task(*given), deployed=False))


def each_delivery_is_a_run(patch: SetAttribute) -> None:
    identity_of_task = context.identity_of_task

    def anew(*given: Any) -> RunIdentity:
        return replace(identity_of_task(*given), root_flow_run_id=(run := str(uuid.uuid4())), flow_run_id=run)

    patch(context, "identity_of_task", anew)


def senders_own_background_tasks(patch: SetAttribute) -> None:
    def outermost() -> Any:
        found, task = None, prefect_context.task_context()
        while task is not None:
            found, task = task, prefect_context._outer(task)
        return found

    patch(prefect_context, "_delivered_task", outermost)


def background_tasks_have_no_flow(patch: SetAttribute) -> None:
    def no_flow() -> str:
        flow = prefect_context.flow_context()
        return "" if flow is None else str(flow.flow_run.id)

    for module in (context, prefect_context):
        patch(module, "flow_run_id", no_flow)
        patch(module, "background_task", prefect_context._delivered_task)


CAPTURE: Final = {
    "background tasks are the process's": Mutant("each background task is a run", background_tasks_are_the_processs),
    "a background task is continued by its parameters": Mutant(
        "equal background tasks are others", continued_by_its_parameters
    ),
    "each delivery is a run": Mutant("a background task that comes again is continued", each_delivery_is_a_run),
    "who sends a background task owns it": Mutant(
        "what a background task sends is a run of its own", senders_own_background_tasks
    ),
    "a background task has no flow": Mutant("what a flow sends is the flow's", background_tasks_have_no_flow),
    "equal data are one": Mutant("a version is what one call made", equal_data_are_one),
    "a computed data set is another": Mutant("computing changes no data set", computed_is_another),
    "what cannot be compared is unchanged": Mutant(
        "who is given an object and returns it may have changed it", opaque_is_unchanged
    ),
    "what is given is changed": Mutant("who changes nothing makes no version", given_is_changed),
    "changes in place are not seen": Mutant(
        "who changes a list or a dict made its next version",
        lambda patch: patch(makers, "note_changed", lambda *_: None),
    ),
    "the last maker alone": Mutant("what two calls return at once comes from both", last_maker_alone),
    "what is kept is made anew": Mutant(
        "a known value keeps its maker", lambda patch: patch(data._versions, "get", lambda value: None)
    ),
    "copies lead nowhere": Mutant(
        "what pydantic copies for a subflow keeps its maker", lambda patch: patch(makers, "carry", lambda *_: None)
    ),
    "a helper is given what nobody made": Mutant("a call made what it gives to one within it", flow_gives_all),
    "constants are values": Mutant(
        "a constant of the module is no task's", lambda patch: patch(Given, "is_constant", lambda self, value: False)
    ),
    "times are part of a file": Mutant("a touched file is the same one", times_are_of_a_file),
    "tasks share their bytecode": Mutant(
        "a task takes no result of another one for its own", tasks_share_their_bytecode
    ),
    "no schema in the digest": Mutant(
        "types, units, labels and names are part of what data are", no_schema_in_the_digest
    ),
    "no floor of entropy": Mutant("what may be equal by chance links nothing", no_floor_of_entropy),
    "released results are kept": Mutant("what the flow has released is not kept", released_results_kept),
    "mapped lists are known by their places": Mutant(
        "what is mapped over leads to its own maker", mapped_lists_by_their_places
    ),
    "extras are not looked at": Mutant("a model may hold more than its fields", extras_not_looked_at),
    "an end needs words": Mutant("a call ends also if its end cannot be shown", ends_need_words),
    "nothing of ended calls forgotten": Mutant("what ended calls did to files is not kept", nothing_forgotten),
    "what is announced is believed": Mutant("what fails is not recorded", what_is_announced_is_believed),
    "origins searched for": Mutant("each copy costs the same", origins_searched_for),
    "a folder leaves what was done in it": Mutant("a folder moves with its files", folders_leave_what_was_done),
    "a renamed folder is not seen": Mutant("who renames a folder in has made its files", renamed_folders_not_seen),
    "read and written is written": Mutant("what is declared adds to what is seen", read_and_written_is_written),
    "clocks compared": Mutant("what is new goes by the clock of its files", clocks_compared),
    "a bare name is an input": Mutant("a text may happen to be a file's name", bare_names_are_inputs),
    "a chooser uses what it was given": Mutant("who hands on a path has not read it", choosers_use_all),
    "paths are no values": Mutant("who gets a path is linked to who found it", paths_are_no_values),
    "other processes write nothing": Mutant(
        "what another process may have written is unknown", nobody_writes_elsewhere
    ),
}
