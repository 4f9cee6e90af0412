"""All that is wrong is told at once, row by row and column by column, before anything is sent."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from registration_rows import Items, sheet, sheet_header, spoiled, write_lines

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.errors import BadRequestError, InputError
from ivcap_flows.journal import NewIntent
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.outcome import BatchReport
from ivcap_flows.registration.rows import FAULT_KINDS, Fault
from ivcap_flows.registration.sources import RecordSource, RowSource, open_source


@pytest.fixture
def check(provena: ProvenaClient) -> Callable[..., tuple[BatchReport, list[Fault]]]:
    """What is wrong with the rows of a file or of another source."""

    def run(source: Path | RowSource, **options: Any) -> tuple[BatchReport, list[Fault]]:
        async def checked() -> tuple[BatchReport, list[Fault]]:
            with Batch(open_source(source) if isinstance(source, Path) else source, provena, **options) as batch:
                return await batch.check(), list(batch.faults())

        return loop.run(checked())

    return run


def test_500_rows_with_17_faults_of_9_kinds(run_items, check, tmp_path, embedded_platform):
    """Each fault is named once, with its row and column; every id is asked for once, and nothing is sent."""
    rows, faults = spoiled(run_items)
    report, found = check(write_lines(tmp_path / "rows.jsonl", rows))
    assert len(faults) == 17 and len({kind for _, _, kind in faults}) == 9
    assert {(each.row, each.column, each.kind) for each in found} == faults and len(found) == 17
    assert (report.rows, report.faults, report.wrong, report.unsent) == (500, 17, 17, 483)
    fetched = [each for each in embedded_platform.requests() if "/registry/" in each["path"]]
    ids = {
        run_items.workflow,
        run_items.source,
        run_items.result,
        run_items.extra,
        run_items.model,
        *run_items.datasets,
    }
    assert len(fetched) == len(ids) + len({run_items.person, run_items.organisation, "unknown"})
    assert not [each for each in embedded_platform.requests("POST") if "/prov/" in each["path"]]


SINGLE = {
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


@pytest.mark.parametrize("kind", SINGLE)
def test_each_further_kind(run_items, check, tmp_path, kind):
    """One thing wrong is one fault, at its place."""
    column, spoil = SINGLE[kind]
    row = run_items.record(1)
    spoil(row, run_items)
    _, [fault] = check(write_lines(tmp_path / "rows.jsonl", [row, run_items.record(2)]))
    assert (fault.row, fault.column, fault.kind) == (1, column, kind)
    assert kind in FAULT_KINDS


def test_several_faults_of_a_row_are_told_together(run_items, check, tmp_path):
    """What cannot be read does not hide what is wrong elsewhere in the row."""
    row = run_items.record(1, start_time="yesterday", study_id=run_items.person)
    row.pop("display_name")
    row["inputs"][0]["dataset_id"] = run_items.study
    _, found = check(write_lines(tmp_path / "rows.jsonl", [row]))
    assert {(each.column, each.kind) for each in found} == {
        ("display_name", "missing value"),
        ("start_time", "time"),
        ("study_id", "wrong type"),
        ("inputs[0].dataset_id", "wrong type"),
    }


def test_what_cannot_be_read_is_told_by_row(run_items, check, tmp_path):
    """A line that is no JSON object spoils its row, and no other."""
    report, found = check(write_lines(tmp_path / "rows.jsonl", [run_items.record(1), "{", "[]", '{"start_time": NaN}']))
    assert [(each.row, each.kind) for each in found] == [(2, "unreadable"), (3, "unreadable"), (4, "unreadable")]
    assert report.unsent == 1


def test_own_keys_tell_equal_rows_apart(run_items, check, tmp_path):
    """With keys of their own two equal rows are two runs; one key twice is a fault."""
    row = run_items.record(1)
    rows = [{**row, "key": "a"}, {**row, "key": "b"}, {**run_items.record(2), "key": "a"}]
    _, found = check(write_lines(tmp_path / "rows.jsonl", rows))
    assert [(each.row, each.column, each.kind) for each in found] == [(3, "key", "repeated key")]


def test_items_that_are_closed_to_the_user(run_items, provena, check, tmp_path, embedded_platform):
    """An id that the caller may not read is told as that, not as unknown."""
    owner = ProvenaCredentials.from_environment().model_copy(
        update={"offline_token": SecretStr(os.environ["PROVENA_OFFLINE_TOKEN_2"])}
    )

    async def close() -> str:
        from ivcap_flows.provena.models import Study

        async with owner.get_client() as other:
            study = await other.registry.create(Study, Study(display_name="Closed", title="Closed", description="No"))
            session = other.registry._session
            path = "/registry/activity/study/auth/configuration"
            params = {"id": study.item.id}
            access = (await session.request("GET", path, repeat="idempotent", params=params)).json()
            await session.request("PUT", path, repeat="unsafe", params=params, json={**access, "general": []})
            return study.item.id

    closed = loop.run(close())
    _, [fault] = check(write_lines(tmp_path / "rows.jsonl", [run_items.record(1, study_id=closed)]))
    assert (fault.column, fault.kind) == ("study_id", "no access")


def test_an_artifact_needs_what_only_the_user_can_say(run_items, check, tmp_path, embedded_platform):
    """The fault names the legal facts that are missing; with all stated there is none, and nothing is minted yet."""
    row = run_items.record(1)
    row["outputs"][0]["dataset_id"] = f"urn:ivcap:artifact:{uuid.uuid4()}"
    file = write_lines(tmp_path / "rows.jsonl", [row])
    [fault] = check(file)[1]
    assert all(name in fault.words for name in ("organisation_id", "publisher_id", "license", "approvals"))
    [fault] = check(file, terms=run_items.terms.model_copy(update={"license": None}))[1]
    assert "missing: license." in fault.words
    assert check(file, terms=run_items.terms)[1] == []
    wrong = Terms(**{**vars(run_items.terms), "publisher_id": run_items.person})
    with pytest.raises(InputError, match="publisher_id in the Terms"):
        check(file, terms=wrong)
    assert not [each for each in embedded_platform.requests("POST") if each["path"].endswith("mint-dataset")]


CELLS: dict[str, Callable[[Items], tuple[str, str, str]]] = {
    "a time": lambda items: ("execution start time (YYYY-MM-DD HH:MM:SS+HH:MM)", "2020-13-01 00:00:00+00:00", "time"),
    "no offset": lambda items: ("execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)", "2021-01-01 00:00:00", "time"),
    "a fraction": lambda items: (
        "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)",
        "2021-01-01 00:00:00.5+10:00",
        "time",
    ),
    "a short offset": lambda items: (
        "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)",
        "2021-01-01 00:00:00+1000",
        "time",
    ),
    "a job that is no UUID": lambda items: ("_job_id", "note", "wrong value"),
    "an unknown job": lambda items: ("_job_id", str(uuid.uuid4()), "unknown id"),
    "an unknown run": lambda items: ("_model_run_record_id", "102.100.100/none", "unknown id"),
    "a run that is none": lambda items: ("_model_run_record_id", items.person, "wrong type"),
    "no agent": lambda items: ("agent id", "", "missing value"),
    "a dataset": lambda items: (
        f"Input dataset id for template: Source [template id: {items.source}]",
        "102.100.100/none",
        "unknown id",
    ),
    "no output": lambda items: (
        f"Output dataset id for template: Result [template id: {items.result}]",
        "",
        "missing output",
    ),
    "no resource": lambda items: ("Input resource: forcing", "", "missing resource"),
    "no annotation": lambda items: ("annotation: region", "", "missing annotation"),
    "no name": lambda items: ("display name", "", "missing value"),
}


def cells(items: Items, number: int) -> dict[str, str]:
    """A row of Provena's template without a fault."""
    header = sheet_header(items)
    return {
        "display name": f"Run {number}",
        "description": "A run",
        "agent id": items.person,
        header[6]: "2020-01-01 00:00:00+10:00",
        header[7]: "2020-01-01 01:00:00+10:00",
        header[8]: items.datasets[0],
        "Input resource: forcing": "in.nc",
        header[12]: items.datasets[1],
        "annotation: region": "coral",
    }


@pytest.mark.parametrize("case", CELLS)
def test_faults_of_a_sheet_name_its_columns(run_items, check, tmp_path, case):
    """In Provena's CSV template a fault is named by the column's header."""
    column, value, kind = CELLS[case](run_items)
    text = sheet(sheet_header(run_items), [cells(run_items, 1), cells(run_items, 2) | {column: value}])
    (tmp_path / "rows.csv").write_bytes(text.encode())
    _, [fault] = check(tmp_path / "rows.csv")
    assert (fault.row, fault.column, fault.kind) == (2, column, kind)


def test_a_sheet_says_what_provena_would_read(run_items, provena, tmp_path):
    """Records read here are those that Provena's own tool converts, and rows that it filled count as done."""
    header = sheet_header(run_items)
    one = cells(run_items, 1) | {"Input resource: mask": "m.nc", header[11]: run_items.datasets[0]}
    done = cells(run_items, 2) | {"_job_id": str(uuid.uuid4()), "_model_run_record_id": "102/9"}
    text = sheet(header, [one, done]).encode()
    (tmp_path / "rows.csv").write_bytes(text)
    first, second = open_source(tmp_path / "rows.csv").rows()
    converted = loop.run(provena.prov.convert_csv(text))
    [theirs] = converted.new_records
    assert ModelRunRecord.model_validate(first.body).body() == theirs.body()
    assert (second.is_done, second.handle, second.job) == (True, "102/9", done["_job_id"])


@pytest.mark.parametrize("extra", [["note"], [""], None])
def test_a_cell_too_many_or_too_few_is_named_by_line(run_items, check, tmp_path, extra):
    """Nothing else is read from such a row: a comma without quotes would move a note into `_job_id`."""
    header = sheet_header(run_items)
    text = sheet(header, [cells(run_items, 1), cells(run_items, 2) | {"description": "two\r\nlines"}])
    lines = text.split("\r\n")
    cut = lines[3].split(",")
    lines[3] = ",".join([*cut, *extra] if extra else cut[:-1])
    (tmp_path / "rows.csv").write_text("\r\n".join(lines), newline="")
    report, [fault] = check(tmp_path / "rows.csv")
    assert (fault.row, fault.column, fault.kind, report.done) == (2, "the row", "unreadable", 0)
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


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("text", TIMES)
def test_a_time_has_one_meaning_or_none(run_items, provena, tmp_path, form, text):
    """The forms of Provena's guide that name one instant are read as Provena's converter reads them. A time without a
    zone is refused with the reason, since guide and converter differ about it."""
    header = sheet_header(run_items)
    # The converter needs every resource and dataset.
    row = cells(run_items, 1) | {header[6]: text, "Input resource: mask": "m", header[11]: run_items.datasets[0]}
    written = sheet(header, [row])
    file = tmp_path / f"rows.{form}"
    if form == "csv":
        file.write_text(written, newline="")
    else:
        import pyarrow

        table = pyarrow.Table.from_pylist([{name: row.get(name) for name in header}])
        pytest.importorskip("pyarrow.parquet").write_table(table, file)
    [read] = open_source(file).rows()
    if TIMES[text] is not None:
        assert read.faults == () and read.body is not None and read.body["start_time"] == TIMES[text]
        [theirs] = loop.run(provena.prov.convert_csv(written.encode())).new_records
        assert theirs.start_time == TIMES[text]
    else:
        [fault] = read.faults
        assert (fault.column, fault.kind) == ("start_time", "time")
        assert ("no offset from UTC" in fault.words) == text.endswith(("10:15:30", "10:15"))
        with pytest.raises(BadRequestError):
            loop.run(provena.prov.convert_csv(written.encode()))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_byte_order_mark_is_read_past(run_items, check, tmp_path, form):
    """Windows writes one before a text in UTF-8; it belongs to no column and no value."""
    lines = json.dumps(run_items.record(1))
    text = sheet(sheet_header(run_items), [cells(run_items, 1)]) if form == "csv" else lines
    (tmp_path / f"rows.{form}").write_text(text, "utf-8-sig", newline="")
    report, faults = check(tmp_path / f"rows.{form}")
    assert (report.rows, report.unsent, faults) == (1, 1, [])


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_a_row_of_another_form_claims_must_exist(run_items, check, tmp_path, form):
    """A job that is no UUID or unknown, and a run that is unknown, are faults in every form of file."""
    told = [{"_job_id": "note"}, {"_job_id": str(uuid.uuid4())}, {"_model_run_record_id": "102.100.100/none"}]
    empty = dict.fromkeys(("_job_id", "_model_run_record_id"))
    rows = [run_items.record(number) | empty | each for number, each in enumerate(told)]
    file = tmp_path / f"rows.{form}"
    if form == "jsonl":
        write_lines(file, rows)
    else:
        import pyarrow

        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
    report, faults = check(file)
    assert [(each.row, each.column, each.kind) for each in faults] == [
        (1, "_job_id", "wrong value"),
        (2, "_job_id", "unknown id"),
        (3, "_model_run_record_id", "unknown id"),
    ]
    assert (report.done, report.wrong) == (0, 3)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_row_whose_job_failed_is_not_done(run_items, check, done_run, tmp_path, form):
    """Provena's own columns say so; a job that has not ended may still lodge the row."""
    told = [{"_job_id": done_run[1], "_job_status": status, "_error_info": "why"} for status in ("FAILED", "PENDING")]
    file = tmp_path / f"rows.{form}"
    if form == "csv":
        rows = [cells(run_items, number) | columns for number, columns in enumerate(told)]
        file.write_text(sheet(sheet_header(run_items), rows), newline="")
    else:
        write_lines(file, [run_items.record(number) | columns for number, columns in enumerate(told)])
    report, faults = check(file)
    assert (report.rows, report.done, report.unsent, report.is_whole, faults) == (2, 1, 1, False, [])


@pytest.mark.parametrize("form", ["jsonl", "records", "parquet"])
@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "half a surrogate pair"])
def test_a_text_that_cannot_be_stored_is_a_fault(run_items, check, tmp_path, form, text):
    """Of its own row alone, wherever it stands; the other rows are read."""
    rows = [run_items.record(number) for number in range(4)]
    rows[0]["display_name"] = text
    rows[1]["annotations"] = rows[1]["annotations"] | {text: "x"}
    rows[2]["key"] = text
    if form == "records":
        keys = [row.pop("key", f"k{number}") for number, row in enumerate(rows)]
        # As a flow could make them; pydantic takes no half of a pair when it validates.
        made = [ModelRunRecord(**run_items.record(number)) for number in range(4)]
        for record, row in zip(made, rows, strict=True):
            record.display_name, record.annotations = row["display_name"], row["annotations"]
        source = RecordSource(list(zip(keys, made, strict=True)))
    elif form == "jsonl":
        source = write_lines(tmp_path / "rows.jsonl", rows)
    else:
        if "\0" not in text:
            pytest.skip("Parquet's texts are UTF-8.")
        import pyarrow

        table = pyarrow.Table.from_pylist([{"key": None} | row for row in rows])
        pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "rows.parquet")
        source = tmp_path / "rows.parquet"
    report, faults = check(source)
    assert [(each.row, each.column) for each in faults if each.row < 4] == [
        (1, "display_name"),
        (2, "annotations"),
        (3, "key"),
    ]
    assert {each.kind for each in faults if each.row < 4} == {"wrong value"}
    assert report.rows == 4


def test_a_header_of_another_form_is_refused(run_items, tmp_path):
    """A sheet that is not Provena's is told so at once, with all that its header lacks."""
    (tmp_path / "rows.csv").write_text("display name,agent id,agent id\nx,y,z\n")
    with pytest.raises(InputError, match=r"`_workflow template id <handle>`.*'description' is missing.*there twice"):
        list(open_source(tmp_path / "rows.csv").rows())


def test_parquet_and_records_say_the_same(run_items, check, tmp_path):
    """Nested Parquet columns, and records of a flow, are the rows that JSON Lines are: same keys, same faults."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [{**run_items.record(n, study_id=run_items.study), "key": f"k{n}"} for n in range(5)]
    rows[3]["study_id"] = run_items.person
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    lines = check(write_lines(tmp_path / "rows.jsonl", rows))
    other = check(tmp_path / "rows.parquet")
    records = [(row["key"], ModelRunRecord(**{k: v for k, v in row.items() if k != "key"})) for row in rows]
    third = check(RecordSource(records))
    assert lines[1] == other[1] == third[1] and [each.row for each in lines[1]] == [4]
    assert replace(lines[0], source="", sha256="") == replace(other[0], source="", sha256="")


@pytest.mark.parametrize(
    ("zone", "micros", "kinds"), [("+10:00", 0, []), ("+10:00", 500_000, ["time"]), (None, 0, ["time"])]
)
def test_a_time_in_parquet_is_one_instant(run_items, check, tmp_path, zone, micros, kinds):
    """A timestamp without a zone would mean another instant on each machine, and a fraction of a second would be lost:
    both are faults."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    end = 1_600_000_100
    row = run_items.record(1) | {"start_time": 1_600_000_000, "end_time": end}
    table = pyarrow.Table.from_pylist([row])
    column = pyarrow.array([end * 1_000_000 + micros], pyarrow.timestamp("us", zone))
    table = table.set_column(table.schema.get_field_index("end_time"), "end_time", column)
    parquet.write_table(table, tmp_path / "rows.parquet")
    _, faults = check(tmp_path / "rows.parquet")
    assert [(each.column, each.kind) for each in faults] == [("end_time", kind) for kind in kinds]
    [read] = open_source(tmp_path / "rows.parquet").rows()
    assert kinds or (read.body is not None and read.body["end_time"] == end)


def test_a_damaged_parquet_file_is_named(tmp_path):
    """Whichever byte of a file is wrong, it is read, or refused by name: no error of another kind leaves the reader."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

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
def test_a_file_that_cannot_be_opened_is_named(tmp_path, form):
    """As one that was moved away meanwhile."""
    file = tmp_path / f"rows.{form}"
    file.touch()
    rows = open_source(file).rows()
    file.unlink()
    with pytest.raises(InputError, match=f"rows.{form} cannot be read: No such file"):
        next(rows)


UNUSUAL = {
    "a time that Python cannot say": lambda pa: pa.array([0, 0, 2**62], pa.timestamp("us", "UTC")),
    "a date that Python cannot say": lambda pa: pa.array([0, 0, 2**30], pa.date32()),
    "bytes that are no text": lambda pa: pa.array([b"a", b"b", b"\xff"]),
    "bytes with a NUL": lambda pa: pa.array([b"a", b"b", b"a\0b"]),
    "such a key of a map": lambda pa: pa.array([[], [], [(b"\xff", b"x")]], pa.map_(pa.binary(), pa.binary())),
    "nanoseconds": lambda pa: pa.array([0, 0, 1_000_001], pa.timestamp("ns", "UTC")),
}


@pytest.mark.parametrize("column", ["display_name", "annotations", "start_time", "more"])
@pytest.mark.parametrize("what", UNUSUAL)
def test_an_unusual_value_in_parquet_is_a_fault_of_its_row(run_items, check, tmp_path, column, what):
    """Parquet can say what Python, JSON or a journal cannot; the other rows are read."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.Table.from_pylist([run_items.record(number) for number in range(3)])
    values = UNUSUAL[what](pyarrow)
    place = table.schema.get_field_index(column)
    table = table.append_column(column, values) if place < 0 else table.set_column(place, column, values)
    parquet.write_table(table, tmp_path / "rows.parquet")
    report, faults = check(tmp_path / "rows.parquet")
    assert report.rows == 3 and 3 in {each.row for each in faults}
    if column == "display_name" and what.startswith("bytes"):
        assert {each.row for each in faults} == {3} and report.unsent == 2


def test_texts_as_bytes_in_parquet_are_texts(run_items, tmp_path):
    """Some writers store texts without saying that they are: columns of bytes are read as UTF-8, in a sheet, too."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    header = sheet_header(run_items)
    row = {name: cells(run_items, 1).get(name, "").encode() for name in header}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text(sheet(header, [cells(run_items, 1)]), newline="")
    assert list(open_source(tmp_path / "rows.parquet").rows()) == list(open_source(tmp_path / "rows.csv").rows())


def test_a_sheet_in_parquet_is_the_sheet(run_items, tmp_path):
    """The columns of Provena's template are read from Parquet as from CSV, and empty cells as empty."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    header = sheet_header(run_items)
    done = cells(run_items, 2) | {"_model_run_record_id": "102/9"}
    rows = [cells(run_items, 1), done]
    (tmp_path / "rows.csv").write_text(sheet(header, rows), newline="")
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in header} for row in rows])
    parquet.write_table(table, tmp_path / "rows.parquet")
    read = [list(open_source(tmp_path / name).rows()) for name in ("rows.csv", "rows.parquet")]
    assert read[0] == read[1] and [row.is_done for row in read[0]] == [False, True]


def test_a_row_whose_job_failed_by_provenas_word_is_not_left_out(run_items, provena, failing_jobs, check, tmp_path):
    """The sheet says that the row is under way; its job has failed since, so the row's run never came to be."""
    record = ModelRunRecord(**run_items.record(1, display_name=f"Fails {uuid.uuid4()}"))

    async def fail() -> str:
        job = await provena.prov.register(record)
        assert (await provena.jobs.wait(job, 20)).status == "FAILED"
        return job

    with failing_jobs(record.display_name):
        job = loop.run(fail())
    row = run_items.record(1) | {"_job_id": job, "_job_status": "PENDING"}
    report, [fault] = check(write_lines(tmp_path / "rows.jsonl", [row]))
    assert (fault.column, fault.kind, report.done) == ("_job_id", "failed job", 0) and "Out of luck" in fault.words


def test_what_the_journal_knows_is_done(run_items, provena, journal, tmp_path):
    """Provena may forget a job; a row that this journal has registered is not registered again."""
    handle, job = "102.100.100/gone", str(uuid.uuid4())
    key = run_key("https://x", "someone", "urn:x:1", run_items.workflow)
    request = {"subject": "urn:x:1", "workflow-template": run_items.workflow}
    wanted = NewIntent(key, key, "model run", "https://x", "someone", "account", request)
    intent = journal.intents.mark_sent(journal.intents.claim(wanted).intent)
    journal.intents.settle(intent, urn=handle, outcome={"session_id": job}, how="sent")
    rows = [run_items.record(1) | {"_model_run_record_id": handle}, run_items.record(2) | {"_job_id": job}]

    async def checked() -> BatchReport:
        with Batch(open_source(write_lines(tmp_path / "rows.jsonl", rows)), provena, stall_timeout=5) as batch:
            return await batch.check(journal)

    assert loop.run(checked()).done == 2
