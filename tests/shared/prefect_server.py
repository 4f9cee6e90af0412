"""Prefect's server, `python -m prefect`, without two of its ways to keep clients waiting on SQLite.

Its garbage is collected in a thread of its own. Where a cursor of SQLite is among it, collecting waits while its
connection waits for another's lock. On the thread of the event loop the other, which goes on by the loop alone, then
never gives it: nothing is answered until Prefect's minute for a locked database is over.

Its transactions take turns from their beginning. One that has only read so far is refused its turn at once if another
has written meanwhile, and its client asks again after about 2, 4, 8, 16 and 32 s: a flow may take a minute to begin.
"""

import gc
import runpy
import threading
import time

import sqlalchemy as sa
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration


def collect() -> None:
    for second in range(10**9):
        time.sleep(1)
        gc.collect(1 if second % 30 else 2)


def begin(_: AioSqliteConfiguration, connection: sa.Connection) -> None:
    if SQLITE_BEGIN_MODE.get() is not None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


if __name__ == "__main__":
    gc.disable()
    threading.Thread(target=collect, daemon=True).start()
    AioSqliteConfiguration.begin_sqlite_stmt = begin
    runpy.run_module("prefect", run_name="__main__")
