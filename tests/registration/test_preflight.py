"""All that is wrong is told at once, row by row and column by column, before anything is sent."""

from __future__ import annotations

import gc
import json
import os
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import httpx
import pyarrow
import pytest
from pyarrow import parquet
from pydantic import SecretStr
from registration_rows import sheet, sheet_header, write_lines

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.errors import InputError
from ivcap_flows.journal import NewIntent
from ivcap_flows.provena.models import ModelRunRecord, Study
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.rows import FAULT_KINDS
from ivcap_flows.registration.sources import RecordSource, open_source

NO_RUN = "102.100.100/none"


@pytest.fixture
def check(provena):
    """What is wrong with the rows of a file or of another source."""

    def run(source, journal=None, **options):
        async def checked():
            with Batch(open_source(source) if isinstance(source, Path) else source, provena, **options) as batch:
                return await batch.check(journal), list(batch.faults())

        return loop.run(checked())

    return run


@pytest.fixture
def cells(run_items):
    """A row of Provena's template without a fault."""
    header = sheet_header(run_items)

    def row(number, **more):
        return {
            "display name": f"Run {number}",
            "description": "A run",
            "agent id": run_items.person,
            header[6]: "2020-01-01 00:00:00+10:00",
            header[7]: "2020-01-01 01:00:00+10:00",
            header[8]: run_items.datasets[0],
            "Input resource: forcing": "in.nc",
            header[12]: run_items.datasets[1],
            "annotation: region": "coral",
            **more,
        }

    return row


@pytest.fixture
def written(run_items, tmp_path):
    """A file of rows: of records in JSON Lines or Parquet, or of cells in Provena's sheet, as CSV or as Parquet."""

    def write(form, rows):
        file = tmp_path / f"rows.{form.removeprefix('sheet.')}"
        header = sheet_header(run_items)
        if form == "jsonl":
            write_lines(file, rows)
        elif form == "csv":
            file.write_text(sheet(header, rows), newline="")
        else:
            if form == "sheet.parquet":
                rows = [{name: row.get(name) for name in header} for row in rows]
            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file

    return write


def places(faults):
    return [(fault.row, fault.column, fault.kind) for fault in faults]


FAULTS = {
    "unknown field": ("model", lambda row, items: row.update(model="x")),
    "missing value": ("display_name", lambda row, items: row.update(display_name=" ")),
    "wrong value": ("annotations.region", lambda row, items: row.update(annotations={"region": 7})),
    "time": ("start_time", lambda row, items: row.update(start_time=1_600_000_000_000, end_time=1_600_000_001)),
    "unknown template": (
        "inputs[1].dataset_template_id",
        lambda row, items: row["inputs"].append({**row["inputs"][0], "dataset_template_id": items.workflow}),
    ),
    "too long": ("the row", lambda row, items: row.update(description="x" * 150_000)),
    "no dataset": (
        "inputs[0].dataset_id",
        lambda row, items: row["inputs"][0].update(dataset_id=f"urn:ivcap:artifact:{uuid.uuid4()}"),
    ),
}


def test_each_fault_is_named_at_its_place(run_items, check, written, embedded_platform):
    """One thing wrong is one fault. What cannot be read does not hide what is wrong elsewhere in its row, or in others;
    every id is asked for once."""
    rows = [run_items.record(number) for number in range(len(FAULTS) + 1)]
    for row, (_, spoil) in zip(rows, FAULTS.values(), strict=False):
        spoil(row, run_items)
    last = rows[-1]
    last |= {"start_time": "yesterday", "study_id": run_items.person}
    del last["display_name"]
    last["inputs"][0]["dataset_id"] = run_items.study
    lines = [*map(json.dumps, rows), "{", "[]", '{"start_time": NaN}', json.dumps(run_items.record(99))]
    report, found = check(written("jsonl", lines))
    expected = {(number, column, kind) for number, (kind, (column, _)) in enumerate(FAULTS.items(), 1)}
    expected |= {(8, "display_name", "missing value"), (8, "start_time", "time"), (8, "study_id", "wrong type")}
    expected |= {(8, "inputs[0].dataset_id", "wrong type")}
    expected |= {(number, "the row", "unreadable") for number in (9, 10, 11)}
    assert set(places(found)) == expected and len(found) == len(expected) and set(FAULTS) < set(FAULT_KINDS)
    assert (report.rows, report.wrong, report.unsent) == (12, 11, 1)
    fetched = [each["path"] for each in embedded_platform.requests() if "/registry/" in each["path"]]
    assert fetched and len(fetched) < 15


def test_own_keys_tell_equal_rows_apart(run_items, check, written):
    """With keys of their own two equal rows are two runs; one key twice is a fault."""
    row = run_items.record(1)
    rows = [{**row, "key": "a"}, {**row, "key": "b"}, {**run_items.record(2), "key": "a"}]
    assert places(check(written("jsonl", rows))[1]) == [(3, "key", "repeated key")]


def test_times_out_of_order_are_named_as_they_are_written(check, cells, written):
    """As times, and as the seconds of a record."""
    [late] = [name for name in cells(1) if "end time" in name]
    _, [fault] = check(written("csv", [cells(1, **{late: "2019-12-31 23:00:00+10:00"})]))
    assert fault.words == (
        "The run ends at 2019-12-31 13:00:00+00:00 (1577797200), "
        "before it starts at 2019-12-31 14:00:00+00:00 (1577800800)"
    )


def test_items_that_are_closed_to_the_user(run_items, check, written):
    """An id that the caller may not read is told as that, not as unknown."""
    owner = ProvenaCredentials.from_environment().model_copy(
        update={"offline_token": SecretStr(os.environ["PROVENA_OFFLINE_TOKEN_2"])}
    )

    async def close():
        async with owner.get_client() as other:
            study = await other.registry.create(Study, Study(display_name="Closed", title="Closed", description="No"))
            session = other.registry._session
            path = "/registry/activity/study/auth/configuration"
            params = {"id": study.item.id}
            access = (await session.request("GET", path, repeat="idempotent", params=params)).json()
            await session.request("PUT", path, repeat="unsafe", params=params, json={**access, "general": []})
            return study.item.id

    _, found = check(written("jsonl", [run_items.record(1, study_id=loop.run(close()))]))
    assert places(found) == [(1, "study_id", "no access")]


def test_an_artifact_needs_what_only_the_user_can_say(run_items, check, written, embedded_platform):
    """The fault names the legal facts that are missing; with all stated there is none, and nothing is minted yet."""
    row = run_items.record(1)
    row["outputs"][0]["dataset_id"] = f"urn:ivcap:artifact:{uuid.uuid4()}"
    file = written("jsonl", [row])
    [fault] = check(file)[1]
    assert all(name in fault.words for name in ("organisation_id", "publisher_id", "license", "approvals"))
    [fault] = check(file, terms=run_items.terms.model_copy(update={"license": None}))[1]
    assert "its terms lack `license`. " in fault.words
    assert check(file, terms=run_items.terms)[1] == []
    [fault] = check(file, terms=Terms(**{**vars(run_items.terms), "publisher_id": run_items.person}))[1]
    assert fault.kind == "no dataset" and "publisher_id in the Terms" in fault.words
    assert not [each for each in embedded_platform.requests("POST") if each["path"].endswith("mint-dataset")]


def test_faults_of_a_sheet_name_its_columns(run_items, check, cells, written):
    """In Provena's CSV template a fault is named by the column's header."""
    header = sheet_header(run_items)
    begin, end, source, result = header[6], header[7], header[8], header[12]
    spoiled = [
        (begin, "2020-13-01 00:00:00+00:00", "time"),
        (end, "2021-01-01 00:00:00", "time"),
        (end, "2021-01-01 00:00:00.5+10:00", "time"),
        (end, "2021-01-01 00:00:00+1000", "time"),
        ("_job_id", "note", "wrong value"),
        ("_job_id", str(uuid.uuid4()), "unknown id"),
        ("_model_run_record_id", NO_RUN, "unknown id"),
        ("_model_run_record_id", run_items.person, "wrong type"),
        ("agent id", "", "missing value"),
        (source, NO_RUN, "unknown id"),
        (result, "", "missing output"),
        ("Input resource: forcing", "", "missing resource"),
        ("annotation: region", "", "missing annotation"),
        ("display name", "", "missing value"),
    ]
    rows = [cells(number, **{column: value}) for number, (column, value, _) in enumerate(spoiled)]
    _, found = check(written("csv", rows))
    assert places(found) == [(number, column, kind) for number, (column, _, kind) in enumerate(spoiled, 1)]


@pytest.fixture
def converted(_embedded):
    """Provena's own reading of a sheet."""
    given = _embedded.environment
    realm = f"{given['PROVENA_KEYCLOAK']}/realms/{given['PROVENA_REALM']}"
    form = {"grant_type": "refresh_token", "refresh_token": given["PROVENA_OFFLINE_TOKEN"]}
    form["client_id"] = given["PROVENA_CLIENT_ID"]
    token = httpx.post(f"{realm}/protocol/openid-connect/token", data=form).json()["access_token"]
    url = f"{given['PROVENA_PROV_API']}/bulk/convert_model_runs/csv"

    def convert(content):
        return httpx.post(url, files={"csv_file": content}, headers={"Authorization": f"Bearer {token}"})

    return convert


def test_a_sheet_says_what_provena_would_read(converted, run_items, cells, written):
    """Records read here are those that Provena's own tool converts, and rows that it filled count as done. The columns
    are read from Parquet as from CSV, also where texts are stored as bytes."""
    more = {"Input resource: mask": "m.nc", sheet_header(run_items)[11]: run_items.datasets[0]}
    job = str(uuid.uuid4())
    rows = [cells(1, **more), cells(2, _job_id=job, _model_run_record_id="102/9")]
    file = written("csv", rows)
    read = list(open_source(file).rows())
    [theirs] = converted(file.read_bytes()).json()["new_records"]
    assert ModelRunRecord.model_validate(read[0].body).body() == ModelRunRecord.model_validate(theirs).body()
    assert (read[1].is_done, read[1].handle, read[1].job) == (True, "102/9", job)
    assert list(open_source(written("sheet.parquet", rows)).rows()) == read
    encoded = [{name: value.encode() for name, value in row.items()} for row in rows]
    assert list(open_source(written("sheet.parquet", encoded)).rows()) == read


@pytest.mark.parametrize("extra", [["note"], [""], None])
def test_a_cell_too_many_or_too_few_is_named_by_line(run_items, check, cells, tmp_path, extra):
    """Nothing else is read from such a row: a comma without quotes would move a note into `_job_id`."""
    header = sheet_header(run_items)
    lines = sheet(header, [cells(1), cells(2, description="two\r\nlines")]).split("\r\n")
    cut = lines[3].split(",")
    lines[3] = ",".join([*cut, *extra] if extra else cut[:-1])
    (tmp_path / "rows.csv").write_text("\r\n".join(lines), newline="")
    report, [fault] = check(tmp_path / "rows.csv")
    assert (*places([fault])[0], report.done) == (2, "the row", "unreadable", 0)
    assert fault.words.startswith(f"Line 4: The row has {len(header) + (1 if extra else -1)} cells")


TIMES = {
    "2011-12-03 10:15:30+11:00": 1322867730,
    "2011/12/03 10:15:30+11:00": 1322867730,
    "2011-12-03T10:15:30+00:00": 1322907330,
    "2011/12/03T10:15:30-01:00": 1322910930,
    "2011-12-03 10:15+11:00": 1322867700,
    "2011/12/03T10:15+11:00": 1322867700,
    "2011-12-03 10:15:30": None,
    "2011/12/03 10:15:30": None,
    "2011-12-03 10:15": None,
    "2011/12/03T10:15": None,
    "2011-12-03": None,
    "03/12/2011 10:15:30+11:00": None,
    "2011-12-03 10:15:30.5+11:00": None,
    "2011-12-03 10:15:30+99:00": None,
}
"""Times in the forms that Provena's guide lists, and others: the Unix seconds, or None if they must be refused."""


def test_a_time_has_one_meaning_or_none(converted, run_items, cells, written):
    """The forms of Provena's guide that name one instant are read as Provena's converter reads them. A time without a
    zone is refused with the reason, since guide and converter differ about it."""
    header = sheet_header(run_items)
    # The converter needs every resource and dataset.
    more = {"Input resource: mask": "m", header[11]: run_items.datasets[0]}
    rows = {text: cells(1, **more, **{header[6]: text}) for text in TIMES}
    for form in ("csv", "sheet.parquet"):
        for (text, seconds), read in zip(TIMES.items(), open_source(written(form, rows.values())).rows(), strict=True):
            if seconds is not None:
                assert read.faults == () and read.body["start_time"] == seconds
                continue
            [fault] = read.faults
            assert (fault.column, fault.kind) == ("start_time", "time")
            assert ("no offset from UTC" in fault.words) == text.endswith(("10:15:30", "10:15"))
    for text, seconds in TIMES.items():
        reply = converted(sheet(header, [rows[text]]).encode())
        if seconds is None:
            assert reply.status_code == 400
        else:
            assert [theirs["start_time"] for theirs in reply.json()["new_records"]] == [seconds]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_byte_order_mark_is_read_past(run_items, check, cells, written, form):
    """Windows writes one before a text in UTF-8; it belongs to no column and no value."""
    file = written(form, [cells(1) if form == "csv" else run_items.record(1)])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    report, faults = check(file)
    assert (report.rows, report.unsent, faults) == (1, 1, [])


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_a_row_claims_must_exist(run_items, check, written, form):
    """A job that is no UUID or unknown, and a run that is unknown, are faults in every form of file."""
    told = [{"_job_id": "note"}, {"_job_id": str(uuid.uuid4())}, {"_model_run_record_id": NO_RUN}]
    empty = dict.fromkeys(("_job_id", "_model_run_record_id"))
    report, faults = check(written(form, [run_items.record(n) | empty | each for n, each in enumerate(told)]))
    assert places(faults) == [
        (1, "_job_id", "wrong value"),
        (2, "_job_id", "unknown id"),
        (3, "_model_run_record_id", "unknown id"),
    ]
    assert (report.done, report.wrong) == (0, 3)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_row_whose_job_failed_is_not_done(run_items, check, cells, written, done_run, form):
    """Provena's own columns say so; a job that has not ended may still lodge the row."""
    told = [{"_job_id": done_run[1], "_job_status": status, "_error_info": "why"} for status in ("FAILED", "PENDING")]
    row = cells if form == "csv" else run_items.record
    report, faults = check(written(form, [row(number, **columns) for number, columns in enumerate(told)]))
    assert (report.rows, report.done, report.unsent, report.is_whole, faults) == (2, 1, 1, False, [])


def test_a_row_whose_job_failed_by_provenas_word_is_not_left_out(run_items, provena, failing_jobs, check, written):
    """The sheet says that the row is under way; its job has failed since, so the row's run never came to be."""
    row = run_items.record(1, display_name=f"Fails {uuid.uuid4()}")

    async def fail():
        job = await provena.prov.register(ModelRunRecord(**row))
        assert (await provena.jobs.wait(job, 20)).status == "FAILED"
        return job

    with failing_jobs(row["display_name"]):
        job = loop.run(fail())
    report, [fault] = check(written("jsonl", [run_items.record(1, _job_id=job, _job_status="PENDING")]))
    assert (fault.column, fault.kind, report.done) == ("_job_id", "failed job", 0) and "Out of luck" in fault.words


def test_what_the_journal_knows_is_done(run_items, check, sqlite_journal, written):
    """Provena may forget a job; a row that this journal has registered is not registered again."""
    handle, job = "102.100.100/gone", str(uuid.uuid4())
    key = run_key("https://x", "someone", "urn:x:1", run_items.workflow)
    request = {"subject": "urn:x:1", "workflow-template": run_items.workflow}
    wanted = NewIntent(key, key, "model run", "https://x", "someone", "account", request)
    intent = sqlite_journal.intents.mark_sent(sqlite_journal.intents.claim(wanted).intent)
    sqlite_journal.intents.settle(intent, urn=handle, outcome={"session_id": job}, how="sent")
    rows = [run_items.record(1, _model_run_record_id=handle), run_items.record(2, _job_id=job)]
    assert check(written("jsonl", rows), sqlite_journal)[0].done == 2


@pytest.mark.parametrize("form", ["jsonl", "records", "parquet"])
@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "half a surrogate pair"])
def test_a_text_that_cannot_be_stored_is_a_fault(run_items, check, written, form, text):
    """Of its own row alone, wherever it stands; the other rows are read."""
    if form == "parquet" and "\0" not in text:
        pytest.skip("Parquet's texts are UTF-8.")
    rows = [run_items.record(number) | {"key": f"k{number}"} for number in range(4)]
    rows[0]["display_name"] = text
    rows[1]["annotations"] = rows[1]["annotations"] | {text: "x"}
    rows[2]["key"] = text
    if form == "records":
        # As a flow could make them; pydantic takes no half of a pair when it validates.
        made = [ModelRunRecord(**run_items.record(number)) for number in range(4)]
        for record, row in zip(made, rows, strict=True):
            record.display_name, record.annotations = row["display_name"], row["annotations"]
        source = RecordSource(list(zip([row["key"] for row in rows], made, strict=True)))
    else:
        source = written(form, rows)
    report, faults = check(source)
    wrong = [each for each in places(faults) if each[0] < 4]
    assert wrong == [(1, "display_name", "wrong value"), (2, "annotations", "wrong value"), (3, "key", "wrong value")]
    assert report.rows == 4


def test_a_header_of_another_form_is_refused(tmp_path):
    """A sheet that is not Provena's is told so at once, with all that its header lacks."""
    (tmp_path / "rows.csv").write_text("display name,agent id,agent id\nx,y,z\n")
    with pytest.raises(InputError, match=r"`_workflow template id <handle>`.*'description' is missing.*there twice"):
        list(open_source(tmp_path / "rows.csv").rows())


def test_parquet_and_records_say_the_same(run_items, check, written):
    """Nested Parquet columns, and records of a flow, are the rows that JSON Lines are: same keys, same faults."""
    rows = [run_items.record(n, study_id=run_items.study, key=f"k{n}") for n in range(5)]
    rows[3]["study_id"] = run_items.person
    lines, other = check(written("jsonl", rows)), check(written("parquet", rows))
    records = [(row["key"], ModelRunRecord(**{k: v for k, v in row.items() if k != "key"})) for row in rows]
    third = check(RecordSource(records))
    assert lines[1] == other[1] == third[1] and [each.row for each in lines[1]] == [4]
    assert replace(lines[0], source="", sha256="") == replace(other[0], source="", sha256="")


@pytest.mark.parametrize(
    ("zone", "micros", "kinds"), [("+10:00", 0, []), ("+10:00", 500_000, ["time"]), (None, 0, ["time"])]
)
def test_a_time_in_parquet_is_one_instant(run_items, tmp_path, check, zone, micros, kinds):
    """A timestamp without a zone would mean another instant on each machine, and a fraction of a second would be lost:
    both are faults."""
    end = 1_600_000_100
    table = pyarrow.Table.from_pylist([run_items.record(1, start_time=1_600_000_000)])
    column = pyarrow.array([end * 1_000_000 + micros], pyarrow.timestamp("us", zone))
    table = table.set_column(table.schema.get_field_index("end_time"), "end_time", column)
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert [each[1:] for each in places(check(tmp_path / "rows.parquet")[1])] == [("end_time", kind) for kind in kinds]
    [read] = open_source(tmp_path / "rows.parquet").rows()
    assert kinds or read.body["end_time"] == end


def test_a_damaged_parquet_file_is_named(tmp_path):
    """Whichever byte of a file is wrong, it is read, or refused by name: no error of another kind leaves the reader."""
    file = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"key": [f"k{n}" for n in range(20)]}), file)
    whole = file.read_bytes()
    refused = 0
    for at in range(4, len(whole) - 8):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            list(open_source(file).rows())
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{file} cannot be read")  # noqa: PT017 - many bytes do no damage
    assert refused > 100


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path, form, monkeypatch):
    """As one that was moved away meanwhile. Nothing else is said of it, as Python 3.13 would of a half-made object."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: ignored.append(str(told.exc_value)))
    file = tmp_path / f"rows.{form}"
    file.touch()
    rows = open_source(file).rows()
    file.unlink()
    with pytest.raises(InputError, match=f"rows.{form} cannot be read: No such file"):
        next(rows)
    gc.collect()
    assert ignored == []


UNUSUAL = {
    "a time that Python cannot say": pyarrow.array([0, 0, 2**62], pyarrow.timestamp("us", "UTC")),
    "a date that Python cannot say": pyarrow.array([0, 0, 2**30], pyarrow.date32()),
    "bytes that are no text": pyarrow.array([b"a", b"b", b"\xff"]),
    "bytes with a NUL": pyarrow.array([b"a", b"b", b"a\0b"]),
    "such a key of a map": pyarrow.array([[], [], [(b"\xff", b"x")]], pyarrow.map_(pyarrow.binary(), pyarrow.binary())),
    "nanoseconds": pyarrow.array([0, 0, 1_000_001], pyarrow.timestamp("ns", "UTC")),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_an_unusual_value_in_parquet_is_a_fault_of_its_row(run_items, check, tmp_path, what):
    """Parquet can say what Python, JSON or a journal cannot; the other rows are read."""
    table = pyarrow.Table.from_pylist([run_items.record(number) for number in range(3)])
    for name in ("display_name", "annotations", "start_time", "more"):
        place = table.schema.get_field_index(name)
        column = (name, UNUSUAL[what])
        spoiled = table.append_column(*column) if place < 0 else table.set_column(place, *column)
        parquet.write_table(spoiled, tmp_path / "rows.parquet")
        report, faults = check(tmp_path / "rows.parquet")
        assert report.rows == 3 and 3 in {each.row for each in faults}
        if name == "display_name" and what.startswith("bytes"):
            assert {each.row for each in faults} == {3} and report.unsent == 2
