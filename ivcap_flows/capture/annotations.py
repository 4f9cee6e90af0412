"""Facts that a user adds to the record: about the running task, or about a thing that it works with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ivcap_flows.capture import data, files
from ivcap_flows.capture.calls import digest_values
from ivcap_flows.capture.context import current_attempt, current_call, miss, recorder, running
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.record_writer import Statement
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.durable.plan import planning
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Handle, LocalFile
from ivcap_flows.provenance.describe import describe, reference
from ivcap_flows.provenance.records import ANNOTATION, Record

__all__ = ["annotate"]

_Made = Callable[[], Iterable[Record]]


def annotate(*things: Any, **facts: Any) -> None:
    """Add facts to the record of these `things`, or by default to that of the running task, call or flow.

    A thing is a handle, a URN, the path of an existing file or folder, or a table or an array. Facts are JSON values,
    models or dataclasses; secrets among them are hidden. A later fact replaces an earlier one of the same name. Never
    raises: what cannot be recorded is logged, and counted as missing from the run.
    """
    with log_and_count(miss, "An annotation could not be recorded."):
        if not facts or planning() is not None:
            return
        look = ValueScan()
        attributes = {ANNOTATION + name: look.named(name, name, value) for name, value in facts.items()}
        digest_values(look, current_call())
        opened, writer = current_attempt(), recorder()
        around = running(opened)
        for thing in things or (around,):
            made, holds = (lambda: [around], 0) if thing is around else _of(thing)
            statement = partial(_annotated, made, attributes)
            writer.put(Statement(opened.run.id, opened.attempt.id, statement, holds=look.weight + holds))


def _annotated(made: _Made, attributes: dict[str, Any]) -> list[Record]:
    first, *others = made()
    return [first.model_copy(update={"attributes": {**first.attributes, **attributes}}), *others]


def _of(thing: Any) -> tuple[_Made, int]:
    """Return what makes the records of a thing, and how many bytes that holds. A file is read now, recorded later."""
    if isinstance(thing, Handle | LocalFile):
        return partial(describe, thing), 0
    if isinstance(thing, str) and thing.startswith("urn:"):
        return lambda: [reference(thing)], 0
    if isinstance(thing, str | os.PathLike):
        digests = recorder().journal.files
        seen = files.snapshot(os.path.join(os.fspath(thing), ""), "", digests)
        if seen is None or seen.stamp is None:
            raise InputError(f"There is no file or folder {os.fspath(thing)!r} to annotate.")

        def settled() -> Iterable[Record]:
            files.settle(seen, digests)
            return files.records_of(seen)

        return settled, seen.weight
    if data.is_data(thing):
        look = ValueScan()
        look.at("thing", thing)
        [(_, version)] = digest_values(look, current_call())
        return lambda: [version.record()], 0
    raise InputError(f"A {type(thing).__name__} cannot be annotated. Give a handle, URN, path, table or array.")
