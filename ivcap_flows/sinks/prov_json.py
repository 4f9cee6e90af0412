"""A PROV-JSON file per run in a folder, in full: the folder is the user's own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ivcap_flows.provenance import prov_json
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.sinks.base import Delivery

if TYPE_CHECKING:
    from ivcap_flows.journal import RunRow

__all__ = ["ProvJsonSink"]


class ProvJsonSink:
    """Writes `<folder>/<run id>.prov.json`, always whole: readers see the old file or the new one."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()

    @property
    def name(self) -> str:
        return f"prov-json:{self.folder}"

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        await asyncio.to_thread(self._write, run.id, graph)
        return Delivery("delivered")

    def _write(self, run_id: str, graph: Graph) -> None:
        text = prov_json.dumps(graph)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".part", delete=False, encoding="utf-8") as part:
            try:
                part.write(text)
                part.flush()
                os.fsync(part.fileno())
                os.replace(part.name, self.folder / f"{run_id}.prov.json")
            except BaseException:
                os.unlink(part.name)
                raise
