"""Items, datasets, model runs and lineage of Provena as tasks. Each change is made once, complete or not at all, by
users who may make it."""

from __future__ import annotations

import os
import sqlite3
import zipfile
from contextlib import closing

import pytest
from pydantic import SecretStr

from ivcap_flows import loop, tasks
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.durable import plan
from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    ForeignHandleError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    PlatformError,
    ProtocolError,
    RegistrationFailedError,
    WaitTimeoutError,
)
from ivcap_flows.handles import Dataset, ModelRun
from ivcap_flows.provena import models
from ivcap_flows.provena.models import DatasetTemplate, Model, Organisation, Study
from ivcap_flows.provena.terms import collection_format
from ivcap_flows.registration import graph_check, model_runs
from ivcap_flows.registration.registry import KEY_FIELD, SOFTWARE_FIELD, SUBJECT_FIELD

# The bodies of the tasks: a flow run around each would take most of the time, and change nothing.
explore_lineage = tasks.explore_lineage.fn
read_item = tasks.provena.read_item.fn
lineage_report = tasks.lineage_report.fn
link_model_run_to_study = tasks.link_model_run_to_study.fn
linked_person = tasks.provena.linked_person.fn
list_items = tasks.provena.list_items.fn
lock_item = tasks.provena.lock_item.fn
mint_dataset = tasks.mint_dataset.fn
register_dataset = tasks.register_dataset.fn
register_item = tasks.register_item.fn
register_model_run = tasks.register_model_run.fn
search_registry = tasks.provena.search_registry.fn
unlock_item = tasks.provena.unlock_item.fn
update_dataset = tasks.update_dataset.fn
update_item = tasks.provena.update_item.fn
update_model_run = tasks.update_model_run.fn
version_item = tasks.provena.version_item.fn

REGISTER = "/provena/prov/model_run/register"
MINT = "/register/mint-dataset"


@pytest.fixture
def user(embedded_platform):
    """Credentials of another user of the embedded Provena, by the suffix of the token's name."""

    def credentials(suffix):
        token = SecretStr(os.environ[f"PROVENA_OFFLINE_TOKEN_{suffix}"])
        return ProvenaCredentials.from_environment().model_copy(update={"offline_token": token})

    return credentials


@pytest.fixture
def metadata(registry, artifact):
    """The metadata of a dataset that no other test has."""
    return collection_format(artifact, registry.terms)


@pytest.fixture
def register(effects, ended_order, artifact, registry):
    """Return `register(**options)`, which registers a model run of the test's order and artifact."""

    def make(**options) -> ModelRun:
        data = {registry.template: artifact}
        given = {"inputs": data, "outputs": data, "terms": registry.terms, "workflow_template": registry.workflow}
        return register_model_run(options.pop("order", ended_order), **(given | options))

    return make


def an_organisation(name: str) -> Organisation:
    return Organisation(display_name=name, name=name)


def a_model(name: str) -> Model:
    page = "https://example.org"
    return Model(display_name=name, name=name, description="d", documentation_url=page, source_url=page)


def requests(effects, ending, method="POST"):
    """The statuses of the requests to a path with this ending."""
    return [r["status"] for r in effects.embedded.requests(method) if r["path"].endswith(ending)]


def accepted(effects, ending, method="POST"):
    """Return how many of them took effect."""
    return len([status for status in requests(effects, ending, method) if status is not None and status < 300])


def test_an_item_is_read_listed_and_found(effects, unique):
    """An item is found by its handle, by its id, in the list of its subtype and by a search. An equal statement is the
    existing item."""
    made = register_item(an_organisation(unique))
    read = [read_item(each) for each in (made, made.urn)]
    assert [item.id for item in read] == [made.urn] * 2
    assert read[0].info.name == unique
    assert list_items("ORGANISATION", limit=1) == search_registry(unique, subtype=Organisation) == [made]
    templates = [register_item(DatasetTemplate(display_name=unique)) for _ in range(2)]
    assert templates[0] == templates[1] and register_item(an_organisation(unique)) == made
    assert accepted(effects, "/create") == 2
    with pytest.raises(NotFoundError):
        read_item("102.100.100/0")


def test_an_update_is_sent_once(effects, unique):
    """An equal update is not sent again. After a lost reply, the item's content decides. The key that identifies the
    item stays in its user metadata. A misspelt field is refused before anything is sent."""
    made = register_item(an_organisation(unique))
    path = "/organisation/update$"
    effects.embedded.add_fault(method="PUT", path=path, count=1, drop_reply_after_effect=True)
    changed = [update_item(made, an_organisation(f"{unique} changed"), reason="a better name") for _ in range(2)]
    assert len(requests(effects, "/organisation/update", "PUT")) == 1
    assert {handle.display_name for handle in changed} == {f"{unique} changed"}
    item = read_item(made)
    assert item.history[0].reason == "a better name" and KEY_FIELD in item.info.user_metadata
    assert register_item(an_organisation(unique)).urn == made.urn

    effects.embedded.add_fault(method="PUT", path=path, count=1, status=503)
    update_item(made, an_organisation(f"{unique} again"), reason="r")
    assert read_item(made).history[0].item["name"] == f"{unique} again"
    assert requests(effects, "/organisation/update", "PUT")[1:] == [503, 200]
    with pytest.raises(InputError, match="naem"):
        update_item(made, Organisation(display_name="o", name="o", naem="o"), reason="r")
    assert len(requests(effects, "/organisation/update", "PUT")) == 3


def test_an_item_of_another_subtype_is_named_as_what_it_is(effects, metadata, registry, unique):
    """Of an id that Provena has, no error says that nothing was found."""
    made = register_item(an_organisation(unique))

    async def seed():
        async with ProvenaCredentials.from_environment().get_client() as client:
            path = "/registry/agent/organisation/seed"
            return (await client.registry.call("POST", path, repeat="unsafe"))["seeded_item"]["id"]

    for change, words in (
        (lambda: update_item(made, a_model("m"), reason="r"), f"{made.urn} is ORGANISATION, but MODEL is needed"),
        (lambda: update_dataset(made.urn, metadata, reason="r"), "is ORGANISATION, but DATASET is needed"),
        (lambda: link_model_run_to_study(registry.template, made), "is DATASET_TEMPLATE, but MODEL_RUN is needed"),
        (lambda: update_item(loop.run(seed()), an_organisation("o"), reason="r"), "is a seed of ORGANISATION, without"),
    ):
        with pytest.raises(NotFoundError, match=words):
            change()
    assert effects.embedded.requests("PUT") == [] and accepted(effects, "/link_to_study") == 0


def test_a_lock_is_put_on_once_and_taken_off(effects, unique, user):
    """Locking twice changes nothing more, and only an admin of the item locks it. A locked item refuses an update, and
    a lost reply is resolved by reading."""
    made = register_item(an_organisation(unique))
    with pytest.raises(NotAuthorizedError):
        lock_item(made, reason="r", credentials=user("2"))
    effects.embedded.forget_requests()
    effects.embedded.add_fault(method="PUT", path="/locks/lock$", count=1, drop_reply_after_effect=True)
    assert [lock_item(each, reason="done") for each in (made, made.urn)] == [made, made]
    with pytest.raises(NotAuthorizedError) as caught:
        update_item(made, an_organisation("x"), reason="r")
    assert caught.value.about == "item"
    for each in (made.urn, made):
        unlock_item(each, reason="again")
    update_item(made, an_organisation("x"), reason="r")
    assert len(effects.embedded.requests("PUT")) == 2 + 1 + 1
    assert accepted(effects, "/locks/unlock", "PUT") == 1


def test_a_version_is_made_once(effects, metadata, unique):
    """A version of an item or a dataset is made once, also after a lost reply."""
    effects.embedded.add_fault(method="POST", path="/version$", count=1, drop_reply_after_effect=True)
    for each in (register_item(a_model(unique)), register_dataset(metadata)):
        version = version_item(each, reason="better")
        assert version == version_item(each.urn, reason="x")
        assert version.urn != each.urn and type(version) is type(each)
    assert accepted(effects, "/version") <= 2
    assert [intent.how for intent in effects.intents("item version")] == ["adopted", "sent"]


@pytest.mark.catches("an accepted request is forgotten")
def test_a_version_that_cannot_be_read_yet_is_not_lost(effects, unique):
    """It was made, so the call finds it; it was not refused."""
    made = register_item(a_model(unique))
    effects.embedded.add_fault(method="GET", path="/fetch$", count=1, status=403)
    assert version_item(made, reason="better").urn != made.urn
    assert accepted(effects, "/version") == 1 and effects.intents("item version")[0].state == "done"


@pytest.mark.parametrize(
    "in_doubt", [pytest.param(False, id="told"), pytest.param(True, id="in doubt", marks=pytest.mark.long)]
)
def test_somebody_elses_version_is_none_of_ours(effects, user, unique, in_doubt):
    """A next version that another user made is named in an error, and never taken for ours, even after a lost reply."""
    made = register_item(a_model(unique))

    async def theirs():
        async with ProvenaCredentials.from_environment().get_client() as client:
            path, asked = "/registry/entity/model/auth/configuration", {"id": made.urn}
            access = await client.registry.call("GET", path, repeat="idempotent", params=asked)
            access["general"] = ["admin"]
            await client.registry.call("PUT", path, repeat="idempotent", params=asked, json=access)
        async with user("2").get_client() as client:
            return await client.registry.version(Model, made.urn, reason="theirs")

    version = loop.run(theirs())
    if in_doubt:
        effects.embedded.add_fault(method="POST", path="/version$", count=1, status=503)
    with pytest.raises(BadRequestError, match=version.id):
        version_item(made, reason="ours")


def test_a_dataset_is_minted_once_by_its_metadata(effects, metadata):
    """Equal metadata are one dataset, also after a lost reply. A change is sent once, and the key stays."""
    effects.embedded.add_fault(method="POST", path=f"{MINT}$", count=1, drop_reply_after_effect=True)
    better = metadata.model_copy(deep=True)
    better.dataset_info.purpose = "to test"
    made = [register_dataset(metadata) for _ in range(2)]
    changed = [update_dataset(made[0], better, reason="why") for _ in range(2)]
    assert made[0] == made[1] and isinstance(made[0], Dataset)
    assert len({handle.urn for handle in (*made, *changed)}) == 1
    item = read_item(made[0])
    stated = item.info.collection_format.dataset_info
    assert (stated.purpose, KEY_FIELD in stated.user_metadata) == ("to test", True)
    assert (len(item.history), item.history[0].reason) == (2, "why")
    with pytest.raises(NotFoundError):
        update_dataset("102.100.100/0", metadata, reason="r")


def test_an_order_is_registered_once(in_script, effects, register, ended_order):
    """Repeated in a run and from another run, an order gives one model run per workflow template, and one dataset."""
    runs = [*in_script(lambda: [register() for _ in range(2)]), in_script(register)]
    assert len({run.urn for run in runs}) == effects.count(REGISTER) == accepted(effects, MINT) == 1
    assert runs[0].subject == ended_order.urn
    assert runs[0].inputs == runs[0].outputs


def test_what_cannot_be_registered(effects, register, ended_order, artifact, registry, user):
    """Work that has not succeeded, a dataset of another Provena, terms that nobody has stated, and a user who is linked
    to no person are refused with the next step before anything is sent. What was missing can be stated later."""
    for status, finished in (("failed", ended_order.finished_at), ("executing", None)):
        order = ended_order.model_copy(update={"status": status, "finished_at": finished})
        with pytest.raises(InputError, match=f"is {status}, and only work that succeeded.*wait_for_orders"):
            register(order=order)
    foreign = {registry.template: Dataset(urn="102.100.100/1", platform="https://auth.example.org/auth/realms/other")}
    with pytest.raises(ForeignHandleError, match=r"102\.100\.100/1 belongs to https://auth\.example\.org"):
        register(inputs=foreign, outputs=foreign)
    for terms, missing in (
        (None, ["organisation_id", "publisher_id", "license", "approvals"]),
        (registry.terms.model_copy(update={"license": None}), ["license"]),
    ):
        with pytest.raises(InputError, match="its terms lack") as caught:
            register(terms=terms)
        assert caught.value.missing == missing
        assert all(name in str(caught.value) for name in missing)
    nobody = {"credentials": user("UNLINKED")}
    for need in (
        lambda: register(**nobody),
        lambda: linked_person(**nobody),
        lambda: mint_dataset(artifact, terms=registry.terms, **nobody),
    ):
        with pytest.raises(InputError, match="not linked to a Person.*link it in Provena's"):
            need()
    assert accepted(effects, MINT) == effects.count(REGISTER) == 0
    assert mint_dataset(artifact, terms=registry.terms).access_uri == artifact.urn


def test_a_user_who_may_only_read(effects, unique, user):
    """A user with read roles only is refused, also with a fresh token, and nothing is retried."""
    with pytest.raises(PlatformError) as caught:
        register_item(an_organisation(unique), credentials=user("READER"))
    assert not caught.value.retryable
    assert requests(effects, "/organisation/create") in ([401], [401, 401], [403])


def test_a_dataset_of_another_user_is_not_minted_again(effects, artifact, registry, user):
    """A second user finds the dataset of the first."""
    first = mint_dataset(artifact, terms=registry.terms)
    second = mint_dataset(artifact, terms=registry.terms, credentials=user("2"))
    assert (first.urn, accepted(effects, MINT)) == (second.urn, 1)


def test_a_refused_or_failed_registration_can_be_corrected(effects, register, embedded_directory):
    """A record that Provena would refuse leaves nothing behind. If its job fails, the reason is raised. The next call
    registers again."""
    with pytest.raises(InputError, match="No dataset for the template"):
        register(outputs={})
    assert effects.count(REGISTER) == accepted(effects, MINT) == 0
    place = embedded_directory.root / "provena.sqlite"
    with closing(sqlite3.connect(place, timeout=10, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER out_of_luck AFTER INSERT ON jobs WHEN NEW.job_sub_type = 'MODEL_RUN_PROV_LODGE' BEGIN "
            "UPDATE jobs SET status = 'FAILED', info = 'Out of luck.', due = NULL WHERE session_id = NEW.session_id; "
            "END"
        )
        try:
            with pytest.raises(RegistrationFailedError, match="failed: Out of luck"):
                register()
        finally:
            connection.execute("DROP TRIGGER out_of_luck")
    register()
    assert effects.count(REGISTER) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"expire_token": True}, NotAuthorizedError), ({"status": 403}, ForbiddenError), ({"status": 404}, ProtocolError)],
    ids=["token", "forbidden", "wrong URL"],
)
def test_a_registration_that_cannot_be_watched_is_not_sent_again(effects, register, ended_order, fault, error):
    """A refusal during the wait says nothing about the registration, so the next call continues to wait for it."""
    effects.embedded.add_fault(method="GET", path="/jobs/user/fetch$", **fault)
    with pytest.raises(error):
        register()
    effects.embedded.clear_faults()
    assert register().subject == ended_order.urn
    assert effects.count(REGISTER) == 1


def test_a_run_joins_a_study_once_and_its_lineage_is_followed(effects, tmp_path, register, registry, artifact, unique):
    """The run's own record shows the study, also after a lost reply. A second study is refused with the name of the
    first. Lineage leads from the dataset down to the run, from the run up to its agents, and into a report."""
    effects.embedded.add_fault(method="POST", path="/link_to_study$", count=1, drop_reply_after_effect=True)
    study, other = (register_item(Study(display_name=name, title=name, description="d")) for name in (unique, "o"))
    run = register()
    linked = [link_model_run_to_study(each, study) for each in (run, run.urn)]
    with pytest.raises(InputError, match=study.urn):
        link_model_run_to_study(run, other)
    assert [each.urn for each in linked] == [run.urn] * 2
    changed = {"record_sha256": None, "study": study.urn, "annotations": linked[0].annotations}
    assert linked[0] == run.model_copy(update=changed)
    assert read_item(run).info.record.study_id == study.urn
    assert len(requests(effects, "/link_to_study")) == 1

    dataset = mint_dataset(artifact)
    down = explore_lineage(dataset, "downstream", depth=1)
    assert (run.urn, "used", dataset.urn) in {(link.source, link.type, link.target) for link in down.links}
    agents = explore_lineage(run.urn, ends="agents")
    assert (run.urn, "wasAssociatedWith") in {(link.source, link.type) for link in agents.links}
    datasets = explore_lineage(dataset, "upstream", ends="datasets")
    assert {node.item_subtype for node in datasets.nodes} <= {"DATASET", "MODEL_RUN"}
    file = lineage_report(run, tmp_path / "report.docx")
    assert file.path == str(tmp_path / "report.docx") and zipfile.is_zipfile(file.path)
    with pytest.raises(NotFoundError):
        explore_lineage("102.100.100/0")
    with pytest.raises(RegistrationFailedError):
        lineage_report(registry.workflow, tmp_path / "no.docx")
    assert not (tmp_path / "no.docx").exists()


def test_a_record_is_replaced_once(effects, register):
    """An equal record is not sent again. A job whose reply was lost is found in the list. A replacement may change
    everything but the key, by which the run is found again."""
    run = register()
    record = read_item(run).info.record
    better = record.model_copy(update={"description": "better", "annotations": {"a": "b"}})
    effects.embedded.add_fault(method="POST", path="/model_run/update$", count=1, drop_reply_after_effect=True)
    changed = [update_model_run(run, better, reason="typo") for _ in range(2)]
    said = {"record_sha256": None, "description": "better", "annotations": changed[0].annotations}
    assert changed == [run.model_copy(update=said)] * 2 and changed[0].annotations["a"] == "b"
    item = read_item(run)
    assert item.info.record.description == "better"
    assert item.info.record.annotations == {"a": "b", KEY_FIELD: run.key, SUBJECT_FIELD: run.subject}
    assert [entry.reason for entry in item.history].count("typo") == 1

    annotations = {KEY_FIELD: "k1:another", SUBJECT_FIELD: "urn:other", SOFTWARE_FIELD: "mine 1.0"}
    update_model_run(run, record.model_copy(update={"annotations": annotations}), reason="first")
    update_model_run(run, record.model_copy(update={"annotations": None}), reason="second")
    assert read_item(run).info.record.annotations == annotations | {KEY_FIELD: run.key}


@pytest.mark.catches("the registry decides alone")
@pytest.mark.parametrize("whose", ["own", "a colleague's"])
def test_a_change_whose_job_failed_is_made_in_the_graph_by_the_next_call(
    effects, register, embedded_directory, unique, whose
):
    """Provena changes the registry before the job that changes the graph. The caller's newest job says whether that
    failed, else the graph does. Then an equal update is sent, once."""
    study = register_item(Study(display_name=unique, title=unique, description="d"))
    run = register()
    effects.embedded.add_fault(path="MODEL_RUN_LODGE_ONLY", count=1, end_job="failed")
    with pytest.raises(RegistrationFailedError):
        link_model_run_to_study(run, study)
    if whose != "own":
        place = embedded_directory.root / "provena.sqlite"
        with closing(sqlite3.connect(place, timeout=10, isolation_level=None)) as connection:
            connection.execute("UPDATE jobs SET username = 'embedded-user-2' WHERE job_sub_type LIKE '%LODGE_ONLY'")
    assert read_item(run).info.record.study_id == study.urn
    assert study.urn not in {node.id for node in explore_lineage(run.urn, depth=1).nodes}
    for _ in range(2):
        link_model_run_to_study(run, study)
        assert study.urn in {node.id for node in explore_lineage(run.urn, depth=1).nodes}
    assert (accepted(effects, "/link_to_study"), accepted(effects, "/model_run/update")) == (1, 1)

    better = read_item(run).info.record.model_copy(update={"description": "better"})
    effects.embedded.add_fault(path="MODEL_RUN_UPDATE", count=1, end_job="failed")
    with pytest.raises(RegistrationFailedError):
        update_model_run(run, better, reason="typo")
    assert [update_model_run(run, better, reason="typo").urn for _ in range(2)] == [run.urn] * 2
    assert accepted(effects, "/model_run/update") == 3


def test_a_change_that_was_killed_while_it_waited_is_continued(effects, register, unique):
    """The next call waits for the same job; if a link's failed, it sends an equal update."""
    study = register_item(Study(display_name=unique, title=unique, description="d"))
    run = register()
    effects.embedded.add_fault(path="MODEL_RUN_LODGE_ONLY", count=1, end_job="failed")
    with pytest.raises(WaitTimeoutError):
        link_model_run_to_study(run, study, timeout=0.0)
    link_model_run_to_study(run, study)
    assert study.urn in {node.id for node in explore_lineage(run.urn, depth=1).nodes}
    better = read_item(run).info.record.model_copy(update={"description": "better"})
    effects.embedded.add_fault(path="MODEL_RUN_UPDATE", count=1, kill_worker="before")
    for seconds in (1.0, 0.1):
        with pytest.raises(WaitTimeoutError):
            update_model_run(run, better, reason="r", timeout=seconds)
    assert (accepted(effects, "/link_to_study"), accepted(effects, "/model_run/update")) == (1, 2)


@pytest.mark.catches("only the row of a job ends its wait")
def test_a_job_that_is_pending_again_ends_when_its_run_is_there(effects, register, unique, monkeypatch):
    """A late write puts the row back to PENDING for ever. After a while without progress, the run is asked: its own
    record, and after a change the graph."""
    monkeypatch.setattr(graph_check, "_QUIET", 0.5)
    monkeypatch.setattr(model_runs, "STALL_TIMEOUT", 5.0)
    study = register_item(Study(display_name=unique, title=unique, description="d"))
    effects.embedded.add_fault(path="MODEL_RUN_(PROV_LODGE|LODGE_ONLY|UPDATE)$", count=3, end_job="pending")
    run = register()
    assert read_item(run).info.record_status == "LODGED"
    link_model_run_to_study(run, study, timeout=10.0)
    record = read_item(run).info.record.model_copy(update={"description": "better"})
    update_model_run(run, record, reason="typo", timeout=10.0)
    assert read_item(run).info.record.description == "better"
    assert [effects.count(REGISTER), accepted(effects, "/link_to_study"), accepted(effects, "/update")] == [1, 1, 1]


def test_a_locked_run_is_not_replaced(effects, register):
    """The lock is read first, since Provena's job would fail without a reason.

    The error says who holds it, why, and what to do.
    """
    run = register()
    record = read_item(run).info.record
    lock_item(run, reason="first")
    unlock_item(run, reason="again")
    lock_item(run, reason="published")
    update_model_run(run, record, reason="equal, so that nothing is sent")
    with pytest.raises(NotAuthorizedError) as refused:
        update_model_run(run, record.model_copy(update={"description": "other"}), reason="r")
    assert refused.value.about == "item" and refused.value.locked_by == "embedded-user"
    assert f"The item {run.urn} is locked by embedded-user since" in refused.value.message
    assert '"published"' in refused.value.message and "unlock_item" in refused.value.message
    unlock_item(run, reason="typo")
    assert update_model_run(run, record.model_copy(update={"description": "new"}), reason="r").urn == run.urn
    assert len(requests(effects, "/model_run/update")) == 1


def test_a_plan_changes_nothing(effects, artifact, metadata, unique):
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
    with plan() as planned:
        item = register_item(a_model(unique))
        update_item(item, a_model("x"), reason="r")
        lock_item(item, reason="r")
        unlock_item("102.100.100/1", reason="r")
        version_item(item, reason="r")
        update_dataset(register_dataset(metadata), metadata, reason="r")
        link_model_run_to_study(run, "102.100.100/4")
        update_model_run(run.urn, record, reason="r")
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
