"""`ivcap-flows init`: write a project that runs: a flow, a service, a test, and deployments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ivcap_flows.cli.output import console, writing
from ivcap_flows.errors import InputError
from ivcap_flows.identity import is_utf8

__all__ = ["FILES", "init"]

FILES: Final = {
    "flow.py": '''"""A first flow: it uploads a text, orders a service, and downloads what the service made."""

from pathlib import Path

from ivcap_flows import flow
from ivcap_flows.handles import LocalFile
from ivcap_flows.tasks import download_products, run_order, upload_artifact


@flow
def shout(
    text: Path = Path("hello.txt"), output: Path = Path("results"), ivcap: str | None = None
) -> dict[str, LocalFile]:
    """Order a text in capitals.

    Args:
        text: A text file.
        output: Folder for the result.
        ivcap: Name of the saved block whose IVCAP is used; without it, the environment says which.
    """
    done = run_order("shout", {"text": upload_artifact(text)})
    return download_products(done, output)
''',
    "hello.txt": "hello\n",
    "services/shout.yaml": """# The service as the embedded IVCAP runs it; on the real one, it is a container.
name: shout
description: The text in capitals, as the product shout.txt.
entry: services.shout:run
parameters:
  - {name: text, type: artifact, description: A text.}
""",
    "services/shout.py": '''"""The service of the flow, as a function for the embedded IVCAP."""

from typing import Any


def run(request: dict[str, Any], job: Any) -> dict[str, int]:
    """Make a product of the artifact; what is returned is the result of the job."""
    text = job.read_artifact(request["text"])
    job.add_product("shout.txt", text.upper(), "text/plain")
    return {"length": len(text)}
''',
    "conftest.py": '''"""Prefect and the embedded platforms for the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ivcap_flows.journal import Journal
from ivcap_flows.local import PlatformControl
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session", autouse=True)
def prefect() -> Iterator[None]:
    quiet = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with prefect_test_harness(server_startup_timeout=120), quiet:
        yield


@pytest.fixture
def platform(embedded_platform: PlatformControl, ivcap_journal: Journal) -> PlatformControl:
    embedded_platform.register(Path(__file__).parent / "services/shout.yaml")
    return embedded_platform
''',
    "test_flow.py": '''"""The flow, on the embedded platforms."""

from pathlib import Path

from flow import shout
from ivcap_flows.local import PlatformControl


def test_a_lost_reply_is_not_paid_for_twice(platform: PlatformControl, tmp_path: Path) -> None:
    platform.add_fault(method="POST", path="/1/orders$", count=1, drop_reply_after_effect=True)
    made = shout(Path(__file__).with_name("hello.txt"), output=tmp_path)
    assert Path(made["shout.txt"]).read_text() == "HELLO\\n"
    assert len(platform.requests("POST", "/1/orders")) == 1
''',
    "prefect.yaml": """# The flow as a deployment.
#
#   prefect work-pool create ivcap-flows --type process
#   prefect --no-prompt deploy --all
#   prefect worker start --pool ivcap-flows
name: first-flow
# Where the worker finds the flow, and where its results are. For a worker on another machine, let it clone the project:
# `prefect.deployments.steps.git_clone`.
pull:
  - prefect.deployments.steps.set_working_directory: {{directory: {folder}}}

deployments:
  - name: shout
    entrypoint: flow.py:shout
    work_pool: {{name: ivcap-flows}}
""",
    ".env.example": """# Copy it to .env, fill it in, and have your shell read it: set -a; . ./.env; set +a
# Without it, the embedded platforms are used.
IVCAP_URL=https://ivcap.example.org
# Or a block, which renews its login: ivcap-flows login URL --block prod
IVCAP_JWT=
PREFECT_API_URL=http://127.0.0.1:4200/api
""",
    ".gitignore": ".env\nivcap-artifacts/\nresults/\n__pycache__/\n",
    "pyproject.toml": """[project]
name = "first-flow"
version = "0.1.0"
requires-python = ">=3.10"
dependencies = ["ivcap-flows", "pytest"]
""",
    "README.md": """# First flow

```console
pytest                                              # with a reply that is lost on purpose
ivcap-flows local register services/shout.yaml      # once, with the embedded IVCAP
ivcap-flows run flow.py:shout
ivcap-flows trace results/shout.txt
```

Stop the run with Ctrl-C while it waits, and start it again: it continues, and orders nothing twice.
`ivcap-flows plan flow.py:shout` says what a run would order. For the real IVCAP, fill in `.env.example`; to deploy the
flow, see `prefect.yaml`, and the package's guide "Deploy with a worker" for what operates it.
""",
}
"""What each file has. `{folder}` stands for the project's folder in `prefect.yaml`."""


def init(folder: Path = Path(), /) -> None:
    """Write a project that runs: a flow, a service, a test, deployments and a README. Nothing is replaced.

    Args:
        folder: Where to. Default: the current folder.
    """
    place = str(folder.resolve())
    if not is_utf8(place):
        raise InputError(f"The path {place} is not UTF-8, as prefect.yaml must be. Name another folder.")
    if "{{" in place:
        raise InputError(f"Prefect would take the braces in the path {place} for a variable. Name another folder.")
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise InputError(f"{folder / there[0]} exists. Name another folder: `ivcap-flows init FOLDER`.")
    for name, text in FILES.items():
        path = folder / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A text of JSON is one of YAML.
            filled = text.format(folder=json.dumps(place)) if name == "prefect.yaml" else text
            path.write_text(filled, encoding="utf-8")
    console.print(f"A flow, its service and a test are in {place}; README.md there says how to run them.")
