"""A forked child works, whatever the parent's other threads were doing at the fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, os, pkgutil, signal, sys, threading
import ivcap_flows
from ivcap_flows import tasks
from ivcap_flows.capture.recorder_registry import journal as current_journal
from ivcap_flows.forked import PerProcess

for module in pkgutil.walk_packages(ivcap_flows.__path__, "ivcap_flows."):
    if not module.name.startswith(("ivcap_flows.cli", "ivcap_flows.testing")) and "__main__" not in module.name:
        importlib.import_module(module.name)

def add(number):
    return tasks.attach_aspect.fn("urn:test:forks", {"number": number}, schema="urn:test:schema:forks.1").urn

first = add(1)
kinds = (type(threading.Lock()), type(threading.RLock()))

def locks():
    journal = current_journal()
    seen = [(None, "group commit", journal._group_commit), (None, "transactions", journal._store._transactions)]
    for name, module in list(sys.modules.items()):
        if name.startswith("ivcap_flows"):
            seen += [(module, f"{name}.{each}", value) for each, value in vars(module).items()]
    for owner, name, value in seen:
        yield from locks_in(name, value)

def locks_in(name, value, depth=0):
    if isinstance(value, PerProcess):
        value = value()
    if isinstance(value, kinds):
        yield name, value
    elif depth < 2 and type(value).__module__.startswith("ivcap_flows") and not isinstance(value, type):
        for each, inner in getattr(value, "__dict__", {}).items():
            yield from locks_in(f"{name}.{each}", inner, depth + 1)

held, forked = threading.Event(), threading.Event()
names = sorted({name for name, _ in locks()})

def hold():
    taken = {id(lock): lock for _, lock in locks()}
    for lock in taken.values():
        assert lock.acquire(timeout=5)
    held.set()
    forked.wait()
    for lock in taken.values():
        lock.release()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(40)
    assert add(2) != first
    print("child", len(names), flush=True)
    os._exit(0)
forked.set()
print(names, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), add(3) != first, flush=True)
"""


@pytest.mark.long
def test_a_child_forked_while_all_locks_are_held_runs_a_task(embedded_platform: object, sqlite_url: str) -> None:
    """A child that is forked while other threads hold each lock of the package has locks of its own.

    The parent continues.
    """
    environment = {**os.environ, "IVCAP_FLOWS_JOURNAL": sqlite_url}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    child, parent = done.stdout.splitlines()
    assert child.startswith("child ") and int(child.split()[1]) >= 10
    assert parent.endswith(" 0 True") and "ivcap_flows.durable.heartbeat._lock" in parent
