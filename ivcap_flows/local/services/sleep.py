"""Waits, then says how long."""

from __future__ import annotations

import time
from typing import Any

from ivcap_flows.local.service import ServiceJob

__all__ = ["run"]


def run(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    seconds = float(request["seconds"])
    job.log(f"sleeping for {seconds:g} s")
    time.sleep(seconds)
    return {"seconds": seconds}
