"""`ivcap-flows export RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ivcap_flows.cli.output import write, writing
from ivcap_flows.cli.records import RunName, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.journal import RunRow
from ivcap_flows.provenance import Graph
from ivcap_flows.sinks import run_graph
from ivcap_flows.sinks.folder import ExportFormat, text_of

__all__ = ["export"]

Format = Literal[ExportFormat, "openlineage"]


def export(
    run: RunName,
    /,
    *,
    format: Format = "prov-json",  # noqa: A002 - the option's name
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    terms: Path | None = None,
) -> None:
    """Export the provenance of a run for other software.

    Args:
        format: Format of the export; `openlineage` has one event per line.
        output: File to write. Default: standard output. For an RO-Crate: a new or empty folder, or a file `….zip`.
        terms: For an RO-Crate: YAML file with what only you can state (`license`, `author`, `organisation`).
    """
    if terms is not None and format != "ro-crate":
        raise InputError("--terms needs --format ro-crate.")
    with open_journal() as journal:
        row = journal.runs.get(run)
        graph = run_graph(journal, row.id)
    if output is None:
        if format == "ro-crate":
            raise InputError("An RO-Crate is a folder or a zip file: name it with -o.")
        write(text_of(format, row, graph))
        return
    with writing(output):
        if format == "ro-crate":
            _write_crate(row, graph, output, terms)
        else:
            output.write_text(text_of(format, row, graph), encoding="utf-8")


def _write_crate(row: RunRow, graph: Graph, output: Path, terms: Path | None) -> None:
    from ivcap_flows.sinks.ro_crate import read_terms, write_crate

    write_crate(row, graph, output, read_terms(terms) if terms is not None else None)
