"""Each command of the pages that can run on one machine does, in a copy of the repository, as a user would type it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, Block, blocks, name

from ivcap_flows.local import ensure

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200), pytest.mark.xdist_group("console")]

ON_THE_WEB = r"ivcap-flows login|prod\b|develop|ivcap context|PROVENA_|curl|example\.org|noaa\.gov"
"""What is only in blocks that need a platform on the web."""

ELSEWHERE = {
    r"pip install|make install|createdb": "sets up the machine",
    r"pg_dump|pg_restore": "a PostgreSQL server of the user's",
    r"docker|kubectl|kubernetes|containers": "containers",
    r"(worker|server) start|(task|local) serve|state\.env|flows watch|moto_server": "a server, which tests/e2e starts",
    r"deployment run|automation|\$BLOCK_ID|--like production": "a deployment, which tests/e2e runs",
    r"4f0c1e9a77b2d310": "a doubt, which tests/cli settles",
    r"upgrade --undo": "an upgraded journal, which tests/cli/test_upgrade.py has",
    r"102\.100\.100|runs\.csv|--orders-of": "a batch, which tests/cli registers",
    r"my-service|service\.py|service\.json|services/upper": "a service, which tests/docs/test_examples.py writes",
    r"register_runs\.py": "tests/flows/test_register_runs.py",
    r"--terms terms\.yaml": "terms, which tests/cli/test_export.py gives",
    r"DASK_": "a setting of Dask",
}
"""Lines that do not run here: what they need, or which test runs them."""

FIRST = ("README.md", "docs/how-to/run-an-order-pipeline.md", "docs/tutorial/coastal-el-nino.md")
"""Pages whose results others read."""

BLOCKS = [
    block
    for page in sorted(PAGES, key=lambda page: (FIRST.index(name(page)) if name(page) in FIRST else 9, name(page)))
    if name(page) != "docs/reference/cli.md"
    for block in blocks(page, "console", "sh", "bash")
]


def commands(block: Block) -> list[str]:
    """The commands of a block that run here."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if re.search(ON_THE_WEB, block.text):
        return []
    return [line for line in lines if line.strip() and not any(re.search(why, line) for why in ELSEWHERE)]


@pytest.fixture(scope="module")
def typed(prefect_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A function that runs a script of commands in a copy of the repository, and returns what it printed. The
    embedded platforms that this started end with it."""
    folder = tmp_path_factory.mktemp("repository")
    for each in ("flows", "deployments"):
        shutil.copytree(ROOT / each, folder / each, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venv").symlink_to(sys.prefix)
    for code in blocks(ROOT / "README.md", "python"):
        (folder / code.text.splitlines()[0].removeprefix("# ")).write_text(code.text, encoding="utf-8")
    foreign = ("IVCAP", "PROVENA_", "PREFECT_")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
        **prefect_server,
        "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder / 'journal.sqlite'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BROWSER": "true",
    }

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    yield run
    ensure(folder / "ivcap-artifacts").end_with_jobs()


@pytest.mark.parametrize("block", [block for block in BLOCKS if commands(block)], ids=str)
def test_the_commands_of_a_page_run(typed: Callable[[str], str], block: Block) -> None:
    """With exit status 0, one after the other; a table with a mistake is refused."""
    script = "\n".join(commands(block)).replace(":/data/", ":data/").replace("pool create", "pool create --overwrite")
    script = re.sub(r"(.*source=results/spoiled\.csv)", r"! \1", script)
    typed(script.replace("http://127.0.0.1:4200/api", "$PREFECT_API_URL"))


def test_each_reason_is_one() -> None:
    """No reason outlives the lines that it is for, and most blocks run."""
    text = "\n".join(block.text for block in BLOCKS)
    assert [why for why in (ON_THE_WEB, *ELSEWHERE) if not re.search(why, text)] == []
    assert sum(bool(commands(block)) for block in BLOCKS) > 20
