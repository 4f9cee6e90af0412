"""A flow like a user's, small enough to be killed often: upload, order, wait, aspect, model run.

With KILL_BEFORE_OUTCOME_OF=<noun>:<file> the process kills itself once, between the platform's reply and its being
written to the journal; the file then tells that it did. The package's own code knows nothing of it.
"""

import os
import signal
from pathlib import Path

from prefect import flow

from ivcap_flows import recorded
from ivcap_flows.journal.intents import Intents
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.models import DatasetTemplate, Model, Organisation, TemplateUse, WorkflowTemplate
from ivcap_flows.provena.terms import Terms
from ivcap_flows.tasks import (
    attach_aspect,
    place_order,
    register_item,
    register_model_run,
    upload_artifact,
    wait_for_orders,
)


@flow
@recorded
def pipeline(source: str, seconds: float = 1.0) -> str:
    series = upload_artifact(source)
    order = place_order("sleep", {"seconds": seconds})
    [done] = wait_for_orders([order])
    attach_aspect(done, {"$schema": "urn:example:schema:note.1", "series": series.urn})
    owner = register_item(Organisation(display_name="Example", name="Example")).urn
    model = register_item(
        Model(
            display_name="Sleep",
            name="Sleep",
            description="Sleeps.",
            documentation_url="https://example.org/docs",
            source_url="https://example.org/source",
        )
    )
    form = register_item(DatasetTemplate(display_name="Anything"))
    workflow = register_item(
        WorkflowTemplate(
            display_name="Sleep on it", software_id=model.urn, input_templates=[TemplateUse(template_id=form.urn)]
        )
    )
    run = register_model_run(
        done,
        workflow_template=workflow,
        inputs={form: series},
        outputs={},
        terms=Terms(
            organisation_id=owner,
            publisher_id=owner,
            license="https://creativecommons.org/licenses/by/4.0/",
            approvals=Approvals(),
        ),
    )
    return run.urn


def kill_before_the_outcome_of(noun: str, told: Path) -> None:
    """Die once between the platform's reply and its being written to the journal."""
    visibility_delay = Intents.settle

    def settle(self, intent, **outcome):
        if intent.noun == noun and not told.exists():
            told.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return visibility_delay(self, intent, **outcome)

    Intents.settle = settle


if wanted := os.environ.get("KILL_BEFORE_OUTCOME_OF"):
    kill_before_the_outcome_of(wanted.partition(":")[0], Path(wanted.partition(":")[2]))
