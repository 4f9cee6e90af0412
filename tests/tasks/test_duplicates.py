"""What two journals of one account made twice is named by `doctor`, whatever kind it is, and kept in the journal."""

from __future__ import annotations

import json

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.cli import main
from ivcap_flows.durable.submission import Submission
from ivcap_flows.identity import short_id
from ivcap_flows.journal import Journal
from ivcap_flows.provena.datasets import collection_format
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import (
    add_aspect,
    mint_dataset,
    place_order,
    register_dataset,
    register_item,
    register_model_run,
    request_job,
    retract_aspect,
    update_item,
    upload_artifact,
    version_item,
)

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
    """A journal that knows nothing of the test's own."""
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as journal:
        yield journal


@pytest.fixture
def make(in_flow, tmp_path, unique, artifact, ended_order, registry):
    """Makes something of a kind, the same whoever asks."""
    another = artifact.model_copy(update={"urn": f"{artifact.urn}-0"})
    taken = in_flow(lambda: mint_dataset(another, datasets=registry.defaults))
    organisation = Organisation(display_name=unique, name=unique)
    metadata = collection_format(artifact, registry.defaults)
    for name, size in (("small", 100), ("large", 3 << 20)):
        (tmp_path / name).write_bytes(unique.encode() * (size // len(unique)))

    def run():
        data = {registry.template: taken}
        return register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    kinds = {
        "order": lambda: place_order("echo", {"message": unique}, scope="account"),
        "job": lambda: request_job("echo", {"message": unique}, scope="account"),
        "small upload": lambda: upload_artifact(tmp_path / "small"),
        "large upload": lambda: upload_artifact(tmp_path / "large"),
        "aspect": lambda: add_aspect(artifact.urn, {"said": unique}, schema="urn:x:schema:note.1", scope="account"),
        "registry item": lambda: register_item(organisation),
        "dataset": lambda: register_dataset(metadata),
        "mint": lambda: mint_dataset(artifact, datasets=registry.defaults),
        "model run": run,
    }
    return lambda kind: kinds[kind]()


@pytest.fixture
def doctor(capsys):
    """What `doctor` says of what was made twice and of what it has looked at, and its exit status, which is 0 where
    only the platforms' clock, set by these tests, is wrong."""

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
    """Let what is made from now on show in lists after a minute of the platforms' clock alone."""
    for method, path in (("POST", "^/1/"), ("PUT", "^/1/aspects$"), ("POST", "/(create|mint-dataset)$")):
        embedded.add_fault(method=method, path=path, late_in_lists=60)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "order" else pytest.mark.long) for kind in NOUNS]
)
def test_what_two_journals_made_at_once_is_named(in_flow, effects, make, other, doctor, kind):
    """With both URNs, the key, the journals and the next step; the journal that is asked keeps the other's."""
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
    assert said.startswith("made twice: " if kind != "aspect" else "may be made twice: ") and short_id(row.key) in said
    assert said.endswith(".") and status == 0
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
        if kind not in ("aspect", "job", "large upload", "mint")
    ],
)
def test_what_a_deleted_journal_made_is_named(in_flow, effects, make, tmp_path, doctor, monkeypatch, kind):
    """Though it was deleted before it had told anybody of the outcome."""
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


@pytest.mark.long
def test_a_dataset_that_somebody_else_minted_too_is_named(in_flow, make, artifact, registry, doctor):
    """It bears no key, and lies where this journal's does."""
    ours = in_flow(lambda: make("mint"))

    async def mint():
        async with ProvenaCredentials.from_environment().get_client() as client:
            return (await client.datastore.mint(collection_format(artifact, registry.defaults))).handle

    theirs = loop.run(mint())
    [said] = naming(doctor()[1], ours.urn, theirs)
    assert f"{ours.urn} (by this journal)" in said and f"{theirs} (by" not in said


@pytest.mark.long
def test_what_is_meant_is_not_named(in_flow, effects, make, doctor, artifact, unique, tmp_path):
    """Equal aspects under two keys of this journal, one that was retracted, versions of an item, equal content sent as
    two types."""

    def body():
        note = {"said": unique}
        schema = "urn:x:schema:note.1"
        twice = [add_aspect(artifact.urn, note, schema=schema, discriminator=each) for each in "ab"]
        gone = add_aspect(artifact.urn, {"said": f"not {unique}"}, schema=schema)
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
    """By each platform, in numbers; what is older was not looked at."""
    _, notes = doctor()
    said = [note for note in notes if note.startswith("searched for what was made twice among")]
    assert len(said) == 2
    assert "newest 500 idempotency records" in said[0] and "newest 500 items of each kind" in said[1]


def test_rows_that_the_journal_lost_are_wrong(in_flow, effects, make, doctor, unique):
    """Its records on the platform are newer than all that it knows; said until the user accepts the loss."""
    order = in_flow(lambda: make("order"))
    [row] = effects.intents("order")
    assert doctor()[0] == 0
    with effects.journal._store.write() as connection:
        connection.exec_driver_sql("DELETE FROM intents")
    status, notes = doctor()
    [said] = [note for note in notes if "has lost rows" in note and "platform has its record" in note]
    assert status == 1 and row.key in said and "rebuild --accept-loss" in said
    assert effects.journal.losses.noted()["key"] == row.key
    with pytest.raises(SystemExit) as ended:
        main(["journal", "rebuild", "--accept-loss"])
    assert ended.value.code == 0 and effects.journal.intents.get(row.key).urn == order.urn
    status, notes = doctor()
    assert status == 0 and not [note for note in notes if "lost rows" in note]
