"""Rows on disk: their file is closed only when nobody is in it."""

import subprocess
import sys

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
