"""`doctor` names every kind of thing that was made twice, and the journal stores it.

Two journals of one account may make a thing twice, or a platform may show a request only after it was sent again.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from datetime import datetime, timezone

import pytest
import sqlalchemy as sa
from on_record import key_of
from prefect import task
from pydantic import SecretStr

from ivcap_flows import loop, tasks
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.cli import main
from ivcap_flows.durable import plan
from ivcap_flows.errors import BadRequestError
from ivcap_flows.identity import CONTENT_SCHEMA, short_id
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal import Journal, NewIntent, schema
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
}
"""By what is made twice: its noun."""


@pytest.fixture
def make(in_script, tmp_path, unique, artifact, ended_order, registry):
    """Return a function that makes a thing of some kind, equal for every journal."""
    used, described = (artifact.model_copy(update={"urn": f"{artifact.urn}-{n}"}) for n in range(2))
    taken = in_script(lambda: tasks.mint_dataset(used, terms=registry.terms))
    organisation = Organisation(display_name=unique, name=unique)
    metadata = collection_format(described, registry.terms)
    for name, size in (("small", 100), ("large", 3 << 20)):
        (tmp_path / name).write_bytes(unique.encode() * (size // len(unique)))

    def run():
        data = {registry.template: taken}
        return tasks.register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    def job_of_an_aspect():
        # A job without a key is known by its request.
        message = {"message": f"{unique} of an aspect"}
        asked = tasks.attach_aspect(artifact.urn, message, schema="urn:x:schema:asked.1", once_per="account")
        return tasks.request_job("echo", request_aspect=asked, once_per="account")

    def update():
        return tasks.update_aspect(artifact.urn, {"said": unique}, schema="urn:x:schema:updated.1")

    kinds = {
        # The platform lists an order's job, too.
        "order": lambda: tasks.place_order("echo", {"message": f"{unique} of an order"}, once_per="account"),
        "job": lambda: tasks.request_job("echo", {"message": unique}, once_per="account"),
        "job of an aspect": job_of_an_aspect,
        "aspect update": update,
        "small upload": lambda: tasks.upload_artifact(tmp_path / "small"),
        "large upload": lambda: tasks.upload_artifact(tmp_path / "large"),
        "aspect": lambda: tasks.attach_aspect(
            artifact.urn, {"said": unique}, schema="urn:x:schema:note.1", once_per="account"
        ),
        "registry item": lambda: tasks.register_item(organisation),
        "dataset": lambda: tasks.register_dataset(metadata),
        "mint": lambda: tasks.mint_dataset(artifact, terms=registry.terms),
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


OPEN_METADATA, OPEN_SERVICE = (f"urn:ivcap:policy:ivcap.open.{noun}" for noun in ("metadata", "service"))


def naming(notes, *urns):
    return [note for note in notes if all(urn in note for urn in urns)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Look for a record that shows late for a moment only: no test here waits until it shows."""
    briefly = property(lambda records: 0.1, lambda records, seconds: None)
    monkeypatch.setattr(IdempotencyRecords, "shows_within", briefly, raising=False)


def late(embedded):
    """Show what is made from now on in lists only after a minute of the platforms' clock."""
    for method, path in (("POST", "^/1/"), ("PUT", "^/1/aspects$"), ("POST", "/(create|mint-dataset)$")):
        embedded.add_fault(method=method, path=path, late_in_lists=60)


def test_what_two_journals_made_at_once_is_named(in_script, effects, make, other_journal, doctor):
    """Both URNs, the key, the journals and the next step are named. The journal that asked stores the other's URN.

    It is said how many things were looked at.
    """
    late(effects.embedded)
    with use_journal(other_journal):
        first = in_script(lambda: {kind: make(kind).urn for kind in NOUNS})
    second = in_script(lambda: {kind: make(kind).urn for kind in NOUNS})
    effects.embedded.clear_faults()
    effects.embedded.advance_clock(120)
    rows = {kind: next(r for r in effects.intents(noun) if r.urn == second[kind]) for kind, noun in NOUNS.items()}
    status, notes = doctor()
    assert status == 1 and len(naming(notes, "searched for what was made twice among")) == 2
    assert naming(notes, "newest 500 idempotency records") and naming(notes, "newest 500 items of each kind")
    later = doctor()[1]
    for kind, row in rows.items():
        [said] = naming(notes, first[kind], second[kind])
        assert said.startswith("may have been made twice: " if kind == "aspect" else "made twice: "), kind
        assert short_id(row.key) in said and said.endswith(".")
        if kind in ("order", "job", "small upload", "large upload"):
            assert f"{first[kind]} (by journal {other_journal.id})" in said
        assert f"{second[kind]} (by this journal)" in said
        assert row.duplicates == [] and effects.journal.intents.get(row.key).duplicates == [first[kind]]
        assert naming(later, first[kind], "made twice: ", "is kept")


def test_what_the_platform_does_not_list_is_counted(in_script, effects, unique, doctor):
    """Its record may show a little later, so what is new is not counted."""
    late(effects.embedded)
    in_script(lambda: [tasks.place_order("echo", {"message": unique}), tasks.request_job("echo", {"message": unique})])
    assert not naming(doctor()[1], "no idempotency record")
    with effects.journal._store.write() as connection:
        connection.execute(sa.update(schema.intents).values(created_at=datetime(2026, 1, 1, tzinfo=timezone.utc)))
    [said] = naming(doctor()[1], "no idempotency record")
    assert said.startswith("2 of the newest orders and jobs of this journal")
    effects.embedded.advance_clock(120)
    assert not naming(doctor()[1], "no idempotency record")


def test_what_a_deleted_journal_made_is_named(in_script, effects, make, tmp_path, doctor, monkeypatch):
    """A duplicate is named even if its journal was deleted before it wrote the outcome."""
    kinds = ("order", "small upload", "registry item", "dataset")
    made = []

    def dies(self, intent, *, urn, **outcome):
        made.append(urn)
        raise RuntimeError("out of luck")

    def die():
        for kind in kinds:
            with pytest.raises(RuntimeError):
                make(kind)

    late(effects.embedded)
    with monkeypatch.context() as patch, Journal.open(f"sqlite:///{tmp_path / 'deleted.sqlite'}") as deleted:
        patch.setattr(type(deleted.intents), "settle", dies)
        with use_journal(deleted):
            in_script(die)
    kept = in_script(lambda: [make(kind).urn for kind in kinds])
    effects.embedded.clear_faults()
    effects.embedded.advance_clock(120)
    notes = doctor()[1]
    assert [len(naming(notes, *both, "made twice")) for both in zip(made, kept, strict=True)] == [1] * len(kinds)


@pytest.mark.catches("no look before the first send")
def test_a_new_journal_finds_what_is_there(in_script, effects, make, other_journal, tmp_path):
    """It is found before anything is sent: by its idempotency record, or by the address of its artifact; and on Provena
    by its key, in one list of each kind and without records. Of two journals at once, the second could hear of it."""
    sent = {}

    def first():
        made = {}
        for kind in ("order", "model run", "small upload", "large upload", "mint", "registry item", "dataset"):
            effects.embedded.forget_requests()
            made[kind] = make(kind).urn
            sent[kind] = [(each["method"], each["path"]) for each in effects.embedded.requests()]
        return made

    with use_journal(other_journal):
        made = in_script(first)
    for kind, path in (("order", "/1/orders"), ("model run", "/provena/prov/model_run/register")):
        recorded = [n for n, (method, at) in enumerate(sent[kind]) if at == "/1/aspects" and method in ("POST", "PUT")]
        assert recorded[0] < sent[kind].index(("POST", path))

    def again(kinds):
        for kind in kinds:
            effects.embedded.forget_requests()
            assert make(kind).urn == made[kind]
            posts = {each["path"] for each in effects.embedded.requests("POST") if (each["status"] or 0) < 300}
            lists = {path for path in posts if path.endswith("/list")}
            assert len(lists) <= 2 and not [path for path in posts if path.endswith(MAKES)], kind

    with Journal.open(f"sqlite:///{tmp_path / 'third.sqlite'}") as third, use_journal(third):
        in_script(lambda: again(("order", "small upload", "large upload", "mint", "model run")))
    effects.embedded.add_fault(path="^/1/aspects", status=403)
    in_script(lambda: again(("model run", "registry item", "dataset")))


@pytest.mark.catches("no look before the first send")
def test_what_another_journal_made_after_a_refusal_is_found(in_script, effects, make, other_journal):
    """The journal knows only that its own request was refused. What is there is found, also by a plan, until the user
    has it forgotten."""
    kinds = ("model run", "registry item", "dataset")

    def refused():
        for kind in kinds:
            with pytest.raises(BadRequestError):
                make(kind)

    def again():
        return [make(kind).urn for kind in kinds]

    effects.embedded.add_fault(path="^/1/aspects", status=403)
    for path in MAKES:
        effects.embedded.add_fault(method="POST", path=f"{path}$", status=400, count=1)
    in_script(refused)
    effects.embedded.clear_faults()
    effects.embedded.add_fault(path="^/1/aspects", status=403)
    with use_journal(other_journal):
        made = in_script(again)
    with plan() as planned:
        in_script(again)
    assert [effect.urn for effect in planned.effects if effect.source == "adopted"] == made
    assert in_script(again) == made
    for row in [row for kind in kinds for row in effects.intents(kind) if row.urn in made]:
        effects.journal.decisions.forget(row.key)
    assert not {*in_script(again)} & {*made}


MAKES = ("/1/orders", "/1/artifacts", "/create", "/mint-dataset", "/model_run/register")
"""How the paths end of requests that make a thing."""


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
def register_by_hand(on_provena, in_script, artifact, registry):
    """Return a function that registers a model run of each pair of annotations and workflow, and returns their
    handles."""
    dataset = in_script(lambda: tasks.mint_dataset(artifact, terms=registry.terms)).urn

    def register(*runs, user=""):
        async def ask(client):
            person = await client.auth_api.linked_person()

            async def one(annotations, workflow):
                data = [TemplatedDataset(dataset_template_id=registry.template, dataset_id=dataset)]
                record = ModelRunRecord(
                    workflow_template_id=workflow,
                    inputs=data,
                    outputs=data,
                    annotations=annotations,
                    display_name="by hand",
                    description="by hand",
                    associations=Associations(modeller_id=person),
                    start_time=1_600_000_000,
                    end_time=1_600_000_100,
                )
                return (await client.jobs.wait(await client.prov.register(record), 30)).lodged.id

            return await asyncio.gather(*(one(*run) for run in runs))

        return on_provena(ask, user)

    return register


def test_a_new_journal_waits_for_what_another_may_have_sent(
    in_script, effects, make, on_platform, register_by_hand, registry
):
    """Another journal's record says that a model run was requested, which does not show yet: it is waited for."""
    key = in_script(lambda: key_of(lambda: make("model run")))
    content = {"key": key, "journal": "another", "noun": "model run", "created-at": "2020-01-01T00:00:00+00:00"}

    async def tell(client):
        records = IdempotencyRecords(client.aspects, await client.account(), client.visibility_delay)
        await records.write(key, content)

    on_platform(tell)
    threading.Timer(0.3, register_by_hand, [({KEY_FIELD: key}, registry.workflow)]).start()
    in_script(lambda: make("model run"))
    assert effects.posts("/model_run/register") == 1


def test_what_others_have_under_the_key_is_not_taken(in_script, other_journal, unique, on_provena):
    """A new version has the item's key, too, and anybody may copy it from the item's metadata."""
    template, organisation = DatasetTemplate(display_name=unique), Organisation(display_name=unique, name=unique)

    def first():
        item = tasks.register_item(template)
        tasks.provena.version_item(item, reason="better")
        return item.urn

    def second():
        key = key_of(lambda: tasks.register_item(organisation))
        copied = organisation.model_copy(update={"user_metadata": {KEY_FIELD: key}})
        theirs = on_provena(lambda client: client.registry.create(Organisation, copied), "_2").item.id
        return tasks.register_item(template).urn, theirs, tasks.register_item(organisation).urn

    with use_journal(other_journal):
        item = in_script(first)
    found, theirs, ours = in_script(second)
    assert found == item and ours != theirs


def test_a_model_run_that_exists_twice_is_named(
    effects, unique, doctor, registry, on_provena, register_by_hand, monkeypatch
):
    """It has the key of the first, or its subject and a template that exists twice; newer runs of others do not hide
    it."""
    monkeypatch.setattr(provena_duplicates, "LOOKED_AT", 4)

    async def copy(client):
        info = (await client.registry.fetch(WorkflowTemplate, registry.workflow)).info
        template = info.model_copy(update={"user_metadata": {KEY_FIELD: f"k1:template-{unique}"}})
        return (await client.registry.create(WorkflowTemplate, template)).item.id

    keyed = {KEY_FIELD: f"k1:{unique}", SUBJECT_FIELD: f"urn:ivcap:order:{unique}"}
    templated = [
        ({KEY_FIELD: f"k1:{unique}-{n}", SUBJECT_FIELD: f"urn:ivcap:order:{unique}-t"}, on_provena(copy))
        for n in range(2)
    ]
    made = register_by_hand(*[(keyed, registry.workflow)] * 2, *templated)
    register_by_hand(*[({}, registry.workflow)] * 3, user="_2")
    status, notes = doctor()
    said = [note for pair in (made[:2], made[2:]) for note in naming(notes, *pair)]
    assert len(said) == 2 and all(note.startswith("made twice: model run") for note in said) and status == 1


LATE = {
    "aspect": ("aspect", "^/1/aspects$"),
    "aspect update": ("aspect update", "^/1/aspects$"),
    "order": ("order", "^/1/orders$"),
    "job": ("job", "/jobs$"),
    "job of an aspect": ("job", "/jobs$"),
    "registry item": ("registry item", "/create$"),
    "dataset": ("dataset", "/mint-dataset$"),
    "mint": ("dataset", "/mint-dataset$"),
}
"""By what is made: its noun, and the path of its request."""


@pytest.fixture
def lose(effects):
    """`lose(kind)`: the reply to the next request of the kind is lost, and the platform shows what it made only after a
    minute of its own clock."""

    def rule(kind):
        path = LATE[kind][1]
        effects.embedded.add_fault(method="POST", path=path, count=1, drop_reply_after_effect=True, late_visibility=60)

    # A deployment that only adds aspects: otherwise an update takes the place of one that is not shown, too.
    effects.embedded.add_fault(method="PUT", path="^/1/aspects$", status=403)
    return rule


def test_what_shows_too_late_is_named(in_flow, soon_missing, effects, make, lose, doctor, caplog, monkeypatch):
    """It was sent again, since no effect had shown within the visibility delay. The log says where to ask for the
    first, and the journal keeps it. An aspect is found also when it is none of the newest."""
    monkeypatch.setattr(duplicates, "ASPECTS_LOOKED_AT", 0)
    again = task(lambda kind: make(kind).urn)

    def body():
        kept = {}
        # Records that come before an order or a job are aspects, too. Two faults of one path could meet one request.
        for kinds in (
            ["aspect", "aspect update"],
            ["order", "job", "registry item", "dataset"],
            ["job of an aspect", "mint"],
        ):
            for kind in kinds:
                lose(kind)
            kept |= zip(kinds, again.map(kinds).result(), strict=True)
        return kept

    kept = in_flow(body)
    effects.embedded.clear_faults()
    notes = doctor()[1]
    assert "`ivcap-flows doctor` names it" in caplog.text
    for kind, urn in kept.items():
        assert f"was sent again, as {urn}" in caplog.text, kind
        assert not naming(notes, urn), kind
    effects.embedded.advance_clock(120)
    status, notes = doctor()
    assert status == 1
    for kind, (noun, _) in LATE.items():
        [row] = [row for row in effects.intents(noun) if row.urn == kept[kind]]
        [first] = row.duplicates
        [said] = naming(notes, kept[kind], first)
        sure = noun not in ("job", "aspect", "aspect update")
        assert said.startswith("made twice: " if sure else "may have been made twice: "), kind
        assert short_id(row.key) in said and f"{kept[kind]} (by this journal)" in said


def test_a_job_that_another_key_claims_is_no_late_one(
    effects, in_script, soon_missing, lose, unique, other_journal, doctor, on_platform
):
    """Of jobs of one request, those are not named that another key of this journal or of another one has made, nor one
    from before the intent; and none as long as an equal request is in doubt, which may have made it."""

    def ask(**which):
        return tasks.request_job("echo", {"message": unique}, **which)

    async def ask_by_hand(client):
        service = await client.services.by_name("echo")
        return (await client.jobs.request(service.urn, {"message": unique})).urn

    before = on_platform(ask_by_hand)
    effects.embedded.advance_clock(3600)
    lose("job")
    kept, ours = in_script(lambda: (ask(), ask(discriminator="b")))
    effects.embedded.clear_faults()
    with use_journal(other_journal):
        theirs = in_script(ask)
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
def test_what_others_made_too_is_named_and_what_is_meant_is_not(
    in_script, make, doctor, artifact, registry, unique, tmp_path
):
    """A dataset without a key is named if it has the same address as this journal's dataset.

    Not named are equal aspects under two keys of this journal, a retracted one, versions of an item, and equal content
    of two types.
    """

    def body():
        note = {"said": unique}
        schema = "urn:x:schema:note.1"
        twice = [tasks.attach_aspect(artifact.urn, note, schema=schema, discriminator=each) for each in "ab"]
        gone = tasks.attach_aspect(artifact.urn, {"said": f"not {unique}"}, schema=schema)
        tasks.retract_aspect(gone)
        item = make("registry item")
        dataset = make("dataset")
        versions = [tasks.provena.version_item(dataset, reason="better")]
        tasks.provena.update_item(item, Organisation(display_name=unique, name="other"), reason="better")
        uploads = [tasks.upload_artifact(tmp_path / "small", media_type=each) for each in ("text/csv", "text/plain")]
        return make("mint"), [*twice, gone, item, dataset, *versions, *uploads]

    async def mint():
        async with ProvenaCredentials.from_environment().get_client() as client:
            return (await client.datastore.mint(collection_format(artifact, registry.terms))).handle

    ours, meant = in_script(body)
    theirs = loop.run(mint())
    _, notes = doctor()
    [said] = naming(notes, ours.urn, theirs)
    assert f"{ours.urn} (by this journal)" in said and f"{theirs} (by" not in said
    assert not [note for note in notes if "made twice" in note and any(each.urn in note for each in meant)]


def test_a_job_of_another_account_is_no_late_one(
    effects, in_script, soon_missing, lose, unique, doctor, second_account
):
    """An equal one that a colleague has opened to all, since a list of jobs does not say whose they are."""

    async def ask_by_hand():
        async with second_account.get_client() as client:
            service = await client.services.by_name("echo")
            job = (await client.jobs.request(service.urn, {"message": unique}, policy=OPEN_SERVICE)).urn
            status = {"status": "executing", "service-id": service.urn}
            await client.aspects.add(job, "urn:ivcap:schema:job.2", status, policy=OPEN_METADATA)
            return job

    lose("job")
    kept = in_script(lambda: tasks.request_job("echo", {"message": unique}))
    theirs = loop.run(ask_by_hand())
    effects.embedded.clear_faults()
    effects.embedded.advance_clock(120)
    [said] = naming(doctor()[1], kept.urn)
    assert theirs not in said


def test_uploads_without_bytes_may_be_pending(effects, on_platform, unique, leave_pending):
    """They lack nothing: two under one key are named."""

    async def upload(client):
        urn = (await client.artifacts.create(name=unique, media_type="text/csv", size=0)).urn
        content = {"$schema": CONTENT_SCHEMA, "$entity": urn, "key": f"k1:{unique}"}
        await client.aspects.add(urn, CONTENT_SCHEMA, content)
        leave_pending(urn)
        return urn

    urns = {on_platform(upload) for _ in range(2)}
    found, _ = on_platform(lambda client: duplicates.duplicates_on_ivcap(client, effects.journal))
    assert urns in [set(each.urns) for each in found]


def test_what_is_looked_at_may_grow_meanwhile(ivcap_journal):
    """Orders and uploads are read at the same time; what one search finds does not end the other."""
    seen = duplicates.ByKey(ivcap_journal)
    for urn in ("urn:a", "urn:b"):
        seen.add("k1:upload", urn, "upload", None)
    for group in seen.several("upload"):
        seen.add("k1:order", "urn:c", "order", None)
        assert set(group.urns) == {"urn:a", "urn:b"}
