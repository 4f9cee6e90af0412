"""Write each run to a file in a folder. The files have the full record, since the folder is the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.sinks.base import Delivery
from ivcap_flows.threads import FILES
from ivcap_flows.whole_file import ensure_folder, whole_file

if TYPE_CHECKING:
    from ivcap_flows.journal import RunRow

__all__ = ["ENDINGS", "ExportFormat", "FolderSink", "text_of"]

ExportFormat = Literal["prov-json", "prov-n", "turtle", "ro-crate"]

ENDINGS: Final[Mapping[ExportFormat, str]] = {
    "prov-json": ".prov.json",
    "prov-n": ".provn",
    "turtle": ".ttl",
    "ro-crate": ".crate.zip",
}


class FolderSink:
    """Writes `<folder>/<run id>.<journal id>`, with the suffix of the format.

    A file is always complete: readers see the old one or the new one. If several machines with separate journals
    continued a run, each journal has its own file.
    """

    def __init__(self, folder: Path, format: ExportFormat = "prov-json") -> None:  # noqa: A002 - as in `export`
        self.folder = Path(os.path.abspath(folder))
        self.format = format

    @property
    def name(self) -> str:
        return f"{self.format}:{self.folder}"

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        await FILES.run(self._write, run, graph)
        return Delivery("delivered")

    def _write(self, run: RunRow, graph: Graph) -> None:
        # The journal keeps the delivery for ever, so the file and its name must be on disk.
        ensure_folder(self.folder)
        with whole_file(self.folder / f"{run.id}.{run.journal}{ENDINGS[self.format]}") as file:
            if self.format == "ro-crate":
                from ivcap_flows.sinks.ro_crate import write_zip

                write_zip(run, graph, file)
            else:
                file.write_text(text_of(self.format, run, graph), encoding="utf-8")


def text_of(format: str, run: RunRow, graph: Graph) -> str:  # noqa: A002 - as in `export`
    """Return the record of a run as a text: `prov-json`, `prov-n`, `turtle`, or `openlineage`."""
    from ivcap_flows.provenance import openlineage, prov_json, prov_n, turtle
    from ivcap_flows.sinks.contents import Contents

    if format == "openlineage":
        contents = Contents(graph)
        sources = contents.sources(run.entry_point)
        return openlineage.dumps(contents.with_reasons(), sources=sources)
    forms = {"prov-json": lambda graph: prov_json.dumps(graph) + "\n", "prov-n": prov_n.dumps, "turtle": turtle.dumps}
    return forms[format](graph)
