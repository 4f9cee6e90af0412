"""Prefect 3 pipelines on IVCAP and Provena: each effect at most once, provenance recorded by itself.

`flow` and `task` are Prefect's, with their runs recorded; `recorded` records any other function. `annotate` adds to
the record, `once` keeps a value for all attempts of a run, and `wait_or_park` waits for orders and jobs without a
worker. The tasks are in `ivcap_flows.tasks`, the credentials blocks in `ivcap_flows.blocks`, the values that tasks
return in `ivcap_flows.handles`, and the errors in `ivcap_flows.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
    from ivcap_flows.capture import annotate, aonce, once, recorded
    from ivcap_flows.capture.drop_ins import flow, task
    from ivcap_flows.tasks.parking import await_or_park, wait_or_park

__all__ = [
    "IvcapCredentials",
    "ProvenaCredentials",
    "__version__",
    "annotate",
    "aonce",
    "await_or_park",
    "flow",
    "once",
    "recorded",
    "task",
    "wait_or_park",
]

__version__ = "0.1.0"

_HOMES = {
    "IvcapCredentials": "ivcap_flows.blocks",
    "ProvenaCredentials": "ivcap_flows.blocks",
    "annotate": "ivcap_flows.capture",
    "aonce": "ivcap_flows.capture",
    "await_or_park": "ivcap_flows.tasks.parking",
    "flow": "ivcap_flows.capture.drop_ins",
    "once": "ivcap_flows.capture",
    "recorded": "ivcap_flows.capture",
    "task": "ivcap_flows.capture.drop_ins",
    "wait_or_park": "ivcap_flows.tasks.parking",
}


def __getattr__(name: str) -> Any:
    # The embedded platforms and their runners import the package without Prefect.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
