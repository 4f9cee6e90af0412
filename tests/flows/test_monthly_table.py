"""Monthly tables of both forms, and every fault in them by its line."""

from decimal import Decimal
from pathlib import Path

import pytest

from flows.monthly_table import MonthlyTable, parse_table
from flows.services.months import Month, read_series
from ivcap_flows.errors import InputError

BUNDLED = Path(__file__).parents[2] / "flows/data/ersst_nino12_monthly.csv"
NOAA = b""" YR   MON  NINO1+2   ANOM   NINO3    ANOM   NINO4    ANOM NINO3.4    ANOM
2025  11    21.01   -0.55   24.56   -0.10   28.94    0.38   26.55   -0.19
2025  12    22.40   -0.43   24.90   -0.19   28.61    0.15   26.31   -0.28
2026   1    24.50   -0.10   25.60   -0.05   28.30    0.02   26.50   -0.07
"""


def test_the_rows_of_noaa_are_months():
    """Of NOAA's columns, the region Niño 1+2 is read, and not its anomaly or another region."""
    table = parse_table(NOAA, "ersst5.nino.mth.91-20.ascii")
    assert table.temperatures == {
        Month(2025, 11): Decimal("21.01"),
        Month(2025, 12): Decimal("22.40"),
        Month(2026, 1): Decimal("24.50"),
    }
    assert table.last == Month(2026, 1)


def test_what_the_services_get_has_every_digit_of_the_source():
    """The bundled CSV is written as it is, byte for byte; NOAA's text as a CSV that the services read."""
    assert parse_table(BUNDLED.read_bytes(), BUNDLED.name).csv().encode() == BUNDLED.read_bytes()
    table = parse_table(NOAA, "text")
    lines = table.csv().splitlines()
    assert lines[1:] == ["2025,,,,,,,,,,,21.01,22.40", "2026,24.50,,,,,,,,,,,"]
    assert read_series(table.csv().encode()) == {at: float(value) for at, value in table.temperatures.items()}


def test_a_table_as_it_was():
    """`until` leaves out the months after, and refuses one that the table does not have."""
    table = parse_table(NOAA, "text")
    assert table.until("2025-12").csv().splitlines()[1:] == ["2025,,,,,,,,,,,21.01,22.40"]
    with pytest.raises(InputError, match="no 2026-02; it goes from 2025-11 to 2026-01"):
        table.until("2026-02")


def test_missing_months_have_no_temperature():
    """An empty cell and NOAA's marks are missing months, and no fault."""
    table = parse_table(BUNDLED.read_bytes().replace(b"24.190,", b",", 1).replace(b"25.280,", b"-99.99,", 1), "a.csv")
    assert not {Month(1951, 1), Month(1951, 2)} & table.temperatures.keys()
    assert isinstance(table, MonthlyTable) and Month(1951, 3) in table.temperatures


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        (NOAA.replace(b"22.40", b"warm"), ["line 3, NINO1+2: Input should be a valid decimal, not 'warm'"]),
        (
            NOAA.replace(b"22.40", b"224.0"),
            ["line 3, NINO1+2: Input should be less than or equal to 45.0, not '224.0'"],
        ),
        (NOAA.replace(b"  12 ", b"  13 "), ["line 3, MON: Input should be less than or equal to 12, not '13'"]),
        (NOAA.replace(b"  12 ", b"  10 "), ["line 3: 2025-10 where 2025-12 should follow"]),
        (NOAA.replace(b"26.31   -0.28", b""), ["line 3: 8 cells where the header has 10"]),
        (NOAA.rpartition(b" 25.60")[0], ["line 4: 4 cells where the header has 10", "line 4: the line does not end"]),
        (NOAA[:-1], ["line 4: the line does not end; is the file whole?"]),
        (NOAA.partition(b"\n")[0] + b"\n", ["line 1: no month follows the header"]),
        (NOAA.replace(b"NINO1+2", b"NINO3.4"), ["line 1: the header should be"]),
        (NOAA.replace(b"22.40", b"\xff"), ["line 3: it is no UTF-8 text"]),
        (
            NOAA.replace(b"21.01", b"x").replace(b"2026 ", b"year "),
            [
                "line 2, NINO1+2: Input should be a valid decimal, not 'x'",
                "line 4, YR: Input should be a valid integer, unable to parse string as an integer, not 'year'",
            ],
        ),
        (b"YEAR,JAN\n", ["line 1: the header should be"]),
        (b"", ["the file is empty"]),
        (
            BUNDLED.read_bytes().replace(b"24.190,", b"24.19O,", 1).replace(b"\n1953,", b"\n1954,", 1),
            [
                "line 3, JAN: Input should be a valid decimal, not '24.19O'",
                "line 5: 1954-01 where 1953-01 should follow",
            ],
        ),
    ],
)
def test_each_fault_is_named_by_its_line(data, faults):
    """All faults of a table are named at once, with line, column and what stands there."""
    with pytest.raises(InputError, match="table.txt is no monthly table") as caught:
        parse_table(data, "table.txt")
    found = caught.value.faults
    assert all(any(each.startswith(fault) for each in found) for fault in faults), found
    assert all(fault in str(caught.value) for fault in found)


def test_a_web_page_is_no_table():
    """HTML in place of data is said to be that."""
    with pytest.raises(InputError, match="is a web page, not a monthly table"):
        parse_table(b"\n<!DOCTYPE html>\n<title>Moved</title>\n", "https://example.org/table")


def test_a_message_names_ten_faults_and_the_data_all():
    """A table that is wrong throughout does not fill the log."""
    with pytest.raises(InputError, match="and 51 more") as caught:
        parse_table(BUNDLED.read_bytes().replace(b"\n", b",\n").replace(b",\n", b"\n", 1), BUNDLED.name)
    assert len(caught.value.faults) == 61
