"""`doctor`: is all in order, and what was left unfinished?"""

import os
import socket
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.cli.checks import packages, platforms
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.identity import INTENT_SCHEMA, key_entity, short_id
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal, NewIntent, RunIdentity
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.journal.store import Store
from ivcap_flows.sinks.outbox import FAULT


@pytest.fixture
def unique_key():
    """The entity of a key that no other test has."""
    return key_entity(f"k1:{uuid.uuid4().hex}")


def finding(said, check):
    return next(found for found in said.json if found["check"] == check)


def wrong(said):
    return [found["check"] for found in said.json if not found["ok"]]


def test_all_is_well(ivcap_flows, journal_file):
    """Versions, the journal's place, both platforms and who one is there."""
    said = ivcap_flows("doctor", "--json")
    assert (said.status, wrong(said)) == (0, [])
    assert [found["check"] for found in said.json] == ["packages", "journal", "runs", "IVCAP", "Provena", "clocks"]
    assert "prefect 3." in finding(said, "packages")["notes"][0]
    assert finding(said, "journal")["notes"] == [f"sqlite:///{journal_file}"]
    assert finding(said, "runs")["notes"] == ["none is lost or parked, and none has left an order or job behind"]
    assert "urn:ivcap:account:" in finding(said, "IVCAP")["notes"][0]
    assert "linked to person" in finding(said, "Provena")["notes"][0]
    assert finding(said, "clocks")["notes"] == [
        "this machine's is within a minute of that of IVCAP, Provena, the journal"
    ]
    lines = ivcap_flows("doctor").out.splitlines()
    assert [line.split()[:2] for line in lines if line[0] != " "] == [
        ["ok", name] for name in ("packages", "journal", "runs", "IVCAP", "Provena", "clocks")
    ]


def test_a_token_that_nobody_renews_is_named(ivcap_flows, monkeypatch):
    """A variable is for trying out; the note says until when, and what to do for deployments."""
    said = ivcap_flows("doctor", "--json")
    [note] = [note for note in finding(said, "IVCAP")["notes"] if "IVCAP_JWT" in note]
    assert "trying out" in note and f"login {os.environ['IVCAP_URL']} --block NAME" in note
    assert os.environ["IVCAP_JWT"] not in said.out


@pytest.fixture
def on_prefect(prefect_server):
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        yield


def test_a_block_that_is_in_order(ivcap_flows, embedded_platform, on_prefect):
    """Both platforms' blocks of one name: where, as whom, and how long the login lasts."""
    IvcapCredentials.from_environment().save("checked", overwrite=True)
    ProvenaCredentials.from_environment().save("checked", overwrite=True)
    said = ivcap_flows("doctor", "--block", "checked", "--json")
    ivcap, provena = finding(said, "block checked")["notes"]
    assert said.status == 0 and "is not renewed, which is for trying out" in ivcap and "linked to person" in provena
    ProvenaCredentials.delete("checked")
    token = IvcapCredentials.from_environment().token
    refreshing = IvcapCredentials(url=os.environ["IVCAP_URL"], token=token, refresh_token="s3cret-revoked")
    refreshing.save("checked", overwrite=True)
    revoked = ivcap_flows("doctor", "--block", "checked", "--json")
    [note] = finding(revoked, "block checked")["notes"]
    assert (revoked.status, wrong(revoked)) == (1, ["block checked"])
    assert "has ended" in note and "login --block checked" in note and "s3cret" not in revoked.out
    IvcapCredentials.delete("checked")


def test_a_block_that_is_not_there_or_wrong(ivcap_flows, on_prefect):
    """Each names the block and the next step."""
    missing = finding(ivcap_flows("doctor", "--block", "nowhere", "--json"), "block nowhere")
    assert not missing["ok"] and "login URL --block nowhere" in missing["notes"][0]
    spoiled = IvcapCredentials(url=os.environ["IVCAP_URL"], token="s3cret")
    spoiled.token = None
    spoiled.save("spoiled", overwrite=True)
    said = finding(ivcap_flows("doctor", "--block", "spoiled", "--json"), "block spoiled")
    assert not said["ok"] and "There is no token" in said["notes"][0]
    IvcapCredentials.delete("spoiled")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        down = finding(ivcap_flows("doctor", "--block", "spoiled", "--json"), "block spoiled")
    assert not down["ok"] and "Prefect at http://127.0.0.1:9/api" in down["notes"][0]


@pytest.mark.parametrize(("ahead", "said"), [(7250, "2 hours behind"), (-630, "10 minutes ahead of")])
def test_a_clock_that_is_wrong_is_named(ivcap_flows, embedded_platform, ahead, said):
    """By how much and from whose, as the platforms' own replies tell it, and what it means."""
    embedded_platform.set_clock(datetime.now(timezone.utc) + timedelta(seconds=ahead))
    told = ivcap_flows("doctor", "--json")
    assert (told.status, wrong(told)) == (1, ["clocks"])
    [note] = finding(told, "clocks")["notes"]
    assert note.startswith(f"This machine's clock is {said} that of IVCAP, and {said} that of Provena.")
    assert "journal" not in note and "NTP" in note


def test_a_journal_whose_clock_is_wrong_is_named(ivcap_flows, monkeypatch):
    """A database server has a clock of its own."""
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) - timedelta(hours=3))
    told = ivcap_flows("doctor", "--json")
    assert (told.status, wrong(told)) == (1, ["clocks"])
    [note] = finding(told, "clocks")["notes"]
    assert note.startswith("This machine's clock is 3 hours ahead of that of the journal.")


def test_a_journal_that_cannot_be_read_is_wrong(ivcap_flows, monkeypatch, tmp_path):
    """The rest is looked at all the same."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path}/file/journal.sqlite")
    said = ivcap_flows("doctor", "--json")
    assert (said.status, wrong(said)) == (1, ["journal", "runs"])
    assert "wrong  journal" in ivcap_flows("doctor").out


def test_bad_tokens_are_wrong_and_not_shown(ivcap_flows, monkeypatch):
    """An expired one of IVCAP's, a made-up one of Provena's."""
    monkeypatch.setenv("IVCAP_JWT", os.environ["IVCAP_JWT_EXPIRED"])
    monkeypatch.setenv("PROVENA_OFFLINE_TOKEN", "made-up-token")
    said = ivcap_flows("doctor", "--json")
    assert (said.status, wrong(said)) == (1, ["IVCAP", "Provena"])
    assert "made-up-token" not in said.out + said.err


def test_a_platform_that_is_away_is_wrong(ivcap_flows, monkeypatch):
    """Its address is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("IVCAP_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        said = ivcap_flows("doctor", "--json")
        assert (said.status, wrong(said)) == (1, ["IVCAP"])
        assert os.environ["IVCAP_URL"] in finding(said, "IVCAP")["notes"][0]


def test_a_platform_that_stays_silent_is_wrong(ivcap_flows, monkeypatch):
    """Doctor waits for it less long than a flow does, and names its address all the same."""
    monkeypatch.setattr(platforms, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("IVCAP_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        said = ivcap_flows("doctor", "--json")
    assert finding(said, "IVCAP")["notes"] == [
        f"IVCAP at {os.environ['IVCAP_URL']} did not answer within 0.5 s. Check its URL, the network and the proxy."
    ]


def test_a_platform_that_is_off_is_in_order(ivcap_flows, monkeypatch):
    """Who uses IVCAP alone is not told to mend Provena."""
    for name in list(os.environ):
        if name.startswith("PROVENA_"):
            monkeypatch.delenv(name)
    said = ivcap_flows("doctor", "--json")
    assert said.status == 0 and "Provena is off" in finding(said, "Provena")["notes"][0]


def test_a_version_that_is_known_to_break_is_wrong(ivcap_flows, monkeypatch):
    """The package, what was found and what is wanted are named."""
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "4.0.0" if name == "prefect" else real(name))
    said = ivcap_flows("doctor", "--json")
    assert wrong(said) == ["packages"] and "prefect 4.0.0 is outside" in finding(said, "packages")["notes"][0]


def test_a_run_that_overslept_is_named(ivcap_flows):
    """It is parked, and its time to wake has passed: no worker took it."""
    with Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]) as journal:
        opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "root", "root", deployed=True))
        due = journal.now() - timedelta(hours=1)
        journal.parks.note(opened.attempt.id, Park(1, "https://x", None, (), due, due))
        journal.runs.close_attempt(opened.attempt.id, "parked")
    notes = finding(ivcap_flows("doctor", "--json"), "runs")["notes"]
    assert notes[0] == "1 parked run" and notes[1].startswith("overslept: the run root of f is parked and should")


def test_runs_that_need_a_look_are_named(on_record, journal_file):
    """The lost one and its orphans by name, with the next step, and the parked one with what it waits for."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("nightly", "f.py:f", {}, "root", "root", deployed=True))
        waits = (Wait("urn:ivcap:order:1", "order", "urn:ivcap:service:1", "north"),)
        due = journal.now() + timedelta(hours=1)
        journal.parks.note(opened.attempt.id, Park(1, "https://x", None, waits, journal.now(), due))
        journal.runs.close_attempt(opened.attempt.id, "parked")
        lost = journal.runs.get("interrupted")
    said = on_record("doctor", "--json")
    counts, *notes = finding(said, "runs")["notes"]
    assert counts == "1 lost run, 1 parked run, 2 orphans" and "runs" not in wrong(said)
    assert notes[0].startswith(f"lost: the run {lost.id[-8:]} of interrupted, begun ")
    assert "start the same command again" in notes[0] and f"runs abandon {lost.id[-8:]}" in notes[0]
    assert notes[1].startswith("parked: the run root of nightly waits for 1 order (north) and wakes at ")
    assert all(
        note.startswith("orphan: order echo (") and "of interrupted, lost: the next" in note for note in notes[2:]
    )


def test_the_embedded_state_is_named(ivcap_flows, embedded_platform, monkeypatch):
    """Where it lies, if the environment names no platform."""
    for name in list(os.environ):
        if name.startswith(("IVCAP_URL", "IVCAP_JWT", "PROVENA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(embedded_platform._embedded.directory))
    said = ivcap_flows("doctor", "--json")
    for platform in ("IVCAP", "Provena"):
        assert f"embedded in {embedded_platform._embedded.directory}," in finding(said, platform)["notes"][0]


def begin(name, size=10):
    """An artifact without bytes."""

    async def create():
        async with IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"])) as client:
            return (await client.artifacts.create(name=name, media_type="text/csv", size=size)).urn

    return loop.run(create())


def upload(journal, progress):
    """An upload in a journal that is being worked on, or that was left, with its progress."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    wanted = NewIntent("k1:u", "k1:u", "upload", "p", "a", "account", {}, subject="series.csv", platform_time=now)
    return journal.intents.progress(journal.intents.mark_sent(journal.intents.claim(wanted).intent), progress)


@pytest.mark.parametrize(("size", "of"), [(10, "0 of 10 bytes"), (-1, "0 of an unknown number of bytes")])
def test_unfinished_uploads_are_named(ivcap_flows, size, of):
    """Those that nothing on record goes on with: with their size, their age, and what to do."""
    urn = begin("left-behind.csv", size)
    said = ivcap_flows("doctor")
    line = next(line for line in said.out.splitlines() if urn in line)
    assert said.status == 0 and "unfinished upload" in line and "left-behind.csv" in line
    assert of in line and " s old" in line and f"ivcap artifact upload {urn} -f" in line


def test_uploads_that_go_on_are_not_named(ivcap_flows, journal_file):
    """What an open upload names, and what a live one may be about to name; the others are named all the same."""
    before = begin("left-behind.csv")
    time.sleep(1.1)
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        row = upload(journal, None)
        after = begin("just-begun.csv")
        said = ivcap_flows("doctor").out
        assert before in said and after not in said
        journal.intents.progress(row, {"urn": before})
        said = ivcap_flows("doctor").out
        assert before not in said and after in said
        journal.intents.release(row)
        assert before not in ivcap_flows("doctor").out


def test_what_was_made_twice_is_named(ivcap_flows, journal_file, unique_key):
    """By the journal that found it out, and by the idempotency records of journals that know nothing of each other."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        row = upload(journal, {"urn": "urn:ivcap:artifact:one"})
        embedded = ["urn:ivcap:artifact:two"]
        journal.intents.settle(row, urn="urn:ivcap:artifact:one", outcome={}, how="sent", duplicates=embedded)

    async def state():
        async with IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"])) as client:
            for number in (3, 4):
                content = {"journal": str(number), "noun": "upload", "subject": "x.csv", "urn": f"urn:a:{number}"}
                await client.aspects.add(unique_key, INTENT_SCHEMA, content)

    loop.run(state())
    said = ivcap_flows("doctor")
    assert said.status == 1
    assert not [line for line in said.out.splitlines() if line.startswith("ok") and "made twice: " in line]
    assert "upload for series.csv" in said.out
    assert "one is kept; the platform also has urn:ivcap:artifact:two" in said.out
    assert f"upload for x.csv ({unique_key[-32:-16]}): urn:a:3 (by journal 3), urn:a:4 (by journal 4)." in said.out


def test_what_has_no_reply_and_what_was_refused_is_named(on_record, journal_file):
    """The order in doubt by its key, the dead letter and the fault of a sink with their reasons; not what waits."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        [row] = journal.intents.where(state="sent")
        run = journal.runs.recent(1)[0]
        journal.deliveries.record("ivcap", "k", "dead", run_id=run.id, reason="licence is missing")
        journal.deliveries.record("turtle", "k", "pending", run_id=run.id, reason=f"{FAULT} (KeyError: 'x').")
        journal.deliveries.record("provena", "k", "pending", run_id=run.id, reason="no route")
    said = on_record("doctor", "--json")
    notes = "\n".join(finding(said, "journal")["notes"])
    assert f"not delivered to turtle: run {run.id}: {FAULT}" in notes and "no route" not in notes
    assert f"order for echo ({short_id(row.key)})" in notes and "licence is missing" in notes
    assert finding(said, "journal")["ok"]


def test_a_journal_that_others_may_read_is_named(on_record, journal_file):
    """As a note: a group may share it on purpose."""
    for mode, named in ((0o600, False), (0o640, True)):
        journal_file.chmod(mode)
        found = finding(on_record("doctor", "--json"), "journal")
        assert (
            any(f"mode {mode:03o}" in note and "chmod 600" in note for note in found["notes"]) == named and found["ok"]
        )
