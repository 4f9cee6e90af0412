"""Registrations with Provena: once per order and template, complete or not at all, by users who may register."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    ForeignHandleError,
    InputError,
    NotAuthorizedError,
    PlatformError,
    ProtocolError,
    RegistrationFailedError,
)
from ivcap_flows.handles import Dataset
from ivcap_flows.provena.models import DatasetTemplate, Organisation
from ivcap_flows.tasks import linked_person, mint_dataset, register_item, register_model_run

REGISTER = "/provena/prov/model_run/register"


@pytest.fixture
def user(embedded_platform):
    """Credentials of another user of the embedded Provena, by the suffix of the token's name."""

    def credentials(suffix: str) -> ProvenaCredentials:
        token = SecretStr(os.environ[f"PROVENA_OFFLINE_TOKEN_{suffix}"])
        return ProvenaCredentials.from_environment().model_copy(update={"offline_token": token})

    return credentials


@contextmanager
def failing_jobs(directory: Path) -> Iterator[None]:
    """While the block runs, jobs of the embedded Provena that lodge a model run fail at once."""
    with closing(sqlite3.connect(directory / "provena.sqlite", timeout=10, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER out_of_luck AFTER INSERT ON jobs WHEN NEW.job_sub_type = 'MODEL_RUN_PROV_LODGE' BEGIN "
            "UPDATE jobs SET status = 'FAILED', info = 'Out of luck.', due = NULL WHERE session_id = NEW.session_id; "
            "END"
        )
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER out_of_luck")


def minted(effects) -> int:
    found = [r for r in effects.embedded.requests("POST") if r["path"].endswith("/register/mint-dataset")]
    return len([r for r in found if r["status"] < 300])


def test_an_order_is_registered_once(in_flow, effects, ended_order, artifact, registry):
    """Repeated in a run and from another run, an order gives one model run per workflow template, and one dataset."""

    def body():
        data = {registry.template: artifact}
        return [
            register_model_run(
                ended_order, workflow_template=registry.workflow, inputs=data, outputs=data, terms=registry.terms
            )
            for _ in range(2)
        ]

    runs = [*in_flow(body), *in_flow(body, name="another")]
    assert len({run.urn for run in runs}) == effects.count(REGISTER) == minted(effects) == 1
    assert runs[0].subject == ended_order.urn
    assert runs[0].inputs == runs[0].outputs


def test_what_has_not_succeeded_is_not_registered(in_flow, effects, ended_order, artifact, registry):
    """A failed or unfinished order is refused with the next step, before anything is sent."""
    for status, finished in (("failed", ended_order.finished_at), ("executing", None)):
        order = ended_order.model_copy(update={"status": status, "finished_at": finished})
        with pytest.raises(InputError, match=f"is {status}, and only work that succeeded.*wait_for_orders"):
            in_flow(
                lambda order=order: register_model_run(
                    order,
                    workflow_template=registry.workflow,
                    inputs={registry.template: artifact},
                    outputs={},
                    terms=registry.terms,
                )
            )
    assert minted(effects) == effects.count(REGISTER) == 0


@pytest.mark.parametrize(
    ("stated", "missing"),
    [(None, ["organisation_id", "publisher_id", "license", "approvals"]), ("license", ["license"])],
    ids=["nothing", "no licence"],
)
def test_what_nobody_has_stated_is_named(in_flow, effects, ended_order, artifact, registry, stated, missing):
    """A missing licence, owner, publisher or approval is never invented. The error names it, and nothing is sent."""
    terms = registry.terms.model_copy(update={stated: None}) if stated else None

    def body():
        register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: artifact},
            outputs={registry.template: artifact},
            terms=terms,
        )

    with pytest.raises(InputError, match="in the terms") as caught:
        in_flow(body)
    assert caught.value.missing == missing
    assert all(name in str(caught.value) for name in missing)
    assert minted(effects) == effects.count(REGISTER) == 0


def test_what_was_missing_can_be_stated_later(in_flow, effects, artifact, registry):
    """After a refusal, the same dataset is minted once the licence is stated."""
    with pytest.raises(InputError, match="license"):
        in_flow(lambda: mint_dataset(artifact))
    assert in_flow(lambda: mint_dataset(artifact, terms=registry.terms)).access_uri == artifact.urn
    assert minted(effects) == 1


def test_a_user_without_a_person(in_flow, effects, ended_order, artifact, registry, user):
    """A user who is linked to no person gets an error with the next step, before anything is minted or registered."""
    credentials = user("UNLINKED")

    def register():
        register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: artifact},
            outputs={registry.template: artifact},
            terms=registry.terms,
            credentials=credentials,
        )

    def body():
        for need in (
            register,
            lambda: linked_person(credentials=credentials),
            lambda: mint_dataset(artifact, terms=registry.terms, credentials=credentials),
        ):
            with pytest.raises(InputError, match="not linked to a Person.*link it in Provena's"):
                need()

    in_flow(body)
    assert minted(effects) == effects.count(REGISTER) == 0


def test_a_user_who_may_only_read(in_flow, effects, artifact, registry, unique, user):
    """A user with read roles only is refused, also with a fresh token, and nothing is retried."""
    credentials = user("READER")
    with pytest.raises(PlatformError) as caught:
        in_flow(lambda: register_item(Organisation(display_name=unique, name=unique), credentials=credentials))
    assert not caught.value.retryable
    sent = [r["status"] for r in effects.embedded.requests("POST") if r["path"].endswith("/organisation/create")]
    assert sent in ([401], [401, 401], [403])


def test_a_faulty_record_is_refused_and_can_be_corrected(in_flow, effects, ended_order, artifact, registry):
    """A record that Provena refuses at once leaves nothing behind, so the corrected one is registered."""

    def body(outputs):
        data = mint_dataset(artifact, terms=registry.terms)
        return register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: data},
            outputs={registry.template: data} if outputs else {},
        )

    with pytest.raises(BadRequestError):
        in_flow(lambda: body(False))
    assert in_flow(lambda: body(True)).subject == ended_order.urn
    assert effects.count(REGISTER) == 1


def test_a_failed_registration_can_be_corrected(in_flow, effects, ended_order, artifact, registry, embedded_directory):
    """If Provena's job fails, its reason is raised, and the next run registers again."""

    def body():
        data = {registry.template: mint_dataset(artifact, terms=registry.terms)}
        return register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    with failing_jobs(embedded_directory.root), pytest.raises(RegistrationFailedError, match="failed: Out of luck"):
        in_flow(body)
    run = in_flow(body)
    assert run.subject == ended_order.urn
    assert effects.count(REGISTER) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"expire_token": True}, NotAuthorizedError), ({"status": 403}, ForbiddenError), ({"status": 404}, ProtocolError)],
    ids=["token", "forbidden", "wrong URL"],
)
def test_a_registration_that_cannot_be_watched_is_not_sent_again(
    in_flow, effects, ended_order, artifact, registry, fault, error
):
    """A refusal during the wait says nothing about the registration, so the next run continues to wait for it."""

    def body():
        data = {registry.template: mint_dataset(artifact, terms=registry.terms)}
        return register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    effects.embedded.add_fault(method="GET", path="/jobs/user/fetch$", **fault)
    with pytest.raises(error):
        in_flow(body)
    effects.embedded.clear_faults()
    assert in_flow(body).subject == ended_order.urn
    assert effects.count(REGISTER) == 1


def test_items_of_other_users_can_be_used(in_flow, effects, ended_order, artifact, registry, user):
    """A second user mints and registers for itself. It finds the dataset of the first and does not mint it again."""
    credentials = user("2")
    first = in_flow(lambda: mint_dataset(artifact, terms=registry.terms))
    second = in_flow(lambda: mint_dataset(artifact, terms=registry.terms, credentials=credentials))
    assert (first.urn, minted(effects)) == (second.urn, 1)


def test_equal_statements_are_one_item(in_flow, effects, unique):
    """An equal organisation or template in another run is the existing item."""

    def body():
        organisation = register_item(Organisation(display_name=unique, name=unique))
        return organisation, register_item(DatasetTemplate(display_name=unique))

    assert in_flow(body) == in_flow(body, name="another")
    created = [r for r in effects.embedded.requests("POST") if r["path"].endswith("/create")]
    assert len(created) == 2


def test_a_foreign_dataset_is_refused(in_flow, effects, ended_order, registry):
    """A dataset or template of another Provena is refused by name before anything is sent."""
    foreign = Dataset(urn="102.100.100/1", platform="https://auth.example.org/auth/realms/other")

    def body():
        register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: foreign},
            outputs={registry.template: foreign},
        )

    with pytest.raises(ForeignHandleError, match=r"102\.100\.100/1 belongs to https://auth\.example\.org"):
        in_flow(body)
    assert effects.count(REGISTER) == 0
