"""Background tasks in real task workers that are killed and started again: each task run is a run of its own."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import background_tasks
import pytest
from background_tasks import ask
from eventually import until
from other_processes import end_at_once, settings_of_platforms
from prefect.client.orchestration import get_client
from prefect.states import Scheduled

from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.canary, pytest.mark.e2e, pytest.mark.usefixtures("prefect_api", "example_services")]

PROGRAM = str(Path(background_tasks.__file__))


@pytest.fixture
def task_worker(prefect_server, embedded_platform, tmp_path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts task workers, which share the test's journal. All end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with open(tmp_path / f"task-worker-{len(started)}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, PROGRAM],
                env={**prefect_server, **settings_of_platforms()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        end_at_once(process)


def deliver_again(task_run_id: UUID) -> None:
    """Have Prefect deliver a task run once more, with its parameters."""
    with get_client(sync_client=True) as client:
        sent = client.read_task_run_states(task_run_id)[0].state_details
        details = {"deferred": True, "task_parameters_id": sent.task_parameters_id}
        client.set_task_run_state(task_run_id, Scheduled(state_details=details), force=True)


def test_each_background_task_is_a_run_of_its_own(task_worker, ivcap_journal: Journal, tmp_path):
    """Equal ones have a job each, also of a worker that was started again; one that is delivered again keeps its."""

    def ended(*task_runs):
        runs = [ivcap_journal.runs.find(str(each.task_run_id)) for each in task_runs]
        return all(run is not None and run.outcome == "completed" for run in runs) and runs

    worker, dies = task_worker(), tmp_path / "dies"
    said = lambda: "".join(path.read_text() for path in tmp_path.glob("*.log"))  # noqa: E731
    equal = [ask.delay("same"), ask.delay("same")]
    until(lambda: ended(*equal), said=said)
    dies.touch()
    killed = ask.delay("same", str(dies))
    assert until(worker.poll, lambda code: code is not None, said=said) == -signal.SIGKILL
    task_worker()
    equal.append(ask.delay("same"))
    until(lambda: ended(*equal), said=said)
    deliver_again(killed.task_run_id)
    until(lambda: ended(killed), said=said)
    assert {run.id for run in ivcap_journal.runs.recent()} == {str(each.task_run_id) for each in [*equal, killed]}
    jobs = [ivcap_journal.intents.where(run_id=str(each.task_run_id), noun="job") for each in [*equal, killed]]
    assert [len(each) for each in jobs] == [1, 1, 1, 1]
    assert len({each[0].urn for each in jobs}) == 4
    attempts = ivcap_journal.runs.attempts(str(killed.task_run_id))
    assert [(each.number, each.outcome) for each in attempts] == [(1, "lost"), (2, "completed")]
