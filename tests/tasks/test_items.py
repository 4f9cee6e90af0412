"""Items, datasets, runs and lineage of Provena in flows. Each change is made once, whatever happens."""

from __future__ import annotations

import os
import uuid
import zipfile

import pytest
from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.durable import plan
from ivcap_flows.errors import (
    BadRequestError,
    ForeignHandleError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    RegistrationFailedError,
)
from ivcap_flows.handles import Dataset, ModelRun, RegistryItem
from ivcap_flows.provena import models
from ivcap_flows.provena.models import Model, Organisation, Study
from ivcap_flows.provena.terms import collection_format
from ivcap_flows.registration.registry import KEY_FIELD, SOFTWARE_FIELD, SUBJECT_FIELD
from ivcap_flows.tasks import (
    explore_lineage,
    fetch_item,
    lineage_report,
    link_model_run_to_study,
    list_items,
    lock_item,
    mint_dataset,
    register_dataset,
    register_item,
    register_model_run,
    search_registry,
    unlock_item,
    update_dataset,
    update_item,
    update_model_run,
    version_item,
)


@pytest.fixture
def provena(embedded_platform):
    """Return `provena(ask)`, which returns the result of the coroutine `ask(client)` with a client of its own."""

    def run(ask, credentials=None):
        async def asked():
            async with (credentials or ProvenaCredentials.from_environment()).get_client() as client:
                return await ask(client)

        return loop.run(asked())

    return run


@pytest.fixture
def metadata(registry, artifact):
    """The metadata of a dataset that no other test has."""
    return collection_format(artifact, registry.terms)


@pytest.fixture
def lodged(ended_order, artifact, registry):
    """Return a registered model run of an artifact's dataset. Call it within a flow."""

    def make() -> ModelRun:
        data = {registry.template: artifact}
        return register_model_run(
            ended_order, workflow_template=registry.workflow, inputs=data, outputs=data, terms=registry.terms
        )

    return make


def an_organisation(name: str) -> Organisation:
    return Organisation(display_name=name, name=name)


def a_model(name: str) -> Model:
    page = "https://example.org"
    return Model(display_name=name, name=name, description="d", documentation_url=page, source_url=page)


def writes(effects, ending):
    """Return the requests that took effect, to a path with this ending."""
    found = [r for r in effects.embedded.requests() if r["path"].endswith(ending)]
    return len([r for r in found if r["status"] is not None and r["status"] < 300])


def test_an_item_is_read_listed_and_found(in_flow, unique):
    """An item is found by its handle, by its id, in the list of its subtype and by a search."""

    def body():
        made = register_item(an_organisation(unique))
        return (
            made,
            [fetch_item(each) for each in (made, made.urn)],
            list_items("ORGANISATION", limit=1),
            search_registry(unique, subtype=Organisation),
        )

    made, read, listed, searched = in_flow(body)
    assert [item.id for item in read] == [made.urn] * 2
    assert read[0].info.name == unique
    assert listed == searched == [made]
    with pytest.raises(NotFoundError):
        in_flow(lambda: fetch_item("102.100.100/0"))
    with pytest.raises(ForeignHandleError):
        in_flow(lambda: fetch_item(RegistryItem(urn="1", platform="elsewhere", subtype="MODEL")))


def test_an_update_is_sent_once(in_flow, effects, unique):
    """An equal update is not sent again. The key that identifies the item stays in its user metadata."""

    def body():
        made = register_item(an_organisation(unique))
        changed = an_organisation(f"{unique} changed")
        handles = [update_item(made, changed, reason="a better name") for _ in range(2)]
        return made, handles, fetch_item(made), register_item(an_organisation(unique))

    made, handles, item, again = in_flow(body)
    assert writes(effects, "/organisation/update") == 1
    assert {handle.display_name for handle in handles} == {f"{unique} changed"}
    assert item.history[0].reason == "a better name"
    assert KEY_FIELD in item.info.user_metadata
    assert again.urn == made.urn


def test_an_update_whose_reply_is_lost_is_read_and_not_repeated(in_flow, effects, unique):
    """After a lost reply, the item's content decides whether the update is sent again."""
    name = f"{unique} changed"

    def body():
        made = register_item(an_organisation(unique))
        update_item(made, an_organisation(name), reason="r")
        return fetch_item(made)

    path = "/organisation/update$"
    effects.embedded.add_fault(method="PUT", path=path, count=1, drop_reply_after_effect=True)
    assert in_flow(body).info.name == name
    assert len(effects.embedded.requests("PUT")) == 1

    effects.embedded.forget_requests()
    effects.embedded.add_fault(method="PUT", path=path, count=1, status=503)
    unique, name = uuid.uuid4().hex, uuid.uuid4().hex
    assert in_flow(body).history[0].item["name"] == name
    assert [r["status"] for r in effects.embedded.requests("PUT")] == [503, 200]


def test_fields_that_nobody_knows_are_no_update(in_flow, effects, unique):
    """A misspelt field is refused before anything is sent."""
    with pytest.raises(InputError, match="naem"):
        in_flow(
            lambda: update_item(
                register_item(an_organisation(unique)),
                Organisation(display_name="o", name="o", naem="o"),
                reason="r",
            )
        )
    assert writes(effects, "/organisation/update") == 0


def test_a_lock_is_put_on_once_and_taken_off(in_flow, effects, unique):
    """Locking twice changes nothing more. A locked item refuses an update, and a lost reply is resolved by reading."""
    effects.embedded.add_fault(method="PUT", path="/locks/lock$", count=1, drop_reply_after_effect=True)

    def body():
        made = register_item(an_organisation(unique))
        handles = [lock_item(each, reason="done") for each in (made, made.urn)]
        with pytest.raises(NotAuthorizedError) as caught:
            update_item(made, an_organisation("x"), reason="r")
        for each in (made.urn, made):
            unlock_item(each, reason="again")
        update_item(made, an_organisation("x"), reason="r")
        return made, handles, caught.value

    made, handles, error = in_flow(body)
    assert handles == [made, made]
    assert error.about == "item"
    assert len(effects.embedded.requests("PUT")) == 2 + 1 + 1
    assert writes(effects, "/locks/unlock") == 1


def test_a_version_is_made_once(in_flow, effects, registry, metadata, unique):
    """A version of an item or a dataset is made once, also for another flow and after a lost reply."""
    effects.embedded.add_fault(method="POST", path="/version$", count=1, drop_reply_after_effect=True)

    def body():
        model, dataset = register_item(a_model(unique)), register_dataset(metadata)
        return [
            (each, version_item(each, reason="better"), version_item(each.urn, reason="x")) for each in (model, dataset)
        ]

    made = in_flow(body)
    assert in_flow(body, name="another") == made
    for first, second, again in made:
        assert second == again
        assert (second.urn != first.urn, type(second)) == (True, type(first))
    assert writes(effects, "/version") <= 2
    assert [intent.how for intent in effects.intents("item version")] == ["adopted", "sent"]


@pytest.mark.parametrize(
    "in_doubt", [pytest.param(False, id="told"), pytest.param(True, id="in doubt", marks=pytest.mark.long)]
)
def test_somebody_elses_version_is_none_of_ours(in_flow, effects, provena, user_of, unique, in_doubt):
    """A next version that another user made is named in an error, and never taken for ours, even after a lost reply."""
    made = in_flow(lambda: register_item(a_model(unique)))

    async def open_to_all(client):
        settings = await client.registry.access.configuration(Model, made.urn)
        await client.registry.access.modify(Model, made.urn, settings.model_copy(update={"general": ["admin"]}))

    async def version(client):
        return await client.registry.version(Model, made.urn, reason="theirs")

    provena(open_to_all)
    theirs = provena(version, user_of("2"))
    if in_doubt:
        effects.embedded.add_fault(method="POST", path="/version$", count=1, status=503)
    with pytest.raises(BadRequestError, match=theirs.id):
        in_flow(lambda: version_item(made, reason="ours"))


def test_a_dataset_is_minted_once_by_its_metadata(in_flow, effects, metadata):
    """Equal metadata are one dataset, also after a lost reply. A change is sent once, and the key stays."""
    effects.embedded.add_fault(method="POST", path="/register/mint-dataset$", count=1, drop_reply_after_effect=True)
    better = metadata.model_copy(deep=True)
    better.dataset_info.purpose = "to test"

    def body():
        made = [register_dataset(metadata) for _ in range(2)]
        changed = [update_dataset(made[0], better, reason="why") for _ in range(2)]
        return made, changed, fetch_item(made[0])

    made, changed, item = in_flow(body)
    assert made[0] == made[1]
    assert len({handle.urn for handle in (*made, *changed)}) == 1
    assert isinstance(made[0], Dataset)
    stated = item.info.collection_format.dataset_info
    assert (stated.purpose, KEY_FIELD in stated.user_metadata) == ("to test", True)
    assert (len(item.history), item.history[0].reason) == (2, "why")
    with pytest.raises(NotFoundError):
        in_flow(lambda: update_dataset("102.100.100/0", metadata, reason="r"))


def test_a_run_joins_a_study_once(in_flow, effects, lodged, unique):
    """The run's own record shows that it is linked. A second study is refused with the name of the first."""
    effects.embedded.add_fault(method="POST", path="/link_to_study$", count=1, drop_reply_after_effect=True)

    def body():
        study, other = (register_item(Study(display_name=name, title=name, description="d")) for name in (unique, "o"))
        run = lodged()
        linked = [link_model_run_to_study(each, study) for each in (run, run.urn)]
        with pytest.raises(InputError, match=study.urn):
            link_model_run_to_study(run, other)
        return run, study, linked, fetch_item(run)

    run, study, linked, item = in_flow(body)
    assert [each.urn for each in linked] == [run.urn] * 2
    assert linked[0] == run.model_copy(
        update={"record_sha256": None, "study": study.urn, "annotations": linked[0].annotations}
    )
    assert item.info.record.study_id == study.urn
    assert len([r for r in effects.embedded.requests("POST") if r["path"].endswith("/link_to_study")]) == 1


@pytest.mark.parametrize(
    "lost", [pytest.param(False, id="heard", marks=pytest.mark.long), pytest.param(True, id="lost reply")]
)
def test_a_record_is_replaced_once(in_flow, effects, lodged, lost):
    """An equal record is not sent again. A job whose reply was lost is found in the list."""
    if lost:
        effects.embedded.add_fault(method="POST", path="/model_run/update$", count=1, drop_reply_after_effect=True)

    def body():
        run = lodged()
        record = fetch_item(run).info.record.model_copy(update={"description": "better", "annotations": {"a": "b"}})
        changed = [update_model_run(run, record, reason="typo") for _ in range(2)]
        return run, changed, fetch_item(run)

    run, changed, item = in_flow(body)
    said = {"record_sha256": None, "description": "better", "annotations": changed[0].annotations}
    assert changed == [run.model_copy(update=said)] * 2 and changed[0].annotations["a"] == "b"
    assert item.info.record.description == "better"
    assert item.info.record.annotations == {"a": "b", KEY_FIELD: run.key, SUBJECT_FIELD: run.subject}
    assert [entry.reason for entry in item.history].count("typo") == 1


@pytest.mark.long
def test_a_replaced_record_keeps_what_this_package_wrote(in_flow, lodged):
    """A replacement may change everything but the key, by which the run is found again."""

    def body():
        run = lodged()
        record = fetch_item(run).info.record
        annotations = {KEY_FIELD: "k1:another", SUBJECT_FIELD: "urn:other", SOFTWARE_FIELD: "mine 1.0"}
        update_model_run(run, record.model_copy(update={"annotations": annotations}), reason="first")
        update_model_run(run, record.model_copy(update={"annotations": None}), reason="second")
        return run, fetch_item(run).info.record.annotations

    run, annotations = in_flow(body)
    assert annotations == {KEY_FIELD: run.key, SUBJECT_FIELD: "urn:other", SOFTWARE_FIELD: "mine 1.0"}


@pytest.mark.long
def test_a_locked_run_is_not_replaced(in_flow, effects, lodged):
    """The lock is read first, since Provena's job would fail without a reason.

    The error says who holds it, why, and what to do.
    """

    def body():
        run = lodged()
        record = fetch_item(run).info.record
        lock_item(run, reason="first")
        unlock_item(run, reason="again")
        lock_item(run, reason="published")
        update_model_run(run, record, reason="equal, so that nothing is sent")
        with pytest.raises(NotAuthorizedError) as refused:
            update_model_run(run, record.model_copy(update={"description": "other"}), reason="r")
        unlock_item(run, reason="typo")
        return run, refused.value, update_model_run(run, record.model_copy(update={"description": "new"}), reason="r")

    run, error, changed = in_flow(body)
    assert error.about == "item" and error.locked_by == "embedded-user"
    assert f"The item {run.urn} is locked by embedded-user since" in error.message
    assert '"published"' in error.message and "unlock_item" in error.message
    assert changed.urn == run.urn
    assert len([r for r in effects.embedded.requests("POST") if r["path"].endswith("/model_run/update")]) == 1


@pytest.mark.long
def test_lineage_is_followed_and_reported(in_flow, tmp_path, lodged, registry, artifact):
    """Lineage leads from the dataset down to the run, from the run up to its agents, and into a report."""

    def body():
        run, dataset = lodged(), mint_dataset(artifact)
        return (
            run,
            dataset,
            explore_lineage(dataset, "downstream", depth=1),
            explore_lineage(run.urn, ends="agents"),
            explore_lineage(dataset, "upstream", ends="datasets"),
            lineage_report(run, tmp_path / "report.docx"),
        )

    run, dataset, down, agents, datasets, file = in_flow(body)
    assert (run.urn, "used", dataset.urn) in {(link.source, link.type, link.target) for link in down.links}
    assert (run.urn, "wasAssociatedWith") in {(link.source, link.type) for link in agents.links}
    assert {node.item_subtype for node in datasets.nodes} <= {"DATASET", "MODEL_RUN"}
    assert file.path == str(tmp_path / "report.docx")
    assert zipfile.is_zipfile(file.path)
    with pytest.raises(NotFoundError):
        in_flow(lambda: explore_lineage("102.100.100/0"))
    with pytest.raises(RegistrationFailedError):
        in_flow(lambda: lineage_report(registry.workflow, tmp_path / "no.docx"))
    assert not (tmp_path / "no.docx").exists()


def test_a_plan_changes_nothing(in_flow, effects, artifact, metadata, unique):
    """A plan notes the changes and what they are about. It sends only reads."""
    run = ModelRun(urn="102.100.100/2", platform=artifact.platform, workflow_template="w")
    record = models.ModelRunRecord(
        workflow_template_id="w",
        display_name="r",
        description="d",
        associations=models.Associations(modeller_id="p"),
        start_time=1,
        end_time=2,
    )

    def body():
        item = register_item(a_model(unique))
        update_item(item, a_model("x"), reason="r")
        lock_item(item, reason="r")
        unlock_item("102.100.100/1", reason="r")
        version_item(item, reason="r")
        update_dataset(register_dataset(metadata), metadata, reason="r")
        link_model_run_to_study(run, "102.100.100/4")
        return update_model_run(run.urn, record, reason="r")

    with plan() as planned:
        in_flow(body)
    assert [effect.noun for effect in planned.effects] == [
        "registry item",
        "registry item update",
        "registry item lock",
        "registry item unlock",
        "item version",
        "dataset",
        "dataset update",
        "link to a study",
        "model run update",
    ]
    assert {effect.source for effect in planned.effects} == {"new"}
    assert [r for r in effects.embedded.requests("POST") if not r["path"].endswith(("/list", "/token"))] == []
    assert effects.embedded.requests("PUT") == []


def test_a_user_without_rights_is_refused(in_flow, user_of, unique):
    """Only an admin of an item locks it."""
    made = in_flow(lambda: register_item(an_organisation(unique)))
    with pytest.raises(NotAuthorizedError):
        in_flow(lambda: lock_item(made, reason="r", credentials=user_of("2")))


@pytest.fixture
def user_of(embedded_platform):
    """Credentials of another user of the embedded Provena, by the suffix of the token's name."""

    def credentials(suffix: str) -> ProvenaCredentials:
        token = SecretStr(os.environ[f"PROVENA_OFFLINE_TOKEN_{suffix}"])
        return ProvenaCredentials.from_environment().model_copy(update={"offline_token": token})

    return credentials
