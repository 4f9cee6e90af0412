"""Background tasks, and `python background_tasks.py`, a task worker that serves them."""

import os
import signal
from pathlib import Path

from prefect import task
from prefect.task_worker import serve

from ivcap_flows.tasks import request_job


@task
def ask(message: str, dies: str | None = None) -> str:
    """Request a job. While there is a file `dies`, remove it and die."""
    urn = request_job("echo", {"message": message}).urn
    if dies is not None and Path(dies).exists():
        Path(dies).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return urn


if __name__ == "__main__":
    serve(ask)
