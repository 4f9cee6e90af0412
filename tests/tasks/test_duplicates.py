"""`doctor` names every kind of thing that was made twice, and the journal stores it.

Two journals of one account may make a thing twice, or a platform may show a request only after it was sent again.
"""

from __future__ import annotations

import json
import os
import threading

import pytest
from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.cli import main
from ivcap_flows.durable import plan
from ivcap_flows.durable.submission import Submission
from ivcap_flows.identity import short_id
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal import Journal, NewIntent
from ivcap_flows.provena.models import (
    Associations,
    DatasetTemplate,
    ModelRunRecord,
    Organisation,
    TemplatedDataset,
    WorkflowTemplate,
)
from ivcap_flows.provena.terms import collection_format
from ivcap_flows.registration import duplicates as provena_duplicates
from ivcap_flows.registration.registry import KEY_FIELD, SUBJECT_FIELD
from ivcap_flows.tasks import (
    attach_aspect,
    mint_dataset,
    place_order,
    register_dataset,
    register_item,
    register_model_run,
    request_job,
    retract_aspect,
    update_aspect,
    update_item,
    upload_artifact,
    version_item,
)
from ivcap_flows.work import duplicates

NOUNS = {
    "order": "order",
    "job": "job",
    "small upload": "upload",
    "large upload": "upload",
    "aspect": "aspect",
    "registry item": "registry item",
    "dataset": "dataset",
    "mint": "dataset",
    "model run": "model run",
}


@pytest.fixture
def other(tmp_path):
    """A journal that knows nothing of the test's own journal."""
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as journal:
        yield journal


@pytest.fixture
def make(in_flow, tmp_path, unique, artifact, ended_order, registry):
    """Return a function that makes a thing of some kind, equal for every journal."""
    another = artifact.model_copy(update={"urn": f"{artifact.urn}-0"})
    taken = in_flow(lambda: mint_dataset(another, terms=registry.terms))
    organisation = Organisation(display_name=unique, name=unique)
    metadata = collection_format(artifact, registry.terms)
    for name, size in (("small", 100), ("large", 3 << 20)):
        (tmp_path / name).write_bytes(unique.encode() * (size // len(unique)))

    def run():
        data = {registry.template: taken}
        return register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    def job_of_an_aspect():
        asked = attach_aspect(artifact.urn, {"message": unique}, schema="urn:x:schema:asked.1", once_per="account")
        return request_job("echo", request_aspect=asked, once_per="account")

    def update():
        return update_aspect(artifact.urn, {"said": unique}, schema="urn:x:schema:updated.1")

    kinds = {
        "order": lambda: place_order("echo", {"message": unique}, once_per="account"),
        "job": lambda: request_job("echo", {"message": unique}, once_per="account"),
        "job of an aspect": job_of_an_aspect,
        "aspect update": update,
        "small upload": lambda: upload_artifact(tmp_path / "small"),
        "large upload": lambda: upload_artifact(tmp_path / "large"),
        "aspect": lambda: attach_aspect(
            artifact.urn, {"said": unique}, schema="urn:x:schema:note.1", once_per="account"
        ),
        "registry item": lambda: register_item(organisation),
        "dataset": lambda: register_dataset(metadata),
        "mint": lambda: mint_dataset(artifact, terms=registry.terms),
        "model run": run,
    }
    return lambda kind: kinds[kind]()


@pytest.fixture
def doctor(capsys):
    """Return what `doctor` says of duplicates and of what it checked, and check its exit status.

    That is 0 if only the platforms' clock, which these tests set, is wrong.
    """

    def look():
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--json"])
        checks = json.loads(capsys.readouterr().out)
        notes = [note for check in checks for note in check["notes"]]
        return ended.value.code and int(not all(check["ok"] for check in checks if check["check"] != "clocks")), notes

    return look


def naming(notes, *urns):
    return [note for note in notes if all(urn in note for urn in urns)]


def late(embedded):
    """Show what is made from now on in lists only after a minute of the platforms' clock."""
    for method, path in (("POST", "^/1/"), ("PUT", "^/1/aspects$"), ("POST", "/(create|mint-dataset)$")):
        embedded.add_fault(method=method, path=path, late_in_lists=60)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "order" else pytest.mark.long) for kind in NOUNS if kind != "model run"],
)
def test_what_two_journals_made_at_once_is_named(in_flow, effects, make, other, doctor, kind):
    """Both URNs, the key, the journals and the next step are named. The journal that asked stores the other's URN."""
    late(effects.embedded)
    with use_journal(other):
        first = in_flow(lambda: make(kind))
    second = in_flow(lambda: make(kind))
    assert first.urn != second.urn
    effects.embedded.clear_faults()
    effects.embedded.advance_clock(120)
    [row] = [row for row in effects.intents(NOUNS[kind]) if row.urn == second.urn]
    assert row.duplicates == []
    status, notes = doctor()
    [said] = naming(notes, first.urn, second.urn)
    assert (
        said.startswith("made twice: " if kind != "aspect" else "may have been made twice: ")
        and short_id(row.key) in said
    )
    assert said.endswith(".") and status == 1
    if kind in ("order", "job", "small upload", "large upload"):
        assert f"{first.urn} (by journal {other.id})" in said
    assert f"{second.urn} (by this journal)" in said
    assert effects.journal.intents.get(row.key).duplicates == [first.urn]
    assert naming(doctor()[1], first.urn, "made twice: ", "is kept")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind == "registry item" else pytest.mark.long)
        for kind in NOUNS
        if kind not in ("aspect", "job", "large upload", "mint", "model run")
    ],
)
def test_what_a_deleted_journal_made_is_named(in_flow, effects, make, tmp_path, doctor, monkeypatch, kind):
    """A duplicate is named even if its journal was deleted before it wrote the outcome."""
    made = []

    async def dies(self, value, *arguments):
        made.append(value.urn)
        raise RuntimeError("out of luck")

    late(effects.embedded)
    with monkeypatch.context() as patch, Journal.open(f"sqlite:///{tmp_path / 'deleted.sqlite'}") as deleted:
        patch.setattr(Submission, "_accept", dies)
        with use_journal(deleted), pytest.raises(RuntimeError):
            in_flow(lambda: make(kind))
    second = in_flow(lambda: make(kind))
    effects.embedded.clear_faults()
    effects.embedded.advance_clock(120)
    assert naming(doctor()[1], made[0], second.urn, "made twice")


@pytest.fixture
def made(effects):
    """Return how many requests that make a thing of some kind took effect."""
    paths = {
        "order": "/1/orders",
        "small upload": "/1/artifacts",
        "large upload": "/1/artifacts",
        "registry item": "/provena/registry/registry/agent/organisation/create",
        "dataset": "/provena/data/register/mint-dataset",
        "mint": "/provena/data/register/mint-dataset",
        "model run": "/provena/prov/model_run/register",
    }
    return lambda kind: effects.count(paths[kind])


@pytest.mark.catches("no look before the first send")
@pytest.mark.parametrize("kind", ["model run", "registry item", "dataset"])
def test_a_new_journal_finds_what_has_its_key(in_flow, effects, make, made, other, kind):
    """It is found before anything is sent, in one list of each kind and without idempotency records."""
    with use_journal(other):
        first = in_flow(lambda: make(kind))
    effects.embedded.add_fault(path="^/1/aspects", status=403)
    effects.embedded.forget_requests()
    assert in_flow(lambda: make(kind)).urn == first.urn
    lists = {each["path"] for each in effects.embedded.requests("POST") if each["path"].endswith("/list")}
    assert made(kind) == 0 and len(lists) <= 2


@pytest.mark.long
@pytest.mark.parametrize("kind", ["order", "small upload", "large upload", "mint", "model run"])
def test_a_new_journal_finds_what_is_on_record(in_flow, make, made, other, kind):
    """It is found by its idempotency record, or by the address of its artifact, before anything is sent."""
    with use_journal(other):
        first = in_flow(lambda: make(kind))
    before = made(kind)
    assert in_flow(lambda: make(kind)).urn == first.urn
    assert made(kind) == before > 0


def key_of(work):
    """Return the idempotency key of what a function would make."""
    with plan():
        return work().urn.removeprefix("urn:ivcap-flows:planned:")


@pytest.fixture
def on_provena(effects):
    """Return `on_provena(ask)`, which returns the result of `ask(client)`; `user` is the suffix of a token's name."""

    def run(ask, user=""):
        token = SecretStr(os.environ[f"PROVENA_OFFLINE_TOKEN{user}"])

        async def asked():
            block = ProvenaCredentials.from_environment().model_copy(update={"offline_token": token})
            async with block.get_client() as client:
                return await ask(client)

        return loop.run(asked())

    return run


@pytest.fixture
def register_by_hand(on_provena, in_flow, artifact, registry):
    """Return a function that registers a model run with these annotations, and returns its handle."""
    dataset = in_flow(lambda: mint_dataset(artifact, terms=registry.terms)).urn

    def register(annotations, workflow=registry.workflow, user=""):
        async def ask(client):
            data = [TemplatedDataset(dataset_template_id=registry.template, dataset_id=dataset)]
            record = ModelRunRecord(
                workflow_template_id=workflow,
                inputs=data,
                outputs=data,
                annotations=annotations,
                display_name="by hand",
                description="by hand",
                associations=Associations(modeller_id=await client.auth_api.linked_person()),
                start_time=1_600_000_000,
                end_time=1_600_000_100,
            )
            return (await client.jobs.wait(await client.prov.register(record), 30)).lodged.id

        return on_provena(ask, user)

    return register


def test_a_new_journal_waits_for_what_another_may_have_sent(
    in_flow, effects, make, made, on_platform, register_by_hand
):
    """Another journal's record says that a model run was requested, which does not show yet: it is waited for."""
    key = in_flow(lambda: key_of(lambda: make("model run")))
    content = {"key": key, "journal": "another", "noun": "model run", "created-at": "2020-01-01T00:00:00+00:00"}

    async def tell(client):
        await IdempotencyRecords(client.aspects, await client.account()).write(key, content)

    on_platform(tell)
    threading.Timer(1.0, register_by_hand, [{KEY_FIELD: key}]).start()
    in_flow(lambda: make("model run"))
    assert made("model run") == 1


@pytest.mark.parametrize("kind", [pytest.param("order", marks=pytest.mark.long), "model run"])
def test_another_journal_hears_before_anything_is_sent(in_flow, effects, make, kind):
    """Of two journals at once, the second finds what the first is about to send, and waits."""
    path = "/1/orders" if kind == "order" else "/provena/prov/model_run/register"
    effects.embedded.forget_requests()
    in_flow(lambda: make(kind))
    sent = [(each["method"], each["path"]) for each in effects.embedded.requests()]
    written = min(n for n, (method, at) in enumerate(sent) if method in ("POST", "PUT") and at == "/1/aspects")
    assert written < sent.index(("POST", path))


def test_what_others_have_under_the_key_is_not_taken(in_flow, other, unique, on_provena):
    """A new version has the item's key, too, and anybody may copy it from the item's metadata."""
    template, organisation = DatasetTemplate(display_name=unique), Organisation(display_name=unique, name=unique)
    with use_journal(other):
        item = in_flow(lambda: register_item(template))
        in_flow(lambda: version_item(item, reason="better"))
    assert in_flow(lambda: register_item(template)).urn == item.urn
    key = in_flow(lambda: key_of(lambda: register_item(organisation)))
    copied = organisation.model_copy(update={"user_metadata": {KEY_FIELD: key}})
    theirs = on_provena(lambda client: client.registry.create(Organisation, copied), "_2").item.id
    assert in_flow(lambda: register_item(organisation)).urn != theirs


@pytest.mark.parametrize("twice", ["the run", "its template"])
def test_a_model_run_that_exists_twice_is_named(
    in_flow, effects, unique, doctor, registry, on_provena, register_by_hand, monkeypatch, twice
):
    """It has the key of the first, or its subject and a template that exists twice; newer runs of others do not hide
    it."""
    monkeypatch.setattr(provena_duplicates, "LOOKED_AT", 2)
    keyed = {KEY_FIELD: f"k1:{unique}", SUBJECT_FIELD: f"urn:ivcap:order:{unique}"}
    workflows = [registry.workflow, registry.workflow]
    if twice == "its template":

        async def copy(client):
            info = (await client.registry.fetch(WorkflowTemplate, registry.workflow)).info
            template = info.model_copy(update={"user_metadata": {KEY_FIELD: f"k1:template-{unique}"}})
            return (await client.registry.create(WorkflowTemplate, template)).item.id

        workflows = [on_provena(copy), on_provena(copy)]
    first = register_by_hand(keyed, workflows[0])
    second = register_by_hand(keyed if twice == "the run" else keyed | {KEY_FIELD: f"k1:other-{unique}"}, workflows[1])
    for _ in range(3):
        register_by_hand({}, user="_2")
    status, notes = doctor()
    [said] = naming(notes, first, second)
    assert said.startswith("made twice: model run") and status == 1


LATE = {
    "order": ("order", "^/1/orders$"),
    "job": ("job", "/jobs$"),
    "job of an aspect": ("job", "/jobs$"),
    "aspect": ("aspect", "^/1/aspects$"),
    "aspect update": ("aspect update", "^/1/aspects$"),
    "registry item": ("registry item", "/create$"),
    "dataset": ("dataset", "/mint-dataset$"),
    "mint": ("dataset", "/mint-dataset$"),
}
"""By what is made: its noun, and the path of its request."""


@pytest.fixture
def make_twice(in_flow, effects):
    """`make_twice(kind, body)` runs a flow. The reply to its first request of the kind is lost, and the platform shows
    the request only after a minute of its own clock."""

    def run(kind, body):
        # A deployment that only adds aspects: otherwise an update takes the place of one that is not shown, too.
        effects.embedded.add_fault(method="PUT", path="^/1/aspects$", status=403)
        effects.embedded.add_fault(
            method="POST", path=LATE[kind][1], count=1, drop_reply_after_effect=True, late_visibility=60
        )
        made = in_flow(body)
        effects.embedded.clear_faults()
        return made

    return run


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind == "job" else pytest.mark.long) for kind in LATE])
def test_what_shows_too_late_is_named(effects, make, make_twice, doctor, caplog, monkeypatch, kind):
    """It was sent again, since no effect had shown within the visibility delay. The log says where to ask for the
    first, and the journal keeps it. An aspect is found also when it is none of the newest."""
    monkeypatch.setattr(duplicates, "ASPECTS_LOOKED_AT", 0)
    kept = make_twice(kind, lambda: make(kind))
    assert f"was sent again, as {kept.urn}" in caplog.text and "`ivcap-flows doctor` names it" in caplog.text
    assert not naming(doctor()[1], kept.urn)
    effects.embedded.advance_clock(120)
    status, notes = doctor()
    [row] = [row for row in effects.intents(LATE[kind][0]) if row.urn == kept.urn]
    [first] = row.duplicates
    [said] = naming(notes, kept.urn, first)
    sure = LATE[kind][0] not in ("job", "aspect", "aspect update")
    assert said.startswith("made twice: " if sure else "may have been made twice: ") and short_id(row.key) in said
    assert f"{kept.urn} (by this journal)" in said and status == 1


def test_a_job_that_another_key_claims_is_no_late_one(effects, in_flow, make_twice, unique, other, doctor, on_platform):
    """Of jobs of one request, those are not named that another key of this journal or of another one has made, nor one
    from before the intent; and none as long as an equal request is in doubt, which may have made it."""

    def ask(**which):
        return request_job("echo", {"message": unique}, **which)

    async def ask_by_hand(client):
        service = await client.services.by_name("echo")
        return (await client.jobs.request(service.urn, {"message": unique})).urn

    before = on_platform(ask_by_hand)
    effects.embedded.advance_clock(3600)
    kept, ours = make_twice("job", lambda: (ask(), ask(discriminator="b")))
    with use_journal(other):
        theirs = in_flow(ask)
    effects.embedded.advance_clock(120)
    intents = effects.journal.intents
    [row] = [row for row in effects.intents("job") if row.urn == kept.urn]
    rival = NewIntent("k1:rival", "k1:rival", "job", row.platform, row.account, "account", row.request)
    rival = intents.mark_sent(intents.claim(rival).intent)
    assert not naming(doctor()[1], kept.urn)
    intents.drop(rival, "refused")
    [said] = naming(doctor()[1], kept.urn)
    [late] = intents.get(row.key).duplicates
    assert late in said and not any(urn in said for urn in (before, ours.urn, theirs.urn))


@pytest.mark.long
def test_a_dataset_that_somebody_else_minted_too_is_named(in_flow, make, artifact, registry, doctor):
    """A dataset without a key is named if it has the same address as this journal's dataset."""
    ours = in_flow(lambda: make("mint"))

    async def mint():
        async with ProvenaCredentials.from_environment().get_client() as client:
            return (await client.datastore.mint(collection_format(artifact, registry.terms))).handle

    theirs = loop.run(mint())
    [said] = naming(doctor()[1], ours.urn, theirs)
    assert f"{ours.urn} (by this journal)" in said and f"{theirs} (by" not in said


@pytest.mark.long
def test_what_is_meant_is_not_named(in_flow, effects, make, doctor, artifact, unique, tmp_path):
    """Not named are equal aspects under two keys of this journal, a retracted one, versions of an item, and equal
    content of two types."""

    def body():
        note = {"said": unique}
        schema = "urn:x:schema:note.1"
        twice = [attach_aspect(artifact.urn, note, schema=schema, discriminator=each) for each in "ab"]
        gone = attach_aspect(artifact.urn, {"said": f"not {unique}"}, schema=schema)
        retract_aspect(gone)
        item = make("registry item")
        dataset = make("dataset")
        versions = [version_item(dataset, reason="better")]
        update_item(item, Organisation(display_name=unique, name="other"), reason="better")
        uploads = [upload_artifact(tmp_path / "small", media_type=each) for each in ("text/csv", "text/plain")]
        return [*twice, gone, item, dataset, *versions, *uploads]

    made = in_flow(body)
    _, notes = doctor()
    assert not [note for note in notes if "made twice" in note and any(each.urn in note for each in made)]


def test_what_was_looked_at_is_said(effects, make, doctor, monkeypatch, in_flow):
    """`doctor` says how many things it checked on each platform. It does not check older ones."""
    _, notes = doctor()
    said = [note for note in notes if note.startswith("searched for what was made twice among")]
    assert len(said) == 2
    assert "newest 500 idempotency records" in said[0] and "newest 500 items of each kind" in said[1]


def test_what_is_looked_at_may_grow_meanwhile(ivcap_journal):
    """Orders and uploads are read at the same time; what one search finds does not end the other."""
    seen = duplicates.ByKey(ivcap_journal)
    for urn in ("urn:a", "urn:b"):
        seen.add("k1:upload", urn, "upload", None)
    for group in seen.several("upload"):
        seen.add("k1:order", "urn:c", "order", None)
        assert set(group.urns) == {"urn:a", "urn:b"}
