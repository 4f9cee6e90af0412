"""`doctor`: is all in order, and what was left unfinished?"""

import asyncio
import os
import socket
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from scripted_server import serving
from starlette.responses import Response

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials, resolve
from ivcap_flows.cli import doctor as doctor_module
from ivcap_flows.cli.checks import platforms
from ivcap_flows.cli.platform import in_time, ivcap
from ivcap_flows.errors import UnreachableError
from ivcap_flows.identity import INTENT_SCHEMA, key_entity
from ivcap_flows.journal import NewIntent, RunIdentity
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.journal.store import Store
from ivcap_flows.sinks.outbox import FAULT


def test_all_is_well(ivcap_flows, transcript, journal_file):
    """A token in a variable is for trying out: the note says what to do for deployments."""
    well = """
$ doctor
ok packages ivcap-flows …, prefect 3.…, Python …
ok settings …
ok journal sqlite:///{journal} does not exist yet; the first run makes it
ok runs none is lost, parked or paused, and none has left an order or job behind
ok IVCAP urn:ivcap-flows:embedded:… as urn:ivcap:account:…
IVCAP_JWT ends at … and is not renewed, which is for trying out; log in by `ivcap-flows login {url} --block NAME`
searched for what was made twice among …
ok Provena urn:ivcap-flows:embedded:… as embedded-user, linked to person …
searched for what was made twice among …
ok clocks this machine's is within a minute of that of IVCAP, Provena, the journal
"""
    transcript(ivcap_flows, well, journal=journal_file, url=os.environ["IVCAP_URL"])
    found = ivcap_flows("doctor", "--json").json
    assert {each["check"]: each["ok"] for each in found} == dict.fromkeys(
        ("packages", "settings", "journal", "runs", "IVCAP", "Provena", "clocks"), True
    )


ENVIRONMENTS = {
    "a platform that is off is in order": (
        {"PROVENA_": None},
        """
$ doctor
…
ok Provena Provena is off…
ok clocks …
""",
    ),
    "embedded platforms have a folder": (
        {"IVCAP_URL": None, "IVCAP_JWT": None, "PROVENA_": None, "IVCAP_LOCAL_DIR": "{folder}"},
        """
$ doctor
…
ok IVCAP …, embedded in {folder}, as …
…
ok Provena …, embedded in {folder}, as …
…
""",
    ),
    "tokens that are refused are not shown": (
        {"IVCAP_JWT": "{expired}", "PROVENA_OFFLINE_TOKEN": "made-up-token"},
        """
$ doctor
ok packages …
ok settings …
ok journal …
ok runs …
wrong IVCAP …
wrong Provena …
ok clocks this machine's is within a minute of that of …
[1]
""",
    ),
    "a variable that is no setting is wrong": (
        {"IVCAP_FLOWS_MAXORDERS": "5"},
        """
$ doctor
ok packages …
wrong settings …IVCAP_FLOWS_JOURNAL…
IVCAP_FLOWS_MAXORDERS is no setting of ivcap-flows, so it has no effect. Did you mean IVCAP_FLOWS_MAX_ORDERS?
…
[1]
""",
    ),
    "where nobody answers, the address is named": (
        {"IVCAP_URL": "{away}"},
        """
$ doctor
ok packages …
ok settings …
ok journal …
ok runs …
wrong IVCAP … {away} …
ok Provena …
…
[1]
""",
    ),
    "and where nobody answers in time": (
        {"IVCAP_URL": "{silent}"},
        """
$ doctor
…
wrong IVCAP IVCAP at {silent} did not answer within 0.5 s (…
ok Provena …
…
[1]
""",
    ),
    "where the journal cannot be read, the rest is looked at": (
        {"IVCAP_FLOWS_JOURNAL": "sqlite:////dev/null/journal.sqlite"},
        """
$ doctor
ok packages …
ok settings …
wrong journal … /dev/null/journal.sqlite …
wrong runs …
ok IVCAP …
…
ok Provena …
…
ok clocks … that of IVCAP, Provena
[1]
""",
    ),
}


@pytest.fixture
def places(embedded_platform):
    """Addresses where nobody answers, the folder of the platforms, and a token that has expired."""
    with socket.socket() as away, socket.create_server(("127.0.0.1", 0)) as silent:
        away.bind(("127.0.0.1", 0))
        urls = {name: f"http://127.0.0.1:{at.getsockname()[1]}" for name, at in (("away", away), ("silent", silent))}
        expired = os.environ["IVCAP_JWT_EXPIRED"]
        yield {**urls, "folder": embedded_platform._embedded.directory, "expired": expired}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_environment_is_checked(ivcap_flows, transcript, monkeypatch, places, environment):
    changes, text = ENVIRONMENTS[environment]
    monkeypatch.setattr(platforms, "TIMEOUT", 0.5 if "{silent}" in text else platforms.TIMEOUT)
    for name, value in changes.items():
        if value is None:
            for variable in [each for each in os.environ if each.startswith(name)]:
                monkeypatch.delenv(variable)
        else:
            monkeypatch.setenv(name, value.format(**places))
    transcript(ivcap_flows, text, **places)


def test_a_version_that_is_known_to_break_is_wrong(ivcap_flows, transcript, monkeypatch):
    """The package, what was found and what is wanted are named."""
    real = doctor_module.version
    monkeypatch.setattr(doctor_module, "version", lambda name: "4.0.0" if name == "prefect" else real(name))
    transcript(ivcap_flows, "$ doctor\nwrong packages prefect 4.0.0 is outside …\nok settings …\nok journal …\n…\n[1]")


CLOCKS = {
    "behind the platforms": (7250, 0, "2 hours behind that of IVCAP, and 2 hours behind that of Provena."),
    "ahead of the platforms": (-630, 0, "10 minutes ahead of that of IVCAP, and 10 minutes ahead of that of Provena."),
    "ahead of the journal": (0, -3 * 3600, "3 hours ahead of that of the journal."),
}
"""The seconds by which the clocks of the platforms and of the journal are ahead, and what is said of ours."""


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_is_wrong_is_named(ivcap_flows, transcript, embedded_platform, monkeypatch, clock):
    """As the platforms' own replies and the database give their time."""
    platforms_ahead, journal_ahead, note = CLOCKS[clock]
    now = Store.now
    embedded_platform.set_clock(datetime.now(timezone.utc) + timedelta(seconds=platforms_ahead))
    monkeypatch.setattr(Store, "now", lambda *given: now(*given) + timedelta(seconds=journal_ahead))
    transcript(ivcap_flows, f"$ doctor\n…\nok Provena …\n…\nwrong clocks This machine's clock is {note} … NTP …\n[1]")


AWAY = "http://127.0.0.1:9/api"


@pytest.fixture(params=["away", "refuses"])
def prefect_without_answers(request):
    """The address of a Prefect that is not there, or that answers each request with 401; and what is said of it."""
    if request.param == "away":
        yield AWAY, "did not answer (ConnectError)", "PREFECT_API_URL"
    else:
        with serving(lambda url: Response(status_code=401)) as url:
            yield f"{url}/api", "refused the request (401)", "PREFECT_API_AUTH_STRING"


def test_without_prefect_the_other_checks_go_on(ivcap_flows, transcript, monkeypatch, prefect_without_answers):
    """A block cannot be loaded then. One line says so, with the setting, in other commands as well."""
    address, answer, setting = prefect_without_answers
    for name in ("IVCAP_URL", "IVCAP_JWT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_FLOWS_IVCAP_BLOCK", "prod")
    said = """
$ doctor
ok packages …
ok settings …
ok journal …
ok runs …
wrong IVCAP … Prefect at {address} {answer} … {setting} …
ok Provena …
searched …
ok clocks …
[1]
$ services
… Prefect at {address} {answer} …
[1]
"""
    with temporary_settings({PREFECT_API_URL: address}):
        transcript(ivcap_flows, said, address=address, answer=answer, setting=setting)


BLOCKS = {
    "both platforms, as whom, and how long the login lasts": (
        {"ivcap": {}, "provena": True},
        """
ok block checked IVCAP: … as urn:ivcap:account:…, its token ends at … and is not renewed, which is for trying out; …
Provena: … as embedded-user, linked to person …
""",
    ),
    "a login that is over": (
        {"ivcap": {"refresh_token": "s3cret-revoked"}},
        """
wrong block checked … has ended … login --block checked…
[1]
""",
    ),
    "a login without a token": (
        {"ivcap": {"token": None}},
        """
wrong block checked … There is no token …
[1]
""",
    ),
    "no such block": (
        {},
        """
wrong block checked Prefect has no credentials block named 'checked'. … `ivcap-flows login URL --block checked` …
[1]
""",
    ),
    "a Prefect that is away": (
        {"prefect": AWAY},
        """
wrong block checked Prefect at {away} …
[1]
""",
    ),
}
"""What is saved as blocks of one name, and what `--block` says of that."""


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_block_is_checked(ivcap_flows, transcript, prefect_api, blocks):
    """What is wrong is named with the next step."""
    saved, text = BLOCKS[blocks]
    made = []
    if "ivcap" in saved:
        made.append(IvcapCredentials.from_environment().model_copy(update=saved["ivcap"]))
    if "provena" in saved:
        made.append(ProvenaCredentials.from_environment())
    for block in made:
        block.save("checked", overwrite=True)
    try:
        with temporary_settings({PREFECT_API_URL: saved["prefect"]} if "prefect" in saved else {}):
            transcript(ivcap_flows, f"$ doctor --block checked\n…\nok clocks …\n{text.strip()}", away=AWAY)
    finally:
        for block in made:
            type(block).delete("checked")


async def busy():
    time.sleep(2.5)
    await asyncio.sleep(60)


async def without_credentials():
    await ivcap()


@pytest.mark.parametrize(
    ("request_", "timeout", "told"),
    [
        (
            busy,
            1.0,
            r"could not be asked within 1 s \(\d\.\d s this machine was busy.*\)\. Try again when this machine has",
        ),
        (
            without_credentials,
            5.0,
            r"could not be asked within 5 s \(.*\d\.\d s to find the credentials.*\)\. Check the",
        ),
        (
            lambda: asyncio.sleep(60),
            5.0,
            r"did not answer within 5 s \(.*\d\.\d s waiting for its reply\)\. Check its URL",
        ),
    ],
    ids=["busy", "credentials", "reply"],
)
def test_what_took_too_long_is_named(monkeypatch, request_, timeout, told):
    """A platform is not blamed for the time of this machine, or of the search for its credentials."""

    async def searches(*_, **__):
        await asyncio.sleep(60)

    monkeypatch.setenv("IVCAP_URL", "https://ivcap.example.org")
    monkeypatch.setattr(resolve, "ivcap_client", searches)
    with pytest.raises(UnreachableError, match=told):
        in_time("IVCAP", request_(), timeout)


def test_runs_that_need_a_look_are_named(own_record, transcript, journal):
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
    named = """
$ doctor
…
ok runs 1 lost run, 2 parked runs, 1 paused run, 2 orphans
lost: the run {interrupted} of interrupted, begun …; start the same command … runs abandon {interrupted}
…
overslept: the run late of late is parked and should have woken at …
…
paused: the run asks of asks, since …; resume its flow run in Prefect, or give it up: ivcap-flows runs abandon asks
orphan: order echo ({accepted}) of interrupted, lost: the next …
orphan: order echo ({doubt}) of interrupted, lost: the next …
ok IVCAP …
…
$ doctor
…
parked: the run nightly of nightly waits for 1 order (north) and wakes at …
…
"""
    transcript(own_record, named)


def begin(name, size=10, token="IVCAP_JWT", policy=None):
    """An artifact without bytes."""

    async def create():
        async with IvcapCredentials(url=os.environ["IVCAP_URL"], token=os.environ[token]).get_client() as client:
            return (await client.artifacts.create(name=name, media_type="text/csv", size=size, policy=policy)).urn

    return loop.run(create())


def upload(journal, progress):
    """An upload in a journal that is being worked on, or that was left, with its progress."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    wanted = NewIntent("k1:u", "k1:u", "upload", "p", "a", "account", {}, subject="series.csv", platform_time=now)
    return journal.intents.progress(journal.intents.mark_sent(journal.intents.claim(wanted).intent), progress)


def test_unfinished_uploads_are_named_unless_they_go_on(ivcap_flows, transcript, embedded_platform, journal):
    """With size, age, and what to do. What an open upload names goes on, and so may what was begun since. Nor is that
    of a colleague named.
    """
    embedded_platform.set_clock(datetime.now(timezone.utc) - timedelta(seconds=5))
    left = {size: begin("left-behind.csv", size) for size in (10, -1)}
    theirs = begin("of-a-colleague.csv", token="IVCAP_JWT_2", policy="urn:ivcap:policy:ivcap.open.artifact")
    embedded_platform.reset_clock()
    embedded_platform.add_fault(method="HEAD", path=theirs.rpartition(":")[2], status=403)
    for size, artifact in left.items():
        named = """
$ doctor
…
unfinished upload: {artifact} (left-behind.csv), … 0 of {size} bytes, … s old; … artifact upload {artifact} -f …
…
"""
        transcript(ivcap_flows, named, artifact=artifact, size="an unknown number of" if size < 0 else size)
    assert theirs not in ivcap_flows("doctor").out
    first = left[10]
    row = upload(journal, None)
    after = begin("just-begun.csv")
    said = ivcap_flows("doctor").out
    assert first in said and after not in said
    journal.intents.progress(row, {"urn": first})
    said = ivcap_flows("doctor").out
    assert first not in said and after in said
    journal.intents.release(row)
    assert first not in ivcap_flows("doctor").out


def test_what_was_made_twice_is_named(ivcap_flows, transcript, journal):
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
    made_twice = """
$ doctor
…
wrong journal …
made twice: upload for series.csv (…): urn:ivcap:artifact:one is kept; the platform also has urn:ivcap:artifact:two
…
wrong IVCAP …
…
made twice: order for x.csv ({key}): urn:a:3 (by journal 3), urn:a:4 (by journal 4).…
…
[1]
"""
    transcript(ivcap_flows, made_twice, key=key[-32:-16])
    journal.intents.miss(journal.intents.get(row.key), "404")
    transcript(ivcap_flows, "$ doctor\n…\nmissing on the platform: upload for series.csv …\n…\n[1]")


def test_what_needs_a_look_in_the_journal_is_named(own_record, transcript, journal, journal_file):
    """The order in doubt by its key, the dead letter and the fault of a sink with their reasons, and not what waits;
    and that others may read the journal. Nothing of this is wrong."""
    run = journal.runs.recent(1)[0]
    journal.deliveries.record("ivcap", "k", "dead", run_id=run.id, reason="licence is missing")
    journal.deliveries.record("turtle", "k", "pending", run_id=run.id, reason=f"{FAULT} (KeyError: 'x').")
    journal.deliveries.record("provena", "k", "pending", run_id=run.id, reason="no route")
    journal_file.chmod(0o640)
    named = """
$ doctor
ok packages …
ok settings …
ok journal sqlite:///{journal}
Other users … (mode 640). … `chmod 600 {journal}`.
no reply known: order for echo ({doubt}), sent …
refused by ivcap: run {run}: licence is missing
not delivered to turtle: run {run}: {fault} (KeyError: 'x').
ok runs …
…
"""
    transcript(own_record, named, journal=journal_file, run=run.id, fault=FAULT)
