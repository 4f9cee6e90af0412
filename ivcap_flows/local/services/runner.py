"""One job in a process of its own, which outlives the server.

`python -m ivcap_flows.local.services.runner <directory> <job>` inherits the lock of its folder, records that it has
started (once, so that no job runs twice), runs the service and writes the result to the outbox in one step.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from ivcap_flows.local.directory import Directory, sync_folder, write_atomically
from ivcap_flows.local.services.job import ServiceError, ServiceJob
from ivcap_flows.local.services.posted import ended, with_products
from ivcap_flows.local.services.processes import note_process

__all__ = ["main"]


def _call(entry: str, path: list[str], request: Any, job: ServiceJob) -> Any:
    sys.path[:0] = path
    module, _, name = entry.partition(":")
    function = getattr(importlib.import_module(module), name)
    return function(request, job)


def _run(ticket: dict[str, Any], directory: Directory, job: ServiceJob) -> dict[str, Any]:
    """Return the outbox record: status, and result or message."""
    controller = ticket["controller"]
    try:
        if "entry" in controller:
            result = _call(controller["entry"], controller.get("path") or [], ticket["request"], job)
        else:
            # Imported here, since only a command needs the sidecar and its HTTP modules.
            from ivcap_flows.local.services.batch import run_command

            return run_command(ticket, directory, job)
        if isinstance(result, str):
            job.keep(None, result.encode(), "text/plain; charset=utf-8", is_result=True)
        elif isinstance(result, bytes | bytearray):
            job.keep(None, bytes(result), "application/octet-stream", is_result=True)
        else:
            json.dumps(result, allow_nan=False)
            return {"status": "succeeded", "result": result}
    except ServiceError as error:
        job.log(f"failed: {error}")
        return ended("failed", str(error))
    except BaseException as error:  # noqa: BLE001 - any exception of a service is its result
        traceback.print_exc()
        text = str(error)
        return ended("failed", type(error).__name__ + (f": {text}" if text else ""))
    return {"status": "succeeded", "result": None}


def main(root: str, urn: str) -> None:
    directory = Directory(Path(root))
    folder = directory.run(urn)
    ticket = json.loads((folder / "job.json").read_bytes())
    work = folder / "work"
    work.mkdir(mode=0o700, exist_ok=True)
    os.chdir(work)
    try:
        note_process(os.open(folder / "started", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), os.getpid())
    except FileExistsError:
        return
    sync_folder(folder)
    job = ServiceJob(directory, job=urn, order=ticket["order"], service=ticket["service"], account=ticket["account"])
    outcome = _run(ticket, directory, job)
    sys.stdout.flush()
    sys.stderr.flush()
    write_atomically(directory.outbox / f"{folder.name}.json", json.dumps(with_products(outcome, job)).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Do not wait for threads that a service has left running.
    os._exit(0)
