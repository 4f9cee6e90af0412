"""Works on journals in processes that are killed before a step: `[number, verbs, call, arguments]` on each line of
input.

Before a step means before that commit, or that statement with one of the verbs, or that page of a copied file. For each
line, the status of the process is printed. It is forked from this one, which has no threads: a fork of a process with
threads may inherit a lock that nobody in it releases.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ivcap_flows.journal import Journal, upgrading
from ivcap_flows.journal.moves import move

sys.path.append(str(Path(__file__).with_name("revisions")))
import newer_code


def open_newer(url: str, adds_only: bool) -> None:
    newer_code.become(adds_only)
    Journal.open(url).close()


CALLS = {
    "move": move,
    "open": lambda url: Journal.open(url).close(),
    "open newer": open_newer,
    "undo": lambda url: upgrading.undo(url, lose=True),
}


def die_before(number: int, verbs: tuple[str, ...]) -> None:
    left = number

    def reached(_connection: object = None, _cursor: object = None, statement: str = verbs[0], *_: object) -> None:
        nonlocal left
        left -= statement.startswith(verbs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def copy(source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
            read.backup(written, pages=16, progress=lambda *_: reached())

    sa.event.listen(Engine, "before_cursor_execute", reached)
    sa.event.listen(Engine, "commit", reached)
    upgrading._copy = copy


for line in sys.stdin:
    number, verbs, call, arguments = json.loads(line)
    process = os.fork()
    if process == 0:
        failed = True
        try:
            die_before(number, tuple(verbs))
            CALLS[call](*arguments)
            failed = False
        finally:
            os._exit(failed)
    print(os.waitpid(process, 0)[1], flush=True)
