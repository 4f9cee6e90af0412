"""Rows that will become model runs, and the faults in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final, Literal

from pydantic import ValidationError

from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.wire import LATEST_SECONDS, Wire

__all__ = ["FAULT_KINDS", "Fault", "FaultKind", "Row", "read_record", "unstorable"]

FaultKind = Literal[
    "unreadable",
    "missing value",
    "unknown field",
    "wrong value",
    "time",
    "times out of order",
    "unknown id",
    "wrong type",
    "no access",
    "missing input",
    "missing output",
    "unknown template",
    "missing resource",
    "unknown resource",
    "missing annotation",
    "identical rows",
    "repeated key",
    "no dataset",
    "too long",
    "failed job",
]

FAULT_KINDS: Final[Mapping[FaultKind, str]] = {
    "unreadable": "the row is not a CSV row or JSON object",
    "missing value": "a field that every model run needs is absent or empty",
    "unknown field": "a field that a model run does not have",
    "wrong value": "a field of the wrong type, or with a value that Provena does not take",
    "time": "a time that cannot be read, or is not in Unix seconds",
    "times out of order": "the run ends before it starts",
    "unknown id": "no complete item of the registry has this id",
    "wrong type": "the item of this id is of another subtype",
    "no access": "the caller may not read the item",
    "missing input": "an input template of the workflow template has no dataset",
    "missing output": "an output template of the workflow template has no dataset",
    "unknown template": "the workflow template does not have this dataset template",
    "missing resource": "a deferred resource of the dataset template has no path",
    "unknown resource": "the dataset template has no such deferred resource",
    "missing annotation": "an annotation that the workflow template requires is absent",
    "identical rows": "an earlier row is equal and neither has a key of its own",
    "repeated key": "an earlier row has the same key",
    "no dataset": "an IVCAP artifact has no dataset, and none can be minted for it with the terms",
    "too long": "the record is longer than a whole batch may be",
    "failed job": "the row names the job that registered it, and that job failed",
}
"""Every kind of fault, and what it means."""


@dataclass(frozen=True)
class Fault:
    """One fault: its row (counted from 1), its column or field, its kind, and a text that explains it."""

    row: int
    column: str
    kind: FaultKind
    words: str


@dataclass(frozen=True)
class Row:
    """One row of a source.

    `body` is the JSON of a ModelRunRecord; None if the row is unreadable or claims to be registered. `key` is the
    user's own name for the run, such as an order's URN. `handle` and `job` are the values of Provena's own columns for
    a run that was registered before; a row with either and without faults claims to be done.
    """

    number: int
    body: dict[str, Any] | None
    key: str | None = None
    handle: str | None = None
    job: str | None = None
    faults: tuple[Fault, ...] = field(default=())

    @property
    def is_done(self) -> bool:
        return bool(self.handle or self.job) and not self.faults


_STAND_INS: Final[Mapping[str, Any]] = {
    "display_name": "?",
    "description": "?",
    "model_version": None,
    "study_id": None,
    "start_time": 0,
    "end_time": 0,
    "associations.modeller_id": "",
    "associations.requesting_organisation_id": None,
}
"""Replacements for values that cannot be read, so that the other values can be checked."""

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
"""Characters of which PostgreSQL stores none in a text: NUL, and halves of surrogate pairs, which no UTF-8 has."""

_WRONG: Final[Mapping[str, FaultKind]] = {"missing": "missing value", "extra_forbidden": "unknown field"}


def unstorable(row: Row) -> list[Fault]:
    """Return a fault for each text of a row that no journal could store. Such a row is not read further."""
    texts = {"key": row.key, "_model_run_record_id": row.handle, **(row.body or {})}
    words = "A text must be UTF-8, without a NUL or half of a surrogate pair"
    return [Fault(row.number, place or "the row", "wrong value", words) for place in _unstorable("", texts)]


def read_record(
    number: int, body: Mapping[str, Any], faulty: frozenset[str]
) -> tuple[ModelRunRecord | None, list[Fault]]:
    """Read the record of a row. Return it, or None if it does not have the form of a record, and its faults.

    `faulty` are fields with a known fault; they are not reported again.
    """
    found: list[Fault] = []

    def fault(place: str, kind: FaultKind, words: str) -> None:
        if place not in faulty:
            found.append(Fault(number, place, kind, words))

    try:
        record = ModelRunRecord.model_validate(body)
    except ValidationError as error:
        places = {_place(one["loc"]) for one in error.errors(include_url=False, include_input=False)}
        for one in error.errors(include_url=False, include_input=True, include_context=False):
            place = _place(one["loc"])
            time = place in ("start_time", "end_time") and one["type"] != "missing" and one["input"] is not None
            kind = (
                "time" if time else "missing value" if one["input"] is None else _WRONG.get(one["type"], "wrong value")
            )
            fault(place, kind, one["msg"])
        if not places <= _STAND_INS.keys():
            return None, found
        # The rest of the row can still be checked.
        faulty |= places
        record = ModelRunRecord.model_validate(_filled(body, places))
    for place, part in _parts(record):
        for name in part.model_extra or ():
            fault(f"{place}{name}", "unknown field", f"A {type(part).__name__} has no {name!r}")
        for name in type(part).model_fields:
            if isinstance(text := getattr(part, name), str) and not text.strip():
                fault(f"{place}{name}", "missing value", "The text is empty")
        if (kind_of := getattr(part, "dataset_type", "DATA_STORE")) != "DATA_STORE":
            fault(f"{place}dataset_type", "wrong value", f"The only dataset type is DATA_STORE, not {kind_of!r}")
    in_range = True
    for name in ("start_time", "end_time"):
        value = getattr(record, name)
        if not 0 <= value <= LATEST_SECONDS:
            in_range = False
            looks = "looks like milliseconds" if value > 0 else "is negative"
            fault(name, "time", f"A time must be in Unix seconds, but {value} {looks}")
    if in_range and record.end_time < record.start_time and not {"start_time", "end_time"} & faulty:
        ends, starts = _moment(record.end_time), _moment(record.start_time)
        fault("end_time", "times out of order", f"The run ends at {ends}, before it starts at {starts}")
    return record, found


def _moment(seconds: int) -> str:
    """Return a time as a sheet has it, and as a record has it."""
    return f"{datetime.fromtimestamp(seconds, timezone.utc)} ({seconds})"


def _unstorable(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and _UNSTORABLE.search(value):
        yield place
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _unstorable(f"{place}[{number}]", inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            wrong = _UNSTORABLE.search(str(name)) is not None
            yield from [place] if wrong else _unstorable(f"{place}.{name}" if place else str(name), inner)


def _filled(body: Mapping[str, Any], places: set[str]) -> dict[str, Any]:
    filled = {**body, "associations": dict(body["associations"])}
    for place in places:
        inner = filled["associations"] if place.startswith("associations.") else filled
        inner[place.removeprefix("associations.")] = _STAND_INS[place]
    return filled


def _parts(record: ModelRunRecord) -> list[tuple[str, Wire]]:
    sides = ("inputs", "outputs")
    datasets = [(f"{side}[{n}].", part) for side in sides for n, part in enumerate(getattr(record, side))]
    return [("", record), ("associations.", record.associations), *datasets]


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f"{'.' if place else ''}{part}"
    return place or "the row"
