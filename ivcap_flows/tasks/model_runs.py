"""Task that registers an order or job as a Provena model run, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.errors import PlatformOffError
from ivcap_flows.handles import Artifact, Dataset, Handle, Job, ModelRun, Order, RegistryItem
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.loop import all_of
from ivcap_flows.tasks.accounts import credentials_of
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.waiting import PlannedError

# Provena's models take long to build. They are imported when a run is registered.
if TYPE_CHECKING:
    from ivcap_flows.provena.datasets import DatasetDefaults
    from ivcap_flows.provena.models import TemplatedDataset

__all__ = ["Data", "aregister_model_run", "register_model_run"]

Data = Artifact | Dataset | str
"""An artifact, whose dataset is found or minted; or a dataset or its handle."""


async def _register_model_run(
    subject: Order | Job,
    *,
    workflow_template: RegistryItem | str,
    inputs: Mapping[RegistryItem | str, Data | Sequence[Data]],
    outputs: Mapping[RegistryItem | str, Data | Sequence[Data]],
    display_name: str | None = None,
    description: str | None = None,
    resources: Mapping[RegistryItem | str, Mapping[str, str]] | None = None,
    annotations: Mapping[str, str] | None = None,
    modeller: RegistryItem | str | None = None,
    organisation: RegistryItem | str | None = None,
    study: RegistryItem | str | None = None,
    model_version: str | None = None,
    datasets: DatasetDefaults | None = None,
    credentials: ProvenaCredentialsLike = None,
) -> ModelRun:
    """Register an ended order or job with Provena as a model run, once per URN and workflow template.

    `inputs` and `outputs` map dataset templates to their data: dataset handles, or artifacts, whose external datasets
    are found or minted from `datasets`. If the environment names the IVCAP of the subject, an idempotency record there
    tells other journals of the run, so that IVCAP must answer. `resources` maps the deferred resources of a template,
    by key, to relative paths. The modeller is the person linked to the caller unless you pass one. Times are those of
    the platform.

    The task waits until Provena has lodged the run. Raises InputError for work that has not ended and for required
    values that are missing, RegistrationFailedError with Provena's reason, and WaitTimeoutError if the registration may
    still succeed. Raises InDoubtError if the registry has a run whose job failed, or if a batch left the run in doubt;
    such a run is not sent again automatically.
    """
    from ivcap_flows.registration.model_runs import ModelRunEffect, check_ended, model_run_record
    from ivcap_flows.tasks.registry import alinked_person

    call = await ProvenaCall.of(credentials)
    call.check(workflow_template, list(inputs), list(outputs), modeller, organisation, study)
    call.check([each for _, each in (*_rows(inputs), *_rows(outputs)) if isinstance(each, Dataset)])
    PlannedError.refuse([subject])
    check_ended(subject)
    template = urn_of(workflow_template)
    person = urn_of(modeller) if modeller is not None else (await alinked_person.fn(credentials=credentials)).urn
    sides = [await _datasets(side, resources or {}, datasets, credentials) for side in (inputs, outputs)]
    record = model_run_record(
        subject,
        workflow_template=template,
        modeller=person,
        inputs=sides[0],
        outputs=sides[1],
        display_name=display_name,
        description=description,
        annotations=annotations,
        organisation=urn_of(organisation) if organisation is not None else None,
        study=urn_of(study) if study is not None else None,
        model_version=model_version,
    )
    alone = credentials_of("provena", credentials, call.attempt) is not None
    done = await call.perform(
        ModelRunEffect.of(subject.urn, record, client=call.client, platform=call.platform, limit=call.limit),
        idempotency_records=await _records_of(subject, call, alone=alone),
    )
    return done.value


async def _records_of(subject: Order | Job, call: ProvenaCall, *, alone: bool) -> IdempotencyRecords | None:
    """Return the idempotency records of the IVCAP that did the work, or None if the flow and the environment name none.

    Nothing is named if Provena was given `alone`: then an embedded IVCAP would be started, which knows nothing of it.
    """
    credentials = credentials_of("ivcap", None, call.attempt)
    if alone and credentials is None and not call.settings.ivcap_configured:
        return None
    try:
        client = await ivcap_client(credentials, deployed=call.attempt is not None and call.attempt.run.deployed)
    except PlatformOffError:
        return None
    if await client.platform() != subject.platform:
        return None
    return IdempotencyRecords(client.aspects, await client.account())


async def _datasets(
    side: Mapping[RegistryItem | str, Data | Sequence[Data]],
    resources: Mapping[RegistryItem | str, Mapping[str, str]],
    defaults: DatasetDefaults | None,
    credentials: ProvenaCredentialsLike,
) -> list[TemplatedDataset]:
    from ivcap_flows.provena.models import TemplatedDataset

    paths = {urn_of(template): dict(given) for template, given in resources.items()}
    rows = _rows(side)
    handles = await all_of(lambda row: _dataset(row[1], defaults, credentials), rows)
    return [
        TemplatedDataset(dataset_template_id=template, dataset_id=dataset, resources=paths.get(template))
        for (template, _), dataset in zip(rows, handles, strict=True)
    ]


def _rows(side: Mapping[RegistryItem | str, Data | Sequence[Data]]) -> list[tuple[str, Data]]:
    """Return pairs of dataset template and datum, one for each datum."""
    return [
        (urn_of(template), each)
        for template, data in side.items()
        for each in ([data] if isinstance(data, Handle | str) else data)
    ]


async def _dataset(data: Data, defaults: DatasetDefaults | None, credentials: ProvenaCredentialsLike) -> str:
    from ivcap_flows.tasks.registry import amint_dataset

    if isinstance(data, Artifact):
        return (await amint_dataset.fn(data, datasets=defaults, credentials=credentials)).urn
    return urn_of(data)


register_model_run, aregister_model_run = task_pair(
    _register_model_run, name="Register model run", run_name="register {subject}", writes=("outputs",)
)
