"""Model runs by a workflow: one declaration for one run and for many, whose items are registered once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from on_record import last_graph

from ivcap_flows.blocks import ProvenaTerms
from ivcap_flows.capture import use_journal
from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.handles import ModelRun, Order, Products
from ivcap_flows.journal import Journal
from ivcap_flows.provena.models import DatasetTemplate, Model, Organisation
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration import DataUse, NewWorkflowTemplate, ValueFrom, Workflow
from ivcap_flows.tasks import OrderStep, register_model_run, register_model_runs, run_orders, upload_artifact

CREATE, MINT, REGISTER = "/create", "/mint-dataset", "/model_run/register"
LICENCE = "https://creativecommons.org/licenses/by/4.0/"


@pytest.fixture
def workflow(tasks_service: str, unique: str) -> Workflow:
    """A workflow of which Provena has nothing yet."""
    return Workflow(
        service=tasks_service,
        workflow_template=NewWorkflowTemplate(
            display_name=f"Work {unique}",
            model=Model(
                display_name=unique,
                name=unique,
                description="Computes.",
                documentation_url="https://example.org/docs",
                source_url="https://example.org/source",
            ),
        ),
        inputs={"series": DatasetTemplate(display_name=f"Series {unique}")},
        outputs={
            "upper.csv": DatasetTemplate(display_name=f"Upper {unique}"),
            "lower.csv": DataUse(template=DatasetTemplate(display_name=f"Lower {unique}"), optional=True),
        },
        annotations={"base": ValueFrom(parameter="base"), "region": "Tasman Sea"},
        terms=Terms(owner=Organisation(display_name=unique, name=unique), license=LICENCE, approvals={}),
    )


@pytest.fixture
def ordered(in_script: Any, tasks_service: str, unique: str) -> list[Order]:
    """Two orders of the service that have ended, each of a series of its own."""

    def body() -> list[Order]:
        series = [upload_artifact(f"{unique},{number}".encode(), name=f"{unique}-{number}") for number in range(2)]
        return run_orders([OrderStep(tasks_service, {"series": each, "base": 1950}, each.name) for each in series])

    done: list[Order] = in_script(body)
    return done


def sent(effects: Any, *ends: str) -> list[int]:
    """How many requests whose path ends so took effect since the last time."""
    paths = [each["path"] for each in effects.embedded.requests("POST") if (each["status"] or 999) < 300]
    effects.embedded.forget_requests()
    return [len([path for path in paths if path.endswith(end)]) for end in ends]


def test_what_a_workflow_declares_is_registered_once(in_script, effects, ordered, workflow, tmp_path):
    """An owner, a model, three dataset templates and the workflow template: for all runs, whichever comes first, the
    task for one or that for many, and for another journal."""

    def body():
        effects.embedded.forget_requests()
        one = register_model_run(ordered[0], workflow=workflow)
        assert sent(effects, CREATE, MINT, REGISTER) == [6, 3, 1]
        # Equal steps share an order.
        many = register_model_runs([*ordered, ordered[0]], workflow=workflow)
        assert sent(effects, CREATE, MINT, REGISTER) == [0, 3, 1]
        return one, many, register_model_run(ordered[1], workflow=workflow)

    first, many, second = in_script(body)
    assert [run.urn for run in many.runs] == [first.urn, second.urn] and first.urn != second.urn
    assert (many.rows, many.differing) == (2, 0)
    assert first.workflow_template == second.workflow_template
    assert first.annotations["base"] == "1950" and first.annotations["region"] == "Tasman Sea"
    assert (len(first.inputs), len(first.outputs)) == (1, 2)
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as journal, use_journal(journal):
        again = in_script(lambda: register_model_run(ordered[0], workflow=workflow))
    assert again.urn == first.urn and sent(effects, CREATE, MINT, REGISTER) == [0, 0, 0]


@pytest.mark.catches("items of the task that needs them")
def test_a_run_does_not_come_of_the_order_beside_which_its_template_was_registered(
    in_script, ivcap_journal, ordered, workflow
):
    """The template has no origin but the flow."""
    runs: list[ModelRun] = in_script(lambda: [register_model_run(each, workflow=workflow) for each in ordered])
    graph = last_graph(ivcap_journal)
    for run, own, other in zip(runs, ordered, reversed(ordered), strict=True):
        origins = graph.lineage(run.urn, "up").nodes
        assert own.urn in origins and run.workflow_template in origins
        assert other.urn not in origins


def test_arguments_win_over_the_workflow(in_script, effects, ordered, workflow, registry, tmp_path):
    """Also the terms of a saved block, of a file, or given as they are. Annotations of both are there."""
    stated = registry.terms.model_dump(mode="json", exclude_none=True)
    name = f"terms-{os.getpid()}"
    ProvenaTerms(**stated).save(name, overwrite=True)
    (tmp_path / "terms.yaml").write_text(yaml.safe_dump(stated))
    effects.embedded.forget_requests()

    def register(terms):
        more = {"region": "Coral Sea", "more": "1"}
        run = register_model_run(ordered[0], workflow=workflow, terms=terms, display_name="Mine", annotations=more)
        return run, sent(effects, CREATE, MINT)

    made = in_script(lambda: [register(terms) for terms in (registry.terms, name, tmp_path / "terms.yaml")])
    # No owner is registered, since these terms have a handle for it.
    assert [requests for _, requests in made] == [[5, 3], [0, 0], [0, 0]]
    run = made[0][0]
    assert {each.urn for each, _ in made} == {run.urn} and run.display_name == "Mine"
    assert [run.annotations[name] for name in ("base", "region", "more")] == ["1950", "Coral Sea", "1"]


def test_what_cannot_be_registered_is_named(
    in_script, effects, tasks_service, ended_order, artifact, workflow, tmp_path
):
    """Before a dataset is minted or a run is sent. The rows of a file say all themselves, and nothing else but work is
    registered."""
    of_service = {"service_name": tasks_service, "parameters": {"series": artifact.urn, "base": "1950"}}
    products = Products([artifact.model_copy(update={"name": "upper.csv"})])
    ordered = ended_order.model_copy(update=of_service | {"products": products})
    other = Workflow(service="other", workflow_template="1/1")
    rows = Path(tmp_path, "rows.jsonl")
    rows.touch()

    def body():
        for given, error, words in (
            ({}, InputError, "by a `workflow`, or by a `workflow_template`"),
            ({"workflow": "x.yaml", "workflow_template": "1/1"}, InputError, "by a `workflow`, or by"),
            ({"workflow": "x.yaml", "inputs": {"1/1": "1/2"}}, InputError, "by a `workflow`, or by"),
            ({"workflow": "no.yaml"}, InputError, r"workflows in no.yaml cannot be read"),
            ({"workflow": other}, InputError, "workflows given: other"),
            ({"workflow": workflow, "terms": "no-such-block"}, ConfigurationError, "no block ProvenaTerms named"),
            ({"workflow": workflow, "terms": "no.yaml"}, InputError, "The terms in no.yaml cannot be read"),
            ({"workflow": workflow, "terms": 5}, InputError, "Give Terms, the path of a YAML file, or the name"),
            (
                {"workflow": workflow, "terms": Terms(license=LICENCE)},
                InputError,
                "lack `owner` .* and `approvals`",
            ),
        ):
            with pytest.raises(error, match=words):
                register_model_run(ordered, **given)
        for many, given, words in (
            (rows, {"workflow": workflow}, "the rows of a file say all"),
            ([ordered, "urn:ivcap:order:1"], {"workflow": workflow}, "orders and jobs are registered, not str"),
            ([ordered], {}, r"must be a ModelRunRecord .*, not Order\. Orders and jobs need the argument `workflow`"),
        ):
            with pytest.raises(InputError, match=words):
                register_model_runs(many, **given)

    effects.embedded.forget_requests()
    in_script(body)
    assert sent(effects, MINT, REGISTER) == [0, 0]
