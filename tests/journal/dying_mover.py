"""Moves journals in processes that are killed before a step: `[number, source, target, verbs]` on each line of input.

Before a step means before that commit, or that statement with one of the verbs. For each line, the status of the
process is printed. It is forked from this one, which has no threads: a fork of a process with threads may inherit a
lock that nobody in it releases.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ivcap_flows.journal.moves import move


def die_before(number: int, verbs: tuple[str, ...]) -> None:
    left = number

    def reached(_connection: object, _cursor: object = None, statement: str = verbs[0], *_: object) -> None:
        nonlocal left
        left -= statement.startswith(verbs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(Engine, "before_cursor_execute", reached)
    sa.event.listen(Engine, "commit", reached)


for line in sys.stdin:
    number, source, target, verbs = json.loads(line)
    process = os.fork()
    if process == 0:
        failed = True
        try:
            die_before(number, tuple(verbs))
            move(source, target)
            failed = False
        finally:
            os._exit(failed)
    print(os.waitpid(process, 0)[1], flush=True)
