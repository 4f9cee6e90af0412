"""The package's messages in the log of a run: once in Prefect's API, and once on the console."""

import logging
import os
import subprocess
import sys

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ivcap_flows.in_prefect import logs

pytestmark = pytest.mark.canary

SAYS = """
from prefect.runtime import flow_run
from ivcap_flows import flow, loop, task
from ivcap_flows.secrets import logger_of

logger = logger_of("ivcap_flows.waiting")

async def on_the_loop():
    logger.warning("said on the loop")

@task
def works():
    logger.info("said in a task")
    loop.run(on_the_loop())

@flow
def says():
    works()
    logger.info("said in a flow")
    return flow_run.get_id()

if __name__ == "__main__":
    logger.warning("said before")
    print(says())
"""
IN_RUN = ("said in a task", "said on the loop", "said in a flow")


@pytest.mark.parametrize(
    "extra", [pytest.param("", marks=pytest.mark.long, id="plain"), pytest.param("ivcap_flows", id="extra logger")]
)
def test_each_message_is_shown_once(prefect_server, tmp_path, extra):
    """As one of its flow or task run; also where a user has Prefect show the package's logger."""
    script = tmp_path / "says.py"
    script.write_text(SAYS)
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": os.environ["IVCAP_FLOWS_JOURNAL"]}
    environment["PREFECT_LOGGING_EXTRA_LOGGERS"] = extra
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    for said in IN_RUN:
        [line] = [line for line in lines if said in line]
        assert ("Flow run" if said.endswith("flow") else "Task run") in line
    assert [line for line in lines if "said before" in line] and "Logging error" not in done.stderr
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[done.stdout.strip()]))
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}), get_client(sync_client=True) as api:
        read = api.read_logs(of_run, limit=200)
    for said in IN_RUN:
        [log] = [log for log in read if log.message == said]
        run_logger = "prefect.flow_runs" if said.endswith("flow") else "prefect.task_runs"
        assert log.name == ("ivcap_flows.waiting" if extra else run_logger)
        assert (log.task_run_id is None) == said.endswith("flow")


def test_a_run_that_parks_is_no_error(caplog):
    """Prefect tells it at the level ERROR when an asynchronous flow parks; other ends keep their level."""
    logs.show_in_runs()
    run = logging.getLogger("prefect.flow_runs")
    local = temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False})
    with local, caplog.at_level(logging.INFO, "prefect.flow_runs"):
        run.error("Finished in state Parked('Parked: waits for 1 order (north).', type=SCHEDULED)")
        run.error("Finished in state Failed('Parked(')")
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]


FAILS = """
from prefect import flow
from ivcap_flows import recorded
from ivcap_flows.tasks import get_order

@flow
@recorded
def fails():
    get_order("urn:ivcap:order:00000000-0000-0000-0000-000000000000")

if __name__ == "__main__":
    fails()
"""


@pytest.mark.parametrize("level", ["INFO", pytest.param("DEBUG", marks=pytest.mark.long)])
def test_an_error_of_the_package_is_one_paragraph(prefect_server, embedded_platform, tmp_path, level):
    """Prefect's log has it once, without the traceback, which the level DEBUG asks for; Python shows its own."""
    script = tmp_path / "fails.py"
    script.write_text(FAILS)
    ours = {name: value for name, value in os.environ.items() if name.startswith("IVCAP")}
    environment = {**prefect_server, **ours, "PREFECT_LOGGING_LEVEL": level}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    log, _, pythons = done.stderr.rpartition("Traceback (most recent call last)")
    assert "NotFoundError: IVCAP answered 404" in pythons
    assert ("Traceback" in log) == (level == "DEBUG"), log
    if level == "INFO":
        assert log.count("There is no such order") == 1
        first, *others = [line.partition(" - ")[2] for line in log.splitlines() if "| ERROR" in line]
        assert first.startswith("NotFoundError: IVCAP answered 404 to GET /1/orders/")
        assert others and all("NotFoundError, see above" in line for line in others)
