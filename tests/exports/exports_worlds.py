"""The runs that are exported, and how they are made."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from modules import load
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.provenance import Graph
from ivcap_flows.sinks import run_graph

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUNDLED = ROOT / "flows/data/ersst_nino12_monthly.csv"
EXAMPLES = ("coastal-el-nino",)
LONG = ("order-pipeline", "register-runs")
"""Examples that take long; they are run where IVCAP_FLOWS_TEST_EXPORTS is `all` (`make exports`)."""
WANTED = os.environ.get("IVCAP_FLOWS_TEST_EXPORTS")
SECRET = "tok-" + uuid.uuid4().hex
RUNS = ("with-parts", "spoiled", "parks", *EXAMPLES, *(LONG if WANTED == "all" else ()))


@dataclass
class World:
    """The journal with all runs, and what was given to them."""

    journal: Journal
    folder: Path
    ids: dict[str, str] = field(default_factory=dict)

    def run(self, name: str) -> RunRow:
        return self.journal.runs.get(self.ids[name])

    def graph(self, name: str) -> Graph:
        return run_graph(self.journal, self.ids[name])


def load_flows(folder: Path) -> ModuleType:
    """The flows, from a copy of their file that tests may change."""
    copy = folder / "exported_flows.py"
    copy.write_text((HERE / "exported_flows.py").read_text())
    return load(copy)


def park(function: Any, until: Path) -> None:
    """Run a flow as the process of a worker would, up to where it parks."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(function), uuid.uuid4().hex)
        run = client.create_flow_run_from_deployment(deployment, parameters={"until": str(until)})
        with pytest.raises(Pause):
            run_flow(function, flow_run=run, parameters={"until": str(until)})


def example(name: str, output: Path) -> None:
    from flows.coastal_el_nino import coastal_el_nino
    from flows.order_pipeline import order_pipeline
    from flows.register_runs import register_runs

    if name == "coastal-el-nino":
        # With a value that no other test has: equal content is published once.
        source = output.with_suffix(".csv")
        source.write_text(BUNDLED.read_text().replace("\n1960,24.400", f"\n1960,24.4{time.time_ns()}", 1))
        coastal_el_nino(str(source), output=output)
    elif name == "order-pipeline":
        asyncio.run(order_pipeline(bases=("1981-2010",), seasons=("DJF",), resamples=100, output=output))
    else:
        register_runs(window_years=(55,), base_years=(50,), output=output)
