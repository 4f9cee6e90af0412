"""`init`: a project that runs."""

import runpy
import subprocess
import sys

import pytest
import yaml

from ivcap_flows.cli.init import FILES


def test_a_project_is_written_whole(ivcap_flows, tmp_path):
    """Its code compiles, and its deployments are those of the flow and of what operates it."""
    said = ivcap_flows("init", tmp_path / "new" / "demo")
    assert said.status == 0 and str(tmp_path / "new" / "demo") in said.out
    there = tmp_path / "new" / "demo"
    files = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert files == set(FILES)
    for path in there.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    shipped = yaml.safe_load((there / "prefect.yaml").read_text(encoding="utf-8"))
    assert [each["name"] for each in shipped["deployments"]] == ["shout"]


@pytest.mark.parametrize("name", ["a, b", "c: d #e", "{f} [g]", "h\ti", "'j' \"k\" \\", "~"])
def test_the_folder_may_have_any_name(ivcap_flows, tmp_path, name):
    """What means something in YAML, too."""
    there = tmp_path / name
    assert ivcap_flows("init", there).status == 0
    [step] = yaml.safe_load((there / "prefect.yaml").read_text(encoding="utf-8"))["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(there)}}


@pytest.mark.long
def test_its_files_have_types(ivcap_flows, tmp_path):
    """mypy finds nothing in them, strict as it can be."""
    ivcap_flows("init", tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_its_flow_runs(ivcap_flows, tmp_path, monkeypatch, embedded_platform, ivcap_journal, prefect_api):
    """As its test runs it: an order whose reply is lost is placed once."""
    ivcap_flows("init", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    embedded_platform.register(tmp_path / "services/shout.yaml")
    monkeypatch.delitem(sys.modules, "flow", raising=False)
    test = runpy.run_path(str(tmp_path / "test_flow.py"))["test_a_lost_reply_is_not_paid_for_twice"]
    embedded_platform.forget_requests()
    test(embedded_platform, tmp_path / "results")
