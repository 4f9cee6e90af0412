"""Task that registers an order or job as a Provena model run, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.errors import InputError, PlatformOffError
from ivcap_flows.handles import Artifact, Dataset, Handle, Job, ModelRun, Order, RegistryItem
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.tasks.accounts import credentials_of
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, of_deployment, urn_of
from ivcap_flows.tasks.describing import describing
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.terms import TermsLike, terms_of
from ivcap_flows.tasks.waiting import PlannedError
from ivcap_flows.threads import FILES

# Provena's models take long to build. They are imported when a run is registered.
if TYPE_CHECKING:
    from ivcap_flows.provena.models import TemplatedDataset
    from ivcap_flows.provena.terms import Terms
    from ivcap_flows.registration.drafts import Drafts
    from ivcap_flows.registration.workflow import RegisteredWorkflow, Workflow

__all__ = ["Data", "aregister_model_run", "register_model_run", "workflow_for"]

Data = Artifact | Dataset | str
"""An artifact, whose dataset is found or minted; or a dataset or its handle."""


async def _register_model_run(
    subject: Order | Job,
    *,
    workflow: Workflow | Path | str | None = None,
    workflow_template: RegistryItem | str | None = None,
    inputs: Mapping[RegistryItem | str, Data | Sequence[Data]] | None = None,
    outputs: Mapping[RegistryItem | str, Data | Sequence[Data]] | None = None,
    display_name: str | None = None,
    description: str | None = None,
    resources: Mapping[RegistryItem | str, Mapping[str, str]] | None = None,
    annotations: Mapping[str, str] | None = None,
    modeller: RegistryItem | str | None = None,
    organisation: RegistryItem | str | None = None,
    study: RegistryItem | str | None = None,
    model_version: str | None = None,
    terms: TermsLike = None,
    credentials: ProvenaCredentialsLike = None,
) -> ModelRun:
    """Register an ended order or job with Provena as a model run, once per URN and workflow template.

    `workflow` is a Workflow, or the path of a YAML file: it says which of the work's parameters and products are data,
    and what is stated of the run. What it names without a handle is registered once. Other arguments win over it.
    Without one, give the `workflow_template`, and `inputs` and `outputs`, which map its dataset templates to their
    data: dataset handles, or artifacts. `resources` maps the deferred resources of a template, by key, to relative
    paths.

    Artifacts get an external dataset, which is found or minted from `terms`: Terms, the path of a YAML file, or the
    name of a saved ProvenaTerms block. If the environment names the IVCAP of the subject, an idempotency record there
    tells other journals of the run, so that IVCAP must answer. The modeller is the person linked to the caller unless
    one is named. Times are those of the platform.

    The task waits until Provena has lodged the run. Raises InputError, before anything is made, for work that has not
    ended, for a trial of an embedded IVCAP, and for all that Provena would refuse. Raises RegistrationFailedError with
    Provena's reason, WaitTimeoutError if the registration may still succeed, and InDoubtError if the registry has a run
    whose job failed; it is not sent again automatically.
    """
    from ivcap_flows.registration.drafts import Drafts
    from ivcap_flows.registration.making import checked_effect
    from ivcap_flows.registration.model_runs import check_ended, model_run_record
    from ivcap_flows.registration.references import References
    from ivcap_flows.registration.registry import refuse_trial
    from ivcap_flows.registration.requirements import Requirements
    from ivcap_flows.registration.work import work_record
    from ivcap_flows.tasks.registry import alinked_person, minting, registering

    if (workflow is None) == (workflow_template is None) or (workflow is not None and (inputs or outputs or resources)):
        raise InputError(
            "A model run is registered by a `workflow`, or by a `workflow_template` with its `inputs` and `outputs`."
        )
    call = await ProvenaCall.of(credentials)
    data = [*_rows(inputs or {}), *_rows(outputs or {})]
    call.check(workflow_template, list(inputs or ()), list(outputs or ()), modeller, organisation, study)
    call.check([each for _, each in data if isinstance(each, Dataset)])
    PlannedError.refuse([subject])
    check_ended(subject)
    refuse_trial(call.platform, subject, *(each for _, each in data if isinstance(each, Artifact)))
    stated = await terms_of(terms)
    drafts = Drafts(call.client, call.journal, call.platform, call.account)
    known = None if workflow is None else await workflow_for(subject, workflow, stated, call, drafts)
    person = modeller or (known.stated.modeller if known is not None else None)
    more: dict[str, Any] = {
        "modeller": urn_of(person or await alinked_person.fn(credentials=credentials)),
        "display_name": display_name,
        "description": description,
        "annotations": annotations,
        "organisation": urn_of(organisation) if organisation is not None else None,
        "study": urn_of(study) if study is not None else None,
        "model_version": model_version,
    }
    if known is not None:
        record = work_record(subject, known, **more)
    else:
        record = model_run_record(
            subject,
            workflow_template=urn_of(workflow_template or ""),
            inputs=_parts(inputs or {}, resources or {}),
            outputs=_parts(outputs or {}, resources or {}),
            **more,
        )
    alone = credentials_of("provena", credentials, call.attempt) is not None
    handles = (*subject.products, *(each for _, each in data))
    artifacts = {each.urn: each for each in handles if isinstance(each, Artifact)}
    describe = describing(credentials_of("ivcap", None, call.attempt), alone=alone, known=artifacts)
    with References() as references:
        requirements = Requirements(
            drafts, references, terms=stated if known is None else known.terms, describe=describe
        )
        effect = await checked_effect(
            subject.urn,
            record,
            requirements,
            call.journal,
            register=registering(credentials),
            mint=minting(credentials),
            limit=call.limit,
        )
    records = await _records_of(subject, call, alone=alone)
    return (await call.perform(effect, idempotency_records=records)).value


async def workflow_for(
    work: Order | Job,
    given: Workflow | Path | str,
    terms: Terms | None,
    call: ProvenaCall,
    drafts: Drafts,
) -> RegisteredWorkflow:
    """Return the workflow for this work, with handles or drafts of what it names. Raises InputError if there is none.

    `terms` replace those of the workflow, if they are given.
    """
    from ivcap_flows.registration.workflows import Workflows

    workflows = await FILES.run(Workflows.of, given)
    run = call.attempt.run if call.attempt is not None else None
    found = workflows.for_work(work, run.flow_name if run is not None else None)
    if found is None:
        services = ", ".join(sorted({each.service for each in workflows.all if each.service is not None})) or "none"
        raise InputError(
            f"There is no workflow for the service {work.service_name or work.service} of {work.urn}. The services of "
            f"the workflows given: {services}.",
            urn=work.urn,
        )
    if terms is not None:
        found = found.model_copy(update={"terms": terms})
    return await found.registered(drafts.name)


async def _records_of(subject: Order | Job, call: ProvenaCall, *, alone: bool) -> IdempotencyRecords | None:
    """Return the idempotency records of the IVCAP that did the work, or None if the flow and the environment name none.

    Nothing is named if Provena was given `alone`: then an embedded IVCAP would be started, which knows nothing of it.
    """
    credentials = credentials_of("ivcap", None, call.attempt)
    if alone and credentials is None and not call.settings.ivcap_configured:
        return None
    try:
        client = await ivcap_client(credentials, deployed=of_deployment(call.attempt))
    except PlatformOffError:
        return None
    if await client.platform() != subject.platform:
        return None
    return IdempotencyRecords(client.aspects, await client.account(), client.visibility_delay)


def _parts(
    side: Mapping[RegistryItem | str, Data | Sequence[Data]],
    resources: Mapping[RegistryItem | str, Mapping[str, str]],
) -> list[TemplatedDataset]:
    """Return the data of one side with their dataset templates. Artifacts stand for their datasets."""
    from ivcap_flows.provena.models import TemplatedDataset

    paths = {urn_of(template): dict(given) for template, given in resources.items()}
    return [
        TemplatedDataset(dataset_template_id=template, dataset_id=urn_of(each), resources=paths.get(template))
        for template, each in _rows(side)
    ]


def _rows(side: Mapping[RegistryItem | str, Data | Sequence[Data]]) -> list[tuple[str, Data]]:
    """Return pairs of dataset template and datum, one for each datum."""
    return [
        (urn_of(template), each)
        for template, data in side.items()
        for each in ([data] if isinstance(data, Handle | str) else data)
    ]


register_model_run, aregister_model_run = task_pair(_register_model_run, "register {subject}", writes=("outputs",))
