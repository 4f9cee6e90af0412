"""The page that Prefect shows beside a run: what it requested, used and made, in Markdown."""

from __future__ import annotations

import atexit
import contextvars
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.identity import EMBEDDED, api_address, flows_urn, short_run
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, key_for, moment, show
from ivcap_flows.in_prefect.end_of_run import counted
from ivcap_flows.plain_text import in_markdown, visible
from ivcap_flows.provenance.records import Record
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, IntentRow, Journal, OpenedAttempt, Outcome, RunRow
    from ivcap_flows.journal.lineages import RunEnds

__all__ = ["MODEL_RUN", "RunPage", "show_in_prefect"]

MODEL_RUN: Final = "model run"
MOST: Final = 200
"""The maximum number of orders, of model runs and of things that are shown. The journal has all."""
_HIDDEN: Final = frozenset({"parameters", "code", "service", "workflow-template", "queue"})
_HANDLE: Final = re.compile(r"[0-9.]+/[0-9A-Za-z._-]+")
_ADDRESS: Final = re.compile(r"https?://[\w.:/~+-]+")
"""An address without characters that mean something in Markdown."""
_SSH: Final = re.compile(r"(?:ssh://git@([^:/]+)(?::\d+)?/|git@([^:/]+):)(.+)")
log = logger_of("ivcap_flows.in_prefect")

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "crashed"})
_WORK: Final = ("order", "job", MODEL_RUN)
_TIMEOUT: Final = 3.0
"""Seconds for which a process that ends waits for the thread."""

_showing: list[threading.Thread] = []


@dataclass(frozen=True)
class RunPage:
    """What is known of a run as it ends. `work` are its orders, jobs and model runs; `around` has its code.

    `counted` is what the run requested, in words.
    """

    run: RunRow
    outcome: str
    attempts: Sequence[AttemptRow]
    work: Sequence[IntentRow]
    ends: RunEnds
    around: Sequence[Record]
    counted: str

    @property
    def empty(self) -> bool:
        """Whether the run ended well, and requested and made nothing, as one that found nothing new."""
        return self.outcome == "completed" and not self.counted and not self.ends.makers

    def markdown(self) -> str:
        """Return the page: two sentences, a row for each order, and the rest folded. No name in it is Markdown."""
        used, made = (
            [each for each in records if each.type not in _HIDDEN] for records in (self.ends.used, self.ends.made)
        )
        parts = [f"# {_plain(self.run.flow_name)}: {self.outcome}", f"**{self._summary()}**", *self._tables()]
        for title, records in (("Inputs", used), ("Outputs", made)):
            if records:
                parts.append(_folded(f"{title} ({len(records)})", (f"{each.type} {_name(each)}" for each in records)))
        if max(self.ends.count, *Counter(row.noun for row in self.work).values(), 0) >= MOST:
            parts.append(f"Of orders, model runs and things, the first {MOST} are shown.")
        leading = [each for each in self.attempts if each.leads]
        if len(leading) > 1:
            parts.append(_folded(f"Attempts ({len(leading)})", map(_tried, leading)))
        parts += [self._origin(), f"    ivcap-flows show {self.run.id}\n    ivcap-flows trace {self.run.id} --open"]
        return "\n\n".join(parts)

    def _summary(self) -> str:
        """Return in two sentences what the run requested, how long it took, and what nobody knows."""
        leading = [each for each in self.attempts if each.leads]
        ended = [each.ended_at for each in leading if each.ended_at is not None]
        seconds = f", {(max(ended) - leading[0].started_at).total_seconds():.0f} s" if leading and ended else ""
        tries = f" in {len(leading)} attempts" if len(leading) > 1 else ""
        now = {each.id for each in self.attempts if each.started_at >= leading[-1].started_at} if leading else set()
        earlier = [row for row in self.work if now and row.attempt_id not in now]
        counts = (
            (sum(row.status not in ("succeeded", None) for row in self.work), "failed"),
            (sum(row.in_doubt for row in self.work), "in doubt"),
        )
        amounts = ", ".join(f"{count or 'nothing'} {what}" for count, what in counts)
        kept = f"{len(earlier)} kept from an earlier attempt, " if earlier else ""
        return f"{self.counted or 'Nothing was requested'}{seconds}{tries}. {(kept + amounts).capitalize()}."

    def _tables(self) -> Iterator[str]:
        orders = [row for row in self.work if row.noun != MODEL_RUN]
        names = _names(orders)
        if orders:
            rows = [
                (_linked(names[row.key], _place(row)), _status(row), self._products(row), self._run_of(row))
                for row in orders
            ]
            kinds = " or ".join(dict.fromkeys(row.noun for row in orders))
            yield _table((kinds, "status", "products", "model run"), rows)
        of_orders = {self.ends.model_runs.get(row.urn or "") for row in orders}
        if others := [row for row in self.work if row.noun == MODEL_RUN and (not row.urn or row.urn not in of_orders)]:
            shown = [
                (_plain(row.subject), _status(row), _handle(row.urn, row.platform) if row.urn else "") for row in others
            ]
            yield _table(("model run", "status", "handle"), shown)

    def _products(self, order: IntentRow) -> str:
        made = (each for each in self.ends.made if order.urn and self.ends.makers[each.id] == order.urn)
        return ", ".join(map(_thing, made))

    def _run_of(self, order: IntentRow) -> str:
        handle = self.ends.model_runs.get(order.urn or "")
        platform = next((row.platform for row in self.work if handle and row.urn == handle), EMBEDDED)
        return _handle(handle, platform) if handle else ""

    def _origin(self) -> str:
        """Return the run's id and the commit of its code, which leads to the web view of its repository."""
        words = [f"Run {_plain(self.run.id)}"]
        for record in self.around:
            commit, remote = record.attributes.get("commit"), record.attributes.get("remote")
            if record.type != "code" or not isinstance(commit, str):
                continue
            place = _SSH.sub(r"https://\1\2/\3", str(remote)).removesuffix("/").removesuffix(".git")
            address = f"{place}/commit/{commit}" if re.fullmatch("[0-9a-f]{7,64}", commit) else None
            dirty = ", with uncommitted changes" if record.attributes.get("dirty") else ""
            words.append(f"commit {_linked(commit[:12], address)}{dirty}")
        return " · ".join(words)


def _tried(attempt: AttemptRow) -> str:
    cause = f": {attempt.cause}" if attempt.cause else ""
    return f"{moment(attempt.started_at)} to {moment(attempt.ended_at) or '?'} UTC {attempt.outcome}{cause}"


def _names(orders: Sequence[IntentRow]) -> dict[str, str]:
    """Return what each order is called: its name, or its service with the parameters in which such orders differ."""
    named: dict[str, str] = {}
    nameless: dict[str | None, list[IntentRow]] = {}
    for row in orders:
        if row.name:
            named[row.key] = row.name
        else:
            nameless.setdefault(row.subject, []).append(row)
    for subject, rows in nameless.items():
        given = [_parameters(row) for row in rows]
        differ = [name for name in given[0] if len({each.get(name) for each in given}) > 1]
        for row, values in zip(rows, given, strict=True):
            named[row.key] = " ".join([subject or row.noun, *(f"{name}={values.get(name)}" for name in differ)])
    return named


def _parameters(row: IntentRow) -> dict[str, str]:
    given = (row.request or {}).get("parameters") or {}
    pairs = ((each["name"], each.get("value")) for each in given) if isinstance(given, list) else given.items()
    return {str(name): str(value) for name, value in pairs}


def _status(row: IntentRow) -> str:
    """Return how work ended, unless it succeeded."""
    if row.status == "succeeded" or (row.noun == MODEL_RUN and row.state == "done"):
        return ""
    return _plain(row.standing) + (f": {_plain(row.error)}" if row.error else "")


def _place(row: IntentRow) -> str | None:
    return api_address(row.platform, row.urn, (row.request or {}).get("service")) if row.urn else None


def _name(record: Record) -> str:
    return str(record.attributes.get("name") or record.attributes.get("path") or record.id)


def _thing(record: Record) -> str:
    return _linked(_name(record), _public(record.id, str(record.attributes.get("platform") or EMBEDDED)))


def _handle(handle: str, platform: str) -> str:
    return _linked(handle, _public(handle, platform))


def _public(id_: str, platform: str) -> str | None:
    """Return where anybody can read about a thing that has a handle; one of an embedded platform leads nowhere."""
    return f"https://hdl.handle.net/{id_}" if _HANDLE.fullmatch(id_) and not platform.startswith(EMBEDDED) else None


def _linked(text: str, address: str | None) -> str:
    return f"[{_plain(text)}]({address})" if address and _ADDRESS.fullmatch(address) else _plain(text)


def _plain(text: Any) -> str:
    return "" if text is None else in_markdown(str(text))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table without the columns that are empty in each row."""
    kept = [column for column in zip(columns, *rows, strict=True) if any(column[1:])]
    title, *lines = zip(*kept, strict=True)
    return "\n".join(f"| {' | '.join(line)} |" for line in (title, ["---"] * len(kept), *lines))


def _folded(title: str, lines: Iterable[str]) -> str:
    """Return a list that opens on a click: HTML without an empty line, which both of Prefect's interfaces show."""
    items = "".join(f"<li>{escape(visible(' '.join(line.split())))}</li>" for line in lines)
    return f"<details><summary>{title}</summary><ul>{items}</ul></details>"


def show_in_prefect(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    """Begin to show how a flow run ended, unless it runs without Prefect. Never raises, waits or blocks.

    A separate thread does this while Prefect ends the run; a process that ends waits for it for a moment. If Prefect
    cannot be reached, the record is still in the journal.
    """
    if outcome not in _ENDED or opened.run.entry_point.endswith(":") or "prefect.context" not in sys.modules:
        return
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=lambda: context.run(_show, journal, opened, outcome), name="ivcap-flows-showing", daemon=True
    )
    if not _showing:
        atexit.register(_finish)
    _showing[:] = [other for other in _showing if other.is_alive()]
    _showing.append(thread)
    thread.start()


def _finish() -> None:
    for thread in _showing:
        thread.join(_TIMEOUT)


def _show(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    try:
        if Settings.current().artifacts == "off":
            return
        run = opened.run
        work = [row for noun in _WORK for row in journal.intents.where(run_id=run.id, noun=noun, limit=MOST)]
        around = list(journal.lineages.around([flows_urn("attempt", opened.attempt.id)], "runs"))
        ends, amounts = journal.lineages.ends(run.id, most=MOST), counted(journal, run.id)
        page = RunPage(run, outcome, journal.runs.attempts(run.id), work, ends, around, amounts)
        if not page.empty:
            about, key = f"The record of run {short_run(run.id)}: {outcome}.", key_for("provenance", run.flow_name)
            id_ = opened.attempt.flow_run_id
            flow_run, task_run = (None, id_) if run.is_background else (id_, None)
            show(PrefectArtifact("markdown", page.markdown(), about, flow_run, task_run, key=key))
    except Exception as error:  # noqa: BLE001 - Prefect's API or the journal may be away; the run has ended well
        log.debug("The record of run %s could not be shown in Prefect: %s", opened.run.id, error)
