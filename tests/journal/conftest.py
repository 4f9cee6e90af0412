"""Empty databases of both kinds, a journal in one, other processes that use it, and what to do at which statement."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from ivcap_flows.journal import Journal, RunIdentity

FORK = multiprocessing.get_context("fork")
LONGEST = 120
"""Seconds that a child may work before it says something."""


@pytest.fixture
def new_database(postgresql_server):
    """Makes an empty database; gives its URL."""

    def make():
        name = f"j{uuid.uuid4().hex}"
        with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgresql_server.format(name)

    return make


@pytest.fixture
def place(new_database, tmp_path):
    """Names an empty database, or a file that does not exist."""
    numbers = iter(range(1000))

    def named(kind):
        return new_database() if kind == "postgresql" else f"sqlite:///{tmp_path / f'{next(numbers)}.sqlite'}"

    return named


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    """The URL of a journal that is still to be made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'journal.sqlite'}"
    return request.getfixturevalue("new_database")()


@pytest.fixture
def journal(journal_url):
    with Journal.open(journal_url) as opened:
        yield opened


@pytest.fixture
def begin(journal):
    """Opens an attempt of a run whose id is this name."""

    def opened(name="1", *, at=journal, **more):
        return at.runs.open_attempt(RunIdentity("f", "f.py:f", {"name": name}, name, name, **more))

    return opened


class Child:
    """A process that works up to the first `yield` of a generator, and then stays as it is until it is killed."""

    def __init__(self, body):
        self._pipe, theirs = FORK.Pipe()

        def work():
            # A child that waits for ever, as for a lock that was held when it was forked, says where.
            faulthandler.dump_traceback_later(LONGEST / 2, file=sys.__stderr__)
            told = body()
            theirs.send(next(told))
            faulthandler.cancel_dump_traceback_later()
            time.sleep(600)

        self._process = FORK.Process(target=work, daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid

    def said(self):
        """What it yielded."""
        assert self._pipe.poll(LONGEST)
        return self._pipe.recv()

    def has_said(self):
        return self._pipe.poll()

    def kill(self):
        """Leave its entry in the process table, as a parent does that has not looked yet."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def end(self):
        self._process.kill()
        self._process.join()


@pytest.fixture
def child():
    """Starts a `Child`. All end with the test."""
    started = []

    def start(body):
        started.append(Child(body))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def at_once(child):
    """What so many children yield; each gets its number, and a function by which all wait for each other."""

    def start(count, body):
        together = FORK.Barrier(count)
        some = [child(partial(body, number, together.wait)) for number in range(count)]
        return [each.said() for each in some]

    return start


@pytest.fixture(scope="module")
def dying_at():
    """Return `dying_at(number, verbs, call, *arguments)`, which calls in a process that is killed before this commit,
    or statement with one of the verbs, and returns whether the call came to its end."""
    program = [sys.executable, str(Path(__file__).with_name("dying_process.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as dying:

        def die(number, verbs, call, *arguments):
            print(json.dumps([number, verbs, call, arguments]), file=dying.stdin, flush=True)
            status = int(dying.stdout.readline())
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
            return os.WIFEXITED(status)

        yield die
        dying.stdin.close()


@pytest.fixture
def at_statement():
    """Runs a call before, or after, a statement with these words is executed for a journal, by this thread if named."""

    def listen(journal, words, call, *, after=False, thread=None):
        def reached(_connection, _cursor, statement, *_):
            if words in statement and thread in (None, threading.current_thread().name):
                call()

        sa.event.listen(journal._store.engine, f"{'after' if after else 'before'}_cursor_execute", reached)

    return listen


@pytest.fixture
def failing_commits():
    """While the block runs, the commits of this store fail, though they may be on disk."""

    @contextmanager
    def failing(store, *, on_disk=False):
        dialect = store.engine.dialect
        real = dialect.do_commit

        def commit(connection):
            if on_disk:
                real(connection)
            raise dialect.loaded_dbapi.OperationalError("disk I/O error")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dialect, "do_commit", commit)
            yield

    return failing
