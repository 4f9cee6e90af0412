"""Show in Prefect's UI what a run used and made, when it ends: a page, a table, and links.

A separate thread does this while Prefect ends the run; a process that ends waits for it for a moment. If Prefect cannot
be reached, the record is still in the journal.
"""

from __future__ import annotations

import atexit
import contextvars
import re
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.prefect_artifacts import PrefectArtifact, show
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance.records import Record
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, OpenedAttempt, Outcome

__all__ = ["links_of", "page_of", "rows_of", "show_in_prefect"]

log = logger_of("ivcap_flows.capture")

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "crashed"})
_HIDDEN: Final = frozenset({"parameters", "code", "service", "workflow-template", "queue"})
_MOST: Final = 200
"""The maximum number of things that are shown. The journal has all."""
_TIMEOUT: Final = 3.0
"""Seconds for which a process that ends waits for the thread."""
_EMBEDDED: Final = "urn:ivcap-flows:embedded:"
_HANDLE: Final = re.compile(r"[0-9.]+/[0-9A-Za-z._-]+")
_SSH: Final = re.compile(r"(?:ssh://)?git@([^:/]+)[:/](.+)")

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
        run, attempt = opened.run, opened.attempt
        used, made, count = journal.lineages.ends(run.id, most=_MOST)
        used, made = ([record for record in records if record.type not in _HIDDEN] for records in (used, made))
        frame = list(journal.lineages.around([flows_urn("attempt", attempt.id)], "runs"))
        page = page_of(run.id, run.flow_name, outcome, used, made, frame)
        rows, links = rows_of(used, made), links_of([*made, *used, *frame])
        here = attempt.flow_run_id
        shown = [
            PrefectArtifact("markdown", page, "The record of this run.", here),
            PrefectArtifact("table", rows, f"The inputs and outputs of this run{_cut(count)}.", here),
            PrefectArtifact("markdown", links, "Links to the outputs, inputs and code of this run.", here),
        ]
        show(*(each for each in shown if each.content))
    except Exception as error:  # noqa: BLE001 - Prefect's API or the journal may be away; the run has ended well
        log.debug("The record of run %s could not be shown in Prefect: %s", opened.run.id, error)


def page_of(
    run: str, flow: str, outcome: str, used: Sequence[Record], made: Sequence[Record], frame: Sequence[Record]
) -> str:
    """Return the page in Markdown. Names that users gave are in code spans, so that Markdown in them has no effect."""
    lines = [f"# {_span(flow)}: {outcome}", "", f"Run {_span(run)}"]
    for record in frame:
        if record.type == "code" and record.attributes.get("commit"):
            dirty = ", with uncommitted changes" if record.attributes.get("dirty") else ""
            lines.append(f"of commit {_span(record.attributes['commit'])}{dirty}")
    for title, records in (("Inputs", used), ("Outputs", made)):
        lines += ["", f"## {title}", ""]
        lines += [f"- {record.type} {_span(_name(record))}" for record in records] or ["none"]
    lines += ["", "## More", "", f"    ivcap-flows show {run}", f"    ivcap-flows trace {run} --html run.html"]
    return "\n".join(lines)


def rows_of(used: Sequence[Record], made: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each thing that the run used or made."""
    return [
        {
            "role": role,
            "type": record.type,
            "name": _name(record),
            "sha256": str(record.attributes.get("sha256") or ""),
            "id": record.id,
        }
        for role, records in (("input", used), ("output", made))
        for record in records
    ]


def links_of(records: Sequence[Record]) -> str:
    """Return links in Markdown: to things with a public handle, and to the commit in the web view of its repository."""
    found: dict[str, str] = {}
    for record in records:
        platform = str(record.attributes.get("platform") or _EMBEDDED)
        if _HANDLE.fullmatch(record.id) and not platform.startswith(_EMBEDDED):
            found[f"https://hdl.handle.net/{record.id}"] = f"{record.type} {record.id}"
        remote, commit = record.attributes.get("remote"), record.attributes.get("commit")
        if record.type == "code" and isinstance(remote, str) and isinstance(commit, str):
            place = _SSH.sub(r"https://\1/\2", remote).removesuffix("/").removesuffix(".git")
            if re.fullmatch(r"https?://[\w.:/~+-]+", place) and re.fullmatch("[0-9a-f]{7,64}", commit):
                found[f"{place}/commit/{commit}"] = f"code {commit[:12]}"
    return "\n".join(f"- [{text}]({link})" for link, text in found.items())


def _name(record: Record) -> str:
    return str(record.attributes.get("name") or record.attributes.get("path") or record.id)


def _span(text: Any) -> str:
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def _cut(count: int) -> str:
    return f" ({_MOST} of {count})" if count > _MOST else ""
