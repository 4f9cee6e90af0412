"""`doctor`: is all in order, and what was left unfinished?"""

import asyncio
import os
import socket
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials, resolve
from ivcap_flows.cli import doctor as doctor_module
from ivcap_flows.cli.checks import platforms
from ivcap_flows.cli.platform import in_time, ivcap
from ivcap_flows.errors import UnreachableError
from ivcap_flows.identity import INTENT_SCHEMA, key_entity, short_id
from ivcap_flows.journal import NewIntent, RunIdentity
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.journal.store import Store
from ivcap_flows.sinks.outbox import FAULT

CHECKS = ["packages", "journal", "runs", "IVCAP", "Provena", "clocks"]


def finding(said, check):
    return next(found for found in said.json if found["check"] == check)


def wrong(said):
    return [found["check"] for found in said.json if not found["ok"]]


def test_all_is_well(ivcap_flows, journal_file):
    """Versions, the journal's place, both platforms and who one is there. A token in a variable is for trying out: the
    note says what to do for deployments."""
    said = ivcap_flows("doctor", "--json")
    assert (said.status, wrong(said)) == (0, [])
    assert [found["check"] for found in said.json] == CHECKS
    assert "prefect 3." in finding(said, "packages")["notes"][0]
    assert finding(said, "journal")["notes"] == [f"sqlite:///{journal_file}"]
    assert finding(said, "runs")["notes"] == [
        "none is lost, parked or paused, and none has left an order or job behind"
    ]
    assert "urn:ivcap:account:" in finding(said, "IVCAP")["notes"][0]
    [note] = [note for note in finding(said, "IVCAP")["notes"] if "IVCAP_JWT" in note]
    assert "trying out" in note and f"login {os.environ['IVCAP_URL']} --block NAME" in note
    assert "linked to person" in finding(said, "Provena")["notes"][0]
    [clocks] = finding(said, "clocks")["notes"]
    assert clocks == "this machine's is within a minute of that of IVCAP, Provena, the journal"
    lines = ivcap_flows("doctor").out.splitlines()
    assert [line.split()[:2] for line in lines if line[0] != " "] == [["ok", name] for name in CHECKS]


@pytest.fixture
def refusing():
    """The address of a server that answers each request with 401."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("away", "words"),
    [(True, "did not answer (ConnectError)"), (False, "refused the request (401)")],
    ids=["away", "refused"],
)
def test_without_prefect_the_other_checks_go_on(ivcap_flows, refusing, monkeypatch, away, words):
    """A block cannot be loaded then. One line says so, with the setting, in other commands as well."""
    address = "http://127.0.0.1:9/api" if away else refusing
    for name in ("IVCAP_URL", "IVCAP_JWT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_FLOWS_IVCAP_BLOCK", "prod")
    with temporary_settings({PREFECT_API_URL: address}):
        said = ivcap_flows("doctor", "--json")
        assert [found["check"] for found in said.json] == CHECKS
        [note] = finding(said, "IVCAP")["notes"]
        assert f"Prefect at {address} {words}" in note
        assert ("PREFECT_API_URL" if away else "PREFECT_API_AUTH_STRING") in note
        told = ivcap_flows("services")
        assert told.status == 1 and words in told.err and len(told.err.splitlines()) <= 5


def test_a_block_is_checked(ivcap_flows, embedded_platform, prefect_server):
    """Both platforms' blocks of one name: where, as whom, and how long the login lasts. One that is wrong, or not
    there, is named with the next step."""

    def checked(name, ok=False):
        said = ivcap_flows("doctor", "--block", name, "--json")
        assert (said.status, wrong(said)) == ((0, []) if ok else (1, [f"block {name}"]))
        assert "s3cret" not in said.out
        return finding(said, f"block {name}")["notes"]

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        IvcapCredentials.from_environment().save("checked", overwrite=True)
        ProvenaCredentials.from_environment().save("checked", overwrite=True)
        ivcap, provena = checked("checked", ok=True)
        assert "is not renewed, which is for trying out" in ivcap and "linked to person" in provena
        ProvenaCredentials.delete("checked")
        token = IvcapCredentials.from_environment().token
        block = IvcapCredentials(url=os.environ["IVCAP_URL"], token=token, refresh_token="s3cret-revoked")
        block.save("checked", overwrite=True)
        [note] = checked("checked")
        assert "has ended" in note and "login --block checked" in note
        block = IvcapCredentials(url=os.environ["IVCAP_URL"], token="s3cret")
        block.token = None
        block.save("checked", overwrite=True)
        assert "There is no token" in checked("checked")[0]
        IvcapCredentials.delete("checked")
        assert "login URL --block nowhere" in checked("nowhere")[0]
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            assert "Prefect at http://127.0.0.1:9/api" in checked("checked")[0]


def test_a_clock_that_is_wrong_is_named(ivcap_flows, embedded_platform, monkeypatch):
    """By how much and from whose, as the platforms' own replies and the database tell it."""

    def note():
        said = ivcap_flows("doctor", "--json")
        assert (said.status, wrong(said)) == (1, ["clocks"])
        [told] = finding(said, "clocks")["notes"]
        return told

    for ahead, words in ((7250, "2 hours behind"), (-630, "10 minutes ahead of")):
        embedded_platform.set_clock(datetime.now(timezone.utc) + timedelta(seconds=ahead))
        told = note()
        assert told.startswith(f"This machine's clock is {words} that of IVCAP, and {words} that of Provena.")
        assert "journal" not in told and "NTP" in told
    embedded_platform.set_clock(datetime.now(timezone.utc))
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) - timedelta(hours=3))
    assert note().startswith("This machine's clock is 3 hours ahead of that of the journal.")


def test_a_journal_that_cannot_be_read_is_wrong(ivcap_flows, monkeypatch, tmp_path):
    """The rest is looked at all the same."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path}/file/journal.sqlite")
    said = ivcap_flows("doctor", "--json")
    assert (said.status, wrong(said)) == (1, ["journal", "runs"])
    assert "wrong  journal" in ivcap_flows("doctor").out


def test_a_platform_that_cannot_be_used_is_wrong(ivcap_flows, monkeypatch):
    """With a bad token, which is not shown; where nobody answers, or nothing in time, its address is named."""
    with monkeypatch.context() as patch:
        patch.setenv("IVCAP_JWT", os.environ["IVCAP_JWT_EXPIRED"])
        patch.setenv("PROVENA_OFFLINE_TOKEN", "made-up-token")
        said = ivcap_flows("doctor", "--json")
        assert (said.status, wrong(said)) == (1, ["IVCAP", "Provena"])
        assert "made-up-token" not in said.out + said.err
    monkeypatch.setattr(platforms, "TIMEOUT", 0.5)
    with socket.socket() as away, socket.create_server(("127.0.0.1", 0)) as silent:
        away.bind(("127.0.0.1", 0))
        for server, note in ((away, ""), (silent, " within 0.5 s (")):
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setenv("IVCAP_URL", url)
            said = ivcap_flows("doctor", "--json")
            [told] = finding(said, "IVCAP")["notes"]
            assert (said.status, wrong(said)) == (1, ["IVCAP"]) and url in told and note in told


async def busy():
    time.sleep(2.5)
    await asyncio.sleep(60)


async def without_credentials():
    await ivcap()


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (busy, r"could not be asked within 1 s \(\d\.\d s this machine was busy.*\)\. Try again when this machine has"),
        (
            without_credentials,
            r"could not be asked within 1 s \(.*\d\.\d s to find the credentials.*\)\. Check the",
        ),
        (lambda: asyncio.sleep(60), r"did not answer within 1 s \(.*\d\.\d s waiting for its reply\)\. Check its URL"),
    ],
    ids=["busy", "credentials", "reply"],
)
def test_what_took_too_long_is_named(monkeypatch, request_, told):
    """A platform is not blamed for the time of this machine, or of the search for its credentials."""

    async def searches(*_, **__):
        await asyncio.sleep(60)

    monkeypatch.setenv("IVCAP_URL", "https://ivcap.example.org")
    monkeypatch.setattr(resolve, "ivcap_client", searches)
    with pytest.raises(UnreachableError, match=told):
        in_time("IVCAP", request_(), 1.0)


def test_a_platform_that_is_off_or_embedded_is_in_order(ivcap_flows, embedded_platform, monkeypatch):
    """Who uses IVCAP alone is not told to mend Provena; where the environment names none, the embedded one's folder
    is."""
    for name in [name for name in os.environ if name.startswith("PROVENA_")]:
        monkeypatch.delenv(name)
    said = ivcap_flows("doctor", "--json")
    assert said.status == 0 and "Provena is off" in finding(said, "Provena")["notes"][0]
    for name in ("IVCAP_URL", "IVCAP_JWT"):
        monkeypatch.delenv(name)
    folder = embedded_platform._embedded.directory
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(folder))
    said = ivcap_flows("doctor", "--json")
    for platform in ("IVCAP", "Provena"):
        assert f"embedded in {folder}," in finding(said, platform)["notes"][0]


def test_a_version_that_is_known_to_break_is_wrong(ivcap_flows, monkeypatch):
    """The package, what was found and what is wanted are named."""
    real = doctor_module.version
    monkeypatch.setattr(doctor_module, "version", lambda name: "4.0.0" if name == "prefect" else real(name))
    said = ivcap_flows("doctor", "--json")
    assert wrong(said) == ["packages"] and "prefect 4.0.0 is outside" in finding(said, "packages")["notes"][0]


def test_runs_that_need_a_look_are_named(own_record, journal):
    """The lost one and its orphans with the next step, the parked one with what it waits for, and one that nobody
    woke."""
    waits = (Wait("urn:ivcap:order:1", "order", "urn:ivcap:service:1", "north"),)
    for name, hours in (("late", -1), ("nightly", 1)):
        opened = journal.runs.open_attempt(RunIdentity(name, "f.py:f", {}, name, name, deployed=True))
        due = journal.now() + timedelta(hours=hours)
        journal.parks.note(opened.attempt.id, Park(1, "https://x", "ada", None, waits, journal.now(), due))
        journal.runs.close_attempt(opened.attempt.id, "parked")
    opened = journal.runs.open_attempt(RunIdentity("asks", "f.py:f", {}, "asks", "asks", deployed=True))
    journal.runs.close_attempt(opened.attempt.id, "paused")
    lost = journal.runs.get("interrupted")
    said = own_record("doctor", "--json")
    counts, *notes = finding(said, "runs")["notes"]
    assert counts == "1 lost run, 2 parked runs, 1 paused run, 2 orphans" and "runs" not in wrong(said)
    told = {note.partition(":")[0]: note for note in notes}
    assert told["lost"].startswith(f"lost: the run {lost.id[-8:]} of interrupted, begun ")
    assert "start the same command again" in told["lost"] and f"runs abandon {lost.id[-8:]}" in told["lost"]
    assert told["parked"].startswith("parked: the run nightly of nightly waits for 1 order (north) and wakes at ")
    assert told["paused"].startswith("paused: the run asks of asks, since ") and "abandon asks" in told["paused"]
    assert told["overslept"].startswith("overslept: the run late of late is parked and should")
    orphans = [note for note in notes if note.startswith("orphan: order echo (")]
    assert len(orphans) == 2 and all("of interrupted, lost: the next" in note for note in orphans)


def begin(name, size=10):
    """An artifact without bytes."""

    async def create():
        async with IvcapCredentials.from_environment().get_client() as client:
            return (await client.artifacts.create(name=name, media_type="text/csv", size=size)).urn

    return loop.run(create())


def upload(journal, progress):
    """An upload in a journal that is being worked on, or that was left, with its progress."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    wanted = NewIntent("k1:u", "k1:u", "upload", "p", "a", "account", {}, subject="series.csv", platform_time=now)
    return journal.intents.progress(journal.intents.mark_sent(journal.intents.claim(wanted).intent), progress)


def test_unfinished_uploads_are_named_unless_they_go_on(ivcap_flows, embedded_platform, journal):
    """With size, age, and what to do. What an open upload names goes on, and so may what was begun since."""
    embedded_platform.set_clock(datetime.now(timezone.utc) - timedelta(seconds=5))
    before = {begin("left-behind.csv", size): of for size, of in ((10, "10 bytes"), (-1, "an unknown number of bytes"))}
    embedded_platform.reset_clock()
    said = ivcap_flows("doctor")
    for urn, of in before.items():
        line = next(line for line in said.out.splitlines() if urn in line)
        assert said.status == 0 and "unfinished upload" in line and "left-behind.csv" in line
        assert f"0 of {of}" in line and " s old" in line and f"ivcap artifact upload {urn} -f" in line
    first, *_ = before
    row = upload(journal, None)
    after = begin("just-begun.csv")
    said = ivcap_flows("doctor").out
    assert first in said and after not in said
    journal.intents.progress(row, {"urn": first})
    said = ivcap_flows("doctor").out
    assert first not in said and after in said
    journal.intents.release(row)
    assert first not in ivcap_flows("doctor").out


def test_what_was_made_twice_is_named(ivcap_flows, journal):
    """By the journal that found it out, and by the idempotency records of journals that know nothing of each other."""
    key = key_entity(f"k1:{uuid.uuid4().hex}")
    row = upload(journal, {"urn": "urn:ivcap:artifact:one"})
    twice = ["urn:ivcap:artifact:two"]
    journal.intents.settle(row, urn="urn:ivcap:artifact:one", outcome={}, how="sent", duplicates=twice)

    async def state():
        async with IvcapCredentials.from_environment().get_client() as client:
            for number in (3, 4):
                content = {"journal": str(number), "noun": "order", "subject": "x.csv", "urn": f"urn:a:{number}"}
                await client.aspects.add(key, INTENT_SCHEMA, content)

    loop.run(state())
    said = ivcap_flows("doctor")
    assert said.status == 1
    assert not [line for line in said.out.splitlines() if line.startswith("ok") and "made twice: " in line]
    assert "upload for series.csv" in said.out
    assert "one is kept; the platform also has urn:ivcap:artifact:two" in said.out
    assert f"order for x.csv ({key[-32:-16]}): urn:a:3 (by journal 3), urn:a:4 (by journal 4)." in said.out
    journal.intents.miss(journal.intents.get(row.key), "404")
    assert "missing on the platform: upload for series.csv" in ivcap_flows("doctor").out


def test_what_has_no_reply_and_what_was_refused_is_named(own_record, journal):
    """The order in doubt by its key, the dead letter and the fault of a sink with their reasons; not what waits."""
    [row] = journal.intents.where(state="sent")
    run = journal.runs.recent(1)[0]
    journal.deliveries.record("ivcap", "k", "dead", run_id=run.id, reason="licence is missing")
    journal.deliveries.record("turtle", "k", "pending", run_id=run.id, reason=f"{FAULT} (KeyError: 'x').")
    journal.deliveries.record("provena", "k", "pending", run_id=run.id, reason="no route")
    found = finding(own_record("doctor", "--json"), "journal")
    notes = "\n".join(found["notes"])
    assert f"not delivered to turtle: run {run.id}: {FAULT}" in notes and "no route" not in notes
    assert f"order for echo ({short_id(row.key)})" in notes and "licence is missing" in notes
    assert found["ok"]


@pytest.mark.parametrize(("mode", "named"), [(0o600, False), (0o640, True)])
def test_a_journal_that_others_may_read_is_named(own_record, journal_file, mode, named):
    """As a note: a group may share it on purpose."""
    journal_file.chmod(mode)
    found = finding(own_record("doctor", "--json"), "journal")
    notes = [note for note in found["notes"] if f"mode {mode:03o}" in note and "chmod 600" in note]
    assert bool(notes) == named and found["ok"]
