"""Rows on disk: their file is closed only when nobody is in it."""

import sqlite3
import subprocess
import sys

import pytest

from ivcap_flows.registration.spool import NewRow, Spool

SCRIPT = """
import threading
from ivcap_flows.registration.spool import Spool

reads, go = threading.Event(), threading.Event()
spool = Spool()
spool._database.create_function("slow", 0, lambda: reads.set() or go.wait(20))
reader = threading.Thread(target=lambda: print(spool._all("SELECT slow()")))
closer = threading.Thread(target=spool.__exit__, args=(None, None, None))
reader.start()
reads.wait(20)
closer.start()
closer.join(0.2)
print("closed" if not closer.is_alive() else "waits")
go.set()
reader.join(20)
closer.join(20)
print("closed" if not closer.is_alive() else "waits")
"""


def test_a_thread_that_still_reads_is_waited_for():
    """A batch that was cancelled leaves it behind; a file of SQLite closed meanwhile would end the process."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["waits", "[(1,)]", "closed", ""]), done.stderr


@pytest.mark.parametrize("fault", ["a full disk", "a row that cannot be stored"])
def test_what_cannot_be_written_whole_is_not_written(fault):
    """The rows stay as they were, and when the cause is gone, they can be written."""

    def row(number):
        return NewRow(number, "ready", None, f"k{number}", "s", "w", "n", {"description": "x" * 4000})

    rows = [row(number) for number in range(1, 500)]
    with Spool() as spool:
        spool.add_rows([row(0)])
        if fault == "a full disk":
            spool._database.execute("PRAGMA max_page_count = 60")
        with pytest.raises(sqlite3.Error, match=r"full|UNIQUE"):
            spool.add_rows(rows if fault == "a full disk" else [*rows, row(0)])
        assert spool.counts() == {"ready": 1}
        spool._database.execute("PRAGMA max_page_count = 100000")
        spool.add_rows(rows)
        assert spool.counts() == {"ready": 500}
