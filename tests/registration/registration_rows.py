"""Items of the embedded Provena that rows name, and rows in all forms."""

from __future__ import annotations

import csv
import io
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcap_flows.handles import Artifact
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.models import (
    Annotations,
    DatasetTemplate,
    Deferred,
    Model,
    Organisation,
    Study,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.terms import Terms, collection_format

REGISTER = "/provena/prov/model_run/register"


@dataclass(frozen=True)
class Items:
    """Handles on Provena. The template `source` has the resources `forcing` and, optional, `mask`."""

    workflow: str
    source: str
    result: str
    extra: str
    person: str
    organisation: str
    study: str
    model: str
    datasets: tuple[str, ...]
    terms: Terms

    def record(self, number: int, **changes: Any) -> dict[str, Any]:
        """The JSON of a record without a fault, another for each number."""
        source = {
            "dataset_template_id": self.source,
            "dataset_id": self.datasets[0],
            "dataset_type": "DATA_STORE",
            "resources": {"forcing": f"in/{number}.nc"},
        }
        result = {
            "dataset_template_id": self.result,
            "dataset_id": self.datasets[1],
            "dataset_type": "DATA_STORE",
        }
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
    """By the client alone."""

    async def new(info: Any) -> str:
        return (await client.registry.create(type(info), info)).item.id

    person = await client.auth_api.linked_person()
    assert person is not None
    owner = await new(Organisation(display_name="Example", name="Example"))
    model = await new(
        Model(
            display_name="Model",
            name="Model",
            description="Computes.",
            documentation_url="https://example.org/docs",
            source_url="https://example.org/source",
        )
    )
    keys = [Deferred(key="forcing", description="Winds"), Deferred(key="mask", description="Land", optional=True)]
    source = await new(DatasetTemplate(display_name="Source", deferred_resources=keys))
    result = await new(DatasetTemplate(display_name="Result"))
    extra = await new(DatasetTemplate(display_name="Extra"))
    workflow = await new(
        WorkflowTemplate(
            display_name="Work",
            software_id=model,
            input_templates=[TemplateUse(template_id=source), TemplateUse(template_id=extra, optional=True)],
            output_templates=[TemplateUse(template_id=result)],
            annotations=Annotations(required=["region"], optional=["note"]),
        )
    )
    study = await new(Study(display_name="Study", title="Study", description="A study"))
    licence = "https://creativecommons.org/licenses/by/4.0/"
    terms = Terms(organisation_id=owner, publisher_id=owner, license=licence, approvals=Approvals())
    datasets = []
    for name in ("one", "two"):
        artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap", name=name)
        datasets.append((await client.datastore.mint(collection_format(artifact, terms))).handle)
    return Items(workflow, source, result, extra, person, owner, study, model, tuple(datasets), terms)


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


def read_outcomes(path: Path) -> list[dict[str, str]]:
    """The rows of an outcome file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
