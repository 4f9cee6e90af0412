"""The installed packages: whether their versions are known to work."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from ivcap_flows.cli.checks import Wrong

__all__ = ["check_packages"]


def check_packages() -> list[str]:
    """Compare the versions that pip chose with the ranges that are known to work."""
    wrong = []
    for text in requires("ivcap-flows") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} is outside {wanted.specifier}")
    if wrong:
        return [Wrong("; ".join(wrong) + ". Reinstall with `pip install --upgrade ivcap-flows`.")]
    return [f"ivcap-flows {version('ivcap-flows')}, prefect {version('prefect')}, Python {platform.python_version()}"]
