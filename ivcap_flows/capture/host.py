"""The kind of host that a process runs on, and its container image, as the host itself shows them. No network."""

from __future__ import annotations

import os
import platform
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ivcap_flows.secrets import scrub_text

__all__ = ["host"]

PODMAN: Final = Path("/run/.containerenv")
DOCKER: Final = Path("/.dockerenv")
_APPTAINER: Final = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
"""The variables in which Apptainer and Singularity pass the image file to a process."""
_JOBS: Final = {"SLURM_JOB_ID": "slurm", "PBS_JOBID": "pbs", "LSB_JOBID": "lsf"}
"""Variables that batch systems set in a job, and the names of the systems."""
_CI_IMAGE: Final = "CI_JOB_IMAGE"
"""The variable in which GitLab passes the image of a job."""
_IMAGE: Final = re.compile(r'^image="([^"]+)"', re.MULTILINE)


@lru_cache(maxsize=1)
def host() -> dict[str, Any]:
    """Return what is known of the host, without the facts that are not known.

    `host_kind` is what holds the process: `kubernetes`, `apptainer`, `podman`, `docker` or `machine`. `batch_system`
    and `container_image` are present if they are known. `machine` and `system` have Python's values.
    """
    podman = _text(PODMAN)
    image = next((os.environ[name] for name in (*_APPTAINER, _CI_IMAGE) if os.environ.get(name)), None)
    if podman is not None and image is None:
        found = _IMAGE.search(podman)
        image = found[1] if found else None
    facts = {
        "host_kind": _kind(in_podman=podman is not None),
        "batch_system": next((kind for name, kind in _JOBS.items() if os.environ.get(name)), None),
        "container_image": scrub_text(image) if image else None,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _kind(*, in_podman: bool) -> str:
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if any(os.environ.get(name) for name in _APPTAINER):
        return "apptainer"
    if in_podman:
        return "podman"
    return "docker" if DOCKER.exists() else "machine"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
