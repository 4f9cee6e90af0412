"""The package's messages in the log of a run: once in Prefect's API, and once on the console."""

import os
import subprocess
import sys

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings

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


@pytest.mark.parametrize("extra", ["", "ivcap_flows"], ids=["plain", "extra logger"])
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
        logs = api.read_logs(of_run, limit=200)
    for said in IN_RUN:
        [log] = [log for log in logs if log.message == said]
        run_logger = "prefect.flow_runs" if said.endswith("flow") else "prefect.task_runs"
        assert log.name == ("ivcap_flows.waiting" if extra else run_logger)
        assert (log.task_run_id is None) == said.endswith("flow")
