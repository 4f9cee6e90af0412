"""The outcome file is read by people in a spreadsheet, and may lie in a folder that others write to."""

import csv
import os
import resource

import pytest

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.registration.outcome import HEADER, OutcomeFile
from ivcap_flows.registration.spool import NewRow, Outcome, Spool


@pytest.fixture
def spool():
    """Rows that Provena refused in words which a spreadsheet would take for formulas."""
    with Spool() as made:
        said = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "refused: a = b"]
        made.add_rows(NewRow(n, "ready", f"k{n}", f"k{n}", "s", "w", "n", {}) for n in range(1, 7))
        made.stand(Outcome(n, None, "failed", words=words) for n, words in enumerate(said, 1))
        yield made


def test_no_reason_is_a_formula(spool, tmp_path):
    """A platform's words may be those of anybody who named something there; other reasons are left as they are."""
    OutcomeFile(tmp_path / "out.csv", spool)._write(known_only=False)
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    reasons = [row[-1] for row in rows]
    assert tuple(header) == HEADER and len(reasons) == 6 and reasons[-1] == "refused: a = b"
    assert all(reason.startswith("'") for reason in reasons[:-1])


def test_no_link_that_others_plant_is_followed(spool, tmp_path):
    """Neither under a name that could be foreseen, nor under the file's own."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for name in (f".out.csv.{os.getpid()}", "out.csv"):
        (tmp_path / name).symlink_to(mine)
    out = OutcomeFile(tmp_path / "out.csv", spool)
    out.begin()
    out.finish()
    assert mine.read_text() == "mine" and not (tmp_path / "out.csv").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out.csv", f".out.csv.{os.getpid()}"}


def test_a_full_disk_is_a_clear_error(spool, tmp_path):
    """Whenever it is full: the file is named, and the next step. A process's limit stands for the disk's."""
    out = OutcomeFile(tmp_path / "out.csv", spool)
    out.begin()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        for write in (lambda: out.add(spool.outcomes()), out.finish, out.begin):
            with pytest.raises(ConfigurationError, match=f"no room for {tmp_path}/out.csv"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
