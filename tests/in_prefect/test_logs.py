"""The package's messages and errors in the log of a run: once in Prefect's API, and once on the console."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ivcap_flows.errors import InputError
from ivcap_flows.in_prefect import logs

pytestmark = pytest.mark.canary

SCRIPT = """
import asyncio
from pathlib import Path
from prefect.runtime import flow_run
from ivcap_flows import flow, loop, task
from ivcap_flows.secrets import logger_of
from ivcap_flows.tasks import aupload_artifact

logger = logger_of("ivcap_flows.waiting")

async def on_the_loop():
    logger.warning("said on the loop")

@task
def works():
    logger.info("said in a task")
    loop.run(on_the_loop())
    made = Path("made.txt")
    made.write_text("made")
    return made

@flow
async def says():
    print(flow_run.get_id(), flush=True)
    works()
    logger.info("said in a flow")
    await aupload_artifact(Path("nowhere"))

if __name__ == "__main__":
    logger.warning("said before")
    asyncio.run(says())
"""
IN_RUN = ("said in a task", "said on the loop", "said in a flow")


@pytest.mark.parametrize(
    ("extra", "level"),
    [
        pytest.param("", "INFO", marks=pytest.mark.long, id="plain"),
        pytest.param("ivcap_flows", "INFO", id="extra logger"),
        pytest.param("ivcap_flows", "DEBUG", marks=pytest.mark.long, id="extra logger with debugging"),
    ],
)
def test_a_run_logs_each_message_once_and_its_error_in_one_paragraph(prefect_server, tmp_path, extra, level):
    """Each message as one of its flow or task run; also where a user has Prefect show the package's logger.

    An error of the package is there once, without the traceback, which the level DEBUG asks for; Python shows its own.
    The run's page is shown while the interpreter of an asynchronous flow ends, which starts no thread any more.
    """
    script = tmp_path / "says.py"
    script.write_text(SCRIPT)
    environment = {
        **prefect_server,
        "IVCAP_FLOWS_JOURNAL": os.environ["IVCAP_FLOWS_JOURNAL"],
        "IVCAP_URL": "http://127.0.0.1:9",
        "IVCAP_JWT": "no token",
        "PREFECT_LOGGING_EXTRA_LOGGERS": extra,
        "PREFECT_LOGGING_LEVEL": level,
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    log, _, pythons = done.stderr.rpartition("Traceback (most recent call last)")
    for said in IN_RUN:
        [line] = [line for line in log.splitlines() if said in line]
        assert ("Flow run" if said.endswith("flow") else "Task run") in line
    assert "said before" in log and "Logging error" not in log and "atexit" not in done.stderr
    assert "ConfigurationError: The token is empty" in pythons
    assert ("Traceback" in log) == (level == "DEBUG"), log
    if level == "INFO":
        first, *others = [line.partition(" - ")[2] for line in log.splitlines() if "| ERROR" in line]
        assert first.startswith("ConfigurationError: The token is empty") and log.count("The token is empty") == 1
        assert others and all("ConfigurationError, see above" in line for line in others)

    flow_run = done.stdout.strip()
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}), get_client(sync_client=True) as api:
        read = api.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run])), limit=200)
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
        assert any("# says: failed" in str(each.data) for each in api.read_artifacts(artifact_filter=of_run))
    for said in IN_RUN:
        [entry] = [entry for entry in read if entry.message == said]
        run_logger = "prefect.flow_runs" if said.endswith("flow") else "prefect.task_runs"
        assert entry.name == ("ivcap_flows.waiting" if extra else run_logger)
        assert (entry.task_run_id is None) == said.endswith("flow")


def test_a_run_that_parks_is_no_error(caplog):
    """Prefect tells it at the level ERROR when an asynchronous flow parks; other ends keep their level."""
    logs.show_in_runs()
    run = logging.getLogger("prefect.flow_runs")
    local = temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False})
    with local, caplog.at_level(logging.INFO, "prefect.flow_runs"):
        run.error("Finished in state Parked('Parked: waits for 1 order (north).', type=SCHEDULED)")
        run.error("Finished in state Failed('Parked(')")
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]


def test_threads_may_fail_at_once(monkeypatch):
    """Each error is told by its message, and then known, while others are told."""
    monkeypatch.setattr(logs, "_said", type(logs._said)())
    errors = [InputError(f"The year {number} is none.") for number in range(2000)]

    def told(error):
        record = logging.makeLogRecord({"name": "prefect.flow_runs", "msg": "Ended:", "exc_info": (None, error, None)})
        return logs._briefly(record) and record.getMessage()

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            first, again = ([*threads.map(told, errors)] for _ in range(2))
    finally:
        sys.setswitchinterval(switch)
    assert first == [f"InputError: {error}" for error in errors]
    assert set(again) == {"Ended: InputError, see above."}


def test_at_level_debug_an_error_keeps_its_traceback(caplog):
    """At every other level the log of a run has an error of the package by its message alone."""
    logs.show_in_runs()
    run, kept = logging.getLogger("prefect.flow_runs"), []
    for level in (logging.DEBUG, logging.INFO):
        caplog.clear()
        with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}), caplog.at_level(level, "prefect.flow_runs"):
            try:
                raise InputError("The year must be a number.")
            except InputError:
                run.exception("Encountered an exception during execution:")
        [record] = caplog.records
        kept.append(record.exc_info is not None)
        assert "The year must be a number." in caplog.text
    assert kept == [True, False]
