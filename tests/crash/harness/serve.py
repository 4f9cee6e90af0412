"""Forks a process for each flow and each command that it is asked for, without importing everything each time."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from harness.scenario import Scenario
from harness.steps import be_hasty

USED = (
    "fastapi",
    "prefect.concurrency",
    "prefect.flow_engine",
    "prefect.task_engine",
    "ivcap_flows.capture.code",
    "ivcap_flows.in_prefect.reconcile",
    "ivcap_flows.cli.app",
    "ivcap_flows.work.orphans",
    "ivcap_flows.journal.runs",
    "ivcap_flows.sinks",
    "ivcap_flows.tasks",
)
"""What flows and commands import when they need it."""


def tell(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def serve() -> dict[str, Any]:
    """In a forked process: what it is to do. The one that forks tells of each how it ended, and ends with its input."""
    for module in USED:
        importlib.import_module(module)
    children: dict[int, int] = {}
    unread = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.05 if children else None)
        if ready:
            some = os.read(0, 65536)
            if not some:
                sys.exit()
            *lines, unread = (unread + some).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                child = os.fork()
                if child == 0:
                    return dict(asked)
                children[child] = asked["number"]
                tell({"number": asked["number"], "pid": child})
        while children:
            child, ended = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            tell({"number": children.pop(child), "status": os.waitstatus_to_exitcode(ended)})


def obey(asked: dict[str, Any]) -> None:
    for stream, path in enumerate((os.devnull, asked["out"], asked["log"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
    os.environ.update(asked["environment"])
    os.chdir(asked["place"])
    be_hasty()
    if asked["words"] is not None:
        from ivcap_flows.cli import main

        sys.argv[1:] = asked["words"]
        main(asked["words"])
        return
    spec = importlib.util.spec_from_file_location("chain", asked["code"])
    assert spec is not None and spec.loader is not None
    module = sys.modules["chain"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = Path(asked["folder"])
    scenario = Scenario.read(folder)
    try:
        done = module.chain(str(folder), module.Wanted(**scenario.parameters))
    except BaseException:
        if not scenario.lives_on:
            raise
        # As a notebook does, or a service.
        (folder / f"gave-up-{os.getpid()}").touch()
        time.sleep(3600)
    (folder / "result.json").write_text(json.dumps(done), encoding="utf-8")


if __name__ == "__main__":
    obey(serve())
