"""Prefect's server, `python -m prefect` but for its garbage, which is collected in a thread of its own.

Where a cursor of SQLite is among the garbage, collecting waits while its connection waits for another's lock. On the
thread of the event loop the other, which goes on by the loop alone, then never gives it: nothing is answered until
Prefect's minute for a locked database is over.
"""

import gc
import runpy
import threading
import time


def collect() -> None:
    for second in range(10**9):
        time.sleep(1)
        gc.collect(1 if second % 30 else 2)


if __name__ == "__main__":
    gc.disable()
    threading.Thread(target=collect, daemon=True).start()
    runpy.run_module("prefect", run_name="__main__")
