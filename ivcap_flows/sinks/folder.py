"""Write each run to a file in a folder. The files have the full record, since the folder is the user's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.sinks.base import Delivery
from ivcap_flows.sinks.parts import made, whole

if TYPE_CHECKING:
    from ivcap_flows.journal import RunRow

__all__ = ["ENDINGS", "FolderSink", "Form", "text_of"]

Form = Literal["prov-json", "prov-n", "turtle", "ro-crate"]

ENDINGS: Final[Mapping[Form, str]] = {
    "prov-json": ".prov.json",
    "prov-n": ".provn",
    "turtle": ".ttl",
    "ro-crate": ".crate.zip",
}


class FolderSink:
    """Writes `<folder>/<run id>.<journal id>`, with the suffix of the form.

    A file is always complete: readers see the old one or the new one. If several machines with separate journals
    continued a run, each journal has its own file.
    """

    def __init__(self, folder: Path, form: Form = "prov-json") -> None:
        self.folder = Path(folder).absolute()
        self.form = form

    @property
    def name(self) -> str:
        return f"{self.form}:{self.folder}"

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        await asyncio.to_thread(self._write, run, graph)
        return Delivery("delivered")

    def _write(self, run: RunRow, graph: Graph) -> None:
        # The journal keeps the delivery for ever, so the file and its name must be on disk.
        made(self.folder)
        with whole(self.folder / f"{run.id}.{run.journal}{ENDINGS[self.form]}") as file:
            if self.form == "ro-crate":
                from ivcap_flows.sinks.ro_crate import write_zip

                write_zip(run, graph, file)
            else:
                file.write_text(text_of(self.form, run, graph), encoding="utf-8")


def text_of(form: str, run: RunRow, graph: Graph) -> str:
    """Return the record of a run in a text form: `prov-json`, `prov-n`, `turtle`, or `openlineage`."""
    from ivcap_flows.provenance import openlineage, prov_json, prov_n, turtle
    from ivcap_flows.sinks.contents import sources

    if form == "prov-n":
        return prov_n.dumps(graph)
    if form == "turtle":
        return turtle.dumps(graph)
    if form == "openlineage":
        code = sources(run.entry_point, graph)
        return openlineage.dumps(code.stated(graph), sources=code.found)
    return prov_json.dumps(graph) + "\n"
