"""Items of the embedded Provena that rows name, and rows in all forms."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provena_items import Registry, create, make_registry

from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import Annotations, DatasetTemplate, Deferred, Study, TemplateUse, WorkflowTemplate

REGISTER = "/provena/prov/model_run/register"


@dataclass(frozen=True)
class Items(Registry):
    """With a workflow template that requires an annotation and takes a dataset of the template `source`, which has the
    resources `forcing` and, optional, `mask`, and, optional, one of `extra`; a study, and a dataset for each end."""

    source: str
    result: str
    extra: str
    study: str
    datasets: tuple[str, str]

    def record(self, number: int, *, datasets: tuple[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """The JSON of a record without a fault, another for each number."""
        taken, made = datasets or self.datasets
        source = {
            "dataset_template_id": self.source,
            "dataset_id": taken,
            "dataset_type": "DATA_STORE",
            "resources": {"forcing": f"in/{number}.nc"},
        }
        result = {"dataset_template_id": self.result, "dataset_id": made, "dataset_type": "DATA_STORE"}
        return {
            "workflow_template_id": self.workflow,
            "inputs": [source],
            "outputs": [result],
            "annotations": {"region": f"r{number}"},
            "display_name": f"Run {number}",
            "description": f"The run of number {number}",
            "associations": {"modeller_id": self.person, "requesting_organisation_id": self.organisation},
            "start_time": 1_600_000_000 + number,
            "end_time": 1_600_000_100 + number,
            **changes,
        }


async def make_items(client: ProvenaClient) -> Items:
    made = await make_registry(client)
    keys = [
        Deferred(key="forcing", description="Winds", usage_type="FORCING_DATA"),
        Deferred(key="mask", description="Land", optional=True),
    ]
    source = await create(client, DatasetTemplate(display_name="Source", deferred_resources=keys))
    result = await create(client, DatasetTemplate(display_name="Result"))
    extra = await create(client, DatasetTemplate(display_name="Extra"))
    work = WorkflowTemplate(
        display_name="Work",
        software_id=made.model,
        input_templates=[TemplateUse(template_id=source), TemplateUse(template_id=extra, optional=True)],
        output_templates=[TemplateUse(template_id=result)],
        annotations=Annotations(required=["region"], optional=["note"]),
    )
    return Items(
        **vars(made) | {"workflow": await create(client, work)},
        source=source,
        result=result,
        extra=extra,
        study=await create(client, Study(display_name="Study", title="Study", description="A study")),
        datasets=(await made.mint(client), await made.mint(client)),
    )


def spoiled(items: Items) -> tuple[list[dict[str, Any]], set[tuple[int, str, str]]]:
    """500 rows with 17 faults of 9 kinds: row, column, kind."""
    rows = [items.record(n) for n in range(500)]
    unknown = "102.100.100/not-there"
    rows[9]["inputs"][0]["dataset_id"] = unknown
    rows[19]["associations"]["modeller_id"] = unknown
    rows[29]["study_id"] = unknown
    rows[39]["outputs"][0]["dataset_id"] = items.person
    rows[49]["associations"]["modeller_id"] = items.organisation
    rows[59]["inputs"] = []
    rows[69]["inputs"] = []
    rows[79]["outputs"] = []
    rows[89]["inputs"][0]["resources"] = {}
    rows[99]["inputs"][0].pop("resources")
    rows[109]["inputs"][0]["resources"]["wind"] = "x.nc"
    rows[119]["annotations"] = {}
    rows[129].pop("annotations")
    rows[139]["end_time"] = 1
    rows[149]["end_time"] = rows[149]["start_time"] - 1
    rows[159] = dict(rows[158])
    rows[499] = dict(rows[498])
    faults = {
        (10, "inputs[0].dataset_id", "unknown id"),
        (20, "associations.modeller_id", "unknown id"),
        (30, "study_id", "unknown id"),
        (40, "outputs[0].dataset_id", "wrong type"),
        (50, "associations.modeller_id", "wrong type"),
        (60, f"inputs[{items.source}]", "missing input"),
        (70, f"inputs[{items.source}]", "missing input"),
        (80, f"outputs[{items.result}]", "missing output"),
        (90, "inputs[0].resources.forcing", "missing resource"),
        (100, "inputs[0].resources.forcing", "missing resource"),
        (110, "inputs[0].resources.wind", "unknown resource"),
        (120, "annotations.region", "missing annotation"),
        (130, "annotations.region", "missing annotation"),
        (140, "end_time", "times out of order"),
        (150, "end_time", "times out of order"),
        (160, "the row", "identical rows"),
        (500, "the row", "identical rows"),
    }
    return rows, faults


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Rows as JSON Lines; a text is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def sheet_header(items: Items) -> list[str]:
    """The header of Provena's template for the workflow template of the items."""
    return [
        f"_workflow template id {items.workflow}",
        "display name",
        "description",
        "model version (optional)",
        "agent id",
        "study id",
        "execution start time (YYYY-MM-DD HH:MM:SS+HH:MM)",
        "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)",
        f"Input dataset id for template: Source [template id: {items.source}]",
        "Input resource: forcing",
        "Input resource: mask",
        f"Input dataset id for template: Extra [template id: {items.extra}]",
        f"Output dataset id for template: Result [template id: {items.result}]",
        "annotation: region",
        "annotation: note",
        "_job_id",
        "_job_status",
        "_model_run_record_id",
        "_error_info",
    ]


def sheet(header: list[str], rows: list[dict[str, str]]) -> str:
    """CSV text with CRLF, as Provena writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
