"""By what a run is known: the place of its code in its project, and its parameters, wherever they lie."""

import logging
import os
import runpy
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prefect import flow
from pydantic import BaseModel, ConfigDict, SecretStr

from ivcap_flows import recorded
from ivcap_flows.capture.context import current_attempt
from ivcap_flows.capture.flow_identity import Project, parameters_sha256
from ivcap_flows.capture.values import ValueScan

pytestmark = pytest.mark.canary


@pytest.fixture
def file(tmp_path):
    """Makes an empty file, by its path in the test's folder."""

    def make(name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return str(path)

    return make


@pytest.mark.parametrize(
    ("marks", "path", "code"),
    [
        (["a/.git", "a/b/pyproject.toml"], "a/b/c/flow.py", "b/c/flow.py:f"),
        (["a/b/.git", "a/.git"], "a/b/c/flow.py", "c/flow.py:f"),
        (["a/b/pyproject.toml"], "a/b/c/flow.py", "c/flow.py:f"),
        ([], "a/b/c/flow.py", "flow.py:f"),
        (["a/.git"], "a/.venv/lib/python3.11/site-packages/flows/monthly.py", "flows/monthly.py:f"),
    ],
)
def test_code_is_named_from_its_project_on(file, marks, path, code):
    """The nearest folder with `.git`, which a worktree has as a file; else with `pyproject.toml`; else none. An
    environment within a checkout is no part of it, and its Python no part of the name."""
    path = file(path)
    for mark in marks:
        file(mark)
    # Above the test's folder there is no project.
    assert Project.around(path).code(path, "f") == code


def test_what_lies_in_no_file_keeps_its_folder(tmp_path):
    """As code typed in an interactive session, which lies nowhere."""
    (tmp_path / ".git").touch()
    path = f"{tmp_path}/<stdin>"
    assert Project.around(path).code(path, "f") == f"{path}:f"


def test_only_what_lies_in_the_project_counts_from_there(file, tmp_path):
    """Absolute paths, alone or given to an option; a neighbour and a relative path are what they are."""
    file("real/.git")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    flow_file = file("real/flow.py")
    for root in ("real", "linked"):
        project, at = Project.around(flow_file.replace("real", root)), tmp_path / root
        assert project.path(f"{at}/data/a.csv") == "<project>/data/a.csv"
        assert project.path(f"--in={at}/a=b.csv") == "<project>/a=b.csv".join(["--in=", ""])
        assert project.path(f"{at}") == "<project>/."
        assert project.path(f"{tmp_path}/real/a.csv") == "<project>/a.csv"
        for text in (f"{at}s/a.csv", f"{at}/../a.csv", "data/a.csv", "", "-", "text = text", "--in=a.csv"):
            assert project.path(text) == text


class Client:
    pass


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    inner: object


def sha(value: object) -> str:
    return parameters_sha256({"value": value}, Project(None))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"one", b"two"),
        (2**80, 2**81),
        (float("inf"), float("nan")),
        (list(range(30_000)), [*range(29_999), 0]),
        ("x" * 200_000, "x" * 199_999 + "y"),
        (Frozen(inner=1), Frozen(inner=2)),
        (Path("a"), Path("b")),
        ([[[[[[[[[[1]]]]]]]]]], [[[[[[[[[[2]]]]]]]]]]),
    ],
)
def test_values_that_differ_anywhere_are_two(one, other):
    """Also where the record shows them cut short, or by their type alone."""
    assert sha(one) == sha(one) != sha(other) == sha(other)


def test_a_secret_is_no_part_of_it():
    """A token that was renewed makes no other run."""
    assert sha(SecretStr("first-token")) == sha(SecretStr("second-token"))


@pytest.mark.parametrize("value", [Client(), print, np.arange(3), {1.5: 1}, Frozen(inner=Client()), os.environ])
def test_what_cannot_be_compared_is_like_nothing(value, caplog):
    """Not even like itself; a warning names the parameter and what follows."""
    caplog.set_level(logging.WARNING)
    ours = [parameters_sha256({"inner": [value]}, Project(None), of="the flow f") for _ in range(2)]
    assert ours[0] != ours[1]
    assert "If the flow f does not complete, the same command begins a new run" in caplog.text
    assert "`parameters.inner[0]" in caplog.text


class Breaks(BaseModel):
    def __getattribute__(self, name: str) -> object:
        if name == "x":
            raise RuntimeError("broken")
        return super().__getattribute__(name)

    x: int = 1


def test_a_value_that_breaks_when_it_is_read_ends_no_run(caplog):
    """It is like nothing, and a warning says why."""
    assert sha(Breaks()) != sha(Breaks())
    parameters_sha256({"value": Breaks()}, Project(None), of="the flow f")
    assert "its parameters cannot be compared (RuntimeError)" in caplog.text


def test_a_record_of_a_set_has_an_order():
    """That of the canonical form; what has none comes last."""
    shown = ValueScan().at("x", {(2, "b"), (1, "a"), Client(), "c", 10, 9})
    assert shown[:5] == ["c", 10, 9, [1, "a"], [2, "b"]]
    assert shown[5]["type"].endswith(".Client")


@flow(name="compared", validate_parameters=False)
@recorded
def compared(value: object, fail: bool = True) -> str:
    run = current_attempt().run.id
    if os.environ.get("FAIL"):
        raise RuntimeError(run)
    return run


@pytest.mark.parametrize(
    ("value", "continues"),
    [
        ([{"a", ("b", 1)}, np.arange(4), pd.DataFrame({"a": np.sin(np.arange(60))}), Path("x")], True),
        ([1, Client()], False),
    ],
)
def test_only_a_run_that_can_be_compared_is_continued(
    prefect_api, ivcap_journal, monkeypatch, value, continues, caplog
):
    """Two clients of one type are two; the run that has one begins anew, says so, and is recorded."""
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(RuntimeError) as error:
        compared(value)
    monkeypatch.delenv("FAIL")
    again = compared(value)
    assert (again == str(error.value)) is continues
    assert ("begins a new run instead of continuing it: `parameters.value" in caplog.text) is not continues
    assert len(ivcap_journal.runs.recent()) == 2 - continues


DATED = """
import os
from datetime import datetime
from ivcap_flows import flow

@flow
def dated(month: str, until: datetime = datetime.now(), times: int = 1) -> None:
    if os.environ.get("FAIL"):
        raise RuntimeError(month)
"""
MOMENT = datetime(2010, 1, 31)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"month": "a"}, {"month": "a"}, True),
        pytest.param({"month": "a", "times": 2}, {"month": "a", "times": 2}, True, marks=pytest.mark.long),
        ({"month": "a"}, {"month": "b"}, False),
        ({"month": "a"}, {"month": "a", "times": 2}, False),
        ({"month": "a", "until": MOMENT}, {"month": "a"}, False),
        ({"month": "a"}, {"month": "a", "until": MOMENT}, False),
    ],
)
def test_a_default_made_at_import_is_named(prefect_api, ivcap_journal, file, monkeypatch, caplog, first, second, named):
    """The line names the unfinished run and the parameter, if nothing that was given differs. With the value of then,
    the run goes on; once a run has completed, none is named."""
    path = Path(file("dated.py"))
    path.write_text(DATED, encoding="utf-8")

    def run(**given: object) -> str:
        """Run the flow as another process would, and return what is said at its start."""
        caplog.clear()
        flow_again = runpy.run_path(str(path))["dated"]
        flow_again(**given, return_state=True)
        return "\n".join(line for line in caplog.messages if "A new run begins" in line or "Continues run" in line)

    monkeypatch.setenv("FAIL", "1")
    assert run(**first) == ""
    [unfinished] = ivcap_journal.runs.recent()
    until = unfinished.parameters["until"]
    said = run(**second)
    assert (f"Run {unfinished.id} of this flow did not complete" in said and f"until ({until} then)" in said) is named
    monkeypatch.delenv("FAIL")
    if named:
        assert f"Continues run {unfinished.id}" in run(**first, until=datetime.fromisoformat(until))
        run(**first)
        assert run(**first) == ""


SCRIPT = """
import os
os.chdir("/")
from ivcap_flows.capture import note
from ivcap_flows.capture.context import current_attempt
from ivcap_flows.provenance import entity
opened = current_attempt()
print(opened.run.id, opened.run.flow, opened.run.entry_point, flush=True)
os._exit(9)
"""


@pytest.mark.long
def test_a_script_without_a_flow_is_continued_after_a_move(file, tmp_path):
    """Known by its place in its project and its arguments, also where it has left the folder that it began in."""
    said = []
    for folder in ("first", "second/deeper"):
        file(f"{folder}/.git")
        script = Path(file(f"{folder}/work/run.py"))
        script.write_text(SCRIPT, encoding="utf-8")
        command = [sys.executable, "run.py", f"--in={tmp_path / folder}/data.csv", "end"]
        done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 9, done.stderr
        said.append(done.stdout.split())
    (first, flow_name, place), (second, *_, there) = said
    assert first == second and flow_name == "work/run.py:"
    assert (place, there) == (f"{tmp_path}/first/work/run.py:", f"{tmp_path}/second/deeper/work/run.py:")
