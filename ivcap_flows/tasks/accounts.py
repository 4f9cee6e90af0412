"""Which credentials a task uses that was given none: those of its flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ivcap_flows.capture.prefect_context import flow_context
from ivcap_flows.journal import OpenedAttempt

__all__ = ["credentials_of"]


def credentials_of(platform: Literal["ivcap", "provena"], given: Any, attempt: OpenedAttempt | None) -> Any:
    """Return the credentials that a task was given; else the parameter of its flow that has the platform's name.

    A subflow without such a parameter has that of the run's outermost flow. Return None if there is none, or if it is
    None: then the environment says which credentials there are.
    """
    if given is not None:
        return given
    flow = flow_context()
    own = (flow.parameters or {}).get(platform) if flow is not None else None
    if own is not None or attempt is None:
        return own
    # Of a block, the record has the name.
    outermost = attempt.run.parameters.get(platform)
    return outermost.get("name") if isinstance(outermost, Mapping) else outermost
