"""Show in Prefect's UI what a run was, when it ends: a page with its attempts, orders and links, and a table of things.

A separate thread does this while Prefect ends the run; a process that ends waits for it for a moment. If Prefect cannot
be reached, the record is still in the journal.
"""

from __future__ import annotations

import atexit
import contextvars
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.prefect_artifacts import PrefectArtifact, key_for, moment, show
from ivcap_flows.capture.summary import counted
from ivcap_flows.identity import EMBEDDED, api_address, flows_urn, short_run
from ivcap_flows.provenance.records import Record
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, IntentRow, Journal, OpenedAttempt, Outcome, RunRow

__all__ = ["links_of", "page_of", "rows_of", "show_in_prefect"]

log = logger_of("ivcap_flows.capture")

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "crashed"})
_HIDDEN: Final = frozenset({"parameters", "code", "service", "workflow-template", "queue"})
MODEL_RUN: Final = "model run"
_WORK: Final = ("order", "job", MODEL_RUN)
_MOST: Final = 200
"""The maximum number of things that are shown. The journal has all."""
_TIMEOUT: Final = 3.0
"""Seconds for which a process that ends waits for the thread."""
_HANDLE: Final = re.compile(r"[0-9.]+/[0-9A-Za-z._-]+")
_ADDRESS: Final = re.compile(r"https?://[\w.:/~+-]+")
"""An address without characters that mean something in Markdown."""
_BAR: Final = re.compile(r"(\\*)\|")
_SSH: Final = re.compile(r"(?:ssh://)?git@([^:/]+)[:/](.+)")

_COLUMNS: Final = {
    "Attempts": ("no.", "outcome", "begun (UTC)", "ended (UTC)", "cause"),
    "Orders and jobs": ("name", "service", "status", "requested (UTC)", "id"),
    "Model runs": ("name", "of", "status", "requested (UTC)", "id"),
}

_showing: list[threading.Thread] = []


def show_in_prefect(journal: Journal, opened: OpenedAttempt, outcome: Outcome) -> None:
    """Begin to show how a flow run ended, unless it runs without Prefect. Never raises, waits or blocks."""
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
        extent = Settings.current().artifacts
        if extent == "off":
            return
        run, attempt = opened.run, opened.attempt
        used, made, count = journal.lineages.ends(run.id, most=_MOST)
        used, made = ([record for record in records if record.type not in _HIDDEN] for records in (used, made))
        frame = list(journal.lineages.around([flows_urn("attempt", attempt.id)], "runs"))
        work = [row for noun in _WORK for row in journal.intents.where(run_id=run.id, noun=noun, limit=_MOST)]
        said = counted(journal, run.id)
        page = page_of(run, outcome, journal.runs.attempts(run.id), work, used, made, frame, said)
        things = f"The inputs and outputs of run {short_run(run.id)}{_cut(count)}."
        key, here = key_for("provenance", run.flow_name), attempt.flow_run_id
        shown = [
            PrefectArtifact("markdown", page, f"The record of run {short_run(run.id)}: {outcome}.", here, key=key),
            PrefectArtifact("table", rows_of(used, made), things, here, key=key_for("data", run.flow_name)),
        ]
        show(*(each for each in shown[: None if extent == "all" else 1] if each.content))
    except Exception as error:  # noqa: BLE001 - Prefect's API or the journal may be away; the run has ended well
        log.debug("The record of run %s could not be shown in Prefect: %s", opened.run.id, error)


def page_of(
    run: RunRow,
    outcome: str,
    attempts: Sequence[AttemptRow],
    work: Sequence[IntentRow],
    used: Sequence[Record],
    made: Sequence[Record],
    frame: Sequence[Record],
    said: str = "",
) -> str:
    """Return the page in Markdown. Names that users gave are in code spans, so that Markdown in them has no effect.

    `said` is what the run requested, in words.
    """
    title, summary = f"# {_span(run.flow_name)}: {outcome}", f"**{_summary(attempts, work, said)}**"
    lines = [title, "", summary, "", f"Run {_span(run.id)}"]
    for record in frame:
        if record.type == "code" and record.attributes.get("commit"):
            dirty = ", with uncommitted changes" if record.attributes.get("dirty") else ""
            lines.append(f"of commit {_span(record.attributes['commit'])}{dirty}")
    tried = [
        _cells(each.number, each.outcome, moment(each.started_at), moment(each.ended_at), each.cause)
        for each in attempts
        if each.leads
    ]
    asked = [
        (
            *_cells(row.name or row.subject, row.subject, row.status or row.state, moment(row.created_at)),
            _place(row) if row.urn else _cell(row.error),
        )
        for row in work
    ]
    runs = [row for row, intent in zip(asked, work, strict=True) if intent.noun == MODEL_RUN]
    orders = [row for row, intent in zip(asked, work, strict=True) if intent.noun != MODEL_RUN]
    for title, rows in (("Orders and jobs", orders), ("Model runs", runs), ("Attempts", tried)):
        if rows:
            lines += ["", f"## {title}", "", *_table(_COLUMNS[title], rows)]
    for title, records in (("Inputs", used), ("Outputs", made)):
        lines += ["", f"## {title}", ""]
        lines += [f"- {record.type} {_span(_name(record))}" for record in records] or ["none"]
    if links := links_of([*made, *used, *frame]):
        lines += ["", "## Links", "", links]
    lines += ["", "## More", "", f"    ivcap-flows show {run.id}", f"    ivcap-flows trace {run.id} --html run.html"]
    return "\n".join(lines)


def _summary(attempts: Sequence[AttemptRow], work: Sequence[IntentRow], said: str) -> str:
    """Return in two sentences what the run requested, how long it took, and what nobody knows."""
    leading = [each for each in attempts if each.leads]
    ended = [each.ended_at for each in leading if each.ended_at is not None]
    seconds = f", {(max(ended) - leading[0].started_at).total_seconds():.0f} s" if leading and ended else ""
    tries = f" in {len(leading)} attempts" if len(leading) > 1 else ""
    doubt = sum(row.state == "in_doubt" for row in work)
    return f"{said or 'Nothing was requested'}{seconds}{tries}. {doubt or 'Nothing'} in doubt."


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _place(row: IntentRow) -> str:
    """Return the URN of work, as a link if IVCAP's API shows it at an address."""
    address = api_address(row.platform, row.urn or "", (row.request or {}).get("service"))
    return f"[{row.urn}]({address})" if address and _ADDRESS.fullmatch(address) else _cell(row.urn)


def _cells(*texts: Any) -> tuple[str, ...]:
    return tuple(map(_cell, texts))


def _cell(text: Any) -> str:
    # A bar would end the cell, within a code span, too, and so would one after an even number of backslashes.
    return _BAR.sub(lambda found: found[1] + "\\" * (1 + len(found[1]) % 2) + "|", _span(text)) if text else ""


def rows_of(used: Sequence[Record], made: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each thing that the run used or made."""
    return [
        {
            "name": _name(record),
            "type": record.type,
            "role": role,
            "id": record.id,
            "sha256": str(record.attributes.get("sha256") or ""),
        }
        for role, records in (("input", used), ("output", made))
        for record in records
    ]


def links_of(records: Sequence[Record]) -> str:
    """Return links in Markdown: to things with a public handle, and to the commit in the web view of its repository."""
    found: dict[str, str] = {}
    for record in records:
        platform = str(record.attributes.get("platform") or EMBEDDED)
        if _HANDLE.fullmatch(record.id) and not platform.startswith(EMBEDDED):
            found[f"https://hdl.handle.net/{record.id}"] = f"{record.type} {record.id}"
        remote, commit = record.attributes.get("remote"), record.attributes.get("commit")
        if record.type == "code" and isinstance(remote, str) and isinstance(commit, str):
            place = _SSH.sub(r"https://\1/\2", remote).removesuffix("/").removesuffix(".git")
            if _ADDRESS.fullmatch(place) and re.fullmatch("[0-9a-f]{7,64}", commit):
                found[f"{place}/commit/{commit}"] = f"code {commit[:12]}"
    return "\n".join(f"- [{text}]({link})" for link, text in found.items())


def _name(record: Record) -> str:
    return str(record.attributes.get("name") or record.attributes.get("path") or record.id)


def _span(text: Any) -> str:
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def _cut(count: int) -> str:
    return f" ({_MOST} of {count})" if count > _MOST else ""
