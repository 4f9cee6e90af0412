"""What containers run: the image's instructions, and the template of pods in Kubernetes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from importlib.metadata import metadata
from pathlib import Path

import prefect.server.api.collections_data.views as views
import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deployments/Dockerfile"
TEMPLATE = ROOT / "deployments/kubernetes.json"


def instructions(name: str) -> list[list[str]]:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{name} ")]


def test_the_image_is_made_of_what_there_is() -> None:
    """What is copied exists, what is installed is offered, and a flow does not run as root."""
    offered = metadata("ivcap-flows").get_all("Provides-Extra") or []
    copied = [source for *sources, _ in instructions("COPY") for source in sources]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    [install] = [words for words in instructions("RUN") if words[0] == "pip"]
    extras = re.search(r"\[(.*)\]", install[-1])
    assert extras is not None and set(extras.group(1).split(",")) <= set(offered)
    assert instructions("USER") == [["flows"]]
    assert 'CMD ["ivcap-flows", "doctor"]' in DOCKERFILE.read_text(encoding="utf-8")


@pytest.mark.long
def test_the_package_builds_from_what_the_image_copies(tmp_path: Path) -> None:
    for *sources, target in instructions("COPY"):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, tmp_path / source)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", "made"], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("made/*.whl"))) == 1


def test_the_template_is_prefects_own_with_a_secret_and_time_to_end() -> None:
    known = json.loads(Path(*views.__path__, "aggregate-worker-metadata.json").read_text(encoding="utf-8"))
    theirs = known["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    ours = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    pod = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert pod.pop("terminationGracePeriodSeconds") == 60
    assert pod["containers"][0].pop("envFrom") == [{"secretRef": {"name": "{{ secret }}"}}]
    variables = ours["variables"]["properties"]
    assert variables.pop("secret")["default"] == variables["image"].pop("default") == "ivcap-flows"
    ours["variables"]["description"] = theirs["variables"]["description"]
    assert ours == {name: theirs[name] for name in ours}


@pytest.mark.long
def test_a_server_takes_the_template(prefect_server: dict[str, str]) -> None:
    name = f"cluster-{uuid.uuid4()}"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "work-pool"]
    for words in (["create", name, "--type", "kubernetes", "--base-job-template", str(TEMPLATE)], ["delete", name]):
        asked = subprocess.run([*command, *words], env=prefect_server, capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stdout + asked.stderr
