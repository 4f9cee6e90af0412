"""Each Python block of the pages runs on the embedded platforms."""

from __future__ import annotations

import inspect
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from docs_pages import PAGES, ROOT, Block, blocks

from ivcap_flows.capture import use_journal
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import place_order

README = ROOT / "README.md"
SERVICE = ROOT / "docs" / "how-to" / "run-a-service-locally.md"
LINEAGE = ROOT / "docs" / "explanation" / "provenance.md"
MODEL_RUNS = [ROOT / "docs" / "how-to" / f"register-{name}.md" for name in ("a-model-run", "many-model-runs")]
BACK_UP = ROOT / "docs" / "how-to" / "back-up-a-journal.md"
DATASET_FILES = ROOT / "docs" / "how-to" / "move-dataset-files.md"
WITH_OWN_TESTS = (README, SERVICE, LINEAGE, BACK_UP, DATASET_FILES, *MODEL_RUNS)

ALL = [
    pytest.param(block, test, id=f"{block} {test}".strip())
    for page in PAGES
    if page not in WITH_OWN_TESTS
    for block in blocks(page, "python")
    for test in re.findall(r"^def (test_\w+)", block.text, re.MULTILINE) or [""]
]
"""The blocks, and each test in them."""

pytestmark = pytest.mark.xdist_group("docs")


@pytest.fixture(autouse=True)
def folder(
    prefect_api: None,
    quick_polls: None,
    embedded_platform: Any,
    ivcap_journal: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Where an example runs, as a user would run it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py"])
    return tmp_path


def run(block: Block, folder: Path) -> dict[str, Any]:
    path = folder / "example.py"
    path.write_text(block.text, encoding="utf-8")
    return runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(("block", "test"), ALL)
def test_example_runs(block, test, folder, request):
    """A block runs as a script; a test in it passes with the fixtures that it asks for."""
    defined = run(block, folder)
    if test:
        given = inspect.signature(defined[test]).parameters
        defined[test](**{fixture: request.getfixturevalue(fixture) for fixture in given})


def test_the_first_flow_says_what_the_readme_promises(folder, capsys, monkeypatch, embedded_platform):
    """README.md shows one flow, which prints what `echo` answered, and its test, which passes."""
    hello, test = blocks(README, "python")
    assert hello.text.startswith("# hello.py")
    run(hello, folder)
    assert "Good day" in capsys.readouterr().out
    (folder / "hello.py").write_text(hello.text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    embedded_platform.forget_requests()
    with Journal.open(f"sqlite:///{folder / 'test.sqlite'}") as journal, use_journal(journal):
        run(test, folder)["test_a_lost_reply_costs_nothing"](embedded_platform, journal)


def test_the_readme_is_short():
    """It says what the project is, and leads on."""
    assert len(README.read_text(encoding="utf-8").split()) <= 600


def test_the_service_of_the_how_to_works(folder, embedded_platform):
    """The definition, the function and the flow of that page fit together."""
    code, flow = blocks(SERVICE, "python")
    definition = blocks(SERVICE, "yaml")[0]
    (folder / "setup.cfg").touch()
    (folder / "services").mkdir()
    (folder / "services" / "upper.py").write_text(code.text, encoding="utf-8")
    path = folder / "services" / "upper.yaml"
    path.write_text(definition.text, encoding="utf-8")
    embedded_platform.register(path)
    (folder / "words.txt").write_text("quiet ", encoding="utf-8")
    shout = run(flow, folder)["shout"]
    done = shout(folder / "words.txt", folder / "loud.txt")
    assert Path(done).read_text(encoding="utf-8") == "QUIET QUIET "


def test_a_journal_that_is_put_back_finds_what_was_ordered_since(folder, embedded_platform, monkeypatch):
    """The functions of the page copy a journal in use, with its key; an order of after the copy is not placed again,
    though its parameter is a secret."""
    (block,) = blocks(BACK_UP, "python")
    path = folder / "flows.sqlite"
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{path}")

    def order(message: str) -> str:
        return str(
            place_order.fn("echo", {"message": f"{folder} https://me:{message}@example.org"}, once_per="account").urn
        )

    with Journal.open(f"sqlite:///{path}") as journal, use_journal(journal):
        before = order("before-the-copy")
        functions = run(block, folder)
        since = order("since-the-copy")
    assert {each.name for each in (folder / "backup").iterdir()} == {"flows.sqlite", "flows.sqlite.key"}
    functions["put_back"](folder / "backup", path)
    with Journal.open(f"sqlite:///{path}") as journal, use_journal(journal):
        assert [row.urn for row in journal.intents.where()] == [before]
        assert (order("before-the-copy"), order("since-the-copy")) == (before, since)
    assert len(embedded_platform.requests("POST", "/1/orders")) == 2


def test_the_workflow_of_the_how_to_registers_one_and_many(folder, embedded_platform):
    """The file that the first of the two pages shows is what both register by."""
    (folder / "echo.yaml").write_text(blocks(MODEL_RUNS[0], "yaml")[0].text, encoding="utf-8")
    for page, runs in zip(MODEL_RUNS, (1, 3), strict=True):
        embedded_platform.forget_requests()
        [block] = blocks(page, "python")
        run(block, folder)
        asked = [each["path"] for each in embedded_platform.requests("POST")]
        assert len([path for path in asked if path.endswith("/mint-dataset")]) == runs
        # A model, a dataset template, a workflow template and, unless another page did, an owner: once for both pages.
        assert len([path for path in asked if path.endswith("/create")]) in ((3, 4) if runs == 1 else (0,))


def test_lineage_of_the_explanation_is_there(folder, ivcap_journal):
    """The page on provenance says that the cleaned file leads to the raw one; it does."""
    from ivcap_flows.provenance import Graph
    from ivcap_flows.sinks import run_graph

    (block,) = blocks(LINEAGE, "python")
    run(block, folder)
    [run_row] = ivcap_journal.runs.recent()
    graph: Graph = run_graph(ivcap_journal, run_row.id)
    files = {Path(node.attributes["path"]).name: node.id for node in graph.nodes.values() if node.type == "file"}
    assert files["raw.csv"] in graph.lineage(files["clean.csv"], "up").nodes


@pytest.mark.long
def test_files_of_a_dataset_are_moved_as_the_how_to_says(s3_platform, folder, monkeypatch):
    """Its flows run on embedded platforms that have an S3 server."""
    for name, value in s3_platform.environment.items():
        if not name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    (block,) = blocks(DATASET_FILES, "python")
    run(block, folder)


def test_the_examples_were_found():
    """The list of blocks is not empty by mistake."""
    assert len(ALL) > 5 and {Path(param.values[0].page).name for param in ALL} >= {"test-your-flows.md"}
